import STUN
public import Wire

/// One side of ICE for one component (RFC 8445), full or Lite, with consent (RFC 7675). It owns no
/// socket and no clock: give it datagrams and the time, and after every call take what it has,
/// ``pollTransmit(into:now:)`` and ``pollEvent()`` until both are nil, and call
/// ``handleTimeout(now:)`` when ``nextTimeout`` has come.
///
/// Bounded: pairs, candidates, learned addresses, transactions and responses have limits, and
/// nothing is kept for a sender that does not know the password.
public final class Agent {
    enum Timer: Int, CaseIterable, Sendable {
        case silence
        case expiry
        case settle
        case move
        case patience
        case establish
    }

    enum Phase {
        case new
        case running
        case closed
    }

    let configuration: Configuration
    /// What was offered, all on the socket whose datagrams are handed in.
    public let localCandidates: [Candidate]
    /// Those of this generation; change with ``restart(_:now:)``.
    public internal(set) var credentials: Credentials
    let tieBreaker: UInt64
    var random: any RandomNumberGenerator
    public internal(set) var role: Role
    /// Counters, for metrics and for tests.
    public internal(set) var statistics = Statistics()

    var phase = Phase.new
    var generation: Generation
    /// The generation before a restart, until the new one has a path of its own.
    var previous: Generation?
    var remoteIsLite = false
    var remoteIsComplete = false
    var remoteCandidates: [Candidate] = []

    var pairs: [Pair] = []
    var nextPairID: Pair.ID = 0
    /// Pairs to check at once (RFC 8445 section 6.1.4.1), first come, first served.
    var triggered: [Pair.ID] = []
    /// False: surely no pair is waiting or frozen.
    var mayHaveWaiting = false
    var nextCheckAt = Instant(nanoseconds: .min)
    var transactions: [Transaction] = []
    var responses: [Response] = []
    var recentRequests = RecentRequests()

    /// Nominated or moved to.
    var selected: Pair.ID?
    /// What is used until then: the latest verified pair.
    var provisional: Pair.ID?
    var reportedVerified = false
    var isDisconnected = false
    /// Checks on the path in use since its last response.
    var unanswered = 0
    /// The path in use seems dead, and another one is looked for.
    var isSuspect = false
    /// When the next check on the path in use is due.
    var consentCheckAt: Instant?
    /// When consent must be asked for again, whatever else arrives.
    var consentDue = Instant.distantFuture
    var timers = TimerTable<Timer>()
    var events: [Event] = []

    /// - Parameters:
    ///   - localCandidates: what was offered, all on the socket whose datagrams are handed in.
    ///   - random: must not be guessable; ``SeededGenerator`` in tests only.
    public init(_ configuration: Configuration, localCandidates: [Candidate], random: any RandomNumberGenerator) {
        var random = random
        self.configuration = configuration
        self.localCandidates = localCandidates
        role = configuration.isLite ? .controlled : configuration.role
        tieBreaker = configuration.tieBreaker ?? random.next()
        credentials = configuration.credentials
        generation = Generation(0, configuration.credentials)
        self.random = random
    }

    /// The other side's credentials and kind, from its description. May come before or after the
    /// first checks; a Lite agent does without.
    public func setRemote(_ credentials: Credentials, isLite: Bool) {
        generation.setRemote(credentials, checks: !configuration.isLite)
        remoteIsLite = isLite
        // RFC 8445 section 6.1.1: if one side is Lite, the full one controls.
        if isLite, !configuration.isLite { role = .controlling }
        if isLite, configuration.isLite { fail(.bothLite) }
    }

    /// One of the other side's candidates, from its description or trickled (RFC 8838). A Lite agent
    /// has no use for them.
    public func addRemoteCandidate(_ candidate: Candidate) {
        guard !configuration.isLite, phase != .closed else { return }
        guard candidate.address.isReachable else {
            statistics.candidatesRefused &+= 1
            return
        }
        learn(candidate)
    }

    /// The other side has no more candidates (RFC 8838 section 14): failure may be found out.
    public func remoteCandidatesComplete() {
        remoteIsComplete = true
        despair()
    }

    /// Checks begin. Requests are answered before that too.
    public func start(now: Instant) {
        guard phase == .new else { return }
        phase = .running
        timers[.patience] = now + configuration.patience
        if let limit = configuration.establishTimeout { timers[.establish] = now + limit }
    }

    /// No more checks, answers or events.
    public func close() {
        phase = .closed
        selected = nil
        provisional = nil
        pairs.removeAll()
        triggered.removeAll()
        transactions.removeAll()
        responses.removeAll()
        timers.removeAll()
        consentCheckAt = nil
    }

    /// New local credentials (RFC 8445 section 9). The path in use stays in use until the new
    /// generation, for which ``setRemote(_:isLite:)`` and candidates must come, has selected one.
    public func restart(_ credentials: Credentials, now: Instant) {
        statistics.restarts &+= 1
        let kept = activePair.map { pairs[$0] }
        // The credentials that go with the kept pair: these, unless they never had a path.
        if kept == nil { previous = nil } else if kept?.generation == generation.number { previous = generation }
        self.credentials = credentials
        generation = Generation(generation.number &+ 1, credentials)
        pairs = kept.map { [$0] } ?? []
        selected = selected == kept?.id ? selected : nil
        provisional = provisional == kept?.id ? provisional : nil
        remoteCandidates.removeAll()
        remoteIsComplete = false
        triggered.removeAll()
        transactions.removeAll()
        mayHaveWaiting = false
        reportedVerified = false
        timers[.settle] = nil
        timers[.move] = nil
        timers[.establish] = nil
        phase = .new
        start(now: now)
    }

    /// Where to send right now: the selected path, before nomination the latest verified one.
    public var selectedPath: Path? { activePair.map { pairs[$0].path } }

    /// Whether this agent answers checks and makes none.
    public var isLite: Bool { configuration.isLite }

    /// Whether ``selectedPath`` was nominated.
    public var isNominated: Bool { selected != nil }

    /// Smoothed round trip of the path in use, measured by our checks; nil for a Lite agent and until
    /// a check was answered at its first transmission.
    public var roundTrip: Duration? { activePair.flatMap { pairs[$0].roundTrip?.smoothed } }

    /// Our address as the other side sees it on the path in use, if it is none of our candidates'.
    public var reflexiveAddress: SocketAddress? { activePair.flatMap { pairs[$0].reflexive } }

    /// When ``handleTimeout(now:)`` must be called; nil if nothing is awaited.
    public var nextTimeout: Instant? {
        var next = timers.nextTimeout ?? .distantFuture
        if let due = consentCheckAt, canCheckActive { next = min(next, due) }
        for transaction in transactions { next = min(next, transaction.deadline) }
        if mayHaveWaiting, canCheck { next = min(next, nextCheckAt) }
        return next == .distantFuture ? nil : next
    }

    public func pollEvent() -> Event? { events.isEmpty ? nil : events.removeFirst() }
}
