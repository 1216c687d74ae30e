public import Wire

extension Association {
    /// What an association is made with. The defaults suit data channels over DTLS.
    public struct Configuration: Sendable {
        public var localPort: UInt16 = 5000
        public var remotePort: UInt16 = 5000

        /// Bytes of one SCTP packet as handed to DTLS: 1200 less the overhead of a DTLS 1.2 AES-GCM record.
        public var maximumPacketSize = 1200 - 37

        /// Bounds the advertised receiver window. Everything received and not yet taken with
        /// ``Association/pollEvent()`` counts against it, together with an overhead per message. It is
        /// raised to what one message of ``maximumMessageSize`` needs. Memory held for the peer stays
        /// below twice this plus one message.
        public var receiveBuffer = 1 << 21
        /// Bytes accepted by `send` that the peer has not acknowledged yet, an overhead per message included.
        public var sendBuffer = 1 << 24
        /// The largest message that is taken from the peer; a larger one aborts the association.
        public var maximumMessageSize = 1 << 18

        /// Streams asked for; the lesser of this and what the peer takes is in ``Association/Features``.
        public var outboundStreams: UInt16 = 65535
        /// Streams the peer may use.
        public var inboundStreams: UInt16 = 65535

        /// The first retransmission time-out, clamped to 50 ms ... `rtoMaximum`. RFC 9260 says 1 s for
        /// a path of which nothing is known; ICE and DTLS have measured this one before SCTP starts, so
        /// three measured round trips are a good value.
        public var rtoInitial: Duration = .milliseconds(500)
        /// RFC 9260 section 16 recommends 1 s, from times when acknowledgements were delayed by up to
        /// 500 ms. This association asks for an immediate acknowledgement of the last chunk of every
        /// flight (RFC 7053), so a delayed one does not look like a loss and the bound can be what TCP
        /// has used for two decades.
        public var rtoMinimum: Duration = .milliseconds(200)
        /// RFC 9260 recommends 60 s. ICE consent ends the connection after 30 s of silence, so longer
        /// pauses between attempts would only waste the path's recovery.
        public var rtoMaximum: Duration = .seconds(10)
        /// RFC 9260 section 6.2: an acknowledgement waits for a second packet at most 200 ms.
        public var delayedAcknowledgement: Duration = .milliseconds(200)
        /// Idle time after which a HEARTBEAT is sent; zero turns it off.
        public var heartbeatInterval: Duration = .seconds(30)
        /// Association.Max.Retrans: consecutive unanswered retransmissions before the peer counts as gone.
        public var maximumRetransmissions = 10
        /// Max.Init.Retransmits.
        public var maximumInitRetransmissions = 8
        /// Valid.Cookie.Life.
        public var cookieLifetime: Duration = .seconds(60)

        /// Offer and accept packets without checksum, since DTLS protects them already (RFC 9653). The
        /// offer is part of the first INIT only, which is followed by one without: pion's SCTP up to 1.8 drops an
        /// INIT that carries it.
        public var zeroChecksum = true

        /// The first congestion window in packets (RFC 6928), and the most sent in one burst.
        public var initialWindowPackets = 10

        public init() {}
    }
}
