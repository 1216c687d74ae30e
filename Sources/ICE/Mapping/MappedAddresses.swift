import STUN
public import Wire

/// What a port is outside of the NATs in front of it, asked of several STUN servers at once from that very port
/// (RFC 8489 Binding without credentials), and kept open by asking again. One for a shared port, however many agents
/// use it. No I/O: give it datagrams and the time, take packets and changes.
public final class MappedAddresses {
    public struct Configuration: Sendable {
        /// First retransmission; each later one waits twice as long (RFC 8489 section 6.2.1).
        public var retransmission = Duration.milliseconds(250)
        /// Requests of one transaction before its server counts as silent.
        public var transmissions = 7
        /// Between two transactions with one server; less a jitter of up to a tenth.
        public var keepalive = Duration.seconds(25)
        /// Transactions in a row that a server may leave unanswered before what it said no longer counts.
        public var maximumSilences = 3

        public init() {}
    }

    /// One address that the port has outside.
    public struct Mapped: Hashable, Sendable {
        public var address: SocketAddress
        /// The local address that the servers' answers came to; nil if that is not known.
        public var base: SocketAddress?
        /// Servers saw different addresses: the NAT maps by destination, and others will probably not get through.
        public var isSymmetric: Bool
    }

    public enum Event: Hashable, Sendable {
        /// ``mapped`` is another.
        case changed
    }

    /// At most one for each address family, IPv6 first.
    public private(set) var mapped: [Mapped] = []

    public init(_ configuration: Configuration = Configuration(), random: any RandomNumberGenerator) {}

    /// The servers to ask, each with all its addresses. The first 16 count.
    public func setServers(_ servers: [[SocketAddress]], now: Instant) {}
    /// The machine's addresses: a mapping through one that is gone is gone too.
    public func setLocalAddresses(_ addresses: [IPAddress], now: Instant) {}
    /// True if the datagram was the answer to one of the requests; `to`: where it arrived, as far as that is known.
    public func handle(datagram: RawSpan, from: SocketAddress, to: SocketAddress?, now: Instant) -> Bool { false }
    public func pollTransmit(into output: inout OutputRawSpan, now: Instant) -> SocketAddress? { nil }
    public var nextTimeout: Instant? { nil }
    public func handleTimeout(now: Instant) {}
    public func pollEvent() -> Event? { nil }
}
