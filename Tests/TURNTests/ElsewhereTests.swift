import STUN
import Testing
import Wire

@testable import TURN

/// Other servers, other local addresses.
@Suite struct Elsewhere {
    private func second(_ world: World, _ ip: String = "203.0.113.2") -> SimulatedServer {
        let other = SimulatedServer(address(ip, 3478))
        other.realm = "example.net"
        world.servers.append(other)
        return other
    }

    @Test func goesWhereItIsSent() {
        let world = World()
        let other = second(world)
        world.server.alternate = other.address
        world.allocate()
        #expect(world.events.first == .redirected(to: other.address))
        #expect(world.client.allocation?.server == other.address && world.client.server == other.address)
        #expect(world.server.count(MessageType.allocate) == 1)
    }

    @Test func onAStreamTheHostOpensAnother() {
        let world = World(transport: .tls)
        let other = second(world)
        world.server.alternate = other.address
        world.server.alternateDomain = "turn.example.net"
        world.allocate()
        let wanted = RelayClient.ConnectionReason.redirected(to: other.address, domain: "turn.example.net")
        #expect(world.events == [.connectionNeeded(wanted)])
        #expect(world.client.nextTimeout == nil)
        world.move(40_001, server: other.address)
        world.run(for: .seconds(2))
        #expect(world.client.allocation?.server == other.address)
    }

    @Test func circlesEnd() {
        let world = World()
        let other = second(world)
        world.server.alternate = other.address
        other.alternate = world.server.address
        world.allocate()
        #expect(world.failures == [.badRedirection])
        #expect(world.server.requests.count == 1 && other.requests.count == 1)

        let itself = World()
        itself.server.alternate = itself.server.address
        itself.allocate()
        #expect(itself.failures == [.badRedirection] && itself.server.requests.count == 1)

        let stream = World(transport: .tcp)
        let third = second(stream)
        stream.server.alternate = third.address
        third.alternate = stream.server.address
        stream.allocate()
        stream.move(40_001, server: third.address)
        stream.run(for: .seconds(2))
        #expect(stream.failures == [.badRedirection])
    }

    @Test func longChainsEnd() {
        let world = World()
        for number in 2...9 {
            let next = second(world, "203.0.113.\(number)")
            world.servers[number - 2].alternate = next.address
        }
        world.allocate()
        #expect(world.failures == [.badRedirection])
        #expect(world.servers.filter { !$0.requests.isEmpty }.count == 4)
    }

    @Test(arguments: ["127.0.0.1", "0.0.0.0", "224.0.0.1", "169.254.1.1", "2001:db8::1", "255.255.255.255"])
    func isNotSentToWhereNoServerIs(ip: String) {
        let world = World()
        world.server.alternate = address(ip, 3478)
        world.allocate()
        #expect(world.failures == [.badRedirection])
    }

    @Test func takesTheAllocationAlong() {
        let world = World()
        world.server.isMobile = true
        world.allocate()
        world.permit()
        _ = world.client.bindChannel(World.peer, now: world.now)
        world.flush()
        world.run(for: .seconds(1))
        let relayed = world.client.allocation?.relayed
        #expect(world.client.allocation?.isMobile == true)
        for port in 1...5 as ClosedRange<UInt16> {
            world.move(41_000 + port)
            #expect(world.send([1]) == .noAllocation)
            world.run(for: .seconds(1))
            #expect(world.events.last == .moved && world.client.allocation?.relayed == relayed)
            let before = world.server.toPeers.count
            #expect(world.send([UInt8(port)]) == .written)
            world.run(for: .milliseconds(100))
            #expect(world.server.toPeers.count == before + 1)
            world.peerSends([7])
            world.run(for: .milliseconds(100))
            #expect(world.delivered.count == Int(port))
        }
        #expect(world.server.count(MessageType.allocate) == 2)
        #expect(world.server.channelData == 5)
    }

    @Test func requestsUnderWayAreAskedAgainAfterTheMove() {
        let world = World()
        world.server.isMobile = true
        world.allocate()
        _ = world.client.permit(World.peer.ip, now: world.now)
        _ = world.client.bindChannel(World.peer, now: world.now)
        world.flush()
        world.run(for: .milliseconds(5))
        world.move(41_000)
        world.run(for: .seconds(1))
        #expect(world.client.isPermitted(World.peer.ip, now: world.now))
        #expect(world.client.isChannelBound(World.peer, now: world.now))
    }

    @Test func movesWithAnotherNonceToo() {
        let world = World()
        world.server.isMobile = true
        world.server.nonceLife = .seconds(10)
        world.allocate()
        world.run(for: .seconds(60))
        world.move(41_000)
        world.run(for: .seconds(1))
        #expect(world.events.last == .moved)
    }

    @Test func streamThatEndedIsFollowedByAnother() {
        let world = World(transport: .tcp)
        world.server.isMobile = true
        world.allocate()
        let relayed = world.client.allocation?.relayed
        world.client.connectionClosed(now: world.now)
        world.flush()
        #expect(world.failures == [.connectionClosed] && world.client.nextTimeout == nil)
        world.move(41_000)
        world.run(for: .seconds(1))
        #expect(world.events.last == .moved && world.client.allocation?.relayed == relayed)
    }

    @Test func withoutATicketThereIsAnotherAllocation() {
        let world = World()
        world.allocate()
        world.permit()
        _ = world.client.bindChannel(World.peer, now: world.now)
        world.flush()
        world.run(for: .seconds(1))
        let relayed = world.client.allocation?.relayed
        world.events = []
        world.move(41_000)
        world.run(for: .seconds(1))
        #expect(world.client.allocation != nil && world.client.allocation?.relayed != relayed)
        #expect(world.client.isPermitted(World.peer.ip, now: world.now))
        #expect(world.client.isChannelBound(World.peer, now: world.now))
        #expect(world.events.contains(.permitted(World.peer.ip)) && world.events.contains(.channelBound(World.peer)))
    }

    @Test func ticketThatIsNoGoodGivesAnotherAllocation() {
        let world = World()
        world.server.isMobile = true
        world.allocate()
        world.server.forget()
        world.move(41_000)
        world.run(for: .seconds(1))
        #expect(world.client.allocation != nil && world.failures.isEmpty)
        #expect(!world.events.contains(.moved))
    }

    @Test func lossOfTheAllocationIsTold() {
        let world = World()
        world.allocate()
        world.permit()
        world.server.forget()
        world.client.probe(now: world.now)
        world.flush()
        world.run(for: .milliseconds(100))
        #expect(world.failures == [.allocationLost] && world.client.nextTimeout == nil)
        // What was wanted is asked for with the next one.
        world.allocate()
        #expect(world.client.isPermitted(World.peer.ip, now: world.now))

        // Silence until the end of its life.
        world.server.isSilent = true
        world.run(for: .seconds(700))
        #expect(world.failures == [.allocationLost, .allocationLost])
    }

    @Test func outagesShorterThanTheLifetimeDoNotMatter() {
        let world = World()
        world.allocate()
        world.permit()
        for _ in 0..<10 {
            world.run(for: .seconds(400))
            world.server.isSilent = true
            world.run(for: .seconds(60))
            world.server.isSilent = false
            world.run(for: .seconds(30))
            #expect(world.client.isPermitted(World.peer.ip, now: world.now))
        }
        #expect(world.failures.isEmpty)
    }

    /// The port is the only one there is: what an earlier run left on it is given back, once the server says what with.
    @Test func earlierAllocationIsGivenBack() {
        let world = World()
        world.allocate()
        let before = world.client.allocation
        world.client = RelayClient(
            server: world.server.address, transport: .udp,
            credentials: RelayCredentials(username: "alice", password: "secret"), random: SeededGenerator(seed: 3))
        world.events = []
        world.allocate()
        #expect(world.events == [.connectionNeeded(.mismatch)])
        world.client.reclaim(now: world.now)
        world.flush()
        world.run(for: .seconds(2))
        #expect(world.client.allocation != nil && world.client.allocation != before && world.failures.isEmpty)
        #expect(world.server.held.count == 1)
        // At any other time it is nothing.
        world.client.reclaim(now: world.now)
        #expect(world.client.allocation != nil && world.client.nextTimeout != nil)
    }

    /// Another user's stays, and is waited for.
    @Test func othersAllocationsStay() {
        let world = World()
        world.allocate()
        world.client = RelayClient(
            server: world.server.address, transport: .udp,
            credentials: RelayCredentials(username: "alice", password: "secret"), random: SeededGenerator(seed: 3))
        world.events = []
        world.server.refusals[MessageType.refresh] = 441
        world.allocate()
        world.client.reclaim(now: world.now)
        world.flush()
        world.run(for: .seconds(2))
        #expect(world.failures == [.mismatch] && world.server.held.count == 1)
        #expect(world.server.count(MessageType.refresh) >= 1)
    }

    /// A NAT has given the client another address, and nobody knows: the server does.
    @Test func ticketFindsTheAllocationAgain() {
        let world = World()
        world.server.isMobile = true
        world.allocate()
        let relayed = world.client.allocation?.relayed
        world.home.port = 41_000
        world.client.probe(now: world.now)
        world.flush()
        world.run(for: .seconds(2))
        #expect(world.events.last == .moved && world.client.allocation?.relayed == relayed && world.failures.isEmpty)
        // If it is gone, there is another.
        world.server.forget()
        world.client.probe(now: world.now)
        world.flush()
        world.run(for: .seconds(2))
        #expect(world.client.allocation != nil && world.client.allocation?.relayed != relayed)
    }
}
