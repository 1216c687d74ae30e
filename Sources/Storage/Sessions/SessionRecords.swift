public import Wire

/// A session as a database keeps it: bytes that only their writer understands.
public struct StoredSession: Equatable, Sendable {
    public let client: UInt64
    /// Counts the writes; see ``SessionRecords/save(_:completion:)``.
    public let version: UInt64
    public let bytes: [UInt8]
    /// How long it will be kept, by the database's clock.
    public let remaining: Duration

    public init(client: UInt64, version: UInt64, bytes: [UInt8], remaining: Duration) {
        self.client = client
        self.version = version
        self.bytes = bytes
        self.remaining = remaining
    }
}

/// A session to be written.
public struct SessionWrite: Equatable, Sendable {
    public let client: UInt64
    public let bytes: [UInt8]
    /// What it shall be found by, in place of what it was found by before.
    public let keys: [String]
    /// The version this is based on; 0 for a new session.
    public let basedOn: UInt64
    public let lifetime: Duration

    public init(client: UInt64, bytes: [UInt8], keys: [String], basedOn: UInt64, lifetime: Duration) {
        self.client = client
        self.bytes = bytes
        self.keys = keys
        self.basedOn = basedOn
        self.lifetime = lifetime
    }
}

public enum SaveOutcome: Equatable, Sendable {
    case saved(version: UInt64)
    /// Somebody else wrote meanwhile: nothing was changed; this is what is there.
    case conflict(StoredSession)
}

public enum RecordsFailure: Error, Equatable, Sendable {
    case unavailable
}

public enum RecordsState: Equatable, Sendable {
    case up
    /// With a sentence for the log. Requests fail at once.
    case down(String)
    /// Up, and something happened that somebody should know: a damaged file was put aside.
    case notice(String)
}

/// Where records of sessions are kept, outside of this process. Requests are carried out in the order they were made.
/// Completions are called exactly once, on the database's thread, or on the caller's if the request fails at once;
/// they must be short.
public protocol SessionRecords: AnyObject, Sendable {
    func load(key: String, completion: @escaping @Sendable (Result<StoredSession?, RecordsFailure>) -> Void)
    func load(client: UInt64, completion: @escaping @Sendable (Result<StoredSession?, RecordsFailure>) -> Void)
    /// Writes if what is there has the version that the new record is based on, or if nothing is there.
    func save(_ write: SessionWrite, completion: @escaping @Sendable (Result<SaveOutcome, RecordsFailure>) -> Void)
    func remove(client: UInt64, completion: @escaping @Sendable (Result<Void, RecordsFailure>) -> Void)
    /// Waits for the thread. What is under way fails.
    func close()
}
