import CSQLite
import Engine
import Foundation
import Glibc
import Replay
import Storage
import Testing

@testable import ReplayHost

/// What a host sees of one event.
private struct Seen {
    struct Message: Equatable {
        let data: [UInt8]
        let isText: Bool
    }

    let event: ReplayEvent
    let position: [UInt8]
    let data: [UInt8]
    let messages: [Message]
}

/// A host with one buffer, one thing at a time.
private final class Host {
    let buffer: ReplayBuffer
    private var seen: [Seen] = []
    private var lastTag: UInt64 = 0

    init(_ store: String? = nil, compresses: Bool, _ change: (inout Settings) -> Void = { _ in }) throws {
        var settings = Settings()
        settings.store = store
        settings.compresses = compresses
        // No test depends on how fast a store is.
        settings.storeTimeout = .seconds(30)
        settings.rooms.window = 1_000
        change(&settings)
        buffer = try ReplayBuffer.create(settings)
    }

    deinit { _ = buffer.destroy() }

    func next(_ isWanted: (ReplayEvent) -> Bool) throws -> Seen {
        while true {
            if let index = seen.firstIndex(where: { isWanted($0.event) }) { return seen.remove(at: index) }
            let batch = try #require(try buffer.poll(max: 100, milliseconds: 10_000))
            for part in batch.parts {
                let bytes = part.chunk.bytes.copied()
                func text(_ extent: Extent) -> [UInt8] { Array(bytes[Int(extent.offset)...].prefix(Int(extent.count))) }
                for index in part.events {
                    let event = part.chunk.events[index]
                    let messages = part.chunk.messages[Int(event.firstMessage)...].prefix(Int(event.messageCount))
                    seen.append(
                        Seen(
                            event: event, position: text(event.position), data: text(event.data),
                            messages: messages.map { Seen.Message(data: text($0.data), isText: $0.isText) }))
                }
            }
            #expect(buffer.release(batch.number) == .ok)
        }
    }

    func live() throws -> Seen { try next { $0.kind == .message } }

    private func done(_ body: (Core, UInt64) throws(Failure) -> Void) throws -> Seen {
        lastTag += 1
        let tag = lastTag
        try buffer.submit { core throws(Failure) in try body(core, tag) }
        return try next { $0.tag == tag }
    }

    func subscribe(_ room: String = "room") throws {
        _ = try done { core, tag throws(Failure) in try core.subscribe(room, tag: tag) }
    }

    func join(_ user: String, _ room: String = "room") throws -> Seen {
        try done { core, tag throws(Failure) in try core.join(room, user, tag: tag) }
    }

    func publish(_ data: [UInt8], isText: Bool = true, by user: String = "ann", _ room: String = "room") throws {
        let outcome = try done { core, tag throws(Failure) in
            var options = Core.PublishOptions()
            options.format = isText ? 1 : 2
            let (room, user, none) = (Array(room.utf8), Array(user.utf8), [UInt8]())
            try core.publish(
                room: room.span.bytes, user: user.span.bytes, to: none.span.bytes, data: data.span.bytes,
                key: none.span.bytes, options, tag: tag)
        }
        #expect(outcome.event.status == 0)
    }

    /// What `user` missed since it `joined`, or since another outcome.
    func recover(_ user: String, since joined: Seen, at later: Seen? = nil, _ room: String = "room") throws -> Seen {
        try done { core, tag throws(Failure) in
            let (room, user, position) = (Array(room.utf8), Array(user.utf8), (later ?? joined).position)
            try core.recover(
                room: room.span.bytes, user: user.span.bytes, generation: joined.event.generation,
                position: position.span.bytes, tag: tag)
        }
    }
}

private let offer: [UInt8] = {
    let tests = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    return Array((try? Data(contentsOf: tests.appendingPathComponent("SDPTests/Vectors/chromium-offer.sdp"))) ?? Data())
}()

/// Numbers that repeat with a seed.
private func noise(_ count: Int) -> [UInt8] {
    var state: UInt64 = 0x9E37_79B9
    return (0..<count).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return UInt8(truncatingIfNeeded: state >> 56)
    }
}

private let messages: [Seen.Message] =
    [offer, [], Array(offer.prefix(200)), Array(offer.prefix(201)), [UInt8](repeating: 0x61, count: 40_000)].flatMap {
        [Seen.Message(data: $0, isText: true), Seen.Message(data: $0, isText: false)]
    } + [Seen.Message(data: noise(5_000), isText: false), Seen.Message(data: noise(201), isText: false)]

/// Rooms somewhere, gone with this object.
private final class Place {
    enum Kind: String, CaseIterable { case memory, sqlite, redis }

    let store: String?
    private let scratch: Scratch
    private var server: RedisServer?
    private var connected: Connected?

    init(_ kind: Kind) throws {
        scratch = try Scratch()
        switch kind {
        case .memory: store = nil
        case .sqlite: store = "sqlite:" + scratch.file("rooms.db")
        case .redis:
            let address = "redis+unix:" + scratch.file("socket")
            store = address
            server = try RedisServer(["--unixsocket", scratch.file("socket")], scratch: scratch)
            let connected = Connected(try RedisAddress(parsing: address))
            try connected.waitUntilUp()
            self.connected = connected
        }
    }

    deinit { connected?.client.close() }

    /// Of the first row and column.
    func sqlite(_ statement: String) throws -> Int {
        var connection: OpaquePointer?
        defer { sqlite3_close(connection) }
        try #require(sqlite3_open(scratch.file("rooms.db"), &connection) == SQLITE_OK)
        sqlite3_busy_timeout(connection, 30_000)
        var prepared: OpaquePointer?
        try #require(sqlite3_prepare_v2(connection, statement, -1, &prepared, nil) == SQLITE_OK)
        defer { sqlite3_finalize(prepared) }
        let step = sqlite3_step(prepared)
        try #require(step == SQLITE_ROW || step == SQLITE_DONE)
        return step == SQLITE_ROW ? Int(sqlite3_column_int64(prepared, 0)) : 0
    }

    /// Makes the stored bytes of all messages something else: Lua's expression of `b`, or SQL's, of `payload`.
    func alter(_ kind: Kind, lua: String, sql: String) throws {
        switch kind {
        case .memory: break
        case .sqlite:
            _ = try sqlite("UPDATE messages SET payload = \(sql)")
        case .redis:
            let redis = try #require(connected)
            let script = """
                local all = redis.call('XRANGE', KEYS[1], '-', '+')
                redis.call('DEL', KEYS[1])
                for _, item in ipairs(all) do
                    local head, b = string.sub(item[2][2], 1, 66), string.sub(item[2][2], 67)
                    redis.call('XADD', KEYS[1], item[1], item[2][1], head .. \(lua))
                end
                return #all
                """
            let reply = try redis.reply("EVAL", .text(script), "1", "webrtc:reconnect:buffer:{room}")
            #expect(reply == .success(.integer(1)))
        }
    }
}

@Suite(.serialized) struct CompressedMessages {
    @Test(arguments: Place.Kind.allCases, [true, false])
    fileprivate func comeOutAsTheyWentIn(kind: Place.Kind, compresses: Bool) throws {
        try #require(offer.count > 500)
        let place = try Place(kind)
        let host = try Host(place.store, compresses: compresses)
        try host.subscribe()
        _ = try host.join("ann")
        let bob = try host.join("bob")
        for message in messages {
            try host.publish(message.data, isText: message.isText)
            let live = try host.live()
            #expect(live.data == message.data)
            #expect(live.event.format == (message.isText ? 1 : 2))
        }
        let replay = try host.recover("bob", since: bob)
        #expect(replay.event.verdict == 2)
        #expect(replay.messages == messages)
        #expect(host.buffer.reading().unreadable == 0)
        if kind == .sqlite {
            let stored = try place.sqlite("SELECT sum(length(payload)) FROM messages")
            let all = messages.reduce(0) { $0 + $1.data.count }
            #expect(compresses ? stored < all / 4 : stored == all)
            #expect(try place.sqlite("SELECT count(*) FROM messages WHERE flags & 8") == (compresses ? 6 : 0))
        }
    }

    /// Two servers with one store.
    @Test func areReadByServersThatDoNotCompress() throws {
        let place = try Place(.redis)
        let one = try Host(place.store, compresses: true)
        let other = try Host(place.store, compresses: false)
        try one.subscribe()
        try other.subscribe()
        let ann = try one.join("ann")
        let bob = try other.join("bob")
        for (index, message) in messages.enumerated() {
            try (index % 2 == 0 ? one : other).publish(
                message.data, isText: message.isText, by: index % 2 == 0 ? "ann" : "bob")
            for host in [one, other] { #expect(try host.live().data == message.data) }
        }
        let even = messages.enumerated().filter { $0.offset % 2 == 0 }.map(\.element)
        let odd = messages.enumerated().filter { $0.offset % 2 == 1 }.map(\.element)
        #expect(try other.recover("bob", since: bob).messages == even)
        #expect(try one.recover("ann", since: ann).messages == odd)
    }

    @Test func takeLessMemory() throws {
        let hosts = try [true, false].map { compresses in
            let host = try Host(compresses: compresses)
            _ = try host.join("ann")
            for _ in 0..<100 { try host.publish(offer) }
            return host.buffer.reading().bytesHeld
        }
        #expect(hosts[0] * 2 <= hosts[1], "\(hosts)")
    }

    /// Another dictionary, cut short, one byte changed, nothing: what was missed is lost, and said so.
    @Test(
        arguments: [Place.Kind.sqlite, .redis],
        [
            ("'\\9' .. string.sub(b, 2)", "CAST(x'09' || substr(payload, 2) AS BLOB)"),
            ("string.sub(b, 1, -2)", "substr(payload, 1, length(payload) - 1)"),
            (
                "string.sub(b, 1, 30) .. string.char((string.byte(b, 31) + 1) % 256) .. string.sub(b, 32)",
                "CAST(substr(payload, 1, 30) || x'00ff00' || substr(payload, 34) AS BLOB)"
            ),
            ("''", "x''"),
        ])
    fileprivate func thatWereAlteredAreLost(kind: Place.Kind, change: (lua: String, sql: String)) throws {
        let place = try Place(kind)
        let host = try Host(place.store, compresses: true)
        _ = try host.join("ann")
        let bob = try host.join("bob")
        try host.publish(offer)
        #expect(try host.recover("bob", since: bob).messages.map(\.data) == [offer])
        try place.alter(kind, lua: change.lua, sql: change.sql)
        let replay = try host.recover("bob", since: bob)
        #expect(replay.event.verdict == 4)
        #expect(replay.event.reason == LossReason.store.rawValue)
        #expect(replay.messages.isEmpty)
        #expect(host.buffer.reading().lost[Int(LossReason.store.rawValue)] == 1)
        #expect(host.buffer.reading().unreadable == 1)
        // From there on it goes on.
        try host.publish(offer)
        #expect(try host.recover("bob", since: bob, at: replay).messages.map(\.data) == [offer])
    }

    @Test func thatCannotBeReadLiveAreGaps() throws {
        let host = try Host(compresses: false)
        let room = try RoomName("room")
        let data: [[UInt8]] = [[], [1], [9, 1, 2], noise(300)]
        try host.buffer.submit { core throws(Failure) in
            for payload in data {
                core.put(
                    LiveMessage(
                        room: room, position: Position(epoch: 2, sequence: 1), from: nil, to: nil,
                        MessageProperties(.other, isCompressed: true), payload: payload))
            }
        }
        for _ in data {
            #expect(try host.next { $0.kind == .gap || $0.kind == .message }.event.kind == .gap)
        }
        #expect(host.buffer.reading().unreadable == data.count)
        #expect(host.buffer.reading().gaps == data.count)
        #expect(host.buffer.reading().live == 0)
    }

    /// A small batch must not become a large one.
    @Test func growWithinALimit() throws {
        let host = try Host(compresses: true) { $0.rooms.maximumBatchBytes = 1_000 }
        _ = try host.join("ann")
        let bob = try host.join("bob")
        for _ in 0..<4 { try host.publish([UInt8](repeating: 0x61, count: 1_000)) }
        #expect(try host.recover("bob", since: bob).messages.count == 4)
        try host.publish([0x61])
        let replay = try host.recover("bob", since: bob)
        #expect(replay.event.verdict == 4)
        #expect(replay.event.reason == LossReason.limit.rawValue)
        #expect(replay.messages.isEmpty)
        #expect(host.buffer.reading().unreadable == 0)
    }
}
