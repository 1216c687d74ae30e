import Foundation
import Replay
import Storage
import Testing
import Wire

@testable import ReplayStores

/// One server of a service: a store, and what it hears, held to what subscriptions promise.
final class LiveHost {
    let store: any ReplayStore
    private let wake = Journal<Int>()
    private var lastID: UInt64 = 0
    private let now = Instant(nanoseconds: 1_000_000_000)
    private(set) var events: [LiveEvent] = []
    private(set) var isSubscribed: [RoomName: Bool] = [:]
    private(set) var position: [RoomName: Position] = [:]
    private var outcomes: [OperationID: Outcome] = [:]

    init(_ make: (@escaping @Sendable () -> Void) throws -> any ReplayStore) rethrows {
        let wake = wake
        store = try make { wake.append(1) }
    }

    static func redis(
        _ server: RedisServer, _ rooms: Replay.Configuration = Replay.Configuration(), seed: UInt64 = 1,
        address: RedisAddress? = nil, _ change: (inout RedisReplayStore.Configuration) -> Void = { _ in }
    ) throws -> LiveHost {
        try redis(address: try address ?? server.address(), rooms, seed: seed, change)
    }

    static func redis(
        address: RedisAddress, _ rooms: Replay.Configuration = Replay.Configuration(), seed: UInt64 = 1,
        _ change: (inout RedisReplayStore.Configuration) -> Void = { _ in }
    ) throws -> LiveHost {
        let states = Journal<RedisState>()
        let host = LiveHost { wake in
            var configuration = RedisReplayStore.Configuration(
                redis: RedisClient.Configuration(address: address), rooms: rooms)
            configuration.timeout = .seconds(20)
            configuration.redis.stallTimeout = .seconds(20)
            configuration.redis.silenceTimeout = .seconds(40)
            change(&configuration)
            return RedisReplayStore(
                configuration, random: SeededGenerator(seed: seed), onOutcome: wake, onState: { states.append($0) })
        }
        host.states = states
        try host.waitUntilUp()
        return host
    }

    private var states = Journal<RedisState>()
    func waitUntilUp() throws { try states.wait("up") { $0.last == .up } }

    /// Takes what has come.
    func take() {
        (store as? ResilientStore)?.takeOutcomes(now: now)
        while let (id, outcome) = store.pollOutcome() { outcomes[id] = outcome }
        while let event = store.pollLive() { take(event) }
    }

    private func take(_ event: LiveEvent) {
        events.append(event)
        let isSubscribed = isSubscribed[event.room] ?? false
        switch event {
        case .subscribed(let room, let at):
            #expect(!isSubscribed, "\(event)")
            self.isSubscribed[room] = true
            position[room] = at
        case .interrupted(let room, _):
            #expect(isSubscribed, "\(event)")
            self.isSubscribed[room] = false
        case .message(let message):
            #expect(isSubscribed, "\(event)")
            let last = position[message.room]
            let isNext =
                last.map { $0.epoch == message.position.epoch && $0.sequence + 1 == message.position.sequence }
                ?? (message.position.sequence == 1)
            #expect(isNext, "\(message.position) after \(String(describing: last))")
            position[message.room] = message.position
        }
    }

    func wait(_ what: String, until isEnough: (LiveHost) -> Bool) throws {
        while true {
            let before = wake.all.count
            take()
            if isEnough(self) { return }
            if let due = store.nextTimeout, let redis = store as? RedisReplayStore, due < now + .seconds(1) {
                redis.handleTimeout(now: due)
            }
            try wake.wait("\(what); so far \(events.suffix(4))") { $0.count > before }
        }
    }

    func perform(_ operation: Replay.Operation) throws -> Outcome {
        lastID += 1
        let id = OperationID(lastID)
        if let outcome = store.submit(operation, id: id, now: now) { return outcome }
        try wait("an outcome") { $0.outcomes[id] != nil }
        return outcomes.removeValue(forKey: id) ?? .refused(.unavailable)
    }

    func subscribe(_ room: RoomName) throws {
        let before = events.count
        isSubscribed[room] = nil
        store.subscribe(room, now: now)
        try wait("subscribed") { $0.events.dropFirst(before).contains { $0.isSubscribed } }
    }

    func join(_ user: String, _ room: RoomName) throws -> Joined {
        let membership = Membership(room: room, user: try UserName(user))
        guard case .joined(let joined, _) = try perform(.join(membership, resume: nil)) else {
            throw Overdue(what: "a join")
        }
        return joined
    }

    @discardableResult
    func publish(
        _ text: String, _ room: RoomName, from: String? = nil, to: String? = nil,
        _ properties: MessageProperties = MessageProperties()
    ) throws -> Position {
        let operation = Replay.Operation.publish(
            room: room, from: try from.map { try UserName($0) }, to: try to.map { try UserName($0) }, properties,
            payload: Array(text.utf8))
        guard case .published(let published) = try perform(operation) else { throw Overdue(what: "a publish") }
        return published.position
    }

    /// The texts of the messages that came.
    var texts: [String] { messages.map { String(decoding: $0.payload, as: UTF8.self) } }

    var messages: [LiveMessage] {
        events.compactMap {
            guard case .message(let message) = $0 else { return nil }
            return message
        }
    }

    /// Everything but the random numbers.
    var shape: [String] {
        events.map {
            switch $0 {
            case .subscribed(_, let at): "subscribed \(at.map { "\($0.sequence)" } ?? "-")"
            case .interrupted(_, let reason): "interrupted \(reason)"
            case .message(let message):
                "\(message.position.sequence) \(message.from?.text ?? "-") \(message.to?.text ?? "-") \(message.kind) "
                    + "\(message.isText) \(message.isPriority) \(message.negotiation) "
                    + String(decoding: message.payload, as: UTF8.self)
            }
        }
    }
}

extension LiveEvent {
    fileprivate var isSubscribed: Bool {
        guard case .subscribed = self else { return false }
        return true
    }
}

@Suite(.serialized) struct LiveMessages {
    private let lobby: RoomName
    private let other: RoomName

    init() throws {
        lobby = try RoomName("lobby")
        other = try RoomName("other")
    }

    /// The same events from every store.
    @Test(arguments: ["memory", "redis", "sqlite"])
    func comeFromEveryStoreAlike(_ kind: String) throws {
        let scratch = try Scratch()
        let server = kind == "redis" ? try RedisServer(scratch: scratch) : nil
        let host =
            switch (kind, server) {
            case ("redis", let server?): try LiveHost.redis(server)
            case ("sqlite", _):
                LiveHost {
                    SQLiteReplayStore(
                        SQLiteReplayStore.Configuration(path: scratch.file("rooms.db")),
                        random: SeededGenerator(seed: 1), onOutcome: $0)
                }
            default: LiveHost { _ in MemoryStore(random: SeededGenerator(seed: 1)) }
            }
        defer {
            (host.store as? RedisReplayStore)?.close()
            (host.store as? SQLiteReplayStore)?.close()
        }
        try host.subscribe(lobby)
        _ = try host.join("ann", lobby)
        _ = try host.join("bob\u{E9}", lobby)
        try host.publish(
            "one\r\n\u{0}", lobby, from: "ann", to: "bob\u{E9}", MessageProperties(.offer, negotiation: .max))
        var key = MessageProperties(.other, isText: false, isPriority: true)
        key.key = IdempotencyKey(high: 1, low: 2)
        try host.publish("", lobby, key)
        // The same again is not said again.
        try host.publish("", lobby, key)
        _ = try host.join("eve", other)
        try host.publish("elsewhere", other)
        _ = try host.perform(.reset(lobby, .degraded))
        try host.publish("three", lobby, from: "ann")
        try host.wait("three") { $0.texts.last == "three" }
        host.store.unsubscribe(lobby)
        try host.publish("nobody hears", lobby)
        try host.subscribe(lobby)
        try host.publish("again", lobby)
        try host.wait("again") { $0.texts.last == "again" }
        // The room ends with its last members, and another one begins under its name.
        host.store.unsubscribe(lobby)
        let eve = try host.join("eve", other)
        _ = try host.perform(
            .leave(Membership(room: other, user: try UserName("eve")), generation: eve.generation))
        try host.subscribe(other)
        _ = try host.join("eve", other)
        try host.publish("new", other)
        try host.wait("new") { $0.texts.last == "new" }
        #expect(
            host.shape == [
                "subscribed -",
                "1 ann bob\u{E9} offer true false \(UInt64.max) one\r\n\u{0}",
                "2 - - other false true 0 ",
                "interrupted epoch", "subscribed 0", "1 ann - other true false 0 three",
                "subscribed 2", "3 - - other true false 0 again",
                "subscribed -", "1 - - other true false 0 new",
            ])
        #expect(host.store.liveCounters.messages == 5 && host.store.liveCounters.dropped == 0)
    }

    /// What is missing between the replay and the first live message is not covered up, whatever came first.
    @Test func joinTheReplayAtTheSeam() throws {
        let server = try RedisServer()
        let host = try LiveHost.redis(server)
        let joined = try host.join("ann", lobby)
        _ = try host.join("bob", lobby)
        for index in 1...5 { try host.publish("\(index)", lobby, from: "bob") }
        try host.subscribe(lobby)
        var seam = Seam<String>(at: joined.recovery.position)
        for index in 6...8 { try host.publish("\(index)", lobby, from: "bob") }
        try host.wait("eight") { $0.texts.last == "8" }
        for message in host.messages {
            #expect(seam.receive(message.position, String(decoding: message.payload, as: UTF8.self)) == .held)
        }
        let outcome = try host.perform(
            .recover(
                Membership(room: lobby, user: try UserName("ann")), generation: joined.generation,
                .position(seam.position)))
        guard case .recovered(let recovery, let batch) = outcome,
            case .open(let rest) = seam.open(at: recovery.position)
        else {
            Issue.record("\(outcome)")
            return
        }
        #expect(batch.texts + rest == (1...8).map { "\($0)" })
        seam.hold()
        #expect(seam.receive(Position(epoch: seam.position.epoch, sequence: 9), "9") == .held)
        guard case .open(let last) = seam.open(at: seam.position) else {
            Issue.record("not open")
            return
        }
        #expect(last == ["9"])
    }
}

@Suite(.serialized) struct LiveMessagesThroughRedis {
    private let lobby: RoomName

    init() throws { lobby = try RoomName("lobby") }

    /// Four servers, each hears all that all say, in the same order.
    @Test func reachAllServersInOrder() throws {
        let server = try RedisServer()
        let hosts = try (0..<4).map { try LiveHost.redis(server, seed: UInt64($0)) }
        for (index, host) in hosts.enumerated() { _ = try host.join("w\(index)", lobby) }
        for host in hosts { try host.subscribe(lobby) }
        var last: UInt64 = 0
        for round in 0..<200 {
            for (index, host) in hosts.enumerated() {
                last += 1
                _ = host.store.submit(
                    .publish(
                        room: lobby, from: try UserName("w\(index)"), to: nil, MessageProperties(),
                        payload: Array("\(index) \(round)".utf8)), id: OperationID(.max - last),
                    now: Instant(nanoseconds: 1))
            }
        }
        for host in hosts { try host.wait("all") { $0.messages.count == 800 } }
        for host in hosts {
            #expect(host.messages == hosts[0].messages)
            #expect(host.messages.map(\.position.sequence) == Array(1...800))
        }
        for index in 0..<4 {
            let own = hosts[0].texts.filter { $0.hasPrefix("\(index) ") }
            #expect(own == (0..<200).map { "\(index) \($0)" })
        }
    }

    /// A broken connection is told; afterwards the position says whether something was missed.
    @Test func surviveABrokenConnection() throws {
        let server = try RedisServer()
        let ann = try LiveHost.redis(server, seed: 1)
        let bob = try LiveHost.redis(server, seed: 2)
        _ = try ann.join("ann", lobby)
        try ann.subscribe(lobby)
        try bob.subscribe(lobby)
        try bob.publish("1", lobby)
        try ann.wait("1") { $0.texts == ["1"] }
        for round in 0..<5 {
            let other = Connected(try server.address())
            defer { other.client.close() }
            try other.waitUntilUp()
            _ = try other.reply("CLIENT", "KILL", "TYPE", "pubsub").get()
            // Some of these are said while nobody listens.
            for index in 0..<3 { try bob.publish("\(round) \(index)", lobby) }
            for host in [ann, bob] {
                try host.wait("subscribed again") { $0.shape.filter { $0.hasPrefix("interrupted") }.count == round + 1 }
                try host.wait("subscribed again") { $0.isSubscribed[self.lobby] == true }
                try host.wait("the last") { $0.position[self.lobby]?.sequence == UInt64(3 * round + 4) }
            }
        }
        try bob.publish("after", lobby)
        for host in [ann, bob] { try host.wait("after") { $0.texts.last == "after" } }
        #expect(ann.shape.contains("interrupted connectionLost"))
    }

    @Test func tellANewEpochAfterTheServerWasKilled() throws {
        let server = try RedisServer()
        let ann = try LiveHost.redis(server)
        _ = try ann.join("ann", lobby)
        try ann.subscribe(lobby)
        let before = try ann.publish("1", lobby)
        try ann.wait("1") { $0.texts == ["1"] }
        server.kill()
        try ann.wait("interrupted") { $0.isSubscribed[self.lobby] == false }
        try server.start()
        try ann.waitUntilUp()
        try ann.wait("subscribed again") { $0.isSubscribed[self.lobby] == true }
        #expect(ann.position[lobby] == nil)
        _ = try ann.join("ann", lobby)
        let after = try ann.publish("2", lobby)
        #expect(after.sequence == 1 && after.epoch != before.epoch)
        try ann.wait("2") { $0.texts == ["1", "2"] }
    }

    @Test func tellANewEpochAfterAFlush() throws {
        let server = try RedisServer()
        let ann = try LiveHost.redis(server)
        _ = try ann.join("ann", lobby)
        try ann.subscribe(lobby)
        try ann.publish("1", lobby)
        let other = Connected(try server.address())
        defer { other.client.close() }
        try other.waitUntilUp()
        _ = try other.reply("FLUSHALL").get()
        _ = try ann.join("ann", lobby)
        try ann.publish("2", lobby)
        try ann.wait("2") { $0.texts == ["1", "2"] }
        #expect(ann.shape.contains("interrupted epoch"))
    }

    /// The server stands still, then goes on: nothing is lost, and nothing was told that is not so.
    @Test func waitForAServerThatPauses() throws {
        let server = try RedisServer()
        let ann = try LiveHost.redis(server, seed: 1)
        let bob = try LiveHost.redis(server, seed: 2)
        _ = try ann.join("ann", lobby)
        try ann.subscribe(lobby)
        let other = Connected(try server.address())
        defer { other.client.close() }
        try other.waitUntilUp()
        _ = try other.reply("CLIENT", "PAUSE", "60000", "WRITE").get()
        bob.store.subscribe(lobby, now: Instant(nanoseconds: 1))
        for index in 0..<10 {
            let operation = Replay.Operation.publish(
                room: lobby, from: nil, to: nil, MessageProperties(), payload: Array("\(index)".utf8))
            let id = OperationID(.max - UInt64(index))
            #expect(ann.store.submit(operation, id: id, now: Instant(nanoseconds: 1)) == nil)
        }
        _ = try other.reply("CLIENT", "UNPAUSE").get()
        try ann.wait("all") { $0.texts.count == 10 }
        try bob.wait("where the room is") { $0.position[self.lobby]?.sequence == 10 }
        #expect(!ann.shape.contains { $0.hasPrefix("interrupted") })
    }

    /// More than is taken: told, and not lost in silence.
    @Test func overflow() throws {
        var rooms = Replay.Configuration()
        rooms.maximumLiveEvents = 8
        let server = try RedisServer()
        let ann = try LiveHost.redis(server, rooms, seed: 1)
        let bob = try LiveHost.redis(server, seed: 2)
        _ = try ann.join("ann", lobby)
        try ann.subscribe(lobby)
        try bob.subscribe(lobby)
        for index in 0..<50 {
            let operation = Replay.Operation.publish(
                room: lobby, from: nil, to: nil, MessageProperties(), payload: Array("\(index)".utf8))
            _ = bob.store.submit(operation, id: OperationID(.max - UInt64(index)), now: Instant(nanoseconds: 1))
        }
        try bob.wait("all") { $0.texts.count == 50 }
        // What the server has sent to one it has sent to the other before it answers that one's next question.
        try bob.publish("last", lobby)
        try ann.wait("where the room is") { $0.position[self.lobby]?.sequence == 51 }
        let isWhole = ann.texts.count == 51
        #expect(isWhole || ann.shape.contains("interrupted overflow") && ann.store.liveCounters.dropped > 0)
    }

    /// A new epoch that another server gives is told, as is one that a client from the future causes.
    @Test func tellResetsOfOthers() throws {
        let server = try RedisServer()
        let ann = try LiveHost.redis(server, seed: 1)
        let bob = try LiveHost.redis(server, seed: 2)
        let joined = try ann.join("ann", lobby)
        try ann.subscribe(lobby)
        try ann.publish("1", lobby)
        try ann.wait("1") { $0.texts == ["1"] }
        _ = try bob.perform(.reset(lobby, .degraded))
        try ann.wait("a new epoch") { $0.position[self.lobby]?.sequence == 0 }
        try ann.publish("2", lobby)
        try ann.wait("2") { $0.texts == ["1", "2"] }
        let epoch = ann.position[lobby]?.epoch ?? 0
        _ = try bob.perform(
            .recover(
                Membership(room: lobby, user: try UserName("ann")), generation: joined.generation,
                .position(Position(epoch: epoch, sequence: 9))))
        try ann.wait("a new epoch") { $0.position[self.lobby]?.sequence == 0 }
        #expect(ann.position[lobby]?.epoch != epoch)
        _ = try bob.perform(.reset(nil, .degraded))
        try ann.wait("a new epoch") { $0.shape.filter { $0 == "interrupted epoch" }.count == 3 }
    }

    /// A server that goes on without Redis hears itself; when Redis is back, everybody again.
    @Test func goOnWhileRedisIsAway() throws {
        let server = try RedisServer()
        let states = Journal<RedisState>()
        var redis: RedisReplayStore?
        let address = try server.address()
        let host = LiveHost { wake in
            var configuration = RedisReplayStore.Configuration(redis: RedisClient.Configuration(address: address))
            configuration.timeout = .seconds(20)
            let store = RedisReplayStore(
                configuration, random: SeededGenerator(seed: 1), onOutcome: wake,
                onState: {
                    states.append($0)
                    wake()
                })
            redis = store
            var limits = ResilientStore.Configuration()
            limits.deadline = .seconds(20)
            return ResilientStore(store, configuration: limits, random: SeededGenerator(seed: 2))
        }
        defer { redis?.close() }
        let store = try #require(host.store as? ResilientStore)
        try states.wait("up") { $0.last == .up }
        _ = try host.join("ann", lobby)
        try host.subscribe(lobby)
        try host.publish("1", lobby, from: "ann")
        try host.wait("1") { $0.texts == ["1"] }
        server.kill()
        try host.wait("down") { $0.isSubscribed[self.lobby] == false && states.all.last != .up }
        #expect(try host.publish("2", lobby, from: "ann").isDegraded)
        try host.wait("2") { $0.texts == ["1", "2"] }
        #expect(host.position[lobby]?.isDegraded == true)
        try server.start()
        try states.wait("up") { $0.last == .up }
        var now = Instant(nanoseconds: 1_000_000_000)
        try host.wait("the store") { _ in
            // Beyond every pause and deadline; each answer of the store wakes this up again.
            now = now + .seconds(60)
            store.handleTimeout(now: now)
            return store.degradedRoomCount == 0
        }
        try host.wait("subscribed again") { $0.isSubscribed[self.lobby] == true && $0.position[self.lobby] == nil }
        #expect(host.shape.filter { $0 == "interrupted degraded" }.count >= 1)
        while case .refused = try host.perform(
            .join(Membership(room: lobby, user: try UserName("ann")), resume: nil))
        {}
        #expect(try !host.publish("3", lobby, from: "ann").isDegraded)
        try host.wait("3") { $0.texts == ["1", "2", "3"] }
    }

    /// Somebody else's words on the channel are not messages.
    @Test func ignoreWhatIsNotTheirs() throws {
        let server = try RedisServer()
        let ann = try LiveHost.redis(server)
        _ = try ann.join("ann", lobby)
        try ann.subscribe(lobby)
        let other = Connected(try server.address())
        defer { other.client.close() }
        try other.waitUntilUp()
        for text in ["", "x", "at", "at 1 2\n", "at zz 1 x\n", "at - - \n x", "1 2 3 4 5 6 7", "\n\n"] {
            _ = try other.reply("PUBLISH", "webrtc:reconnect:live:{lobby}", .text(text)).get()
        }
        try ann.publish("1", lobby)
        try ann.wait("1") { $0.texts == ["1"] }
        #expect(ann.shape.count == 2)
    }

    /// A user who may not use channels can number and keep, and is told that it hears nothing.
    @Test func areRefusedByRights() throws {
        let server = try RedisServer(["--user", "app", "on", ">word", "~*", "+@all", "resetchannels"])
        let ann = try LiveHost.redis(server, address: server.address("app:word@"))
        _ = try ann.join("ann", lobby)
        ann.store.subscribe(lobby, now: Instant(nanoseconds: 1))
        #expect(try ann.publish("1", lobby).sequence == 1)
        // The server has answered the subscription, or will: both are on their way.
        let store = try #require(ann.store as? RedisReplayStore)
        try ann.subscribeIsRefused(store)
        #expect(ann.events.isEmpty)
    }
}

extension LiveHost {
    fileprivate func subscribeIsRefused(_ store: RedisReplayStore) throws {
        try wait("a refusal") { _ in
            guard case .server(let error)? = store.lastError else { return false }
            return error.code == "NOPERM"
        }
    }
}
