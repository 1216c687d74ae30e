import STUN
import Testing
import Wire

@testable import ICE

/// What a port is outside, learned from servers: on virtual time, behind simulated NATs.
@Suite struct Mapping {
    private let outside = address("203.0.113.7", 50000)

    // MARK: Asking

    @Test func theFirstAnswerCountsAtOnce() {
        let world = MappingWorld()
        world.server(1, after: 300)
        world.server(2, after: 10)
        let start = world.now
        world.begin()
        world.run(for: .seconds(2))
        #expect(world.since(start) == [10])
        #expect(world.mapping.mapped == [.init(address: outside, base: MappingWorld.home, isSymmetric: false)])
        // The slow one was asked again before it answered; each was asked for itself.
        #expect(world.servers[0].requests.count == 2 && world.servers[1].requests.count == 1)
    }

    /// RFC 8489 section 6.2.1, with a first retransmission after 250 ms.
    @Test func aDeadServerDelaysNothingAndIsAskedAgain() {
        let world = MappingWorld()
        let dead = world.server(1, .silent)
        world.server(2)
        let start = world.now
        world.begin()
        world.run(for: .milliseconds(10))
        #expect(world.addresses == [outside])
        world.run(for: .milliseconds(19_700))
        #expect(
            dead.requests.map { ($0.at - start).milliseconds } == [0, 250, 750, 1750, 3750, 7750, 15750])
        // A retransmission is the same request.
        #expect(Set(dead.requests.map(\.id)).count == 1)
        // The next transaction begins after a pause, with another number.
        world.run(for: .seconds(30))
        #expect(dead.requests.count > 7 && Set(dead.requests.map(\.id)).count == 2)
        #expect(world.changes.count == 1)
    }

    @Test func aServerThatStaysSilentIsAskedLessAndLess() {
        let world = MappingWorld()
        let dead = world.server(1, .silent)
        world.begin()
        world.run(for: .seconds(86_400))
        let transactions = Set(dead.requests.map(\.id)).count
        // Ten minutes apart and half a minute long.
        #expect(transactions >= 86_400 / 630 && transactions <= 86_400 / 540 + 12, "\(transactions) transactions")
        dead.manner = .proper
        world.run(for: .seconds(700))
        #expect(world.addresses == [outside])
    }

    @Test func lossOnlyDelays() {
        for seed in 0..<300 as Range<UInt64> {
            let world = MappingWorld(seed: seed)
            world.loss = 0.3
            for number in 1...3 as ClosedRange<UInt8> { world.server(number, after: Int64(number) * 7) }
            world.begin()
            world.run(for: .seconds(20))
            #expect(world.addresses == [outside], "seed \(seed)")
            // For an hour no transaction after transaction gets lost so often that the mapping counts as stale.
            world.run(for: .seconds(3600))
            #expect(world.changes.count == 1, "seed \(seed): \(world.changes.count) changes")
        }
    }

    @Test func bothFamiliesAreAskedAndAPublicAddressIsNone() {
        let world = MappingWorld()
        world.server(1)
        let six = world.server6(1)
        world.begin()
        world.run(for: .seconds(1))
        // IPv6 is the same outside.
        #expect(six.requests.count == 1 && world.addresses == [outside])
        world.translation = .none
        world.run(for: .seconds(60))
        #expect(world.addresses.isEmpty)
    }

    @Test func aFamilyWithoutAnAddressIsNotAskedUntilItHasOne() {
        let world = MappingWorld()
        world.mapping.setLocalAddresses([MappingWorld.home.ip, address("fe80::1", 0).ip], now: world.now)
        world.server(1)
        let six = world.server6(1, .lies(address("2001:db8:ffff::1", 7)))
        world.begin()
        world.run(for: .seconds(60))
        #expect(six.requests.isEmpty)
        world.mapping.setLocalAddresses([MappingWorld.home.ip, MappingWorld.home6.ip], now: world.now)
        world.flush()
        world.run(for: .milliseconds(10))
        #expect(six.requests.count == 1)
        #expect(world.addresses == [address("2001:db8:ffff::1", 7), outside])
    }

    @Test func serversAreLimited() {
        let world = MappingWorld()
        let groups = (0..<100).map { group in
            (0..<10).flatMap { member in
                [
                    address("198.51.\(group).\(member)", 3478), address("2001:db8:\(group)::\(member)", 3478),
                    address("198.51.\(group).\(member)", 0),
                ]
            }
        }
        world.mapping.setServers(groups, now: world.now)
        world.flush()
        #expect(world.sent == MappedAddresses.maximumServers * 4)
        world.mapping.setServers([[address("0.0.0.0", 3478), address("224.0.0.1", 3478)], []], now: world.now)
        world.flush()
        #expect(world.sent == MappedAddresses.maximumServers * 4 && world.mapping.nextTimeout == nil)
    }

    // MARK: Keeping

    /// NATs forget after 30 s or more without a packet (RFC 4787 section 4.3 wants two minutes).
    @Test(arguments: [25, 60])
    func keepalivesKeepAMapping(seconds: Int64) {
        let world = MappingWorld { $0.keepalive = .seconds(seconds) }
        world.translation = .cone(lifetime: .seconds(30))
        let server = world.server(1)
        world.begin()
        world.run(for: .seconds(3600))
        #expect((world.changes.count == 1) == (seconds == 25), "\(world.changes.count) changes")
        let pauses = zip(server.requests, server.requests.dropFirst()).map { ($1.at - $0.at).milliseconds }
        // A jitter of up to a tenth, and it is one.
        #expect(pauses.allSatisfy { $0 >= seconds * 900 && $0 <= seconds * 1000 + 11 })
        #expect(Set(pauses).count > 20)
    }

    @Test func aChangedMappingReplacesTheOldOneAtOnce() {
        let world = MappingWorld()
        for number in 1...3 as ClosedRange<UInt8> { world.server(number) }
        world.begin()
        world.run(for: .seconds(10))
        world.outside = address("203.0.113.8", 1234)
        let before = world.servers.map(\.requests.count)
        world.run(for: .seconds(16))
        #expect(world.changes.count == 2 && world.addresses == [world.outside])
        #expect(world.mapping.mapped.first?.isSymmetric == false)
        // The others were asked as soon as one had seen the change: once each.
        let asked = zip(world.servers, before).map { $0.requests.count - $1 }
        #expect(asked.allSatisfy { $0 == 1 || $0 == 2 })
        let times = world.servers.compactMap { $0.requests.last?.at }
        #expect(times.max()! - times.min()! < .seconds(3))
    }

    @Test func silenceOfAllServersMakesTheMappingStale() {
        let world = MappingWorld()
        world.server(1)
        world.server(2)
        world.begin()
        world.run(for: .seconds(60))
        for server in world.servers { server.manner = .silent }
        // Two silent transactions are no proof.
        world.run(for: .seconds(90))
        #expect(world.addresses == [outside])
        world.run(for: .seconds(60))
        #expect(world.addresses.isEmpty && world.changes.count == 2)
        world.servers[1].manner = .proper
        world.run(for: .seconds(120))
        #expect(world.addresses == [outside] && world.changes.count == 3)
    }

    /// One server that goes away takes nothing with it.
    @Test func oneLivingServerIsEnough() {
        let world = MappingWorld()
        world.server(1)
        world.server(2)
        world.begin()
        world.run(for: .seconds(60))
        world.servers[0].manner = .silent
        world.run(for: .seconds(3600))
        #expect(world.addresses == [outside] && world.changes.count == 1)
    }

    // MARK: Disagreement

    @Test func aSymmetricNATIsToldApart() {
        let world = MappingWorld()
        world.translation = .symmetric
        world.server(1, after: 10)
        world.server(2, after: 20)
        world.begin()
        world.run(for: .seconds(600))
        // The first stays, so that nothing changes back and forth.
        #expect(world.addresses.count == 1)
        #expect(world.mapping.mapped.first?.isSymmetric == true)
        #expect(world.changes.count == 2)
        #expect(world.changes.first?.mapped.first?.isSymmetric == false)
        #expect(world.changes.first?.mapped.first?.address == world.addresses.first)
    }

    @Test func mostServersBeatTheFirst() {
        let world = MappingWorld()
        let lie = address("192.0.2.66", 666)
        world.server(1, .lies(lie), after: 5)
        world.server(2, after: 10)
        world.server(3, after: 20)
        world.begin()
        world.run(for: .milliseconds(15))
        // Word against word: the first.
        #expect(world.addresses == [lie])
        world.run(for: .seconds(600))
        #expect(world.addresses == [outside])
        #expect(world.mapping.mapped.first?.isSymmetric == true)
    }

    /// Each answer here is a change that the others are asked about, and brings the next: not faster than once in a
    /// while.
    @Test(arguments: [3, 40_000] as [UInt16])
    func ravingServersCauseNoStorm(addresses: UInt16) {
        let world = MappingWorld()
        for number in 1...16 as ClosedRange<UInt8> { world.server(number, .raves(addresses)) }
        world.begin()
        world.run(for: .seconds(600))
        #expect(world.sent < 16 * (600 / 22 + 600 / 5 + 2), "\(world.sent) requests")
        #expect(world.addresses.count == 1)
    }

    // MARK: Networks that change

    @Test func anAddressThatIsGoneTakesItsMappingAlong() {
        let world = MappingWorld()
        let server = world.server(1)
        world.begin()
        world.run(for: .seconds(5))
        #expect(world.addresses == [outside])
        let other = address("10.0.0.9", 0).ip
        // Another address more changes nothing; the server is asked, because the way may be another now.
        world.mapping.setLocalAddresses([MappingWorld.home.ip, MappingWorld.home6.ip, other], now: world.now)
        world.flush()
        #expect(world.addresses == [outside] && server.requests.count == 2)
        world.run(for: .seconds(1))
        world.mapping.setLocalAddresses([MappingWorld.home6.ip, other], now: world.now)
        world.flush()
        #expect(world.addresses.isEmpty && world.changes.count == 2)
        world.run(for: .milliseconds(10))
        #expect(world.addresses == [outside])
    }

    /// What is under way when the network changes tells of the old one.
    @Test func anAnswerFromBeforeTheChangeDoesNotCount() {
        let world = MappingWorld()
        let server = world.server(1, .silent)
        world.begin()
        let old = server.requests[0].id
        world.mapping.networkChanged(ipv4: true, ipv6: false, now: world.now)
        world.flush()
        #expect(server.requests.count == 2 && server.requests[1].id != old)
        world.hand(Answer.success(old, outside), from: server.address, to: MappingWorld.home)
        #expect(world.addresses.isEmpty && world.consumed == 0)
        world.hand(Answer.success(server.requests[1].id, outside), from: server.address, to: MappingWorld.home)
        #expect(world.addresses == [outside])
        // The other family is not touched, this one forgets at once.
        world.mapping.networkChanged(ipv4: false, ipv6: true, now: world.now)
        #expect(world.addresses == [outside])
        world.mapping.networkChanged(ipv4: true, ipv6: false, now: world.now)
        #expect(world.addresses.isEmpty)
    }

    @Test func newServersLeaveTheOldOnesAlone() {
        let world = MappingWorld()
        let first = world.server(1)
        world.begin()
        world.run(for: .seconds(1))
        world.server(2)
        world.begin()
        world.run(for: .seconds(1))
        #expect(first.requests.count == 1 && world.servers[1].requests.count == 1 && world.changes.count == 1)
        // Without servers there is nobody who knows.
        world.mapping.setServers([], now: world.now)
        world.flush()
        #expect(world.addresses.isEmpty && world.changes.count == 2 && world.mapping.nextTimeout == nil)
    }

    // MARK: Bad answers

    @Test func oldServersAreUnderstood() {
        let world = MappingWorld()
        world.server(1, .old)
        world.begin()
        world.run(for: .seconds(1))
        #expect(world.addresses == [outside])
    }

    @Test func uselessAnswersCountAsNone() {
        let useless: [SimulatedServer.Manner] = [
            .error(300), .error(420), .error(500), .demands, .bytes([]), .bytes([UInt8](repeating: 0xFF, count: 64)),
            .elsewhere, .lies(address("0.0.0.0", 7)), .lies(address("203.0.113.7", 0)),
            .lies(address("224.0.0.5", 7)), .lies(address("127.0.0.1", 7)), .lies(address("169.254.1.1", 7)),
            .lies(address("255.255.255.255", 7)), .lies(address("2001:db8::66", 7)),
            .lies(MappingWorld.home),
        ]
        for (number, manner) in useless.enumerated() {
            let world = MappingWorld()
            let server = world.server(UInt8(number + 1), manner)
            world.begin()
            world.run(for: .seconds(70))
            #expect(world.addresses.isEmpty && world.changes.isEmpty, "\(manner)")
            // It may mend its ways.
            #expect(server.requests.count >= 2, "\(manner)")
            world.servers[0].manner = .proper
            world.run(for: .seconds(60))
            #expect(world.addresses == [outside], "\(manner)")
        }
    }

    @Test func onlyTheAskedServerCanAnswerAndOnlyOnce() {
        let world = MappingWorld()
        let server = world.server(1, .silent)
        world.begin()
        let id = server.requests[0].id
        let forged = address("192.0.2.66", 666)
        let other = address("198.51.100.200", 3478)
        let home = MappingWorld.home
        world.hand(Answer.success(id, forged), from: other, to: home)
        world.hand(Answer.success(id, forged), from: SocketAddress(ip: server.address.ip, port: 1), to: home)
        world.hand(Answer.success(TransactionID(high: 1, low: 2), forged), from: server.address, to: home)
        world.hand(
            Answer.make(.success, method: 3, id) { $0.append(.xorMappedAddress, forged, to: &$1) },
            from: server.address, to: home)
        world.hand(
            Answer.make(.indication, id) { $0.append(.xorMappedAddress, forged, to: &$1) }, from: server.address,
            to: home)
        world.hand(
            Answer.make(.request, id) { $0.append(.xorMappedAddress, forged, to: &$1) }, from: server.address, to: home)
        #expect(world.consumed == 0 && world.refused == 6 && world.addresses.isEmpty)
        // Only those from the server's own address are worth counting.
        #expect(world.mapping.ignored == 4)
        world.hand(Answer.success(id, outside), from: server.address, to: home)
        world.hand(Answer.success(id, forged), from: server.address, to: home)
        #expect(world.consumed == 1 && world.addresses == [outside] && world.changes.count == 1)
    }

    /// Damaged answers of the asked server: nothing traps, and what is not a valid answer changes nothing.
    @Test func damagedAnswersAreHarmless() {
        for seed in 0..<3000 as Range<UInt64> {
            var random = SeededGenerator(seed: seed)
            let world = MappingWorld(seed: seed)
            let server = world.server(1, .silent)
            world.begin()
            var bytes = Answer.make(.success, server.requests[0].id) { writer, output in
                writer.append(.xorMappedAddress, outside, to: &output)
                writer.append(.software, [1, 2, 3].span.bytes, to: &output)
                writer.append(.mappedAddress, outside, to: &output)
            }
            for _ in 0..<Int.random(in: 1...6, using: &random) {
                bytes[Int.random(in: bytes.indices, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            if Bool.random(using: &random) { bytes.removeLast(Int.random(in: 0...bytes.count, using: &random)) }
            world.hand(bytes, from: server.address, to: MappingWorld.home)
            #expect(world.addresses.count <= 1, "seed \(seed)")
            if world.consumed == 0 { #expect(world.addresses.isEmpty, "seed \(seed)") }
        }
    }

    /// Server-reflexive candidates are for others: checks go out from their base (RFC 8445 section 6.1.2.4).
    @Test func reflexiveCandidatesAreSignaledAndNeverABase() {
        let network = Network(seed: 5)
        let (left, right) = (address("10.0.0.1", 5000), address("10.0.0.2", 6000))
        let reflexive = Candidate(
            kind: .serverReflexive, address: address("203.0.113.9", 5000),
            priority: Candidate.priority(.serverReflexive, localPreference: 65000), base: left)
        let peer = network.agent(.controlled, on: [right])
        let agent = Agent(
            .init(role: .controlling, credentials: Credentials(using: &network.random)),
            localCandidates: Candidate.host([left]) + [reflexive], random: SeededGenerator(seed: 9))
        agent.setRemote(peer.agent.credentials, isLite: false)
        for candidate in peer.agent.localCandidates { agent.addRemoteCandidate(candidate) }
        agent.start(now: network.now)
        #expect(agent.pairCount == 1)
        var senders = Set<SocketAddress>()
        for _ in 0..<20 {
            for datagram in agent.drain(network.now) { senders.insert(datagram.from) }
            guard let next = agent.nextTimeout else { break }
            network.now = next
            agent.handleTimeout(now: next)
        }
        #expect(senders == [left])
        #expect(reflexive.text.hasSuffix("203.0.113.9 5000 typ srflx"))
    }
}
