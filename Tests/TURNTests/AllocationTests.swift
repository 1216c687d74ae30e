import STUN
import Testing
import Wire

@testable import TURN

@Suite struct Allocating {
    @Test func answersTheFirstChallenge() {
        let world = World()
        world.allocate()
        #expect(world.server.count(MessageType.allocate) == 2)
        #expect(world.client.allocation?.relayed == [address("203.0.113.1", 50_002)])
        #expect(world.client.allocation?.mapped == world.home)
        #expect(world.client.roundTrip == .milliseconds(40))
        guard case .allocated = world.events.first else {
            Issue.record("\(world.events)")
            return
        }
        #expect(world.events.count == 1)
    }

    @Test(arguments: [RelayTransport.tcp, .tls])
    func worksOnAStream(transport: RelayTransport) {
        for seed in 1...20 as ClosedRange<UInt64> {
            let world = World(seed: seed, transport: transport)
            world.allocate()
            #expect(world.client.allocation != nil, "seed \(seed)")
            world.permit()
            for count in [1, 2, 3, 4, 5, 1200, 65_000] {
                #expect(world.send([UInt8](repeating: 9, count: count)) == .written)
            }
            world.run(for: .seconds(1))
            #expect(world.server.toPeers.map(\.data.count) == [1, 2, 3, 4, 5, 1200, 65_000])
            #expect(world.client.bindChannel(World.peer, now: world.now) == .accepted)
            world.flush()
            world.run(for: .seconds(1))
            #expect(world.events.last == .channelBound(World.peer))
            for count in [0, 1, 2, 3, 4, 1201, 65_000] {
                world.send([UInt8](repeating: 9, count: count))
                world.peerSends([UInt8](repeating: 7, count: count))
            }
            world.run(for: .seconds(1))
            #expect(world.server.channelData == 7)
            #expect(world.delivered.map(\.data.count) == [0, 1, 2, 3, 4, 1201, 65_000], "seed \(seed)")
            #expect(world.delivered.allSatisfy { $0.from == World.peer && $0.data.allSatisfy { $0 == 7 } })
        }
    }

    @Test func asksForIPv6() {
        let world = World { $0.families = .ipv6 }
        world.allocate()
        #expect(world.client.allocation?.relayed == [address("2001:db8:5::1", 50_002)])
        #expect(world.client.permit(World.peer.ip, now: world.now) == .unusable)
        #expect(world.client.permit(World.peer6.ip, now: world.now) == .accepted)
    }

    @Test func asksForBothFamilies() {
        let world = World { $0.families = .both }
        world.allocate()
        let expected = [address("2001:db8:5::1", 50_002), address("203.0.113.1", 50_002)]
        #expect(world.client.allocation?.relayed == expected)
        #expect(world.client.allocation?.missing == nil)
        world.permit()
        world.permit(World.peer6)
        world.send([1])
        world.send([2], to: World.peer6)
        world.run(for: .seconds(1))
        #expect(world.server.toPeers.map(\.from) == [expected[1], expected[0]])
    }

    @Test func takesOneFamilyWhereThereIsOnlyOne() {
        let world = World { $0.families = .both }
        world.server.hasIPv6 = false
        world.allocate()
        #expect(world.client.allocation?.relayed.count == 1)
        #expect(world.client.allocation?.missing == .init(isIPv6: true, code: 440))

        let old = World { $0.families = .both }
        old.server.knowsAdditionalFamily = false
        old.allocate()
        #expect(old.client.allocation?.missing == .init(isIPv6: true, code: nil))
    }

    @Test func peersOfAFamilyThatWasNotGivenAreDenied() {
        let world = World { $0.families = .both }
        world.server.hasIPv6 = false
        #expect(world.client.permit(World.peer6.ip, now: world.now) == .accepted)
        #expect(world.client.bindChannel(World.peer6, now: world.now) == .accepted)
        world.allocate()
        #expect(world.events.contains(.denied(World.peer6.ip, code: 443)))
        #expect(world.events.contains(.channelRefused(World.peer6, code: 443)))
        #expect(world.server.count(MessageType.createPermission) == 0)
        #expect(world.server.count(MessageType.channelBind) == 0)
    }

    @Test func silenceIsATimeout() {
        let world = World()
        world.server.isSilent = true
        world.client.start(now: world.now)
        world.flush()
        let start = world.now
        world.run(for: .seconds(60))
        #expect(world.failures == [.timeout])
        #expect(world.sent == 7)
        #expect(world.client.nextTimeout == nil)
        // It may be tried again.
        world.server.isSilent = false
        world.allocate()
        #expect(world.client.allocation != nil && world.now > start)
    }

    /// Each is told apart, and says what makes sense next.
    @Test(arguments: [
        (403, RelayClient.Failure.forbidden, true), (437, .mismatch, false), (440, .unsupportedFamily, true),
        (442, .unsupportedTransport, true), (486, .quotaReached, false), (508, .insufficientCapacity, false),
        (420, .unknownAttributes, true), (500, .refused(500), false), (400, .refused(400), true),
        (441, .wrongCredentials, true),
    ])
    func refusalsAreTyped(code: Int, failure: RelayClient.Failure, isFinal: Bool) {
        let world = World()
        world.server.refusals[MessageType.allocate] = code
        world.server.unknown = [0x0019]
        world.allocate()
        for port in 1...5 as ClosedRange<UInt16> {
            guard case .connectionNeeded(.mismatch) = world.events.last else { break }
            world.move(41_000 + port)
            world.run(for: .seconds(1))
        }
        #expect(world.failures == [failure])
        #expect(failure.advice.triesOthers)
        #expect((failure.advice.sameServerAfter == nil) == isFinal)
    }

    @Test func wrongPasswordIsNotTriedTwice() {
        let world = World(credentials: RelayCredentials(username: "alice", password: "wrong"))
        world.allocate()
        #expect(world.failures == [.wrongCredentials])
        #expect(world.server.count(MessageType.allocate) == 2)
    }

    @Test func newCredentialsAfterWrongOnes() {
        let world = World(credentials: RelayCredentials(username: "alice", password: "wrong"))
        world.allocate()
        world.client.setCredentials(RelayCredentials(username: "alice", password: "secret"), now: world.now)
        world.allocate()
        #expect(world.client.allocation != nil)
    }

    @Test func mismatchAsksForAnotherPort() {
        let world = World()
        world.allocate()
        // The same 5-tuple, and a client that knows nothing of the allocation.
        let next = RelayClient(
            server: world.server.address, transport: .udp,
            credentials: RelayCredentials(username: "alice", password: "secret"), random: SeededGenerator(seed: 5))
        world.client = next
        world.events = []
        world.allocate()
        #expect(world.events == [.connectionNeeded(.mismatch)])
        world.move(40_001)
        world.run(for: .seconds(1))
        #expect(world.client.allocation != nil)
    }

    @Test func optionalWishesAreLeftOutWhereTheyAreRefused() {
        let world = World { $0.families = .both }
        world.server.refusals[MessageType.allocate] = 420
        world.server.unknown = [0x8030, 0x8000]
        world.client.start(now: world.now)
        world.flush()
        world.run(for: .milliseconds(70))
        world.server.refusals = [:]
        world.run(for: .seconds(1))
        #expect(world.client.allocation?.relayed.count == 1)

        let mobile = World()
        mobile.server.refusals[MessageType.allocate] = 405
        mobile.client.start(now: mobile.now)
        mobile.flush()
        mobile.run(for: .milliseconds(70))
        mobile.server.refusals = [:]
        mobile.run(for: .seconds(1))
        #expect(mobile.client.allocation != nil)
    }

    @Test func openServersAreUsedOnlyWithoutCredentials() {
        let open = World(credentials: nil)
        open.server.asksForCredentials = false
        open.allocate()
        #expect(open.client.allocation != nil)

        let world = World()
        world.server.asksForCredentials = false
        world.allocate()
        #expect(world.client.allocation == nil && world.client.statistics.badIntegrity > 0)

        let none = World(credentials: nil)
        none.allocate()
        #expect(none.failures == [.wrongCredentials])
    }

    @Test func survivesABadNetwork() {
        for seed in 1...60 as ClosedRange<UInt64> {
            let world = World(seed: seed)
            world.loss = 0.2
            world.duplication = 0.2
            world.jitter = .milliseconds(80)
            world.client.start(now: world.now)
            _ = world.client.permit(World.peer.ip, now: world.now)
            _ = world.client.bindChannel(World.peer, now: world.now)
            world.flush()
            world.run(for: .seconds(40))
            #expect(world.client.allocation != nil, "seed \(seed)")
            #expect(world.client.isChannelBound(World.peer, now: world.now), "seed \(seed)")
            world.run(for: .seconds(3600))
            #expect(world.failures.isEmpty, "seed \(seed): \(world.events)")
            #expect(world.client.isPermitted(World.peer.ip, now: world.now), "seed \(seed)")
            #expect(world.events.filter { $0 == .permitted(World.peer.ip) }.count == 1)
            world.client.close(now: world.now)
            world.flush()
            world.run(for: .seconds(10))
            #expect(world.events.last == .closed && world.client.nextTimeout == nil)
        }
    }

    @Test func closingGivesTheAllocationBack() {
        let world = World()
        world.allocate()
        world.client.close(now: world.now)
        world.flush()
        world.run(for: .milliseconds(100))
        #expect(world.events.last == .closed && world.server.held.isEmpty)
        #expect(world.client.nextTimeout == nil)

        let silent = World()
        silent.allocate()
        silent.server.isSilent = true
        silent.client.close(now: silent.now)
        silent.flush()
        silent.run(for: .seconds(3))
        #expect(silent.events.last == .closed)

        let early = World()
        early.client.start(now: early.now)
        early.client.close(now: early.now)
        early.flush()
        #expect(early.events == [.closed])
    }
}
