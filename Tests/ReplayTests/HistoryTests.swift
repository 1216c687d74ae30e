import Replay
import Testing
import Wire

@Suite struct History {
    @Test func newerOfferReplacesTheOlderAndItsCandidates() throws {
        let (scene, ann, bob) = try annAndBob()
        try scene.publish("hello", from: ann)
        try scene.publish("offer 1", from: ann, to: bob, MessageProperties(.offer))
        try scene.publish("candidate 1", from: ann, to: bob, MessageProperties(.candidate))
        try scene.publish("candidate of bob", from: bob, to: ann, MessageProperties(.candidate))
        try scene.publish("chat", from: ann, to: bob)
        try scene.publish("offer of another", from: ann, to: bob, MessageProperties(.offer, negotiation: 7))
        try scene.publish("offer 2", from: ann, to: bob, MessageProperties(.offer))
        try scene.publish("candidate 2", from: ann, to: bob, MessageProperties(.candidate))
        let recovery = try scene.recover(bob)
        #expect(recovery.verdict == .recovered && recovery.skipped == 2)
        #expect(scene.texts == ["hello", "chat", "offer of another", "offer 2", "candidate 2"])
        _ = try scene.recover(ann)
        #expect(scene.texts == ["candidate of bob"])
        // Who was in the middle of it gets the newer one as well.
        let middle = try scene.recover(bob, after: 2)
        #expect(middle.verdict == .recovered && scene.texts.contains("offer 2"))
    }

    @Test func replacementThatIsGoneCountsAsLost() throws {
        let (scene, ann, bob) = try annAndBob {
            $0.window = 2
            $0.maximumKept = 0
        }
        try scene.publish("offer 1", from: ann, to: bob, MessageProperties(.offer))
        try scene.publish("offer 2", from: ann, to: bob, MessageProperties(.offer))
        #expect(try scene.recover(bob).verdict == .recovered)
        try scene.publish("x", from: ann)
        try scene.publish("y", from: ann)
        #expect(try scene.recover(bob).verdict == .lost(.trimmed))
        #expect(try scene.recover(bob, after: 2).verdict == .recovered)
    }

    @Test func latestOfferAndAnswerStayWhenCandidatesAreTrimmed() throws {
        let (scene, ann, bob) = try annAndBob {
            $0.window = 4
            $0.replaysKeptOnLoss = true
        }
        try scene.publish("offer", from: ann, to: bob, MessageProperties(.offer))
        try scene.publish("answer", from: bob, to: ann, MessageProperties(.answer))
        try scene.publish("vip", from: ann, MessageProperties(.other, isPriority: true))
        for index in 0..<4 { try scene.publish("c\(index)", from: ann, to: bob, MessageProperties(.candidate)) }
        // The three are out of the window, and still nothing is missing.
        #expect(try scene.recover(bob).verdict == .recovered)
        #expect(scene.texts == ["offer", "vip", "c0", "c1", "c2", "c3"])
        try scene.publish("c4", from: ann, to: bob, MessageProperties(.candidate))
        // A candidate is missing: lost, with what is left of use.
        #expect(try scene.recover(bob).verdict == .lost(.trimmed))
        #expect(scene.texts == ["offer", "vip"])
        #expect(try scene.recover(ann).verdict == .lost(.trimmed))
        #expect(scene.texts == ["answer"])
        // A newer offer replaces the one that was put aside.
        try scene.publish("offer 2", from: ann, to: bob, MessageProperties(.offer))
        _ = try scene.recover(bob)
        #expect(scene.texts == ["vip", "offer 2"])
    }

    @Test func keptMessagesAreBounded() throws {
        let (scene, ann, bob) = try annAndBob {
            $0.window = 2
            $0.maximumKept = 3
        }
        for index in 0..<5 {
            try scene.publish("\(index)", from: ann, MessageProperties(.other, isPriority: true))
        }
        #expect(try scene.recover(bob).verdict == .recovered && scene.texts.count == 5)
        try scene.publish("5", from: ann, MessageProperties(.other, isPriority: true))
        #expect(try scene.recover(bob).verdict == .lost(.trimmed))
        #expect(try scene.recover(bob, after: 1).verdict == .recovered && scene.texts.count == 5)
    }

    @Test func bytesOfARoomAreBounded() throws {
        let (scene, ann, bob) = try annAndBob {
            $0.maximumMessageSize = 100
            $0.maximumRoomBytes = 250
        }
        let text = String(repeating: "x", count: 100)
        try scene.publish(text, from: ann)
        try scene.publish(text, from: ann)
        #expect(try scene.recover(bob).verdict == .recovered)
        try scene.publish(text, from: ann)
        #expect(try scene.recover(bob).verdict == .lost(.trimmed))
        #expect(try scene.recover(bob, after: 1).verdict == .recovered && scene.texts == [text, text])
    }

    @Test func roomsThatWereNotUsedForLongestMakeRoomFirst() throws {
        let scene = Scene {
            $0.maximumMessageSize = 200
            // Three messages of one block each.
            $0.maximumBytes = 3 * (256 + 64)
        }
        var guests: [Guest] = []
        for room in ["a", "b", "c"] {
            guests.append(try scene.join("reader", room: room))
            try scene.publish("x", room: guests[guests.count - 1])
        }
        #expect(try scene.recover(guests[0]).verdict == .recovered, "used: now b is the oldest")
        try scene.publish("y", room: guests[0])
        #expect(try scene.recover(guests[1]).verdict == .lost(.trimmed))
        #expect(try scene.recover(guests[0]).verdict == .recovered && scene.texts == ["x", "y"])
        #expect(try scene.recover(guests[2]).verdict == .recovered)
        // One room alone lives within the limit too.
        for index in 0..<10 { try scene.publish("\(index)", room: guests[0]) }
        #expect(scene.store.bytesHeld <= 3 * 320)
        #expect(try scene.recover(guests[2]).verdict == .lost(.trimmed))
        #expect(try scene.recover(guests[0], after: 9).verdict == .recovered)
        #expect(scene.texts == ["7", "8", "9"])
    }

    @Test func theSameMessageTwiceIsOne() throws {
        let (scene, ann, bob) = try annAndBob { $0.maximumKeys = 2 }
        func keyed(_ key: String) -> MessageProperties {
            MessageProperties(.other, key: IdempotencyKey(hashing: bytes(key)))
        }
        let first = try scene.publish("a", from: ann, keyed("1"))
        #expect(
            try scene.publish("a again", from: ann, keyed("1"))
                == Published(
                    position: first.position, isDuplicate: true))
        #expect(try !scene.publish("b", from: bob, keyed("1")).isDuplicate, "another sender's key")
        // A reconnect changes neither.
        let back = try scene.rejoin(ann)
        #expect(try scene.publish("a again", from: back, keyed("1")).isDuplicate)
        #expect(try !scene.publish("c", from: back, keyed("2")).isDuplicate)
        #expect(try !scene.publish("a", from: back, keyed("1")).isDuplicate, "only so many are remembered")
        scene.now = scene.now + .seconds(300)
        #expect(try !scene.publish("c", from: back, keyed("2")).isDuplicate, "and only so long")
    }

    @Test func windowFollowsWhatClientsMiss() throws {
        let (scene, ann, bob) = try annAndBob {
            $0.window = 10
            $0.maximumWindow = 100
        }
        for _ in 0..<40 { try scene.publish("x", from: ann) }
        #expect(try scene.recover(bob).verdict == .lost(.trimmed))
        for _ in 0..<40 { try scene.publish("x", from: ann) }
        #expect(try scene.recover(bob, after: 40).verdict == .recovered, "now it is known how long they stay away")
        // It comes down again, slowly, when nobody misses much.
        for _ in 0..<200 { _ = try scene.recover(bob, after: 80) }
        for _ in 0..<40 { try scene.publish("x", from: ann) }
        #expect(
            try scene.recover(bob, after: 80).verdict == .lost(.trimmed))
        // And never above its limit.
        for _ in 0..<500 { try scene.publish("x", from: ann) }
        _ = try scene.recover(bob, after: 40)
        for _ in 0..<500 { try scene.publish("x", from: ann) }
        #expect(scene.store.bytesHeld <= 101 * 320)
    }

    @Test func clockThatGoesBackKeepsWhatItPromised() throws {
        let (scene, ann, bob) = try annAndBob(now: .at(1_000))
        try scene.publish("a", from: ann)
        scene.now = .at(1)
        try scene.publish("b", from: ann)
        #expect(try scene.recover(bob).verdict == .recovered && scene.texts == ["a", "b"])
        scene.now = .at(100_000)
        #expect(try scene.recover(bob).verdict == .lost(.expired))
        scene.now = Instant(nanoseconds: .max)
        try scene.publish("c", from: ann)
        _ = try scene.recover(bob)
        scene.store.handleTimeout(now: scene.now)
    }

    @Test func payloadsOfAllSizesComeBackWhole() throws {
        let (scene, ann, bob) = try annAndBob { $0.window = 200 }
        var random = SeededGenerator(seed: 5)
        var sent: [[UInt8]] = []
        for size in [0, 1, 255, 256, 257, 511, 512, 513, 4_096, 65_536, 3] {
            let payload = random.bytes(size)
            sent.append(payload)
            _ = try scene.store.publish(
                room: ann.seat.room, from: ann.seat.member, to: nil, MessageProperties(.other, isText: false),
                payload: payload.span.bytes, now: scene.now)
        }
        #expect(try scene.recover(bob).verdict == .recovered)
        #expect((0..<scene.batch.count).map { scene.batch.payload($0) } == sent)
        #expect(scene.batch.records.allSatisfy { !$0.isText })
    }

    @Test func memoryOfABurstIsGivenBack() throws {
        let scene = Scene { $0.window = 1_000 }
        let ann = try scene.join("ann")
        let text = String(repeating: "x", count: 4_000)
        for _ in 0..<400 { try scene.publish(text, room: ann) }
        #expect(scene.store.bytesReserved > scene.store.bytesHeld / 2)
        try scene.store.reset(ann.seat.room, because: .epoch)
        #expect(scene.store.bytesHeld == 0 && scene.store.bytesReserved == 0)
        try scene.publish(text, room: ann)
        #expect(try scene.recover(ann, since: scene.store.position(of: ann.seat.room)).verdict == .recoveredEmpty)
    }

    @Test func resetBeginsAnewAndSaysWhy() throws {
        let (scene, ann, bob) = try annAndBob()
        try scene.publish("a", from: ann)
        try scene.store.reset(ann.seat.room, because: .degraded)
        let recovery = try scene.recover(bob)
        #expect(recovery.verdict == .lost(.degraded) && scene.texts.isEmpty)
        #expect(recovery.position.epoch != bob.position.epoch && recovery.position.sequence == 0)
        try scene.publish("b", from: ann)
        #expect(try scene.recover(bob, since: recovery.position).verdict == .recovered && scene.texts == ["b"])
        #expect(scene.store.bytesHeld == 320)
    }
}

/// A room with two in it.
private func annAndBob(
    now: Instant = .at(1), _ change: (inout Configuration) -> Void = { _ in }
) throws -> (scene: Scene, ann: Guest, bob: Guest) {
    let scene = Scene(change)
    scene.now = now
    return (scene, try scene.join("ann"), try scene.join("bob"))
}

extension Scene {
    /// What a guest gets who has all up to this message.
    fileprivate func recover(_ guest: Guest, after sequence: UInt64) throws -> Recovery {
        try recover(guest, since: Position(epoch: guest.position.epoch, sequence: sequence))
    }
}
