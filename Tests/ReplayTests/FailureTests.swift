import Replay
import Testing
import Wire

@Suite struct Breaker {
    private func run(_ breaker: inout CircuitBreaker, _ results: [Bool], at now: Instant) -> Int {
        var passed = 0
        for isSuccess in results {
            guard let ticket = breaker.admit(now: now) else { continue }
            passed += 1
            breaker.record(ticket, isSuccess: isSuccess, now: now)
        }
        return passed
    }

    @Test func opensAtHalfOfEnoughCalls() {
        var breaker = CircuitBreaker()
        #expect(run(&breaker, Array(repeating: false, count: 19), at: .at(1)) == 19)
        #expect(breaker.state == .closed, "too few to judge")
        #expect(run(&breaker, [false, true], at: .at(1)) == 1)
        let change = breaker.pollChange()
        #expect(breaker.state == .open && change == .open)
    }

    @Test func staysClosedBelowHalf() {
        var breaker = CircuitBreaker()
        for index in 0..<200 { _ = run(&breaker, [index % 100 >= 49], at: .at(1)) }
        #expect(breaker.state == .open, "49 failures come first here")
        var mixed = CircuitBreaker()
        for index in 0..<200 { _ = run(&mixed, [index % 5 > 1], at: .at(1)) }
        let change = mixed.pollChange()
        #expect(mixed.state == .closed && change == nil)
    }

    @Test func oldFailuresAreForgotten() {
        var breaker = CircuitBreaker()
        _ = run(&breaker, Array(repeating: false, count: 15), at: .at(1))
        _ = run(&breaker, Array(repeating: true, count: 15) + Array(repeating: false, count: 5), at: .at(12))
        #expect(breaker.state == .closed)
    }

    @Test func oneProbeDecides() throws {
        var breaker = CircuitBreaker()
        _ = run(&breaker, Array(repeating: false, count: 20), at: .at(1))
        let early = breaker.admit(now: .at(1.9))
        #expect(early == nil)
        #expect(breaker.nextTimeout == .at(2))
        let admitted = breaker.admit(now: .at(2))
        let probe = try #require(admitted)
        let other = breaker.admit(now: .at(2))
        #expect(breaker.state == .halfOpen && other == nil)
        breaker.record(probe, isSuccess: false, now: .at(2.05))
        #expect(breaker.state == .open && breaker.nextTimeout == .at(2.05) + .seconds(2), "longer each time")
        let later = breaker.admit(now: .at(4.06))
        let second = try #require(later)
        breaker.record(probe, isSuccess: true, now: .at(4.07))
        #expect(breaker.state == .halfOpen, "an old result decides nothing")
        breaker.record(second, isSuccess: true, now: .at(4.07))
        #expect(breaker.state == .closed)
        var changes: [CircuitBreaker.State] = []
        while let change = breaker.pollChange() { changes.append(change) }
        #expect(changes == [.open, .halfOpen, .open, .halfOpen, .closed])
    }

    @Test func clockThatGoesBackDoesNoHarm() {
        var breaker = CircuitBreaker()
        for second in [100.0, 1, -50, 0, 1e9, -1e9] {
            _ = run(&breaker, Array(repeating: second > 0, count: 3), at: .at(second))
        }
        _ = breaker.admit(now: Instant(nanoseconds: .max))
        _ = breaker.admit(now: Instant(nanoseconds: .min))
    }
}

/// A store on another machine: answers later, or not at all.
final class RemoteStore: ReplayStore {
    let inside: MemoryStore
    /// What it does with an operation.
    enum Behavior {
        case answers
        /// Does it, and never says so.
        case deaf
        /// Does nothing.
        case dead
        /// Says at once that it cannot.
        case disconnected
        /// Says later that it cannot.
        case refuses
    }
    var behavior = Behavior.answers
    var delay = Duration.milliseconds(1)
    /// Works on one operation after the other.
    var isSlow = false
    private(set) var received = 0
    private var ready: [(at: Instant, OperationID, Outcome)] = []
    private var now = Instant.at(0)

    init(_ inside: MemoryStore) { self.inside = inside }

    func submit(_ operation: Operation, id: OperationID, now: Instant) -> Outcome? {
        received += 1
        self.now = max(self.now, now)
        if behavior == .disconnected { return .refused(.unavailable) }
        if behavior == .refuses {
            ready.append((now + delay, id, .refused(.unavailable)))
            return nil
        }
        guard behavior != .dead, let outcome = inside.submit(operation, id: id, now: now) else { return nil }
        if behavior == .answers { ready.append(((isSlow ? ready.last?.at ?? now : now) + delay, id, outcome)) }
        return nil
    }

    func pollOutcome() -> (OperationID, Outcome)? {
        guard let first = ready.first, first.at <= now else { return nil }
        ready.removeFirst()
        return (first.1, first.2)
    }

    func handleTimeout(now: Instant) { self.now = max(self.now, now) }

    var nextTimeout: Instant? { ready.first?.at }

    func subscribe(_ room: RoomName, now: Instant) { inside.subscribe(room, now: now) }
    func unsubscribe(_ room: RoomName) { inside.unsubscribe(room) }
    func pollLive() -> LiveEvent? { inside.pollLive() }
    var liveCounters: LiveCounters { inside.liveCounters }
}

/// A server and its store, on virtual time.
final class Server {
    let remote: RemoteStore
    let store: ResilientStore
    var now = Instant.at(1)
    private var lastID: UInt64 = 0
    var notices: [ResilientStore.Notice] = []

    init(
        seed: UInt64 = 1, rooms: Configuration = Configuration(),
        change: (inout ResilientStore.Configuration) -> Void = { _ in }
    ) {
        var configuration = ResilientStore.Configuration()
        change(&configuration)
        remote = RemoteStore(MemoryStore(configuration: rooms, random: SeededGenerator(seed: seed)))
        store = ResilientStore(remote, configuration: configuration, random: SeededGenerator(seed: seed + 1_000))
    }

    func pass(_ duration: Duration) {
        let end = now + duration
        while let next = store.nextTimeout, next <= end {
            now = max(now, next)
            store.handleTimeout(now: now)
            takeNotices()
        }
        now = end
        store.handleTimeout(now: now)
        takeNotices()
    }

    func takeNotices() { while let notice = store.pollNotice() { notices.append(notice) } }

    /// The outcome, however long it takes; nil if there is none within a second.
    func perform(_ operation: Operation, step: Wire.Duration = .milliseconds(1)) -> Outcome? {
        lastID += 1
        let id = OperationID(lastID)
        if let outcome = store.submit(operation, id: id, now: now) { return outcome }
        let started = now
        while now - started < .seconds(1) {
            pass(step)
            while let (answered, outcome) = store.pollOutcome() { if answered == id { return outcome } }
        }
        return nil
    }

    func member(_ user: String, room: String = "lobby") throws -> Replay.Membership {
        Membership(room: try RoomName(room), user: try UserName(user))
    }

    func join(_ user: String, resume: Resume? = nil) throws -> (Joined, Batch) {
        guard case .joined(let joined, let batch)? = perform(.join(try member(user), resume: resume)) else {
            throw Refusal.unavailable
        }
        return (joined, batch)
    }

    func publish(_ text: String, from user: String? = nil, to other: String? = nil) throws -> Published {
        let operation = Operation.publish(
            room: try RoomName("lobby"), from: try user.map { try UserName($0) },
            to: try other.map { try UserName($0) },
            MessageProperties(), payload: bytes(text))
        switch perform(operation) {
        case .published(let published)?: return published
        case .refused(let refusal)?: throw refusal
        default: throw Refusal.unavailable
        }
    }
}

@Suite struct Resilience {
    private func back(_ joined: Joined, at position: Position? = nil) -> Resume {
        Resume(token: joined.token, position: .position(position ?? joined.recovery.position))
    }

    @Test func passesThroughWhileAllIsWell() throws {
        let server = Server()
        let ann = try server.join("ann").0
        _ = try server.join("bob")
        #expect(try !server.publish("x", from: "bob").position.isDegraded)
        let (joined, batch) = try server.join("ann", resume: back(ann))
        #expect(joined.recovery.verdict == .recovered && batch.payload(0) == bytes("x"))
        #expect(server.store.pendingCount == 0 && server.notices.isEmpty)
        let statistics = server.store.statistics
        #expect(statistics.operations == 4 && statistics.failures == 0 && statistics.withoutStore == 0)
        #expect(statistics.latencies.reduce(0, +) == 4 && statistics.latencySum == .milliseconds(4))
        #expect(statistics.verdicts == [.fresh: 2, .recovered: 1])
    }

    @Test(arguments: [RemoteStore.Behavior.dead, .deaf, .disconnected])
    func publishingGoesOnAndNothingIsPretended(_ behavior: RemoteStore.Behavior) throws {
        let server = Server()
        let ann = try server.join("ann").0
        _ = try server.join("bob")
        try #require(try server.publish("before", from: "bob").position.sequence == 1)
        server.remote.behavior = behavior
        let started = server.now
        let during = try server.publish("during", from: "bob", to: "ann")
        #expect(during.position.isDegraded)
        #expect(server.now - started <= .milliseconds(51), "the deadline")
        // The store is back at once: still, what ann missed is not in it.
        server.remote.behavior = .answers
        let (joined, batch) = try server.join("ann", resume: back(ann))
        #expect(joined.recovery.verdict == .lost(.degraded) && batch.isEmpty)
        server.pass(.seconds(1))
        #expect(server.store.degradedRoomCount == 0)
        // Whatever place she shows, before, during or after: never recovered across the hole.
        for position in [ann.recovery.position, during.position, joined.recovery.position] {
            let again = try server.join("ann", resume: back(ann, at: position)).0
            #expect(again.recovery.verdict == .lost(.degraded))
        }
        // From then on all is as it was.
        let fresh = try server.join("ann").0
        _ = try server.publish("after", from: "bob")
        let (last, messages) = try server.join("ann", resume: back(fresh))
        #expect(last.recovery.verdict == .recovered && messages.payload(0) == bytes("after"))
    }

    @Test func whoComesAndGoesDuringTheOutageIsServed() throws {
        let server = Server()
        _ = try server.join("ann")
        server.remote.behavior = .dead
        for _ in 0..<25 { _ = try server.publish("x", from: "ann") }
        // The room's new epoch is asked for again and again, until the breaker has seen enough.
        server.pass(.seconds(3))
        #expect(server.store.breakerState == .open)
        let sent = server.remote.received
        let opened = server.now
        let eve = try server.join("eve").0
        #expect(eve.recovery.position.isDegraded)
        let membership = try server.member("eve")
        guard case .done? = server.perform(.drop(membership, generation: eve.generation)) else {
            Issue.record("drop")
            return
        }
        _ = try server.publish("missed", from: "ann", to: "eve")
        let (joined, batch) = try server.join("eve", resume: back(eve))
        #expect(joined.recovery.verdict == .recovered && batch.payload(0) == bytes("missed"))
        #expect(server.remote.received == sent && server.now == opened, "the breaker keeps the store in peace")

        // The store is back: a probe finds out, the room begins anew, eve is to join again.
        server.remote.behavior = .answers
        server.pass(.seconds(5))
        #expect(server.store.breakerState == .closed && server.store.degradedRoomCount == 0)
        var taken: Joined?
        for case .returned(membership, joined.generation, let again) in server.notices { taken = again }
        let eveNow = try #require(taken)
        #expect(eveNow.recovery.verdict == .lost(.degraded) && !eveNow.recovery.position.isDegraded)
        // What she says is taken, and what she misses from now on is made up for.
        #expect(try !server.publish("from eve", from: "eve", to: "ann").position.isDegraded)
        _ = try server.publish("to eve", from: "ann", to: "eve")
        guard case .done? = server.perform(.drop(membership, generation: eveNow.generation)) else {
            Issue.record("drop")
            return
        }
        let (later, missed) = try server.join("eve", resume: back(eveNow))
        #expect(later.recovery.verdict == .recovered && missed.payload(0) == bytes("to eve"))
        for case .returned(let who, _, _) in server.notices { #expect(who.user.text == "eve") }
        let (again, nothing) = try server.join("eve", resume: back(joined))
        #expect(again.recovery.verdict == .lost(.degraded) && nothing.isEmpty)
        #expect(!again.recovery.position.isDegraded)
    }

    @Test func whoCannotBeTakenOverIsToldToJoinAgain() throws {
        let server = Server { $0.maximumPending = 1 }
        server.remote.behavior = .dead
        let users = ["ann", "bob", "eve"]
        var joined: [String: Joined] = [:]
        for user in users { joined[user] = try server.join(user).0 }
        server.remote.behavior = .answers
        server.pass(.seconds(5))
        var returned: [String] = []
        var told: [String] = []
        for notice in server.notices {
            switch notice {
            case .returned(let who, let generation, _) where generation == joined[who.user.text]?.generation:
                returned.append(who.user.text)
            case .joinAgain(let who, let generation) where generation == joined[who.user.text]?.generation:
                told.append(who.user.text)
            default: break
            }
        }
        #expect(returned.count == 1 && (returned + told).sorted() == users)
        for user in told {
            let again = try server.join(user, resume: joined[user].map { back($0) }).0
            #expect(again.recovery.verdict == .lost(.degraded))
        }
    }

    @Test func singleFailureOfAReplayIsTheStores() throws {
        let server = Server()
        let ann = try server.join("ann").0
        let membership = try server.member("ann")
        _ = try server.publish("x")
        server.remote.behavior = .dead
        let operation = Operation.recover(membership, generation: ann.generation, .position(ann.recovery.position))
        guard case .recovered(let recovery, let batch)? = server.perform(operation) else {
            Issue.record("no answer")
            return
        }
        #expect(recovery.verdict == .lost(.store) && batch.isEmpty && recovery.position == ann.recovery.position)
        // Nothing went around the store: it can still make it good.
        server.remote.behavior = .answers
        guard case .recovered(let second, let messages)? = server.perform(operation) else {
            Issue.record("no answer")
            return
        }
        #expect(second.verdict == .recovered && messages.payload(0) == bytes("x"))
    }

    /// The message fails while a replay is under way, or in the same moment in which it ends.
    @Test(arguments: [RemoteStore.Behavior.dead, .refuses])
    func replayThatRacesWithAFailedPublishIsDoubted(_ behavior: RemoteStore.Behavior) throws {
        let server = Server()
        let ann = try server.join("ann").0
        let membership = try server.member("ann")
        server.remote.delay = .milliseconds(40)
        server.remote.behavior = behavior
        let publish = Operation.publish(
            room: membership.room, from: nil, to: nil, MessageProperties(), payload: bytes("hole"))
        #expect(server.store.submit(publish, id: OperationID(1_000), now: server.now) == nil)
        if behavior == .dead { server.pass(.milliseconds(20)) }
        server.remote.behavior = .answers
        let outcome = server.perform(
            .recover(membership, generation: ann.generation, .position(ann.recovery.position)))
        guard case .recovered(let recovery, let batch)? = outcome else {
            Issue.record("no answer")
            return
        }
        #expect(recovery.verdict == .lost(.degraded) && batch.isEmpty)
    }

    @Test func whatWasSaidFirstIsNumberedFirst() throws {
        let server = Server()
        _ = try server.join("ann")
        let room = try RoomName("lobby")
        server.remote.behavior = .dead
        var order: [UInt64] = []
        var sequences: [UInt64] = []
        func note(_ id: OperationID, _ outcome: Outcome) {
            order.append(id.value)
            if case .published(let published) = outcome { sequences.append(published.position.sequence) }
        }
        // One every 15 ms: the first fails while two others are under way, the last ones go around the store.
        for index in 0..<6 as Range<UInt64> {
            let id = OperationID(100 + index)
            let operation = Operation.publish(
                room: room, from: try UserName("ann"), to: nil, MessageProperties(), payload: [UInt8(index)])
            if let outcome = server.store.submit(operation, id: id, now: server.now) { note(id, outcome) }
            server.pass(.milliseconds(15))
            while let (id, outcome) = server.store.pollOutcome() { note(id, outcome) }
        }
        #expect(order == Array(100..<106))
        #expect(sequences == Array(1...6))
        server.remote.behavior = .answers
        server.pass(.seconds(2))
        #expect(server.store.pendingCount == 0 && server.store.degradedRoomCount == 0)
    }

    /// Whoever comes back in a crowd waits until it is his turn: a store that works is not away.
    @Test func crowdWaitsInLine() throws {
        let server = Server()
        server.remote.isSlow = true
        server.remote.delay = .microseconds(90)
        for number in 0..<10_000 {
            let membership = try server.member("u\(number)", room: "r\(number % 1_000)")
            _ = server.store.submit(.join(membership, resume: nil), id: OperationID(UInt64(number)), now: server.now)
        }
        var joined = 0
        var turns = 0
        while let due = server.store.nextTimeout, joined < 10_000 {
            turns += 1
            try #require(turns < 100_000, "no progress: a timer of the past")
            server.now = max(server.now, due)
            server.store.handleTimeout(now: server.now)
            while let (_, outcome) = server.store.pollOutcome() {
                guard case .joined(let one, _) = outcome, !one.recovery.position.isDegraded else { continue }
                joined += 1
            }
            if server.now > .at(30) { break }
        }
        #expect(joined == 10_000)
        #expect(server.store.breakerState == .closed && server.store.statistics.withoutStore == 0)
    }

    /// ... and a store that forgets one operation is not waited for, however busy it is with others.
    @Test func forgottenOperationIsGivenUp() throws {
        let server = Server()
        _ = try server.join("a")
        server.remote.behavior = .deaf
        let forgotten = OperationID(1 << 40)
        let room = try RoomName("lobby")
        let begin = server.now
        _ = server.store.submit(
            .publish(room: room, from: try UserName("a"), to: nil, MessageProperties(), payload: [1]), id: forgotten,
            now: begin)
        server.remote.behavior = .answers
        var given: Instant?
        for number in 0..<1_000 where given == nil {
            _ = server.store.submit(
                .join(try server.member("b", room: "other"), resume: nil), id: OperationID(UInt64(1 << 41 + number)),
                now: server.now)
            server.now = server.now + .milliseconds(10)
            server.store.handleTimeout(now: server.now)
            while let (id, outcome) = server.store.pollOutcome() {
                guard id == forgotten, case .published(let published) = outcome else { continue }
                #expect(published.position.isDegraded)
                given = server.now
            }
        }
        #expect(given == begin + .seconds(5))
    }

    /// What the store cannot do is no sign that it does anything.
    @Test func refusalsAreSilence() throws {
        let server = Server()
        _ = try server.join("a")
        server.remote.behavior = .dead
        let begin = server.now
        let silent = OperationID(1 << 40)
        _ = server.store.submit(
            .publish(room: try RoomName("lobby"), from: try UserName("a"), to: nil, MessageProperties(), payload: [1]),
            id: silent, now: begin)
        server.remote.behavior = .refuses
        var given: Instant?
        for number in 0..<15 where given == nil {
            _ = server.store.submit(
                .join(try server.member("b", room: "other\(number)"), resume: nil),
                id: OperationID(UInt64(1 << 41 + number)), now: server.now)
            server.now = server.now + .milliseconds(10)
            server.store.handleTimeout(now: server.now)
            while let (id, _) = server.store.pollOutcome() { if id == silent { given = server.now } }
        }
        #expect(given == begin + .milliseconds(50))
    }

    /// The longest wait is never shorter than the deadline, and the timer tells when it is over.
    @Test(arguments: [(50, 10, 50), (50, 5_000, 50), (10, 10, 10)])
    func silentStoreIsLeftAfterItsDeadline(deadline: Int64, longest: Int64, given: Int64) throws {
        let server = Server {
            $0.deadline = .milliseconds(deadline)
            $0.longestWait = .milliseconds(longest)
        }
        _ = try server.join("a")
        server.remote.behavior = .dead
        let begin = server.now
        _ = server.store.submit(
            .publish(room: try RoomName("lobby"), from: try UserName("a"), to: nil, MessageProperties(), payload: [1]),
            id: OperationID(1 << 40), now: begin)
        #expect(server.store.nextTimeout == begin + .milliseconds(given))
        server.store.handleTimeout(now: begin + .milliseconds(given) - .nanoseconds(1))
        #expect(server.store.pollOutcome() == nil)
        server.store.handleTimeout(now: begin + .milliseconds(given))
        #expect(server.store.pollOutcome()?.0 == OperationID(1 << 40))
    }

    /// Timers are those of what is still waited for.
    @Test func answeredOperationsHaveNoTimer() throws {
        let server = Server()
        _ = try server.join("a")
        _ = server.store.submit(
            .join(try server.member("b"), resume: nil), id: OperationID(1 << 40), now: server.now)
        server.now = server.now + .milliseconds(1)
        server.store.handleTimeout(now: server.now)
        #expect(server.store.pollOutcome() != nil)
        #expect(server.store.nextTimeout == nil)
    }

    @Test func memoryForOutagesIsBounded() throws {
        let server = Server {
            $0.maximumDegradedRooms = 10
            $0.maximumPending = 5
        }
        _ = try server.join("ann")
        let before = try server.join("ann", resume: nil).0
        server.remote.behavior = .dead
        for index in 0..<100 {
            let room = try RoomName("room\(index)")
            _ = server.store.submit(
                .publish(room: room, from: try UserName("ann"), to: nil, MessageProperties(), payload: [1]),
                id: OperationID(UInt64(index) + 10_000), now: server.now)
        }
        #expect(server.store.pendingCount <= 5 + 64, "and the new epochs under way")
        server.pass(.seconds(3))
        #expect(server.store.degradedRoomCount <= 10)
        server.remote.behavior = .answers
        server.pass(.seconds(40))
        #expect(server.store.breakerState == .closed)
        // More rooms than could be told apart: all began anew, the lobby too.
        let (joined, _) = try server.join("ann", resume: back(before))
        #expect(joined.recovery.verdict == .lost(.degraded))
        let (again, _) = try server.join("ann", resume: back(joined))
        #expect(again.recovery.verdict == .recoveredEmpty)
    }

    /// Outages of every kind at any moment: a replay that says "recovered" has every message since that place.
    @Test func neverRecoversAcrossAHole() throws {
        for seed in 0..<150 as Range<UInt64> {
            var random = SeededGenerator(seed: seed)
            let server = Server(seed: seed)
            var log: [(position: Position, text: String)] = []
            var places: [(Position, Int)] = []
            var ann = try server.join("ann").0
            _ = try server.join("bob")
            places.append((ann.recovery.position, 0))
            for step in 0..<60 {
                switch Int.random(in: 0..<12, using: &random) {
                case 0: server.remote.behavior = .dead
                case 1: server.remote.behavior = Bool.random(using: &random) ? .deaf : .disconnected
                case 2, 3: server.remote.behavior = .answers
                case 4: server.pass(.milliseconds(Int64.random(in: 0..<3_000, using: &random)))
                case 5: server.remote.delay = .milliseconds(Int64.random(in: 0..<70, using: &random))
                case 6...9:
                    guard let published = try? server.publish("\(seed)/\(step)", from: nil, to: nil) else {
                        // Not stored anywhere, said so, and sent live all the same: a hole.
                        log.append((Position(epoch: 0, sequence: 0), "hole"))
                        break
                    }
                    log.append((published.position, "\(seed)/\(step)"))
                    places.append((published.position, log.count))
                default:
                    guard let (place, count) = places.randomElement(using: &random) else { break }
                    guard let (joined, batch) = try? server.join("ann", resume: back(ann, at: place)) else { break }
                    ann = joined
                    places.append((joined.recovery.position, log.count))
                    guard joined.recovery.verdict.isRecovered else { break }
                    let got = (0..<batch.count).map { String(decoding: batch.payload($0), as: UTF8.self) }
                    let expected = log[count...].map(\.text)
                    #expect(got == expected, "seed \(seed), step \(step): \(joined.recovery.verdict) from \(place)")
                }
                server.takeNotices()
            }
        }
    }
}
