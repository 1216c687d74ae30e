import ICE
import Wire

/// What leads to a peer's own port beside the machine's addresses: what the port is outside of a NAT, and relays. The
/// engine's shared port has ``Network`` and relays that all peers on it use.
final class Gathering {
    /// Nil: there are no TURN servers.
    var relays: RelayGroup?
    /// What the port is outside, for each way out: the first is the system's choice, others are asked for from one of the
    /// addresses that packets leave through another interface from.
    private var mappings: [(from: IPAddress?, mapping: MappedAddresses)]
    private let asksSTUN: Bool
    private let random: any RandomNumberGenerator

    /// - Parameter asksSTUN: false where nobody but a relay may know of the peer.
    init(asksSTUN: Bool, random: any RandomNumberGenerator) {
        self.asksSTUN = asksSTUN
        self.random = random
        mappings = [(nil, MappedAddresses(random: random))]
    }

    /// The network is another, or the addresses of STUN servers are known now.
    func follow(_ network: Network, hasMoved: Bool, now: Instant) {
        guard asksSTUN else { return }
        let (all, exits) = (network.localAddresses(), network.otherExits)
        mappings.removeAll { entry in entry.from.map { !exits.contains($0) } ?? false }
        for exit in exits where !mappings.contains(where: { $0.from == exit }) {
            mappings.append((exit, MappedAddresses(random: random)))
        }
        for (from, mapping) in mappings {
            mapping.setLocalAddresses(from.map { [$0] } ?? all, now: now)
            mapping.setServers(network.stunServers, now: now)
            if hasMoved { mapping.networkChanged(ipv4: network.moved.ipv4, ipv6: network.moved.ipv6, now: now) }
        }
    }

    /// More candidates may come.
    var isUnderWay: Bool { mappings.contains { $0.mapping.isAsking } || relays?.isGathering == true }

    var nextTimeout: Instant? {
        var next = relays?.nextTimeout ?? .distantFuture
        for (_, mapping) in mappings { next = min(next, mapping.nextTimeout ?? .distantFuture) }
        return next == .distantFuture ? nil : next
    }

    func handleTimeout(now: Instant) {
        for (_, mapping) in mappings {
            if let due = mapping.nextTimeout, due <= now { mapping.handleTimeout(now: now) }
        }
        if let relays, let due = relays.nextTimeout, due <= now { relays.handleTimeout(now: now) }
    }

    /// True if it was a STUN server's answer.
    func handle(_ datagram: RawSpan, _ path: Path, now: Instant) -> Bool {
        mappings.contains { $0.mapping.handle(datagram: datagram, from: path.remote, to: path.local, now: now) }
    }

    /// Writes the next datagram for the port; where it goes and from which address, nil: the system's choice. Nil if there
    /// is none.
    func pollTransmit(into output: inout OutputRawSpan, now: Instant) -> (to: SocketAddress, from: IPAddress?)? {
        for (from, mapping) in mappings {
            if let to = mapping.pollTransmit(into: &output, now: now) { return (to, from) }
        }
        return relays?.pollTransmit(into: &output, now: now).map { ($0, nil) }
    }

    /// True if ``candidates(_:port:)`` may be others.
    func pollChange() -> Bool {
        var hasChanged = false
        for (_, mapping) in mappings { while mapping.pollEvent() != nil { hasChanged = true } }
        while let event = relays?.pollEvent() { if event == .candidatesChanged { hasChanged = true } }
        return hasChanged
    }

    func candidates(_ network: Network, port: UInt16) -> [Candidate] {
        var mapped = mappings.flatMap(\.mapping.mapped)
        // A TURN server says what a STUN server says.
        for address in relays?.reflexive ?? []
        where !mapped.contains(where: { $0.address.ip.isIPv4 == address.ip.isIPv4 }) {
            mapped.append(MappedAddresses.Mapped(address: address))
        }
        return network.candidates(ownPort: port, mapped: mapped) + (relays?.candidates ?? [])
    }
}
