import CSystem
public import Replay
public import Storage
public import Wire

/// Rooms in a file: they survive the process, and, unless ``Configuration/isDurable`` is off, a power failure. Operations
/// that come together share one transaction; an outcome is given after it has been committed, never before.
///
/// What differs from ``MemoryStore``: `skipped` does not count replaced messages.
///
/// A damaged file is put aside by ``SQLiteDatabase`` and the rooms begin anew, with new epochs. Where the file cannot be
/// read or written: ``Refusal/unavailable``.
public final class SQLiteReplayStore: ReplayStore {
    public struct Configuration: Sendable {
        public var path: String
        public var rooms: Replay.Configuration
        /// An outcome is given after the sync.
        public var isDurable = true
        /// No other process has this file: whoever is still in it as connected is dropped at the start.
        public var isAlone = true
        /// A room whose numbers turn out to be behind a position that was given out (the file is an old copy, or was not
        /// durable) gets a new epoch.
        public var resetsWhenBehind = true
        /// Nanoseconds since 1970.
        public var clock: @Sendable () -> Int64 = { cs_unix_ns() }

        public init(path: String, rooms: Replay.Configuration = Replay.Configuration()) {
            self.path = path
            self.rooms = rooms
        }
    }

    /// What is random in an operation, chosen before.
    private struct Dice: Sendable {
        let epoch: UInt64
        let generation: UInt64
        let token: ResumeToken
        let resetsWhenBehind: Bool
    }

    private let configuration: Configuration
    private let limits: Replay.Configuration
    let database: SQLiteDatabase
    private let classifier: QualityClassifier
    private var admission: Admission
    private var random: any RandomNumberGenerator
    private let finished: FinishedOperations
    /// What this process says; other processes with the same file are not heard.
    private let live: Guarded<LiveFeed>
    private let onOutcome: @Sendable () -> Void
    private var nextSweep: Instant?

    private static let sweepInterval = Duration.seconds(1)
    private static let sweepBatch: Int64 = 64

    /// `random` must be unpredictable. `onOutcome` is called on the database's thread when there are outcomes or live
    /// events after there were none; `onState` at each change.
    public init(
        _ configuration: Configuration, random: some RandomNumberGenerator,
        onOutcome: @escaping @Sendable () -> Void = {}, onState: @escaping @Sendable (SQLiteState) -> Void = { _ in }
    ) {
        var random = random
        self.configuration = configuration
        limits = configuration.rooms.bounded
        classifier = QualityClassifier(limits.quality)
        admission = Admission(perSecond: limits.recoveriesPerSecond, burst: limits.recoveryBurst, seed: random.next())
        finished = FinishedOperations(onOutcome)
        live = Guarded(LiveFeed(limits))
        self.onOutcome = onOutcome
        self.random = random
        var file = SQLiteDatabase.Configuration(
            path: configuration.path, schema: SQLiteRoom.schema, schemaVersion: 2)
        file.isDurable = configuration.isDurable
        database = SQLiteDatabase(file, onState: onState)
        if configuration.isAlone { dropAll() }
    }

    /// Finishes what was submitted.
    public func close() { database.close() }

    private func dropAll() {
        let now = configuration.clock()
        database.perform(.write) { connection throws(SQLiteFailure) in
            try connection.execute(
                "UPDATE members SET connected = 0, seen = max(seen, ?) WHERE connected = 1", [.integer(now)])
            try connection.execute("UPDATE rooms SET sweep = min(sweep, ?)", [.integer(now)])
        } completion: { _ in
        }
    }

    // MARK: Operations

    public func submit(_ operation: Operation, id: OperationID, now: Instant) -> Outcome? {
        switch operation {
        case .publish(_, _, _, _, let payload) where payload.count > limits.maximumMessageSize:
            return .refused(.messageTooLarge)
        case .join(_, .some), .recover:
            if let wait = admission.admit(now: now) { return .refused(.throttled(retryAfter: wait)) }
        case .quality(_, let metrics) where !metrics.isValid:
            return .refused(.invalidMetrics)
        default: break
        }
        if nextSweep == nil { nextSweep = now + Self.sweepInterval }
        let dice = Dice(
            epoch: random.next() & ~1, generation: random.next(),
            token: ResumeToken(high: random.next(), low: random.next()),
            resetsWhenBehind: configuration.resetsWhenBehind)
        let wall = configuration.clock()
        let (limits, classifier, finished) = (limits, classifier, finished)
        database.perform(.write) { connection throws(SQLiteFailure) in
            try Self.perform(operation, connection, limits, classifier, dice, wall: wall, now: now)
        } completion: { [live, onOutcome] result in
            let outcome = (try? result.get()) ?? .refused(.unavailable)
            if Self.tell(live, operation, outcome, dice) { onOutcome() }
            finished.append(id, outcome)
        }
        if case .reset(nil, _) = operation {
            for room in live.withLock({ $0.subscribedRooms }) { announce(room) }
        }
        return nil
    }

    public func pollOutcome() -> (OperationID, Outcome)? { finished.popFirst() }

    private static func perform(
        _ operation: Operation, _ connection: SQLiteConnection, _ limits: Replay.Configuration,
        _ classifier: QualityClassifier, _ dice: Dice, wall: Int64, now: Instant
    ) throws(SQLiteFailure) -> Outcome {
        if case .reset(nil, let reason) = operation {
            var random = SeededGenerator(seed: dice.generation)
            for var room in try SQLiteRoom.all(connection, limits, wall: wall) {
                try room.reset(random.next() & ~1, because: reason)
                try room.save()
            }
            return .done
        }
        guard let name = operation.room else { return .refused(.unknownRoom) }
        var known = try SQLiteRoom.load(name, connection, limits, wall: wall)
        if known == nil, case .join = operation {
            guard try SQLiteRoom.hasPlace(connection, limits, wall: wall) else { return .refused(.tooManyRooms) }
            known = try SQLiteRoom.make(name, connection, limits, wall: wall, epoch: dice.epoch)
        }
        guard var room = known else { return .refused(.unknownRoom) }
        switch operation {
        case .publish(_, let from, let to, let properties, let payload):
            return try publish(&room, from, to, properties, payload, dice)
        case .join(let membership, let resume):
            return try join(&room, membership.user, resume, dice)
        case .reset(_, let reason):
            try room.reset(dice.epoch, because: reason)
            try room.save()
            return .done
        default:
            guard let user = operation.membership?.user, var member = try room.member(user) else {
                return .refused(.unknownUser)
            }
            if let generation = operation.generation, generation != member.generation { return .refused(.stale) }
            return try perform(operation, &room, &member, classifier, dice, now: now)
        }
    }

    private static func publish(
        _ room: inout SQLiteRoom, _ from: UserName?, _ to: UserName?, _ properties: MessageProperties,
        _ payload: [UInt8], _ dice: Dice
    ) throws(SQLiteFailure) -> Outcome {
        var sender: Int64 = 0
        var recipient: Int64 = 0
        if let from {
            guard var member = try room.member(from) else { return .refused(.unknownUser) }
            sender = member.serial
            member.touch(room.time)
            try room.put(member)
        }
        if let to {
            guard let member = try room.member(to) else { return .refused(.unknownRecipient) }
            recipient = member.serial
        }
        if let key = properties.key, let sequence = try room.remembered(key, by: from?.bytes ?? []) {
            return .published(
                Published(position: Position(epoch: room.standing.epoch, sequence: sequence), isDuplicate: true))
        }
        if room.standing.top >= UInt64(Int64.max) { try room.reset(dice.epoch, because: .epoch) }
        try room.publish(from: sender, to: recipient, properties, payload: payload)
        if let key = properties.key { try room.remember(key, by: from?.bytes ?? []) }
        try room.save()
        return .published(Published(position: room.standing.position, isDuplicate: false))
    }

    private static func join(_ room: inout SQLiteRoom, _ user: UserName, _ resume: Resume?, _ dice: Dice)
        throws(SQLiteFailure) -> Outcome
    {
        guard var member = try room.member(user) else {
            let count = try room.count()
            guard try room.hasPlace(), count < Int64(room.limits.maximumMembersPerRoom) else {
                if count == 0 { try room.remove() }
                return .refused(.tooManyMembers)
            }
            let member = SQLiteMember(
                name: user, serial: room.serial, token: dice.token, generation: dice.generation, seen: room.time,
                last: room.standing.top)
            room.serial &+= 1
            try room.put(member)
            try room.save()
            return .joined(
                Joined(
                    generation: member.generation, token: member.token, isReconnection: false, disconnectDuration: nil,
                    replaced: nil, recovery: unproven(resume, room)), Batch())
        }
        let before = member
        member.generation = dice.generation
        member.isConnected = true
        member.connections &+= 1
        member.seen = room.time
        var batch = Batch()
        let recovery: Recovery
        if let resume, resume.token == member.token || resume.token == nil && !room.limits.needsToken {
            recovery = try replay(&room, &member, resume.position, &batch, dice)
        } else {
            member.serial = room.serial
            room.serial &+= 1
            member.token = dice.token
            member.acknowledged = nil
            member.last = room.standing.top
            recovery = unproven(resume, room)
        }
        try room.put(member)
        try room.save()
        return .joined(
            Joined(
                generation: member.generation, token: member.token, isReconnection: true,
                disconnectDuration: before.isConnected ? .zero : .nanoseconds(room.time &- before.seen),
                replaced: before.isConnected ? before.generation : nil, recovery: recovery), batch)
    }

    private static func replay(
        _ room: inout SQLiteRoom, _ member: inout SQLiteMember, _ presented: Presented, _ batch: inout Batch,
        _ dice: Dice
    ) throws(SQLiteFailure) -> Recovery {
        var recovery = try room.replay(&member, presented, &batch)
        guard dice.resetsWhenBehind, recovery.problem == .futurePosition else { return recovery }
        try room.reset(dice.epoch, because: .epoch)
        member.acknowledged = nil
        member.last = 0
        recovery.position = room.standing.position
        return recovery
    }

    private static func unproven(_ resume: Resume?, _ room: SQLiteRoom) -> Recovery {
        var recovery = Recovery(verdict: .fresh, position: room.standing.position)
        guard let resume, case .lost(let reason, let problem) = room.standing.judgeUnproven(resume.position) else {
            return recovery
        }
        recovery.verdict = .lost(reason)
        recovery.problem = problem
        return recovery
    }

    private static func perform(
        _ operation: Operation, _ room: inout SQLiteRoom, _ member: inout SQLiteMember,
        _ classifier: QualityClassifier, _ dice: Dice, now: Instant
    ) throws(SQLiteFailure) -> Outcome {
        var outcome = Outcome.done
        switch operation {
        case .recover(_, _, let presented):
            member.touch(room.time)
            var batch = Batch()
            let recovery = try replay(&room, &member, presented, &batch, dice)
            outcome = .recovered(recovery, batch)
        case .acknowledge(_, _, let presented):
            member.touch(room.time)
            if case .position(let position) = presented, position.epoch == room.standing.epoch,
                position.sequence <= room.standing.top
            {
                member.acknowledged = max(member.acknowledged ?? 0, position.sequence)
                member.last = max(member.last, position.sequence)
            }
        case .drop:
            guard member.isConnected else { return .done }
            member.isConnected = false
            member.seen = room.time
            room.sweep = min(room.sweep, SQLiteRoom.later(room.time, by: room.limits.stateLifetime))
        case .leave:
            try room.connection.execute(
                "DELETE FROM members WHERE room = ? AND name = ?", [.integer(room.id), .bytes(member.name.bytes)])
            if try room.count() == 0 { try room.remove() }
            return .done
        case .state:
            let gone = Duration.nanoseconds(room.time &- member.seen)
            return .state(
                UserState(
                    isConnected: member.isConnected, lastSeen: now - gone, lastSequence: member.last,
                    quality: member.quality, disconnectDuration: member.isConnected ? nil : gone,
                    connections: Int(clamping: member.connections)))
        case .quality(_, let metrics):
            guard let report = classifier.judge(metrics, previous: member.quality) else {
                return .refused(.invalidMetrics)
            }
            member.quality = report.quality
            outcome = .quality(report)
        case .publish, .join, .reset:
            return .refused(.unavailable)
        }
        try room.put(member)
        try room.save()
        return outcome
    }

    // MARK: Live messages

    public func subscribe(_ room: RoomName, now: Instant) {
        live.withLock { $0.subscribe(room) }
        if nextSweep == nil { nextSweep = now + Self.sweepInterval }
        announce(room)
    }

    public func unsubscribe(_ room: RoomName) { live.withLock { $0.unsubscribe(room) } }

    public func pollLive() -> LiveEvent? { live.withLock { $0.pop() } }

    public var liveCounters: LiveCounters { live.withLock { $0.counters } }

    /// Says where the room is, in its turn among the operations.
    private func announce(_ room: RoomName) {
        let (limits, wall) = (limits, configuration.clock())
        database.perform(.write) { connection throws(SQLiteFailure) in
            try SQLiteRoom.load(room, connection, limits, wall: wall)?.standing.position
        } completion: { [live, onOutcome] result in
            let isFirst = live.withLock { live in
                let wasEmpty = live.isEmpty
                if case .success(let position) = result { live.announce(room, at: position) }
                return wasEmpty && !live.isEmpty
            }
            if isFirst { onOutcome() }
        }
    }

    /// After the commit. True if there are events after there were none.
    private static func tell(_ live: Guarded<LiveFeed>, _ operation: Operation, _ outcome: Outcome, _ dice: Dice)
        -> Bool
    {
        live.withLock { live in
            guard live.hasSubscriptions, let room = operation.room, live.isSubscribed(room) else { return false }
            let wasEmpty = live.isEmpty
            switch (operation, outcome) {
            case (.publish(_, let from, let to, let properties, let payload), .published(let published)):
                guard !published.isDuplicate else { break }
                live.receive(
                    LiveMessage(
                        room: room, position: published.position, from: from, to: to, properties,
                        payload: payload))
            case (.reset, .done):
                live.announce(room, at: Position(epoch: dice.epoch, sequence: 0))
            case (.recover, .recovered(let recovery, _)) where recovery.problem == .futurePosition:
                live.announce(room, at: recovery.position)
            case (.join, .joined(let joined, _)) where joined.recovery.problem == .futurePosition:
                live.announce(room, at: joined.recovery.position)
            default: break
            }
            return wasEmpty && !live.isEmpty
        }
    }

    // MARK: Sweeping

    /// Everything is checked when it is used; this only keeps the file small.
    public func handleTimeout(now: Instant) {
        guard let due = nextSweep, due <= now else { return }
        nextSweep = now + Self.sweepInterval
        // Those whose position could not be read.
        for room in live.withLock({ live in live.subscribedRooms.filter { live.isWaiting($0) } }) { announce(room) }
        let (limits, wall) = (limits, configuration.clock())
        database.perform(.write) { connection throws(SQLiteFailure) in
            for var room in try SQLiteRoom.due(connection, limits, wall: wall, count: Self.sweepBatch) {
                guard try room.forgetMembers() else { continue }
                try room.expire()
                try room.save()
            }
        } completion: { _ in
        }
    }

    public var nextTimeout: Instant? { nextSweep }
}
