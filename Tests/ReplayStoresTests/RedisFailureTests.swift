import Foundation
import Replay
import Storage
import Testing
import Wire

@testable import ReplayStores

@Suite(.serialized) struct RoomsInARedisThatFails {
    private func twoInARoom(_ scene: RedisScene) throws -> (Seat, Seat) {
        let ann = try scene.join("ann")
        let bob = try scene.join("bob")
        for index in 1...3 { try scene.publish("\(index)", from: ann) }
        return (ann, bob)
    }

    @Test func flushedKnowsNothingAndSaysSo() throws {
        let scene = try RedisScene(try RedisServer())
        let (ann, bob) = try twoInARoom(scene)
        try scene.raw("FLUSHALL")
        #expect(throws: Refusal.unknownRoom) { try scene.recovered(bob) }
        #expect(throws: Refusal.unknownRoom) { try scene.publish("4", from: ann) }
        let back = try scene.rejoin(bob)
        #expect(back.joined.recovery.verdict == .lost(.epoch) && back.batch.isEmpty)
        #expect(back.position.sequence == 0 && back.position.epoch != bob.position.epoch)
        let anns = try scene.rejoin(ann, at: Position(epoch: ann.position.epoch, sequence: 3))
        #expect(anns.joined.recovery.verdict == .lost(.epoch))
        for index in 1...3 { try scene.publish("new \(index)", from: anns) }
        #expect(try scene.recovered(back) == (.recovered, ["new 1", "new 2", "new 3"]))
    }

    @Test func forgetsScripts() throws {
        let scene = try RedisScene(try RedisServer())
        let (ann, bob) = try twoInARoom(scene)
        try scene.raw("SCRIPT", "FLUSH")
        #expect(try scene.publish("4", from: ann).position.sequence == 4)
        #expect(try scene.recovered(bob) == (.recovered, ["1", "2", "3", "4"]))
        #expect(scene.store.counters.scriptsReloaded == 2)
        #expect(try scene.rejoin(bob).batch.texts == ["1", "2", "3", "4"])
    }

    /// Eviction takes any of the three; what is left of the others must not prove anything.
    @Test(arguments: ["buffer", "state", "seq"])
    func evictsOneKey(_ kind: String) throws {
        let scene = try RedisScene(try RedisServer())
        let (ann, bob) = try twoInARoom(scene)
        try scene.raw("DEL", .text("webrtc:reconnect:\(kind):{lobby}"))
        if kind == "buffer" {
            #expect(try scene.recovered(bob) == (.lost(.trimmed), []))
            #expect(try scene.recovered(bob, at: Position(epoch: bob.position.epoch, sequence: 3)).0 == .recoveredEmpty)
            #expect(try scene.publish("4", from: ann).position.sequence == 4)
            #expect(try scene.recovered(bob, at: Position(epoch: bob.position.epoch, sequence: 2)).0 == .lost(.trimmed))
            let three = Position(epoch: bob.position.epoch, sequence: 3)
            #expect(try scene.recovered(bob, at: three) == (.recovered, ["4"]))
        } else {
            #expect(throws: Refusal.unknownRoom) { try scene.recovered(bob) }
            let back = try scene.rejoin(bob)
            #expect(back.joined.recovery.verdict == .lost(.epoch) && back.position.sequence == 0)
            let anns = try scene.join("ann")
            #expect(try scene.publish("new", from: anns).position.sequence == 1)
            #expect(try scene.recovered(back) == (.recovered, ["new"]))
        }
    }

    /// Somebody deletes, or cuts, the messages, and something is published before anybody comes back.
    @Test(arguments: [["DEL"], ["XTRIM", "MAXLEN", "1"]])
    func losesMessagesBeforeTheNextOne(_ words: [String]) throws {
        let scene = try RedisScene(try RedisServer())
        let (ann, bob) = try twoInARoom(scene)
        let command: [RedisArgument] =
            [.text(words[0]), "webrtc:reconnect:buffer:{lobby}"] + words.dropFirst().map { .text($0) }
        let other = Connected(try scene.server.address())
        defer { other.client.close() }
        try other.waitUntilUp()
        let cut: Result<RedisReply, RedisFailure> = try answer {
            other.client.submit(command, deadline: .seconds(20), completion: $0)
        }
        #expect(throws: Never.self) { try cut.get() }
        try scene.publish("4", from: ann)
        #expect(try scene.recovered(bob) == (.lost(.trimmed), []))
    }

    @Test(arguments: ["buffer", "state", "seq"])
    func hasSomethingElseUnderAKey(_ kind: String) throws {
        let scene = try RedisScene(try RedisServer())
        let (ann, bob) = try twoInARoom(scene)
        let key = RedisArgument.text("webrtc:reconnect:\(kind):{lobby}")
        for wrong in ["SET", "LPUSH"] {
            try scene.raw("DEL", key)
            try scene.raw(.text(wrong), key, "x")
            #expect(throws: Refusal.unavailable) { try scene.recovered(bob) }
            #expect(throws: Refusal.unavailable) { try scene.publish("4", from: ann) }
            #expect(throws: Refusal.unavailable) { try scene.rejoin(bob) }
            #expect(scene.store.lastError != nil)
        }
        // Other rooms do not mind; a reset heals this one.
        _ = try scene.join("ann", room: "other")
        let outcome = try scene.perform(.reset(bob.membership.room, .degraded))
        if kind == "buffer" {
            guard case .done = outcome else {
                Issue.record("reset: \(outcome)")
                return
            }
            #expect(try scene.recovered(bob) == (.lost(.degraded), []))
        } else {
            guard case .refused(.unknownRoom) = outcome else {
                Issue.record("reset: \(outcome)")
                return
            }
        }
        #expect(try [.lost(.degraded), .lost(.epoch)].contains(scene.rejoin(bob).joined.recovery.verdict))
        #expect(try scene.publish("new").position.sequence == 1)
    }

    @Test func isOutOfMemory() throws {
        let scene = try RedisScene(try RedisServer())
        let (ann, bob) = try twoInARoom(scene)
        try scene.raw("CONFIG", "SET", "maxmemory", "1")
        #expect(throws: Refusal.unavailable) { try scene.publish("4", from: ann) }
        #expect(throws: Refusal.unavailable) { try scene.rejoin(bob) }
        try scene.raw("CONFIG", "SET", "maxmemory", "0")
        #expect(try scene.publish("4", from: ann).position.sequence == 4)
        #expect(try scene.recovered(bob) == (.recovered, ["1", "2", "3", "4"]))
    }

    @Test func pauses() throws {
        let server = try RedisServer()
        let scene = try RedisScene(server) { $0.timeout = .milliseconds(100) }
        let (ann, bob) = try twoInARoom(scene)
        try scene.raw("CLIENT", "PAUSE", "60000", "ALL")
        #expect(throws: Refusal.unavailable) { try scene.publish("4", from: ann) }
        #expect(throws: Refusal.unavailable) { try scene.recovered(bob) }
    }

    @Test func isKilledAndComesBackEmpty() throws {
        let server = try RedisServer()
        let scene = try RedisScene(server)
        let (ann, bob) = try twoInARoom(scene)
        server.kill()
        try scene.waitUntilDown()
        #expect(throws: Refusal.unavailable) { try scene.publish("4", from: ann) }
        #expect(throws: Refusal.unavailable) { try scene.recovered(bob) }
        try server.start()
        try scene.waitUntilUp()
        #expect(throws: Refusal.unknownRoom) { try scene.recovered(bob) }
        let back = try scene.rejoin(bob)
        #expect(back.joined.recovery.verdict == .lost(.epoch) && back.batch.isEmpty)
    }

    /// Four servers, one room: the order of the numbers is the order in which they are stored.
    @Test func isSharedByFourPublishers() throws {
        var rooms = Replay.Configuration()
        rooms.window = 10_000
        let server = try RedisServer()
        let scenes = try (0..<4).map { _ in try RedisScene(server, rooms) }
        let reader = try scenes[0].join("reader")
        let count = 200
        let name = reader.membership.room
        for (index, scene) in scenes.enumerated() { _ = try scene.join("w\(index)") }
        for round in 0..<count {
            for (index, scene) in scenes.enumerated() {
                let (_, refused) = scene.submit(
                    .publish(
                        room: name, from: try UserName("w\(index)"), to: nil, MessageProperties(),
                        payload: Array("\(index) \(round)".utf8)))
                #expect(refused == nil)
            }
        }
        var numbers: [UInt64: String] = [:]
        for (index, scene) in scenes.enumerated() {
            var last: UInt64 = 0
            for (round, outcome) in try scene.outcomes(count).enumerated() {
                guard case .published(let published) = outcome.1 else {
                    Issue.record("publish: \(outcome)")
                    return
                }
                // Each one's own in the order in which it said them.
                #expect(published.position.sequence > last)
                last = published.position.sequence
                numbers[last] = "\(index) \(round)"
            }
        }
        let (recovery, batch) = try scenes[1].recover(reader)
        #expect(recovery.verdict == .recovered && batch.count == 4 * count)
        #expect(batch.records.map(\.sequence) == Array(1...UInt64(4 * count)))
        #expect(batch.texts == (1...UInt64(4 * count)).map { numbers[$0] ?? "" })
    }
}
