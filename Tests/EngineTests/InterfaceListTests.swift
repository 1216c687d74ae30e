import Testing
import Wire

@testable import Engine

private func pattern(_ text: String) -> InterfacePattern? { try? InterfacePattern(parsing: text) }

private func lists(_ allowed: [String] = [], denied: [String] = []) throws -> InterfaceLists {
    try InterfaceLists(
        allowed: allowed.map { try InterfacePattern(parsing: $0) },
        denied: denied.map { try InterfacePattern(parsing: $0) })
}

@Suite struct InterfacePatterns {
    @Test func areNamesBeginningsAndNetworks() {
        #expect(pattern("eth0") == .name("eth0"))
        #expect(pattern("enp0s31f6.100") == .name("enp0s31f6.100"))
        #expect(pattern("wlan*") == .prefix("wlan"))
        #expect(pattern("*") == .prefix(""))
        #expect(pattern("192.0.2.0/24") == .network(IPAddress("192.0.2.0")!, bits: 24))
        #expect(pattern("192.0.2.77/24") == pattern("192.0.2.0/24"))
        #expect(pattern("0.0.0.0/0") == .network(.anyIPv4, bits: 0))
        #expect(pattern("2001:db8::/32") == .network(IPAddress("2001:db8::")!, bits: 32))
        #expect(pattern("::/0") == .network(.anyIPv6, bits: 0))
        #expect(pattern("2001:db8::1") == .network(IPAddress("2001:db8::1")!, bits: 128))
        #expect(pattern("10.0.0.1") == .network(IPAddress("10.0.0.1")!, bits: 32))
    }

    @Test(arguments: [
        "", " ", "eth 0", "eth*0", "**", "a/b", "192.0.2.0/33", "192.0.2.0/", "192.0.2.0/+8", "192.0.2.0/-1",
        "192.0.2/24",
        "192.0.2.0/024", "2001:db8::/129", "2001:db8::/1000", "abcdefghijklmnop", ".", "..", "eth0\n", "[::1]/128",
        "/24",
        "300.0.0.1/8",
    ])
    func refuseEverythingElseByName(_ text: String) throws {
        let failure = #expect(throws: Failure.self) { try InterfacePattern(parsing: text) }
        #expect(failure?.status == .invalidArgument)
        #expect(failure?.detail.hasPrefix("\"" + text.replacing("\n", with: "?") + "\" is no interface") == true)
    }

    @Test func keepLongAndStrangeTextOutOfTheSentence() {
        let failure = #expect(throws: Failure.self) {
            try InterfacePattern(parsing: "\u{1B}[2J" + String(repeating: "x/", count: 1000))
        }
        #expect(failure.map { $0.detail.utf8.count < 200 && !$0.detail.contains("\u{1B}") } == true)
    }

    @Test func matchWhatTheyName() {
        let ip = IPAddress("192.0.2.130")!
        #expect(pattern("eth0")!.matches(ip, on: "eth0") && !pattern("eth0")!.matches(ip, on: "eth00"))
        #expect(pattern("eth*")!.matches(ip, on: "eth") && !pattern("eth*")!.matches(ip, on: "et"))
        #expect(pattern("192.0.2.128/25")!.matches(ip, on: "") && !pattern("192.0.2.0/25")!.matches(ip, on: ""))
        #expect(pattern("0.0.0.0/0")!.matches(ip, on: "") && !pattern("::/0")!.matches(ip, on: ""))
        let six = IPAddress("2001:db8:0:1::5")!
        #expect(pattern("2001:db8::/63")!.matches(six, on: "") && !pattern("2001:db8::/64")!.matches(six, on: ""))
        #expect(
            pattern("2001:db8:0:1::4/127")!.matches(six, on: "")
                && !pattern("2001:db8:0:1::4/128")!.matches(six, on: ""))
        #expect(pattern("::/0")!.matches(six, on: "") && !pattern("0.0.0.0/0")!.matches(six, on: ""))
    }
}

@Suite struct InterfaceListing {
    private var network: Described {
        var network = Described()
        network.interface("lo", "127.0.0.1", "::1")
        let card = network.interface("eth0", "198.51.100.2", "2001:db8::2")
        network.interface("wlan0", "192.168.1.2", "2001:db8:1::2")
        network.interface("tun0", "10.8.0.2")
        network.route(card, "198.51.100.1")
        network.route(card, "2001:db8::1")
        return network
    }

    private func offered(_ lists: InterfaceLists, _ policy: InterfacePolicy = []) -> [String] {
        network.snapshot.restricted(to: lists).offered(policy).map(\.description)
    }

    @Test func leavesEverythingWithoutLists() throws {
        #expect(try network.snapshot.restricted(to: lists()) == network.snapshot)
    }

    @Test func offersOnlyWhatIsAllowed() throws {
        #expect(try offered(lists(["eth0"])) == ["2001:db8::2", "198.51.100.2"])
        #expect(try offered(lists(["wlan*", "tun*"])) == ["2001:db8:1::2", "192.168.1.2", "10.8.0.2"])
        #expect(try offered(lists(["198.51.100.0/24"])) == ["198.51.100.2"])
        // Not even loopback, which is offered where there is nothing else.
        #expect(try offered(lists(["ppp0"])) == [])
        #expect(try offered(lists(["lo"])) == ["::1", "127.0.0.1"])
    }

    @Test func neverOffersWhatIsDenied() throws {
        #expect(try offered(lists(denied: ["eth0", "2001:db8:1::/48"])) == ["192.168.1.2", "10.8.0.2"])
        // Denied is stronger.
        #expect(try offered(lists(["eth0", "tun0"], denied: ["eth*"])) == ["10.8.0.2"])
        #expect(try offered(lists(denied: ["lo"]), .loopback) == offered(lists()))
    }

    @Test func hasNoWayOutOverWhatMayNotBeUsed() throws {
        let denied = try network.snapshot.restricted(to: lists(denied: ["eth0"]))
        #expect(denied.routeIPv4 == nil && denied.routeIPv6 == nil)
        let half = try network.snapshot.restricted(to: lists(denied: ["2001:db8::/48"]))
        #expect(half.routeIPv4 != nil && half.routeIPv6 == nil)
    }

    @Test func decidesWhetherTheMachineIsOnline() throws {
        let now = Instant(nanoseconds: 0)
        var network = network
        for (allowed, isOnline) in [([], true), (["lo"], false), (["ppp*"], false), (["tun0"], true)] {
            let monitor = try NetworkMonitor(
                [], lists: lists(allowed), now: now, watch: { -1 }, read: { .complete(network.snapshot) })
            #expect(monitor.isOnline == isOnline, "\(allowed)")
        }
        // What happens to others is no change.
        let monitor = try NetworkMonitor(
            [], lists: lists(["eth0"]), now: now, watch: { -1 }, read: { .complete(network.snapshot) })
        network.snapshot.addresses.removeAll { $0.ip == IPAddress("10.8.0.2") }
        #expect(!monitor.refresh(now: now))
        network.snapshot.addresses.removeAll { $0.ip == IPAddress("198.51.100.2") }
        #expect(monitor.refresh(now: now))
    }

    /// How many STUN requests a network sends at first, and what it offers.
    private func network(_ configure: (inout Configuration) throws -> Void) throws -> (sent: Int, network: Network) {
        var configuration = Configuration()
        configuration.stunServers = [ServerAddress(host: "127.0.0.1", port: 9)]
        configuration.interfaces = .loopback
        try configure(&configuration)
        let port = try Port.open(SocketAddress(ip: .anyIPv6, port: 0))
        let now = Instant(nanoseconds: 0)
        let network = Network(configuration, port: port, random: SystemRandomNumberGenerator(), now: now)
        var sent = 0
        while true {
            var room = [UInt8](repeating: 0, count: 1500)
            let isThere = room.withUnsafeMutableBytes { buffer in
                var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
                let to = network.pollTransmit(into: &output, now: now)
                _ = output.finalize(for: buffer)
                return to != nil
            }
            guard isThere else { return (sent, network) }
            sent += 1
        }
    }

    @Test func isTheConfigurations() throws {
        #expect(try network { _ in }.sent > 0)
        #expect(try network { _ in }.network.hosts.contains { $0.isLoopback })
        let denied = try network { $0.deniedInterfaces = [try InterfacePattern(parsing: "*")] }
        #expect(denied.network.hosts.isEmpty && denied.network.candidates.isEmpty && !denied.network.isOnline)
        #expect(denied.sent == 0, "nobody is asked from an address that may not be used")
        let allowed = try network { $0.allowedInterfaces = [try InterfacePattern(parsing: "127.0.0.0/8")] }
        #expect(allowed.network.hosts == [IPAddress("127.0.0.1")!] && !allowed.network.isOnline && allowed.sent > 0)
        #expect(allowed.network.multicastLinks == [MulticastLink(interface: 1, isIPv4: true)])
        let bound = try network {
            $0.bindAddress = IPAddress("127.0.0.1")
            $0.deniedInterfaces = [try InterfacePattern(parsing: "127.0.0.0/8")]
        }
        #expect(bound.network.hosts.isEmpty && bound.sent == 0)
    }
}
