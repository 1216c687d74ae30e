import Wire

/// How an offer is answered.
public enum Mode: String, Sendable {
    case fast
    case normal
    /// No offer: the client's first packet was its check, with a ticket for a name.
    case zeroSignaling = "zero-signaling"
}

/// Why an answer is not fast.
public enum NormalReason: String, Sendable, CaseIterable {
    case noToken
    /// No session has this token: made up, replaced, of another server, swept after expiry, or not even
    /// of the form of a token.
    case unknown
    case expired
    /// The token is right, the certificate is not: another client, or the same with its storage cleared.
    case otherFingerprint
    /// A kill switch.
    case disabled
    /// The store is down or did not answer in time.
    case storeUnavailable
}

/// Goes with the connection an answer is for, from the decision until it is up and ``Sessions`` is told.
public struct Grant: Sendable {
    public let clientID: ClientID
    /// The token for the answer.
    public let token: SessionToken
    /// True if the answer continues a known session.
    public let continuesSession: Bool
    let generation: UInt64
    /// Generation of the token that the client came with.
    let presentedGeneration: UInt64
    let issued: Instant
    /// That token, by which it is found should it be counted anew meanwhile.
    var presented: TokenDigest?
}

/// The answer to "who is this, and how do we answer?".
public struct Decision: Sendable {
    public let mode: Mode
    /// nil unless the mode is normal.
    public let reason: NormalReason?
    public let grant: Grant
    /// The session as known, if the answer continues one.
    public let session: Session?
    /// The one certificate that may use a continued session: DTLS must accept no other, even if the
    /// offer names more. nil in a new session, where those of the offer count.
    public var requiredFingerprint: ClientFingerprint? { session?.clientFingerprint }
}

/// A decision, or the promise of one from a store that has to ask elsewhere.
public enum Verdict: Sendable {
    case decided(Decision)
    /// ``Sessions/pollDecision(now:)`` gives it, at the latest after the look-up timeout.
    case pending(LookupID)
}

/// Who connected.
public struct Arrival: Sendable {
    public enum Kind: Equatable, Sendable {
        case first
        /// `after` the client was last heard from; `count` is the number of its connections, this one included.
        case returned(after: Duration, count: Int)
        /// This peer was connected before, for example on another path.
        case repeated
    }

    public let kind: Kind
    /// The session it belongs to from now on. Keep it to report the end of the connection.
    public let clientID: ClientID
    /// Connections that this one takes over from: zombies, to be closed.
    public let replaced: [UInt64]
    /// False if there was no room to remember the session; its client will be answered normally next time.
    public let isStored: Bool
}

/// Kill switches of fast reload.
public enum FastReload: Sendable {
    case on
    /// Sessions are looked up, continued and kept, but every answer is normal.
    case sessionsOnly
    /// No look-up, every client is new; known sessions stay as they are.
    case off
}

/// What happened so far, for metrics.
public struct SessionCounters: Equatable, Sendable {
    public internal(set) var fast = 0
    /// Clients that came with a ticket.
    public internal(set) var resumed = 0
    public internal(set) var normal: [NormalReason: Int] = [:]
    /// Tokens that led to a usable session, and tokens that did not.
    public internal(set) var hits = 0
    public internal(set) var misses = 0
    public internal(set) var firstConnections = 0
    public internal(set) var returns = 0
    public internal(set) var takeovers = 0
    public internal(set) var expired = 0
    /// New sessions that found no room.
    public internal(set) var notStored = 0

    public var normalTotal: Int { normal.values.reduce(0, +) }
}
