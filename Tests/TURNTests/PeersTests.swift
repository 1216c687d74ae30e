import STUN
import Testing
import Wire

@testable import TURN

private func peers(_ count: Int) -> [IPAddress] { (0..<count).map { IPAddress(v4: 0xC633_6400 &+ UInt32($0)) } }

@Suite struct Peers {
    @Test func manyPermissionsGoInOneRequest() {
        let world = World()
        world.allocate()
        for peer in peers(40) { #expect(world.client.permit(peer, now: world.now) == .accepted) }
        world.flush()
        world.run(for: .seconds(1))
        #expect(world.server.count(MessageType.createPermission) == 3)
        #expect(peers(40).allSatisfy { world.events.contains(.permitted($0)) })
        #expect(world.client.permit(peers(1)[0], now: world.now) == .present)
    }

    @Test func tenThousandWishesDoNoHarm() {
        let world = World()
        world.allocate()
        var accepted = 0
        for peer in peers(10_000) where world.client.permit(peer, now: world.now) == .accepted { accepted += 1 }
        #expect(accepted == 128)
        world.flush()
        world.run(for: .seconds(2))
        #expect(world.server.count(MessageType.createPermission) == 8)
        // Wanted and not wanted again, before anything is sent.
        for peer in peers(10_000).dropFirst(200) {
            world.client.forbid(peers(1)[0])
            _ = world.client.permit(peer, now: world.now)
            world.client.forbid(peer)
        }
        #expect(world.client.wantedPermissions.count <= 2 * 128 + 16)
        var channels = 0
        for port in 1...10_000 as ClosedRange<UInt16> {
            let peer = SocketAddress(ip: peers(3)[2], port: port)
            if world.client.bindChannel(peer, now: world.now) == .accepted { channels += 1 }
        }
        #expect(channels == 64)
        for port in 1...10_000 as ClosedRange<UInt16> {
            let peer = SocketAddress(ip: peers(3)[2], port: port)
            _ = world.client.bindChannel(peer, now: world.now)
            world.client.releaseChannel(peer)
        }
        #expect(world.client.channels.count <= 4096)
        world.flush()
        world.run(for: .seconds(30))
        #expect(world.client.channels.count <= 64)
        #expect(world.client.activeChannels == 0)
    }

    /// RFC 8656 section 10.2: one forbidden peer refuses all of its request.
    @Test func oneForbiddenPeerDoesNotKeepTheOthersOut() {
        let world = World()
        world.server.forbiddenPeers = [peers(8)[5]]
        world.allocate()
        for peer in peers(8) { _ = world.client.permit(peer, now: world.now) }
        world.flush()
        world.run(for: .seconds(2))
        for (index, peer) in peers(8).enumerated() {
            #expect(world.events.contains(index == 5 ? .denied(peer, code: 403) : .permitted(peer)))
        }
        #expect(world.send([1], to: SocketAddress(ip: peers(8)[5], port: 1)) == .notPermitted)
    }

    @Test func permissionsAndChannelsLiveAsLongAsTheyAreWanted() {
        let world = World()
        world.allocate()
        world.permit()
        _ = world.client.bindChannel(World.peer, now: world.now)
        world.flush()
        for step in 1...720 {
            world.run(for: .seconds(10))
            let before = world.server.toPeers.count
            world.send([UInt8(step & 255)])
            world.run(for: .milliseconds(100))
            #expect(world.server.toPeers.count == before + 1, "after \(step * 10) s")
        }
        #expect(world.failures.isEmpty && world.events.count == 3)
        #expect(world.server.indications == 0)
        // Two hours: a permission every 4 minutes, a channel every 9, the allocation every 8.
        #expect((28...36).contains(world.server.count(MessageType.createPermission)))
        #expect((12...16).contains(world.server.count(MessageType.channelBind)))
        #expect((14...19).contains(world.server.count(MessageType.refresh)))
    }

    @Test func whatIsNotWantedEnds() {
        let world = World()
        world.allocate()
        world.permit()
        _ = world.client.bindChannel(World.peer, now: world.now)
        world.flush()
        world.run(for: .seconds(1))
        world.client.forbid(World.peer.ip)
        let requests = (world.server.count(MessageType.createPermission), world.server.count(MessageType.channelBind))
        world.run(for: .seconds(1000))
        #expect(requests.0 == world.server.count(MessageType.createPermission))
        #expect(requests.1 == world.server.count(MessageType.channelBind))
        #expect(world.client.channels.isEmpty && world.client.channelPeers.isEmpty)
        #expect(world.send([1]) == .notPermitted)
    }

    /// RFC 8656 section 12: number and peer stay together for 5 minutes after the binding's end. The simulated server
    /// checks that.
    @Test func channelNumbersAreNotReusedTooEarly() {
        let world = World { $0.maximumChannels = 4 }
        world.allocate()
        for round in 0..<200 {
            let peer = SocketAddress(ip: World.peer.ip, port: UInt16(1000 + round))
            #expect(world.client.bindChannel(peer, now: world.now) == .accepted)
            world.flush()
            world.run(for: .seconds(1))
            #expect(world.client.isChannelBound(peer, now: world.now))
            world.client.releaseChannel(peer)
        }
        // The same peer again has the number that it had.
        let first = SocketAddress(ip: World.peer.ip, port: 1000)
        let number = world.client.channels[first]?.number
        _ = world.client.bindChannel(first, now: world.now)
        #expect(number == 0x4000 && world.client.channels[first]?.number == number)
        world.client.releaseChannel(first)
        // Also when it has ended, for 5 minutes: the last one was bound 700 s ago.
        world.run(for: .seconds(700))
        let last = SocketAddress(ip: World.peer.ip, port: 1199)
        let lastNumber = world.client.channels[last]?.number
        #expect(!world.client.isChannelBound(last, now: world.now) && lastNumber == 0x4000 + 199)
        #expect(world.client.bindChannel(last, now: world.now) == .accepted)
        world.flush()
        world.run(for: .seconds(1))
        #expect(world.client.isChannelBound(last, now: world.now) && world.client.channels[last]?.number == lastNumber)
        world.client.releaseChannel(last)
        world.run(for: .seconds(1600))
        #expect(world.client.channels.isEmpty)
        #expect(!world.events.contains { if case .channelRefused = $0 { true } else { false } })
    }

    @Test func whenNumbersRunOutThatIsSaid() {
        let world = World()
        world.allocate()
        for round in 0..<4096 {
            let peer = SocketAddress(ip: World.peer.ip, port: UInt16(1000 + round))
            #expect(world.client.bindChannel(peer, now: world.now) == .accepted)
            world.flush()
            world.run(for: .milliseconds(50))
            world.client.releaseChannel(peer)
        }
        let one = SocketAddress(ip: World.peer.ip, port: 900)
        #expect(world.client.bindChannel(one, now: world.now) == .tooMany)
        world.run(for: .seconds(1000))
        #expect(world.client.bindChannel(one, now: world.now) == .accepted)
    }

    @Test func dataWaitsForTheRequestOnly() {
        let world = World()
        world.allocate()
        #expect(world.send([1]) == .notPermitted)
        #expect(world.client.permit(World.peer.ip, now: world.now) == .accepted)
        var outcome = RelayClient.Outcome.noRoom
        let data: [UInt8] = [1, 2, 3]
        let bytes = written { outcome = world.client.send(data.span.bytes, to: World.peer, into: &$0, now: world.now) }
        #expect(outcome == .waiting && bytes.isEmpty)
        world.flush()
        // Half a round trip later request and data have arrived.
        world.run(for: .milliseconds(21))
        #expect(world.server.toPeers.map(\.data) == [data])
        #expect(world.send([4]) == .written)
    }

    @Test func whatWaitsIsBounded() {
        let world = World()
        world.allocate()
        _ = world.client.permit(World.peer.ip, now: world.now)
        var outcomes: [RelayClient.Outcome] = []
        let data = [UInt8](repeating: 1, count: 1200)
        for _ in 0..<100 {
            _ = written {
                outcomes.append(world.client.send(data.span.bytes, to: World.peer, into: &$0, now: world.now))
            }
        }
        #expect(outcomes.filter { $0 == .waiting }.count == 27 && outcomes.last == .noRoom)
        #expect(world.client.statistics.waitingDropped == 73)
        world.flush()
        world.run(for: .seconds(1))
        #expect(world.server.toPeers.count == 27)
    }

    @Test func noRoomIsSaid() {
        let world = World()
        world.allocate()
        world.permit()
        let data = [UInt8](repeating: 1, count: 100)
        for capacity in 0..<140 {
            var storage = [UInt8](repeating: 0, count: capacity)
            let (outcome, count) = storage.withUnsafeMutableBytes { buffer in
                var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
                let outcome = world.client.send(data.span.bytes, to: World.peer, into: &output, now: world.now)
                return (outcome, output.finalize(for: buffer))
            }
            #expect(outcome == (capacity < 136 ? .noRoom : .written) && count == (capacity < 136 ? 0 : 136))
        }
        #expect(world.client.overhead(to: World.peer, now: world.now) >= 36)
    }

    @Test func unansweredPermissionsAreDeniedInTheEnd() {
        let world = World()
        world.allocate()
        world.server.isSilent = true
        _ = world.client.permit(World.peer.ip, now: world.now)
        world.flush()
        world.run(for: .seconds(120))
        #expect(world.events.contains(.denied(World.peer.ip, code: nil)))
    }

    @Test func peersThatAreNotPermittedAreNotHeard() {
        let world = World()
        world.allocate()
        world.permit()
        let other = address("198.51.100.8", 1)
        #expect(world.inject(SimulatedServer.dataIndication([1], from: other)) == .ignored(.unknownPeer))
        #expect(world.inject([0x40, 0, 0, 1, 9, 0, 0, 0]) == .ignored(.unknownPeer))
        #expect(world.inject(SimulatedServer.dataIndication([1], from: World.peer)) == .delivered)
        #expect(
            world.inject(SimulatedServer.dataIndication([1], from: World.peer), from: other) == .ignored(.otherSource))
        #expect(world.delivered.count == 1)
    }

    @Test func keepsTheWayOpen() {
        let world = World()
        world.allocate()
        world.run(for: .seconds(300))
        #expect((13...15).contains(world.server.bindings))
        let stream = World(transport: .tcp)
        stream.allocate()
        stream.run(for: .seconds(300))
        #expect(stream.server.bindings == 0)
    }
}
