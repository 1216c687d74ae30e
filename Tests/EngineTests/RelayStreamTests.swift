import CSystem
import Coturn
import Glibc
import TURN
import Testing
import Wire

@testable import Engine

/// Relays over TCP and TLS, against coturn on the loopback interface.
@Suite(.serialized) struct RelayStreams {
    private static let names = ["localhost": ["127.0.0.1"], "relay.test": ["127.0.0.1"]]

    private let authority: Authority
    private let server: RealServer

    init() throws {
        authority = try Authority()
        server = try RealServer(
            [], certificate: authority.certificate("server", for: "DNS:localhost,IP:127.0.0.1"))
    }

    private func host(
        _ urls: String..., authority path: String? = nil, _ adjust: (inout RelayEnvironment.Settings) -> Void = { _ in }
    ) throws -> RelayHost {
        try RelayHost(urls.map { try turnServer($0) }, names: RelayStreams.names) {
            $0.authorityPath = path ?? authority.path
            adjust(&$0)
        }
    }

    @Test(arguments: [RelayTransport.tcp, .tls]) func carriesData(transport: RelayTransport) throws {
        let left = try host(server.url(transport, "localhost"))
        let right = try host(server.url(transport))
        try left.exchange(with: right, rounds: 25)
        let relayed = try left.relayed()
        #expect(left.group.transport(of: relayed)?.0 == transport)
        #expect(left.group.overhead(from: relayed, to: try right.relayed(), now: monotonicTime()) == 7)
        #expect(left.group.reflexive.isEmpty)
        let other = try host(server.url(.udp))
        left.forgetDelivered()
        try left.exchange(with: other, rounds: 5)
        let watched = left.watchedCount
        left.group.close(now: monotonicTime())
        try left.run("the end") { $0.group.isClosed }
        #expect(left.watchedCount == watched - 1)
        #expect(left.failures.isEmpty)
    }

    /// More than the socket takes at once: all of it arrives, or is dropped and counted, and it goes on.
    @Test(arguments: [RelayTransport.tcp, .tls]) func carriesBursts(transport: RelayTransport) throws {
        let left = try host(server.url(transport))
        let right = try host(server.url(transport))
        try left.exchange(with: right, rounds: 12)
        let (mine, theirs) = (try left.relayed(), try right.relayed())
        let data = [UInt8](repeating: 7, count: 1200)
        let before = right.delivered.count
        var refused = 0
        for _ in 0..<2000 where !left.sends(data, from: mine, to: theirs) { refused += 1 }
        #expect(left.group.legs[0].dropped == UInt64(refused))
        left.forgetDelivered()
        try left.exchange(with: right, rounds: 3)
        #expect(right.delivered.count > before)
    }

    @Test func otherNamesAreRefused() throws {
        let host = try host(server.url(.tls, "relay.test"))
        try host.run("the failure") { !$0.failures.isEmpty }
        #expect(host.failures[0] == (server.url(.tls, "relay.test"), .turnTLSFailed))
        #expect(host.group.candidates.isEmpty)
    }

    @Test func unknownAuthoritiesAreRefused() throws {
        let others = try Authority()
        let host = try host(server.url(.tls, "localhost"), authority: others.path)
        try host.run("the failure") { !$0.failures.isEmpty }
        #expect(host.failures[0].status == .turnTLSFailed && host.group.candidates.isEmpty)
    }

    @Test func missingAuthoritiesAreTold() throws {
        let host = try host(server.url(.tls), server.url(.tcp), authority: "/nowhere/ca.pem")
        try host.run("the failure") { !$0.failures.isEmpty }
        #expect(host.failures[0].status == .turnTLSFailed)
        try host.relayed()
    }

    @Test func refusedConnectionsAreTold() throws {
        let silent = try Silence()
        let host = try host("turn:127.0.0.1:\(silent.port)?transport=tcp", "turns:127.0.0.1:\(silent.port)")
        try host.run("the failures") { $0.failures.count >= 2 }
        #expect(host.failures.prefix(2).allSatisfy { $0.status == .turnUnreachable })
    }

    @Test(arguments: [RelayTransport.tcp, .tls]) func wrongPasswordIsTold(transport: RelayTransport) throws {
        let wrong = try turnServer(server.url(transport), password: "wrong")
        let host = try RelayHost([wrong]) { $0.authorityPath = authority.path }
        try host.run("the failure") { !$0.failures.isEmpty }
        #expect(host.failures[0].status == .turnUnauthorized && host.watchedCount == 0)
    }

    /// One server, three ways: UDP is the best, and others are not tried.
    @Test func datagramsAreBetterThanStreams() throws {
        let host = try host(server.url(.tls), server.url(.tcp), server.url(.udp))
        try host.relayed()
        #expect(host.allocations == [server.url(.udp)] && host.group.legs.count == 1 && host.watchedCount == 0)
    }

    /// Nothing comes over UDP: a connection is opened without waiting for the end of that.
    @Test func streamsStandInForDatagrams() throws {
        let silent = try Silence()
        let host = try host("turn:127.0.0.1:\(silent.port)", server.url(.tcp))
        try host.relayed()
        #expect(host.allocations == [server.url(.tcp)] && host.failures.isEmpty)
        #expect(host.group.legs.contains { $0.isAttempt && !$0.isStream })
    }

    /// Datagrams come through after all: the connection to the same server makes room for a standby.
    @Test func datagramsTakeOver() throws {
        let host = try RelayHost([turnServer(server.url(.tcp))])
        let relayed = try host.relayed()
        host.setServers([try turnServer(server.url(.tcp)), try turnServer(server.url(.udp))])
        try host.run("the change") { $0.losses == [relayed] && $0.group.legs.count == 1 }
        #expect(host.group.legs[0].endpoint.server.transport == .udp && host.group.candidates.count == 1)
    }

    @Test(arguments: [RelayTransport.tcp, .tls]) func closedConnectionIsALoss(transport: RelayTransport) throws {
        let host = try host(server.url(transport))
        let relayed = try host.relayed()
        server.end()
        try host.run("the loss") { $0.losses == [relayed] }
        #expect(host.group.candidates.isEmpty)
        try host.run("the failure") { !$0.failures.isEmpty }
        try server.start()
        let again = try host.relayed()
        let other = try self.host(server.url(.udp))
        #expect(host.group.owns(again))
        try host.exchange(with: other, rounds: 3)
    }

    /// The connection stands, and nothing comes over it: given up soon, and taken again.
    @Test(arguments: RelayTransport.allCases) func silentServerIsALoss(transport: RelayTransport) throws {
        let host = try host(server.url(transport))
        let other = try self.host(server.url(.udp))
        let relayed = try host.relayed()
        server.freeze()
        try host.run("the loss") { host in
            host.group.doubt(relayed: relayed, now: monotonicTime())
            return host.losses == [relayed]
        }
        #expect(host.group.candidates.isEmpty && host.failures.map(\.status) == [.turnLost])
        server.thaw()
        try host.exchange(with: other, rounds: 3)
    }

    @Test func anotherNetworkGetsAnotherConnection() throws {
        let ways = Ways()
        let host = try RelayHost([turnServer(server.url(.tcp))], ways: ways)
        let relayed = try host.relayed()
        ways.other = IPAddress("127.0.0.2")!
        host.environment.networkChanged(now: monotonicTime())
        // The first one still answers, and stays.
        try host.run("an answer") { !$0.group.legs.contains(where: \.isOutdated) }
        #expect(host.group.owns(relayed) && host.losses.isEmpty)
    }

    @Test func serverSendsTheClientOn() throws {
        let before = try RealServer(["--alternate-server=127.0.0.1:\(server.port)"])
        let host = try host(before.url(.tcp))
        let relayed = try host.relayed()
        #expect(host.group.transport(of: relayed)?.server == server.endpoint(.tcp) && host.failures.isEmpty)
        let datagrams = try self.host(before.url(.udp))
        let other = try datagrams.relayed()
        #expect(datagrams.group.transport(of: other)?.server == server.endpoint(.udp))
        try host.exchange(with: datagrams, rounds: 3)
    }

    /// Something else listens there.
    @Test(arguments: [RelayTransport.tcp, .tls]) func otherProtocolsAreNoRelays(transport: RelayTransport) throws {
        let chatter = try Chatter()
        let url = transport == .tls ? "turns:127.0.0.1:\(chatter.port)" : "turn:127.0.0.1:\(chatter.port)?transport=tcp"
        let host = try host(url, server.url(.tcp))
        try host.run("the failure") {
            chatter.turn()
            return !$0.failures.isEmpty && !$0.group.candidates.isEmpty
        }
        #expect(host.failures[0] == (url, transport == .tls ? .turnTLSFailed : .turnMalformed))
    }
}

/// A server of another protocol: says the same to everybody.
final class Chatter {
    private let descriptor: Int32
    private(set) var port: UInt16 = 0
    private var guests: [Int32] = []

    init() throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isBound = withUnsafeMutablePointer(to: &name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, size) == 0 && getsockname(descriptor, $0, &size) == 0
            }
        }
        guard isBound, listen(descriptor, 8) == 0 else { throw Overdue(what: "a port") }
        port = UInt16(bigEndian: name.sin_port)
    }

    deinit { for descriptor in guests + [descriptor] { close(descriptor) } }

    func turn() {
        let guest = accept(descriptor, nil, nil)
        guard guest >= 0 else { return }
        guests.append(guest)
        let line = Array("220 mail.test ESMTP, and what do you want?\r\n".utf8)
        _ = line.withUnsafeBytes { Glibc.send(guest, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
    }
}
