import Glibc
import Replay
import Testing
import Wire

/// Random schedules against the oracle. REPLAY_SCHEDULES says how many (default 2000; `make test` runs 100 000),
/// REPLAY_SEED where to start.
@Suite struct Model {
    private static func number(_ name: String, _ otherwise: UInt64) -> UInt64 {
        unsafe getenv(name).flatMap { unsafe UInt64(String(cString: $0)) } ?? otherwise
    }

    private static let shards: UInt64 = 8

    /// One schedule out of ``shards``: what came up in them, and what went wrong first.
    private static func run(from first: UInt64, below end: UInt64) -> (covered: [String: Int], difference: String?) {
        var covered: [String: Int] = [:]
        var seed = first
        while seed < end {
            let schedule = Schedule(seed: seed)
            if let difference = schedule.run() { return (covered, "seed \(seed): \(difference)") }
            covered.merge(schedule.seen, uniquingKeysWith: +)
            seed += shards
        }
        return (covered, nil)
    }

    @Test func storeAndOracleAgree() async {
        let first = Self.number("REPLAY_SEED", 0)
        let count = Self.number("REPLAY_SCHEDULES", 2_000)
        let covered = await withTaskGroup { group in
            for shard in 0..<Self.shards { group.addTask { Self.run(from: first + shard, below: first + count) } }
            var covered: [String: Int] = [:]
            for await (part, difference) in group {
                if let difference { Issue.record("\(difference)") }
                covered.merge(part, uniquingKeysWith: +)
            }
            return covered
        }
        guard count >= 1_000 else { return }
        // A model that never gets anywhere proves nothing.
        for what in [
            "recovered", "recoveredEmpty", "fresh", "lost epoch", "lost trimmed", "lost expired", "lost limit",
            "lost degraded", "stale", "duplicate", "evicted", "crash",
        ] {
            #expect(covered[what, default: 0] >= 50, "\(what): \(covered[what, default: 0]) times")
        }
    }
}

private struct Difference: Error { let text: String }

/// One run: a few rooms and users, and whatever may happen to them.
private final class Schedule {
    private struct Client {
        var seat: Seat
        var generation: UInt64
        var token: ResumeToken
        /// Every place it was ever told, the newest last.
        var places: [Position]
        /// Connections of before: what they say must change nothing.
        var old: [(Seat, UInt64)] = []
    }

    private let roomNames: [String]
    private let userNames: [String]

    private var random: SeededGenerator
    private var store: MemoryStore
    private let configuration: Configuration
    private let key: PositionKey
    private var oracle: Oracle
    private var clients: [String: Client] = [:]
    private var epochs: Set<UInt64> = []
    private var now: Int64
    private var sent = 0
    private var batch = Batch()
    private(set) var seen: [String: Int] = [:]

    init(seed: UInt64) {
        random = SeededGenerator(seed: seed &* 2 &+ 1)
        roomNames = Array(["red", "green", "blue"].prefix(Int.random(in: 1...3, using: &random)))
        userNames = Array(["ann", "bob", "cy", "dee"].prefix(Int.random(in: 2...4, using: &random)))
        var limits = Oracle.Limits()
        limits.window = Int.random(in: 1...8, using: &random)
        limits.kept = Int.random(in: 0...3, using: &random)
        limits.batch = Bool.random(using: &random) ? 100 : Int.random(in: 1...6, using: &random)
        limits.roomBytes = Bool.random(using: &random) ? 100_000 : 1_500
        limits.allBytes = Bool.random(using: &random) ? 1_000_000 : Int.random(in: 1_500...6_000, using: &random)
        limits.needsToken = Int.random(in: 0..<4, using: &random) > 0
        limits.keptOnLoss = Bool.random(using: &random)
        var configuration = Configuration()
        configuration.window = limits.window
        configuration.messageLifetime = .milliseconds(limits.lifetime)
        configuration.stateLifetime = .milliseconds(limits.stateLifetime)
        configuration.maximumMessageSize = 1_000
        configuration.maximumRoomBytes = limits.roomBytes
        configuration.maximumBytes = limits.allBytes
        configuration.maximumKept = limits.kept
        configuration.maximumBatch = limits.batch
        configuration.needsToken = limits.needsToken
        configuration.replaysKeptOnLoss = limits.keptOnLoss
        configuration.maximumKeys = limits.keys
        configuration.keyLifetime = .milliseconds(limits.keyLifetime)
        limits.lifetime *= 1_000_000
        limits.stateLifetime *= 1_000_000
        limits.keyLifetime *= 1_000_000
        self.configuration = configuration
        oracle = Oracle(limits)
        key = PositionKey(using: &random)
        store = MemoryStore(configuration: configuration, random: SeededGenerator(seed: seed &* 3 &+ 7))
        now = Int64.random(in: -1_000_000_000...1_000_000_000, using: &random)
    }

    private func roll(_ sides: Int) -> Int { Int.random(in: 0..<sides, using: &random) }
    private func note(_ what: String) { seen[what, default: 0] += 1 }

    /// nil if all went as it must.
    func run() -> String? {
        for step in 0..<70 {
            do {
                try act()
                try checkTotals()
            } catch let difference as Difference {
                return "step \(step): \(difference.text)"
            } catch {
                return "step \(step): \(error)"
            }
        }
        return nil
    }

    private func act() throws {
        oracle.see(now)
        // The store sees the time even if nothing comes of what follows.
        _ = store.state(MemberID(value: 0), now: instant)
        switch roll(40) {
        case 0...13: try publish()
        case 14...20: try join()
        case 21...27: try recover()
        case 28...29: try end(isLeave: false)
        case 30: try end(isLeave: true)
        case 31: try acknowledge()
        case 32...34: now += Int64(roll(30)) * 1_000_000
        case 35: now += Int64(roll(1_500)) * 1_000_000
        case 36: now -= Int64(roll(300)) * 1_000_000
        case 37: sweep()
        case 38: try reset()
        default: if roll(6) == 0 { crash() }
        }
    }

    /// Dictionaries have another order in each process; a seed must not.
    private var firstClient: Client? { clients.min { $0.key < $1.key }?.value }

    private var instant: Instant { Instant(nanoseconds: now) }

    private func pick() -> (room: String, user: String) {
        (roomNames[roll(roomNames.count)], userNames[roll(userNames.count)])
    }

    private func expect(_ condition: Bool, _ text: @autoclosure () -> String) throws {
        if !condition { throw Difference(text: text()) }
    }

    private func refusal(_ body: () throws -> Void) throws -> Refusal? {
        do { try body() } catch let refusal as Refusal { return refusal }
        return nil
    }

    // MARK: What may happen

    private func publish() throws {
        let (room, user) = pick()
        let from: String? = roll(6) == 0 ? nil : user
        let to: String? = roll(2) == 0 ? nil : userNames[roll(userNames.count)]
        var properties = MessageProperties([.other, .offer, .answer, .candidate][roll(4)])
        properties.isPriority = roll(8) == 0
        properties.negotiation = UInt64(roll(2))
        if roll(6) == 0 { properties.lifetime = .milliseconds(Int64(roll(40))) }
        if roll(5) == 0 { properties.key = IdempotencyKey(high: UInt64(roll(3)), low: 0) }
        sent += 1
        var payload = bytes("\(room) \(sent) \(from ?? "-") \(to ?? "*")")
        payload += [UInt8](repeating: UInt8(truncatingIfNeeded: sent), count: roll(3) == 0 ? roll(900) : 0)

        let people = oracle.rooms[room]?.people
        let mustRefuse: Refusal? =
            people == nil
            ? .unknownRoom
            : from.map { people?[$0] == nil } == true
                ? .unknownUser : to.map { people?[$0] == nil } == true ? .unknownRecipient : nil
        let operation = Operation.publish(
            room: try RoomName(room), from: try from.map { try UserName($0) }, to: try to.map { try UserName($0) },
            properties, payload: payload)
        let evictions = store.statistics.evicted
        switch store.submit(operation, id: OperationID(0), now: instant) {
        case .refused(let refusal)?:
            try expect(refusal == mustRefuse, "publish refused: \(refusal), must be \(String(describing: mustRefuse))")
        case .published(let published)?:
            try expect(mustRefuse == nil, "published, must be refused: \(String(describing: mustRefuse))")
            let expected = oracle.publish(room: room, from: from, to: to, properties, payload: payload)
            try expect(published.position.epoch == oracle.rooms[room]?.epoch, "epoch of a message")
            try expect(
                expected.map { $0 == (published.position.sequence, published.isDuplicate) } == true,
                "published \(published), must be \(String(describing: expected))")
            if published.isDuplicate { note("duplicate") }
            if store.statistics.evicted > evictions { note("evicted") }
            // Live, to whoever it is for and is connected: their place moves on.
            for (user, person) in (people ?? [:]).sorted(by: { $0.key < $1.key })
            where person.isConnected && user != from && (to == nil || to == user) {
                if roll(2) == 0 { clients["\(room)/\(user)"]?.places.append(published.position) }
            }
        default:
            throw Difference(text: "publish: no answer")
        }
    }

    private func resume(_ client: Client?) -> Resume? {
        guard let client, roll(8) > 0 else { return roll(2) == 0 ? nil : Resume(token: nil, position: .nothing) }
        var token: ResumeToken? = client.token
        if roll(10) == 0 { token = ResumeToken(high: client.token.high, low: client.token.low &+ 1) }
        if roll(12) == 0 { token = nil }
        if roll(20) == 0 { token = firstClient?.token }
        return Resume(token: token, position: presented(client))
    }

    /// A place it was told, or something made of one.
    private func presented(_ client: Client) -> Presented {
        let place = roll(3) > 0 ? client.places.last : client.places[roll(client.places.count)]
        guard var place, roll(12) > 0 else {
            return [.nothing, .unreadable(.forged), .unreadable(.malformed)][roll(3)]
        }
        if roll(10) == 0 { place.sequence = UInt64(roll(60)) }
        if roll(15) == 0, let other = firstClient { place = other.places.last ?? place }
        // Through its text, as a client would bring it.
        return key.presented(key.text(place))
    }

    private func join() throws {
        let (room, user) = pick()
        let name = "\(room)/\(user)"
        let resume = resume(clients[name])
        let roomBytes = bytes(room)
        let userBytes = bytes(user)
        let before = oracle.rooms[room]?.people[user]
        let isNew = oracle.rooms[room] == nil
        let (seat, joined) = try store.join(
            room: roomBytes.span.bytes, user: userBytes.span.bytes, resume: resume, into: &batch, now: instant)
        if isNew {
            try expect(epochs.insert(joined.recovery.position.epoch).inserted, "an epoch came twice")
            try expect(joined.recovery.position.sequence == 0, "a new room starts at \(joined.recovery.position)")
        }
        let expected = oracle.join(user, room: room, resume: resume, joined: joined)
        try compare(joined.recovery, expected, "\(name) joins with \(String(describing: resume))")
        try expect(joined.isReconnection == (before != nil), "reconnection")
        try expect(joined.replaced == (before?.isConnected == true ? before?.generation : nil), "replaced")
        try expect(joined.generation != before?.generation, "a generation came twice")
        if let before, !before.isConnected {
            try expect(
                joined.disconnectDuration?.nanoseconds == oracle.clock - before.leftAt, "disconnect duration")
        }
        var client = clients[name] ?? Client(seat: seat, generation: 0, token: joined.token, places: [])
        if client.generation != 0 { client.old.append((client.seat, client.generation)) }
        client.seat = seat
        client.generation = joined.generation
        client.token = joined.token
        client.places.append(joined.recovery.position)
        clients[name] = client
    }

    private func recover() throws {
        let (room, user) = pick()
        let name = "\(room)/\(user)"
        guard let client = clients[name] else { return }
        let current = oracle.rooms[room]?.people[user]
        let isOld = !client.old.isEmpty && roll(5) == 0
        let (seat, generation) = isOld ? client.old[roll(client.old.count)] : (client.seat, client.generation)
        let presented = presented(client)
        var recovery: Recovery?
        let refusal = try refusal {
            recovery = try store.recover(seat.member, generation: generation, presented, into: &batch, now: instant)
        }
        guard let recovery else {
            try expect(current == nil || generation != current?.generation, "refused: \(String(describing: refusal))")
            try expect(refusal == .stale || refusal == .unknownUser, "refused: \(String(describing: refusal))")
            note("stale")
            return
        }
        try expect(current?.generation == generation, "an old connection was served")
        let expected = oracle.replay(user, room: room, presented)
        try compare(recovery, expected, "\(name) recovers from \(presented)")
        // Half of the batches never arrive.
        if roll(2) == 0 { clients[name]?.places.append(recovery.position) }
    }

    private func compare(_ recovery: Recovery, _ expected: Oracle.Expected, _ what: String) throws {
        let sequences = batch.records.map(\.sequence)
        let payloads = (0..<batch.count).map { batch.payload($0) }
        try expect(
            recovery.verdict == expected.verdict, "\(what): \(recovery.verdict), must be \(expected.verdict)")
        try expect(sequences == expected.sequences, "\(what): \(sequences), must be \(expected.sequences)")
        try expect(payloads == expected.payloads, "\(what): other bytes")
        switch recovery.verdict {
        case .lost(let reason): note("lost \(reason)")
        default: note("\(recovery.verdict)")
        }
    }

    private func end(isLeave: Bool) throws {
        let (room, user) = pick()
        guard let client = clients["\(room)/\(user)"] else { return }
        let isOld = !client.old.isEmpty && roll(3) == 0
        let (seat, generation) = isOld ? client.old[roll(client.old.count)] : (client.seat, client.generation)
        let isCurrent = oracle.rooms[room]?.people[user]?.generation == generation
        let refusal = try refusal {
            if isLeave {
                try store.leave(seat.member, generation: generation, now: instant)
            } else {
                try store.drop(seat.member, generation: generation, now: instant)
            }
        }
        try expect((refusal == nil) == isCurrent, "end of a connection: \(String(describing: refusal))")
        guard isCurrent else { return note("stale") }
        if isLeave { oracle.leave(user, room: room) } else { oracle.drop(user, room: room) }
    }

    private func acknowledge() throws {
        let (room, user) = pick()
        guard let client = clients["\(room)/\(user)"], let place = client.places.last else { return }
        let person = oracle.rooms[room]?.people[user]
        let refusal = try refusal {
            try store.acknowledge(
                client.seat.member, generation: client.generation, .position(place), now: instant)
        }
        try expect((refusal == nil) == (person?.generation == client.generation), "acknowledgement")
        guard refusal == nil, let known = oracle.rooms[room], place.epoch == known.epoch, place.sequence <= known.top
        else { return }
        oracle.rooms[room]?.people[user]?.confirmed = max(person?.confirmed ?? 0, place.sequence)
    }

    private func reset() throws {
        guard roll(2) == 0 else { return }
        let (room, _) = pick()
        let name = bytes(room)
        guard let id = store.room(named: name.span.bytes) else { return }
        try store.reset(id, because: .degraded)
        guard let position = store.position(of: id) else { throw Difference(text: "no position") }
        try expect(epochs.insert(position.epoch).inserted, "an epoch came twice")
        oracle.reset(room, epoch: position.epoch, because: .degraded)
    }

    private func sweep() {
        store.handleTimeout(now: instant)
        oracle.sweep()
    }

    /// The process ends, and another one begins with nothing. Clients keep what they have.
    private func crash() {
        store = MemoryStore(configuration: configuration, random: SeededGenerator(seed: random.next()))
        let limits = oracle.limits
        oracle = Oracle(limits)
        for name in clients.keys { clients[name]?.old = [] }
        note("crash")
    }

    // MARK: What holds always

    private func checkTotals() throws {
        try expect(store.bytesHeld <= configuration.maximumBytes, "\(store.bytesHeld) bytes")
        try expect(store.roomCount == oracle.rooms.count, "rooms: \(store.roomCount), \(oracle.rooms.count)")
        let people = oracle.rooms.values.map(\.people.count).reduce(0, +)
        try expect(store.memberCount == people, "members: \(store.memberCount), \(people)")
        if oracle.rooms.isEmpty { try expect(store.bytesHeld == 0, "\(store.bytesHeld) bytes in no room") }
    }
}
