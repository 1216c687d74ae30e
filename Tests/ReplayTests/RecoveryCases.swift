import Replay
import Testing
import Wire

/// A store as the table sees it: operations and time.
struct StoreDriver {
    var perform: (Operation) throws -> Outcome
    var pass: (Wire.Duration) -> Void
}

/// One case: so many messages in a room with such limits, then a wait, then a return to a place.
/// Every store must answer the same.
struct RecoveryCase: CustomTestStringConvertible, Sendable {
    var name: String
    var window = 10
    var lifetime = 60.0
    var published: Int
    var since: UInt64
    var wait = 0.0
    var batchLimit = 100
    var kind = MessageKind.other
    /// Own lifetime of each message.
    var expiry: Double?
    var otherEpoch = false
    var verdict: Verdict
    var replayed: ClosedRange<UInt64>?

    var testDescription: String { name }

    static let all: [RecoveryCase] = [
        RecoveryCase(name: "nothing was ever said", published: 0, since: 0, verdict: .recoveredEmpty),
        RecoveryCase(name: "the last two", published: 10, since: 8, verdict: .recovered, replayed: 9...10),
        RecoveryCase(name: "all of a full window", published: 10, since: 0, verdict: .recovered, replayed: 1...10),
        RecoveryCase(name: "all, window not full", published: 4, since: 0, verdict: .recovered, replayed: 1...4),
        RecoveryCase(name: "nothing missed", published: 7, since: 7, verdict: .recoveredEmpty),
        RecoveryCase(name: "nothing missed, window full", published: 20, since: 20, verdict: .recoveredEmpty),
        RecoveryCase(name: "exactly the window", published: 20, since: 10, verdict: .recovered, replayed: 11...20),
        RecoveryCase(name: "one more than the window", published: 20, since: 9, verdict: .lost(.trimmed)),
        RecoveryCase(name: "long gone", published: 20, since: 0, verdict: .lost(.trimmed)),
        RecoveryCase(name: "not there yet", published: 20, since: 21, verdict: .lost(.epoch)),
        RecoveryCase(name: "far in the future", published: 20, since: .max, verdict: .lost(.epoch)),
        RecoveryCase(name: "future of an empty room", published: 0, since: 1, verdict: .lost(.epoch)),
        RecoveryCase(
            name: "as many as one batch may carry", published: 10, since: 5, batchLimit: 5, verdict: .recovered,
            replayed: 6...10),
        RecoveryCase(
            name: "more than one batch may carry", published: 10, since: 4, batchLimit: 5, verdict: .lost(.limit)),
        RecoveryCase(
            name: "expired", lifetime: 1, published: 10, since: 8, wait: 3, verdict: .lost(.expired)),
        RecoveryCase(
            name: "expired, nothing missed", lifetime: 1, published: 10, since: 10, wait: 3, verdict: .recoveredEmpty),
        RecoveryCase(
            name: "just not expired", lifetime: 3, published: 3, since: 1, wait: 2.999, verdict: .recovered,
            replayed: 2...3),
        RecoveryCase(
            name: "expired to the moment", lifetime: 3, published: 3, since: 1, wait: 3, verdict: .lost(.expired)),
        RecoveryCase(
            name: "trimmed, then all expired", lifetime: 1, published: 20, since: 3, wait: 3, verdict: .lost(.expired)),
        RecoveryCase(name: "another epoch", published: 10, since: 8, otherEpoch: true, verdict: .lost(.epoch)),
        RecoveryCase(
            name: "another epoch, same number", published: 10, since: 10, otherEpoch: true, verdict: .lost(.epoch)),
        RecoveryCase(name: "window of one", window: 1, published: 3, since: 2, verdict: .recovered, replayed: 3...3),
        RecoveryCase(name: "window of one, two missed", window: 1, published: 3, since: 1, verdict: .lost(.trimmed)),
        RecoveryCase(
            name: "only the newest offer", published: 9, since: 0, kind: .offer, verdict: .recovered, replayed: 9...9),
        RecoveryCase(
            name: "replaced offers do not fill the window", window: 2, published: 30, since: 0, kind: .offer,
            verdict: .recovered, replayed: 30...30),
        RecoveryCase(
            name: "only the newest answer", published: 9, since: 3, kind: .answer, verdict: .recovered,
            replayed: 9...9),
        RecoveryCase(
            name: "their senders gave them a second", published: 5, since: 2, wait: 2, expiry: 1,
            verdict: .recoveredEmpty),
        RecoveryCase(
            name: "their senders gave them a minute", published: 5, since: 2, wait: 2, expiry: 60, verdict: .recovered,
            replayed: 3...5),
        RecoveryCase(
            name: "trimmed before their own time", published: 20, since: 2, expiry: 50, verdict: .lost(.trimmed)),
    ]
}

extension RecoveryCase {
    var configuration: Configuration {
        var configuration = Configuration()
        configuration.window = window
        configuration.messageLifetime = Duration(nanoseconds: Int64(lifetime * 1e9))
        configuration.stateLifetime = .seconds(3_600)
        configuration.maximumBatch = batchLimit
        return configuration
    }

    /// Plays the case in a room that must be new, and holds the answers to it.
    func check(_ store: StoreDriver, room: String = "lobby") throws {
        let room = try RoomName(room)
        let reader = Membership(room: room, user: try UserName("reader"))
        let writer = Membership(room: room, user: try UserName("writer"))
        guard case .joined(let joined, _) = try store.perform(.join(reader, resume: nil)) else {
            Issue.record("\(name): join")
            return
        }
        _ = try store.perform(.join(writer, resume: nil))
        #expect(joined.recovery.verdict == .fresh && joined.recovery.position.sequence == 0)
        for number in 0..<published {
            var properties = MessageProperties(kind)
            if let expiry { properties.lifetime = Duration(nanoseconds: Int64(expiry * 1e9)) }
            let operation = Operation.publish(
                room: room, from: writer.user, to: nil, properties, payload: Array("m\(number + 1)".utf8))
            guard case .published(let done) = try store.perform(operation) else {
                Issue.record("\(name): publish")
                return
            }
            #expect(done.position == Position(epoch: joined.recovery.position.epoch, sequence: UInt64(number + 1)))
        }
        store.pass(Duration(nanoseconds: Int64(wait * 1e9)))
        var place = Position(epoch: joined.recovery.position.epoch, sequence: since)
        if otherEpoch { place.epoch ^= 0x100 }

        let asked = try store.perform(.recover(reader, generation: joined.generation, .position(place)))
        guard case .recovered(let recovery, let batch) = asked else {
            Issue.record("\(name): recover")
            return
        }
        check(recovery, batch, top: joined.recovery.position.epoch)
        // Coming back on a new connection says the same as asking on the old one.
        let resume = Resume(token: joined.token, position: .position(place))
        guard case .joined(let again, let second) = try store.perform(.join(reader, resume: resume)) else {
            Issue.record("\(name): join again")
            return
        }
        check(again.recovery, second, top: joined.recovery.position.epoch)
        #expect(again.isReconnection && again.replaced == joined.generation && again.token == joined.token)
    }

    private func check(_ recovery: Recovery, _ batch: Batch, top epoch: UInt64) {
        #expect(recovery.verdict == verdict, "\(name)")
        #expect(recovery.position == Position(epoch: epoch, sequence: UInt64(published)), "\(name)")
        #expect(batch.records.map(\.sequence) == (replayed.map { Array($0) } ?? []), "\(name)")
        for (index, record) in batch.records.enumerated() {
            #expect(batch.payload(index) == Array("m\(record.sequence)".utf8), "\(name)")
        }
    }
}
