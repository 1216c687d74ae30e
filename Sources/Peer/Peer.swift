import DTLS
public import ICE
import SCTP
import SDP
public import Wire

/// One WebRTC connection: ICE, DTLS, SCTP and data channels on one path, without I/O.
///
/// Feed with `handle`, `handleTimeout` and the calls of the host; then take events until there are none, then packets
/// until there are none, then look at `nextTimeout`. Used from one thread.
public final class Peer {
    public enum Role: Sendable {
        case answerer
        case offerer
    }

    /// Where the connection stands.
    enum Phase {
        case waiting
        /// ICE has a verified path; since when.
        case connecting(Instant)
        case connected
        case closed
    }

    public let role: Role
    public internal(set) var configuration: Configuration
    /// The user fragment by which checks for this peer are told apart until ICE is restarted: ``localUfrags``.
    public var localUfrag: String { credentials.ufrag }
    public let created: Instant
    /// When something authentic arrived last.
    public private(set) var lastHeard: Instant
    /// When each step was done.
    public internal(set) var milestones = Milestones()

    public struct Milestones: Sendable {
        public var verified: Instant?
        public var authenticated: Instant?
        public var associated: Instant?
    }

    /// Of the first generation.
    let credentials: Credentials
    let isLite: Bool
    let provider: any SecureTransportProvider
    let packets: PacketBuffer
    var random: any RandomNumberGenerator
    var agent: Agent
    var transport: (any SecureTransport)?
    var transportRole: TransportRole?
    var signaling = SignalingState()
    var restarts: RestartSchedule
    var phase = Phase.waiting
    /// Where authenticated checks came from: DTLS is taken from nowhere else.
    var verifiedRemotes: [SocketAddress] = []
    /// Whether DTLS begins with the first check, instead of with its response.
    var startsEarly = false
    var early: EarlyFlight?
    var deadline: Instant
    /// When the transport was made.
    private var handshakeBegan = Instant(nanoseconds: 0)
    /// When to see whether the transport is idle; `distantFuture` while it holds no buffers.
    private var idleCheck = Instant.distantFuture
    private var lastRecord = Instant(nanoseconds: 0)
    private var bytesSent: UInt64 = 0
    private var bytesReceived: UInt64 = 0
    private var packetsSent: UInt64 = 0
    private var packetsReceived: UInt64 = 0
    let data: DataPlane
    private var events: [Event] = []
    private var nextEvent = 0

    /// All of ours have been gathered.
    var candidatesAreComplete = false
    /// Of the latest description of ours: what candidates that come later are told for.
    var described: String?
    var announcedUfrags: [String] = []
    var malformedCandidates: UInt64 = 0
    /// Names that candidates have in place of addresses, and the candidates.
    var names: [NamedCandidate] = []
    /// The address of the path in use is gone, and no other path took over.
    var isOrphaned = false
    /// Since when the path in use does not answer.
    var doubtSince = Instant.distantFuture
    /// ``Event/disconnected`` was told.
    var isSilent = false
    /// When a path that is doubtful is a reason to restart.
    var suspicion = Instant.distantFuture
    var lastRestart = Instant(nanoseconds: .min)
    var lastNeed = ""
    /// There is no path any more, and this ends the connection if no restart brings one.
    var failure: CloseReason?
    var pathCount: UInt32 = 0
    /// What SCTP has learned of congestion is this one's.
    var dataPath: Path?
    /// When the other side's data came that way last.
    private var lastOnDataPath = Instant(nanoseconds: 0)

    /// - Parameters:
    ///   - packets: scratch space of at least 16 KiB, shared by all peers of one thread.
    ///   - returning: the client whose first check is here, answered without any description.
    public init(
        role: Role, configuration: Configuration, candidates: [Candidate], provider: any SecureTransportProvider,
        packets: PacketBuffer, random: any RandomNumberGenerator, returning: ReturningClient? = nil, now: Instant
    ) {
        self.role = role
        self.configuration = configuration
        self.provider = provider
        self.packets = packets
        self.random = random
        created = now
        lastHeard = now
        // An offerer waits for its answer as long as its host does.
        deadline = role == .answerer ? now + configuration.connectTimeout : .distantFuture
        if let returning {
            credentials = returning.credentials
        } else {
            var generator = self.random
            credentials = Credentials(using: &generator)
            self.random = generator
        }
        // A client that comes back expects a Lite agent: nobody has told it of checks from here.
        isLite = role == .answerer && (configuration.isLite || returning != nil)
        self.candidates = configuration.relayOnly ? candidates.filter { $0.kind == .relayed } : candidates
        restarts = RestartSchedule(configuration.timers.restartSettings)
        agent = Peer.makeAgent(
            role == .offerer ? .controlling : .controlled, isLite: isLite, credentials, self.candidates, configuration,
            self.random)
        data = DataPlane(configuration: configuration, random: self.random)
        if let returning { admit(returning, now: now) }
    }

    /// If set, only this one of the announced fingerprints is accepted. For sessions that are bound to a certificate.
    public var requiredDigest: [UInt8]?
    /// Ours.
    var candidates: [Candidate]
    var remoteCandidates: [Candidate] = []

    private static func makeAgent(
        _ role: ICE.Role, isLite: Bool, _ credentials: Credentials, _ candidates: [Candidate],
        _ configuration: Configuration, _ random: any RandomNumberGenerator
    ) -> Agent {
        var ice = Agent.Configuration(role: role, isLite: isLite, credentials: credentials)
        ice.relayOnly = configuration.relayOnly
        ice.tricklesCandidates = configuration.style != .manual
        ice.timers = configuration.timers.agent
        return Agent(ice, localCandidates: candidates, random: random)
    }

    /// One that has not begun.
    func makeAgent(_ role: ICE.Role) -> Agent {
        Peer.makeAgent(role, isLite: isLite, credentials, candidates, configuration, random)
    }

    // MARK: Feeding

    /// Takes a datagram. False if it was dropped: it is for nobody here, malformed or not authentic.
    public func handle(
        datagram: RawSpan, from remote: SocketAddress, to local: SocketAddress, transport: Transport = .udp,
        now: Instant
    ) -> Bool {
        let path = Path(local: local, remote: remote, transport: transport)
        guard !isClosed else { return false }
        bytesReceived &+= UInt64(datagram.byteCount)
        packetsReceived &+= 1
        // RFC 7983 section 7: the first byte tells the protocols apart.
        switch datagram.byte(0) {
        case 0...3 where datagram.byteCount >= 20:
            return handleCheck(datagram, path, now: now)
        case 20...63:
            return handleRecord(datagram, path, now: now)
        default:
            return false
        }
    }

    private func handleCheck(_ datagram: RawSpan, _ path: Path, now: Instant) -> Bool {
        let disposition = agent.handle(
            datagram: datagram, from: path.remote, to: path.local, transport: path.transport, now: now)
        guard case .consumed = disposition else { return false }
        lastHeard = now
        trust(path.remote)
        drainAgent(now: now)
        return true
    }

    func trust(_ remote: SocketAddress) {
        guard !verifiedRemotes.contains(remote) else { return }
        if verifiedRemotes.count >= 16 { verifiedRemotes.removeFirst() }
        verifiedRemotes.append(remote)
    }

    private func handleRecord(_ datagram: RawSpan, _ path: Path, now: Instant) -> Bool {
        guard verifiedRemotes.contains(path.remote) else { return false }
        guard let transport = startedTransport(now: now) else { return false }
        early?.isAnswered = true
        noteRecord(now)
        let before = transport.counters
        transport.receive(datagram, now: now)
        if drainTransport(transport, now: now) {
            lastHeard = now
            agent.noteTraffic(path, now: now)
            if path.remote == dataPath?.remote { lastOnDataPath = now }
            return true
        }
        // Nothing was read: part of a handshake, or forged, damaged or replayed.
        return transport.counters == before
    }

    public func handleTimeout(now: Instant) {
        guard !isClosed else { return }
        if deadline <= now {
            deadline = .distantFuture
            return end(.timeout(timeoutSentence), now: now)
        }
        if let due = agent.nextTimeout, due <= now {
            agent.handleTimeout(now: now)
            drainAgent(now: now)
        }
        if let transport, let due = transport.nextTimeout, due <= now {
            transport.handleTimeout(now: now)
            _ = drainTransport(transport, now: now)
        }
        if let association = data.association, !dataRests, let due = association.nextTimeout, due <= now {
            association.handleTimeout(now: now)
            checkAssociation(now: now)
        }
        if idleCheck <= now { releaseIfIdle(now) }
        if recoveryTimeout <= now { handleRecoveryTimeout(now: now) }
    }

    /// What is sent while nothing comes back is sent for nothing, and is no sign of anything: SCTP's timers rest until
    /// the path is back, which may take as long as restarts are tried.
    private var dataRests: Bool { isSilent && configuration.style != .manual }

    /// The transport has taken its buffers again for a record.
    private func noteRecord(_ now: Instant) {
        lastRecord = now
        if idleCheck == .distantFuture, isConnected { idleCheck = now + Peer.idleTime }
    }

    /// Most connections are idle most of the time, and a transport's buffers are half of what one holds in memory.
    private func releaseIfIdle(_ now: Instant) {
        idleCheck = lastRecord + Peer.idleTime
        guard idleCheck <= now else { return }
        idleCheck = .distantFuture
        transport?.releaseBuffers()
    }

    static let idleTime = Duration.seconds(1)

    private var timeoutSentence: String {
        switch phase {
        case .waiting: "no check arrived in time"
        case .connecting: "the DTLS handshake did not finish in time"
        case .connected: "the SCTP association was not established in time"
        case .closed: ""
        }
    }

    public var nextTimeout: Instant? {
        guard !isClosed else { return nil }
        var earliest = min(min(deadline, idleCheck), recoveryTimeout)
        if let due = agent.nextTimeout { earliest = min(earliest, due) }
        if let due = transport?.nextTimeout { earliest = min(earliest, due) }
        if let due = early?.nextTimeout { earliest = min(earliest, due) }
        if case .connected = phase, !dataRests, let due = data.association?.nextTimeout {
            earliest = min(earliest, due)
        }
        return earliest == .distantFuture ? nil : earliest
    }

    // MARK: Draining

    public func pollEvent() -> Event? {
        guard nextEvent < events.count else { return nil }
        defer {
            nextEvent += 1
            if nextEvent == events.count {
                events.removeAll(keepingCapacity: true)
                nextEvent = 0
            }
        }
        return events[nextEvent]
    }

    /// Writes the next datagram and says where it goes; nil if there is none. Offer room for
    /// `maximumDatagramSize` bytes.
    public func pollTransmit(into output: inout OutputRawSpan, now: Instant) -> Transmit? {
        let before = output.byteCount
        let transmit = nextTransmit(into: &output, now: now)
        bytesSent &+= UInt64(output.byteCount &- before)
        if transmit != nil { packetsSent &+= 1 }
        return transmit
    }

    private func nextTransmit(into output: inout OutputRawSpan, now: Instant) -> Transmit? {
        if !isClosed, let check = agent.pollTransmit(into: &output, now: now) {
            if startsEarly {
                startEarly(Path(local: check.from, remote: check.to, transport: check.transport), now: now)
            }
            return check
        }
        // Asking may have shown that there was no answer for too long.
        if !isClosed { drainAgent(now: now) }
        guard let transport, let path = agent.selectedPath ?? early?.path else { return nil }
        if pollFlight(transport, into: &output, now: now) { return Transmit(path) }
        guard transport.state == .connected else { return nil }
        guard let association = data.association, packets.fill({ association.pollTransmit(into: &$0, now: now) }) else {
            return isClosed ? sayGoodbye(transport, path: path, into: &output, now: now) : nil
        }
        noteRecord(now)
        let isSealed = packets.withBytes { transport.seal($0, into: &output) }
        guard isSealed else { return nil }
        agent.noteSent(now: now)
        return Transmit(path)
    }

    /// After the association's ABORT comes the alert of close_notify.
    private func sayGoodbye(
        _ transport: any SecureTransport, path: Path, into output: inout OutputRawSpan, now: Instant
    ) -> Transmit? {
        transport.close(now: now)
        return transport.pollTransmit(into: &output) ? Transmit(path) : nil
    }

    // MARK: Facts

    public var isClosed: Bool {
        if case .closed = phase { true } else { false }
    }

    public var isConnected: Bool {
        if case .connected = phase { true } else { false }
    }

    public var selectedPath: Path? { agent.selectedPath }

    /// Figures of the connection since it began.
    public struct Statistics: Sendable {
        /// UDP payload.
        public var bytesSent: UInt64 = 0
        public var bytesReceived: UInt64 = 0
        public var messagesSent: UInt64 = 0
        public var messagesReceived: UInt64 = 0
        public var retransmissions: UInt64 = 0
        public var congestionWindow = 0
        /// Datagrams.
        public var packetsSent: UInt64 = 0
        public var packetsReceived: UInt64 = 0
        /// STUN requests, consent included.
        public var checksSent: UInt64 = 0
        public var checksReceived: UInt64 = 0
        public var pathChanges: UInt64 = 0
        /// Of ICE, begun by either side.
        public var restarts: UInt64 = 0
        /// Of ICE: 0 until the first restart.
        public var generation: UInt32 = 0
        /// A second path is valid and kept warm.
        public var hasStandby = false
        /// Of the path in use; nil: there is none.
        public var localKind: Candidate.Kind?
        public var remoteKind: Candidate.Kind?
        /// Of the other side: malformed, unusable or beyond a limit.
        public var candidatesRefused: UInt64 = 0
    }

    public var statistics: Statistics {
        var figures = data.statistics
        figures.bytesSent = bytesSent
        figures.bytesReceived = bytesReceived
        figures.packetsSent = packetsSent
        figures.packetsReceived = packetsReceived
        let ice = agent.statistics
        figures.checksSent = ice.checksSent &+ ice.checksRetransmitted &+ ice.consentChecksSent
        figures.checksReceived = ice.requestsReceived
        figures.pathChanges = ice.pathChanges
        figures.restarts = ice.restarts
        figures.generation = signaling.agreed?.generation ?? 0
        figures.hasStandby = agent.standbyPath != nil
        let ends = agent.selectedPath.flatMap { agent.candidates(of: $0) }
        figures.localKind = ends?.local.kind
        figures.remoteKind = ends?.remote.kind
        figures.candidatesRefused = ice.candidatesRefused &+ malformedCandidates
        return figures
    }

    /// The path's round trip: measured by checks, otherwise by the data.
    public var roundTrip: Duration? { agent.roundTrip ?? data.association?.statistics.smoothedRoundTrip }

    /// What the other side called the path's remote end: a candidate of its description, or one learned
    /// from its checks.
    public func candidateKind(of path: Path) -> Candidate.Kind {
        remoteCandidates.first { $0.address == path.remote }?.kind ?? .peerReflexive
    }

    /// The other side's candidates as its description gave them.
    public var remoteCandidateTexts: [String] { remoteCandidates.map(\.text) }

    // MARK: Steps

    func emit(_ event: Event) { events.append(event) }

    func drainAgent(now: Instant) {
        while let event = agent.pollEvent() {
            guard !isClosed else { return }
            switch event {
            case .verified(let path):
                if signaling.settled == nil { signaling.settled = signaling.agreed }
                begin(path, now: now)
            case .selected(let path): use(path, now: now)
            case .suspected: suspect(now: now)
            case .trusted: trust(now: now)
            case .restarted: restartSucceeded(now: now)
            case .disconnected:
                fallSilent(now: now)
                need("nothing was heard for too long", now: now)
            case .reconnected:
                doubtSince = .distantFuture
                trust(now: now)
                resumeData(now: now)
                endSilence(now: now)
            case .failed(.consentExpired): agentFailed(.consentExpired, now: now)
            case .failed(let failure): agentFailed(.noPath("ICE found no path: \(failure)"), now: now)
            }
        }
    }

    private func use(_ path: Path, now: Instant) {
        if signaling.settled == nil { signaling.settled = signaling.agreed }
        trust(path.remote)
        isOrphaned = false
        reportPath(path, PathReason(agent.selectionReason))
        // What was on its way on a path that is dead is lost. On one that only gave way it still arrives. The other side
        // may have left it too, which nobody tells: then nothing has come that way any more.
        let hasLeft =
            [.restarted, .moved].contains(agent.selectionReason)
            && lastOnDataPath + max((agent.roundTrip ?? .zero) * 2, .milliseconds(30)) <= now
        let isLost = doubtSince != .distantFuture || hasLeft
        doubtSince = .distantFuture
        if path != dataPath, dataPath != nil {
            moveData(isLost: isLost, now: now)
        } else if isLost {
            resumeData(now: now)
        }
        dataPath = path
        trust(now: now)
    }

    private func begin(_ path: Path, now: Instant) {
        guard case .waiting = phase else { return }
        phase = .connecting(now)
        milestones.verified = now
        trust(path.remote)
        emit(.connecting)
        // A client speaks first; a server's transport is made with its first record, when the round trip is known.
        guard transportRole == .client, let transport = startedTransport(now: now) else { return }
        early?.verified(path, roundTrip: agent.roundTrip, now: now)
        // The whole handshake may have overtaken the check's response.
        if early?.isAnswered == true { _ = drainTransport(transport, now: now) }
    }

    /// The transport, made at its first use; nil before there is a path and a description.
    func startedTransport(now: Instant) -> (any SecureTransport)? {
        if let transport { return transport }
        guard let since = handshakeMayStart, let transportRole, let remote = signaling.agreed?.remote else {
            return nil
        }
        let expected = remote.fingerprints.compactMap { DTLS.Fingerprint(announced: $0) }
            .filter { requiredDigest == nil || $0.bytes == requiredDigest }
        handshakeBegan = now
        let made = provider.makeTransport(
            role: transportRole, expectedFingerprints: expected, mtu: configuration.maximumDatagramSize,
            initialRetransmission: handshakeRetransmission(since: since, now: now))
        guard let made else {
            end(.handshakeFailed("out of memory"), now: now)
            return nil
        }
        transport = made
        made.start(now: now)
        return made
    }

    /// Since when it may; nil: not yet.
    private var handshakeMayStart: Instant? {
        switch phase {
        case .connecting(let since): since
        case .waiting: early?.began
        case .connected, .closed: nil
        }
    }

    /// The time from a server's first response to the ClientHello, which is one round trip; nil for a client, and where
    /// the ClientHello did not wait for the response.
    private func waitForClientHello(since verified: Instant) -> Duration? {
        let wait = handshakeBegan - verified
        return transportRole == .server && wait >= .milliseconds(10) ? wait : nil
    }

    /// RFC 6347 section 4.2.4.1 begins at 1 s for unknown paths. This one has been measured: by our own checks, or by
    /// the wait for the ClientHello.
    private func handshakeRetransmission(since verified: Instant, now: Instant) -> Duration {
        guard let measured = agent.roundTrip ?? waitForClientHello(since: verified) else { return .milliseconds(200) }
        return (measured * 2).clamped(.milliseconds(50), .seconds(1))
    }

    /// True if something authentic was read.
    private func drainTransport(_ transport: any SecureTransport, now: Instant) -> Bool {
        var hasRead = false
        if transport.state == .connected { becomeConnected(transport, now: now) }
        // What comes before the path is verified waits in the transport.
        if case .waiting = phase, transport.state == .connected { return false }
        while !isClosed, packets.fill({ transport.read(into: &$0) }) {
            hasRead = true
            packets.withBytes { data.association?.handle(packet: $0, now: now) }
        }
        switch transport.state {
        case .idle, .handshaking: break
        case .connected: checkAssociation(now: now)
        case .closed: end(.remote, now: now)
        case .failed(.fingerprintMismatch): end(.fingerprintMismatch, now: now)
        case .failed(.closedByPeer): end(.remote, now: now)
        case .failed(let failure): end(.handshakeFailed("DTLS failed: \(failure)"), now: now)
        }
        return hasRead
    }

    private func becomeConnected(_ transport: any SecureTransport, now: Instant) {
        guard case .connecting(let since) = phase else { return }
        phase = .connected
        milestones.authenticated = now
        deadline = .distantFuture
        emit(.connected)
        // A handshake takes a server one round trip, and a client two with DTLS 1.2.
        let roundTrip =
            agent.roundTrip ?? waitForClientHello(since: since)
            ?? (now - handshakeBegan) / (transport.role == .server ? 1 : 2)
        data.start(
            isClient: transport.role == .client,
            packetSize: min(configuration.maximumDatagramSize - transport.recordOverhead, transport.maximumPlaintext),
            roundTrip: roundTrip, now: now)
        early = nil
        noteRecord(now)
    }

    func checkAssociation(now: Instant) {
        if let failure = data.failure { return end(failure, now: now) }
        if milestones.associated == nil, data.association?.isEstablished == true { milestones.associated = now }
    }

    /// Ends the peer. If there is a connection, the other side is told by what is sent afterwards.
    func end(_ reason: CloseReason, now: Instant) {
        guard !isClosed else { return }
        let wasConnected = isConnected
        phase = .closed
        deadline = .distantFuture
        if wasConnected { data.association?.abort(now: now) }
        emit(.closed(reason))
    }

    public func close(now: Instant) { end(.local, now: now) }
}

extension DTLS.Fingerprint {
    /// A fingerprint as a description announced it.
    init?(announced fingerprint: SDP.Fingerprint) {
        guard let algorithm = HashAlgorithm(name: fingerprint.hash.rawValue) else { return nil }
        self.init(algorithm: algorithm, bytes: fingerprint.digest)
    }
}
