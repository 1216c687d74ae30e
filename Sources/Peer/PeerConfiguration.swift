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
        public var timers = Timers()
        public var style = Style.manual
        /// Only paths that begin at a relay of ours: no other candidate is told, checked or used.
        public var relayOnly = false
        /// Names in candidates, as browsers hide addresses behind, are asked for with ``Event/resolve(name:)``.
        public var resolvesNames = false

        public init() {}

        public var connectTimeout: Duration {
            get { timers.connect }
            set { timers.connect = newValue }
        }

        /// Nil: 5 s, and 8 s for a Lite agent, which cannot ask and lives on checks that may come every 6 s.
        public var disconnectTimeout: Duration? {
            get { timers.disconnect }
            set { timers.disconnect = newValue }
        }

        public var failedTimeout: Duration {
            get { timers.failed }
            set { timers.failed = newValue }
        }
    }

    /// Who exchanges descriptions.
    public enum Style: Hashable, Sendable {
        /// The host, with one offer and one answer.
        case manual
        /// The peer itself (W3C WebRTC section 10.7). Of two offers that meet, this side takes its own back.
        case polite
        /// Likewise; of two offers that meet, this side does not answer the other one.
        case impolite
    }

    /// When what is done.
    public struct Timers: Hashable, Sendable {
        /// Between new checks (RFC 8445 section 14.2, Ta); nil: the agent's own.
        public var checkInterval: Duration?
        /// RFC 7675 section 5.1.
        public var consentInterval = Duration.seconds(5)
        /// A path that carries nothing is asked at least this often; nil: half of ``disconnect``.
        public var heartbeat: Duration?
        /// While data flows, a path that is silent for this long is probed.
        public var suspicion = Duration.milliseconds(150)
        /// How often a second path is kept warm; nil: none is.
        public var standbyInterval: Duration? = .milliseconds(2500)
        /// RFC 8863: no path is given up earlier.
        public var patience = Duration.milliseconds(39_500)
        /// From the first description of the other side to the end of the handshake.
        public var connect = Duration.seconds(30)
        /// Silence after which ``Event/disconnected`` is told; nil: 5 s, and 8 s for a Lite agent.
        public var disconnect: Duration?
        /// RFC 7675 section 5.1: silence after which nothing may be sent any more. It ends a connection that is not
        /// being restarted.
        public var failed = Duration.seconds(30)
        /// An ICE restart that has no path by then, or an offer that has no answer, is tried again.
        public var restart = Duration.seconds(5)
        /// In a row; 0: never by itself.
        public var restartAttempts = 10
        /// Between attempts: at random in this range.
        public var restartPause: ClosedRange<Duration> = .milliseconds(250) ... .seconds(3)

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
        /// A message for the other side, to be carried there in order. Styles that negotiate.
        case signal(Signal)
        /// The path in use is another, or is the first.
        case path(PathReport)
        case restart(RestartReport)
        /// A candidate has a name for an address: ``Peer/resolved(name:ip:now:)`` is to be called with what it stands for.
        case resolve(name: String)
        /// The user fragments by which checks for this peer are told apart are others now: ``Peer/localUfrags``.
        case ufragsChanged
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
