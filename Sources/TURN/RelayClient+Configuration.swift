public import Wire

/// How a client reaches its TURN server.
public enum RelayTransport: Hashable, Sendable, CaseIterable {
    case udp
    case tcp
    case tls

    /// Messages follow one another in a stream of bytes, and none is lost or sent again.
    public var isStream: Bool { self != .udp }
}

extension RelayClient {
    /// The families of the relayed addresses.
    public enum Families: Hashable, Sendable {
        case ipv4
        case ipv6
        /// One of each (RFC 8656 section 7.1, ADDITIONAL-ADDRESS-FAMILY). A server that has only one gives that.
        case both
    }

    public struct Configuration: Sendable {
        public var families = Families.ipv4
        /// How long an allocation is asked for. RFC 8656 section 7.2 has servers begin at 10 minutes. What they grant
        /// counts.
        public var lifetime = Duration.seconds(600)
        /// Asks for a ticket that keeps the allocation when the client's address changes (RFC 8016).
        public var wantsMobility = true

        /// First retransmission over UDP; each later one waits twice as long (RFC 8489 section 6.2.1).
        public var retransmission = Duration.milliseconds(250)
        /// Requests of one transaction (Rc of RFC 8489 section 6.2.1).
        public var transmissions = 7
        /// How long an answer to the last one is waited for, in first retransmission times (Rm, likewise).
        public var lastWait: Int64 = 16
        /// How long an answer is waited for on a stream (Ti of RFC 8489 section 6.2.2).
        public var streamTimeout = Duration.milliseconds(39_500)
        /// An error without a signature to a signed request is not believed at once (RFC 8489 section 9.2.5): only
        /// if nothing better comes for so long.
        public var unsignedErrorWait = Duration.milliseconds(500)
        /// How long after the last packet a binding indication keeps the NAT's mapping open; UDP only. Zero: never.
        public var keepalive = Duration.seconds(20)
        /// How long the answer to giving the allocation back is waited for.
        public var closeTimeout = Duration.seconds(2)

        /// RFC 8656 section 9: a permission lives 5 minutes.
        public var permissionLifetime = Duration.seconds(300)
        /// RFC 8656 section 12: a channel is bound for 10 minutes.
        public var channelLifetime = Duration.seconds(600)
        /// How long before their end permissions and channels are asked for again, at least.
        public var refreshMargin = Duration.seconds(60)
        /// How long before credentials end ``Event/credentialsNeeded(by:)`` comes.
        public var credentialMargin = Duration.seconds(60)

        /// Answers of code 401 and 438 that one request may get before it counts as failed.
        public var maximumChallenges = 4
        /// Servers that a server may send the client on to, one after the other.
        public var maximumRedirections = 3
        /// 5-tuples asked for because of answers of code 437.
        public var maximumMismatches = 2
        public var maximumPermissions = 128
        public var maximumChannels = 64
        /// Peers in one CreatePermission request; 64 at most.
        public var permissionsPerRequest = 16
        /// Requests for permissions and channels under way at once, of each kind.
        public var maximumRequests = 4
        /// Datagrams that wait for the request of their permission to be sent, and the bytes of them all.
        public var maximumWaiting = 32
        public var maximumWaitingBytes = 32_768

        public init() {}
    }
}
