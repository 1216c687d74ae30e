import Engine
import Replay
import Storage
import Wire

/// Rooms in a database: operations wait for their outcomes, live messages for the outcomes that they must not overtake.
final class StoredRooms {
    /// What an operation's outcome needs to know.
    struct Waiting {
        let kind: ReplayEvent.Kind
        let tag: UInt64
        var room: RoomName?
        var ticket: LiveRoom<LiveMessage>.Ticket?
        var presented: Presented = .nothing
    }

    struct Subscription {
        var live = LiveRoom<LiveMessage>()
        /// Who waits to hear that it has begun, and how long.
        var waiting: [UInt64] = []
        var deadline: Instant?
        var hasBegun = false
    }

    let database: Database
    let store: ResilientStore
    let news: DatabaseNews
    let wake: WakeDescriptor
    private(set) var secret: [UInt8]
    let isSecretShared: Bool
    var waiting: [OperationID: Waiting] = [:]
    var subscriptions: [RoomName: Subscription] = [:]
    /// Subscriptions that have not begun, by their deadlines.
    var beginning = Queue<(room: RoomName, deadline: Instant)>()
    private var lastID: UInt64 = 0

    init(
        _ database: Database, _ settings: Settings, news: DatabaseNews, wake: WakeDescriptor, secret: [UInt8]
    ) {
        self.database = database
        self.news = news
        self.wake = wake
        self.secret = secret
        isSecretShared = settings.secret == nil
        var configuration = ResilientStore.Configuration()
        configuration.deadline = settings.storeTimeout
        configuration.longestWait = settings.longestWait
        configuration.breaker = settings.breaker
        configuration.maximumPending = settings.maximumPending
        store = ResilientStore(
            database.store, rooms: settings.rooms, configuration: configuration, random: SystemRandomNumberGenerator())
    }

    func newID() -> OperationID {
        lastID &+= 1
        return OperationID(lastID)
    }

    /// The secret that the store keeps, if it is another one than before.
    func takeSecret() -> [UInt8]? {
        guard isSecretShared else { return nil }
        if news.takeFresh() { database.exchangeAgain(secret, news, wake: wake) }
        guard let kept = news.takeSecret(), kept != secret else { return nil }
        secret = kept
        return kept
    }

    var nextTimeout: Instant? {
        guard let beginning = beginning.first?.deadline else { return store.nextTimeout }
        return store.nextTimeout.map { min($0, beginning) } ?? beginning
    }
}

extension Core {
    func submit(
        _ operation: Operation, _ kind: ReplayEvent.Kind, _ tag: UInt64, _ presented: Presented = .nothing,
        to rooms: StoredRooms
    ) {
        let id = rooms.newID()
        var waiting = StoredRooms.Waiting(kind: kind, tag: tag, presented: presented)
        if kind == .join || kind == .recover, let room = operation.room {
            waiting.room = room
            waiting.ticket = rooms.subscriptions[room]?.live.begin()
        }
        rooms.waiting[id] = waiting
        if let outcome = rooms.store.submit(operation, id: id, now: now) { finish(id, outcome, rooms) }
    }

    /// Takes everything that the store has.
    func pump(_ rooms: StoredRooms) {
        if let secret = rooms.takeSecret() {
            previousKey = key
            key = PositionKey(secret: secret)
        }
        if let due = rooms.store.nextTimeout, due <= now {
            rooms.store.handleTimeout(now: now)
        } else {
            rooms.store.takeOutcomes(now: now)
        }
        while let (id, outcome) = rooms.store.pollOutcome() { finish(id, outcome, rooms) }
        while let notice = rooms.store.pollNotice() { put(notice, rooms) }
        takeLive(rooms)
        while let (room, deadline) = rooms.beginning.first, deadline <= now {
            _ = rooms.beginning.popFirst()
            guard rooms.subscriptions[room]?.deadline == deadline else { continue }
            answerSubscribers(of: room, in: rooms, isDegraded: true)
        }
        if let aside = rooms.news.takeAside() {
            log(.warning, "[REPLAY] Store=replaced Aside=\(LogText.plain(aside))")
        }
    }

    private func finish(_ id: OperationID, _ outcome: Outcome, _ rooms: StoredRooms) {
        guard let waiting = rooms.waiting.removeValue(forKey: id) else { return }
        var place: Position?
        var isExact = true
        switch outcome {
        case .published(let published): put(waiting.kind, waiting.tag, published)
        case .joined(let joined, let batch):
            put(waiting.tag, joined, batch)
            place = joined.recovery.position
        case .recovered(let recovery, let batch):
            put(waiting.kind, waiting.tag, recovery, batch)
            place = recovery.position
            // The store was not asked, and the client stays where it is.
            if case .lost = recovery.verdict {
                isExact = waiting.presented != .position(recovery.position) && recovery.position.epoch != 1
            }
        case .state(let state): put(waiting.tag, state)
        case .quality(let report): put(waiting.tag, report)
        case .done: finish(waiting)
        case .refused(let refusal): refuse(waiting.kind, waiting.tag, refusal)
        }
        guard let room = waiting.room, rooms.subscriptions[room] != nil else { return }
        rooms.subscriptions[room]?.live.end(waiting.ticket, at: place, isExact: isExact)
        handOver(room, rooms)
    }

    private func finish(_ waiting: StoredRooms.Waiting) {
        var event = ReplayEvent(waiting.kind, tag: waiting.tag)
        if waiting.kind == .acknowledge, case .unreadable = waiting.presented {
            event.status = Status.invalidArgument.rawValue
        }
        put(event)
    }

    // MARK: Live messages

    func takeLive(_ rooms: StoredRooms) {
        while hasSpaceForLive, let event = rooms.store.pollLive() {
            let room = event.room
            switch event {
            case .subscribed(_, let position):
                rooms.subscriptions[room]?.live.start(at: position)
                answerSubscribers(of: room, in: rooms, isDegraded: position?.isDegraded ?? false)
            case .message(let message):
                rooms.subscriptions[room]?.live.receive(
                    message, at: message.position, cost: message.payload.count &+ 256)
            case .interrupted(_, let reason): rooms.subscriptions[room]?.live.interrupt(reason.loss)
            }
            handOver(room, rooms)
        }
    }

    private func handOver(_ room: RoomName, _ rooms: StoredRooms) {
        while let action = rooms.subscriptions[room]?.live.pop() {
            switch action {
            case .message(let message): put(message)
            case .gap(let reason): putGap(room, reason)
            }
        }
    }

    private func answerSubscribers(of room: RoomName, in rooms: StoredRooms, isDegraded: Bool) {
        guard let subscription = rooms.subscriptions[room], !subscription.hasBegun else { return }
        rooms.subscriptions[room]?.hasBegun = true
        rooms.subscriptions[room]?.deadline = nil
        rooms.subscriptions[room]?.waiting = []
        for tag in subscription.waiting {
            var event = ReplayEvent(.subscribe, tag: tag)
            if isDegraded { event.flags |= Flag.degraded }
            put(event)
        }
    }

    func subscribe(_ room: RoomName, tag: UInt64, isFirst: Bool, to rooms: StoredRooms) {
        if isFirst {
            let deadline = now + settings.storeTimeout
            var subscription = StoredRooms.Subscription()
            subscription.deadline = deadline
            rooms.subscriptions[room] = subscription
            rooms.beginning.append((room, deadline))
            rooms.store.subscribe(room, now: now)
        }
        if rooms.subscriptions[room]?.hasBegun == true { return put(ReplayEvent(.subscribe, tag: tag)) }
        rooms.subscriptions[room]?.waiting.append(tag)
    }

    /// Whoever still waits for the beginning has its outcome now.
    func unsubscribe(_ room: RoomName, from rooms: StoredRooms) {
        answerSubscribers(of: room, in: rooms, isDegraded: true)
        rooms.store.unsubscribe(room)
        rooms.subscriptions[room] = nil
    }

    // MARK: Notices

    private func put(_ notice: ResilientStore.Notice, _ rooms: StoredRooms) {
        switch notice {
        case .breaker(let state): put(state, rooms)
        case .returned(let membership, let generation, let joined):
            putReturned(membership, generation, joined)
            rooms.subscriptions[membership.room]?.live.end(nil, at: joined.recovery.position)
            handOver(membership.room, rooms)
        case .joinAgain(let membership, let generation): putReturned(membership, generation, nil)
        }
    }

    private func put(_ state: CircuitBreaker.State, _ rooms: StoredRooms) {
        let statistics = rooms.store.statistics
        let degraded = rooms.store.degradedRoomCount
        switch state {
        case .open:
            let reason = rooms.news.reason
            putStore(
                0, "The store does not answer\(reason.isEmpty ? "" : ": \(reason)"). Rooms are numbered here.")
            log(.warning, "[REPLAY] Store=away Failures=\(statistics.failures) DegradedRooms=\(degraded)")
        case .closed:
            putStore(1, "The store is back.")
            log(.info, "[REPLAY] Store=present WithoutStore=\(statistics.withoutStore) DegradedRooms=\(degraded)")
        case .halfOpen:
            putStore(2, "One operation tries the store.")
            log(.info, "[REPLAY] Store=probed DegradedRooms=\(degraded)")
        }
    }
}
