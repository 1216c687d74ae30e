import ICE
import Wire

/// What leads to a peer's own port beside the machine's addresses: what the port is outside of a NAT, and relays. The
/// engine's shared port has ``Network`` and relays that all peers on it use.
final class Gathering {
    let mapping: MappedAddresses
    /// Nil: there are no TURN servers.
    var relays: RelayGroup?

    init(relays: RelayGroup?, random: any RandomNumberGenerator) {
        self.relays = relays
        mapping = MappedAddresses(random: random)
    }

    /// The network is another, or the addresses of STUN servers are known now.
    func follow(_ network: Network, hasMoved: Bool, now: Instant) {
        mapping.setLocalAddresses(network.localAddresses(), now: now)
        mapping.setServers(network.stunServers, now: now)
        if hasMoved { mapping.networkChanged(ipv4: network.moved.ipv4, ipv6: network.moved.ipv6, now: now) }
    }

    /// More candidates may come.
    var isUnderWay: Bool { mapping.isAsking || relays?.isGathering == true }

    var nextTimeout: Instant? {
        let next = min(mapping.nextTimeout ?? .distantFuture, relays?.nextTimeout ?? .distantFuture)
        return next == .distantFuture ? nil : next
    }

    func handleTimeout(now: Instant) {
        if let due = mapping.nextTimeout, due <= now { mapping.handleTimeout(now: now) }
        if let relays, let due = relays.nextTimeout, due <= now { relays.handleTimeout(now: now) }
    }

    /// Writes the next datagram for the port; where to send it, or nil if there is none.
    func pollTransmit(into output: inout OutputRawSpan, now: Instant) -> SocketAddress? {
        mapping.pollTransmit(into: &output, now: now) ?? relays?.pollTransmit(into: &output, now: now)
    }

    /// True if ``candidates(_:port:)`` may be others.
    func pollChange() -> Bool {
        var hasChanged = false
        while mapping.pollEvent() != nil { hasChanged = true }
        while let event = relays?.pollEvent() { if event == .candidatesChanged { hasChanged = true } }
        return hasChanged
    }

    func candidates(_ network: Network, port: UInt16) -> [Candidate] {
        var mapped = mapping.mapped
        // A TURN server says what a STUN server says.
        for address in relays?.reflexive ?? []
        where !mapped.contains(where: { $0.address.ip.isIPv4 == address.ip.isIPv4 }) {
            mapped.append(MappedAddresses.Mapped(address: address))
        }
        return network.candidates(ownPort: port, mapped: mapped) + (relays?.candidates ?? [])
    }
}
