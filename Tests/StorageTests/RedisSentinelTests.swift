import Foundation
import Testing
import Wire

@testable import Storage

@Suite(.serialized) struct RedisWithSentinels {
    @Test func areReadFromAnAddress() throws {
        let address = try RedisAddress(
            parsing:
                "redis+sentinel://app:p%40ss@one,two:1234,[::1]:5/my%20master/3?sentinel_password=x&sentinel_user=y")
        let hosts = [
            RedisAddress.Host(name: "one", port: 26_379), RedisAddress.Host(name: "two", port: 1_234),
            RedisAddress.Host(name: "::1", port: 5),
        ]
        let sentinels = RedisAddress.Sentinels(hosts: hosts, master: "my master", user: "y", password: "x")
        #expect(address.endpoint == .sentinels(sentinels))
        #expect(address.user == "app" && address.password == "p@ss" && address.database == 3)
        #expect("\(address)" == "redis+sentinel://app:***@one:26379,two:1234,[::1]:5/my master/3")
        for (text, problem) in [
            ("redis+sentinel://one", RedisAddress.ParseError.master), ("redis+sentinel://one/", .master),
            ("redis+sentinel://one/a/b/c", .master), ("redis+sentinel://one,/a", .host),
            ("redis+sentinel:///a", .host), ("redis+sentinel://one:0/a", .port),
            ("redis+sentinel://one/a/x", .database),
            ("redis+sentinel://one/a?db=1", .query), ("rediss+sentinel://one/a", .scheme),
        ] {
            #expect(throws: problem, "\(text)") { try RedisAddress(parsing: text) }
        }
    }

    /// The master dies; sentinels choose the replica; the client finds it.
    @Test func followAFailover() throws {
        let first = try RedisServer()
        let second = try RedisServer(["--replicaof", "127.0.0.1", String(first.port)])
        let direct = Connected(try first.address())
        try direct.waitUntilUp()
        #expect(try direct.reply("SET", "k", "v") == .success(.status("OK")))
        #expect(try direct.reply("WAIT", "1", "20000") == .success(.integer(1)))
        direct.client.close()
        let sentinel = try Sentinel(watching: first)
        let redis = Connected(
            // Nobody answers at the first of them.
            try RedisAddress(parsing: "redis+sentinel://127.0.0.1:1,127.0.0.1:\(sentinel.port)/main"))
        defer { redis.client.close() }
        try redis.waitUntilUp()
        #expect(try redis.reply("GET", "k") == .success(.bytes(Array("v".utf8))))
        first.kill()
        try redis.waitUntilDown()
        try redis.states.wait("up on the other one") { $0.last == .up && $0.contains { $0 != .up } }
        #expect(
            try redis.reply("CONFIG", "GET", "port").get().arrayValue?.last?.bytesValue == Array("\(second.port)".utf8))
        #expect(try redis.reply("SET", "k", "w") == .success(.status("OK")))
    }

    /// A master that became a replica is left at once.
    @Test func leaveAReplica() throws {
        let first = try RedisServer()
        let second = try RedisServer()
        let redis = Connected(try first.address())
        defer { redis.client.close() }
        try redis.waitUntilUp()
        let other = Connected(try first.address())
        defer { other.client.close() }
        try other.waitUntilUp()
        _ = try other.reply("REPLICAOF", "127.0.0.1", .integer(Int64(second.port))).get()
        guard case .failure(.server(let error)) = try redis.reply("SET", "k", "v") else {
            Issue.record("a write to a replica")
            return
        }
        #expect(error.code == "READONLY")
        try redis.waitUntilDown { $0 == .refused(code: "READONLY") }
    }

    /// What is no sentinel's answer is no address.
    @Test(arguments: [
        "*-1\r\n", "$2\r\nno\r\n", "*2\r\n$9\r\n127.0.0.1\r\n$1\r\n0\r\n", "*2\r\n$1\r\n\u{0}\r\n$2\r\n80\r\n",
        "-ERR secret\r\n", "HTTP/1.1 400\r\n\r\n", "*1\r\n$1\r\nx\r\n",
    ])
    func takeNoOtherAnswers(_ text: String) throws {
        let listener = try Listener()
        listener.serve { _, fd in
            _ = Listener.receive(from: fd)
            Listener.send(text, to: fd)
        }
        defer { listener.stop() }
        let redis = Connected(try RedisAddress(parsing: "redis+sentinel://127.0.0.1:\(listener.port)/main"))
        defer { redis.client.close() }
        let reason = try redis.waitUntilDown { if case .unknownHost = $0 { true } else { false } }
        #expect(!"\(reason)".contains("secret"))
    }

    /// It is not a client for a cluster: says so, and counts it.
    @Test(arguments: ["MOVED", "ASK"]) func countRedirections(_ word: String) throws {
        let listener = try Listener()
        listener.serve { _, fd in
            _ = Listener.receive(from: fd)
            Listener.send("+PONG\r\n", to: fd)
            while Listener.receive(from: fd) != nil { Listener.send("-\(word) 3999 127.0.0.1:6381\r\n", to: fd) }
        }
        defer { listener.stop() }
        let redis = Connected(try RedisAddress(parsing: "redis://127.0.0.1:\(listener.port)"))
        defer { redis.client.close() }
        try redis.waitUntilUp()
        for _ in 0..<2 {
            guard case .failure(.server(let error)) = try redis.reply("GET", "k") else {
                Issue.record("it was taken for an answer")
                return
            }
            #expect(error == RedisError(code: word, message: "3999 127.0.0.1:6381"))
        }
        // The first has been counted by the time of the second.
        #expect(redis.client.counters.redirections >= 1)
    }
}

/// A sentinel of this test's own.
final class Sentinel {
    let port: UInt16
    private let scratch: Scratch
    private let child: Child

    init(watching server: RedisServer) throws {
        scratch = try Scratch()
        port = try Listener().port
        let file = scratch.file("sentinel.conf")
        try """
        port \(port)
        bind 127.0.0.1
        dir \(scratch.path)
        sentinel monitor main 127.0.0.1 \(server.port) 1
        sentinel down-after-milliseconds main 300
        sentinel failover-timeout main 2000

        """.write(toFile: file, atomically: true, encoding: .utf8)
        child = try Child("redis-server", [file, "--sentinel"])
    }

    deinit { child.kill() }
}
