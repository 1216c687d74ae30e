import CSystem
import Storage
import Wire

/// The addresses that this machine can offer.
enum AddressBook {
    /// Addresses of the interfaces that are up, as far as `policy` offers them: global IPv6 first, then unique local
    /// IPv6, then IPv4; link-local ones are left out, because a candidate cannot carry their zone. Loopback only if
    /// there is nothing else.
    static func interfaces(_ policy: InterfacePolicy = []) throws(Failure) -> [IPAddress] {
        switch NetworkSnapshot.read() {
        case .complete(let snapshot), .partial(let snapshot): return snapshot.offered(policy)
        case .failed(let error):
            let reason = String(systemError: error)
            throw Failure(Status(systemError: error), "cannot list the machine's addresses: \(reason)")
        }
    }

    /// IPv6 before IPv4, global before private, otherwise as given; doubles removed.
    static func ordered(_ addresses: [IPAddress]) -> [IPAddress] {
        var seen = Set<IPAddress>()
        let unique = addresses.filter { seen.insert($0).inserted }
        func rank(_ ip: IPAddress) -> Int { (ip.isIPv6 ? 0 : 2) + (ip.isPrivate ? 1 : 0) }
        return (0..<4).flatMap { wanted in unique.filter { rank($0) == wanted } }
    }
}

extension IPAddress {
    init(_ address: cs_address) { self.init(high: address.high, low: address.low) }
}

extension SocketAddress {
    init(_ address: cs_address) {
        self.init(ip: IPAddress(address), port: address.port, scope: address.scope)
    }

    var system: cs_address { cs_address(high: ip.high, low: ip.low, scope: scope, port: port) }
}
