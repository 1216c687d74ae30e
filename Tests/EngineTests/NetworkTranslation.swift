import CSystem
import Testing
import Wire

@testable import Engine

/// Behind a NAT of the kernel's own: three namespaces, the client, its router and a server on the other side.
@Suite(.serialized, .enabled(if: Namespace.canTranslate)) struct NetworkTranslation {
    private let client: Namespace
    private let router: Namespace
    private let server: Namespace

    init() throws {
        (client, router, server) = (try Namespace(), try Namespace(), try Namespace())
        let (clientID, serverID) = (client.thread, server.thread)
        try router.run {
            try Namespace.ip(
                "link set lo up", "link add r0 type veth peer name c0", "link set c0 netns \(clientID)",
                "link add r1 type veth peer name s0", "link set s0 netns \(serverID)", "link set r0 up",
                "link set r1 up", "address add 10.50.0.1/24 dev r0", "address add 203.0.113.1/24 dev r1")
            try Namespace.nft(
                """
                table ip nat {
                    chain outward {
                        type nat hook postrouting priority 100;
                        oifname "r1" masquerade
                    }
                }
                """)
            try Namespace.set("ipv4/ip_forward", 1)
        }
        try client.run {
            try Namespace.ip(
                "link set lo up", "link set c0 up", "address add 10.50.0.2/24 dev c0",
                "route add default via 10.50.0.1")
        }
        try server.run {
            try Namespace.ip("link set lo up", "link set s0 up", "address add 203.0.113.9/24 dev s0")
        }
    }

    private func close() {
        for namespace in [client, router, server] { namespace.close() }
    }

    /// Lets questions and answers pass until `condition` holds. What gets lost while the router changes is asked again:
    /// the driver's clock goes from timeout to timeout.
    private func exchange(_ driver: Driver, _ responder: Responder, until condition: () -> Bool) throws {
        for _ in 0..<200 {
            _ = driver.transmit()
            if cs_wait_readable(responder.port.descriptor, 100) == 1 { _ = responder.answer() }
            if cs_wait_readable(driver.port.descriptor, 100) == 1 { _ = driver.receive() }
            if condition() { return }
            driver.now = try #require(driver.network.nextTimeout)
            driver.network.handleTimeout(now: driver.now)
        }
        throw Missing(description: "after 200 questions: \(driver.offered)")
    }

    @Test func thePortOutsideIsKnownAndFollowed() throws {
        defer { close() }
        let responder = try server.run { try Responder("203.0.113.9") }
        var configuration = Configuration()
        configuration.stunServers = [responder.address]
        let driver = try client.run { [configuration] in try Driver(configuration) }
        #expect(driver.offered == ["host 10.50.0.2"])

        try exchange(driver, responder) { driver.offered == ["host 10.50.0.2", "srflx 203.0.113.1"] }
        #expect(driver.poll() == .candidates)
        #expect(driver.network.candidates[1].address == responder.seen)
        #expect(driver.network.candidates[1].base?.ip == IPAddress("10.50.0.2"))

        // The router gets another address; the next keepalive shows it.
        try router.run { try Namespace.ip("address add 203.0.113.77/24 dev r1", "address del 203.0.113.1/24 dev r1") }
        try router.run { try Namespace.ip("address replace 203.0.113.77/24 dev r1") }
        try exchange(driver, responder) { driver.offered == ["host 10.50.0.2", "srflx 203.0.113.77"] }
        #expect(driver.poll() == .candidates)

        // The cable is pulled at the router: nothing of it is offered from the kernel's message on.
        try router.run { try Namespace.ip("link set r0 down") }
        // A look is made from the thread that asks for it.
        let changes = try client.run { () throws -> Network.Change in
            let descriptor = try #require(driver.network.descriptors.first)
            var changes: Network.Change = []
            for _ in 0..<20 where !changes.contains(.online) {
                guard cs_wait_readable(descriptor, 5000) == 1 else { throw Missing(description: "no message") }
                driver.network.readable(descriptor, now: driver.now)
                changes.formUnion(driver.poll())
            }
            return changes
        }
        #expect(changes == [.addresses, .route, .online, .candidates])
        #expect(!driver.network.isOnline && driver.offered == ["host ::1", "host 127.0.0.1"])
        driver.network.close()
    }
}
