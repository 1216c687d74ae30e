import Testing
import Wire

@testable import Engine

/// A network written down: interfaces by name, with their addresses.
struct Described {
    var snapshot = NetworkSnapshot()

    @discardableResult
    mutating func interface(
        _ name: String, kind: String = "", isUp: Bool = true, isRunning: Bool = true, _ addresses: String...
    ) -> UInt32 {
        let index = UInt32(snapshot.interfaces.count + 1)
        snapshot.interfaces[index] = .init(
            index: index, name: name, kind: kind, isUp: isUp, isRunning: isRunning, isLoopback: name == "lo")
        // "address flags", with t(emporary), d(eprecated), x (tentative).
        for text in addresses {
            let parts = text.split(separator: " ")
            let flags = parts.count > 1 ? parts[1] : ""
            snapshot.addresses.append(
                .init(
                    ip: IPAddress(String(parts[0]))!, interface: index, isTemporary: flags.contains("t"),
                    isDeprecated: flags.contains("d"), isTentative: flags.contains("x")))
        }
        return index
    }

    mutating func route(_ interface: UInt32, _ gateway: String) {
        let route = NetworkSnapshot.Route(interface: interface, gateway: IPAddress(gateway)!)
        if route.gateway.isIPv6 { snapshot.routeIPv6 = route } else { snapshot.routeIPv4 = route }
    }

    func offered(_ policy: InterfacePolicy = []) -> [String] { snapshot.offered(policy).map(\.description) }
}

@Suite struct NetworkPolicy {
    @Test func globalIPv6ComesFirstAndIPv4Last() {
        var network = Described()
        network.interface("lo", "127.0.0.1", "::1")
        network.interface("eth0", "192.168.1.2", "fe80::1", "fd00::2", "2001:db8::2", "169.254.3.4", "198.51.100.2")
        #expect(network.offered() == ["2001:db8::2", "fd00::2", "198.51.100.2", "192.168.1.2"])
    }

    @Test func whatDoesNotRunOrIsNotSureYetIsLeftOut() {
        var network = Described()
        network.interface("lo", "127.0.0.1")
        network.interface("eth0", isUp: false, "10.0.0.1")
        network.interface("eth1", isRunning: false, "10.0.1.1")
        network.interface("eth2", "10.0.2.1", "2001:db8::1 x", "0.0.0.0", "ff02::1")
        #expect(network.offered() == ["10.0.2.1"])
        #expect(network.snapshot.usable.map(\.ip.description) == ["127.0.0.1", "10.0.2.1"])
    }

    @Test func temporaryAddressesYieldToStableOnesOfTheirKind() {
        var network = Described()
        network.interface("eth0", "2001:db8::7a t", "2001:db8::1", "fd00::7a t")
        network.interface("wlan0", "2001:db8:1::7b t")
        #expect(network.offered() == ["2001:db8::1", "2001:db8:1::7b", "fd00::7a"])
        #expect(network.offered(.temporary) == ["2001:db8::7a", "2001:db8::1", "2001:db8:1::7b", "fd00::7a"])
        // A stable address that is out of use does not stand in for the temporary one.
        var old = Described()
        old.interface("eth0", "2001:db8::1 d", "2001:db8::7a t", "2001:db8::7c td")
        #expect(old.offered() == ["2001:db8::7a"])
        #expect(old.offered(.deprecated) == ["2001:db8::1"])
        #expect(old.offered([.deprecated, .temporary]) == ["2001:db8::1", "2001:db8::7a", "2001:db8::7c"])
    }

    @Test func deprecatedAddressesAreTheLastBeforeLoopback() {
        var network = Described()
        network.interface("lo", "127.0.0.1")
        network.interface("eth0", "2001:db8::1 d")
        #expect(network.offered() == ["2001:db8::1"])
        network.interface("eth1", "10.0.0.1")
        #expect(network.offered() == ["10.0.0.1"])
    }

    @Test(
        arguments: [
            ("docker0", "bridge"), ("br-0a1b2c", "bridge"), ("any", "bridge"), ("veth12ab", "veth"), ("virbr0", ""),
            ("cni0", ""), ("lxcbr0", ""), ("lxdbr0", ""), ("any", "veth"), ("flannel.1", "vxlan"), ("cali123", ""),
        ])
    func innerNetworksAreLeftOut(name: String, kind: String) {
        var network = Described()
        network.interface("lo", "127.0.0.1")
        let outer = network.interface("eth0", "10.0.0.1")
        let inner = network.interface(name, kind: kind, "172.17.0.1", "fd00:17::1")
        #expect(network.offered() == ["10.0.0.1"])
        #expect(network.offered(.bridges) == ["fd00:17::1", "10.0.0.1", "172.17.0.1"])
        network.route(outer, "10.0.0.254")
        #expect(network.offered() == ["10.0.0.1"])
        // What leads out is no inner network.
        network.route(inner, "172.17.0.254")
        #expect(network.offered() == ["fd00:17::1", "172.17.0.1", "10.0.0.1"])
    }

    @Test func insideAContainerThePairIsAllThereIs() {
        var network = Described()
        network.interface("lo", "127.0.0.1", "::1")
        network.interface("eth0", kind: "veth", "172.17.0.2", "fe80::2")
        #expect(network.offered() == ["172.17.0.2"])
        // Also with a bridge of its own beside it.
        network.interface("docker0", kind: "bridge", "172.18.0.1")
        network.route(2, "172.17.0.1")
        #expect(network.offered() == ["172.17.0.2"])
    }

    @Test(arguments: ["eth0", "wlp3s0", "tun0", "wg0", "bond0", "vlan5", "dummy0", "tailscale0", "brian"])
    func othersStay(name: String) {
        var network = Described()
        network.interface("eno1", "10.0.0.1")
        network.interface(name, kind: "tun", "10.9.0.1")
        #expect(network.offered() == ["10.0.0.1", "10.9.0.1"])
    }

    @Test func loopbackOnlyWhenAskedForOrAlone() {
        var network = Described()
        network.interface("lo", "127.0.0.1", "::1", "10.255.255.1")
        #expect(network.offered() == ["::1", "127.0.0.1", "10.255.255.1"])
        network.interface("eth0", "10.0.0.1")
        #expect(network.offered() == ["10.0.0.1"])
        #expect(network.offered(.loopback) == ["10.0.0.1", "::1", "127.0.0.1", "10.255.255.1"])
    }

    @Test func theInterfaceThatLeadsOutComesFirstAndTheNumberIsLimited() {
        var network = Described()
        let many = network.interface("eth0")
        for number in 0..<300 {
            network.snapshot.addresses.append(
                .init(ip: IPAddress("10.0.\(number / 200).\(number % 200 + 1)")!, interface: many))
        }
        let way = network.interface("eth1", "10.1.0.1", "2001:db8::1")
        network.route(way, "10.1.0.254")
        let offered = network.offered()
        #expect(offered.count == 9 && offered.starts(with: ["2001:db8::1", "10.1.0.1", "10.0.0.1"]))
    }

    @Test func anAddressOfAnInterfaceThatIsNotListedDoesNotCount() {
        var network = Described()
        network.snapshot.addresses.append(.init(ip: IPAddress("10.0.0.1")!, interface: 77))
        #expect(network.offered().isEmpty)
    }
}

@Suite struct NetworkOffers {
    private func offers(_ hosts: [String], _ configured: [String], _ mapped: [SocketAddress] = []) -> OfferedAddresses {
        OfferedAddresses(
            hosts: hosts.map { IPAddress($0)! }, configured: configured.map { try! PublicAddress.parse($0) },
            mapped: mapped.map { .init(address: $0) })
    }

    private func seen(_ ip: String, _ port: UInt16) -> SocketAddress { SocketAddress(ip: IPAddress(ip)!, port: port) }

    @Test func orderAndPrioritiesSayTheSame() {
        let offers = offers(
            ["2001:db8::1", "fd00::1", "10.0.0.1"], ["203.0.113.5", "[2001:db8:5::5]:4000"],
            [seen("198.51.100.9", 7777)])
        let candidates = offers.candidates(sharedPort: 5000)
        #expect(
            candidates.map { "\($0.kind.rawValue) \($0.address)" } == [
                "host [2001:db8::1]:5000", "host [fd00::1]:5000", "srflx [2001:db8:5::5]:4000", "host 10.0.0.1:5000",
                "srflx 203.0.113.5:5000", "srflx 198.51.100.9:7777",
            ])
        let priorities = candidates.map(\.priority)
        #expect(zip(priorities, priorities.dropFirst()).allSatisfy { $0 > $1 })
        #expect(priorities.allSatisfy { $0 >= 1 && $0 <= 0x7FFF_FFFF })
        // The recommended type preferences, as far as the order allows.
        #expect(priorities[0] >> 24 == 126 && priorities[3] >> 24 == 126 && priorities[4] >> 24 == 100)
        let counts = OfferedAddresses.counts(candidates)
        #expect(counts == .init(hostIPv6: 2, hostIPv4: 1, reflexiveIPv6: 1, reflexiveIPv4: 2, relayedIPv4: 0))
        // Private addresses stay out of the others' lines.
        #expect(candidates[4].text.hasSuffix("203.0.113.5 5000 typ srflx raddr 0.0.0.0 rport 0"))
        #expect(candidates[2].text.hasSuffix("2001:db8:5::5 4000 typ srflx raddr :: rport 0"))
        #expect(candidates[4].base == seen("10.0.0.1", 5000) && candidates[2].base == seen("2001:db8::1", 5000))
    }

    @Test func aDescriptionStaysSmall() {
        let many = (1...100).flatMap { ["10.0.0.\($0)", "2001:db8::\($0)"] }
        let candidates = offers(many, ["203.0.113.5"]).candidates(sharedPort: 5000)
        #expect(candidates.count == 32 && candidates.count(where: \.address.ip.isIPv6) == 16)
    }

    @Test func noAddressTwice() {
        let offers = offers(
            ["203.0.113.5", "10.0.0.1"], ["203.0.113.5", "203.0.113.6"],
            [seen("203.0.113.6", 5000), seen("10.0.0.1", 5000)])
        #expect(
            offers.candidates(sharedPort: 5000).map(\.address.ip.description) == [
                "203.0.113.5", "10.0.0.1", "203.0.113.6",
            ])
        // Another port is another candidate.
        #expect(offers.candidates(sharedPort: 5001).count == 5)
    }

    @Test func aPeerWithItsOwnPortOffersWhatHoldsForIt() {
        let offers = offers(["10.0.0.1"], ["203.0.113.5", "203.0.113.6:4000"], [seen("198.51.100.9", 7777)])
        #expect(
            offers.candidates(ownPort: 6000).map(\.address) == [seen("10.0.0.1", 6000), seen("203.0.113.5", 6000)])
    }

    @Test func withoutAHostOfTheFamilyTheBaseIsTheSystemsChoice() {
        let candidates = offers([], ["203.0.113.5"]).candidates(sharedPort: 5000)
        #expect(candidates.map(\.base) == [SocketAddress(ip: .anyIPv4, port: 5000)])
    }
}
