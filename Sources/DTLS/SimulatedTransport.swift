public import Wire

/// **No security.** A stand-in for DTLS in simulations and fuzzing: it runs on virtual time and from
/// a seed, and behaves towards its neighbours as DTLS does. A handshake shows both fingerprints and
/// repeats itself when datagrams are lost; damaged, foreign and replayed records are dropped; records
/// have headers of DTLS and grow by as many bytes. Anybody can read and forge them.
public final class SimulatedContext: SecureTransportProvider {
    private let fingerprints: [Fingerprint]
    private var generator: SeededGenerator

    public init(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        fingerprints = HashAlgorithm.allCases.compactMap {
            Fingerprint(algorithm: $0, bytes: generator.bytes($0.byteCount))
        }
        self.generator = generator
    }

    public func localFingerprint(_ algorithm: HashAlgorithm) -> Fingerprint { fingerprints[algorithm.rawValue] }

    public func makeTransport(
        role: TransportRole, expectedFingerprints: [Fingerprint], mtu: Int, initialRetransmission: Duration
    ) -> (any SecureTransport)? {
        SimulatedTransport(
            role: role, localFingerprints: fingerprints, expectedFingerprints: expectedFingerprints,
            initialRetransmission: initialRetransmission, seed: generator.next())
    }
}

/// **No security.** See ``SimulatedContext``.
///
/// The client repeats Hello until the server's Hello comes, then says Done. The server repeats its
/// Hello until Done or data comes. So a client is connected after one round trip, a server after
/// one and a half.
public final class SimulatedTransport: SecureTransport {
    public static let handshakeDeadline = Duration.seconds(30)

    public let role: TransportRole
    public private(set) var state = TransportState.idle
    public private(set) var counters = TransportCounters()
    public private(set) var peerFingerprint: Fingerprint?
    public var expectedFingerprints: [Fingerprint]
    public let recordOverhead = SimulatedRecord.overhead
    public let maximumPlaintext = 4096

    /// Where a datagram's content belongs. The values are DTLS content types, so that demultiplexing works.
    private enum Kind: UInt8 {
        case alert = 21
        case handshake = 22
        case data = 23
    }

    private enum Message: UInt8 {
        case hello = 1
        case done = 2
    }

    private let localFingerprints: [Fingerprint]
    private let localNonce: UInt64
    private var peerNonce: UInt64 = 0
    private var sequence: UInt64 = 0
    private var window = ReplayWindow()

    /// Alerts and handshake messages to send, at most a few.
    private var outgoing: [[UInt8]] = []
    /// Plaintexts received and not yet read; one datagram carries one.
    private var incoming: [[UInt8]] = []
    private var incomingOffset = 0

    private var retransmission: Instant?
    private var deadline = Instant.distantFuture
    private var wait: Duration

    public init(
        role: TransportRole, localFingerprints: [Fingerprint], expectedFingerprints: [Fingerprint],
        initialRetransmission: Duration = .seconds(1), seed: UInt64
    ) {
        var generator = SeededGenerator(seed: seed)
        self.role = role
        self.localFingerprints = localFingerprints
        self.expectedFingerprints = expectedFingerprints
        localNonce = generator.next() | 1
        wait = initialRetransmission.clamped(.milliseconds(50), .seconds(1))
    }

    public var negotiated: NegotiatedParameters? {
        state == .connected ? NegotiatedParameters(version: "simulated", cipher: "NULL") : nil
    }

    /// What both ends know and earlier or later connections do not.
    private var session: UInt64 {
        role == .client ? SimulatedRecord.mix(localNonce, peerNonce) : SimulatedRecord.mix(peerNonce, localNonce)
    }

    public func start(now: Instant) {
        guard state == .idle else { return }
        state = .handshaking
        deadline = now + SimulatedTransport.handshakeDeadline
        if role == .client { sendFlight(now: now) }
    }

    // MARK: Receiving

    public func receive(_ datagram: RawSpan, now: Instant) {
        let first = datagram.byte(0)
        guard state == .handshaking || state == .connected, first >= 20, first <= 63 else {
            counters.droppedDatagrams &+= 1
            return
        }
        guard let kind = Kind(rawValue: first), let record = SimulatedRecord(datagram) else {
            counters.rejectedDatagrams &+= 1
            return
        }
        let isAuthentic = record.hasIntegrity(session: kind == .handshake ? 0 : session)
        guard isAuthentic, kind == .handshake || window.accept(record.sequence) else {
            // A refusal can come before there is a session.
            if kind == .alert, state == .handshaking, record.hasIntegrity(session: 0) {
                handleAlert(record.body)
            } else {
                counters.rejectedDatagrams &+= 1
            }
            return
        }
        switch kind {
        case .handshake: handleHandshake(record.body, now: now)
        case .alert: handleAlert(record.body)
        case .data:
            connect()
            guard state == .connected else { return }
            incoming.append(record.body.copied())
        }
    }

    private func handleHandshake(_ body: RawSpan, now: Instant) {
        var reader = ByteReader(body)
        guard let type = reader.read(UInt8.self), let message = Message(rawValue: type),
            let nonce = reader.read(UInt64.self)
        else { return }
        switch (message, role) {
        case (.hello, _):
            guard peerNonce == 0 || peerNonce == nonce, readFingerprint(&reader, nonce: nonce) else { return }
            if role == .client {
                if reader.read(UInt64.self) == localNonce { connect() }
                if state == .connected { send(.handshake, handshakeMessage(.done)) }
            } else if state == .handshaking {
                sendFlight(now: now)
            }
        case (.done, .server):
            if nonce == peerNonce, reader.read(UInt64.self) == localNonce { connect() }
        case (.done, .client):
            return
        }
    }

    /// False if the peer is somebody else, which ends the handshake, or the message is broken.
    private func readFingerprint(_ reader: inout ByteReader, nonce: UInt64) -> Bool {
        var fingerprints: [Fingerprint] = []
        for algorithm in HashAlgorithm.allCases {
            guard let bytes = reader.read(count: algorithm.byteCount)?.copied(),
                let fingerprint = Fingerprint(algorithm: algorithm, bytes: bytes)
            else { return false }
            fingerprints.append(fingerprint)
        }
        guard state == .handshaking else { return true }
        peerNonce = nonce
        peerFingerprint = fingerprints.first
        guard expectedFingerprints.strongest().contains(where: { fingerprints.contains($0) }) else {
            send(.alert, [2, 42])
            end(.failed(.fingerprintMismatch))
            return false
        }
        return true
    }

    private func handleAlert(_ body: RawSpan) {
        if body.byte(0) == 2 {
            end(.failed(.alert(body.byte(1))))
        } else if state == .handshaking {
            end(.failed(.closedByPeer))
        } else {
            send(.alert, [1, 0])
            end(.closed(byPeer: true))
        }
    }

    // MARK: Handshake

    private func connect() {
        guard state == .handshaking, peerNonce != 0 else { return }
        state = .connected
        retransmission = nil
    }

    private func end(_ state: TransportState) {
        self.state = state
        retransmission = nil
        incoming.removeAll()
        incomingOffset = 0
    }

    private func sendFlight(now: Instant) {
        send(.handshake, handshakeMessage(.hello))
        retransmission = now + wait
    }

    private func handshakeMessage(_ message: Message) -> [UInt8] {
        var bytes: [UInt8] = [message.rawValue]
        SimulatedRecord.append(localNonce, to: &bytes)
        if message == .hello {
            for fingerprint in localFingerprints { bytes += fingerprint.bytes }
        }
        SimulatedRecord.append(peerNonce, to: &bytes)
        return bytes
    }

    private func send(_ kind: Kind, _ body: [UInt8]) {
        guard outgoing.count < 16 else { return }
        var datagram = [UInt8](repeating: 0, count: body.count + recordOverhead)
        let key = kind == .handshake || state != .connected ? 0 : session
        let number = nextSequence()
        datagram.withUnsafeMutableBytes { buffer in
            var output = unsafe OutputRawSpan(buffer: buffer, initializedCount: 0)
            SimulatedRecord.write(kind.rawValue, sequence: number, session: key, body: body.span.bytes, into: &output)
            _ = unsafe output.finalize(for: buffer)
        }
        outgoing.append(datagram)
    }

    private func nextSequence() -> UInt64 {
        sequence &+= 1
        return sequence
    }

    // MARK: Sending and reading

    public func pollTransmit(into output: inout OutputRawSpan) -> Bool {
        guard let datagram = outgoing.first, output.write(datagram) else { return false }
        outgoing.removeFirst()
        return true
    }

    public func seal(_ plaintext: RawSpan, into output: inout OutputRawSpan) -> Bool {
        guard state == .connected, plaintext.byteCount > 0, plaintext.byteCount <= maximumPlaintext,
            output.freeCapacity >= plaintext.byteCount + recordOverhead
        else { return false }
        SimulatedRecord.write(
            Kind.data.rawValue, sequence: nextSequence(), session: session, body: plaintext, into: &output)
        return true
    }

    public func read(into output: inout OutputRawSpan) -> Bool {
        guard incomingOffset < incoming.count, output.write(incoming[incomingOffset]) else { return false }
        incomingOffset += 1
        if incomingOffset == incoming.count {
            incoming.removeAll(keepingCapacity: true)
            incomingOffset = 0
        }
        return true
    }

    // MARK: Time

    public var nextTimeout: Instant? {
        state == .handshaking ? min(retransmission ?? deadline, deadline) : nil
    }

    public func handleTimeout(now: Instant) {
        guard state == .handshaking else { return }
        if now >= deadline {
            end(.failed(.handshakeTimeout))
        } else if let due = retransmission, now >= due {
            wait = min(wait * 2, .seconds(5))
            sendFlight(now: now)
        }
    }

    // MARK: The rest

    public func exportKeys(label: String, length: Int) -> [UInt8]? {
        guard state == .connected, length > 0, length <= 4096 else { return nil }
        let seed = SimulatedRecord.checksum(Array(label.utf8).span.bytes, key: session)
        var generator = SeededGenerator(seed: seed)
        return generator.bytes(length)
    }

    public func close(now: Instant) {
        guard !state.isOver else { return }
        if state == .connected { send(.alert, [1, 0]) }
        end(.closed(byPeer: false))
    }

    /// Times that ``releaseBuffers()`` was called.
    public private(set) var releases = 0

    public func releaseBuffers() { releases += 1 }
}
