import ICE
import Wire

/// Where this engine is reached, now: the machine's addresses as its interfaces come and go, what the shared port is
/// outside, and what was configured. Asked of once for all peers, never for one.
///
/// Belongs to the loop: watch ``descriptors``, keep ``nextTimeout``, offer it STUN answers that no peer claims, and
/// after each of these calls take ``pollTransmit(into:now:)`` and ``pollChange()`` until both are nil.
final class Network {
    /// What is another since it was last asked.
    struct Change: OptionSet {
        let rawValue: UInt8
        /// ``candidates``: from now on answers and tickets carry the new ones.
        static let candidates = Change(rawValue: 1)
        /// The machine's own addresses.
        static let addresses = Change(rawValue: 2)
        /// The way out: another interface, gateway or source address.
        static let route = Change(rawValue: 4)
        /// ``isOnline``.
        static let online = Change(rawValue: 8)
    }

    private let port: UInt16
    private var offered = OfferedAddresses()
    private var fixed: [IPAddress]?
    private var pending: Change = []

    /// `port`: the engine's own. Lists the machine's addresses at once, so that ``candidates`` are good from the start.
    init(_ configuration: Configuration, port: Port, random: any RandomNumberGenerator, now: Instant) {
        self.port = port.number
        fixed = configuration.addresses
        offered.configured = configuration.publicAddresses
        offered.hosts = AddressBook.ordered(fixed ?? (try? AddressBook.interfaces()) ?? [])
        candidates = offered.candidates(sharedPort: self.port)
    }

    /// What answers and tickets offer for the shared port, best first.
    private(set) var candidates: [Candidate]
    /// Counts up with each change of ``candidates``.
    private(set) var generation: UInt64 = 1
    var counts: OfferedAddresses.Counts { OfferedAddresses.counts(candidates) }
    /// The machine's own addresses that are offered, in order of preference.
    var hosts: [IPAddress] { offered.hosts }
    /// Whether there is a way to other machines.
    var isOnline: Bool { offered.hosts.contains { !$0.isLoopback } }

    /// What a peer with a port of its own offers.
    func candidates(ownPort: UInt16) -> [Candidate] { offered.candidates(ownPort: ownPort) }

    /// To be watched for reading; they stay the same.
    var descriptors: [Int32] { [] }
    func readable(_ descriptor: Int32, now: Instant) {}

    var nextTimeout: Instant? { nil }
    func handleTimeout(now: Instant) {}

    /// True if the datagram was an answer to one of our own requests.
    func handle(_ datagram: RawSpan, from: SocketAddress, to: SocketAddress, now: Instant) -> Bool { false }

    /// Writes the next packet for the shared port; where to, or nil if there is none.
    func pollTransmit(into output: inout OutputRawSpan, now: Instant) -> SocketAddress? { nil }

    /// What changed since the last call; nil: nothing.
    func pollChange() -> Change? {
        guard !pending.isEmpty else { return nil }
        defer { pending = [] }
        return pending
    }

    /// What the host wants to be offered as its own addresses; nil: the machine's.
    func setAddresses(_ addresses: [IPAddress]?, now: Instant) {
        fixed = addresses
        offered.hosts = AddressBook.ordered(fixed ?? (try? AddressBook.interfaces()) ?? [])
        update([.addresses])
    }

    /// Ends all work at once; a resolver that hangs is left to itself.
    func close() {}

    private func update(_ change: Change) {
        pending.formUnion(change)
        let made = offered.candidates(sharedPort: port)
        guard made != candidates else { return }
        candidates = made
        generation &+= 1
        pending.formUnion(.candidates)
    }
}
