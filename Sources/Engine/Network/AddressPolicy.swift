import Wire

/// Which of the machine's addresses are offered.
extension NetworkSnapshot {
    /// More of one family than this are not offered: a description stays small on a machine with hundreds.
    static let maximumOffered = 8

    /// Addresses to offer, best first: global IPv6, unique local IPv6, IPv4; among equals those of the interface that
    /// leads out. Link-local ones never, because a candidate cannot carry their zone. Deprecated ones and loopback also
    /// if there is nothing else.
    func offered(_ policy: InterfacePolicy) -> [IPAddress] {
        let candidates = usable.filter { !$0.ip.isLinkLocal && !isLoopback($0) }
        var chosen = policy.contains(.deprecated) ? candidates : candidates.filter { !$0.isDeprecated }
        if chosen.isEmpty { chosen = candidates }
        if !policy.contains(.temporary) { chosen = withoutTemporary(chosen) }
        if !policy.contains(.bridges) { chosen = withoutInner(chosen) }
        var result = AddressBook.ordered(leadingFirst(chosen).map(\.ip))
        for isIPv6 in [true, false] {
            var count = 0
            result.removeAll { ip in
                guard ip.isIPv6 == isIPv6 else { return false }
                count += 1
                return count > NetworkSnapshot.maximumOffered
            }
        }
        if result.isEmpty || policy.contains(.loopback) {
            result += AddressBook.ordered(usable.filter(isLoopback).map(\.ip))
        }
        return result
    }

    /// An address of 127/8 on another interface is as useless to others as one on the loopback interface.
    private func isLoopback(_ address: Address) -> Bool {
        address.ip.isLoopback || interfaces[address.interface]?.isLoopback == true
    }

    /// A temporary address hides a host that only calls; where callers are to come back, the stable address beside it
    /// is the one that lasts.
    private func withoutTemporary(_ addresses: [Address]) -> [Address] {
        addresses.filter { address in
            !address.isTemporary
                || !addresses.contains { other in
                    !other.isTemporary && other.interface == address.interface && other.ip.isIPv6
                        && other.ip.isPrivate == address.ip.isPrivate
                }
        }
    }

    /// Leaves out bridges and container networks, unless nothing else is left: inside a container its own end of such
    /// a pair is all there is.
    private func withoutInner(_ addresses: [Address]) -> [Address] {
        let outer = addresses.filter { address in interfaces[address.interface].map { !isInner($0) } ?? true }
        return outer.isEmpty ? addresses : outer
    }

    private func isInner(_ interface: Interface) -> Bool {
        // What leads out is no inner network, whatever it is made of: a container's veth, a bridge over the network
        // card of a machine with guests.
        if leadsOut(interface.index) { return false }
        switch interface.kind {
        case "bridge", "veth", "vxlan", "openvswitch": return true
        default: return NetworkSnapshot.innerNames.contains { interface.name.hasPrefix($0) }
        }
    }

    private static let innerNames = [
        "docker", "br-", "veth", "virbr", "vnet", "cni", "lxc", "lxd", "podman", "flannel", "cali", "cilium", "kube",
        "vboxnet", "vmnet",
    ]

    private func leadsOut(_ interface: UInt32) -> Bool {
        routeIPv4?.interface == interface || routeIPv6?.interface == interface
    }

    private func leadingFirst(_ addresses: [Address]) -> [Address] {
        addresses.filter { leadsOut($0.interface) } + addresses.filter { !leadsOut($0.interface) }
    }
}
