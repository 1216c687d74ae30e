import CSystem
public import Engine
import Replay
import Storage
import Synchronization
import Wire

/// A replay buffer as hosts hold it. May be used from every thread.
public final class ReplayBuffer: Sendable {
    public let handle: UInt64
    /// Readable while events wait.
    public let descriptor: Int32
    private let core: Guarded<Core>
    private let isStopped = Atomic(false)

    private init(handle: UInt64, descriptor: Int32, core: Core) {
        self.handle = handle
        self.descriptor = descriptor
        self.core = Guarded(core)
    }

    deinit { cs_close(descriptor) }

    // MARK: Life

    public static func create(_ settings: Settings) throws(Failure) -> ReplayBuffer {
        cs_fork_watch()
        guard cs_forked() == 0 else { throw Failure(.forked) }
        var settings = settings
        settings.rooms = settings.rooms.bounded
        guard settings.store == nil else { throw Failure(.invalidArgument, "store: only memory") }
        var random = SystemRandomNumberGenerator()
        let key = settings.secret.map { PositionKey(secret: $0) } ?? PositionKey(using: &random)
        let descriptor = cs_eventfd_create()
        guard descriptor >= 0 else {
            throw Failure(.noDescriptors, "cannot make an event descriptor: the limit of open files is reached")
        }
        let store = MemoryStore(configuration: settings.rooms, random: random)
        let core = Core(settings, backend: .memory(store), key: key, descriptor: descriptor)
        let made = AttachedHandle.insert { ReplayBuffer(handle: $0, descriptor: descriptor, core: core) }
        guard let made else { throw Failure(.limit, "too many handles are in use") }
        return made
    }

    public static func find(_ handle: UInt64) -> ReplayBuffer? {
        AttachedHandle.find(handle) as? ReplayBuffer
    }

    public func destroy() -> Status {
        guard !isStopped.exchange(true, ordering: .sequentiallyConsistent) else { return .invalidHandle }
        AttachedHandle.remove(handle)
        core.withLock { core in
            core.isClosed = true
            core.queue = EventQueue()
            // The descriptor stays readable: whoever waits on it polls and learns that the buffer is gone.
            cs_eventfd_signal(descriptor)
        }
        return .ok
    }

    // MARK: In and out

    /// Hands operations in: `body` does it, with the buffer to itself.
    public func submit(_ body: (Core) throws(Failure) -> Void) throws(Failure) {
        let failure: Failure? = core.withLock { core in
            guard !core.isClosed else { return Failure(.invalidHandle, "no replay buffer has this handle") }
            core.begin()
            defer { core.end() }
            do throws(Failure) {
                try body(core)
                return nil
            } catch { return error }
        }
        if let failure { throw failure }
    }

    /// Up to `max` events, waiting for the first; nil if none came in time.
    public func poll(max: Int, milliseconds: Int32) throws(Failure) -> EventBatch? {
        let deadline = cs_monotonic_ns() &+ Int64(milliseconds) * 1_000_000
        while true {
            let (isClosed, batch): (Bool, EventBatch?) = core.withLock { core in
                guard !core.isClosed else { return (true, nil) }
                let batch = core.take(max)
                core.end()
                return (false, batch)
            }
            if isClosed { throw Failure(.invalidHandle) }
            if let batch { return batch }
            guard milliseconds != 0 else { return nil }
            var wait = milliseconds
            if milliseconds > 0 {
                let left = deadline &- cs_monotonic_ns()
                guard left > 0 else { return nil }
                wait = Int32(clamping: (left + 999_999) / 1_000_000)
            }
            guard cs_forked() == 0 else { throw Failure(.forked) }
            _ = cs_wait_readable(descriptor, wait)
        }
    }

    public func release(_ batch: UInt64) -> Status {
        core.withLock { core in
            guard !core.isClosed else { return .invalidHandle }
            return core.queue.release(batch) ? .ok : .invalidArgument
        }
    }

    // MARK: Figures

    public struct Reading: Sendable {
        public var rooms = 0
        public var members = 0
        public var bytesHeld = 0
        public var published = 0
        public var duplicates = 0
        public var joins = 0
        public var fresh = 0
        public var recovered = 0
        public var recoveredEmpty = 0
        public var lost = [Int](repeating: 0, count: 7)
        public var replayed = 0
        public var live = 0
        public var gaps = 0
        public var throttled = 0
        public var storeOperations = 0
        public var storeFailures = 0
        public var withoutStore = 0
        public var eventsQueued = 0
        /// RECONNECT_STORE_PRESENT
        public var store: UInt32 = 1
    }

    public func reading() -> Reading {
        core.withLock { core in
            var reading = Reading()
            if case .memory(let store) = core.backend {
                reading.rooms = store.roomCount
                reading.members = store.memberCount
                reading.bytesHeld = store.bytesHeld
                let statistics = store.statistics
                reading.published = statistics.published
                reading.duplicates = statistics.duplicates
                reading.joins = statistics.joins
                reading.fresh = statistics.fresh
                reading.recovered = statistics.recovered
                reading.recoveredEmpty = statistics.recoveredEmpty
                for (reason, count) in statistics.lost { reading.lost[Int(reason.rawValue)] = count }
                reading.replayed = statistics.replayed
                reading.throttled = statistics.throttled
            }
            reading.live = core.messagesLive
            reading.gaps = core.gaps
            reading.eventsQueued = core.queue.count
            return reading
        }
    }

    public func metrics() -> String { "" }
}
