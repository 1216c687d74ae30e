import Foundation
import Replay
import Storage
import Testing
import Wire

@testable import ReplayStores

/// A store in a file, asked one thing at a time.
final class FileScene {
    let store: SQLiteReplayStore
    let clock: TestClock
    let states = Journal<SQLiteState>()
    private let wake = Journal<Int>()
    private var lastID: UInt64 = 0

    init(
        _ path: String, clock: TestClock = TestClock(), isDurable: Bool = false, resetsWhenBehind: Bool = false,
        _ rooms: Replay.Configuration = Replay.Configuration()
    ) throws {
        self.clock = clock
        var configuration = SQLiteReplayStore.Configuration(path: path, rooms: rooms)
        configuration.isDurable = isDurable
        configuration.resetsWhenBehind = resetsWhenBehind
        configuration.clock = { clock.microseconds * 1_000 }
        let wake = wake
        let states = states
        store = SQLiteReplayStore(
            configuration, random: SeededGenerator(seed: .random(in: 0 ... .max)), onOutcome: { wake.append(1) },
            onState: { states.append($0) })
        try states.wait("a state") { !$0.isEmpty }
    }

    deinit { store.close() }

    func submit(_ operation: Replay.Operation) -> Outcome? {
        lastID += 1
        return store.submit(operation, id: OperationID(lastID), now: Instant(nanoseconds: clock.microseconds * 1_000))
    }

    func perform(_ operation: Replay.Operation) throws -> Outcome {
        if let outcome = submit(operation) { return outcome }
        var seen = 0
        while true {
            if let (_, outcome) = store.pollOutcome() { return outcome }
            let before = seen
            seen = try wake.wait("an outcome") { $0.count > before }.count
        }
    }

    /// So many outcomes, in order.
    func outcomes(_ count: Int) throws -> [Outcome] {
        var all: [Outcome] = []
        var seen = 0
        while true {
            while let (_, outcome) = store.pollOutcome() { all.append(outcome) }
            if all.count >= count { return all }
            let before = seen
            seen = try wake.wait("an outcome") { $0.count > before }.count
        }
    }

    func join(_ user: String, resume: Resume? = nil) throws -> Seat {
        let membership = Membership(room: try RoomName("lobby"), user: try UserName(user))
        switch try perform(.join(membership, resume: resume)) {
        case .joined(let joined, let batch): return Seat(membership: membership, joined: joined, batch: batch)
        case .refused(let refusal): throw refusal
        default: throw Overdue(what: "a join")
        }
    }

    func publish(_ text: String, from seat: Seat) throws -> UInt64 {
        let operation = Replay.Operation.publish(
            room: seat.membership.room, from: seat.membership.user, to: nil, MessageProperties(),
            payload: Array(text.utf8))
        switch try perform(operation) {
        case .published(let published): return published.position.sequence
        case .refused(let refusal): throw refusal
        default: throw Overdue(what: "a publish")
        }
    }
}

extension StoresAgree {
    @Test func memoryAndSQLite() throws {
        let scratch = try Scratch()
        for seed in 0..<30 as Range<UInt64> {
            let clock = TestClock()
            let rooms = Agreement.limits(seed)
            let scene = try FileScene(scratch.file("\(seed).db"), clock: clock, rooms)
            var agreement = Agreement(rooms, clock: clock, seed: seed) { try scene.perform($0) }
            for step in 0..<150 {
                do { try agreement.step() } catch let error as Agreement.Disagreement {
                    Issue.record("seed \(seed), step \(step): \(error.what)")
                    break
                }
            }
        }
    }
}

@Suite(.serialized) struct RoomsInAFile {
    @Test func giveTheVerdictsOfTheTable() throws {
        let scratch = try Scratch()
        for (index, row) in RecoveryCase.all.enumerated() {
            let scene = try FileScene(scratch.file("\(index).db"), row.configuration)
            try row.check(StoreDriver(perform: { try scene.perform($0) }, pass: { scene.clock.pass($0) }))
        }
    }

    /// The file as a power failure would leave it, after each acknowledged message.
    @Test func haveWhatWasAcknowledgedAsDurable() throws {
        let scratch = try Scratch()
        let scene = try FileScene(scratch.file("a.db"), isDurable: true)
        let ann = try scene.join("ann")
        let bob = try scene.join("bob")
        for number in 1...5 as ClosedRange<UInt64> {
            #expect(try scene.publish("\(number)", from: ann) == number)
            for end in ["", "-wal"] where FileManager.default.fileExists(atPath: scratch.file("a.db" + end)) {
                try FileManager.default.copyItem(
                    atPath: scratch.file("a.db" + end), toPath: scratch.file("b\(number).db" + end))
            }
            let later = try FileScene(scratch.file("b\(number).db"), clock: scene.clock)
            #expect(later.states.all == [.up])
            let back = try later.join("bob", resume: bob.resume())
            #expect(back.joined.recovery.verdict == .recovered && back.batch.texts == (1...number).map { "\($0)" })
            // The process that knew of its connection is gone.
            #expect(back.joined.isReconnection && back.joined.replaced == nil)
            #expect(back.joined.token == bob.joined.token && back.joined.generation != bob.joined.generation)
        }
    }

    /// An old copy of the file must not be taken for the whole story.
    @Test func thatIsBehindBeginANewEpoch() throws {
        let scratch = try Scratch()
        let scene = try FileScene(scratch.file("a.db"), resetsWhenBehind: true)
        let ann = try scene.join("ann")
        _ = try scene.publish("one", from: ann)
        let two = Position(epoch: ann.position.epoch, sequence: 2)
        let back = try scene.join("ann", resume: ann.resume(at: two))
        #expect(back.joined.recovery.verdict == .lost(.epoch) && back.joined.recovery.problem == .futurePosition)
        #expect(back.position.epoch != ann.position.epoch && back.position.sequence == 0 && back.batch.isEmpty)
        for number in 1...2 as ClosedRange<UInt64> { #expect(try scene.publish("new", from: back) == number) }
        let again = try scene.join("ann", resume: back.resume(at: two))
        #expect(again.joined.recovery.verdict == .lost(.epoch) && again.batch.isEmpty)
    }

    @Test func areSweptFromTheFile() throws {
        let scratch = try Scratch()
        let scene = try FileScene(scratch.file("a.db"))
        let ann = try scene.join("ann")
        _ = try scene.publish("one", from: ann)
        _ = try scene.perform(.drop(ann.membership, generation: ann.joined.generation))
        scene.clock.pass(.seconds(3_000))
        scene.store.handleTimeout(now: Instant(nanoseconds: .max - 1))
        scene.store.close()
        let file = SQLiteDatabase(.init(path: scratch.file("a.db"), schema: [], schemaVersion: 2))
        defer { file.close() }
        let left: Result<Int64, SQLiteFailure> = try answer { completion in
            file.perform(.read) { connection throws(SQLiteFailure) in
                var left: Int64 = 0
                try connection.execute(
                    "SELECT (SELECT count(*) FROM rooms) + (SELECT count(*) FROM members) + (SELECT count(*) FROM messages)"
                ) { left = $0.integer(0) }
                return left
            } completion: {
                completion($0)
            }
        }
        #expect(left == .success(0))
    }

    @Test func ofADamagedFileBeginAnew() throws {
        let scratch = try Scratch()
        let path = scratch.file("a.db")
        let first = try FileScene(path)
        let ann = try first.join("ann")
        _ = try first.publish("one", from: ann)
        first.store.close()
        try Data("something else entirely, of some length......".utf8).write(to: URL(fileURLWithPath: path))
        let scene = try FileScene(path)
        let back = try scene.join("ann", resume: ann.resume())
        #expect(back.joined.recovery.verdict == .lost(.epoch) && back.position.epoch != ann.position.epoch)
        #expect(scene.states.all.first == .replaced(aside: path + ".corrupt-1"))
    }

    @Test func ofAFileThatCannotBeOpenedAreUnavailable() throws {
        let scratch = try Scratch()
        let scene = try FileScene(scratch.file("nowhere/a.db"))
        #expect(throws: Refusal.unavailable) { try scene.join("ann") }
    }
}
