import Replay
import Wire

extension Instant {
    /// `seconds` after the start of the test's clock.
    static func at(_ seconds: Double) -> Instant { Instant(nanoseconds: Int64(seconds * 1e9)) }
}

func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

/// A user on a connection.
struct Guest {
    let room: String
    let name: String
    var seat: Seat
    var generation: UInt64
    var token: ResumeToken
    var position: Position
    var joined: Joined
}

/// A memory store, addressed in the words of a test.
final class Scene {
    let store: MemoryStore
    let key: PositionKey
    var now = Instant.at(1)
    private(set) var batch = Batch()

    init(seed: UInt64 = 1, _ change: (inout Configuration) -> Void = { _ in }) {
        var configuration = Configuration()
        change(&configuration)
        var random = SeededGenerator(seed: seed)
        key = PositionKey(using: &random)
        store = MemoryStore(configuration: configuration, random: random)
    }

    func join(_ name: String, room: String = "lobby", resume: Resume? = nil) throws -> Guest {
        let roomBytes = bytes(room)
        let nameBytes = bytes(name)
        let (seat, joined) = try store.join(
            room: roomBytes.span.bytes, user: nameBytes.span.bytes, resume: resume, into: &batch, now: now)
        return Guest(
            room: room, name: name, seat: seat, generation: joined.generation, token: joined.token,
            position: joined.recovery.position, joined: joined)
    }

    /// Comes back with what it has.
    func rejoin(_ guest: Guest, position: Position? = nil) throws -> Guest {
        let resume = Resume(token: guest.token, position: .position(position ?? guest.position))
        return try join(guest.name, room: guest.room, resume: resume)
    }

    @discardableResult
    func publish(
        _ text: String, from: Guest? = nil, to: Guest? = nil, room: Guest? = nil,
        _ properties: MessageProperties = MessageProperties()
    ) throws -> Published {
        let payload = bytes(text)
        guard let id = (from ?? room)?.seat.room else { throw Refusal.unknownRoom }
        return try store.publish(
            room: id, from: from?.seat.member, to: to?.seat.member, properties, payload: payload.span.bytes, now: now)
    }

    func recover(_ guest: Guest, since: Position? = nil) throws -> Recovery {
        try store.recover(
            guest.seat.member, generation: guest.generation, .position(since ?? guest.position), into: &batch,
            now: now)
    }

    func drop(_ guest: Guest) throws { try store.drop(guest.seat.member, generation: guest.generation, now: now) }
    func leave(_ guest: Guest) throws { try store.leave(guest.seat.member, generation: guest.generation, now: now) }

    var texts: [String] { (0..<batch.count).map { String(decoding: batch.payload($0), as: UTF8.self) } }
    var sequences: [UInt64] { batch.records.map(\.sequence) }
}
