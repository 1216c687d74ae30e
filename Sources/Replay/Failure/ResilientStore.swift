public import Wire

/// A store that may be away, and what happens then.
///
/// Each operation has a deadline, which moves on while the store answers others: a crowd that comes back at once waits in
/// line, and only silence, or too long a line, is a store that is away. A circuit breaker keeps operations away from a store that does not answer. A room that
/// was published to or joined while the store was away is numbered here meanwhile, with epochs of its own kind
/// (``Position/isDegraded``): nothing of that is ever merged into the store. Before the store is asked about such a room
/// again, the room gets a new epoch there, so that a client which missed something in between is told ``LossReason/degraded``
/// and never "recovered". Publishing goes on throughout, in order.
///
/// What one server cannot know is what another one says to its clients: until the new epoch has reached the store, a
/// client that comes back to another server gets what the store has. The publisher of a message that the store does not
/// have can tell by its position.
public final class ResilientStore: ReplayStore {
    public struct Configuration: Sendable {
        /// An operation is late when the store has answered none for this long.
        public var deadline = Duration.milliseconds(50)
        /// ... or, however much else it answers, has not answered this one for as long as this.
        public var longestWait = Duration.seconds(5)
        public var breaker = CircuitBreaker.Configuration()
        /// Operations that wait for the store.
        public var maximumPending = 100_000
        /// Rooms remembered as degraded; with more, all rooms get a new epoch.
        public var maximumDegradedRooms = 65_536
        /// Rooms that get their new epoch at the same time.
        public var maximumResets = 64

        public init() {}
    }

    public enum Notice: Equatable, Sendable {
        /// The breaker changed; the log says so.
        case breaker(CircuitBreaker.State)
        /// The store is back, and has taken over this connection, which was made without it: generation, token and
        /// position are new. Its client is to be told: it has lost (``LossReason/degraded``).
        case returned(Membership, generation: UInt64, Joined)
        /// The same, but the store did not take the connection over: it must join again.
        case joinAgain(Membership, generation: UInt64)
    }

    private struct Pending {
        enum Purpose {
            case caller(OperationID)
            case reset(RoomName?)
            /// A connection that was made without the store.
            case returning(Membership, generation: UInt64)
            /// The caller has its outcome; only the breaker still wants to know.
            case abandoned
        }
        let purpose: Purpose
        let operation: Operation
        let ticket: CircuitBreaker.Ticket
        let began: Instant
    }

    /// What happened so far, for metrics.
    public struct Statistics: Equatable, Sendable {
        /// Operations given to the store, and those that it failed or did not answer in time.
        public internal(set) var operations = 0
        public internal(set) var failures = 0
        /// Operations done without the store, or not at all.
        public internal(set) var withoutStore = 0
        /// Answers by time taken, at most the limit of the same place in ``latencyLimits``; the last: longer.
        public internal(set) var latencies = [Int](repeating: 0, count: latencyLimits.count + 1)
        public internal(set) var latencySum = Duration.zero
        /// Replays as they came out, with or without the store.
        public internal(set) var verdicts: [Verdict: Int] = [:]

        public static let latencyLimits: [Duration] = [
            .microseconds(250), .milliseconds(1), .microseconds(2_500), .milliseconds(5), .milliseconds(10),
            .milliseconds(25), .milliseconds(50),
        ]

        public init() {}

        mutating func count(latency: Duration) {
            let place = Self.latencyLimits.firstIndex { latency <= $0 } ?? Self.latencyLimits.count
            latencies[place] &+= 1
            latencySum = latencySum + latency
        }
    }

    public private(set) var statistics = Statistics()

    private let configuration: Configuration
    private let store: any ReplayStore
    /// Numbers rooms while the store is away.
    private let substitute: MemoryStore
    private var breaker: CircuitBreaker
    private var pending: [OperationID: Pending] = [:]
    /// What the store was given, in order.
    private var deadlines = Queue<(id: OperationID, began: Instant)>()
    /// When the store answered last.
    private var lastAnswer = Instant(nanoseconds: .min)
    private var lastID: UInt64 = 0
    private var outcomes = Queue<(OperationID, Outcome)>()
    private var notices = Queue<Notice>()

    private enum Degraded {
        case waiting
        case resetting
    }
    private var degraded: [RoomName: Degraded] = [:]
    private var waiting: [RoomName] = []
    private var resets = 0
    /// After one that failed, the others wait a little.
    private var nextReset = Instant(nanoseconds: .min)
    /// Rooms that have just become degraded, with operations still at the store; or all operations.
    private var overtaken: Set<RoomName> = []
    private var isGivingUp = false
    /// More rooms than can be told apart.
    private var allDegraded: Degraded?
    private var live: LiveFeed
    /// Subscribed rooms whose messages come from the substitute.
    private var substituted: Set<RoomName> = []

    /// `rooms` are the limits of what is kept here while the store is away. `random` must be unpredictable.
    public init(
        _ store: any ReplayStore, rooms: Replay.Configuration = Replay.Configuration(),
        configuration: Configuration = Configuration(), random: some RandomNumberGenerator
    ) {
        var rooms = rooms
        rooms.isDegraded = true
        self.store = store
        self.configuration = configuration
        substitute = MemoryStore(configuration: rooms, random: random)
        live = LiveFeed(rooms)
        breaker = CircuitBreaker(configuration.breaker)
    }

    public var breakerState: CircuitBreaker.State { breaker.state }
    public var degradedRoomCount: Int { degraded.count }
    public var pendingCount: Int { pending.count }

    /// Rooms, members and memory of messages that are kept here meanwhile.
    public var kept: (rooms: Int, members: Int, bytes: Int) {
        (substitute.roomCount, substitute.memberCount, substitute.bytesHeld)
    }

    public func pollNotice() -> Notice? { notices.popFirst() }

    // MARK: In

    public func submit(_ operation: Operation, id: OperationID, now: Instant) -> Outcome? {
        let outcome = begin(operation, id: id, now: now)
        giveUpOvertaken(now: now)
        guard let outcome else { return nil }
        count(outcome)
        if outcomes.isEmpty { return outcome }
        // Not before those that were submitted earlier.
        outcomes.append((id, outcome))
        return nil
    }

    private func count(_ outcome: Outcome) {
        switch outcome {
        case .joined(let joined, _): statistics.verdicts[joined.recovery.verdict, default: 0] &+= 1
        case .recovered(let recovery, _): statistics.verdicts[recovery.verdict, default: 0] &+= 1
        default: break
        }
    }

    private func begin(_ operation: Operation, id: OperationID, now: Instant) -> Outcome? {
        takeOutcomes(now: now)
        if let membership = operation.membership, let generation = operation.generation,
            substitute.hasConnection(membership, generation: generation)
        {
            return substitute.submit(operation, id: id, now: now)
        }
        if isDegraded(operation.room) {
            beginResets(now: now)
            if isDegraded(operation.room) { return withoutStore(operation, .degraded, now: now) }
        }
        guard pending.count < configuration.maximumPending, let ticket = breaker.admit(now: now) else {
            pollBreaker()
            return withoutStore(operation, .degraded, now: now)
        }
        pollBreaker()
        return send(operation, .caller(id), ticket, now: now)
    }

    private func send(
        _ operation: Operation, _ purpose: Pending.Purpose, _ ticket: CircuitBreaker.Ticket, now: Instant
    ) -> Outcome? {
        lastID &+= 1
        let inner = OperationID(lastID)
        let entry = Pending(purpose: purpose, operation: operation, ticket: ticket, began: now)
        statistics.operations &+= 1
        if let outcome = store.submit(operation, id: inner, now: now) { return finish(entry, outcome, now: now) }
        pending[inner] = entry
        deadlines.append((inner, now))
        return nil
    }

    // MARK: Out

    public func pollOutcome() -> (OperationID, Outcome)? { outcomes.popFirst() }

    public func handleTimeout(now: Instant) {
        if let due = store.nextTimeout, due <= now { store.handleTimeout(now: now) }
        takeOutcomes(now: now)
        while let (id, began) = deadlines.first, deadline(of: began) <= now {
            _ = deadlines.popFirst()
            if let late = pending.removeValue(forKey: id) { complete(late, .refused(.unavailable), now: now) }
        }
        giveUpOvertaken(now: now)
        if let due = substitute.nextTimeout, due <= now { substitute.handleTimeout(now: now) }
        beginResets(now: now)
        giveUpOvertaken(now: now)
    }

    private func deadline(of began: Instant) -> Instant {
        min(
            max(began, lastAnswer) + configuration.deadline,
            began + max(configuration.longestWait, configuration.deadline))
    }

    public var nextTimeout: Instant? {
        var next = deadlines.first.map { deadline(of: $0.began) } ?? .distantFuture
        if let due = store.nextTimeout { next = min(next, due) }
        if let due = substitute.nextTimeout { next = min(next, due) }
        let isWaiting = allDegraded == nil ? !waiting.isEmpty && resets < configuration.maximumResets : resets == 0
        if isWaiting, breaker.state != .halfOpen { next = min(next, max(breaker.nextTimeout ?? nextReset, nextReset)) }
        return next == .distantFuture ? nil : next
    }

    /// Takes what the store has done. What comes after its deadline is ignored: it was answered without the store.
    public func takeOutcomes(now: Instant) {
        while let (id, outcome) = store.pollOutcome() {
            if let entry = pending.removeValue(forKey: id) { complete(entry, outcome, now: now) }
        }
        giveUpOvertaken(now: now)
        while let next = deadlines.first, pending[next.id] == nil { _ = deadlines.popFirst() }
    }

    /// A room that goes on without the store goes on in order: what the store still has of it is done here first. So is
    /// everything once the breaker opens.
    private func giveUpOvertaken(now: Instant) {
        while !overtaken.isEmpty || isGivingUp {
            let rooms = overtaken
            let isAll = isGivingUp
            overtaken = []
            isGivingUp = false
            guard !pending.isEmpty else { return }
            for (id, _) in deadlines {
                guard let entry = pending[id] else { continue }
                guard isAll || entry.operation.room.map({ rooms.contains($0) }) == true else { continue }
                guard case .caller(let caller) = entry.purpose else { continue }
                pending[id] = Pending(
                    purpose: .abandoned, operation: entry.operation, ticket: entry.ticket, began: entry.began)
                let outcome = withoutStore(entry.operation, .degraded, now: now)
                count(outcome)
                outcomes.append((caller, outcome))
            }
        }
    }

    private func complete(_ entry: Pending, _ outcome: Outcome, now: Instant) {
        guard let result = finish(entry, outcome, now: now), case .caller(let id) = entry.purpose else { return }
        count(result)
        outcomes.append((id, result))
    }

    /// What to tell about an operation that the store has, or has not, done.
    private func finish(_ entry: Pending, _ outcome: Outcome, now: Instant) -> Outcome? {
        var isAnswer = true
        if case .refused(.unavailable) = outcome { isAnswer = false }
        breaker.record(entry.ticket, isSuccess: isAnswer, now: now)
        if isAnswer {
            lastAnswer = now
            statistics.count(latency: now - entry.began)
        } else {
            statistics.failures &+= 1
        }
        pollBreaker()
        switch entry.purpose {
        case .reset(let room):
            if !isAnswer { nextReset = now + configuration.deadline }
            endReset(of: room, isDone: isAnswer, now: now)
            return .done
        case .returning(let membership, let generation):
            if case .joined(var joined, _) = outcome {
                joined.recovery.verdict = .lost(.degraded)
                note(.returned(membership, generation: generation, joined))
            } else {
                note(.joinAgain(membership, generation: generation))
            }
            return .done
        case .abandoned:
            return nil
        case .caller:
            guard isAnswer else { return withoutStore(entry.operation, .store, now: now) }
            return isDegraded(entry.operation.room) ? doubted(outcome) : outcome
        }
    }

    /// The room went on without the store while the store worked on this: a replay may lack what was said meanwhile.
    private func doubted(_ outcome: Outcome) -> Outcome {
        switch outcome {
        case .recovered(var recovery, let batch):
            guard recovery.verdict.isRecovered else { return outcome }
            recovery.verdict = .lost(.degraded)
            return .recovered(recovery, batch.isEmpty ? batch : Batch())
        case .joined(var joined, let batch):
            guard joined.recovery.verdict.isRecovered else { return outcome }
            joined.recovery.verdict = .lost(.degraded)
            return .joined(joined, batch.isEmpty ? batch : Batch())
        default:
            return outcome
        }
    }

    private func pollBreaker() {
        while let state = breaker.pollChange() {
            if state == .open { isGivingUp = true }
            note(.breaker(state))
        }
    }

    /// More than these are waiting only if nobody takes them.
    private static let maximumNotices = 1 << 20

    private func note(_ notice: Notice) { if notices.count < Self.maximumNotices { notices.append(notice) } }

    // MARK: Without the store

    private func withoutStore(_ operation: Operation, _ reason: LossReason, now: Instant) -> Outcome {
        statistics.withoutStore &+= 1
        switch operation {
        case .publish(let room, let from, let to, _, _):
            markDegraded(room)
            // Who was here before the store went away is not known to the substitute.
            for user in [from, to] { if let user { admit(Membership(room: room, user: user), now: now) } }
            if from == nil, to == nil, substitute.room(named: room.bytes.span.bytes) == nil {
                return .refused(.unavailable)
            }
            return substitute.submit(operation, id: OperationID(0), now: now) ?? .refused(.unavailable)
        case .join(let membership, let resume):
            markDegraded(membership.room)
            guard let outcome = substitute.submit(operation, id: OperationID(0), now: now) else {
                return .refused(.unavailable)
            }
            guard case .joined(var joined, let batch) = outcome, resume != nil,
                joined.recovery.verdict == .lost(.degraded)
            else { return outcome }
            joined.recovery.verdict = .lost(reason)
            return .joined(joined, batch)
        case .recover(_, _, let presented):
            // The store may still have everything: the client keeps its place and may ask again.
            var position = Position(epoch: Position.degradedBit, sequence: 0)
            if case .position(let known) = presented { position = known }
            return .recovered(Recovery(verdict: .lost(reason), position: position), Batch())
        case .acknowledge, .drop, .leave, .state, .quality, .reset:
            return .refused(.unavailable)
        }
    }

    private func admit(_ membership: Membership, now: Instant) {
        let known = substitute.room(named: membership.room.bytes.span.bytes)
        if let known, substitute.member(named: membership.user.bytes.span.bytes, in: known) != nil { return }
        guard
            case .joined(let joined, _)? = substitute.submit(
                .join(membership, resume: nil), id: OperationID(0), now: now)
        else { return }
        // Its connection is the store's: here it only has a name.
        _ = substitute.submit(.drop(membership, generation: joined.generation), id: OperationID(0), now: now)
    }

    // MARK: Rooms that went on without the store

    private func isDegraded(_ room: RoomName?) -> Bool {
        if allDegraded != nil { return true }
        guard let room else { return false }
        return degraded[room] != nil
    }

    private func markDegraded(_ room: RoomName) {
        guard allDegraded == nil, degraded[room] == nil else { return }
        guard degraded.count < configuration.maximumDegradedRooms else {
            allDegraded = .waiting
            degraded.removeAll()
            waiting.removeAll()
            isGivingUp = true
            for room in live.subscribedRooms { goOnAlone(room) }
            return
        }
        degraded[room] = .waiting
        waiting.append(room)
        goOnAlone(room)
        if !pending.isEmpty { overtaken.insert(room) }
    }

    /// Gives degraded rooms their new epoch, as many as may be under way.
    private func beginResets(now: Instant) {
        guard now >= nextReset else { return }
        if allDegraded == .waiting, resets == 0 {
            guard let ticket = breaker.admit(now: now) else { return }
            pollBreaker()
            allDegraded = .resetting
            resets &+= 1
            _ = send(.reset(nil, .degraded), .reset(nil), ticket, now: now)
            return
        }
        // Each at most once: at the end of time there is no later to wait for.
        for _ in 0..<waiting.count {
            guard let room = waiting.last, resets < configuration.maximumResets, allDegraded == nil else { return }
            guard let ticket = breaker.admit(now: now) else { return }
            pollBreaker()
            waiting.removeLast()
            degraded[room] = .resetting
            resets &+= 1
            _ = send(.reset(room, .degraded), .reset(room), ticket, now: now)
            // One that failed at once waits again.
            if now < nextReset { return }
        }
    }

    private func endReset(of room: RoomName?, isDone: Bool, now: Instant) {
        resets &-= 1
        guard let room else {
            if isDone, allDegraded == .resetting {
                allDegraded = nil
                for room in substituted { goBack(room, now: now) }
                takeOver(substitute.removeAllRooms(), now: now)
            } else {
                allDegraded = .waiting
            }
            return
        }
        guard degraded[room] != nil else { return }
        if isDone {
            degraded[room] = nil
            goBack(room, now: now)
            takeOver(substitute.removeRoom(room), now: now)
        } else {
            degraded[room] = .waiting
            waiting.append(room)
        }
    }

    /// Before anything else that is said in the room: the store must know who is there.
    private func takeOver(_ connections: [(Membership, UInt64)], now: Instant) {
        for (membership, generation) in connections {
            guard pending.count < configuration.maximumPending, let ticket = breaker.admit(now: now) else {
                note(.joinAgain(membership, generation: generation))
                continue
            }
            let purpose = Pending.Purpose.returning(membership, generation: generation)
            _ = send(.join(membership, resume: nil), purpose, ticket, now: now)
        }
    }

    // MARK: Live messages

    public func subscribe(_ room: RoomName, now: Instant) {
        live.subscribe(room)
        substituted.remove(room)
        store.subscribe(room, now: now)
        if isDegraded(room) { goOnAlone(room) }
    }

    public func unsubscribe(_ room: RoomName) {
        live.unsubscribe(room)
        store.unsubscribe(room)
        if substituted.remove(room) != nil { substitute.unsubscribe(room) }
    }

    /// While a room goes on without the store: only what this server says in it.
    public func pollLive() -> LiveEvent? {
        if let event = live.pop() { return event }
        takeLive()
        return live.pop()
    }

    public var liveCounters: LiveCounters { live.counters }

    private func takeLive() {
        while let event = store.pollLive() { if !substituted.contains(event.room) { pass(event) } }
        while let event = substitute.pollLive() { if substituted.contains(event.room) { pass(event) } }
    }

    private func pass(_ event: LiveEvent) {
        switch event {
        case .subscribed(let room, let position): live.announce(room, at: position)
        case .message(let message): live.receive(message)
        case .interrupted(let room, let reason): live.interrupt(room, reason)
        }
    }

    /// What the store has said of it comes first.
    private func goOnAlone(_ room: RoomName) {
        guard live.isSubscribed(room), !substituted.contains(room) else { return }
        takeLive()
        live.interrupt(room, .degraded)
        substituted.insert(room)
        substitute.subscribe(room, now: Instant(nanoseconds: 0))
    }

    /// Subscribed anew: what the store did late, after this server had done it alone, must not come again.
    private func goBack(_ room: RoomName, now: Instant) {
        guard substituted.contains(room) else { return }
        takeLive()
        live.interrupt(room, .degraded)
        substituted.remove(room)
        substitute.unsubscribe(room)
        store.subscribe(room, now: now)
    }
}
