import CSystem
import Wire

/// The addresses that this machine can offer.
enum AddressBook {
    /// Addresses of the interfaces that are up: global IPv6 first, then unique local IPv6, then IPv4; link-local ones
    /// are left out, because a candidate cannot carry their zone. Loopback only if there is nothing else.
    static func interfaces() throws(Failure) -> [IPAddress] {
        var error: Int32 = 0
        let found = withUnsafeTemporaryAllocation(of: cs_interface_address.self, capacity: 256) { buffer in
            let count = unsafe cs_interface_addresses(buffer.baseAddress, 256)
            error = max(0, -count)
            return (0..<max(0, Int(count))).map { unsafe (ip: IPAddress(buffer[$0].address), flags: buffer[$0].flags) }
        }
        guard error == 0 else {
            let reason = unsafe String(cString: cs_error_text(error))
            throw Failure(Status(systemError: error), "cannot list the machine's addresses: \(reason)")
        }
        let usable = found.filter { !$0.ip.isLinkLocal && !$0.ip.isUnspecified && !$0.ip.isMulticast }
        let remote = usable.filter { !$0.ip.isLoopback }.map(\.ip)
        return ordered(remote.isEmpty ? usable.map(\.ip) : remote)
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
