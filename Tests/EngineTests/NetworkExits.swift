import CSystem
import Testing
import Wire

@testable import Engine

/// A machine with two ways to the world: what is behind each of them has the same address, and tells where a packet left.
@Suite(.serialized, .enabled(if: Namespace.isPossible)) struct NetworkExits {
    private let machine: Namespace
    private let wired: Namespace
    private let mobile: Namespace

    init() throws {
        (machine, wired, mobile) = (try Namespace(), try Namespace(), try Namespace())
        let (wiredID, mobileID) = (wired.thread, mobile.thread)
        try machine.run {
            try Namespace.ip(
                "link set lo up", "link add v0 type veth peer name v1", "link add w0 type veth peer name w1",
                "link set v1 netns \(wiredID)", "link set w1 netns \(mobileID)", "link set v0 up", "link set w0 up",
                "address add 10.1.0.2/24 dev v0", "address add 10.2.0.2/24 dev w0",
                "route add default via 10.1.0.1 dev v0 metric 100", "route add default via 10.2.0.1 dev w0 metric 200")
        }
        for (namespace, link, number) in [(wired, "v1", 1), (mobile, "w1", 2)] {
            try namespace.run {
                try Namespace.ip(
                    "link set lo up", "link set \(link) up", "address add 10.\(number).0.1/24 dev \(link)",
                    "address add 198.51.100.9/32 dev lo")
            }
        }
    }

    private func close() {
        for namespace in [machine, wired, mobile] { namespace.close() }
    }

    private func send(_ port: Port, from local: String, to remote: SocketAddress, through exit: UInt32) {
        let sender = cs_sender_create()!
        defer { cs_sender_destroy(sender) }
        cs_sender_next(sender)?.pointee = 7
        var (to, from) = (remote.system, SocketAddress(ip: IPAddress(local)!, port: port.number).system)
        from.scope = exit
        cs_sender_commit(sender, port.descriptor, port.isIPv4 ? 1 : 0, 1, &to, &from)
        var (sent, refused) = (0 as UInt64, 0 as UInt64)
        cs_sender_flush(sender, &sent, &refused)
    }

    @Test func packetsLeaveWhereTheirAddressIs() throws {
        defer { close() }
        let remote = SocketAddress(ip: IPAddress("198.51.100.9")!, port: 0)
        let listeners = try [wired, mobile].map { namespace in try namespace.run { try Port.open(remote) } }
        let exits = try machine.run { () throws -> [IPAddress: UInt32] in
            guard case .complete(let snapshot) = NetworkSnapshot.read() else {
                throw Missing(description: "no netlink")
            }
            return snapshot.exits
        }
        #expect(Set(exits.values).count == 2 && exits.count == 2)
        let port = try machine.run { try Port.open(SocketAddress(ip: .anyIPv6, port: 0)) }
        for (index, local) in ["10.1.0.2", "10.2.0.2"].enumerated() {
            let exit = try #require(exits[IPAddress(local)!])
            let listener = listeners[index]
            // What was sent while the neighbours were not known yet is lost.
            var hasArrived = false
            for _ in 0..<50 where !hasArrived {
                try machine.run {
                    send(port, from: local, to: SocketAddress(ip: remote.ip, port: listener.number), through: exit)
                }
                hasArrived = cs_wait_readable(listener.descriptor, 100) == 1
            }
            #expect(hasArrived && cs_wait_readable(listeners[1 - index].descriptor, 0) == index, "\(local)")
        }
    }

    /// With one way there is nothing to choose, and an interface that leads nowhere is none.
    @Test func oneWayIsNoChoice() throws {
        defer { close() }
        let exits = try machine.run { () throws -> [IPAddress: UInt32] in
            try Namespace.ip("route del default via 10.2.0.1 dev w0")
            guard case .complete(let snapshot) = NetworkSnapshot.read() else {
                throw Missing(description: "no netlink")
            }
            return snapshot.exits
        }
        #expect(exits.isEmpty)
    }
}
