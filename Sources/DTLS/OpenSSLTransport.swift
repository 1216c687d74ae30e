internal import COpenSSL
public import Wire

/// A DTLS connection of OpenSSL.
///
/// Time: OpenSSL looks at the real clock for its retransmissions, whatever `now` says. ``nextTimeout``
/// converts what OpenSSL has left into the caller's time, so with a clock that runs at real speed it
/// is right, and on virtual time retransmissions come when real time has passed. The deadline of the
/// handshake follows `now`.
public final class OpenSSLTransport: SecureTransport {
    public static let defaultMTU = 1200
    public static let defaultHandshakeDeadline = Duration.seconds(30)

    public let role: TransportRole
    public private(set) var counters = TransportCounters()

    private let context: Context
    private let connection: OpaquePointer
    private let handshakeDeadline: Duration
    private var deadline = Instant.distantFuture
    private var retransmission: Instant?

    /// - Parameters:
    ///   - mtu: the largest UDP payload of the handshake; 300 to 4000.
    ///   - initialRetransmission: how long the first flight waits for an answer, 50 ms to 1 s; it doubles.
    /// Nil without memory.
    public init?(
        context: Context, role: TransportRole, expectedFingerprints: [Fingerprint] = [],
        mtu: Int = OpenSSLTransport.defaultMTU, initialRetransmission: Duration = .seconds(1),
        handshakeDeadline: Duration = OpenSSLTransport.defaultHandshakeDeadline
    ) {
        let wait = initialRetransmission.clamped(.milliseconds(50), .seconds(1)).microseconds
        guard
            let connection = unsafe dtls_new(
                context.pointer, role == .server, max(300, min(mtu, 4000)), UInt32(truncatingIfNeeded: wait))
        else { return nil }
        self.context = context
        self.role = role
        self.handshakeDeadline = handshakeDeadline
        self.expectedFingerprints = expectedFingerprints
        unsafe self.connection = connection
        expect(expectedFingerprints)
    }

    deinit { unsafe dtls_free(connection) }

    public var expectedFingerprints: [Fingerprint] {
        didSet { expect(expectedFingerprints) }
    }

    private func expect(_ fingerprints: [Fingerprint]) {
        unsafe dtls_clear_fingerprints(connection)
        for fingerprint in fingerprints.strongest() {
            let bits = Int32(fingerprint.algorithm.byteCount * 8)
            _ = unsafe dtls_expect_fingerprint(connection, bits, fingerprint.bytes, fingerprint.bytes.count)
        }
    }

    public var peerFingerprint: Fingerprint? {
        var digest = [UInt8](repeating: 0, count: 32)
        guard unsafe dtls_peer_fingerprint(connection, &digest) else { return nil }
        return Fingerprint(algorithm: .sha256, bytes: digest)
    }

    public var negotiated: NegotiatedParameters? {
        guard isConnected, let version = unsafe dtls_version(connection), let cipher = unsafe dtls_cipher(connection)
        else {
            return nil
        }
        return unsafe NegotiatedParameters(version: String(cString: version), cipher: String(cString: cipher))
    }

    public var recordOverhead: Int { Int(DTLS_RECORD_OVERHEAD) }
    public var maximumPlaintext: Int { Int(DTLS_MAXIMUM_PLAINTEXT) }

    private var isConnected: Bool { unsafe dtls_state(connection) == DTLS_CONNECTED }
    private var isHandshaking: Bool { unsafe dtls_state(connection) == DTLS_HANDSHAKING }

    public var state: TransportState {
        switch unsafe dtls_state(connection) {
        case DTLS_IDLE: .idle
        case DTLS_HANDSHAKING: .handshaking
        case DTLS_CONNECTED: .connected
        case DTLS_CLOSED_BY_US: .closed(byPeer: false)
        case DTLS_CLOSED_BY_PEER: .closed(byPeer: true)
        default: .failed(failure)
        }
    }

    private var failure: TransportFailure {
        switch unsafe dtls_failure(connection) {
        case DTLS_FAILURE_FINGERPRINT: return .fingerprintMismatch
        case DTLS_FAILURE_NO_CERTIFICATE: return .noCertificate
        case DTLS_FAILURE_ALERT: return .alert(unsafe dtls_alert(connection))
        case DTLS_FAILURE_TIMEOUT: return .handshakeTimeout
        case DTLS_FAILURE_CLOSED_BY_PEER: return .closedByPeer
        case DTLS_FAILURE_RESOURCES: return .outOfResources
        default:
            let text = unsafe dtls_failure_text(connection)
            return .protocolError(unsafe text.map { unsafe String(cString: $0) } ?? "unknown")
        }
    }

    public func start(now: Instant) {
        guard unsafe dtls_state(connection) == DTLS_IDLE else { return }
        deadline = now + handshakeDeadline
        unsafe dtls_start(connection)
        updateTimer(now)
    }

    public func receive(_ datagram: RawSpan, now: Instant) {
        let receipt = unsafe datagram.withUnsafeBytes { unsafe dtls_receive(connection, $0.baseAddress, $0.count) }
        if receipt == DTLS_DROPPED { counters.droppedDatagrams &+= 1 }
        if receipt == DTLS_REJECTED { counters.rejectedDatagrams &+= 1 }
        updateTimer(now)
    }

    public func pollTransmit(into output: inout OutputRawSpan) -> Bool {
        append(to: &output) { unsafe dtls_poll_transmit(connection, $0, $1) }
    }

    public func seal(_ plaintext: RawSpan, into output: inout OutputRawSpan) -> Bool {
        append(to: &output) { base, room in
            unsafe plaintext.withUnsafeBytes { unsafe dtls_seal(connection, $0.baseAddress, $0.count, base, room) }
        }
    }

    public func read(into output: inout OutputRawSpan) -> Bool {
        append(to: &output) { unsafe dtls_read(connection, $0, $1) }
    }

    /// False if `write`, which answers how many bytes it wrote, had none.
    @inline(__always)
    private func append(
        to output: inout OutputRawSpan, _ write: (_ base: UnsafeMutableRawPointer, _ room: Int) -> Int
    ) -> Bool {
        unsafe output.withUnsafeMutableBytes { buffer, count in
            guard let base = buffer.baseAddress else { return false }
            let length = unsafe write(base + count, buffer.count - count)
            count += length
            return length > 0
        }
    }

    public var nextTimeout: Instant? {
        if isHandshaking { return min(retransmission ?? deadline, deadline) }
        return isConnected ? retransmission : nil
    }

    public func handleTimeout(now: Instant) {
        if isHandshaking, now >= deadline {
            unsafe dtls_fail(connection, DTLS_FAILURE_TIMEOUT)
            return
        }
        unsafe dtls_handle_timeout(connection)
        updateTimer(now)
    }

    private func updateTimer(_ now: Instant) {
        var left: Int64 = 0
        retransmission = unsafe dtls_timeout_us(connection, &left) ? now + .microseconds(left) : nil
    }

    public func exportKeys(label: String, length: Int) -> [UInt8]? {
        guard length > 0, length <= 4096 else { return nil }
        var keys = [UInt8](repeating: 0, count: length)
        var label = label
        let exported = label.withUTF8 { label in
            unsafe label.withMemoryRebound(to: CChar.self) { label in
                unsafe dtls_export_keys(connection, label.baseAddress, label.count, &keys, length)
            }
        }
        return exported ? keys : nil
    }

    public func close(now: Instant) { unsafe dtls_close(connection) }

    public func releaseBuffers() { unsafe dtls_release_buffers(connection) }
}
