import Engine
import Foundation
import Replay
import Synchronization
import Testing

@testable import ReplayHost

/// Operations by texts.
extension Core {
    func join(_ room: String, _ user: String, tag: UInt64 = 0) throws(Failure) {
        let (room, user, none) = (Array(room.utf8), Array(user.utf8), [UInt8]())
        try join(
            room: room.span.bytes, user: user.span.bytes, position: none.span.bytes, token: none.span.bytes, flags: 0,
            tag: tag)
    }

    func publish(_ room: String, _ user: String, _ text: String, tag: UInt64 = 0) throws(Failure) {
        try admit()
        let (room, user, none, data) = (Array(room.utf8), Array(user.utf8), [UInt8](), Array(text.utf8))
        try publish(
            room: room.span.bytes, user: user.span.bytes, to: none.span.bytes, data: data.span.bytes,
            key: none.span.bytes, PublishOptions(), tag: tag)
    }

    func subscribe(_ room: String, tag: UInt64 = 0) throws(Failure) {
        let room = Array(room.utf8)
        try subscribe(room: room.span.bytes, tag: tag)
    }
}

extension ReplayBuffer {
    /// Everything that waits, given back at once.
    func drain() throws -> [ReplayEvent] {
        var events: [ReplayEvent] = []
        while let batch = try poll(max: 7, milliseconds: 0) {
            for part in batch.parts { events += part.events.map { part.chunk.events[$0] } }
            #expect(release(batch.number) == .ok)
        }
        return events
    }
}

@Suite struct ReplayBuffers {
    @Test func outcomesComeInTheOrderOfOperations() throws {
        let buffer = try ReplayBuffer.create(Settings())
        try buffer.submit { core throws(Failure) in
            try core.join("room", "ann")
            for tag in 1...10_000 as ClosedRange<UInt64> { try core.publish("room", "ann", "hello", tag: tag) }
        }
        let events = try buffer.drain()
        #expect(events.map(\.tag) == Array(0...10_000))
        #expect(events.dropFirst().map(\.sequence) == Array(1...10_000))
        #expect(buffer.reading().eventsQueued == 0)
        #expect(buffer.destroy() == .ok)
    }

    @Test func liveMessagesThatNobodyTakesAreBoundedAndTold() throws {
        var settings = Settings()
        settings.maximumPending = 1 << 20
        settings.rooms.maximumLiveEvents = 100
        let buffer = try ReplayBuffer.create(settings)
        try buffer.submit { core throws(Failure) in
            try core.subscribe("room")
            try core.join("room", "ann")
            for _ in 0..<20_000 { try core.publish("room", "ann", "hello") }
        }
        let kinds = try buffer.drain().map(\.kind)
        #expect(kinds.count { $0 == .publish } == 20_000)
        let live = kinds.count { $0 == .message }
        #expect(live > 10_000 && live < 17_000)
        #expect(kinds.count { $0 == .gap } == 1)
        // From there on they come again.
        try buffer.submit { core throws(Failure) in try core.publish("room", "ann", "again") }
        #expect(Set(try buffer.drain().map(\.kind)) == [.publish, .message])
        #expect(buffer.destroy() == .ok)
    }

    @Test func batchesStayUntilTheyAreGivenBack() throws {
        let buffer = try ReplayBuffer.create(Settings())
        try buffer.submit { core throws(Failure) in
            try core.subscribe("room")
            try core.join("room", "ann")
            try core.publish("room", "ann", "first")
        }
        let kept = try #require(try buffer.poll(max: 100, milliseconds: 0))
        for _ in 0..<1_000 {
            try buffer.submit { core throws(Failure) in try core.publish("room", "ann", "other") }
            _ = try buffer.drain()
        }
        let message = try #require(
            kept.parts.flatMap { part in part.events.map { (part.chunk, part.chunk.events[$0]) } }
                .first { $0.1.kind == .message })
        let bytes = message.0.bytes.copied()
        let data = bytes[Int(message.1.data.offset)...].prefix(Int(message.1.data.count))
        #expect(String(decoding: data, as: UTF8.self) == "first")
        #expect(buffer.reading().batches == 1)
        #expect(buffer.release(kept.number) == .ok)
        #expect(buffer.release(kept.number) == .invalidArgument)
        #expect(buffer.destroy() == .ok)
    }

    /// For ThreadSanitizer.
    @Test func worksFromManyThreads() throws {
        let buffer = try ReplayBuffer.create(Settings())
        let taken = Mutex(0)
        DispatchQueue.concurrentPerform(iterations: 6) { index in
            for turn in 0..<300 {
                if index < 3 {
                    try? buffer.submit { core throws(Failure) in
                        try core.subscribe("room-\(turn % 3)")
                        try core.join("room-\(turn % 3)", "user-\(index)")
                        try core.publish("room-\(turn % 3)", "user-\(index)", "hello")
                    }
                } else if let batch = try? buffer.poll(max: 5, milliseconds: 0) {
                    let count = batch.parts.reduce(0) { sum, part in
                        sum + part.events.count { part.chunk.events[$0].kind != .message }
                    }
                    taken.withLock { $0 += count }
                    _ = buffer.release(batch.number)
                }
                _ = buffer.metrics()
            }
        }
        let rest = try buffer.drain().count { $0.kind != .message }
        #expect(taken.withLock { $0 } + rest == 3 * 300 * 3)
        DispatchQueue.concurrentPerform(iterations: 4) { index in
            if index == 0 { _ = buffer.destroy() } else { _ = try? buffer.poll(max: 1, milliseconds: -1) }
        }
        #expect(buffer.destroy() == .invalidHandle)
        #expect(ReplayBuffer.find(buffer.handle) == nil)
    }

    @Test func positionsOfTheInterimSecretStayGood() throws {
        let buffer = try ReplayBuffer.create(Settings())
        _ = buffer
        let (old, new) = (PositionKey(secret: [1]), PositionKey(secret: [2]))
        let store = MemoryStore(random: SystemRandomNumberGenerator())
        let core = Core(Settings(), backend: .memory(store), key: old, descriptor: -1)
        core.isClosed = true
        core.key = new
        core.previousKey = old
        let position = Position(epoch: 2, sequence: 5)
        for key in [old, new] {
            let text = Array(key.text(position).utf8)
            #expect(core.presented(text.span.bytes) == .position(position))
        }
        let other = Array(PositionKey(secret: [3]).text(position).utf8)
        #expect(core.presented(other.span.bytes) == .unreadable(.forged))
        #expect(buffer.destroy() == .ok)
    }

    /// docs/metrics.md lists each series as `| name | type | labels | meaning |`.
    @Test func metricsAreDocumented() throws {
        let page = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../docs/metrics.md")
        var documented: [String: String] = [:]
        for line in try String(contentsOf: page, encoding: .utf8).split(separator: "\n") {
            let cells = line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
            guard cells.count == 4, cells[0].hasPrefix("`reconnect_replay_") else { continue }
            documented[cells[0].trimmingCharacters(in: ["`"])] = cells[1]
        }
        let buffer = try ReplayBuffer.create(Settings())
        var written: [String: String] = [:]
        for line in buffer.metrics().split(separator: "\n") where line.hasPrefix("# TYPE ") {
            let words = line.split(separator: " ")
            written[String(words[2])] = String(words[3])
        }
        #expect(documented == written)
        #expect(buffer.destroy() == .ok)
    }
}
