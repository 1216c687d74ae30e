public import Wire

/// Which side of the handshake a transport plays. RFC 8842 section 5: the endpoint with
/// `a=setup:active` is the client, the one with `a=setup:passive` is the server.
public enum TransportRole: Hashable, Sendable {
    case client
    case server

    public var opposite: TransportRole { self == .client ? .server : .client }
}

/// Why a transport failed. A failed transport sends nothing but what is already queued (its alert).
public enum TransportFailure: Error, Hashable, Sendable {
    /// The peer's certificate has none of the fingerprints its description announced.
    case fingerprintMismatch
    /// The peer sent no certificate.
    case noCertificate
    /// The peer refused with this fatal alert (RFC 8446 section 6; 42 is bad_certificate).
    case alert(UInt8)
    /// The handshake did not finish in time.
    case handshakeTimeout
    /// The peer closed before the handshake was over.
    case closedByPeer
    /// The peer broke the protocol, or has no parameters in common with us; the text says how.
    case protocolError(String)
    /// The library below could not get memory or random bytes.
    case outOfResources
}

public enum TransportState: Hashable, Sendable {
    case idle
    case handshaking
    case connected
    case closed(byPeer: Bool)
    case failed(TransportFailure)

    /// Closed or failed: nothing will be received or sent any more.
    public var isOver: Bool {
        switch self {
        case .idle, .handshaking, .connected: false
        case .closed, .failed: true
        }
    }
}

/// What a handshake agreed on.
public struct NegotiatedParameters: Hashable, Sendable {
    /// For example `DTLSv1.2`.
    public var version: String
    /// The cipher suite by its standard name, for example `TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256`.
    public var cipher: String

    public init(version: String, cipher: String) {
        self.version = version
        self.cipher = cipher
    }
}

/// What a transport dropped without a word to anyone.
public struct TransportCounters: Hashable, Sendable {
    /// Datagrams that are no DTLS at all, come before `start` or after the end, or would have
    /// to be kept longer than they are worth.
    public var droppedDatagrams: UInt64 = 0
    /// Datagrams of DTLS records from which nothing could be read: forged, damaged or replayed ones.
    public var rejectedDatagrams: UInt64 = 0

    public init() {}
}

/// A datagram transport with a handshake that authenticates the peer by its certificate's
/// fingerprint: DTLS, or a stand-in for it in simulations. It does no I/O and is used from one thread.
///
/// Feed with ``start(now:)``, ``receive(_:now:)`` and ``handleTimeout(now:)``. After each of them, and
/// after ``close(now:)``: look at ``state``, call ``read(into:)`` until it answers false, then
/// ``pollTransmit(into:)`` until it answers false, then look at ``nextTimeout``.
public protocol SecureTransport: AnyObject {
    var role: TransportRole { get }
    var state: TransportState { get }

    /// The peer's certificate must have one of these; the strongest hash among them counts. May be
    /// set until the peer's certificate arrives; with none the handshake fails.
    var expectedFingerprints: [Fingerprint] { get set }

    /// SHA-256 of the certificate the peer has shown, whether it was the expected one or not.
    var peerFingerprint: Fingerprint? { get }
    /// Nil until connected.
    var negotiated: NegotiatedParameters? { get }
    var counters: TransportCounters { get }

    /// The largest number of bytes that ``seal(_:into:)`` adds.
    var recordOverhead: Int { get }
    /// The largest plaintext that ``seal(_:into:)`` takes.
    var maximumPlaintext: Int { get }

    /// Starts the handshake: a client's first flight is ready, a server listens. Only the first call counts.
    func start(now: Instant)

    /// Takes one datagram. Call ``read(into:)`` until it answers false before the next one.
    func receive(_ datagram: RawSpan, now: Instant)

    /// Appends the next datagram of the handshake, or an alert. False if there is none, or if it does
    /// not fit: offer room for the MTU given at creation.
    func pollTransmit(into output: inout OutputRawSpan) -> Bool

    /// Appends one datagram with one record that carries `plaintext`. False, and nothing appended, if
    /// not connected, if `plaintext` is empty or longer than ``maximumPlaintext``, or if there is not
    /// room for it and ``recordOverhead``.
    func seal(_ plaintext: RawSpan, into output: inout OutputRawSpan) -> Bool

    /// Appends the plaintext of the next record. False if there is none or if it cannot fit.
    func read(into output: inout OutputRawSpan) -> Bool

    /// When to call ``handleTimeout(now:)``.
    var nextTimeout: Instant? { get }
    func handleTimeout(now: Instant)

    /// Keys for another protocol from this handshake (RFC 5705). The same at both ends. Nil until connected.
    func exportKeys(label: String, length: Int) -> [UInt8]?

    /// Says goodbye to the peer, if there is a connection, and ends.
    func close(now: Instant)

    /// Gives memory back that an idle connection does not need. It is taken again at the next record.
    func releaseBuffers()
}

/// Makes transports that share a certificate and settings: ``Context``, or ``SimulatedContext``.
public protocol SecureTransportProvider: AnyObject {
    /// The fingerprint of our own certificate, for the session description.
    func localFingerprint(_ algorithm: HashAlgorithm) -> Fingerprint

    /// - Parameters:
    ///   - mtu: the largest UDP payload to send during the handshake.
    ///   - initialRetransmission: how long the first flight waits for an answer; about twice the round trip.
    func makeTransport(
        role: TransportRole, expectedFingerprints: [Fingerprint], mtu: Int, initialRetransmission: Duration
    ) -> (any SecureTransport)?
}
