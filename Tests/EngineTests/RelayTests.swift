import Coturn
import Glibc
import ICE
import TURN
import Testing
import Wire

@testable import Engine

/// Relays of a port, against coturn on the loopback interface.
@Suite(.serialized) struct Relays {
    @Test func carriesData() throws {
        let server = try RealServer([])
        let left = try RelayHost([turnServer(server.url())])
        let right = try RelayHost([turnServer(server.url())])
        try left.exchange(with: right)
        let relayed = try left.relayed()
        #expect(left.group.owns(relayed))
        #expect(left.group.transport(of: relayed)?.server == server.endpoint(.udp))
        let candidate = left.group.candidates[0]
        #expect(candidate.kind == .relayed && candidate.base == nil)
        #expect(candidate.relatedAddress == SocketAddress(ip: IPAddress("127.0.0.1")!, port: left.port.number))
        #expect(left.group.reflexive == [candidate.relatedAddress])
        // After some datagrams there is a channel: 4 bytes more for each instead of 36.
        #expect(left.group.overhead(from: relayed, to: try right.relayed(), now: monotonicTime()) == 4)
        let statistics = left.environment.statistics()[0]
        #expect(statistics.url == server.url() && statistics.held == 1 && statistics.allocations == 1)
        #expect(statistics.sent >= 20 && statistics.received >= 20 && statistics.roundTrip != nil)
        left.group.close(now: monotonicTime())
        try left.run("the end") { $0.group.isClosed }
        #expect(left.losses == [relayed] && left.group.candidates.isEmpty)
    }

    @Test func givesAddressesOfBothFamilies() throws {
        let server = try RealServer([])
        let host = try RelayHost([turnServer(server.url())]) { $0.families = .both }
        try host.relayed(2)
        let candidates = host.group.candidates
        #expect(candidates.map(\.address.ip.isIPv6) == [true, false])
        #expect(candidates[0].priority > candidates[1].priority)
        // The server is reached over IPv6 too.
        let other = try RelayHost([turnServer(server.url(.udp, "[::1]"))]) { $0.families = .ipv6 }
        let relayed = try other.relayed()
        #expect(relayed.ip.isIPv6)
        try host.exchange(with: other, rounds: 3)
    }

    /// The living one does not wait for the other's end.
    @Test func deadServerDelaysNothing() throws {
        let silent = try Silence()
        let server = try RealServer([])
        let host = try RelayHost([turnServer("turn:127.0.0.1:\(silent.port)"), turnServer(server.url())])
        try host.relayed()
        #expect(host.allocations == [server.url()] && host.failures.isEmpty)
        #expect(host.group.legs.contains { $0.isAttempt && $0.endpoint.address.port == silent.port })
        try host.run("the failure") { !$0.failures.isEmpty }
        #expect(host.failures[0].status == .turnUnreachable && host.failures[0].url.hasSuffix(":\(silent.port)"))
        #expect(host.group.candidates.count == 1)
    }

    /// One name, several addresses: nobody is there at the first.
    @Test func deadAddressDelaysNothing() throws {
        let server = try RealServer([])
        let names = ["relay.test": ["127.0.0.9", "127.0.0.10", "127.0.0.1"]]
        let host = try RelayHost([turnServer(server.url(.udp, "relay.test"))], names: names)
        try host.relayed()
        let held = host.group.legs.filter(\.isHeld)
        #expect(host.failures.isEmpty && held.count == 1)
        // The same server: those are not waited for any more.
        let others = host.group.legs.filter(\.isAttempt)
        #expect(others.isEmpty)
    }

    @Test func unknownNameIsTold() throws {
        let server = try RealServer([])
        let host = try RelayHost([turnServer("turn:nowhere.test"), turnServer(server.url())])
        try host.relayed()
        try host.run("the failure") { !$0.failures.isEmpty }
        #expect(host.failures.count == 1 && host.failures[0] == ("turn:nowhere.test", .turnUnreachable))
        #expect(host.events.contains { "\($0)".contains("the name nowhere.test has no address") })
    }

    @Test func wrongPasswordIsTold() throws {
        let server = try RealServer([])
        let host = try RelayHost([turnServer(server.url(), password: "wrong")])
        try host.run("the failure") { !$0.failures.isEmpty }
        #expect(host.failures[0] == (server.url(), .turnUnauthorized) && host.group.candidates.isEmpty)
        // Not again with the same.
        #expect(host.group.legs.isEmpty && host.group.nextTimeout.map { $0 > monotonicTime() + .seconds(60) } ?? true)
        host.setServers([try turnServer(server.url())])
        try host.relayed()
    }

    @Test func quotaIsTold() throws {
        let server = try RealServer(["--user-quota=1"])
        let first = try RelayHost([turnServer(server.url())])
        try first.relayed()
        let second = try RelayHost([turnServer(server.url())])
        try second.run("the failure") { !$0.failures.isEmpty }
        #expect(second.failures[0].status == .turnQuota)
    }

    @Test func secondServerIsAStandby() throws {
        let servers = [try RealServer([]), try RealServer([]), try RealServer([])]
        let host = try RelayHost(servers.map { try turnServer($0.url()) })
        try host.relayed(2)
        try host.run("peace") { !$0.group.legs.contains { !$0.isHeld } }
        #expect(host.group.legs.count == 2 && Set(host.group.candidates.map(\.priority)).count == 2)
        let first = host.group.candidates[0].address
        let second = host.group.candidates[1].address
        let dead = host.group.transport(of: first)?.server.port
        servers.first { $0.port == dead }?.end()
        try host.run("the loss") { host in
            host.group.doubt(relayed: first, now: monotonicTime())
            return host.losses == [first]
        }
        #expect(host.group.candidates.map(\.address) == [second] && !host.group.owns(first))
        #expect(host.failures.contains { $0.status == .turnLost })
        // The third one is the next standby.
        try host.relayed(2)
        #expect(host.group.owns(second) && host.losses == [first])
    }

    /// A server that is there is not given up because somebody doubts.
    @Test func doubtAloneChangesNothing() throws {
        let server = try RealServer([])
        let host = try RelayHost([turnServer(server.url())])
        let relayed = try host.relayed()
        var asked = 0
        try host.run("answers") { host in
            let leg = host.group.legs[0]
            if leg.probe == nil, leg.lastHeard + .milliseconds(100) <= monotonicTime() {
                host.group.doubt(relayed: relayed, now: monotonicTime())
                asked += 1
            }
            return asked > 3 && leg.probe == nil
        }
        #expect(host.losses.isEmpty && host.group.candidates.map(\.address) == [relayed])
    }

    @Test func serverThatComesBackIsUsedAgain() throws {
        let server = try RealServer([])
        let left = try RelayHost([turnServer(server.url())])
        let right = try RelayHost([turnServer(server.url())])
        try left.exchange(with: right, rounds: 3)
        let before = (try left.relayed(), try right.relayed())
        server.end()
        try left.run("the losses", with: right) { _ in
            left.group.doubt(relayed: before.0, now: monotonicTime())
            right.group.doubt(relayed: before.1, now: monotonicTime())
            return left.losses == [before.0] && right.losses == [before.1]
        }
        #expect(left.group.candidates.isEmpty)
        try server.start()
        try left.run("allocations", with: right) { _ in
            !left.group.candidates.isEmpty && !right.group.candidates.isEmpty
        }
        left.forgetDelivered()
        right.forgetDelivered()
        try left.exchange(with: right, rounds: 3)
    }

    /// Nobody uses the relay, and its end is noticed all the same.
    @Test func deathIsSeenWithoutTraffic() throws {
        let server = try RealServer([])
        let host = try RelayHost([turnServer(server.url())]) {
            $0.idleProbe = .milliseconds(200)
            $0.giveUp = .milliseconds(500)
        }
        let relayed = try host.relayed()
        server.end()
        try host.run("the loss") { $0.losses == [relayed] }
        try host.run("the end") { !$0.group.legs.contains { $0.client.allocation != nil } }
        try server.start()
        try host.relayed()
    }

    @Test func secretMakesCredentials() throws {
        let server = try RealServer([], users: ["--use-auth-secret", "--static-auth-secret=north"])
        let good = try TURNServer(url: server.url(), credentials: .secret(user: "bob", secret: "north"))
        let host = try RelayHost([good]) {
            $0.secretLifetime = .seconds(4)
            $0.client.credentialMargin = .seconds(3)
        }
        let relayed = try host.relayed()
        let first = host.group.legs[0].client.username
        #expect(first?.hasSuffix(":bob") == true)
        // Renewed before they end, and the allocation stays.
        try host.run("others") {
            $0.environment.credentials(of: RelayServer(good), now: monotonicTime())?.username != first
        }
        let after = try host.relayed()
        #expect(after == relayed)
        let bad = try TURNServer(url: server.url(), credentials: .secret(user: "bob", secret: "south"))
        let other = try RelayHost([bad])
        try other.run("the failure") { !$0.failures.isEmpty }
        #expect(other.failures[0].status == .turnUnauthorized)
    }

    @Test func credentialsThatEndAreAskedFor() throws {
        let server = try RealServer([])
        let end = monotonicTime() + .seconds(50)
        let ending = try TURNServer(
            url: server.url(), credentials: .password(username: "alice", password: "secret", expires: end))
        let host = try RelayHost([ending])
        let wish = RelayEvent.credentialsNeeded(url: server.url(), by: end)
        try host.run("the wish") { $0.events.contains(wish) && !$0.group.candidates.isEmpty }
        #expect(host.events.filter { $0 == wish }.count == 1)
        let relayed = try host.relayed()
        host.setServers([try turnServer(server.url())])
        try host.run("the new ones") { $0.group.legs[0].client.username == "alice" }
        #expect(host.group.candidates.map(\.address) == [relayed] && host.losses.isEmpty)
    }

    @Test func serversChangeAtRunTime() throws {
        let servers = [try RealServer([]), try RealServer([])]
        let host = try RelayHost([turnServer(servers[0].url())])
        let first = try host.relayed()
        host.setServers(try servers.map { try turnServer($0.url()) })
        try host.relayed(2)
        #expect(host.group.owns(first) && host.losses.isEmpty)
        host.setServers([try turnServer(servers[1].url())])
        #expect(!host.group.owns(first))
        try host.run("the end") { $0.group.legs.count == 1 }
        #expect(host.losses == [first] && host.group.candidates.count == 1)
        #expect(host.environment.statistics().map(\.url) == [servers[1].url()])
        host.setServers([])
        try host.run("the end") { $0.group.legs.isEmpty }
        #expect(host.group.candidates.isEmpty && host.group.nextTimeout == nil)
    }

    /// A program that crashed left an allocation on the port that it has again.
    @Test func earlierRunIsInNobodysWay() throws {
        let server = try RealServer([])
        let host = try RelayHost([turnServer(server.url())])
        let before = try host.relayed()
        host.startGroup()
        let after = try host.relayed()
        #expect(before != after)
        let other = try RelayHost([turnServer(server.url())])
        try host.exchange(with: other, rounds: 3)
    }

    @Test func anotherNetworkKeepsWhatWorks() throws {
        let server = try RealServer([])
        let host = try RelayHost([turnServer(server.url())])
        let relayed = try host.relayed()
        for _ in 0..<3 {
            host.environment.networkChanged(now: monotonicTime())
            try host.run("an answer") { !$0.group.legs[0].isOutdated }
        }
        #expect(host.group.candidates.map(\.address) == [relayed] && host.losses.isEmpty)
    }

    @Test(arguments: [true, false]) func allocationFollowsToAnotherNetwork(isMobile: Bool) throws {
        let server = try RealServer(isMobile ? ["--mobility"] : [])
        let ways = Ways()
        let host = try RelayHost([turnServer(server.url())], ways: ways)
        let other = try RelayHost([turnServer(server.url())])
        let relayed = try host.relayed()
        ways.other = IPAddress("127.0.0.2")!
        host.environment.networkChanged(now: monotonicTime())
        try host.run("an allocation") { !$0.group.candidates.isEmpty && $0.group.legs.allSatisfy { !$0.isOutdated } }
        #expect(host.losses == (isMobile ? [] : [relayed]) && host.group.owns(relayed) == isMobile)
        try host.exchange(with: other, rounds: 3)
    }

    /// Far more addresses than the server lets anybody have at once.
    @Test func peersAreBounded() throws {
        let server = try RealServer([])
        let host = try RelayHost([turnServer(server.url())]) {
            $0.client.maximumPermissions = 64
            $0.client.maximumChannels = 8
            $0.channelThreshold = 2
        }
        let relayed = try host.relayed()
        for number in 0..<3000 as Range<UInt32> {
            let peer = SocketAddress(
                ip: IPAddress(v4: 0x7F01_0000 | number), port: UInt16(truncatingIfNeeded: 1024 + number))
            for _ in 0..<3 { host.send([1, 2, 3], from: relayed, to: peer) }
            if number % 50 == 0 { host.turn(.zero) }
        }
        let leg = host.group.legs[0]
        #expect(leg.peers.count <= 128)
        let other = try RelayHost([turnServer(server.url())])
        try host.exchange(with: other, rounds: 12)
        #expect(host.group.candidates.map(\.address) == [relayed])
    }

    /// What is sent where nothing can be sent is dropped and counted.
    @Test func uselessDatagramsAreDropped() throws {
        let server = try RealServer([])
        let host = try RelayHost([turnServer(server.url())])
        let relayed = try host.relayed()
        let elsewhere = SocketAddress(ip: IPAddress("127.0.0.1")!, port: 9)
        let data: [UInt8] = [1]
        #expect(!host.sends(data, from: elsewhere, to: elsewhere))
        for text in ["::1", "0.0.0.0", "224.0.0.1"] {
            let peer = SocketAddress(ip: IPAddress(text)!, port: 9)
            #expect(!host.sends(data, from: relayed, to: peer))
        }
        #expect(!host.sends(data, from: relayed, to: SocketAddress(ip: relayed.ip, port: 0)))
        #expect(host.group.dropped == 1 && host.group.legs[0].dropped == 4)
    }

    /// STUN servers often are TURN servers: answers to Binding requests are not the relay's.
    @Test func portIsShared() throws {
        let server = try RealServer([])
        let host = try RelayHost([turnServer(server.url())])
        try host.relayed()
        let request: [UInt8] = [0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42] + [UInt8](repeating: 9, count: 12)
        host.put(request, to: server.endpoint(.udp))
        try host.run("the answer") { $0.others.contains { $0.count > 20 && Array($0[8..<20]) == Array(request[8...]) } }
        // Others' datagrams are nobody's here, whatever they look like.
        let stranger = SocketAddress(ip: IPAddress("127.0.0.3")!, port: 3478)
        for bytes in [[0x40, 0, 0, 1, 7], request, [0, 3] + request.dropFirst(2), [22, 254, 253]] as [[UInt8]] {
            let isOurs = host.group.handle(bytes.span.bytes, from: stranger, now: monotonicTime()) { _, _, _ in }
            #expect(!isOurs)
        }
    }

    /// Whatever a server sends: other servers go on.
    @Test func hostileServerIsDropped() throws {
        let silent = try Silence()
        let server = try RealServer([])
        let host = try RelayHost([turnServer("turn:127.0.0.1:\(silent.port)"), turnServer(server.url())])
        try host.relayed()
        let hostile = SocketAddress(ip: IPAddress("127.0.0.1")!, port: silent.port)
        var random = SystemRandomNumberGenerator()
        for _ in 0..<2000 {
            var bytes = (0..<Int.random(in: 0...200)).map { _ in UInt8.random(in: 0...255, using: &random) }
            if bytes.count >= 8, Bool.random() { bytes.replaceSubrange(4..<8, with: [0x21, 0x12, 0xA4, 0x42]) }
            _ = host.group.handle(bytes.span.bytes, from: hostile, now: monotonicTime()) { _, _, _ in
                Issue.record("nothing was asked of it")
            }
        }
        #expect(host.environment.statistics()[0].dropped > 0)
        #expect(host.group.candidates.count == 1)
    }
}

/// A port where nobody answers.
final class Silence {
    private let descriptor: Int32
    let port: UInt16

    init() throws {
        let port = try Port.open(SocketAddress(ip: IPAddress("127.0.0.1")!, port: 0))
        descriptor = dup(port.descriptor)
        self.port = port.number
    }

    deinit { close(descriptor) }
}
