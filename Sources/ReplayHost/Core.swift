import CSystem
public import Engine
import Replay
import Wire

/// A replay buffer behind its lock: operations go in, outcomes and events go out.
public final class Core {
    enum Backend {
        case memory(MemoryStore)
        case stored(StoredRooms)
    }

    let settings: Settings
    let backend: Backend
    var key: PositionKey
    /// Of before the store said which one it keeps.
    var previousKey: PositionKey?
    var queue = EventQueue()
    /// Readable while events wait.
    let descriptor: Int32
    private var isReadable = false
    var isClosed = false
    /// Of this crossing.
    var now = Instant(nanoseconds: 0)
    /// What a replay is read into: kept, so that it is allocated once.
    var batch = Batch()
    /// Outcomes that were promised and not taken.
    private(set) var pending = 0
    var compressor = LazyCompressor()
    /// How often each room is subscribed.
    var subscribers: [RoomName: Int] = [:]
    /// Events of live messages and gaps in the queue, and the bytes of those messages.
    private var liveQueued = 0
    private var liveBytes = 0
    private(set) var counters = Counters()
    /// When the thread looks again.
    var planned = Instant.distantFuture

    /// More live messages than these stay where they come from, which is bounded, until some were taken.
    private static let maximumLiveQueued = 16_384
    private static let maximumLiveBytes = 64 << 20

    init(_ settings: Settings, backend: Backend, key: PositionKey, descriptor: Int32) {
        self.settings = settings
        self.backend = backend
        self.key = key
        self.descriptor = descriptor
    }

    // MARK: Crossings

    func begin() { now = Instant(nanoseconds: cs_monotonic_ns()) }

    func end() {
        switch backend {
        case .memory(let store): takeLive(store)
        case .stored(let rooms): pump(rooms)
        }
        guard (queue.count > 0) != isReadable, !isClosed else { return }
        isReadable = queue.count > 0
        if isReadable { cs_eventfd_signal(descriptor) } else { cs_eventfd_clear(descriptor) }
    }

    /// What waits and was not given back takes no more memory than the messages themselves may.
    public func admit() throws(Failure) {
        guard pending < settings.maximumPending else {
            throw Failure(.wouldBlock, "max_pending outcomes wait to be taken")
        }
        guard queue.cost < settings.rooms.maximumBytes else {
            throw Failure(.wouldBlock, "events that were not taken or given back take max_bytes")
        }
    }

    func take(_ max: Int) -> EventBatch? {
        guard let batch = queue.take(max) else { return nil }
        for part in batch.parts {
            for index in part.events {
                switch part.chunk.events[index].kind {
                case .message:
                    liveQueued &-= 1
                    liveBytes &-= Int(part.chunk.events[index].data.count)
                case .gap: liveQueued &-= 1
                case .store, .returned, .log: break
                default: pending &-= 1
                }
            }
        }
        return batch
    }

    /// When something is due although nobody comes.
    var nextTimeout: Instant? {
        switch backend {
        case .memory(let store): store.nextTimeout
        case .stored(let rooms): rooms.nextTimeout
        }
    }

    /// Whether the thread would come too late. A little late is no harm to rooms in memory, which are swept now and then.
    var isOverdue: Bool {
        guard let next = nextTimeout, next < planned else { return false }
        planned = next
        return true
    }

    func handleTimeout() {
        // The other store's timeouts are part of every crossing.
        guard case .memory(let store) = backend, let due = store.nextTimeout, due <= now else { return }
        store.handleTimeout(now: now)
    }

    // MARK: Out

    func promise() { pending &+= 1 }

    func countUnreadable() { counters.unreadable &+= 1 }

    func put(_ event: ReplayEvent) { queue.append(event) }

    func refuse(_ kind: ReplayEvent.Kind, _ tag: UInt64, _ refusal: Refusal) {
        var event = ReplayEvent(kind, tag: tag)
        event.status = refusal.status.rawValue
        if case .throttled(let wait) = refusal {
            counters.throttled &+= 1
            event.retryAfter = UInt32(clamping: (wait.nanoseconds &+ 999_999) / 1_000_000)
        }
        put(event)
    }

    func text(_ position: Position, in chunk: EventChunk) -> Extent {
        chunk.append(position, signedWith: key)
    }

    func put(_ kind: ReplayEvent.Kind, _ tag: UInt64, _ published: Published) {
        let chunk = queue.chunk()
        var event = ReplayEvent(kind, tag: tag)
        event.sequence = published.position.sequence
        event.position = text(published.position, in: chunk)
        if published.isDuplicate {
            event.flags |= Flag.duplicate
            counters.duplicates &+= 1
        } else {
            counters.published &+= 1
        }
        if published.position.isDegraded { event.flags |= Flag.degraded }
        put(event)
    }

    func put(_ kind: ReplayEvent.Kind, _ tag: UInt64, _ recovery: Recovery, _ batch: borrowing Batch) {
        if batch.isCompressed {
            var recovery = recovery
            let batch = restored(batch, &recovery)
            return put(kind, tag, recovery, batch)
        }
        let chunk = queue.chunk()
        var event = ReplayEvent(kind, tag: tag)
        fill(&event, recovery, in: chunk)
        chunk.append(batch, to: &event)
        counters.replayed &+= batch.count
        put(event)
    }

    func put(_ tag: UInt64, _ joined: Joined, _ batch: borrowing Batch) {
        if batch.isCompressed {
            var joined = joined
            let batch = restored(batch, &joined.recovery)
            return put(tag, joined, batch)
        }
        let chunk = queue.chunk()
        var event = ReplayEvent(.join, tag: tag)
        counters.joins &+= 1
        fill(&event, joined.recovery, in: chunk)
        fill(&event, joined, in: chunk)
        chunk.append(batch, to: &event)
        counters.replayed &+= batch.count
        put(event)
    }

    private func fill(_ event: inout ReplayEvent, _ recovery: Recovery, in chunk: EventChunk) {
        switch recovery.verdict {
        case .fresh:
            event.verdict = 1
            counters.fresh &+= 1
        case .recovered:
            event.verdict = 2
            counters.recovered &+= 1
        case .recoveredEmpty:
            event.verdict = 3
            counters.recoveredEmpty &+= 1
        case .lost(let reason):
            event.verdict = 4
            event.reason = reason.rawValue
            counters.lost[Int(reason.rawValue)] &+= 1
        }
        event.problem = recovery.problem?.rawValue ?? 0
        event.sequence = recovery.position.sequence
        event.skipped = UInt64(clamping: recovery.skipped)
        event.position = text(recovery.position, in: chunk)
        if recovery.position.isDegraded { event.flags |= Flag.degraded }
    }

    private func fill(_ event: inout ReplayEvent, _ joined: Joined, in chunk: EventChunk) {
        let token = joined.token.characters
        event.token = chunk.append(token.span.bytes)
        event.generation = joined.generation
        event.replaced = joined.replaced ?? 0
        guard joined.isReconnection else { return }
        event.flags |= Flag.reconnection
        event.disconnectMilliseconds = max(joined.disconnectDuration ?? .zero, .zero).milliseconds
    }

    func put(_ tag: UInt64, _ state: UserState) {
        let chunk = queue.chunk()
        var event = ReplayEvent(.state, tag: tag)
        let seen = Duration(nanoseconds: cs_unix_ns()) - (now - state.lastSeen)
        event.state = chunk.append(
            StateRecord(
                lastSequence: state.lastSequence, lastSeenMilliseconds: seen.milliseconds,
                disconnectMilliseconds: max(state.disconnectDuration ?? .zero, .zero).milliseconds,
                isConnected: state.isConnected, quality: state.quality.rawValue,
                connections: UInt32(clamping: state.connections)))
        event.quality = state.quality.rawValue
        if state.isConnected { event.flags |= Flag.connected }
        put(event)
    }

    func put(_ tag: UInt64, _ report: QualityReport) {
        let chunk = queue.chunk()
        var event = ReplayEvent(.quality, tag: tag)
        event.quality = report.quality.rawValue
        event.data = chunk.append(report.recommendations.joined(separator: "\n"))
        put(event)
    }

    func put(_ message: LiveMessage) {
        guard message.isCompressed else { return put(message, message.payload) }
        // Who recovers after the gap is told what is lost.
        guard let content = restored(message) else { return putGap(message.room, .store) }
        put(message, content)
    }

    private func put(_ message: LiveMessage, _ payload: [UInt8]) {
        let chunk = queue.chunk()
        var event = ReplayEvent(.message)
        event.room = chunk.append(message.room.bytes.span.bytes)
        if let from = message.from { event.user = chunk.append(from.bytes.span.bytes) }
        if let to = message.to { event.to = chunk.append(to.bytes.span.bytes) }
        event.data = chunk.append(payload.span.bytes)
        event.format = message.isText ? 1 : 2
        event.messageKind = message.kind.rawValue
        event.negotiation = message.negotiation
        event.sequence = message.position.sequence
        event.position = text(message.position, in: chunk)
        if message.isPriority { event.flags |= Flag.priority }
        if message.position.isDegraded { event.flags |= Flag.degraded }
        counters.live &+= 1
        liveQueued &+= 1
        liveBytes &+= payload.count
        put(event)
    }

    func putGap(_ room: RoomName, _ reason: LossReason) {
        let chunk = queue.chunk()
        var event = ReplayEvent(.gap)
        event.room = chunk.append(room.bytes.span.bytes)
        event.reason = reason.rawValue
        counters.gaps &+= 1
        liveQueued &+= 1
        put(event)
    }

    func putStore(_ number: Int64, _ sentence: String) {
        var event = ReplayEvent(.store)
        event.number = number
        event.data = queue.chunk().append(sentence)
        put(event)
    }

    func log(_ level: LogLevel, _ line: String) {
        var event = ReplayEvent(.log)
        event.number = Int64(level.rawValue)
        event.data = queue.chunk().append(line)
        put(event)
    }

    /// A connection that began without the store; nil: it must begin again.
    func putReturned(_ membership: Membership, _ replaced: UInt64, _ joined: Joined?) {
        let chunk = queue.chunk()
        var event = ReplayEvent(.returned)
        event.status = joined == nil ? Status.stale.rawValue : 0
        event.room = chunk.append(membership.room.bytes.span.bytes)
        event.user = chunk.append(membership.user.bytes.span.bytes)
        event.replaced = replaced
        if let joined {
            let token = joined.token.characters
            event.token = chunk.append(token.span.bytes)
            event.generation = joined.generation
            event.sequence = joined.recovery.position.sequence
            event.position = text(joined.recovery.position, in: chunk)
            event.verdict = 4
            event.reason = LossReason.degraded.rawValue
        }
        put(event)
    }

    // MARK: Live messages

    var hasSpaceForLive: Bool { liveQueued < Self.maximumLiveQueued && liveBytes < Self.maximumLiveBytes }

    private var interrupted: [RoomName: LossReason] = [:]

    func takeLive(_ store: MemoryStore) {
        guard !subscribers.isEmpty else { return }
        while hasSpaceForLive, let event = store.pollLive() {
            switch event {
            case .subscribed(let room, _):
                if let reason = interrupted.removeValue(forKey: room) { putGap(room, reason) }
            case .message(let message): put(message)
            case .interrupted(let room, let reason): interrupted[room] = reason.loss
            }
        }
    }
}

/// What has come out of a buffer.
struct Counters {
    var published = 0
    var duplicates = 0
    var joins = 0
    var fresh = 0
    var recovered = 0
    var recoveredEmpty = 0
    /// By ``LossReason``.
    var lost = [Int](repeating: 0, count: 7)
    var replayed = 0
    var live = 0
    var gaps = 0
    var throttled = 0
    /// Messages that could not be decompressed.
    var unreadable = 0
}

extension LiveInterruption {
    var loss: LossReason {
        switch self {
        case .connectionLost, .missing: .store
        case .overflow: .limit
        case .epoch: .epoch
        case .degraded: .degraded
        }
    }
}

extension Refusal {
    var status: Status {
        switch self {
        case .unknownRoom: .unknownRoom
        case .unknownUser: .unknownUser
        case .unknownRecipient: .unknownRecipient
        case .stale: .stale
        case .messageTooLarge: .tooLarge
        case .tooManyRooms, .tooManyMembers: .limit
        case .throttled: .throttled
        case .invalidMetrics: .invalidArgument
        case .unavailable: .unavailable
        }
    }
}
