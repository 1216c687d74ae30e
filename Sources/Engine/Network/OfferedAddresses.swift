import ICE
import Wire

/// What a description or a ticket says about where this engine is reached: put together from the machine's own
/// addresses, the configured ones and those that servers saw.
struct OfferedAddresses: Equatable {
    /// More of one family are not offered: tickets and other agents have room for 32 in all.
    static let maximumPerFamily = 16

    /// The machine's own, in order of preference.
    var hosts: [IPAddress] = []
    var configured: [PublicAddress] = []
    /// What the shared port is outside.
    var mapped: [MappedAddresses.Mapped] = []

    /// How many there are of each kind, for the `[CANDIDATE]` line.
    struct Counts: Equatable {
        var hostIPv6 = 0
        var hostIPv4 = 0
        var reflexiveIPv6 = 0
        var reflexiveIPv4 = 0
        var relayedIPv4 = 0
    }

    /// Candidates of the port that all peers share.
    func candidates(sharedPort port: UInt16) -> [Candidate] {
        let configured = configured.map { SocketAddress(ip: $0.ip, port: $0.port ?? port) }
        return candidates(port: port, reflexive: configured.map { ($0, nil) } + mapped.map { ($0.address, $0.base) })
    }

    /// Candidates of a peer's own port, which `mapped` is outside. What was learned about the shared port says nothing
    /// about this one; a configured address without a port stands for a one-to-one translation of all ports.
    func candidates(ownPort port: UInt16, mapped: [MappedAddresses.Mapped] = []) -> [Candidate] {
        let configured = configured.filter { $0.port == nil }.map { SocketAddress(ip: $0.ip, port: port) }
        return candidates(port: port, reflexive: configured.map { ($0, nil) } + mapped.map { ($0.address, $0.base) })
    }

    /// IPv6 host, IPv6 server-reflexive, IPv4 host, IPv4 server-reflexive; each address once.
    ///
    /// RFC 8445 section 5.1.2: priorities are unique, and the formula with one type preference for each type is
    /// recommended. It would put IPv4 hosts before IPv6 server-reflexive addresses; where there are any of the latter,
    /// they count as hosts instead, so that the priorities say the same as the order.
    private func candidates(port: UInt16, reflexive: [(address: SocketAddress, base: SocketAddress?)]) -> [Candidate] {
        var seen = Set<SocketAddress>()
        var made: [Candidate] = []
        var local = 65_535
        for isIPv6 in [true, false] {
            let limit = made.count + OfferedAddresses.maximumPerFamily
            let own = hosts.filter { $0.isIPv6 == isIPv6 }.map { SocketAddress(ip: $0, port: port) }
            for address in own where made.count < limit && seen.insert(address).inserted {
                let priority = Candidate.priority(.host, localPreference: UInt16(clamping: local))
                made.append(Candidate(kind: .host, address: address, priority: priority))
                local -= 1
            }
            // RFC 8839 section 5.1 wants a related address; it is for diagnosis only, and a private one is nobody's
            // business.
            let any = SocketAddress(ip: isIPv6 ? .anyIPv6 : .anyIPv4, port: 0)
            let fallback = own.first ?? SocketAddress(ip: any.ip, port: port)
            for (address, base) in reflexive
            where address.ip.isIPv6 == isIPv6 && made.count < limit && seen.insert(address).inserted {
                let priority = Candidate.priority(
                    isIPv6 ? .host : .serverReflexive, localPreference: UInt16(clamping: local))
                made.append(
                    Candidate(
                        kind: .serverReflexive, address: address, priority: priority, base: base ?? fallback,
                        relatedAddress: any))
                local -= 1
            }
        }
        return made
    }

    static func counts(_ candidates: [Candidate]) -> Counts {
        var counts = Counts()
        for candidate in candidates {
            switch (candidate.kind, candidate.address.ip.isIPv6) {
            case (.host, true): counts.hostIPv6 += 1
            case (.host, false): counts.hostIPv4 += 1
            case (.serverReflexive, true): counts.reflexiveIPv6 += 1
            case (.serverReflexive, false): counts.reflexiveIPv4 += 1
            case (.relayed, false): counts.relayedIPv4 += 1
            default: break
            }
        }
        return counts
    }
}
