import Foundation
import Glibc
import Testing
import Wire

@testable import Storage

/// A client with what it heard.
private final class Listening {
    let client: RedisClient
    let pushes = Journal<RedisPush>()
    let states = Journal<RedisState>()

    init(_ address: RedisAddress, _ change: (inout RedisClient.Configuration) -> Void = { _ in }) {
        var configuration = RedisClient.Configuration(address: address)
        configuration.stallTimeout = .seconds(20)
        configuration.silenceTimeout = .seconds(40)
        change(&configuration)
        client = RedisClient(
            configuration, onState: { [states] in states.append($0) }, onPush: { [pushes] in pushes.append($0) })
    }

    deinit { client.close() }

    func waitUntilUp() throws { try states.wait("up") { $0.last == .up } }

    func reply(_ command: RedisArgument...) throws -> RedisReply {
        let result: Result<RedisReply, RedisFailure> = try answer {
            client.submit(command, deadline: .seconds(20), completion: $0)
        }
        return try result.get()
    }

    func messages(_ channel: String) -> [String] {
        pushes.all.compactMap {
            guard case .message(let name, let bytes) = $0, name == Array(channel.utf8) else { return nil }
            return String(decoding: bytes, as: UTF8.self)
        }
    }
}

@Suite(.serialized) struct RedisSubscriptionsOfAClient {
    private let news = Array("news".utf8)

    @Test func hearTheirChannels() throws {
        let server = try RedisServer()
        let ann = Listening(try server.address())
        try ann.waitUntilUp()
        ann.client.subscribe(news, token: 7)
        ann.client.subscribe(Array("\u{0}\r\n".utf8), token: 8)
        try ann.pushes.wait("subscribed") { $0.count == 2 }
        #expect(ann.pushes.all.contains(.subscribed(channel: news, token: 7)))
        #expect(try ann.reply("PUBLISH", "news", "one") == .integer(1))
        #expect(try ann.reply("PUBLISH", .bytes(Array("\u{0}\r\n".utf8)), .bytes([0, 13, 10])) == .integer(1))
        #expect(try ann.reply("PUBLISH", "other", "two") == .integer(0))
        try ann.pushes.wait("messages") { $0.count == 4 }
        #expect(ann.messages("news") == ["one"] && ann.messages("\u{0}\r\n") == ["\u{0}\r\n"])
        ann.client.unsubscribe(news)
        // Its own connection; the last word on it is the new subscription.
        ann.client.subscribe(Array("end".utf8), token: 9)
        try ann.pushes.wait("the end") { $0.last == .subscribed(channel: Array("end".utf8), token: 9) }
        #expect(try ann.reply("PUBLISH", "news", "three") == .integer(0))
    }

    @Test func comeBackAfterEachLoss() throws {
        let server = try RedisServer()
        let ann = Listening(try server.address())
        try ann.waitUntilUp()
        ann.client.subscribe(news, token: 1)
        try ann.pushes.wait("subscribed") { $0.count == 1 }
        for round in 1...3 {
            _ = try ann.reply("CLIENT", "KILL", "TYPE", "pubsub")
            try ann.pushes.wait("subscribed again") { $0.count == 1 + 3 * round - 1 }
            #expect(ann.pushes.all.suffix(2) == [.lost, .subscribed(channel: news, token: 1)])
            #expect(try ann.reply("PUBLISH", "news", .integer(Int64(round))) == .integer(1))
            try ann.pushes.wait("a message") { $0.count == 1 + 3 * round }
        }
        #expect(ann.messages("news") == ["1", "2", "3"])
        server.kill()
        try ann.pushes.wait("a loss") { $0.last == .lost }
        ann.client.subscribe(Array("late".utf8), token: 2)
        try server.start()
        try ann.pushes.wait("both again") {
            $0.suffix(2).allSatisfy { if case .subscribed = $0 { true } else { false } }
        }
    }

    /// A new token is a new subscription, whatever is still under way of the one before.
    @Test func tellOneSubscriptionFromAnother() throws {
        let server = try RedisServer()
        let ann = Listening(try server.address())
        try ann.waitUntilUp()
        for token in 1...50 as ClosedRange<UInt64> {
            ann.client.subscribe(news, token: token)
            ann.client.unsubscribe(news)
        }
        ann.client.subscribe(news, token: 51)
        try ann.pushes.wait("the last") { $0.last == .subscribed(channel: news, token: 51) }
        #expect(try ann.reply("PUBLISH", "news", "x") == .integer(1))
    }

    @Test func areToldThatTheyMayNot() throws {
        let server = try RedisServer(["--user", "app", "on", ">word", "~*", "+@all", "resetchannels", "&open"])
        let ann = Listening(try server.address("app:word@"))
        try ann.waitUntilUp()
        ann.client.subscribe(news, token: 1)
        ann.client.subscribe(Array("open".utf8), token: 2)
        let pushes = try ann.pushes.wait("both") { $0.count == 2 }
        #expect(pushes.contains(.subscribed(channel: Array("open".utf8), token: 2)))
        let codes = pushes.compactMap {
            guard case .refused(news, token: 1, let error) = $0 else { return nil as String? }
            return error.code
        }
        #expect(codes == ["NOPERM"])
    }

    /// What is no message ends the connection, and does no more harm.
    @Test(arguments: [
        "*1\r\n$7\r\nmessage\r\n", "*3\r\n$7\r\nmessage\r\n:1\r\n:2\r\n", "*2\r\n$8\r\npmessage\r\n$1\r\nx\r\n",
        "*0\r\n", "*1\r\n:1\r\n", "*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n", "+OK\r\n",
    ])
    func surviveNonsense(_ text: String) throws {
        let listener = try Listener()
        listener.serve { _, accepted in
            // The one for commands and the one that listens, in whichever order; each is greeted.
            let fd = dup(accepted)
            Thread.detachNewThread {
                defer { Glibc.close(fd) }
                guard let first = Listener.receive(from: fd), first.contains("PING") else { return }
                Listener.send("+PONG\r\n", to: fd)
                guard let next = Listener.receive(from: fd), next.contains("SUBSCRIBE") else { return }
                Listener.send("*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n" + text, to: fd)
                Listener.drain(fd)
            }
        }
        let ann = Listening(try RedisAddress(parsing: "redis://127.0.0.1:\(listener.port)"))
        defer { listener.stop() }
        ann.client.subscribe(news, token: 1)
        try ann.pushes.wait("a second loss") { $0.filter { $0 == .lost }.count == 2 }
        // The first one has been counted by then.
        #expect(ann.client.counters.violations >= 1)
    }
}
