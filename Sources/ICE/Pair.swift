import Wire

/// A local base and a remote address, and how far checking them has come (RFC 8445 section 6.1.2.6).
struct Pair {
    typealias ID = UInt32

    enum State {
        case frozen
        case waiting
        case inProgress
        case succeeded
        case failed
    }

    let id: ID
    let generation: UInt32
    /// The base: where datagrams on this pair are sent from.
    var local: SocketAddress
    let remote: SocketAddress
    let transport: Transport
    var localPriority: UInt32
    var remotePriority: UInt32
    /// Hashes of the candidates' foundations, which are only ever compared.
    var localFoundation: UInt64
    var remoteFoundation: UInt64
    /// How many of the candidates are relays'.
    var relays: Int
    var state: State

    /// The other side proved itself with a request that came this way.
    var isVerified = false
    /// Controlled: the other side nominated it. Controlling: our nomination was answered.
    var isNominated = false
    /// Controlling: the next check carries USE-CANDIDATE.
    var nominatesNext = false
    /// Last authenticated datagram of any kind.
    var lastReceived: Instant?
    /// Last sign that the other side sends on this path by choice: a nomination, or its data.
    var lastPreferred: Instant?
    /// Last valid response to a check of ours.
    var lastResponse: Instant?
    var roundTrip: RoundTrip?
    /// At most this, from a check that was answered after it had been sent more than once.
    var longestRoundTrip: Duration?
    /// Where the other side sees us, if that is none of our candidates.
    var reflexive: SocketAddress?

    /// What the other side sees us as.
    var mapped: SocketAddress?
    /// Another path took over because this one was silent; it has not answered since.
    var isDoubted = false
    /// Came after there was a path; checked all the same.
    var isLate = false
    /// Controlling: the number of our nomination. Controlled: of theirs. 0: without one.
    var nomination: UInt32 = 0
    /// Answers in a row.
    var streak: UInt8 = 0
    /// Probes in a row without an answer.
    var misses: UInt8 = 0
    /// Its local address is gone; kept only as long as there is no other to use.
    var isGone = false
    /// Controlled: nominated, and to be followed when it is valid.
    var followsWhenValid = false

    /// Whether this side can make it work again: connections are opened by one side.
    var canBeOpened: Bool { transport == .udp || local.port == Candidate.discardPort }

    var path: Path { Path(local: local, remote: remote, transport: transport) }

    /// RFC 8445 section 6.1.2.3, with G the controlling side's priority and D the controlled side's.
    func priority(_ role: Role) -> UInt64 {
        let (controlling, controlled) =
            role == .controlling ? (localPriority, remotePriority) : (remotePriority, localPriority)
        return UInt64(min(controlling, controlled)) << 32 &+ UInt64(max(controlling, controlled)) &* 2
            &+ (controlling > controlled ? 1 : 0)
    }

    func isOn(_ path: Path) -> Bool {
        remote == path.remote && transport == path.transport && local.isSameSource(as: path.local)
    }

    func sharesFoundation(with other: Pair) -> Bool {
        localFoundation == other.localFoundation && remoteFoundation == other.remoteFoundation
    }
}

extension SocketAddress {
    /// Whether two local addresses may be the same one: an unspecified address is any of the socket's.
    func isSameSource(as other: SocketAddress) -> Bool {
        port == other.port && (ip == other.ip || ip.isUnspecified || other.ip.isUnspecified)
    }
}

/// Smoothed as in RFC 6298 section 2.
struct RoundTrip {
    private(set) var smoothed: Duration
    private(set) var latest: Duration

    init(_ sample: Duration) {
        smoothed = sample
        latest = sample
    }

    mutating func add(_ sample: Duration) {
        latest = sample
        smoothed = smoothed + (sample - smoothed) / 8
    }
}
