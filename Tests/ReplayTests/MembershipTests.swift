import Replay
import Testing
import Wire

@Suite struct Memberships {
    @Test func positionIsGivenAtJoinBeforeAnyMessage() throws {
        let scene = Scene()
        let ann = try scene.join("ann")
        #expect(ann.joined.recovery.verdict == .fresh)
        #expect(ann.position.sequence == 0 && !ann.joined.isReconnection && ann.joined.disconnectDuration == nil)
        let bob = try scene.join("bob")
        try scene.drop(ann)
        try scene.publish("first", from: bob)
        let back = try scene.rejoin(ann)
        #expect(back.joined.recovery.verdict == .recovered && scene.texts == ["first"])
    }

    @Test func recoversTwiceAlike() throws {
        let scene = Scene()
        let ann = try scene.join("ann")
        let bob = try scene.join("bob")
        try scene.publish("a", from: bob)
        try scene.publish("b", from: bob)
        for _ in 0..<2 {
            #expect(try scene.recover(ann).verdict == .recovered)
            #expect(scene.texts == ["a", "b"])
        }
        let after = try scene.recover(ann, since: try scene.recover(ann).position)
        #expect(after.verdict == .recoveredEmpty && scene.texts.isEmpty)
    }

    @Test func everyoneGetsTheirOwn() throws {
        let scene = Scene()
        let ann = try scene.join("ann")
        let bob = try scene.join("bob")
        let eve = try scene.join("eve")
        try scene.publish("to all", from: ann)
        try scene.publish("to bob", from: ann, to: bob)
        try scene.publish("to ann", from: bob, to: ann)
        try scene.publish("from the server", room: ann)
        #expect(try scene.recover(ann).verdict == .recovered)
        #expect(scene.texts == ["to ann", "from the server"])
        #expect(try scene.recover(bob).verdict == .recovered)
        #expect(scene.texts == ["to all", "to bob", "from the server"])
        let recovery = try scene.recover(eve)
        #expect(scene.texts == ["to all", "from the server"])
        #expect(recovery.position.sequence == 4, "the position goes on over what is for others")
    }

    @Test func nobodyInheritsTheMailOfAName() throws {
        let scene = Scene()
        let ann = try scene.join("ann")
        let bob = try scene.join("bob")
        try scene.publish("secret", from: ann, to: bob)
        try scene.leave(bob)
        let other = try scene.join("bob")
        #expect(other.joined.recovery.verdict == .fresh && !other.joined.isReconnection)
        let start = Position(epoch: ann.position.epoch, sequence: 0)
        #expect(try scene.recover(other, since: start).verdict == .recoveredEmpty)
        #expect(scene.texts.isEmpty)
        #expect(throws: Refusal.unknownRecipient) { try scene.publish("late", from: ann, to: bob) }
    }

    @Test func namesAloneOpenNothing() throws {
        let scene = Scene()
        let ann = try scene.join("ann")
        let bob = try scene.join("bob")
        try scene.drop(bob)
        try scene.publish("secret", from: ann, to: bob)
        let position = Presented.position(bob.position)
        var token = bob.token
        token = ResumeToken(high: token.high, low: token.low ^ 1)
        for resume in [Resume(token: nil, position: position), Resume(token: token, position: position)] {
            let thief = try scene.join("bob", resume: resume)
            #expect(thief.joined.recovery.verdict == .lost(.epoch))
            #expect(thief.joined.recovery.problem == .wrongToken)
            #expect(scene.texts.isEmpty)
            #expect(try scene.recover(thief, since: bob.position).verdict == .recoveredEmpty)
            #expect(scene.texts.isEmpty, "nor later")
        }
    }

    @Test func hostsThatAuthenticateMayDoWithoutTokens() throws {
        let scene = Scene { $0.needsToken = false }
        let ann = try scene.join("ann")
        let bob = try scene.join("bob")
        try scene.publish("x", from: ann, to: bob)
        let back = try scene.join("bob", resume: Resume(token: nil, position: .position(bob.position)))
        #expect(back.joined.recovery.verdict == .recovered && scene.texts == ["x"])
        let wrong = Resume(token: ann.token, position: .position(bob.position))
        #expect(try scene.join("bob", resume: wrong).joined.recovery.verdict == .lost(.epoch))
    }

    @Test func lateCloseOfTheOldConnectionChangesNothing() throws {
        let scene = Scene()
        let ann = try scene.join("ann")
        let bob = try scene.join("bob")
        let back = try scene.rejoin(ann)
        #expect(back.joined.replaced == ann.generation && back.joined.disconnectDuration == .zero)
        #expect(throws: Refusal.stale) { try scene.drop(ann) }
        #expect(throws: Refusal.stale) { try scene.leave(ann) }
        #expect(throws: Refusal.stale) { try scene.recover(ann) }
        #expect(scene.store.state(back.seat.member, now: scene.now)?.isConnected == true)
        try scene.leave(bob)
        #expect(scene.store.roomCount == 1)
        try scene.leave(back)
        #expect(scene.store.roomCount == 0 && scene.store.bytesHeld == 0)
        // Not even in a room of the same name.
        let third = try scene.join("ann")
        #expect(throws: Refusal.unknownUser) { try scene.drop(ann) }
        #expect(throws: Refusal.unknownUser) { try scene.leave(back) }
        #expect(third.position.epoch != ann.position.epoch)
    }

    @Test func dropKeepsTheRoomAndLeaveDoesNot() throws {
        let scene = Scene()
        let ann = try scene.join("ann")
        let bob = try scene.join("bob")
        try scene.publish("while both are here", from: bob)
        try scene.drop(ann)
        try scene.drop(bob)
        scene.now = scene.now + .seconds(100)
        let back = try scene.rejoin(ann)
        #expect(back.joined.recovery.verdict == .recovered && back.joined.isReconnection)
        #expect(back.joined.disconnectDuration == .seconds(100))
        try scene.leave(back)
        #expect(scene.store.roomCount == 1, "bob may come back")
        let bobAgain = try scene.rejoin(bob)
        #expect(bobAgain.joined.recovery.verdict == .recoveredEmpty)
        try scene.leave(bobAgain)
        #expect(scene.store.roomCount == 0 && scene.store.memberCount == 0)
    }

    @Test func roomsAndUsersAreForgottenInTime() throws {
        let scene = Scene()
        let ann = try scene.join("ann")
        let bob = try scene.join("bob")
        try scene.publish("x", from: bob)
        try scene.drop(bob)
        scene.now = scene.now + .seconds(299)
        try scene.drop(ann)
        scene.store.handleTimeout(now: scene.now)
        #expect(scene.store.bytesHeld > 0)
        scene.now = scene.now + .seconds(1)
        scene.store.handleTimeout(now: scene.now)
        #expect(scene.store.bytesHeld == 0 && scene.store.memberCount == 2)
        scene.now = scene.now + .seconds(2_700)
        scene.store.handleTimeout(now: scene.now)
        #expect(scene.store.memberCount == 1)
        scene.now = scene.now + .seconds(299)
        scene.store.handleTimeout(now: scene.now)
        #expect(scene.store.memberCount == 0 && scene.store.roomCount == 0 && scene.store.nextTimeout == nil)
        #expect(try scene.rejoin(ann).joined.recovery.verdict == .lost(.epoch))
    }

    @Test func dropDuringAReplayIsMadeUpFor() throws {
        let scene = Scene()
        let ann = try scene.join("ann")
        let bob = try scene.join("bob")
        try scene.publish("a", from: bob)
        let first = try scene.rejoin(ann)
        #expect(scene.texts == ["a"])
        // The batch never arrives; the client comes back with the place it had.
        try scene.drop(first)
        try scene.publish("b", from: bob)
        #expect(try scene.rejoin(ann).joined.recovery.verdict == .recovered)
        #expect(scene.texts == ["a", "b"])
    }

    @Test func whatIsConfirmedIsWhereToGoOnWithoutAPosition() throws {
        let scene = Scene()
        let ann = try scene.join("ann")
        let bob = try scene.join("bob")
        let first = try scene.publish("a", from: bob)
        try scene.publish("b", from: bob)
        try scene.store.acknowledge(
            ann.seat.member, generation: ann.generation, .position(first.position), now: scene.now)
        #expect(scene.store.state(ann.seat.member, now: scene.now)?.lastSequence == 1)
        // Cumulative: an earlier one takes nothing back; impossible ones are ignored.
        for position in [Position(epoch: first.position.epoch, sequence: 0), Position(epoch: 6, sequence: 2)] {
            try scene.store.acknowledge(
                ann.seat.member, generation: ann.generation, .position(position), now: scene.now)
        }
        let future = Position(epoch: first.position.epoch, sequence: 99)
        try scene.store.acknowledge(ann.seat.member, generation: ann.generation, .position(future), now: scene.now)
        let back = try scene.join("ann", resume: Resume(token: ann.token, position: .nothing))
        #expect(back.joined.recovery.verdict == .recovered && scene.texts == ["b"])
    }

    @Test func stateSaysWhatIsKnown() throws {
        let scene = Scene()
        let ann = try scene.join("ann")
        scene.now = scene.now + .seconds(5)
        try scene.publish("x", from: ann)
        var state = try #require(scene.store.state(ann.seat.member, now: scene.now))
        #expect(state.isConnected && state.lastSeen == scene.now && state.quality == .unknown && state.connections == 1)
        let metrics = QualityMetrics(latencyMilliseconds: 150, lossPercent: 2.5, jitterMilliseconds: 30)
        #expect(try scene.store.quality(ann.seat.member, metrics, now: scene.now).quality == .fair)
        try scene.drop(ann)
        scene.now = scene.now + .seconds(7)
        state = try #require(scene.store.state(ann.seat.member, now: scene.now))
        #expect(!state.isConnected && state.disconnectDuration == .seconds(7) && state.quality == .fair)
        let back = try scene.rejoin(ann)
        #expect(scene.store.state(back.seat.member, now: scene.now)?.connections == 2)
    }

    @Test func strangersAreRefused() throws {
        let scene = Scene()
        let ann = try scene.join("ann")
        let elsewhere = try scene.join("ann", room: "elsewhere")
        let payload = bytes("x")
        for value in [0, 1, UInt64.max, elsewhere.seat.member.value] as [UInt64] {
            #expect(throws: Refusal.unknownUser) {
                try scene.store.publish(
                    room: ann.seat.room, from: MemberID(value: value), to: nil, MessageProperties(),
                    payload: payload.span.bytes, now: scene.now)
            }
        }
        for value in [0, 1 << 40, UInt64.max] as [UInt64] {
            #expect(throws: Refusal.unknownRoom) {
                try scene.store.publish(
                    room: RoomID(value: value), from: nil, to: nil, MessageProperties(), payload: payload.span.bytes,
                    now: scene.now)
            }
        }
    }

    @Test func limitsHold() throws {
        let scene = Scene {
            $0.maximumRooms = 2
            $0.maximumMembersPerRoom = 2
            $0.maximumMessageSize = 10
        }
        let ann = try scene.join("ann")
        _ = try scene.join("bob")
        #expect(throws: Refusal.tooManyMembers) { try scene.join("eve") }
        let other = try scene.join("ann", room: "second")
        #expect(throws: Refusal.tooManyRooms) { try scene.join("ann", room: "third") }
        try scene.drop(other)
        _ = try scene.join("ann", room: "third")
        #expect(scene.store.roomCount == 2, "a room that everybody dropped out of makes room")
        #expect(throws: Refusal.messageTooLarge) { try scene.publish("eleven byte", from: ann) }
    }

    @Test func tooManyAtOnceAreToldWhen() throws {
        let scene = Scene {
            $0.recoveriesPerSecond = 10
            $0.recoveryBurst = 5
        }
        var guests: [Guest] = []
        for index in 0..<50 { guests.append(try scene.join("g\(index)")) }
        var waits: [(Guest, Duration)] = []
        for guest in guests {
            do {
                _ = try scene.rejoin(guest)
            } catch {
                guard case .throttled(let wait)? = error as? Refusal else { throw error }
                waits.append((guest, wait))
            }
        }
        #expect(waits.count == 45)
        // Who comes when told is admitted, nearly all at the first return.
        var late = 0
        for (guest, wait) in waits.sorted(by: { $0.1 < $1.1 }) {
            scene.now = max(scene.now, Instant.at(1) + wait)
            if (try? scene.rejoin(guest)) == nil { late += 1 }
        }
        #expect(late <= 10, "\(late) had to come again")
        #expect(scene.now < .at(10))
    }
}
