public import Wire

extension RelayClient {
    /// What the server gave.
    public struct Allocation: Hashable, Sendable {
        /// What peers send to and see: one, or one of each family, IPv6 first.
        public var relayed: [SocketAddress]
        /// The client as the server sees it (the related address of a relay candidate); nil if it did not say.
        public var mapped: SocketAddress?
        /// The server that holds it.
        public var server: SocketAddress
        public var lifetime: Duration
        /// It can be taken along to another address of the client (RFC 8016).
        public var isMobile: Bool
        /// The family that was asked for and not given, and the error code if the server said one.
        public var missing: Missing?

        public struct Missing: Hashable, Sendable {
            public var isIPv6: Bool
            public var code: Int?
        }
    }

    /// Why a new 5-tuple is asked for.
    public enum ConnectionReason: Hashable, Sendable {
        /// RFC 8656 section 7.4: the server has an allocation for this one already (437).
        case mismatch
        /// The server sent the client on to this one (300), on a stream; `domain`, if any, is the name that its
        /// certificate must have instead (RFC 8489 section 10).
        case redirected(to: SocketAddress, domain: String?)
    }

    public enum Event: Hashable, Sendable {
        case allocated(Allocation)
        /// Datagrams go both ways between this address and the relay.
        case permitted(IPAddress)
        /// They do not; `code` is the server's, nil if it did not answer. It is not asked again by itself.
        case denied(IPAddress, code: Int?)
        case channelBound(SocketAddress)
        case channelRefused(SocketAddress, code: Int?)
        /// The credentials end then. Give others with ``RelayClient/setCredentials(_:now:)``.
        case credentialsNeeded(by: Instant)
        /// The server sent the client on, and it went (UDP). Nothing else is to be done, but datagrams go there.
        case redirected(to: SocketAddress)
        /// Open another local port or stream, then call ``RelayClient/connectionChanged(server:now:)``.
        case connectionNeeded(ConnectionReason)
        /// The allocation was taken along to the new 5-tuple: relayed addresses, permissions and channels are the same.
        case moved
        /// There is no allocation. ``RelayClient/start(now:)`` asks again.
        case failed(Failure)
        /// The allocation was given back; the client is done.
        case closed
    }

    public enum Failure: Error, Hashable, Sendable {
        /// No answer.
        case timeout
        /// The server does not take the credentials (401, 441).
        case wrongCredentials
        /// One challenge after the other (401, 438), or one that cannot be answered.
        case challenges
        /// 403: not for this user or this client.
        case forbidden
        /// 420, for something that cannot be left out.
        case unknownAttributes
        /// 437, on every 5-tuple tried.
        case mismatch
        /// 440: no relayed address of that family.
        case unsupportedFamily
        /// 442.
        case unsupportedTransport
        /// 486: the user has too many allocations.
        case quotaReached
        /// 508.
        case insufficientCapacity
        /// 300 in a circle, too often, or to where nothing can be sent.
        case badRedirection
        /// The allocation had been there, and the server knows nothing of it any more.
        case allocationLost
        /// The stream ended.
        case connectionClosed
        /// What came on the stream is not TURN.
        case malformedStream
        /// A signed answer without what must be in it.
        case malformedAnswer
        /// Another error code.
        case refused(Int)

        /// What makes sense next.
        public struct Advice: Hashable, Sendable {
            /// Another server may do better.
            public var triesOthers: Bool
            /// When this one may; nil: not as things are.
            public var sameServerAfter: Duration?
        }

        public var advice: Advice {
            switch self {
            case .timeout, .badRedirection, .malformedStream, .malformedAnswer:
                Advice(triesOthers: true, sameServerAfter: .seconds(30))
            // Credentials often go with a server; others for this one make it usable at once.
            case .wrongCredentials, .forbidden, .unknownAttributes, .unsupportedFamily, .unsupportedTransport:
                Advice(triesOthers: true, sameServerAfter: nil)
            case .challenges, .mismatch: Advice(triesOthers: true, sameServerAfter: .seconds(10))
            // RFC 8656 section 7.4: 486 and 508 are not to be tried again within a minute.
            case .quotaReached, .insufficientCapacity: Advice(triesOthers: true, sameServerAfter: .seconds(60))
            case .allocationLost, .connectionClosed: Advice(triesOthers: true, sameServerAfter: .zero)
            case .refused(let code):
                // RFC 8489 section 6.3.4: 5xx may be tried again, 4xx not as it was.
                Advice(triesOthers: true, sameServerAfter: code >= 500 ? .seconds(30) : nil)
            }
        }

        init(code: Int) {
            self =
                switch code {
                case 401, 441: .wrongCredentials
                case 403: .forbidden
                case 420: .unknownAttributes
                case 437: .mismatch
                case 440: .unsupportedFamily
                case 442: .unsupportedTransport
                case 486: .quotaReached
                case 508: .insufficientCapacity
                default: .refused(code)
                }
        }
    }

    /// What became of something received.
    public enum Disposition: Hashable, Sendable {
        case consumed
        /// It was a peer's datagram, and was handed on.
        case delivered
        /// Dropped and counted.
        case ignored(Reason)

        public enum Reason: Hashable, Sendable, CaseIterable {
            /// Not from the server.
            case otherSource
            case notTURN
            case malformed
            /// STUN, and nothing that a client has a use for.
            case unexpected
            /// A response to nothing asked, or to something answered before.
            case unmatched
            /// A response that is not signed, or not by the server.
            case badIntegrity
            /// A peer's datagram from an address without permission, or on a channel that is not bound.
            case unknownPeer
            /// There is no allocation.
            case noAllocation
        }
    }

    /// What became of a datagram for a peer.
    public enum Outcome: Hashable, Sendable {
        /// Written: send it.
        case written
        /// Kept until the request for the permission has been sent; it comes out of `pollTransmit`.
        case waiting
        /// There is no allocation.
        case noAllocation
        /// ``RelayClient/permit(_:now:)`` was not called, or the server refused.
        case notPermitted
        /// It does not fit the output, or what is kept.
        case noRoom
    }

    /// What became of a wish for a permission or a channel.
    public enum Acceptance: Hashable, Sendable {
        /// An event says what became of it.
        case accepted
        /// It is already there.
        case present
        /// ``Configuration/maximumPermissions`` or ``Configuration/maximumChannels``.
        case tooMany
        /// Nothing can be sent there, or the allocation has no address of that family.
        case unusable
    }

    /// Counters since the client was made. They wrap around instead of trapping.
    public struct Statistics: Hashable, Sendable {
        public var requestsSent: UInt64 = 0
        public var requestsRetransmitted: UInt64 = 0
        public var responsesReceived: UInt64 = 0
        public var errorsReceived: UInt64 = 0
        public var staleNonces: UInt64 = 0
        public var unsignedErrors: UInt64 = 0
        /// Peers' datagrams, and their bytes without what TURN adds.
        public var sent: UInt64 = 0
        public var sentBytes: UInt64 = 0
        public var received: UInt64 = 0
        public var receivedBytes: UInt64 = 0
        /// Messages not sent because the caller's buffer was too small.
        public var transmitsDropped: UInt64 = 0
        /// Datagrams that waited for a permission that did not come, or too many of them.
        public var waitingDropped: UInt64 = 0

        public var otherSource: UInt64 = 0
        public var notTURN: UInt64 = 0
        public var malformed: UInt64 = 0
        public var unexpected: UInt64 = 0
        public var unmatched: UInt64 = 0
        public var badIntegrity: UInt64 = 0
        public var unknownPeer: UInt64 = 0
        public var noAllocation: UInt64 = 0

        public init() {}

        mutating func count(_ reason: Disposition.Reason) {
            switch reason {
            case .otherSource: otherSource &+= 1
            case .notTURN: notTURN &+= 1
            case .malformed: malformed &+= 1
            case .unexpected: unexpected &+= 1
            case .unmatched: unmatched &+= 1
            case .badIntegrity: badIntegrity &+= 1
            case .unknownPeer: unknownPeer &+= 1
            case .noAllocation: noAllocation &+= 1
            }
        }
    }
}
