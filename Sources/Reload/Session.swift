import Wire

/// Identifies a session for its whole life, whatever its token is at the moment. Not a secret.
public struct ClientID: Hashable, Sendable, CustomStringConvertible {
    public let value: UInt64

    public init(_ value: UInt64) { self.value = value }

    /// What ``description`` gives; nil for everything else.
    public init?(parsing text: String) {
        guard let value = UInt64(text, radix: 16), String(value, radix: 16) == text else { return nil }
        self.value = value
    }

    public var description: String { String(value, radix: 16) }
}

/// The digest of the client's certificate: 32, 48 or 64 bytes tell the hash. Not a secret.
public struct ClientFingerprint: Hashable, Sendable {
    public let digest: [UInt8]

    /// nil unless it has the length of SHA-256, SHA-384 or SHA-512.
    public init?(digest: [UInt8]) {
        guard [32, 48, 64].contains(digest.count) else { return nil }
        self.digest = digest
    }
}

/// Type of the candidate a client was last connected through.
public enum CandidateType: String, Sendable {
    case host
    case serverReflexive = "srflx"
    case peerReflexive = "prflx"
    case relay
}

/// A connection that belongs to a session right now.
public struct LivePeer: Hashable, Sendable {
    /// The engine's name for it; nothing is read into it.
    public let peer: UInt64
    let generation: UInt64
    let connected: Instant
}

/// A token that was put into an answer, and the how-manieth of the session's it is. The token itself is not kept.
struct IssuedToken: Equatable, Sendable {
    let digest: TokenDigest
    let generation: UInt64

    init(digest: TokenDigest, generation: UInt64) {
        self.digest = digest
        self.generation = generation
    }

    init(_ token: SessionToken, generation: UInt64) {
        self.init(digest: TokenDigest(token), generation: generation)
    }
}

/// What is known of a client that may come back.
public struct Session: Sendable {
    public let clientID: ClientID
    public let created: Instant
    /// The certificate the client proved to have. The session is worthless without its key.
    public let clientFingerprint: ClientFingerprint
    public internal(set) var lastConnected: Instant
    /// When something was last heard from the client, as far as the engine said so.
    public internal(set) var lastSeen: Instant
    public internal(set) var lastAddress: SocketAddress
    public internal(set) var preferredCandidateType: CandidateType
    /// The client's candidates of the last connection; at most ``maximumCandidates``.
    public internal(set) var lastCandidates: [String]
    public internal(set) var connectionCount: Int
    /// Connections that are up. More than one only while attempts of one page overlap.
    public internal(set) var live: [LivePeer]
    /// nil while a connection is up: the lifetime counts from the end of the last one.
    public internal(set) var expires: Instant?
    /// Every token that finds this session; see ``Sessions`` for when one stops being valid.
    var tokens: [IssuedToken]
    var nextGeneration: UInt64
    /// Tokens up to this generation are dead, whoever still lists them.
    var deadThrough: UInt64 = 0

    /// Whether this is the token of the newest connection.
    public func isNewest(_ token: SessionToken) -> Bool { tokens.first?.digest == TokenDigest(token) }

    public static let maximumCandidates = 16
    public static let maximumCandidateBytes = 512
    static let maximumPendingTokens = 4
    static let maximumLivePeers = 4
}
