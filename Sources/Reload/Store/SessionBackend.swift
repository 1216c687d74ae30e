public import Wire

/// What ``CachingStore`` wants from a database. Carried out in order.
public struct BackendRequest: Equatable, Sendable {
    public enum Operation: Equatable, Sendable {
        /// The record that this key finds.
        case load(key: String)
        case loadClient(ClientID)
        case save(Save)
        case remove(ClientID)
    }

    public struct Save: Equatable, Sendable {
        public let client: ClientID
        public let record: [UInt8]
        /// What finds the record from now on, in place of all keys before: hashes of tokens.
        public let keys: [String]
        /// To be written only if the record there has this version, or if there is none.
        public let basedOn: UInt64
        public let lifetime: Duration
    }

    public let id: LookupID
    public let operation: Operation
}

/// A record as the database has it.
public struct BackendRecord: Equatable, Sendable {
    public let client: ClientID
    public let version: UInt64
    public let bytes: [UInt8]
    /// How long the database will keep it: absolute times of another machine's clock are not trusted.
    public let remaining: Duration

    public init(client: ClientID, version: UInt64, bytes: [UInt8], remaining: Duration) {
        self.client = client
        self.version = version
        self.bytes = bytes
        self.remaining = remaining
    }
}

public enum BackendAnswer: Equatable, Sendable {
    case record(BackendRecord)
    case absent
    case saved(version: UInt64)
    /// Another server wrote meanwhile; this is what it wrote.
    case conflict(BackendRecord)
    case removed
    /// Not carried out, or nobody knows.
    case unavailable
}
