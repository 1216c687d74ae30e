public import Wire

extension Peer {
    /// What a peer is made with.
    public struct Configuration: Sendable {
        /// Answering: only answer checks (RFC 8445 section 2.5).
        public var isLite = false
        /// Answering an offer that leaves the choice: take the DTLS client's part.
        public var prefersActive = false
        /// The largest UDP payload sent.
        public var maximumDatagramSize = 1200
        /// The largest message accepted; it is advertised (RFC 8841 section 6).
        public var maximumMessageSize = 262_144
        /// Received bytes held for a host that does not take them.
        public var receiveBuffer = 2 << 20
        public var maximumChannels = 1024
        public var connectTimeout = Duration.seconds(30)
        /// Nil: 5 s, and 8 s for a Lite agent, which cannot ask and lives on checks that may come every 6 s.
        public var disconnectTimeout: Duration?
        public var failedTimeout = Duration.seconds(30)

        public init() {}
    }

    /// Why a peer ended.
    public enum CloseReason: Hashable, Sendable {
        /// ``Peer/close(now:)`` was called.
        case local
        /// The other side said goodbye.
        case remote
        case noPath(String)
        case consentExpired
        case timeout(String)
        case handshakeFailed(String)
        case fingerprintMismatch
        case associationFailed(String)
    }

    /// What happened to the connection, in order. Events of channels have their own queue.
    public enum Event: Hashable, Sendable {
        /// The first check verified: there is a path, and DTLS begins.
        case connecting
        /// DTLS is finished: the other side is the one its description announced.
        case connected
        /// Nothing authenticated arrived for a while. It may come back by itself.
        case disconnected
        case reconnected
        /// The end. The datagrams that say goodbye are still to be taken with ``Peer/pollTransmit(into:now:)``.
        case closed(CloseReason)
    }

    /// A description could not be used.
    public enum DescriptionError: Error, Hashable, Sendable {
        /// It is well-formed, and no connection can come of it; the sentence says why.
        case unacceptable(String)
        /// This call does not fit what was called before.
        case wrongState(String)
    }
}
