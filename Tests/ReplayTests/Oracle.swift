import Replay
import Wire

/// What a store must answer, worked out in the plainest way: every message ever published is in a list, and what is
/// left of it is looked at from the start each time. Shares no code with the store.
struct Oracle {
    struct Limits {
        var window = 5
        var lifetime: Int64 = 100
        var stateLifetime: Int64 = 1_000
        var roomBytes = 4_000
        var allBytes = 6_000
        var kept = 2
        var batch = 8
        var needsToken = true
        var keptOnLoss = false
        var keys = 3
        var keyLifetime: Int64 = 50
    }

    enum Fate: Equatable {
        case inWindow
        case aside
        case replaced
        case gone
    }

    struct Message {
        var sequence: UInt64
        /// People, not names: somebody who comes anew under an old name is another person.
        var from: Int?
        var to: Int?
        var kind: MessageKind
        var isPriority: Bool
        var negotiation: UInt64
        var payload: [UInt8]
        var published: Int64
        var dies: Int64
        var fate = Fate.inWindow

        var staysAside: Bool { kind == .offer || kind == .answer || isPriority }
        var isHere: Bool { fate == .inWindow || fate == .aside }
        var memory: Int { (payload.count + 255) / 256 * 256 + 64 }
    }

    struct Person {
        var id: Int
        var token: ResumeToken
        var generation: UInt64
        var isConnected = true
        var leftAt: Int64 = 0
        var confirmed: UInt64?
    }

    struct Room {
        var epoch: UInt64
        var log: [Message] = []
        var people: [String: Person] = [:]
        var lostUpTo: UInt64 = 0
        var lostBecause = LossReason.trimmed
        var endedEpoch: UInt64?
        var endedBecause = LossReason.epoch
        var keys: [(sender: String, key: UInt64, sequence: UInt64, until: Int64)] = []
        var used = 0
        var usedAt = Int64.min

        var top: UInt64 { log.last?.sequence ?? 0 }
        var memory: Int { log.filter(\.isHere).map(\.memory).reduce(0, +) }
        var bytes: Int { log.filter(\.isHere).map(\.payload.count).reduce(0, +) }
    }

    struct Expected {
        var verdict: Verdict
        var sequences: [UInt64] = []
        var payloads: [[UInt8]] = []
    }

    var limits: Limits
    var rooms: [String: Room] = [:]
    var clock = Int64.min
    private var uses = 0
    private var people = 0

    init(_ limits: Limits) { self.limits = limits }

    mutating func see(_ now: Int64) { clock = max(clock, now) }

    // MARK: Messages go

    private func lose(_ index: Int, _ reason: LossReason, in room: inout Room) {
        room.log[index].fate = .gone
        // What its sender had given up before is no loss.
        if room.log[index].dies > clock, room.log[index].sequence > room.lostUpTo {
            room.lostUpTo = room.log[index].sequence
            room.lostBecause = reason
        }
    }

    private func age(_ room: inout Room) {
        for index in room.log.indices where room.log[index].isHere {
            if room.log[index].published + limits.lifetime <= clock { lose(index, .expired, in: &room) }
        }
    }

    private func fit(_ room: inout Room) {
        func oldest(_ fate: Fate) -> Int? { room.log.firstIndex { $0.fate == fate } }
        while let index = oldest(.inWindow) {
            let isTooMany = room.log.filter { $0.fate == .inWindow }.count > limits.window
            let isTooMuch = room.bytes > limits.roomBytes
            let isTooLong = Int(room.top - room.log[index].sequence) >= 4 * limits.window
            guard isTooMany || isTooMuch || isTooLong else { break }
            guard index < room.log.count - 1 else {
                guard let aside = oldest(.aside) else { break }
                lose(aside, .trimmed, in: &room)
                continue
            }
            guard room.log[index].staysAside, limits.kept > 0, room.log[index].dies > clock else {
                lose(index, .trimmed, in: &room)
                continue
            }
            room.log[index].fate = .aside
            while let first = oldest(.aside) {
                let aside = room.log.filter { $0.fate == .aside }
                guard aside.count > limits.kept || aside.map(\.payload.count).reduce(0, +) > limits.roomBytes / 4 else {
                    break
                }
                lose(first, .trimmed, in: &room)
            }
        }
    }

    private mutating func makeSpace(_ needed: Int, for name: String) {
        while rooms.values.map(\.memory).reduce(0, +) + needed > limits.allBytes {
            let others = rooms.filter { $0.key != name && $0.value.memory > 0 }
            if let victim = others.min(by: { $0.value.used < $1.value.used })?.key, var room = rooms[victim] {
                for fate in [Fate.aside, .inWindow] {
                    for index in room.log.indices where room.log[index].fate == fate {
                        lose(index, .trimmed, in: &room)
                    }
                }
                rooms[victim] = room
            } else if var room = rooms[name] {
                guard
                    let index = room.log.firstIndex(where: { $0.fate == .aside })
                        ?? room.log.firstIndex(where: { $0.fate == .inWindow })
                else { return }
                lose(index, .trimmed, in: &room)
                rooms[name] = room
            }
        }
    }

    private mutating func use(_ room: inout Room) {
        uses += 1
        room.used = uses
        room.usedAt = clock
    }

    // MARK: Operations

    /// The number, and whether it is one of before.
    mutating func publish(
        room name: String, from: String?, to: String?, _ properties: MessageProperties, payload: [UInt8]
    ) -> (UInt64, Bool)? {
        guard var room = rooms[name] else { return nil }
        let sender = from.flatMap { room.people[$0]?.id }
        let recipient = to.flatMap { room.people[$0]?.id }
        if let key = properties.key?.high,
            let known = room.keys.first(where: { $0.key == key && $0.sender == from ?? "" && $0.until > clock })
        {
            return (known.sequence, true)
        }
        age(&room)
        rooms[name] = room
        let message = Message(
            sequence: room.top + 1, from: sender, to: recipient, kind: properties.kind,
            isPriority: properties.isPriority, negotiation: properties.negotiation, payload: payload, published: clock,
            dies: properties.lifetime == .forever ? .max : clock + properties.lifetime.nanoseconds)
        makeSpace(message.memory, for: name)
        room = rooms[name] ?? room
        for index in room.log.indices where room.log[index].isHere {
            let old = room.log[index]
            guard old.from == sender, old.to == recipient, old.negotiation == message.negotiation else { continue }
            switch (message.kind, old.kind) {
            case (.offer, .offer), (.offer, .candidate), (.answer, .answer): room.log[index].fate = .replaced
            default: break
            }
        }
        room.log.append(message)
        fit(&room)
        use(&room)
        if let key = properties.key?.high {
            room.keys.append((from ?? "", key, message.sequence, clock + limits.keyLifetime))
            if room.keys.count > limits.keys { room.keys.removeFirst() }
        }
        rooms[name] = room
        return (message.sequence, false)
    }

    /// What `person` must get that has everything up to `since`.
    private mutating func missed(by person: Int, since: UInt64, in room: inout Room) -> Expected {
        func forPerson(_ message: Message) -> Bool {
            message.sequence > since && message.isHere && message.dies > clock && message.from != person
                && (message.to == nil || message.to == person)
        }
        func aside(_ verdict: Verdict) -> Expected {
            let some = limits.keptOnLoss ? room.log.filter { forPerson($0) && $0.staysAside } : []
            let few = some.count > limits.batch ? [] : some
            return Expected(verdict: verdict, sequences: few.map(\.sequence), payloads: few.map(\.payload))
        }
        if since < room.lostUpTo { return aside(.lost(room.lostBecause)) }
        if room.log.contains(where: \.isHere) { use(&room) }
        let messages = room.log.filter(forPerson)
        if messages.count > limits.batch { return aside(.lost(.limit)) }
        return Expected(
            verdict: messages.isEmpty ? .recoveredEmpty : .recovered, sequences: messages.map(\.sequence),
            payloads: messages.map(\.payload))
    }

    mutating func replay(_ user: String, room name: String, _ presented: Presented) -> Expected {
        guard var room = rooms[name], let person = room.people[user] else { return Expected(verdict: .fresh) }
        age(&room)
        var expected = Expected(verdict: .fresh)
        switch presented {
        case .nothing:
            if let confirmed = person.confirmed { expected = missed(by: person.id, since: confirmed, in: &room) }
        case .unreadable:
            expected = Expected(verdict: .lost(.epoch))
        case .position(let position) where position.epoch != room.epoch:
            expected = Expected(verdict: .lost(position.epoch == room.endedEpoch ? room.endedBecause : .epoch))
        case .position(let position) where position.sequence > room.top:
            expected = Expected(verdict: .lost(.epoch))
        case .position(let position):
            expected = missed(by: person.id, since: position.sequence, in: &room)
        }
        rooms[name] = room
        return expected
    }

    /// `joined` is what the store answered: its new numbers and secrets cannot be foretold, only what they mean.
    mutating func join(_ user: String, room name: String, resume: Resume?, joined: Joined) -> Expected {
        if rooms[name] == nil { rooms[name] = Room(epoch: joined.recovery.position.epoch) }
        let before = rooms[name]?.people[user]
        var isProven = false
        if let before, let resume {
            isProven =
                resume.token.map { $0.high == before.token.high && $0.low == before.token.low } ?? !limits.needsToken
        }
        if isProven {
            rooms[name]?.people[user]?.generation = joined.generation
            rooms[name]?.people[user]?.isConnected = true
            return replay(user, room: name, resume?.position ?? .nothing)
        }
        people += 1
        rooms[name]?.people[user] = Person(id: people, token: joined.token, generation: joined.generation)
        guard let resume, let room = rooms[name] else { return Expected(verdict: .fresh) }
        if case .position(let position) = resume.position, position.epoch != room.epoch,
            position.epoch == room.endedEpoch
        {
            return Expected(verdict: .lost(room.endedBecause))
        }
        return Expected(verdict: .lost(.epoch))
    }

    mutating func drop(_ user: String, room: String) {
        guard rooms[room]?.people[user]?.isConnected == true else { return }
        rooms[room]?.people[user]?.isConnected = false
        rooms[room]?.people[user]?.leftAt = clock
    }

    mutating func leave(_ user: String, room: String) {
        rooms[room]?.people[user] = nil
        if rooms[room]?.people.isEmpty == true { rooms[room] = nil }
    }

    mutating func reset(_ name: String, epoch: UInt64, because reason: LossReason) {
        guard let room = rooms[name] else { return }
        if room.top > 0 || room.endedEpoch == nil { rooms[name]?.endedEpoch = room.epoch }
        rooms[name]?.endedBecause = reason
        rooms[name]?.epoch = epoch
        rooms[name]?.log = []
        rooms[name]?.lostUpTo = 0
        rooms[name]?.keys = []
        for user in room.people.keys { rooms[name]?.people[user]?.confirmed = nil }
    }

    mutating func sweep() {
        // Rooms that nobody used for as long as messages live are cleaned; the rest when they are used.
        for (name, var room) in rooms where room.log.contains(where: \.isHere) {
            guard room.usedAt + limits.lifetime <= clock else { continue }
            age(&room)
            rooms[name] = room
        }
        for (name, room) in rooms {
            for (user, person) in room.people where !person.isConnected {
                if person.leftAt + limits.stateLifetime <= clock { leave(user, room: name) }
            }
        }
    }
}
