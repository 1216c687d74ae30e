import Replay
import ReplayStores
import Storage
import Testing
import Wire

/// The same random schedule in memory and in another store: everything they say must agree, but for the random numbers
/// in it.
struct Agreement {
    struct Pair {
        var memory: Joined
        var other: Joined
    }

    struct Disagreement: Error {
        let what: String
    }

    let memory: MemoryStore
    let other: (Operation) throws -> Outcome
    let clock: TestClock
    var random: SeededGenerator
    var seats: [Membership: [Pair]] = [:]
    /// Epochs of the memory store and what they are called in the other.
    var epochs: [UInt64: UInt64] = [:]

    init(_ rooms: Replay.Configuration, clock: TestClock, seed: UInt64, other: @escaping (Operation) throws -> Outcome)
    {
        memory = MemoryStore(configuration: rooms, random: SeededGenerator(seed: seed))
        self.other = other
        self.clock = clock
        random = SeededGenerator(seed: seed &+ 1)
    }

    static func limits(_ seed: UInt64) -> Replay.Configuration {
        var random = SeededGenerator(seed: seed)
        var rooms = Replay.Configuration()
        rooms.window = Int.random(in: 1...5, using: &random)
        rooms.maximumWindow = Bool.random(using: &random) ? rooms.window * 2 : 0
        rooms.maximumKept = Int.random(in: 0...3, using: &random)
        rooms.maximumMessageSize = 60
        rooms.maximumRoomBytes = Bool.random(using: &random) ? 160 : 1_000
        rooms.maximumBatch = Int.random(in: 2...8, using: &random)
        rooms.maximumBatchBytes = 150
        rooms.maximumKeys = 2
        rooms.keyLifetime = .seconds(5)
        rooms.messageLifetime = .seconds(10)
        rooms.stateLifetime = .seconds(30)
        rooms.maximumMembersPerRoom = 4
        rooms.replaysKeptOnLoss = Bool.random(using: &random)
        rooms.needsToken = random.next() % 4 != 0
        return rooms
    }

    private var now: Instant { Instant(nanoseconds: clock.microseconds * 1_000) }

    private mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }

    mutating func step() throws {
        let room = try RoomName(chance(80) ? "lobby" : "hall")
        let names = try ["ann", "bob", "eve", "joe", "kim"].map { Membership(room: room, user: try UserName($0)) }
        let one = names[Int.random(in: 0..<names.count, using: &random)]
        let two = names[Int.random(in: 0..<names.count, using: &random)]
        switch Int.random(in: 0..<100, using: &random) {
        case 0..<45:
            let kinds: [MessageKind] = [.other, .other, .offer, .answer, .candidate]
            var properties = MessageProperties(kinds[Int.random(in: 0..<5, using: &random)], isPriority: chance(10))
            properties.negotiation = chance(20) ? .max : 0
            if chance(15) { properties.lifetime = .seconds(Int64.random(in: 0...12, using: &random)) }
            if chance(15) { properties.key = IdempotencyKey(high: UInt64.random(in: 0...2, using: &random), low: 0) }
            let payload = [UInt8](repeating: 0x61, count: Int.random(in: 0...60, using: &random))
            let operation = Operation.publish(
                room: room, from: chance(90) ? one.user : nil, to: chance(40) ? two.user : nil, properties,
                payload: payload)
            try compare(operation, operation)
        case 45..<62:
            guard let pair = seats[one]?.randomElement(using: &random), chance(90) else {
                return try join(one, nil, nil)
            }
            let (left, right) = presented()
            let token = chance(85)
            try join(
                one, Resume(token: token ? pair.memory.token : nil, position: left),
                Resume(token: token ? pair.other.token : nil, position: right))
        case 62..<75:
            guard let pair = seat(one) else { return }
            let (left, right) = presented()
            try compare(
                .recover(one, generation: pair.memory.generation, left),
                .recover(one, generation: pair.other.generation, right))
        case 75..<82:
            guard let pair = seat(one) else { return }
            let (left, right) = presented()
            try compare(
                .acknowledge(one, generation: pair.memory.generation, left),
                .acknowledge(one, generation: pair.other.generation, right))
        case 82..<87:
            guard let pair = seat(one) else { return }
            try compare(
                .drop(one, generation: pair.memory.generation), .drop(one, generation: pair.other.generation))
        case 87..<89:
            guard let pair = seat(one) else { return }
            try compare(
                .leave(one, generation: pair.memory.generation), .leave(one, generation: pair.other.generation))
        case 89..<91:
            try compare(.state(one), .state(one))
        case 91..<92:
            let metrics = QualityMetrics(latencyMilliseconds: Double.random(in: 100...500, using: &random))
            try compare(.quality(one, metrics), .quality(one, metrics))
        case 92..<93:
            try compare(.reset(room, .degraded), .reset(room, .degraded))
        default:
            clock.pass(.seconds(chance(10) ? 31 : Int64.random(in: 1...6, using: &random)))
            while let due = memory.nextTimeout, due <= now { memory.handleTimeout(now: now) }
        }
    }

    private mutating func seat(_ membership: Membership) -> Pair? {
        guard let known = seats[membership] else { return nil }
        // Mostly the last connection, sometimes one before.
        return chance(85) ? known.last : known.randomElement(using: &random)
    }

    private mutating func presented() -> (Presented, Presented) {
        if chance(10) { return (.nothing, .nothing) }
        if chance(5) { return (.unreadable(.forged), .unreadable(.forged)) }
        // Mostly near the end of the current epoch of the room.
        let current = (try? RoomName("lobby")).flatMap { name -> Position? in
            let bytes = name.bytes
            return memory.room(named: bytes.span.bytes).flatMap { memory.position(of: $0) }
        }
        guard let current, let known = epochs[current.epoch], chance(85) else {
            guard let epoch = epochs.keys.sorted().randomElement(using: &random), let called = epochs[epoch] else {
                return (.nothing, .nothing)
            }
            let number = UInt64.random(in: 0...9, using: &random)
            return (
                .position(Position(epoch: epoch, sequence: number)),
                .position(Position(epoch: called, sequence: number))
            )
        }
        let back = UInt64.random(in: 0...8, using: &random)
        let number = chance(3) ? current.sequence + 1 : current.sequence - min(back, current.sequence)
        return (
            .position(Position(epoch: current.epoch, sequence: number)),
            .position(Position(epoch: known, sequence: number))
        )
    }

    private mutating func join(_ membership: Membership, _ left: Resume?, _ right: Resume?) throws {
        try compare(.join(membership, resume: left), .join(membership, resume: right))
    }

    private mutating func compare(_ left: Operation, _ right: Operation) throws {
        let expected = memory.submit(left, id: OperationID(0), now: now)
        let found = try other(right)
        guard try agree(left, expected, found) else {
            throw Disagreement(what: "\(left)\nmemory: \(String(describing: expected))\nother: \(found)")
        }
    }

    private mutating func agree(_ operation: Operation, _ expected: Outcome?, _ found: Outcome) throws -> Bool {
        switch (expected, found) {
        case (.published(let left), .published(let right)):
            return agree(left.position, right.position) && left.isDuplicate == right.isDuplicate
        case (.joined(let left, let messages), .joined(let right, let others)):
            guard case .join(let membership, _) = operation else { return false }
            seats[membership, default: []].append(Pair(memory: left, other: right))
            return left.isReconnection == right.isReconnection && left.disconnectDuration == right.disconnectDuration
                && (left.replaced == nil) == (right.replaced == nil) && agree(left.recovery, right.recovery)
                && messages.records == others.records && messages.bytes == others.bytes
        case (.recovered(let left, let messages), .recovered(let right, let others)):
            return agree(left, right) && messages.records == others.records && messages.bytes == others.bytes
        case (.state(let left), .state(let right)):
            return left.isConnected == right.isConnected && left.lastSequence == right.lastSequence
                && left.quality == right.quality && left.disconnectDuration == right.disconnectDuration
                && left.connections == right.connections
        case (.quality(let left), .quality(let right)): return left == right
        case (.done, .done): return true
        case (.refused(let left), .refused(let right)): return left == right
        default: return false
        }
    }

    private mutating func agree(_ left: Recovery, _ right: Recovery) -> Bool {
        left.verdict == right.verdict && left.problem == right.problem && agree(left.position, right.position)
    }

    private mutating func agree(_ left: Position, _ right: Position) -> Bool {
        if epochs[left.epoch] == nil { epochs[left.epoch] = right.epoch }
        return epochs[left.epoch] == right.epoch && left.sequence == right.sequence
    }
}

@Suite(.serialized) struct StoresAgree {
    @Test func memoryAndRedis() throws {
        let server = try RedisServer()
        for seed in 0..<60 as Range<UInt64> {
            let clock = TestClock()
            let rooms = Agreement.limits(seed)
            let scene = try RedisScene(server, clock: clock, rooms) {
                $0.resetsWhenBehind = false
                $0.prefix = "schedule \(seed):"
            }
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
