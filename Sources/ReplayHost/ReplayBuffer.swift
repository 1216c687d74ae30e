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
    private let wake: WakeDescriptor
    private let driver = Guarded<Worker?>(nil)
    private let isStopped = Atomic(false)

    private init(handle: UInt64, descriptor: Int32, core: Core, wake: WakeDescriptor) {
        self.handle = handle
        self.descriptor = descriptor
        self.core = Guarded(core)
        self.wake = wake
    }

    deinit { cs_close(descriptor) }

    // MARK: Life

    /// With rooms in a file, waits until it is open.
    public static func create(_ settings: Settings) throws(Failure) -> ReplayBuffer {
        cs_fork_watch()
        guard cs_forked() == 0 else { throw Failure(.forked) }
        var settings = settings
        settings.rooms = settings.rooms.bounded
        guard let wake = WakeDescriptor() else { throw noDescriptor }
        let descriptor = cs_eventfd_create()
        guard descriptor >= 0 else { throw noDescriptor }
        let core: Core
        var database: Database?
        do throws(Failure) {
            (core, database) = try makeCore(settings, descriptor: descriptor, wake: wake)
        } catch {
            cs_close(descriptor)
            throw error
        }
        let made = AttachedHandle.insert {
            ReplayBuffer(handle: $0, descriptor: descriptor, core: core, wake: wake)
        }
        guard let made else {
            database?.close()
            throw Failure(.limit, "too many handles are in use")
        }
        guard made.start() else {
            _ = made.destroy()
            throw Failure(.system, "cannot start a thread")
        }
        return made
    }

    private static var noDescriptor: Failure {
        Failure(.noDescriptors, "cannot make an event descriptor: the limit of open files is reached")
    }

    private static func makeCore(_ settings: Settings, descriptor: Int32, wake: WakeDescriptor) throws(Failure)
        -> (Core, Database?)
    {
        var random = SystemRandomNumberGenerator()
        var secret = settings.secret ?? (0..<32).map { _ in UInt8.random(in: 0...255, using: &random) }
        guard let text = settings.store else {
            let store = MemoryStore(configuration: settings.rooms, random: random)
            let key = PositionKey(secret: secret)
            return (Core(settings, backend: .memory(store), key: key, descriptor: descriptor), nil)
        }
        let news = DatabaseNews()
        let database = try Database.open(text, settings, news, wake: wake)
        if settings.secret == nil || text.utf8.starts(with: "sqlite:".utf8) {
            do throws(Failure) {
                let kept = try database.secret(secret, settings, news, wake: wake)
                if settings.secret == nil { secret = kept }
            } catch {
                database.close()
                throw error
            }
        }
        let rooms = StoredRooms(database, settings, news: news, wake: wake, secret: secret)
        let key = PositionKey(secret: secret)
        return (Core(settings, backend: .stored(rooms), key: key, descriptor: descriptor), database)
    }

    // MARK: The thread

    /// Drives what is due, and takes what the store has to say, while no call does it.
    private func start() -> Bool {
        guard let started = try? Worker.start({ [self] in run() }) else { return false }
        driver.withLock { $0 = started }
        return true
    }

    private func run() {
        while !isStopped.load(ordering: .sequentiallyConsistent) {
            let next: Instant? = core.withLock { core in
                core.begin()
                core.handleTimeout()
                core.end()
                core.planned = core.nextTimeout ?? .distantFuture
                return core.nextTimeout
            }
            var wait: Int32 = -1
            if let next {
                let left = max((next - Instant(nanoseconds: cs_monotonic_ns())).nanoseconds, 0)
                wait = Int32(clamping: (left &+ 999_999) / 1_000_000)
            }
            _ = cs_wait_readable(wake.fd, wait)
            // Before anything is looked at: what changes afterwards wakes again.
            wake.clear()
        }
    }

    /// The thread waits for too long, or for ever.
    private func wakeDriver(_ isNeeded: Bool) { if isNeeded { wake.signal() } }

    public static func find(_ handle: UInt64) -> ReplayBuffer? {
        AttachedHandle.find(handle) as? ReplayBuffer
    }

    public func destroy() -> Status {
        guard !isStopped.exchange(true, ordering: .sequentiallyConsistent) else { return .invalidHandle }
        AttachedHandle.remove(handle)
        wake.signal()
        driver.withLock { $0.take() }?.join()
        let database: Database? = core.withLock { core in
            core.isClosed = true
            core.queue = EventQueue()
            // The descriptor stays readable: whoever waits on it polls and learns that the buffer is gone.
            cs_eventfd_signal(descriptor)
            if case .stored(let rooms) = core.backend { return rooms.database }
            return nil
        }
        // Outside the lock: its last completions wake, and call nothing else.
        database?.close()
        return .ok
    }

    // MARK: In and out

    /// Hands operations in: `body` does it, with the buffer to itself.
    public func submit(_ body: (Core) throws(Failure) -> Void) throws(Failure) {
        let (failure, isLate): (Failure?, Bool) = core.withLock { core in
            guard !core.isClosed else { return (Failure(.invalidHandle, "no replay buffer has this handle"), false) }
            core.begin()
            var failure: Failure?
            do throws(Failure) { try body(core) } catch { failure = error }
            core.end()
            return (failure, core.isOverdue)
        }
        wakeDriver(isLate)
        if let failure { throw failure }
    }

    /// Up to `max` events, waiting for the first; nil if none came in time.
    public func poll(max: Int, milliseconds: Int32) throws(Failure) -> EventBatch? {
        let deadline = cs_monotonic_ns() &+ Int64(milliseconds) * 1_000_000
        while true {
            let (isClosed, batch, isLate): (Bool, EventBatch?, Bool) = core.withLock { core in
                guard !core.isClosed else { return (true, nil, false) }
                core.begin()
                if core.queue.count == 0 { core.end() }
                let batch = core.take(max)
                core.end()
                return (false, batch, core.isOverdue)
            }
            wakeDriver(isLate)
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
        public var unreadable = 0
        public var storeOperations = 0
        public var storeFailures = 0
        public var withoutStore = 0
        public var eventsQueued = 0
        public var batches = 0
        /// RECONNECT_STORE_PRESENT
        public var store: UInt32 = 1
    }

    public func reading() -> Reading { core.withLock { Self.read($0) } }

    private static func read(_ core: Core) -> Reading {
        var reading = Reading()
        switch core.backend {
        case .memory(let store):
            reading.rooms = store.roomCount
            reading.members = store.memberCount
            reading.bytesHeld = store.bytesHeld
        case .stored(let rooms):
            (reading.rooms, reading.members, reading.bytesHeld) = rooms.store.kept
            let statistics = rooms.store.statistics
            reading.storeOperations = statistics.operations
            reading.storeFailures = statistics.failures
            reading.withoutStore = statistics.withoutStore
            switch rooms.store.breakerState {
            case .closed: reading.store = 1
            case .open: reading.store = 0
            case .halfOpen: reading.store = 2
            }
        }
        let counters = core.counters
        reading.published = counters.published
        reading.duplicates = counters.duplicates
        reading.joins = counters.joins
        reading.fresh = counters.fresh
        reading.recovered = counters.recovered
        reading.recoveredEmpty = counters.recoveredEmpty
        reading.lost = counters.lost
        reading.replayed = counters.replayed
        reading.throttled = counters.throttled
        reading.unreadable = counters.unreadable
        reading.live = counters.live
        reading.gaps = counters.gaps
        reading.eventsQueued = core.queue.count
        reading.batches = core.queue.batchCount
        return reading
    }

    /// Prometheus' text. docs/metrics.md explains the series.
    public func metrics() -> String {
        let (reading, statistics, degraded): (Reading, ResilientStore.Statistics?, Int) = core.withLock { core in
            guard case .stored(let rooms) = core.backend else { return (Self.read(core), nil, 0) }
            return (Self.read(core), rooms.store.statistics, rooms.store.degradedRoomCount)
        }
        return reading.exposition(statistics ?? ResilientStore.Statistics(), degradedRooms: degraded)
    }
}
