import Reload
import Synchronization
import Wire

/// What an engine counts beside its ``Counters``. Everything may be called from every thread; nothing waits.
final class Metrics: Sendable {
    let client = ClientMetrics()

    let requests = CounterFamily<ConnectionMode>()
    let normalAnswers = CounterFamily<NormalReason>()
    let connections = ConnectionTimes()
    let failures: [CounterFamily<ConnectFailure>] = ConnectionMode.all.map { _ in CounterFamily() }
    let candidateTypes = CounterFamily<CandidateType>()
    let relayed = Counter()
    let returns = Counter()
    let paths = CounterFamily<PathChange>()
    let restarts = CounterFamily<RestartStage>()
    let relayAllocations = Counter()
    let relayFailures = Counter()
    let lookups = CounterFamily<LookupResult>()
    let ticketsIssued = Counter()
    let ticketsAccepted = Counter()
    let ticketsRefused = CounterFamily<TicketRefusal>()
    let ticketsDropped = Counter()
    let trips = Counter()
    let isTripped = Gauge()
    let fastReload = Gauge(Int(FastReloadSetting.on.rawValue))
    let storeIsUp = Gauge(1)
    let mappedAddresses = Gauge()
    let rotations = Counter()
    let rotationFailures = Counter()

    // MARK: Answers and connections

    /// An offer was answered, or a ticket accepted. `reason` says why an answer is normal.
    func answered(mode: ConnectionMode, reason: NormalReason? = nil) {
        requests.count(mode)
        if let reason { normalAnswers.count(reason) }
    }

    /// A peer is authenticated. `duration` is the time since it was made.
    /// `isRelayed`: over a relay of either side.
    func connected(
        mode: ConnectionMode, isIPv6: Bool, candidateType: CandidateType, isRelayed: Bool, duration: Duration
    ) {
        connections.observe(mode, isIPv6: isIPv6, duration)
        candidateTypes.count(candidateType)
        if isRelayed { relayed.count() }
    }

    /// A peer ended before it was authenticated. `iceFailure`: no path was found.
    func failed(mode: ConnectionMode, iceFailure: Bool) {
        failures[mode.position].count(iceFailure ? .ice : .other)
    }

    /// A connection came back to its session.
    func returned() { returns.count() }

    // MARK: Paths

    /// A peer has another path, or its first.
    func path(_ change: PathChange) { paths.count(change) }

    func restart(_ stage: RestartStage) { restarts.count(stage) }

    // MARK: Sessions and tickets

    func lookup(hit: Bool) { lookups.count(hit ? .hit : .miss) }

    /// The session store did not answer in time.
    func lookupUnavailable() { lookups.count(.unavailable) }

    func ticket(_ event: TicketEvent) {
        switch event {
        case .issued: ticketsIssued.count()
        case .accepted: ticketsAccepted.count()
        case .refused(let reason): ticketsRefused.count(reason)
        case .dropped: ticketsDropped.count()
        }
    }

    func store(isUp: Bool) { storeIsUp.set(isUp ? 1 : 0) }

    // MARK: The switch of fast reload

    /// It switched itself off.
    func tripped() {
        trips.count()
        isTripped.set(1)
    }

    /// It switched itself on again.
    func rearmed() { isTripped.set(0) }

    /// The host threw the switch; a tripped one is re-armed by ON.
    func setSwitch(_ setting: FastReloadSetting) {
        fastReload.set(Int(setting.rawValue))
        if setting == .on { isTripped.set(0) }
    }

    // MARK: Network and certificate

    func setMappedAddresses(_ count: Int) { mappedAddresses.set(count) }

    func rotated(succeeded: Bool) { if succeeded { rotations.count() } else { rotationFailures.count() } }
}

/// What connectors count.
final class ClientMetrics: Sendable {
    let cacheHits = Counter()
    let cacheMisses = Counter()
    let fastAttempts = CounterFamily<AddressFamily>()
    let fallbacks: [CounterFamily<FallbackReason>] = AttemptedFamily.all.map { _ in CounterFamily() }
    let connections = ConnectionTimes()
    let ipv6 = Gauge()

    func cacheHit() { cacheHits.count() }

    func cacheMiss() { cacheMisses.count() }

    /// An attempt by ticket or session began; `isIPv6` says what the first of its candidates is.
    func fastAttempt(isIPv6: Bool) { fastAttempts.count(AddressFamily(isIPv6: isIPv6)) }

    /// A connect went on in normal mode. `isIPv6` says what was tried; nil if nothing was.
    func fallback(isIPv6: Bool?, reason: Status) {
        fallbacks[AttemptedFamily(isIPv6: isIPv6).position].count(FallbackReason(reason))
    }

    /// A connector is connected. `duration` is the time since it was asked to.
    func connected(mode: ConnectionMode, isIPv6: Bool, duration: Duration) {
        connections.observe(mode, isIPv6: isIPv6, duration)
    }

    /// Whether the machine has an IPv6 address that reaches beyond it.
    func ipv6Available(_ isAvailable: Bool) { ipv6.set(isAvailable ? 1 : 0) }
}

/// A histogram for each mode and address family.
final class ConnectionTimes: Sendable {
    private let histograms: [Histogram] = (0..<ConnectionMode.all.count * AddressFamily.all.count)
        .map { _ in Histogram() }

    subscript(mode: ConnectionMode, family: AddressFamily) -> Histogram {
        histograms[mode.position * AddressFamily.all.count + family.position]
    }

    func observe(_ mode: ConnectionMode, isIPv6: Bool, _ duration: Duration) {
        self[mode, AddressFamily(isIPv6: isIPv6)].observe(duration)
    }
}
