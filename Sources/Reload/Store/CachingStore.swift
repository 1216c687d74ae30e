public import Wire

/// Sessions in a database that several servers share, or that outlives this process.
///
/// No I/O here: ``pollRequest(now:)`` says what to ask the database, ``complete(_:with:now:)`` takes the answers.
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

        public init() {}
    }

    public let configuration: Configuration
    /// False while the database is known to be away: look-ups are answered "unavailable" at once, and writes wait.
    public var isAvailable = false
    private let memory: MemoryStore

    /// `unixOffset`: the wall clock minus the clock of the `Instant`s that are handed in.
    public init(
        configuration: Configuration = Configuration(), unixOffset: Duration,
        using random: inout some RandomNumberGenerator
    ) {
        self.configuration = configuration
        memory = MemoryStore(capacity: configuration.capacity, using: &random)
    }

    public var count: Int { memory.count }
    public func find(_ token: SessionToken, now: Instant) -> StoreAnswer { .unavailable }
    public func session(_ client: ClientID) -> Session? { memory.session(client) }
    public func save(_ session: Session, now: Instant) -> Bool { memory.save(session, now: now) }
    public func remove(_ client: ClientID) { memory.remove(client) }
    public func sweep(now: Instant) -> Int { memory.sweep(now: now) }
    public var nextTimeout: Instant? { memory.nextTimeout }
    public func pollCompletion() -> (LookupID, StoreAnswer)? { nil }
    public func prefetch(_ client: ClientID) {}

    /// What to ask the database next. Ask after every call that changed something, and after sweeping.
    public func pollRequest(now: Instant) -> BackendRequest? { nil }

    /// The answer to a request. Unknown and repeated ones are ignored. Poll decisions afterwards.
    public func complete(_ id: LookupID, with answer: BackendAnswer, now: Instant) {}
}
