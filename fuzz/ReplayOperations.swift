// A host that does anything in any order with a store, its clients bringing whatever they like, as the input says.
// The first byte chooses limits; then operations of one byte and their arguments.
//
// Every message says who it is from and for, so that a replay can be held to it: only what came after the place
// presented, in order, once, never one's own or another's. A second store is behind a store that fails as it likes.

import Replay
import Wire

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzReplayOperations(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    guard let data, size > 1 else { return 0 }
    let input = unsafe Array(UnsafeBufferPointer(start: data, count: min(size, 4_096)))
    World(input).run()
    return 0
}

/// Answers, keeps silent, or answers late.
private final class FlakyStore: ReplayStore {
    let inside = MemoryStore(random: SeededGenerator(seed: 3))
    var mode: UInt8 = 0
    private var late: [(OperationID, Outcome)] = []

    func submit(_ operation: Operation, id: OperationID, now: Instant) -> Outcome? {
        switch mode & 3 {
        case 0: return inside.submit(operation, id: id, now: now)
        case 1: return nil
        case 2: return .refused(.unavailable)
        default:
            if let outcome = inside.submit(operation, id: id, now: now) { late.append((id, outcome)) }
            return nil
        }
    }

    func pollOutcome() -> (OperationID, Outcome)? { late.isEmpty ? nil : late.removeFirst() }
    func handleTimeout(now: Instant) { inside.handleTimeout(now: now) }
    var nextTimeout: Instant? { inside.nextTimeout }
    func subscribe(_ room: RoomName, now: Instant) { inside.subscribe(room, now: now) }
    func unsubscribe(_ room: RoomName) { inside.unsubscribe(room) }
    func pollLive() -> LiveEvent? { inside.pollLive() }
    var liveCounters: LiveCounters { inside.liveCounters }
}

private final class World {
    private struct Client {
        var seat: Seat
        var generation: UInt64
        var token: ResumeToken
        var place: Position
        /// The number of this membership, for messages.
        var person: UInt8
    }

    private let input: [UInt8]
    private var offset = 1
    private var now = Instant(nanoseconds: 0)
    private let configuration: Configuration
    private let store: MemoryStore
    private let flaky = FlakyStore()
    private let resilient: ResilientStore
    private let key = PositionKey(secret: [1, 2, 3])
    private var clients: [Client?] = Array(repeating: nil, count: 6)
    private var people: UInt8 = 0
    private var batch = Batch()
    private var seam = Seam<UInt64>(at: Position(epoch: 2, sequence: 0), limit: 4)
    private var classifier = QualityClassifier()
    private var lastID: UInt64 = 0

    init(_ input: [UInt8]) {
        self.input = input
        var configuration = Configuration()
        configuration.window = Int(input[0] & 7)
        configuration.maximumWindow = input[0] & 8 != 0 ? 30 : 0
        configuration.maximumKept = Int(input[0] >> 4 & 3)
        configuration.maximumMessageSize = 600
        configuration.maximumBytes = input[0] & 64 != 0 ? 4_000 : 100_000
        configuration.maximumBatch = input[0] & 128 != 0 ? 5 : 100
        configuration.replaysKeptOnLoss = input[0] & 1 != 0
        configuration.maximumRooms = 3
        configuration.maximumMembers = 5
        configuration.recoveriesPerSecond = input[0] & 2 != 0 ? 100 : 0
        configuration.recoveryBurst = 3
        self.configuration = configuration
        store = MemoryStore(configuration: configuration, random: SeededGenerator(seed: 1))
        var limits = ResilientStore.Configuration()
        limits.maximumPending = 20
        limits.maximumDegradedRooms = 2
        resilient = ResilientStore(flaky, rooms: configuration, configuration: limits, random: SeededGenerator(seed: 2))
    }

    private func next() -> UInt8 {
        guard offset < input.count else { return 0 }
        offset += 1
        return input[offset - 1]
    }

    private func word() -> UInt64 { (0..<8).reduce(0) { word, _ in word << 8 | UInt64(next()) } }

    /// Two rooms of three users.
    private func names(_ index: Int) -> (room: [UInt8], user: [UInt8]) {
        ([0x72, UInt8(0x30 + index / 3)], [0x75, UInt8(0x30 + index % 3)])
    }

    func run() {
        while offset < input.count {
            let operation = next()
            let index = Int(operation >> 4) % 6
            switch operation & 15 {
            case 0, 1: publish(index)
            case 2: join(index)
            case 3: recover(index)
            case 4: if let client = clients[index] { end(index, client, isLeave: false) }
            case 5: if let client = clients[index] { end(index, client, isLeave: true) }
            case 6: if let client = clients[index] { acknowledge(client) }
            case 7: now = now + .milliseconds(Int64(next()) * 400)
            case 8: now = Instant(nanoseconds: Int64(bitPattern: word()))
            case 9: store.handleTimeout(now: now)
            case 10: text()
            case 11: strangers()
            case 12: live()
            case 13: flaky.mode = next()
            case 14: elsewhere(index)
            default: reset(index)
            }
            precondition(store.bytesHeld >= 0 && store.bytesHeld <= configuration.maximumBytes)
            precondition(store.roomCount <= 3 && store.memberCount <= 5)
            precondition(resilient.pendingCount <= 20 + 64 && resilient.degradedRoomCount <= 2)
        }
    }

    private func publish(_ index: Int) {
        let choice = next()
        guard let client = clients[index] else { return }
        let other = clients[index / 3 * 3 + Int(choice & 3) % 3]
        var properties = MessageProperties(MessageKind(rawValue: choice >> 2 & 3) ?? .other)
        properties.isPriority = choice & 16 != 0
        if choice & 32 != 0 { properties.lifetime = .milliseconds(Int64(next())) }
        if choice & 64 != 0 { properties.key = IdempotencyKey(high: UInt64(choice & 3), low: 0) }
        let isForAll = choice & 128 != 0
        var payload = [client.person, isForAll ? 0 : other?.person ?? 0, UInt8(index / 3)]
        payload += [UInt8](repeating: 0, count: Int(choice) * 3)
        let published = try? store.publish(
            room: client.seat.room, from: client.seat.member, to: isForAll ? nil : other?.seat.member, properties,
            payload: payload.span.bytes, now: now)
        if let published, choice & 2 != 0 { clients[index]?.place = published.position }
    }

    private func presented(_ client: Client?) -> Presented {
        let choice = next()
        var place = client?.place ?? Position(epoch: 0, sequence: 0)
        switch choice & 7 {
        case 0: return .nothing
        case 1: return .unreadable(.forged)
        case 2: place.sequence = UInt64(next())
        case 3: place.sequence = word()
        case 4: place.epoch = word()
        default: break
        }
        return key.presented(key.text(place))
    }

    private func join(_ index: Int) {
        let (room, user) = names(index)
        let choice = next()
        let presented = presented(clients[index])
        var token = clients[index]?.token
        if choice & 6 == 0 { token = ResumeToken(high: word(), low: 1) }
        let resume = choice & 1 == 0 ? Resume(token: token, position: presented) : nil
        guard
            let (seat, joined) = try? store.join(
                room: room.span.bytes, user: user.span.bytes, resume: resume, into: &batch, now: now)
        else { return }
        let isSame = clients[index]?.seat.member == seat.member
        if !isSame { people = people &+ 1 == 0 ? 1 : people &+ 1 }
        let person = isSame ? clients[index]?.person ?? people : people
        check(joined.recovery, presented, person, room: index / 3)
        clients[index] = Client(
            seat: seat, generation: joined.generation, token: joined.token, place: joined.recovery.position,
            person: person)
    }

    private func recover(_ index: Int) {
        guard let client = clients[index] else { return }
        let presented = presented(client)
        guard
            let recovery = try? store.recover(
                client.seat.member, generation: client.generation, presented, into: &batch, now: now)
        else { return }
        check(recovery, presented, client.person, room: index / 3)
        if next() & 1 == 0 { clients[index]?.place = recovery.position }
    }

    private func check(_ recovery: Recovery, _ presented: Presented, _ person: UInt8, room: Int) {
        var last: UInt64 = 0
        if case .position(let position) = presented {
            if recovery.verdict.isRecovered {
                precondition(position.epoch == recovery.position.epoch, "recovered in another epoch")
                precondition(position.sequence <= recovery.position.sequence, "recovered from the future")
            }
            if position.epoch == recovery.position.epoch { last = position.sequence }
        } else if case .unreadable = presented {
            precondition(!recovery.verdict.isRecovered, "recovered from nothing")
        }
        precondition((recovery.verdict == .recovered) == !batch.isEmpty || configuration.replaysKeptOnLoss)
        for (index, record) in batch.records.enumerated() {
            precondition(record.sequence > last && record.sequence <= recovery.position.sequence, "out of order")
            last = record.sequence
            let payload = batch.payload(index)
            precondition(payload.count == record.count && payload.count >= 3)
            precondition(payload[0] != person, "its own")
            precondition(payload[1] == 0 || payload[1] == person, "another's")
            precondition(Int(payload[2]) == room, "of another room")
        }
    }

    private func end(_ index: Int, _ client: Client, isLeave: Bool) {
        let generation = next() & 3 == 0 ? word() : client.generation
        if isLeave {
            guard (try? store.leave(client.seat.member, generation: generation, now: now)) != nil else { return }
            precondition(generation == client.generation, "ended by a stranger")
            clients[index] = nil
        } else {
            _ = try? store.drop(client.seat.member, generation: generation, now: now)
        }
    }

    private func acknowledge(_ client: Client) {
        _ = try? store.acknowledge(client.seat.member, generation: client.generation, presented(client), now: now)
        if let state = store.state(client.seat.member, now: now) { precondition(state.connections > 0) }
    }

    /// Texts and names of clients.
    private func text() {
        let count = Int(next())
        let bytes = (0..<count).map { _ in next() }
        if let position = try? key.position(bytes.span.bytes) {
            precondition(Array(key.text(position).utf8) == bytes)
        }
        if let token = ResumeToken(parsing: String(decoding: bytes, as: UTF8.self)) {
            precondition(Array(token.text.utf8) == bytes)
        }
        if let name = try? RoomName(bytes) {
            precondition(!name.bytes.isEmpty && name.bytes.count <= 256 && !name.text.contains("{"))
        }
        let metrics = QualityMetrics(
            latencyMilliseconds: Double(bitPattern: word()), lossPercent: Double(next()),
            jitterMilliseconds: nil, bandwidthKilobits: Double(bitPattern: word()))
        if let report = classifier.judge(metrics, previous: Quality(rawValue: next() & 3) ?? .unknown) {
            precondition(metrics.isValid && !report.recommendations.isEmpty)
        }
    }

    private func strangers() {
        let room = RoomID(value: word())
        let member = MemberID(value: word())
        let payload: [UInt8] = [0]
        _ = try? store.publish(
            room: room, from: member, to: member, MessageProperties(), payload: payload.span.bytes, now: now)
        _ = try? store.recover(member, generation: word(), .nothing, into: &batch, now: now)
        _ = store.state(member, now: now)
        _ = try? store.leave(member, generation: word(), now: now)
    }

    /// A seam, with numbers that come as they like.
    private func live() {
        let place = Position(epoch: 2 + UInt64(next() & 1), sequence: UInt64(next() & 31))
        if next() & 1 == 0 {
            let before = seam.position
            if seam.receive(place, place.sequence) == .deliver {
                precondition(seam.position == place && before.sequence + 1 == place.sequence)
            }
        } else if case .open(let items) = seam.open(at: place) {
            for (index, item) in items.enumerated() { precondition(item > place.sequence + UInt64(index)) }
        }
        precondition(seam.heldCount <= 4)
    }

    /// The store behind the failing one.
    private func elsewhere(_ index: Int) {
        let (roomBytes, userBytes) = names(index)
        guard let room = try? RoomName(roomBytes), let user = try? UserName(userBytes) else { return }
        let membership = Membership(room: room, user: user)
        let presented = presented(clients[index])
        let operation: Operation
        switch next() % 9 {
        case 0, 1: operation = .publish(room: room, from: user, to: nil, MessageProperties(), payload: [1])
        case 2: operation = .join(membership, resume: nil)
        case 3: operation = .join(membership, resume: Resume(token: clients[index]?.token, position: presented))
        case 4: operation = .recover(membership, generation: clients[index]?.generation ?? 1, presented)
        case 5: operation = .drop(membership, generation: clients[index]?.generation ?? 1)
        case 6: operation = .leave(membership, generation: clients[index]?.generation ?? 1)
        case 7: operation = .reset(next() & 1 == 0 ? room : nil, .degraded)
        default: operation = .state(membership)
        }
        lastID += 1
        _ = resilient.submit(operation, id: OperationID(lastID), now: now)
        if let due = resilient.nextTimeout, next() & 1 == 0 {
            resilient.handleTimeout(now: max(now, min(due, now + .seconds(1))))
        }
        while let (id, _) = resilient.pollOutcome() { precondition(id.value <= lastID) }
        while resilient.pollNotice() != nil {}
    }

    private func reset(_ index: Int) {
        guard let client = clients[index] else { return }
        _ = try? store.reset(client.seat.room, because: .degraded)
    }
}
