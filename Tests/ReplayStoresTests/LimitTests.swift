import Replay
import Storage
import Testing
import Wire

@testable import ReplayStores

/// What bounds all rooms together: the same in every store.
struct LimitCase: CustomTestStringConvertible, Sendable {
    var name: String
    var change: @Sendable (inout Replay.Configuration) -> Void
    var play: @Sendable (LimitScene) throws -> Void

    var testDescription: String { name }

    static let all: [LimitCase] = [
        LimitCase(
            name: "rooms", change: { $0.maximumRooms = 2 },
            play: { scene in
                try scene.join("ann", "first")
                try scene.join("ann", "second")
                #expect(throws: Refusal.tooManyRooms) { try scene.join("ann", "third") }
                // A room that everybody dropped out of makes room.
                try scene.drop("ann", "first")
                scene.pass(.seconds(2))
                try scene.join("ann", "third")
                #expect(throws: Refusal.unknownRoom) { try scene.publish("x", "first") }
                try scene.publish("x", "second")
                try scene.leave("ann", "second")
                try scene.join("bob", "fourth")
                #expect(throws: Refusal.tooManyRooms) { try scene.join("ann", "fifth") }
            }),
        LimitCase(
            name: "members", change: { $0.maximumMembers = 3 },
            play: { scene in
                try scene.join("ann", "first")
                try scene.join("bob", "first")
                try scene.join("ann", "second")
                #expect(throws: Refusal.tooManyMembers) { try scene.join("bob", "second") }
                #expect(throws: Refusal.tooManyMembers) { try scene.join("ann", "third") }
                #expect(throws: Refusal.unknownRoom) { try scene.publish("x", "third") }
                // Who comes back is no more than before.
                try scene.join("ann", "second")
                try scene.drop("bob", "first")
                scene.pass(.seconds(2))
                #expect(throws: Refusal.tooManyMembers, "of the same room nobody is forgotten for another") {
                    try scene.join("eve", "first")
                }
                try scene.join("bob", "second")
                #expect(throws: Refusal.unknownRecipient) { try scene.publish("x", "first", to: "bob") }
                try scene.leave("bob", "second")
                try scene.join("eve", "first")
            }),
        LimitCase(
            name: "bytes",
            change: {
                $0.maximumMessageSize = 200
                // Three messages of one block each.
                $0.maximumBytes = 3 * (256 + 64)
            },
            play: { scene in
                for room in ["a", "b", "c"] {
                    try scene.join("reader", room)
                    scene.pass(.seconds(2))
                    try scene.publish("x", room)
                }
                scene.pass(.seconds(2))
                // Used: now b is the oldest.
                #expect(try scene.recover("reader", "a") == (.recovered, ["x"]))
                scene.pass(.seconds(2))
                try scene.publish("y", "a")
                #expect(try scene.recover("reader", "b") == (.lost(.trimmed), []))
                #expect(try scene.recover("reader", "a") == (.recovered, ["x", "y"]))
                #expect(try scene.recover("reader", "c") == (.recovered, ["x"]))
                // One room alone lives within the limit too.
                for index in 0..<10 {
                    scene.pass(.seconds(2))
                    try scene.publish("\(index)", "a")
                }
                #expect(try scene.recover("reader", "c") == (.lost(.trimmed), []))
                #expect(try scene.recover("reader", "a") == (.lost(.trimmed), []))
                #expect(try scene.recover("reader", "a", after: 9) == (.recovered, ["7", "8", "9"]))
                // What is replaced, reset or left costs nothing any more.
                try scene.reset("a")
                for _ in 0..<3 { try scene.publish("z", "b") }
                #expect(try scene.recover("reader", "b", after: 1) == (.recovered, ["z", "z", "z"]))
                try scene.leave("reader", "b")
                for _ in 0..<3 { try scene.publish("w", "c") }
                #expect(try scene.recover("reader", "c", after: 1) == (.recovered, ["w", "w", "w"]))
            }),
    ]
}

/// Users by name, in a store.
final class LimitScene: @unchecked Sendable {
    private let driver: StoreDriver
    private var seats: [Membership: Joined] = [:]

    init(_ driver: StoreDriver) { self.driver = driver }

    private func membership(_ user: String, _ room: String) throws -> Membership {
        Membership(room: try RoomName(room), user: try UserName(user))
    }

    private func perform(_ operation: Replay.Operation) throws -> Outcome {
        let outcome = try driver.perform(operation)
        if case .refused(let refusal) = outcome { throw refusal }
        return outcome
    }

    func pass(_ time: Wire.Duration) { driver.pass(time) }

    func join(_ user: String, _ room: String) throws {
        let one = try membership(user, room)
        guard case .joined(let joined, _) = try perform(.join(one, resume: nil)) else { return }
        seats[one] = joined
    }

    func drop(_ user: String, _ room: String) throws {
        let one = try membership(user, room)
        _ = try perform(.drop(one, generation: seats[one]?.generation ?? 0))
    }

    func leave(_ user: String, _ room: String) throws {
        let one = try membership(user, room)
        _ = try perform(.leave(one, generation: seats[one]?.generation ?? 0))
    }

    func reset(_ room: String) throws { _ = try perform(.reset(try RoomName(room), .epoch)) }

    func publish(_ text: String, _ room: String, to user: String? = nil) throws {
        _ = try perform(
            .publish(
                room: try RoomName(room), from: nil, to: try user.map { try UserName($0) }, MessageProperties(),
                payload: Array(text.utf8)))
    }

    func recover(_ user: String, _ room: String, after sequence: UInt64? = nil) throws -> (Verdict, [String]) {
        let one = try membership(user, room)
        let seat = seats[one]
        var position = seat?.recovery.position ?? Position(epoch: 0, sequence: 0)
        if let sequence { position.sequence = sequence }
        guard
            case .recovered(let recovery, let batch) = try perform(
                .recover(one, generation: seat?.generation ?? 0, .position(position)))
        else { return (.fresh, []) }
        return (recovery.verdict, batch.texts)
    }
}

@Suite(.serialized) struct LimitsOfAllRooms {
    @Test(arguments: LimitCase.all)
    func holdInMemory(_ row: LimitCase) throws {
        var rooms = Replay.Configuration()
        row.change(&rooms)
        let clock = TestClock()
        let store = MemoryStore(configuration: rooms, random: SeededGenerator(seed: 1))
        try row.play(
            LimitScene(
                StoreDriver(
                    perform: {
                        let now = Instant(nanoseconds: clock.microseconds * 1_000)
                        return store.submit($0, id: OperationID(0), now: now) ?? .refused(.unavailable)
                    }, pass: { clock.pass($0) })))
    }

    @Test(arguments: LimitCase.all)
    func holdInRedis(_ row: LimitCase) throws {
        var rooms = Replay.Configuration()
        row.change(&rooms)
        let clock = TestClock()
        let scene = try RedisScene(try RedisServer(), clock: clock, rooms)
        try row.play(LimitScene(StoreDriver(perform: { try scene.perform($0) }, pass: { clock.pass($0) })))
    }

    /// Rooms whose keys expire, or are removed, do not take places for ever.
    @Test func forgetRoomsThatRedisForgot() throws {
        var rooms = Replay.Configuration()
        rooms.maximumRooms = 4
        rooms.maximumMembers = 4
        let scene = try RedisScene(try RedisServer(), rooms)
        for index in 0..<4 { _ = try scene.join("ann", room: "room \(index)") }
        #expect(throws: Refusal.tooManyRooms) { try scene.join("ann", room: "one more") }
        #expect(throws: Refusal.tooManyMembers) { try scene.join("bob", room: "room 0") }
        for index in 0..<3 {
            try scene.raw("DEL", .text("webrtc:reconnect:seq:{room \(index)}"))
        }
        for index in 4..<7 { _ = try scene.join("ann", room: "room \(index)") }
        #expect(throws: Refusal.tooManyRooms) { try scene.join("ann", room: "one more") }
    }

    @Test(arguments: LimitCase.all)
    func holdInSQLite(_ row: LimitCase) throws {
        var rooms = Replay.Configuration()
        row.change(&rooms)
        let scratch = try Scratch()
        let scene = try FileScene(scratch.file("rooms.db"), rooms)
        try row.play(
            LimitScene(StoreDriver(perform: { try scene.perform($0) }, pass: { scene.clock.pass($0) })))
    }
}
