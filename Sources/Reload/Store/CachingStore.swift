public import Wire

/// Sessions in a database that several servers share, or that outlives this process.
///
/// No I/O here: ``pollRequest(now:)`` says what to ask the database, ``complete(_:with:now:)`` takes the answers.
///
/// **Reading.** Another server may have seen the client since: so a token is always looked up in the database, and while
/// that is away there is no answer, which means normal mode. Memory holds the sessions that have a connection here or
/// were looked up; what comes from the database is merged into it (``Session/merged(with:privateFrom:)``).
///
/// **Writing.** At once in memory; in the database soon after, one write per session at a time, the newest state. A write
/// names the version it is based on. If another server has written meanwhile, the database answers with that, and the
/// two are merged and written again: an old connection that ends here does not undo what the client did elsewhere since.
/// While the database is away, writes wait, as many as there are sessions in memory. One that is there but mostly fails
/// or is too slow is asked no more for a while (``LookupBreaker``).
///
/// **Life.** While a session has a connection here it is written again every quarter of its lifetime; so it outlives this
/// process, killed at any time, by at least three quarters of the lifetime.
///
/// **What cannot be done here:** to take over from a connection on another server. It ends there by itself, for want of
/// answers to its checks.
public final class CachingStore: SessionStore {
    public struct Configuration: Sendable {
        /// Sessions in memory.
        public var capacity = 65_536
        /// How long a session is kept after its last sign of life.
        public var lifetime = Duration.seconds(300)
        /// Look-ups under way.
        public var maximumLookups = 1024
        /// Writes under way; more wait in memory, one per session.
        public var maximumSaves = 256
        /// A look-up that takes longer has failed: nobody waits any more.
        public var lookupTimeout = Duration.milliseconds(100)
        /// Pause after a write that failed.
        public var retryPause = Duration.seconds(1)

        public init() {}
    }

    public struct Counters: Equatable, Sendable {
        public internal(set) var lookups = 0
        /// Look-ups that were not tried: the database is away, too slow, or has enough to do.
        public internal(set) var unasked = 0
        public internal(set) var saves = 0
        public internal(set) var failedSaves = 0
        /// Another server had written meanwhile.
        public internal(set) var conflicts = 0
        /// Records of the database that could not be read.
        public internal(set) var unreadable = 0
    }

    private enum Lookup {
        case token(TokenDigest, asked: Instant)
        case prefetch(ClientID)
    }

    private enum Found {
        /// In memory.
        case client(ClientID)
        /// There is no room for it in memory.
        case session(Session)
        case absent
        case unavailable
    }

    private struct Entry {
        /// Of the record in the database, as far as known.
        var version: UInt64 = 0
        /// Memory is ahead of what was last sent.
        var isDirty = false
        var isQueued = false
        var isSaving = false
        /// Tokens from this generation on are not known to be in the database.
        var savedGeneration: UInt64 = 0
        var savingGeneration: UInt64 = 0
        /// Tokens from this generation on have never been out of this process.
        var privateGeneration: UInt64 = 0
        var conflicts = 0
        var isRefreshing = false
    }

    public let configuration: Configuration
    /// The wall clock minus the clock of the `Instant`s that are handed in.
    public var unixOffset: Duration
    public private(set) var counters = Counters()
    private let memory: MemoryStore
    private var entries: [ClientID: Entry] = [:]
    private var lastID: UInt64 = 0
    private var lookups: [LookupID: Lookup] = [:]
    private var prefetching: Set<ClientID> = []
    private var saving: [LookupID: ClientID] = [:]
    private var loads = Queue<LookupID>()
    private var removals = Queue<ClientID>()
    private var dirty = Queue<ClientID>()
    private var refreshes = Queue<(client: ClientID, due: Instant)>()
    private var completions = Queue<(LookupID, Found)>()
    private var retryAt: Instant?
    private var breaker = LookupBreaker()
    /// The latest time that was handed in.
    private var latest = Instant(nanoseconds: .min)

    /// False while the database is known to be away: look-ups are answered "unavailable" at once, and writes wait.
    public var isAvailable = false {
        didSet {
            if oldValue, !isAvailable { abandonLookups() }
            guard !oldValue, isAvailable else { return }
            retryAt = nil
            breaker = LookupBreaker()
        }
    }

    /// `unixOffset`: the wall clock minus the clock of the `Instant`s that are handed in.
    public init(
        configuration: Configuration = Configuration(), unixOffset: Duration,
        using random: inout some RandomNumberGenerator
    ) {
        self.configuration = configuration
        self.unixOffset = unixOffset
        memory = MemoryStore(capacity: configuration.capacity, using: &random)
        memory.onRemoval = { [unowned self] client in entries[client] = nil }
    }

    // MARK: SessionStore

    public var count: Int { memory.count }

    public func find(_ token: SessionToken, now: Instant) -> StoreAnswer {
        latest = max(latest, now)
        guard isAvailable, lookups.count < configuration.maximumLookups, breaker.mayAsk(now) else {
            counters.unasked += 1
            return .unavailable
        }
        let id = newID()
        lookups[id] = .token(TokenDigest(token), asked: now)
        loads.append(id)
        counters.lookups += 1
        return .pending(id)
    }

    public func session(_ client: ClientID) -> Session? { memory.session(client) }

    public func save(_ session: Session, now: Instant) -> Bool {
        latest = max(latest, now)
        let known = memory.session(session.clientID)
        guard memory.save(session, now: now) else { return false }
        // A sign of life of a session that has a connection is written with the next refresh.
        if let known, !session.live.isEmpty, session.differsOnlyInLastSeen(from: known) { return true }
        markDirty(session.clientID)
        if !session.live.isEmpty { refresh(session.clientID, now) }
        return true
    }

    public func remove(_ client: ClientID) {
        // What has expired here may live on elsewhere; where it does not, the database lets it go by itself.
        let isExpired = memory.session(client)?.expires.map { $0 <= latest } ?? false
        memory.remove(client)
        guard !isExpired else { return }
        // One that is not removed for want of room expires.
        if removals.count < Self.maximumRemovals { removals.append(client) }
    }

    private static let maximumRemovals = 4096
    private static let refreshBatch = 256

    public func sweep(now: Instant) -> Int {
        latest = max(latest, now)
        if let retry = retryAt, retry <= now { retryAt = nil }
        var refreshed = 0
        while refreshed < Self.refreshBatch, let next = refreshes.first, next.due <= now {
            _ = refreshes.popFirst()
            refreshed += 1
            guard entries[next.client]?.isRefreshing == true else { continue }
            entries[next.client]?.isRefreshing = false
            guard let session = memory.session(next.client), !session.live.isEmpty else { continue }
            markDirty(next.client)
            refresh(next.client, now)
        }
        guard let due = memory.nextTimeout, due <= now else { return 0 }
        return memory.sweep(now: now)
    }

    public var nextTimeout: Instant? {
        var earliest = memory.nextTimeout
        for other in [refreshes.first?.due, dirty.isEmpty || !isAvailable ? nil : retryAt] {
            guard let other else { continue }
            earliest = earliest.map { min($0, other) } ?? other
        }
        return earliest
    }

    public func pollCompletion() -> (LookupID, StoreAnswer)? {
        guard let (id, found) = completions.popFirst() else { return nil }
        switch found {
        // As it is now: a connection may have come up since the answer.
        case .client(let client): return (id, memory.session(client).map { .session($0) } ?? .absent)
        case .session(let session): return (id, .session(session))
        case .absent: return (id, .absent)
        case .unavailable: return (id, .unavailable)
        }
    }

    /// Whether a prefetch of this session has not been answered yet.
    public func isPrefetching(_ client: ClientID) -> Bool { prefetching.contains(client) }

    public func prefetch(_ client: ClientID) {
        guard isAvailable, lookups.count < configuration.maximumLookups, prefetching.insert(client).inserted else {
            return
        }
        let id = newID()
        lookups[id] = .prefetch(client)
        loads.append(id)
        counters.lookups += 1
    }

    // MARK: Requests

    /// What to ask the database next. Ask after every call that changed something, and after sweeping.
    public func pollRequest(now: Instant) -> BackendRequest? {
        latest = max(latest, now)
        guard isAvailable else { return nil }
        if let client = removals.popFirst() { return BackendRequest(id: newID(), operation: .remove(client)) }
        while let id = loads.popFirst() {
            switch lookups[id] {
            case .token(let digest, _): return BackendRequest(id: id, operation: .load(key: digest.key))
            case .prefetch(let client): return BackendRequest(id: id, operation: .loadClient(client))
            case nil: continue
            }
        }
        guard retryAt.map({ $0 <= now }) ?? true else { return nil }
        while saving.count < configuration.maximumSaves, let client = dirty.popFirst() {
            if let request = write(client, now) { return request }
        }
        return nil
    }

    private func write(_ client: ClientID, _ now: Instant) -> BackendRequest? {
        guard var entry = entries[client], let session = memory.session(client) else { return nil }
        entry.isQueued = false
        defer { entries[client] = entry }
        guard entry.isDirty, !entry.isSaving else { return nil }
        entry.isDirty = false
        let remaining = session.expires.map { $0 - now } ?? configuration.lifetime
        guard remaining > .zero else { return nil }
        entry.isSaving = true
        entry.savingGeneration = session.nextGeneration
        let id = newID()
        saving[id] = client
        counters.saves += 1
        let save = BackendRequest.Save(
            client: client, record: SessionRecord.encode(session, unixOffset: unixOffset),
            keys: session.tokens.map(\.digest.key), basedOn: entry.version,
            lifetime: min(remaining, configuration.lifetime))
        return BackendRequest(id: id, operation: .save(save))
    }

    /// The answer to a request. Unknown and repeated ones are ignored. Poll decisions afterwards, and requests.
    public func complete(_ id: LookupID, with answer: BackendAnswer, now: Instant) {
        latest = max(latest, now)
        if let lookup = lookups.removeValue(forKey: id) {
            switch lookup {
            case .token(let digest, let asked):
                breaker.answered(
                    inTime: answer != .unavailable && now - asked <= configuration.lookupTimeout, now: now)
                completions.append((id, found(digest, answer, now)))
            case .prefetch(let client):
                prefetching.remove(client)
                if case .record(let record) = answer { _ = absorb(record, now) }
            }
        } else if let client = saving.removeValue(forKey: id) {
            saved(client, answer, now)
        }
    }

    private func found(_ digest: TokenDigest, _ answer: BackendAnswer, _ now: Instant) -> Found {
        switch answer {
        case .record(let record): return absorb(record, now)
        case .absent:
            // It may be younger than what the database knows; one that the database has known and lost is dead.
            guard let session = memory.session(with: digest), let entry = entries[session.clientID],
                let issued = session.tokens.first(where: { $0.digest == digest }),
                issued.generation >= entry.savedGeneration
            else { return .absent }
            return .client(session.clientID)
        default: return .unavailable
        }
    }

    private func saved(_ client: ClientID, _ answer: BackendAnswer, _ now: Instant) {
        guard var entry = entries[client] else { return }
        entry.isSaving = false
        switch answer {
        case .saved(let version):
            entry.version = version
            entry.savedGeneration = max(entry.savedGeneration, entry.savingGeneration)
            entry.privateGeneration = max(entry.privateGeneration, entry.savingGeneration)
            entry.conflicts = 0
            entries[client] = entry
        case .conflict(let record):
            counters.conflicts += 1
            entry.conflicts += 1
            // What is there now, even if its number is lower: the database may have started anew.
            entry.version = record.version
            // Several servers that write at once get through in turn; more than that is no conflict of this kind.
            if entry.conflicts <= Self.maximumConflicts { entry.isDirty = true }
            entries[client] = entry
            _ = absorb(record, now, isConflict: true)
        default:
            counters.failedSaves += 1
            // It may have been written all the same.
            entry.privateGeneration = max(entry.privateGeneration, entry.savingGeneration)
            entry.isDirty = true
            entries[client] = entry
            retryAt = now + configuration.retryPause
        }
        if entries[client]?.isDirty == true { markDirty(client) }
    }

    private static let maximumConflicts = 16

    /// Takes what the database has into memory. After a conflict its version has been noted.
    private func absorb(_ record: BackendRecord, _ now: Instant, isConflict: Bool = false) -> Found {
        let remaining = record.remaining.clamped(.zero, configuration.lifetime)
        let decoded = SessionRecord.decode(
            record.bytes, unixOffset: unixOffset, now: now, expires: now + remaining)
        guard let theirs = decoded, theirs.clientID == record.client else {
            counters.unreadable += 1
            return .absent
        }
        let client = record.client
        guard let mine = memory.session(client) else {
            guard memory.save(theirs, now: now) else { return .session(theirs) }
            entries[client] = Entry(
                version: record.version, savedGeneration: theirs.nextGeneration,
                privateGeneration: theirs.nextGeneration)
            return .client(client)
        }
        var entry = entries[client] ?? Entry()
        guard isConflict || entry.version != record.version else { return .client(client) }
        // Answers come in the order of requests: a write that is under way was not seen by whoever wrote this.
        _ = memory.save(mine.merged(with: theirs, privateFrom: entry.privateGeneration), now: now)
        entry.savedGeneration = max(entry.savedGeneration, theirs.nextGeneration)
        entry.privateGeneration = max(entry.privateGeneration, theirs.nextGeneration)
        if !isConflict { entry.version = max(entry.version, record.version) }
        entries[client] = entry
        return .client(client)
    }

    // MARK: Bookkeeping

    private func newID() -> LookupID {
        lastID &+= 1
        return LookupID(lastID)
    }

    private func markDirty(_ client: ClientID) {
        var entry = entries[client] ?? Entry()
        entry.isDirty = true
        if !entry.isQueued, !entry.isSaving {
            entry.isQueued = true
            dirty.append(client)
        }
        entries[client] = entry
        // Sessions that made room while the database was away have left their places behind.
        if dirty.count > 2 * entries.count + 1024 {
            dirty = Queue(entries.lazy.filter(\.value.isQueued).map(\.key))
        }
    }

    private func refresh(_ client: ClientID, _ now: Instant) {
        guard entries[client]?.isRefreshing == false else { return }
        entries[client]?.isRefreshing = true
        refreshes.append((client, now + configuration.lifetime / 4))
    }

    private func abandonLookups() {
        for (id, lookup) in lookups {
            if case .token = lookup { completions.append((id, .unavailable)) }
        }
        lookups = [:]
        prefetching = []
        loads.removeAll()
    }
}
