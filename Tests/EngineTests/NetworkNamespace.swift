import CSystem
import Foundation
import Testing
import Wire

@testable import Engine

/// A monitor on real sockets and a clock that stands still unless it is told.
private final class Watch {
    let monitor: NetworkMonitor
    var now = Instant(nanoseconds: 1_000_000_000)
    var changes = 0

    init(_ policy: InterfacePolicy = []) { monitor = NetworkMonitor(policy, now: now) }

    var offered: [String] { monitor.offered.map(\.description) }

    /// Takes messages until one comes that makes `condition` true; lets the time pass if `settles`.
    func until(settles: Bool = true, _ condition: () -> Bool) throws {
        let deadline = Date(timeIntervalSinceNow: 20)
        while !condition() {
            guard Date() < deadline else { throw Missing(description: "not within 20 s; offered: \(offered)") }
            if cs_wait_readable(try #require(monitor.descriptor), 200) == 1, monitor.readable(now: now) { changes += 1 }
            if settles, let due = monitor.nextTimeout {
                now = due
                if monitor.handleTimeout(now: now) { changes += 1 }
            }
        }
    }
}

@Suite(.serialized, .enabled(if: Namespace.isPossible)) struct NetworkNamespace {
    private static func pair() throws {
        try Namespace.ip(
            "link set lo up", "link add v0 type veth peer name v1", "link set v0 up", "link set v1 up",
            "address add 10.9.0.1/24 dev v0", "address add 2001:db8:9::1/64 dev v0 nodad",
            "address add fd00:9::1/64 dev v0 nodad")
    }

    /// False where settings cannot be changed.
    private static func set(_ name: String, _ value: Int, on interface: String = "v0") -> Bool {
        guard let file = fopen("/proc/sys/net/ipv6/conf/\(interface)/\(name)", "w") else { return false }
        fputs("\(value)", file)
        return fclose(file) == 0
    }

    private static let pairAddresses = ["2001:db8:9::1", "fd00:9::1", "10.9.0.1"]

    @Test func addressesComeAndGo() throws {
        try Namespace.run {
            try Namespace.ip("link set lo up")
            let watch = Watch()
            #expect(watch.offered == ["::1", "127.0.0.1"] && !watch.monitor.isOnline)
            try NetworkNamespace.pair()
            try watch.until { watch.offered == NetworkNamespace.pairAddresses }
            #expect(watch.monitor.isOnline)
            // What is gone is gone with the message that says so: no time passes.
            try Namespace.ip("address del 10.9.0.1/24 dev v0")
            try watch.until(settles: false) { watch.offered == ["2001:db8:9::1", "fd00:9::1"] }
            // And with a link that is down, or has nothing at its other end any more.
            try Namespace.ip("link set v1 down")
            try watch.until(settles: false) { watch.offered == ["::1", "127.0.0.1"] }
            try Namespace.ip("link set v1 up")
            try watch.until { watch.offered == ["2001:db8:9::1", "fd00:9::1"] }
            try Namespace.ip("link del v0")
            try watch.until(settles: false) { watch.offered == ["::1", "127.0.0.1"] }
        }
    }

    /// Many messages, one look.
    @Test func changesSettle() throws {
        try Namespace.run {
            try Namespace.ip("link set lo up")
            let watch = Watch()
            try NetworkNamespace.pair()
            #expect(cs_wait_readable(try #require(watch.monitor.descriptor), 5000) == 1)
            let before = watch.now
            while watch.monitor.descriptor.map({ cs_wait_readable($0, 0) }) == 1 {
                #expect(!watch.monitor.readable(now: watch.now))
            }
            #expect(watch.offered == ["::1", "127.0.0.1"])
            #expect(watch.monitor.nextTimeout == before + NetworkMonitor.settling)
            #expect(!watch.monitor.handleTimeout(now: before))
            #expect(watch.monitor.handleTimeout(now: before + NetworkMonitor.settling))
            #expect(watch.offered.contains("10.9.0.1") && watch.monitor.nextTimeout == nil)
        }
    }

    /// As they come and go on a machine with containers.
    @Test func interfacesWithoutAddressesAreNobodysBusiness() throws {
        try Namespace.run {
            try Namespace.ip("link set lo up")
            let watch = Watch()
            func takeAll() throws {
                let descriptor = try #require(watch.monitor.descriptor)
                while cs_wait_readable(descriptor, 0) == 1 { _ = watch.monitor.readable(now: watch.now) }
            }
            try Namespace.ip(
                (0..<5).flatMap {
                    [
                        "link add x\($0) type veth peer name y\($0)", "link set x\($0) up", "link set y\($0) up",
                        "address add fe80::99/64 dev x\($0) nodad",
                    ]
                })
            #expect(cs_wait_readable(try #require(watch.monitor.descriptor), 5000) == 1)
            try takeAll()
            #expect(watch.monitor.nextTimeout == nil)
            try Namespace.ip("address add 10.99.0.1/24 dev x0", "link del x1")
            try watch.until { watch.offered.contains("10.99.0.1") }
            try Namespace.ip("link del x0")
            try watch.until(settles: false) { !watch.offered.contains("10.99.0.1") }
        }
    }

    @Test func addressesAreToldApart() throws {
        try Namespace.run {
            try NetworkNamespace.pair()
            let makesTemporary = NetworkNamespace.set("use_tempaddr", 2)
            // Asking whether an address is anyone else's takes so many seconds.
            _ = NetworkNamespace.set("dad_transmits", 3)
            try Namespace.ip(
                "address add 2001:db8:9::d/64 dev v0 nodad preferred_lft 0",
                "address add 2001:db8:9:5::1/64 dev v0 nodad mngtmpaddr valid_lft 3600 preferred_lft 1800",
                "address add 2001:db8:9::e/64 dev v0")
            let watch = Watch()
            let addresses = watch.monitor.snapshot.addresses
            func named(_ text: String) -> NetworkSnapshot.Address? { addresses.first { $0.ip.description == text } }
            #expect(named("2001:db8:9::d")?.isDeprecated == true && named("2001:db8:9::1")?.isDeprecated == false)
            #expect(named("2001:db8:9::e")?.isTentative == true)
            #expect(named("10.9.0.1")?.isTemporary == false)
            let made = addresses.filter(\.isTemporary)
            #expect(!made.isEmpty || !makesTemporary)
            #expect(Set(watch.offered) == Set(NetworkNamespace.pairAddresses + ["2001:db8:9:5::1"]))
            // Nobody else has it: it counts from then on.
            try watch.until { watch.offered.contains("2001:db8:9::e") }
        }
    }

    @Test func kindsOfInterfacesAndTheWayOutAreKnown() throws {
        try Namespace.run {
            try NetworkNamespace.pair()
            try Namespace.ip(
                "link add b0 type bridge", "link set b0 up", "link add w0 type veth peer name w1",
                "link set w0 master b0", "link set w0 up", "link set w1 up", "address add 172.17.0.1/16 dev b0",
                "link add m0 link v0 type macvlan", "link set m0 up", "address add 192.0.2.1/24 dev m0")
            let watch = Watch()
            let kinds = Dictionary(
                uniqueKeysWithValues: watch.monitor.snapshot.interfaces.values.map { ($0.name, $0.kind) })
            #expect(kinds["b0"] == "bridge" && kinds["v0"] == "veth" && kinds["m0"] == "macvlan" && kinds["lo"] == "")
            #expect(watch.offered == ["192.0.2.1"])
            #expect(watch.monitor.snapshot.routeIPv4 == nil && watch.monitor.snapshot.routeIPv6 == nil)
            let before = watch.changes
            try Namespace.ip("route add default via 10.9.0.2", "route add default via 2001:db8:9::2")
            try watch.until { watch.offered == ["2001:db8:9::1", "fd00:9::1", "192.0.2.1", "10.9.0.1"] }
            #expect(watch.changes > before)
            let bridged = watch.monitor.snapshot.addresses.contains { $0.ip == IPAddress("172.17.0.1") }
            #expect(bridged && !watch.offered.contains("172.17.0.1"))
            let name = watch.monitor.snapshot.routeIPv4.flatMap {
                watch.monitor.snapshot.interfaces[$0.interface]?.name
            }
            #expect(name == "v0" && watch.monitor.snapshot.routeIPv4?.gateway == IPAddress("10.9.0.2"))
            try watch.until { watch.monitor.snapshot.routeIPv6?.gateway == IPAddress("2001:db8:9::2") }
            // Other routes are nobody's business.
            try Namespace.ip("route add 198.51.100.0/24 via 10.9.0.2")
            var changes = [cs_network_change](repeating: cs_network_change(), count: 64)
            let count = Int(cs_netlink_changes(try #require(watch.monitor.descriptor), &changes, 64))
            #expect(!changes.prefix(count).contains { Int($0.what) == CS_CHANGE_ROUTE })
            try Namespace.ip("route del default via 10.9.0.2")
            try watch.until { watch.monitor.snapshot.routeIPv4 == nil }
        }
    }

    /// More messages than the socket holds: some are lost, and the list is made anew, at once.
    @Test func lostMessagesLoseNothing() throws {
        try Namespace.run {
            try NetworkNamespace.pair()
            let descriptor = cs_netlink_watch()
            defer { cs_close(descriptor) }
            let watch = Watch()
            try Namespace.ip((0..<2000).map { "address add 10.77.\($0 / 200).\($0 % 200 + 1)/32 dev v0" })
            try Namespace.ip("address del 10.9.0.1/24 dev v0")
            var changes = [cs_network_change](repeating: cs_network_change(), count: 16)
            let count = cs_netlink_changes(descriptor, &changes, 16)
            #expect(count == 16 && Int(changes[15].what) == CS_CHANGE_UNKNOWN)
            watch.now = watch.now + NetworkMonitor.settling
            #expect(watch.monitor.readable(now: watch.now))
            #expect(watch.monitor.snapshot.addresses.count > 2000)
            #expect(!watch.offered.contains("10.9.0.1") && watch.offered.count == 10)
        }
    }

    /// More changes than the caller has room for count as lost.
    @Test func changesBeyondTheRoomAreTold() throws {
        try Namespace.run {
            try NetworkNamespace.pair()
            let descriptor = cs_netlink_watch()
            defer { cs_close(descriptor) }
            try Namespace.ip((1...20).map { "address add 10.77.0.\($0)/32 dev v0" })
            var changes = [cs_network_change](repeating: cs_network_change(), count: 64)
            #expect(cs_netlink_changes(descriptor, &changes, 4) == 4)
            #expect(Int(changes[2].what) != CS_CHANGE_UNKNOWN && Int(changes[3].what) == CS_CHANGE_UNKNOWN)
            try Namespace.ip((1...20).map { "address del 10.77.0.\($0)/32 dev v0" })
            // Beside them the kernel may have something to say of its own.
            let count = Int(cs_netlink_changes(descriptor, &changes, 64))
            #expect(changes.prefix(count).count { Int($0.what) == CS_CHANGE_ADDRESS && $0.is_gone == 1 } == 20)
        }
    }

    /// Anyone may send to a netlink socket.
    @Test func onlyTheKernelIsBelieved() throws {
        try Namespace.run {
            try NetworkNamespace.pair()
            let watch = Watch()
            let descriptor = try #require(watch.monitor.descriptor)
            var own = NetlinkName()
            var length = socklen_t(MemoryLayout<NetlinkName>.size)
            let result = withUnsafeMutableBytes(of: &own) {
                getsockname(descriptor, $0.baseAddress?.assumingMemoryBound(to: sockaddr.self), &length)
            }
            try #require(result == 0)
            let sender = socket(16, Int32(SOCK_RAW.rawValue), 0)
            defer { close(sender) }
            own.groups = 0
            // A message that an address was removed (RTM_DELADDR), as the kernel writes it.
            var forged: [UInt8] = [32, 0, 0, 0, 21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 24, 0, 0]
            let index = watch.monitor.snapshot.addresses.first { $0.ip == IPAddress("10.9.0.1") }?.interface ?? 0
            forged += withUnsafeBytes(of: index) { Array($0) } + [8, 0, 2, 0, 10, 9, 0, 1]
            let sent = withUnsafeBytes(of: own) {
                sendto(
                    sender, forged, forged.count, 0, $0.baseAddress?.assumingMemoryBound(to: sockaddr.self), length)
            }
            #expect(sent == forged.count)
            #expect(cs_wait_readable(descriptor, 5000) == 1)
            var changes = [cs_network_change](repeating: cs_network_change(), count: 16)
            // The kernel may have something to say of its own.
            let count = Int(cs_netlink_changes(descriptor, &changes, 16))
            #expect(!changes.prefix(count).contains { $0.is_gone == 1 })
            // The same message is understood otherwise.
            #expect(cs_netlink_parse_changes(forged, forged.count, &changes, 16) == 1 && changes[0].is_gone == 1)
        }
    }

    @Test func withoutIPv6OrAnythingAtAllThereIsNoError() throws {
        try Namespace.run {
            let nothing = Watch()
            #expect(nothing.offered.isEmpty && nothing.monitor.nextTimeout == nil)
            let isOff = NetworkNamespace.set("disable_ipv6", 1, on: "all")
            try Namespace.ip(
                "link set lo up", "link add v0 type veth peer name v1", "link set v0 up", "link set v1 up",
                "address add 10.9.0.1/24 dev v0", "route add default via 10.9.0.2")
            let watch = Watch()
            #expect(watch.offered == ["10.9.0.1"] && watch.monitor.nextTimeout == nil)
            #expect(watch.monitor.snapshot.routeIPv4 != nil && (watch.monitor.snapshot.routeIPv6 == nil || !isOff))
            // What leads nowhere is no way out.
            try Namespace.ip("route replace blackhole default")
            try watch.until { watch.monitor.snapshot.routeIPv4 == nil }
            try Namespace.ip("route replace unreachable default", "route add prohibit default metric 5")
            #expect(!watch.monitor.refresh(now: watch.now) && watch.monitor.nextTimeout == nil)
        }
    }

    /// A sandbox that has no netlink at all, not even for the C library.
    @Test func inASandboxTheWaysOutShowTheAddresses() throws {
        try Namespace.run {
            try NetworkNamespace.pair()
            try Namespace.ip("route add default via 10.9.0.2", "route add default via 2001:db8:9::2")
            try #require(Sandbox.withoutNetlink())
            let watch = Watch()
            #expect(watch.monitor.descriptor == nil)
            #expect(watch.offered == ["2001:db8:9::1", "10.9.0.1"])
            #expect(watch.monitor.nextTimeout == watch.now + NetworkMonitor.polling)
            let loopback = watch.monitor.snapshot.usable.filter(\.ip.isLoopback).map(\.ip.description)
            #expect(Set(loopback) == ["127.0.0.1", "::1"])
        }
    }

    @Test func withoutNetlinkTheAddressesAreKnownAllTheSame() throws {
        try Namespace.run {
            try NetworkNamespace.pair()
            try Namespace.ip("route add default via 10.9.0.2")
            let snapshot = try #require(NetworkSnapshot.fallback())
            #expect(Set(snapshot.offered([]).map(\.description)) == Set(NetworkNamespace.pairAddresses))
            let name = snapshot.routeIPv4.flatMap { snapshot.interfaces[$0.interface]?.name }
            #expect(name == "v0" && snapshot.routeIPv6 == nil)
        }
    }
}

/// sockaddr_nl of netlink(7).
private struct NetlinkName {
    var family: UInt16 = 16
    var padding: UInt16 = 0
    var pid: UInt32 = 0
    var groups: UInt32 = 0
}
