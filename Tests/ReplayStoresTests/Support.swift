import Replay
import ReplayStores
import Storage
import Synchronization
import Testing
import Wire

/// The server's clock as a test wants it: microseconds.
final class TestClock: Sendable {
    private let now = Atomic<Int64>(1_000_000_000_000)
    var microseconds: Int64 { now.load(ordering: .sequentiallyConsistent) }
    func pass(_ time: Span) { now.wrappingAdd(time.microseconds, ordering: .sequentiallyConsistent) }
}

/// A user on a connection.
struct Seat {
    var membership: Membership
    var joined: Joined
    var batch: Batch
    var position: Position { joined.recovery.position }

    func resume(at position: Position? = nil) -> Resume {
        Resume(token: joined.token, position: .position(position ?? self.position))
    }
}

/// One server's store in Redis, asked one thing at a time.
final class RedisScene {
    let store: RedisReplayStore
    let server: RedisServer
    let clock: TestClock?
    let wake = Journal<Int>()
    private let states = Journal<RedisState>()
    private var lastID: UInt64 = 0

    init(
        _ server: RedisServer, clock: TestClock? = nil, seed: UInt64 = .random(in: 0 ... .max),
        _ rooms: Replay.Configuration = Replay.Configuration(),
        _ change: (inout RedisReplayStore.Configuration) -> Void = { _ in }
    ) throws {
        self.server = server
        self.clock = clock
        var configuration = RedisReplayStore.Configuration(
            redis: RedisClient.Configuration(address: try server.address()), rooms: rooms)
        configuration.timeout = .seconds(20)
        configuration.redis.stallTimeout = .seconds(20)
        configuration.redis.silenceTimeout = .seconds(40)
        if let clock { configuration.clock = { clock.microseconds } }
        change(&configuration)
        let wake = wake
        let states = states
        store = RedisReplayStore(
            configuration, random: SeededGenerator(seed: seed), onOutcome: { wake.append(1) },
            onState: { states.append($0) })
        try waitUntilUp()
    }

    deinit { store.close() }

    func waitUntilUp() throws { try states.wait("up") { $0.last == .up } }
    /// Until it is up now, whatever it was told before.
    func waitForState() throws { try states.wait("up now") { _ in store.state == .up } }

    func waitUntilDown() throws { try states.wait("down") { $0.last.map { $0 != .up } ?? false } }

    func submit(_ operation: Operation) -> (OperationID, Outcome?) {
        lastID += 1
        let id = OperationID(lastID)
        return (id, store.submit(operation, id: id, now: Instant(nanoseconds: 1_000_000_000)))
    }

    /// So many outcomes, as they come.
    func outcomes(_ count: Int) throws -> [(OperationID, Outcome)] {
        var all: [(OperationID, Outcome)] = []
        var seen = 0
        while true {
            while let next = store.pollOutcome() { all.append(next) }
            if all.count >= count { return all }
            let before = seen
            seen = try wake.wait("an outcome") { $0.count > before }.count
        }
    }

    func perform(_ operation: Operation) throws -> Outcome {
        let (_, outcome) = submit(operation)
        return try outcome ?? outcomes(1)[0].1
    }

    var driver: StoreDriver {
        StoreDriver(perform: { try self.perform($0) }, pass: { self.clock?.pass($0) })
    }

    // MARK: In the words of a test

    func join(_ user: String, room: String = "lobby", resume: Resume? = nil) throws -> Seat {
        let membership = Membership(room: try RoomName(room), user: try UserName(user))
        switch try perform(.join(membership, resume: resume)) {
        case .joined(let joined, let batch): return Seat(membership: membership, joined: joined, batch: batch)
        case .refused(let refusal): throw refusal
        default: throw Overdue(what: "a join")
        }
    }

    func rejoin(_ seat: Seat, at position: Position? = nil) throws -> Seat {
        try join(
            seat.membership.user.text, room: seat.membership.room.text, resume: seat.resume(at: position))
    }

    @discardableResult
    func publish(
        _ text: String, from: Seat? = nil, to: Seat? = nil, room: String = "lobby",
        _ properties: MessageProperties = MessageProperties()
    ) throws -> Published {
        let name = try from?.membership.room ?? RoomName(room)
        let operation = Operation.publish(
            room: name, from: from?.membership.user, to: to?.membership.user, properties, payload: Array(text.utf8))
        switch try perform(operation) {
        case .published(let published): return published
        case .refused(let refusal): throw refusal
        default: throw Overdue(what: "a publish")
        }
    }

    func recover(_ seat: Seat, at position: Position? = nil) throws -> (Recovery, Batch) {
        let operation = Operation.recover(
            seat.membership, generation: seat.joined.generation, .position(position ?? seat.position))
        switch try perform(operation) {
        case .recovered(let recovery, let batch): return (recovery, batch)
        case .refused(let refusal): throw refusal
        default: throw Overdue(what: "a replay")
        }
    }

    func recovered(_ seat: Seat, at position: Position? = nil) throws -> (Verdict, [String]) {
        let (recovery, batch) = try recover(seat, at: position)
        return (recovery.verdict, batch.texts)
    }

    func done(_ operation: Operation) throws {
        switch try perform(operation) {
        case .done: return
        case .refused(let refusal): throw refusal
        default: throw Overdue(what: "an end")
        }
    }

    func drop(_ seat: Seat) throws { try done(.drop(seat.membership, generation: seat.joined.generation)) }
    func leave(_ seat: Seat) throws { try done(.leave(seat.membership, generation: seat.joined.generation)) }

    /// Straight to the server, beside the store.
    @discardableResult
    func raw(_ command: RedisArgument...) throws -> Result<RedisReply, RedisFailure> {
        let other = Connected(try server.address())
        defer { other.client.close() }
        try other.waitUntilUp()
        return try answer { other.client.submit(command, deadline: .seconds(20), completion: $0) }
    }
}

extension Batch {
    var texts: [String] { (0..<count).map { String(decoding: payload($0), as: UTF8.self) } }
}
