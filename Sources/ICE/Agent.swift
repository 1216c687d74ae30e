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
        /// The path in use may have become too silent.
        case doubt
        /// Another path takes over unless the one in use answers.
        case failover
        case standby
        case retire
    }

    enum Phase {
        case new
        case running
        case closed
    }

    var configuration: Configuration
    var durations: Timers
    /// What may be offered now.
    public internal(set) var localCandidates: [Candidate]
    var localIsComplete: Bool
    /// Those of this generation; change with ``restart(_:localCandidates:now:)``.
    public var credentials: Credentials { generation.credentials }
    let tieBreaker: UInt64
    var random: any RandomNumberGenerator
    public internal(set) var role: Role
    /// Counters, for metrics and for tests.
    public internal(set) var statistics = Statistics()

    var phase = Phase.new
    var generation: Generation
    /// The generation before a restart, until the new one has a path of its own.
    var previous: Generation?
    /// The one before that, whose checks are still answered for a moment.
    var retired: Generation?
    /// A restart has begun, and its generation has no path yet.
    public internal(set) var isRestarting = false
    /// Counts generations; abandoned ones keep their numbers.
    var generationCount: UInt32 = 0
    /// Candidates with the ufrag of a description that has not come yet.
    var early: [(ufrag: [UInt8], candidate: Candidate)] = []
    /// The other side's ufrags of descriptions that are over.
    var retiredUfrags: [[UInt8]] = []

    var pairs: [Pair] = []
    var nextPairID: Pair.ID = 0
    /// Where the pair last looked for was.
    var lastIndex = 0
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
    var isDisconnected = false
    /// Checks on the path in use since its last response.
    var unanswered = 0
    /// The path in use seems dead, and another one is looked for.
    var isSuspect = false
    /// The path in use is doubtful.
    var suspicion: Suspicion?
    /// Data sent since anything was received.
    var silence = Silence()
    /// The pair that is kept warm, to take over.
    var standby: Pair.ID?
    var standbyEpoch = Instant(nanoseconds: 0)
    var standbyTicks: UInt32 = 0
    var lastExplored: Pair.ID = 0
    /// Pairs to check once.
    var probes: [Pair.ID] = []
    /// When the path in use was checked last.
    var askedAt = Instant(nanoseconds: .min)
    /// The family of the latest ordinary check.
    var lastFamilyWasIPv4: Bool?
    /// Why the latest ``Event/selected(_:)`` came.
    public internal(set) var selectionReason = PathChange.first
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
        durations = configuration.timers
        self.localCandidates = localCandidates
        localIsComplete = !configuration.tricklesCandidates && !localCandidates.isEmpty
        role = configuration.isLite ? .controlled : configuration.role
        tieBreaker = configuration.tieBreaker ?? random.next()
        generation = Generation(0, configuration.credentials)
        self.random = random
    }

    /// The other side's credentials and kind, from its description. May come before or after the
    /// first checks; a Lite agent does without. `renomination`: both descriptions have that ICE option.
    public func setRemote(_ credentials: Credentials, isLite: Bool, renomination: Bool = false) {
        if let ufrag = generation.remote?.ufrag { retire(ufrag) }
        generation.setRemote(credentials, checks: !configuration.isLite)
        generation.remoteIsLite = isLite
        generation.usesRenomination = renomination
        // RFC 8445 section 6.1.1: if one side is Lite, the full one controls.
        if isLite, !configuration.isLite { role = .controlling }
        if isLite, configuration.isLite { return fail(.bothLite) }
        takeEarlyCandidates()
    }

    /// One of the other side's candidates, from its description or trickled (RFC 8838), there with the ufrag
    /// it came with: those of older descriptions are dropped, those of one that has not come yet wait for it.
    /// A Lite agent has no use for candidates.
    public func addRemoteCandidate(_ candidate: Candidate, ufrag: String? = nil) {
        guard !configuration.isLite, phase != .closed else { return }
        guard candidate.address.isReachable else {
            statistics.candidatesRefused &+= 1
            return
        }
        if let ufrag, !isCurrent(ufrag: ufrag) { return keep(candidate, Array(ufrag.utf8)) }
        learn(candidate)
    }

    /// The other side has no more candidates (RFC 8838 section 14): failure may be found out.
    public func remoteCandidatesComplete() {
        generation.remoteIsComplete = true
        despair()
    }

    /// Other durations from now on, for what is under way too; checks already sent keep theirs.
    public func setTimers(_ timers: Timers) {
        durations = timers
        reviseTimers()
        guard let interval = timers.standbyInterval else {
            self.timers[.standby] = nil
            standby = nil
            return
        }
        let due = standbyEpoch + interval
        if selected != nil, !isLite { self.timers[.standby] = min(self.timers[.standby] ?? .distantFuture, due) }
    }

    /// Checks begin. Requests are answered before that too.
    public func start(now: Instant) {
        guard phase == .new else { return }
        phase = .running
        timers[.patience] = now + durations.patience
        if let limit = durations.establishTimeout { timers[.establish] = now + limit }
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
        early.removeAll()
        timers.removeAll()
        probes.removeAll()
        suspicion = nil
        standby = nil
        retired = nil
        previous = nil
        isRestarting = false
        consentCheckAt = nil
    }

    /// Where to send right now: the selected path, before nomination the latest verified one.
    public var selectedPath: Path? { activePair.map { pairs[$0].path } }

    /// The path that takes over when the one in use is silent, if there is one.
    public var standbyPath: Path? { index(of: standby).map { pairs[$0].path } }

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
