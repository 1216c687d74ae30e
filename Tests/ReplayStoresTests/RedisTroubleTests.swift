import Foundation
import Replay
import Storage
import Testing
import Wire

@testable import ReplayStores

/// What else a Redis server can do to rooms.
@Suite(.serialized) struct RoomsInARedisInTrouble {
    /// With less memory than the rooms need, keys go in any order: what is left must not prove what is gone.
    @Test(arguments: ["allkeys-lru", "allkeys-random", "volatile-ttl"]) func evicts(_ policy: String) throws {
        let scene = try RedisScene(try RedisServer())
        let text = String(repeating: "x", count: 4_000)
        var readers: [Seat] = []
        var numbers: [Position] = []
        for index in 0..<40 {
            let room = "room \(index)"
            readers.append(try scene.join("reader", room: room))
            numbers.append(try scene.publish(text, room: room).position)
        }
        try scene.raw("CONFIG", "SET", "maxmemory-policy", .text(policy))
        let used = try scene.raw("INFO", "memory").get().bytesValue.map { String(decoding: $0, as: UTF8.self) } ?? ""
        let line = try #require(used.split(separator: "\r\n").first { $0.hasPrefix("used_memory:") })
        let bytes = try #require(Int64(line.dropFirst("used_memory:".count)))
        try scene.raw("CONFIG", "SET", "maxmemory", .integer(bytes))
        var outcomes: [String: Int] = [:]
        for round in 0..<200 {
            let index = round * 7 % readers.count
            let reader = readers[index]
            do {
                let position = try scene.publish(text, room: "room \(index)").position
                if position.epoch == numbers[index].epoch { #expect(position.sequence > numbers[index].sequence) }
                numbers[index] = position
            } catch Refusal.unknownRoom {
                outcomes["unknown room", default: 0] += 1
                readers[index] = try scene.join("reader", room: "room \(index)")
                continue
            } catch Refusal.unavailable {
                outcomes["no memory", default: 0] += 1
                continue
            }
            do {
                let (recovery, batch) = try scene.recover(reader)
                outcomes["\(recovery.verdict)", default: 0] += 1
                guard recovery.verdict.isRecovered else { continue }
                #expect(recovery.position.epoch == reader.position.epoch)
                let expected = recovery.position.sequence - reader.position.sequence
                #expect(batch.count == Int(expected), "\(expected) of \(batch.count)")
            } catch Refusal.unknownRoom, Refusal.unknownUser {
                outcomes["unknown room", default: 0] += 1
            }
        }
        #expect(outcomes.count > 1, "\(outcomes)")
    }

    /// Somebody's script does not end: until it is killed nothing is done, and nothing is believed to be.
    @Test func isBusyWithAScript() throws {
        let server = try RedisServer(["--busy-reply-threshold", "1"])
        let scene = try RedisScene(server)
        let ann = try scene.join("ann")
        try scene.publish("1", from: ann)
        let busy = Connected(try server.address())
        let control = Connected(try server.address())
        defer {
            busy.client.close()
            control.client.close()
        }
        try busy.waitUntilUp()
        try control.waitUntilUp()
        let killed = Journal<Result<RedisReply, RedisFailure>>()
        busy.client.submit(["EVAL", "while true do end", 0], deadline: .seconds(20)) { killed.append($0) }
        // From the first refusal on it is known to be busy.
        var isBusy = false
        while !isBusy {
            if case .failure(.server(let error)) = try control.reply("GET", "k"), error.code == "BUSY" { isBusy = true }
        }
        #expect(throws: Refusal.unavailable) { try scene.publish("2", from: ann) }
        #expect(throws: Refusal.unavailable) { try scene.recover(ann) }
        #expect(throws: Refusal.unavailable) { try scene.join("bob") }
        #expect(scene.store.lastError.map { "\($0)" }?.contains("BUSY") == true)
        _ = try control.reply("SCRIPT", "KILL")
        try killed.wait("the end of the script") { !$0.isEmpty }
        #expect(try scene.publish("2", from: ann).position.sequence == 2)
    }

    /// It stands still for a while: late is refused, and what was done late all the same is not told as the whole story.
    @Test func sleeps() throws {
        let server = try RedisServer(["--enable-debug-command", "yes"])
        let scene = try RedisScene(server) { $0.timeout = .milliseconds(50) }
        let ann = try scene.join("ann")
        let bob = try scene.join("bob")
        let asleep = Connected(try server.address())
        defer { asleep.client.close() }
        try asleep.waitUntilUp()
        let awake = Journal<Int>()
        asleep.client.submit(["DEBUG", "SLEEP", "0.4"], deadline: .seconds(20)) { _ in awake.append(1) }
        var isLate = false
        var done = 0
        while !isLate {
            do {
                try scene.publish("m", from: ann)
                done += 1
            } catch Refusal.unavailable { isLate = true }
        }
        try awake.wait("the end of its sleep") { !$0.isEmpty }
        // What was late has been carried out before this, or never will be.
        let (recovery, batch) = try scene.recover(bob)
        #expect(
            recovery.verdict == .recovered || recovery.verdict == .recoveredEmpty || recovery.verdict == .lost(.trimmed)
        )
        if recovery.verdict.isRecovered { #expect((done...done + 1).contains(batch.count)) }
    }

    /// Killed with the append-only file, in the middle of many publishes.
    @Test func isKilledWhileItWrites() throws {
        let server = try RedisServer(["--appendonly", "yes", "--appendfsync", "no"])
        let scene = try RedisScene(server)
        let ann = try scene.join("ann")
        let bob = try scene.join("bob")
        for _ in 0..<2_000 {
            let (_, refused) = scene.submit(
                .publish(
                    room: ann.membership.room, from: ann.membership.user, to: nil, MessageProperties(), payload: [1]))
            #expect(refused == nil)
        }
        server.kill()
        let outcomes = try scene.outcomes(2_000)
        var top: UInt64 = 0
        for case (_, .published(let published)) in outcomes { top = max(top, published.position.sequence) }
        // Outcomes come before the state does.
        try scene.waitUntilDown()
        try server.start()
        try scene.waitUntilUp()
        // Another run: whatever it has is in a new epoch.
        let (recovery, batch) = try scene.recover(bob, at: Position(epoch: bob.position.epoch, sequence: top))
        #expect(recovery.verdict == .lost(.epoch) && batch.isEmpty)
    }

    /// No more than is needed: this is what the documentation says.
    @Test func asAUserWithFewRights() throws {
        let rights = [
            "--user", "app", "on", ">word", "~webrtc:reconnect:*", "&webrtc:reconnect:live:*", "+@read", "+@write",
            "+@scripting", "+@pubsub", "+@connection", "+time", "+info",
        ]
        let server = try RedisServer(rights)
        let host = try LiveHost.redis(address: try server.address("app:word@"))
        let room = try RoomName("lobby")
        _ = try host.join("ann", room)
        try host.subscribe(room)
        #expect(try host.publish("1", room, from: "ann").sequence == 1)
        try host.wait("1") { $0.texts == ["1"] }
        _ = try host.perform(.reset(nil, .degraded))
        try host.wait("a new epoch") { $0.shape.contains("interrupted epoch") }
        #expect(throws: Overdue.self, "a key of somebody else") {
            let other = try LiveHost.redis(address: try server.address("app:word@")) { $0.prefix = "other:" }
            _ = try other.join("ann", room)
        }
    }
}
