/// Counters since the agent was made. They wrap around instead of trapping.
public struct Statistics: Hashable, Sendable {
    public var requestsReceived: UInt64 = 0
    public var responsesReceived: UInt64 = 0
    public var errorsReceived: UInt64 = 0
    public var responsesSent: UInt64 = 0
    public var errorsSent: UInt64 = 0
    public var checksSent: UInt64 = 0
    public var checksRetransmitted: UInt64 = 0
    public var consentChecksSent: UInt64 = 0
    public var roleConflicts: UInt64 = 0
    public var pathChanges: UInt64 = 0
    public var restarts: UInt64 = 0
    /// Restarts given up, or replaced by another one before they had a path.
    public var restartsAbandoned: UInt64 = 0
    /// Times the path in use was doubtful.
    public var suspicions: UInt64 = 0
    /// Times another path took over because the one in use was silent.
    public var failovers: UInt64 = 0
    /// Checks that keep a second path warm, or look for one.
    public var standbyChecksSent: UInt64 = 0
    /// Addresses of the other side that only its checks showed.
    public var peerReflexiveRemote: UInt64 = 0
    /// Addresses of this side that only the other side's responses showed.
    public var peerReflexiveLocal: UInt64 = 0
    /// Candidates and pairs not taken because of a limit or because nothing can be sent to them.
    public var candidatesRefused: UInt64 = 0
    /// Candidates of a description that is not the other side's current one.
    public var candidatesStale: UInt64 = 0
    /// Messages not sent because the caller's buffer was too small.
    public var transmitsDropped: UInt64 = 0

    public var notSTUN: UInt64 = 0
    public var malformed: UInt64 = 0
    public var unexpected: UInt64 = 0
    public var otherUfrag: UInt64 = 0
    public var badIntegrity: UInt64 = 0
    public var unmatched: UInt64 = 0
    public var replayed: UInt64 = 0
    public var forbidden: UInt64 = 0
    public var closed: UInt64 = 0
    public var overloaded: UInt64 = 0

    public init() {}

    mutating func count(_ reason: Disposition.Reason) {
        switch reason {
        case .notSTUN: notSTUN &+= 1
        case .malformed: malformed &+= 1
        case .unexpected: unexpected &+= 1
        case .otherUfrag: otherUfrag &+= 1
        case .badIntegrity: badIntegrity &+= 1
        case .unmatched: unmatched &+= 1
        case .replayed: replayed &+= 1
        case .forbidden: forbidden &+= 1
        case .closed: closed &+= 1
        case .overloaded: overloaded &+= 1
        }
    }
}
