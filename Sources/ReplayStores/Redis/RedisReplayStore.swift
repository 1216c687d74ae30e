public import Replay
public import Storage
public import Wire

/// Rooms in a Redis server, for several servers of one service.
///
///     {prefix}buffer:{room}   the messages
///     {prefix}state:{room}    the members
///     {prefix}seq:{room}      epoch, numbers and counts
///
/// The room's name stands literally in braces: in a cluster a room lives on one node. An operation is one script, one
/// round trip, and either done as a whole or not at all. Times are the server's: ages and lifetimes mean the same to all.
///
/// What differs from ``MemoryStore``: `maximumBytes` is accounted in steps of a 65 536th of it, at most 4 KiB, for each
/// room, and the last use of a room to the second; `skipped` does not count replaced messages, which are gone; and a
/// room whose servers all died without dropping anybody ends some time after its `stateLifetime`.
///
/// Anything that goes wrong is ``Refusal/unavailable``: a value of another type under a room's key, a server that is out
/// of memory, away, or too late. A late operation may yet be carried out; ``ResilientStore`` has the room reset then.
public final class RedisReplayStore: ReplayStore {
    public struct Configuration: Sendable {
        public var redis: RedisClient.Configuration
        public var rooms: Replay.Configuration
        /// Before the names of all keys.
        public var prefix = "webrtc:reconnect:"
        /// No outcome takes longer.
        public var timeout = Duration.seconds(2)
        /// Messages that were numbered are published to `{prefix}live:{room}` for all who subscribe the room. Off: they
        /// are not heard anywhere.
        public var publishesLive = true
        /// `maximumBytes`, `maximumRooms` and `maximumMembers` hold for all rooms with this prefix, and rooms get a new
        /// epoch when they are used on a server that was started after their last use, or took another one's place: what
        /// it has may be older than what was given out. Takes keys (`{prefix}limits:`) and scripts that do not belong to
        /// one room alone. Off: the server's `maxmemory` has to do, and it must never lose what it has acknowledged.
        public var limitsAllRooms = true
        /// A room whose numbers turn out to be behind a position that was given out gets a new epoch.
        public var resetsWhenBehind = true
        /// Microseconds, in place of the server's clock; for tests.
        public var clock: (@Sendable () -> Int64)?

        public init(redis: RedisClient.Configuration, rooms: Replay.Configuration = Replay.Configuration()) {
            self.redis = redis
            self.rooms = rooms
        }
    }

    let configuration: Configuration
    private let rooms: Replay.Configuration
    private let scripts: RedisReplayScripts
    private let lifetimes: RedisReplayLifetimes
    let client: RedisClient
    private let classifier: QualityClassifier
    private var admission: Admission
    private var random: any RandomNumberGenerator
    private let finished: FinishedOperations
    private let live: RedisLive
    /// The last moment that the caller has told, and when positions of rooms are asked for again.
    private var lastNow = Instant(nanoseconds: 0)
    private var nextAsking: Instant?
    /// Connections made here, so that their rooms are kept alive while nobody says anything.
    private var connections: [Membership: UInt64] = [:]
    private var nextTouch: Instant?

    /// `random` must be unpredictable: epochs, generations and tokens come from it. `onOutcome` is called on the
    /// client's thread when there are outcomes or live events after there were none; `onState` at each change.
    public init(
        _ configuration: Configuration, random: some RandomNumberGenerator,
        onOutcome: @escaping @Sendable () -> Void = {}, onState: @escaping @Sendable (RedisState) -> Void = { _ in }
    ) {
        var random = random
        rooms = configuration.rooms.bounded
        lifetimes = RedisReplayLifetimes(rooms)
        scripts = RedisReplayScripts(
            rooms, lifetimes: lifetimes, resetsWhenBehind: configuration.resetsWhenBehind,
            prefix: configuration.prefix, publishesLive: configuration.publishesLive,
            limitsAllRooms: configuration.limitsAllRooms)
        classifier = QualityClassifier(rooms.quality)
        admission = Admission(perSecond: rooms.recoveriesPerSecond, burst: rooms.recoveryBurst, seed: random.next())
        finished = FinishedOperations(onOutcome)
        var redis = configuration.redis
        redis.scripts += scripts.all
        if configuration.limitsAllRooms {
            redis.greeting.append([
                "EVAL", .text(scripts.greet.source), 1, .text(configuration.prefix + "limits:server"),
            ])
        }
        // A batch of messages must fit, with what surrounds them.
        redis.maximumReplyBytes = max(
            redis.maximumReplyBytes,
            2 &* min(rooms.maximumBatchBytes, 1 << 30) &+ 128 &* min(rooms.maximumBatch, 1 << 20))
        self.configuration = configuration
        let live = RedisLive(rooms, name: random.next(), onEvent: onOutcome)
        self.live = live
        self.random = random
        client = RedisClient(
            redis,
            onState: { state in
                if state == .up { live.askAgain() }
                onState(state)
            },
            onPush: { live.heard($0) })
        listen()
    }

    public var state: RedisState { client.state }
    public var counters: RedisClient.Counters { client.counters }

    /// The server's words about the last operation that it did not do, for a log.
    public var lastError: RedisFailure? { finished.lastError ?? live.refusal.map { .server($0) } }

    public func close() { client.close() }

    // MARK: In

    public func submit(_ operation: Operation, id: OperationID, now: Instant) -> Outcome? {
        lastNow = now
        guard case .up = client.state else { return .refused(.unavailable) }
        if let refusal = refused(operation, now: now) { return .refused(refusal) }
        switch operation {
        case .publish(let room, let from, let to, let properties, let payload):
            run(
                scripts.publish, room,
                [
                    .bytes(from?.bytes ?? []), .bytes(to?.bytes ?? []), .integer(Int64(properties.kind.rawValue)),
                    .integer(Int64(properties.flags)),
                    .text(Hexadecimal.text(properties.negotiation)),
                    .integer(min(max(properties.lifetime, .zero).microseconds, RedisReplayLifetimes.longest)),
                    .text(properties.key.map { Hexadecimal.text($0.high) + Hexadecimal.text($0.low) } ?? ""),
                    .bytes(payload),
                ], id, RedisReplayReply.published)
        case .join(let membership, let resume):
            join(membership, resume, id, now: now)
        case .recover(let membership, let generation, let presented):
            run(
                scripts.recover, membership, generation, [.text(newEpoch())] + Self.arguments(presented), id
            ) { RedisReplayReply.recovered($0, presented) }
        case .acknowledge(let membership, let generation, let presented):
            run(scripts.acknowledge, membership, generation, Self.arguments(presented), id, RedisReplayReply.done)
        case .drop(let membership, let generation):
            forget(membership, generation)
            run(scripts.drop, membership, generation, [], id, RedisReplayReply.done)
        case .leave(let membership, let generation):
            forget(membership, generation)
            run(scripts.leave, membership, generation, [], id, RedisReplayReply.done)
        case .state(let membership):
            run(scripts.state, membership.room, [.bytes(membership.user.bytes)], id) {
                RedisReplayReply.state($0, now: now)
            }
        case .quality(let membership, let metrics):
            judge(membership, metrics, id)
        case .reset(let room?, let reason):
            run(scripts.reset, room, [.text(newEpoch()), .integer(Int64(reason.rawValue))], id, RedisReplayReply.done)
        case .reset(nil, let reason):
            resetAll(reason, id)
        }
        return nil
    }

    /// What can be said without asking.
    private func refused(_ operation: Operation, now: Instant) -> Refusal? {
        switch operation {
        case .publish(_, _, _, _, let payload):
            return payload.count > rooms.maximumMessageSize ? .messageTooLarge : nil
        case .join(_, .some), .recover:
            return admission.admit(now: now).map { .throttled(retryAfter: $0) }
        case .quality(_, let metrics):
            return metrics.isValid ? nil : .invalidMetrics
        default:
            return nil
        }
    }

    private func join(_ membership: Membership, _ resume: Resume?, _ id: OperationID, now: Instant) {
        let token = Hexadecimal.text(random.next()) + Hexadecimal.text(random.next())
        let shown = resume?.token.map { Hexadecimal.text($0.high) + Hexadecimal.text($0.low) } ?? ""
        let generation = random.next()
        // Also if the outcome comes too late: at worst a room lives longer.
        if connections.count < rooms.maximumMembers { connections[membership] = generation }
        if nextTouch == nil { nextTouch = now + touchInterval }
        run(
            scripts.join, membership, generation,
            [.text(token), .text(newEpoch()), .integer(resume == nil ? 0 : 1), .text(shown)]
                + Self.arguments(resume?.position ?? .nothing), id
        ) { RedisReplayReply.joined($0, resume) }
    }

    private func judge(_ membership: Membership, _ metrics: QualityMetrics, _ id: OperationID) {
        // What the last quality was only the server knows: it gets the answer for each.
        let reports = (UInt8(0)...3).map { classifier.judge(metrics, previous: Quality(rawValue: $0) ?? .unknown) }
        run(
            scripts.quality, membership.room,
            [.bytes(membership.user.bytes)] + reports.map { .integer(Int64($0?.quality.rawValue ?? 0)) }, id
        ) { RedisReplayReply.quality($0, reports) }
    }

    private static func arguments(_ presented: Presented) -> [RedisArgument] {
        switch presented {
        case .nothing: ["n", "", 0]
        case .unreadable: ["u", "", 0]
        case .position(let position):
            // Beyond all numbers that there can be is beyond all numbers that there are.
            ["p", .text(Hexadecimal.text(position.epoch)), .integer(Int64(min(position.sequence, 1 << 53)))]
        }
    }

    private func newEpoch() -> String { Hexadecimal.text(random.next() & ~1) }

    private static func key(_ prefix: String, _ kind: String, _ room: RoomName) -> RedisArgument {
        .bytes(Array((prefix + kind + "{").utf8) + room.bytes + [0x7D])
    }

    private func key(_ kind: String, _ room: RoomName) -> RedisArgument {
        Self.key(configuration.prefix, kind, room)
    }

    private func keys(_ room: RoomName) -> [RedisArgument] {
        [key("buffer:", room), key("state:", room), key("seq:", room)]
    }

    private func lane(_ room: RoomName) -> Int {
        guard configuration.redis.lanes > 1 else { return 0 }
        var hash: UInt32 = 2_166_136_261
        for byte in room.bytes { hash = (hash ^ UInt32(byte)) &* 16_777_619 }
        return Int(hash) % min(configuration.redis.lanes, 16)
    }

    private func run(
        _ script: RedisScript, _ membership: Membership, _ generation: UInt64, _ arguments: [RedisArgument],
        _ id: OperationID, _ read: @escaping @Sendable (RedisReply) -> Outcome?
    ) {
        run(
            script, membership.room,
            [.bytes(membership.user.bytes), .text(Hexadecimal.text(generation))] + arguments, id, read)
    }

    private func run(
        _ script: RedisScript, _ room: RoomName, _ arguments: [RedisArgument], _ id: OperationID,
        _ read: @escaping @Sendable (RedisReply) -> Outcome?
    ) {
        client.run(
            script, keys: keys(room), arguments: [time] + arguments, lane: lane(room), deadline: configuration.timeout
        ) { [finished] result in
            finished.append(id, result, read)
        }
    }

    private var time: RedisArgument { configuration.clock.map { .integer($0()) } ?? "" }

    // MARK: Out

    public func pollOutcome() -> (OperationID, Outcome)? { finished.popFirst() }

    // MARK: Keeping rooms

    private var touchInterval: Duration { .milliseconds(max(lifetimes.stateKey / 3, 1_000)) }

    private func forget(_ membership: Membership, _ generation: UInt64) {
        guard connections[membership] == generation else { return }
        connections[membership] = nil
        if connections.isEmpty { nextTouch = nil }
    }

    /// Keys expire by themselves; those of rooms with connections must not.
    public func handleTimeout(now: Instant) {
        lastNow = now
        if let due = nextAsking, due <= now {
            nextAsking = nil
            live.askAgain()
        }
        guard let due = nextTouch, due <= now else { return }
        nextTouch = now + touchInterval
        for room in Set(connections.keys.map(\.room)) {
            client.run(
                scripts.touch, keys: [key("state:", room), key("seq:", room)], lane: lane(room),
                deadline: configuration.timeout
            ) { _ in }
        }
    }

    public var nextTimeout: Instant? {
        if !live.isIncomplete {
            nextAsking = nil
        } else if nextAsking == nil {
            nextAsking = lastNow + .milliseconds(100)
        }
        guard let asking = nextAsking else { return nextTouch }
        return nextTouch.map { min($0, asking) } ?? asking
    }

    // MARK: Live messages

    private func listen() {
        let (script, timeout, time, prefix) = (scripts.announce, configuration.timeout, time, configuration.prefix)
        let failed: @Sendable () -> Void = { [weak live] in live?.failed() }
        live.start { [weak client] room, asked in
            let keys = ["buffer:", "state:", "seq:"].map { Self.key(prefix, $0, room) }
            client?.run(script, keys: keys, arguments: [time, .text(asked)], deadline: timeout) { result in
                if case .failure = result { failed() }
            }
        }
    }

    public func subscribe(_ room: RoomName, now: Instant) {
        lastNow = now
        let channel = channel(room)
        if let token = live.subscribe(room, channel: channel) { client.subscribe(channel, token: token) }
    }

    public func unsubscribe(_ room: RoomName) {
        let channel = channel(room)
        live.unsubscribe(room, channel: channel)
        client.unsubscribe(channel)
    }

    public func pollLive() -> LiveEvent? { live.pop() }

    public var liveCounters: LiveCounters { live.counters }

    private func channel(_ room: RoomName) -> [UInt8] {
        Array((configuration.prefix + "live:{").utf8) + room.bytes + [0x7D]
    }

    // MARK: All rooms

    /// Goes through all keys of the server, some at a time: for when a server cannot tell any more which of its rooms
    /// it went on with alone.
    private func resetAll(_ reason: LossReason, _ id: OperationID) {
        let sweep = RedisRoomSweep(
            client: client, script: scripts.reset, prefix: configuration.prefix, timeout: configuration.timeout,
            arguments: [time], reason: reason, random: SeededGenerator(seed: random.next())
        ) { [finished] result in
            finished.append(id, result, RedisReplayReply.done)
        }
        sweep.begin()
    }
}
