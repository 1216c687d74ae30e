public import DTLS
public import ICE
public import SCTP
import SDP
public import Wire

/// Connections without signaling: what the descriptions would have said is known to both sides beforehand.
extension Peer {
    /// The INITs of both ends, where the SCTP handshake is left out.
    public struct DerivedInits: Hashable, Sendable {
        public var local: DerivedInit
        public var remote: DerivedInit

        public init(local: DerivedInit, remote: DerivedInit) {
            self.local = local
            self.remote = remote
        }
    }

    /// A client that came with a ticket, as its first check and the ticket tell it.
    public struct ReturningClient: Sendable {
        /// Ours: the ticket and its password.
        public var credentials: Credentials
        public var clientUfrag: String
        /// The only certificate that is accepted.
        public var fingerprint: DTLS.Fingerprint
        public var maximumMessageSize: UInt64
        public var derivedInits: DerivedInits?

        public init(
            credentials: Credentials, clientUfrag: String, fingerprint: DTLS.Fingerprint, maximumMessageSize: UInt64,
            derivedInits: DerivedInits? = nil
        ) {
            self.credentials = credentials
            self.clientUfrag = clientUfrag
            self.fingerprint = fingerprint
            self.maximumMessageSize = maximumMessageSize
            self.derivedInits = derivedInits
        }
    }

    /// What a client knows of a server that expects it back: the server's answer, in effect.
    public struct ExpectedServer: Sendable {
        public var ufrag: String
        public var password: String
        /// As in SDP: "sha-256 AB:CD:...".
        public var fingerprint: String
        public var candidates: [String]
        public var sctpPort: UInt16
        public var maximumMessageSize: UInt64
        public var derivedInits: DerivedInits?

        public init(
            ufrag: String, password: String, fingerprint: String, candidates: [String], sctpPort: UInt16 = 5000,
            maximumMessageSize: UInt64, derivedInits: DerivedInits? = nil
        ) {
            self.ufrag = ufrag
            self.password = password
            self.fingerprint = fingerprint
            self.candidates = candidates
            self.sctpPort = sctpPort
            self.maximumMessageSize = maximumMessageSize
            self.derivedInits = derivedInits
        }
    }

    /// Begins at once with the checks, as if the server had answered an offer.
    public func resume(_ server: ExpectedServer, now: Instant) throws(DescriptionError) {
        guard configuration.style == .manual, signaling.open == nil, signaling.agreed == nil, role == .offerer else {
            throw .wrongState("this peer has its description already")
        }
        guard let fingerprint = SDP.Fingerprint(parsing: server.fingerprint) else {
            throw .unacceptable("the fingerprint is malformed")
        }
        data.derivedInits = server.derivedInits
        startsEarly = true
        var remote = DataTransport(
            iceUfrag: server.ufrag, icePwd: server.password, isLite: true, fingerprints: [fingerprint],
            setup: .passive, sctpPort: server.sctpPort, maxMessageSize: server.maximumMessageSize)
        remote.candidates = server.candidates
        remote.hasEndOfCandidates = true
        try check(remote)
        adopt(remote, generation: 0, credentials, isDTLSClient: true, now: now)
    }

    /// The first check is about to be handed in; there is no description, and none will come.
    func admit(_ client: ReturningClient, now: Instant) {
        guard let fingerprint = SDP.Fingerprint(hash: .sha256, digest: client.fingerprint.bytes),
            // A Lite agent sends no checks and has no use for the client's password.
            let theirs = Credentials(ufrag: client.clientUfrag, password: String(repeating: "0", count: 22))
        else { return end(.noPath("the ticket's check is malformed"), now: now) }
        let remote = DataTransport(
            iceUfrag: client.clientUfrag, icePwd: theirs.password, fingerprints: [fingerprint], setup: .active,
            maxMessageSize: client.maximumMessageSize)
        data.derivedInits = client.derivedInits
        adopt(remote, generation: 0, credentials, isDTLSClient: false, now: now)
    }
}

/// A ClientHello right behind the first check instead of after the check's response, which saves a round trip. Only for
/// a server that expects the client by a ticket: it takes records from where a check came from. One that did not get the
/// check drops the ClientHello, and one that the path swallows costs nothing but its time: it is sent again as it is
/// when the path is known. The same record twice does no harm (RFC 6347 section 4.1.2.6).
struct EarlyFlight {
    /// Where the first check went.
    let path: Path
    let began: Instant
    fileprivate var clientHello: [UInt8] = []
    /// Something came back.
    var isAnswered = false
    private var repeats = Instant.distantFuture

    init(path: Path, began: Instant) {
        self.path = path
        self.began = began
    }

    var nextTimeout: Instant? { isAnswered || repeats == .distantFuture ? nil : repeats }

    /// The first check was answered, which happens once. The server's flight was sent right behind the answer, unless the ClientHello went
    /// elsewhere, or was lost as a check was: nothing measured tells that a check was sent more than once.
    mutating func verified(_ path: Path, roundTrip: Duration?, now: Instant) {
        repeats = now
        if path.remote == self.path.remote, let roundTrip {
            repeats = now + (roundTrip / 2).clamped(.milliseconds(20), .milliseconds(200))
        }
    }

    /// The ClientHello once more, if it is time.
    fileprivate mutating func takeRepetition(now: Instant) -> [UInt8]? {
        guard !isAnswered, repeats <= now else { return nil }
        repeats = .distantFuture
        return clientHello
    }
}

extension Peer {
    /// The first check is on its way.
    func startEarly(_ path: Path, now: Instant) {
        startsEarly = false
        guard case .waiting = phase, transportRole == .client, transport == nil else { return }
        early = EarlyFlight(path: path, began: now)
        trust(path.remote)
        _ = startedTransport(now: now)
    }

    /// Writes the next datagram of the handshake.
    func pollFlight(_ transport: any SecureTransport, into output: inout OutputRawSpan, now: Instant) -> Bool {
        if let bytes = early?.takeRepetition(now: now) { return output.write(bytes) }
        guard early?.clientHello.isEmpty == true else { return transport.pollTransmit(into: &output) }
        guard packets.fill({ transport.pollTransmit(into: &$0) }) else { return false }
        let bytes = packets.withBytes { $0.copied() }
        early?.clientHello = bytes
        return output.write(bytes)
    }
}
