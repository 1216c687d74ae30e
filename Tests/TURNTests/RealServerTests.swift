import COpenSSL
import Coturn
import Glibc
import STUN
import TURN
import Testing
import Wire

/// Against coturn, over real sockets of the loopback interface.
@Suite(.serialized) struct RealServers {
    /// Data both ways between two allocations, in indications and over channels, in all sizes.
    private func exchange(_ left: RealClient, _ right: RealClient, isIPv6: Bool = false) throws {
        _ = try left.allocate()
        _ = try right.allocate()
        let a = isIPv6 ? left.client.allocation!.relayed.first! : left.client.allocation!.relayed.last!
        let b = isIPv6 ? right.client.allocation!.relayed.first! : right.client.allocation!.relayed.last!
        #expect(left.client.permit(b.ip, now: monotonicTime()) == .accepted)
        #expect(right.client.permit(a.ip, now: monotonicTime()) == .accepted)
        try left.run("a permission", with: right) { $0.has(.permitted(b.ip)) && right.has(.permitted(a.ip)) }
        for _ in 0..<2 {
            let before = (left.delivered.count, right.delivered.count)
            for count in [1, 2, 3, 4, 500, 1200] {
                #expect(left.send([UInt8](repeating: UInt8(count & 255), count: count), to: b) == .written)
                #expect(right.send([UInt8](repeating: UInt8(count & 255), count: count), to: a) == .written)
            }
            try left.run("data", with: right) {
                $0.delivered.count >= before.0 + 6 && right.delivered.count >= before.1 + 6
            }
            #expect(left.delivered.dropFirst(before.0).map(\.data.count).sorted() == [1, 2, 3, 4, 500, 1200])
            #expect(right.delivered.dropFirst(before.1).map(\.data.count).sorted() == [1, 2, 3, 4, 500, 1200])
            #expect(left.delivered.allSatisfy { $0.from == b } && right.delivered.allSatisfy { $0.from == a })
            if left.client.isChannelBound(b, now: monotonicTime()) { break }
            #expect(left.client.bindChannel(b, now: monotonicTime()) == .accepted)
            #expect(right.client.bindChannel(a, now: monotonicTime()) == .accepted)
            try left.run("channels", with: right) { $0.has(.channelBound(b)) && right.has(.channelBound(a)) }
        }
        #expect(left.client.statistics.badIntegrity == 0 && right.client.statistics.badIntegrity == 0)
        left.client.close(now: monotonicTime())
        right.client.close(now: monotonicTime())
        try left.run("the end", with: right) { $0.has(.closed) && right.has(.closed) }
        #expect(left.client.statistics.errorsReceived <= 2)
    }

    @Test func carriesData() throws {
        let server = try RealServer([])
        for transport in RelayTransport.allCases {
            try exchange(RealClient(server, transport), RealClient(server, .udp))
            try exchange(RealClient(server, transport), RealClient(server, transport))
        }
    }

    @Test func carriesDataOverIPv6() throws {
        let server = try RealServer([])
        for transport in RelayTransport.allCases {
            try exchange(
                RealClient(server, transport, isIPv6: true) { $0.families = .ipv6 },
                RealClient(server, transport) { $0.families = .ipv6 }, isIPv6: true)
        }
        let both = try RealClient(server, .udp) { $0.families = .both }
        _ = try both.allocate()
        #expect(both.client.allocation?.relayed.map(\.ip.isIPv6) == [true, false])
        #expect(both.client.allocation?.missing == nil)
        try exchange(both, RealClient(server, .tcp) { $0.families = .both }, isIPv6: true)
    }

    @Test func timeLimitedCredentialsAreTaken() throws {
        let server = try RealServer([], users: ["--use-auth-secret", "--static-auth-secret=north"])
        let until = Int64(time(nil)) + 600
        let good = RelayCredentials(secret: Array("north".utf8), user: "bob", expiry: until)
        try exchange(RealClient(server, .udp, credentials: good), RealClient(server, .tls, credentials: good))
        let nameless = RelayCredentials(secret: Array("north".utf8), user: "", expiry: until)
        _ = try RealClient(server, .udp, credentials: nameless).allocate()
        for bad in [
            RelayCredentials(secret: Array("south".utf8), user: "bob", expiry: until),
            RelayCredentials(secret: Array("north".utf8), user: "bob", expiry: Int64(time(nil)) - 60),
        ] {
            let client = try RealClient(server, .udp, credentials: bad)
            try client.run("a refusal") { !$0.failures.isEmpty }
            #expect(client.failures == [.wrongCredentials])
        }
    }

    @Test func wrongPasswordsAreRefused() throws {
        let server = try RealServer([])
        for transport in RelayTransport.allCases {
            for name in ["alice", "nobody"] {
                let client = try RealClient(
                    server, transport, credentials: RelayCredentials(username: name, password: "wrong"))
                try client.run("a refusal") { !$0.failures.isEmpty }
                #expect(client.failures == [.wrongCredentials])
            }
        }
    }

    @Test func quotaIsTold() throws {
        let server = try RealServer(["--user-quota=1"])
        let first = try RealClient(server, .udp)
        _ = try first.allocate()
        let second = try RealClient(server, .udp)
        try second.run("a refusal") { !$0.failures.isEmpty }
        #expect(second.failures == [.quotaReached])
        first.client.close(now: monotonicTime())
        try first.run("the end") { $0.has(.closed) }
    }

    @Test func staleNoncesAreReplaced() throws {
        let server = try RealServer(["--stale-nonce=1"])
        let client = try RealClient(server, .udp)
        _ = try client.allocate()
        let limit = monotonicTime() + patience
        while client.client.statistics.staleNonces < 2, monotonicTime() < limit {
            client.client.probe(now: monotonicTime())
            client.turn()
        }
        #expect(client.client.statistics.staleNonces >= 2)
        #expect(client.failures.isEmpty && client.client.allocation != nil)
    }

    @Test func serverSendsTheClientOn() throws {
        let other = try RealServer([])
        let server = try RealServer(["--alternate-server=127.0.0.1:\(other.port)"])
        let client = try RealClient(server, .tcp)
        try client.run("a redirection") { !$0.events.isEmpty }
        #expect(client.events == [.connectionNeeded(.redirected(to: other.endpoint(.tcp), domain: nil))])
    }

    /// Only over UDP: coturn 4.6.1 answers a ticket on another stream with the end of a message.
    @Test func allocationMovesAlong() throws {
        let server = try RealServer(["--mobility"])
        let client = try RealClient(server, .udp)
        let relayed = try client.allocate()
        #expect(client.client.allocation?.isMobile == true)
        let peer = try RealClient(server, .udp)
        let other = try peer.allocate()
        _ = client.client.permit(other.ip, now: monotonicTime())
        _ = client.client.bindChannel(other, now: monotonicTime())
        _ = peer.client.permit(relayed.ip, now: monotonicTime())
        try client.run("a channel", with: peer) { $0.has(.channelBound(other)) && peer.has(.permitted(relayed.ip)) }
        for number in 1...3 as ClosedRange<UInt8> {
            try client.move()
            try client.run("the move", with: peer) { $0.events.filter { $0 == .moved }.count == Int(number) }
            #expect(client.client.allocation?.relayed == [relayed])
            #expect(client.send([number, 2, 3], to: other) == .written)
            try client.run("data", with: peer) { _ in peer.delivered.count == Int(number) }
            #expect(peer.delivered.last?.from == relayed && peer.delivered.last?.data == [number, 2, 3])
            #expect(peer.send([4], to: relayed) == .written)
            try client.run("data", with: peer) { $0.delivered.count == Int(number) }
        }
    }

    /// coturn goes on with the name that the allocation was made with, after its time too.
    @Test func otherCredentialsDoNotEndTheAllocation() throws {
        let server = try RealServer([], users: ["--use-auth-secret", "--static-auth-secret=north"])
        let until = Int64(time(nil)) + 600
        let first = RelayCredentials(
            secret: Array("north".utf8), user: "bob", expiry: until, expires: monotonicTime() + .seconds(30))
        let client = try RealClient(server, .udp, credentials: first)
        let relayed = try client.allocate()
        try client.run("a wish for others") { $0.has(.credentialsNeeded(by: first.expires!)) }
        let second = RelayCredentials(secret: Array("north".utf8), user: "bob", expiry: until + 600)
        client.client.setCredentials(second, now: monotonicTime())
        _ = client.client.permit(relayed.ip, now: monotonicTime())
        client.client.probe(now: monotonicTime())
        try client.run("a permission") { $0.has(.permitted(relayed.ip)) }
        #expect(client.failures.isEmpty && client.client.username == first.username)
        // The next one is made with the new name.
        try client.move()
        try client.run("another allocation") { $0.client.allocation.map { $0.relayed != [relayed] } ?? false }
        #expect(client.client.username == second.username)
    }

    @Test(arguments: RelayTransport.allCases) func serverWithoutMobilityGivesAnother(transport: RelayTransport) throws {
        let server = try RealServer([])
        let client = try RealClient(server, transport)
        _ = try client.allocate()
        #expect(client.client.allocation?.isMobile == false)
        try client.move()
        try client.run("another allocation") { $0.events.count >= 2 }
        #expect(client.client.allocation != nil && client.failures.isEmpty)
    }

    @Test func deathOfTheServerIsSeen() throws {
        let server = try RealServer([])
        let stream = try RealClient(server, .tcp)
        let datagrams = try RealClient(server, .udp)
        _ = try stream.allocate()
        _ = try datagrams.allocate()
        server.end()
        try stream.run("the end of the stream") { !$0.failures.isEmpty }
        #expect(stream.failures == [.connectionClosed])
        try server.start()
        // The same 5-tuple, of which the server knows nothing any more.
        datagrams.client.probe(now: monotonicTime())
        try datagrams.run("the loss") { !$0.failures.isEmpty }
        #expect(datagrams.failures == [.allocationLost])
        datagrams.client.start(now: monotonicTime())
        _ = try datagrams.allocate2()
        try stream.move()
        try stream.run("another allocation") { $0.client.allocation != nil }
    }

    @Test func secondAllocationOnAPortIsAMismatch() throws {
        let server = try RealServer([])
        let client = try RealClient(server, .udp)
        _ = try client.allocate()
        client.forgetState()
        try client.run("a refusal") { !$0.events.isEmpty }
        #expect(client.events == [.connectionNeeded(.mismatch)])
        try client.move()
        try client.run("an allocation") { $0.client.allocation != nil }
    }
}

extension RealClient {
    fileprivate func allocate2() throws {
        try run("an allocation") { $0.client.allocation != nil }
    }
}
