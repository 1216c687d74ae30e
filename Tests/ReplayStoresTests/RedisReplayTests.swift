import Replay
import Storage
import Testing
import Wire

@testable import ReplayStores

@Suite(.serialized) struct RoomsInRedis {
    @Test func giveTheVerdictsOfTheTable() throws {
        let server = try RedisServer()
        for (index, row) in RecoveryCase.all.enumerated() {
            let scene = try RedisScene(server, clock: TestClock(), row.configuration) {
                // The table asks for places after the last message, and then goes on in the same epoch.
                $0.resetsWhenBehind = false
            }
            try row.check(scene.driver, room: "lobby \(index)")
        }
    }

    @Test func recoverBeforeTheFirstMessageAndTwice() throws {
        let scene = try RedisScene(try RedisServer())
        let ann = try scene.join("ann")
        #expect(ann.joined.recovery.verdict == .fresh && !ann.joined.isReconnection)
        #expect(try scene.recovered(ann) == (.recoveredEmpty, []))
        let again = try scene.rejoin(ann)
        #expect(again.joined.recovery.verdict == .recoveredEmpty && again.joined.isReconnection)
        let bob = try scene.join("bob")
        try scene.publish("one", from: bob)
        for _ in 0..<2 { #expect(try scene.recovered(again, at: ann.position) == (.recovered, ["one"])) }
        let third = try scene.rejoin(again, at: ann.position)
        #expect(third.joined.recovery.verdict == .recovered && third.batch.texts == ["one"])
        #expect(third.joined.replaced == again.joined.generation)
        #expect(throws: Refusal.stale) { try scene.recovered(again) }
        #expect(throws: Refusal.stale) { try scene.drop(again) }
    }

    @Test func giveToEachWhatIsForThem() throws {
        let scene = try RedisScene(try RedisServer())
        let ann = try scene.join("ann")
        let bob = try scene.join("bob")
        let eve = try scene.join("eve")
        try scene.publish("hello", from: ann)
        try scene.publish("for bob", from: ann, to: bob)
        try scene.publish("of the server")
        #expect(try scene.recovered(bob) == (.recovered, ["hello", "for bob", "of the server"]))
        #expect(try scene.recovered(eve) == (.recovered, ["hello", "of the server"]))
        #expect(try scene.recovered(ann) == (.recovered, ["of the server"]))
        // A name alone opens nothing.
        let thief = try scene.join("bob", resume: Resume(token: nil, position: .position(bob.position)))
        #expect(thief.joined.recovery.verdict == .lost(.epoch) && thief.batch.isEmpty)
        #expect(thief.joined.recovery.problem == .wrongToken && thief.joined.token != bob.joined.token)
        #expect(try scene.recovered(thief, at: bob.position) == (.recovered, ["hello", "of the server"]))
        #expect(throws: Refusal.unknownRecipient) {
            try scene.publish(
                "x", from: ann,
                to: Seat(
                    membership: Membership(room: ann.membership.room, user: try UserName("nobody")), joined: ann.joined,
                    batch: Batch()))
        }
        #expect(throws: Refusal.unknownRoom) { try scene.publish("x", room: "elsewhere") }
    }

    @Test func keepOffersAndReplaceThem() throws {
        var rooms = Replay.Configuration()
        rooms.window = 4
        rooms.replaysKeptOnLoss = true
        let scene = try RedisScene(try RedisServer(), rooms)
        let ann = try scene.join("ann")
        let bob = try scene.join("bob")
        try scene.publish("offer", from: ann, to: bob, MessageProperties(.offer))
        try scene.publish("answer", from: bob, to: ann, MessageProperties(.answer))
        try scene.publish("vip", from: ann, MessageProperties(.other, isPriority: true))
        for index in 0..<4 { try scene.publish("c\(index)", from: ann, to: bob, MessageProperties(.candidate)) }
        #expect(try scene.recovered(bob) == (.recovered, ["offer", "vip", "c0", "c1", "c2", "c3"]))
        try scene.publish("c4", from: ann, to: bob, MessageProperties(.candidate))
        #expect(try scene.recovered(bob) == (.lost(.trimmed), ["offer", "vip"]))
        #expect(try scene.recovered(ann) == (.lost(.trimmed), ["answer"]))
        try scene.publish("offer 2", from: ann, to: bob, MessageProperties(.offer))
        #expect(try scene.recovered(bob) == (.lost(.trimmed), ["vip", "offer 2"]))
    }

    @Test func answerTheSameKeyOnce() throws {
        var rooms = Replay.Configuration()
        rooms.maximumKeys = 2
        let clock = TestClock()
        let scene = try RedisScene(try RedisServer(), clock: clock, rooms)
        let ann = try scene.join("ann")
        let bob = try scene.join("bob")
        func publish(_ key: UInt64, _ seat: Seat) throws -> Published {
            try scene.publish(
                "m", from: seat, MessageProperties(.other, key: IdempotencyKey(high: key, low: .max)))
        }
        let first = try publish(1, ann)
        let same = try publish(1, ann)
        #expect(same.isDuplicate && same.position == first.position && !first.isDuplicate)
        #expect(try publish(1, bob).position.sequence == 2)
        _ = try publish(2, ann)
        // Only two are remembered.
        #expect(try publish(1, bob).isDuplicate)
        #expect(try !publish(1, ann).isDuplicate)
        clock.pass(.seconds(301))
        #expect(try !publish(1, ann).isDuplicate)
    }

    @Test func knowWhoIsThere() throws {
        var rooms = Replay.Configuration()
        rooms.maximumMembersPerRoom = 2
        let clock = TestClock()
        let scene = try RedisScene(try RedisServer(), clock: clock, rooms)
        let ann = try scene.join("ann")
        let bob = try scene.join("bob")
        #expect(throws: Refusal.tooManyMembers) { try scene.join("eve") }
        try scene.publish("one", from: ann)
        try scene.done(
            .acknowledge(
                bob.membership, generation: bob.joined.generation,
                .position(
                    Position(epoch: bob.position.epoch, sequence: 1))))
        guard
            case .quality(let report) = try scene.perform(
                .quality(bob.membership, QualityMetrics(latencyMilliseconds: 500)))
        else {
            Issue.record("quality")
            return
        }
        #expect(report.quality == .poor)
        try scene.drop(bob)
        clock.pass(.seconds(5))
        guard case .state(let state) = try scene.perform(.state(bob.membership)) else {
            Issue.record("state")
            return
        }
        #expect(!state.isConnected && state.lastSequence == 1 && state.quality == .poor && state.connections == 1)
        #expect(state.disconnectDuration == .seconds(5))
        // What it acknowledged is its place.
        let back = try scene.join("bob", resume: Resume(token: bob.joined.token, position: .nothing))
        #expect(back.joined.recovery.verdict == .recoveredEmpty && back.joined.disconnectDuration == .seconds(5))
        #expect(back.joined.replaced == nil)
        try scene.leave(back)
        #expect(throws: Refusal.unknownUser) { try scene.recovered(back) }
        try scene.leave(ann)
        #expect(throws: Refusal.unknownRoom) { try scene.recovered(ann) }
        #expect(try scene.raw("DBSIZE") == .success(.integer(1)), "the server's run")
    }

    @Test func forgetWhoStaysAway() throws {
        let clock = TestClock()
        let scene = try RedisScene(try RedisServer(), clock: clock)
        let ann = try scene.join("ann")
        let bob = try scene.join("bob")
        try scene.drop(ann)
        clock.pass(.seconds(3_000))
        #expect(throws: Refusal.unknownRecipient) { try scene.publish("x", from: bob, to: ann) }
        let again = try scene.rejoin(ann)
        #expect(!again.joined.isReconnection && again.joined.recovery.problem == .wrongToken)
        try scene.drop(again)
        try scene.drop(bob)
        clock.pass(.seconds(3_000))
        // The last one took the room along.
        let new = try scene.rejoin(again)
        #expect(new.joined.recovery.verdict == .lost(.epoch) && new.joined.recovery.problem == .foreignPosition)
    }

    @Test func beginANewEpochWhenTheNumbersWentBack() throws {
        let scene = try RedisScene(try RedisServer())
        let ann = try scene.join("ann")
        let bob = try scene.join("bob")
        for index in 0..<3 { try scene.publish("\(index)", from: ann) }
        let future = Position(epoch: bob.position.epoch, sequence: 4)
        let back = try scene.rejoin(bob, at: future)
        #expect(back.joined.recovery.verdict == .lost(.epoch))
        #expect(back.joined.recovery.problem == .futurePosition && back.batch.isEmpty)
        #expect(back.position.epoch != bob.position.epoch && back.position.sequence == 0)
        // The one who is where the lost messages were must not be told that nothing is missing.
        for index in 0..<4 { try scene.publish("\(index)", from: ann) }
        let (recovery, _) = try scene.recover(back, at: future)
        #expect(recovery.verdict == .lost(.epoch) && recovery.problem == .foreignPosition)
        #expect(try scene.recovered(back).1 == ["0", "1", "2", "3"])
    }

    @Test func areReset() throws {
        let scene = try RedisScene(try RedisServer())
        let ann = try scene.join("ann")
        let bob = try scene.join("bob", room: "[other]*")
        try scene.publish("one", from: ann)
        try scene.publish("one", from: bob)
        try scene.done(.reset(ann.membership.room, .degraded))
        #expect(try scene.recovered(ann) == (.lost(.degraded), []))
        #expect(try scene.recovered(bob) == (.recoveredEmpty, []))
        try scene.raw("SET", "webrtc:reconnect:seq:{broken}", "x")
        try scene.done(.reset(nil, .degraded))
        #expect(try scene.recovered(bob) == (.lost(.degraded), []))
        #expect(try scene.publish("two", from: bob).position.sequence == 1)
        #expect(try scene.raw("EXISTS", "webrtc:reconnect:seq:{broken}") == .success(.integer(0)))
    }

    /// Formats: the room literally in braces; meta lives at least ten times as long as the messages.
    @Test func haveTheKeysThatAreWrittenDown() throws {
        let scene = try RedisScene(try RedisServer()) { $0.prefix = "p:" }
        let ann = try scene.join("ann", room: "a room")
        try scene.publish("one", from: ann)
        let keys = try scene.raw("KEYS", "*").get().arrayValue?.compactMap(\.bytesValue) ?? []
        let all = keys.map { String(decoding: $0, as: UTF8.self) }.sorted()
        #expect(
            all.filter { $0.hasPrefix("p:limits:") } == [
                "p:limits:rooms", "p:limits:server", "p:limits:usage", "p:limits:used",
            ])
        let names = all.filter { !$0.hasPrefix("p:limits:") }
        #expect(names == ["p:buffer:{a room}", "p:seq:{a room}", "p:state:{a room}"])
        let left = try names.map { try scene.raw("PTTL", .text($0)).get().integerValue ?? 0 }
        #expect(left[0] > 300_000 && left[1] >= 10 * left[0] && left[2] >= 10 * left[0], "\(left)")
        let ids = try scene.raw("XRANGE", "p:buffer:{a room}", "-", "+").get().arrayValue ?? []
        #expect(ids.first?.arrayValue?.first?.bytesValue == Array("1-0".utf8))
    }
}
