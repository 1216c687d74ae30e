import ICE
import SDP
import Testing
import Wire

@testable import Peer

@Suite struct Recovering {
    private func stages(_ world: World, _ side: Int) -> [Peer.RestartReport.Stage] {
        world.restarts[side].map(\.stage)
    }

    /// Two links on each side, of which the second of each is unknown to ICE until ``appear``.
    private func twoLinks() -> [[Link]] {
        [
            [Link("192.0.2.1", port: 1000), Link("198.51.100.1", port: 1001)],
            [Link("192.0.2.2", port: 2000), Link("198.51.100.2", port: 2001)],
        ]
    }

    private func hide(_ world: World, _ sides: [Int]) {
        for side in sides {
            let second = world.links[side][1].address
            world.peers[side].removeLocalCandidates(where: { $0.address == second }, now: world.now)
        }
    }

    private func move(_ world: World, _ side: Int) {
        let links = world.links[side]
        links[0].isUp = false
        world.peers[side].addLocalCandidate(links[1].candidate(65000), now: world.now)
        world.peers[side].removeLocalCandidates(where: { $0.address == links[0].address }, now: world.now)
        world.peers[side].networkChanged(isOnline: true, now: world.now)
    }

    @Test func aRestartWhileDataFlowsIsNotNoticed() throws {
        for seed in 0..<10 {
            let world = World(seed: UInt64(seed))
            world.interval = .milliseconds(5)
            try world.connect()
            world.run(for: .milliseconds(300))
            world.longestGap = [.zero, .zero]
            for round in 0..<6 {
                if round % 3 != 1 { try world.peers[0].restart(now: world.now, reason: "test") }
                if round % 3 != 0 { try world.peers[1].restart(now: world.now, reason: "test") }
                world.run(for: .milliseconds(300))
                #expect(world.isAtRest && world.agree, "seed \(seed)")
            }
            #expect(world.longestGap.allSatisfy { $0 <= .milliseconds(10) }, "seed \(seed) \(world.longestGap)")
            #expect(world.finish(), "\(world.problems)")
            for side in 0..<2 {
                #expect(stages(world, side).filter { $0 == .recovered }.count == 6)
                #expect(!stages(world, side).contains(.failed))
                #expect(world.peers[side].statistics.restarts >= 6 && world.peers[side].statistics.generation == 6)
                #expect(world.peers[side].statistics.retransmissions == 0)
                #expect(
                    world.paths[side].count == 1 || world.paths[side].dropFirst().allSatisfy { $0.reason == .restarted }
                )
            }
        }
    }

    /// The offers go nowhere: attempt after attempt fails, and nothing else happens.
    @Test func aRestartWithoutAnAnswerHarmsNothing() throws {
        let world = World(seed: 1) { $1.timers.restartAttempts = 3 }
        try world.connect()
        let path = world.peers[0].selectedPath
        world.post.isUp = false
        try world.peers[0].restart(now: world.now, reason: "test")
        world.run(for: .seconds(40))
        #expect(stages(world, 0) == [.started, .failed, .started, .failed, .started, .failed, .givenUp])
        #expect(world.restarts[0].map(\.attempt) == [1, 1, 2, 2, 3, 3, 3])
        #expect(world.restarts[0].last.map { $0.duration >= .seconds(15) && $0.duration < .seconds(22) } == true)
        #expect(world.peers[0].selectedPath == path && stages(world, 1).isEmpty)
        #expect(world.longestGap.allSatisfy { $0 <= .milliseconds(60) })
        #expect(world.peers[0].signaling.isStable && !world.peers[0].agent.isRestarting)
        #expect(world.events.allSatisfy { $0 == [.connecting, .connected] })
        // And it goes as soon as there is a channel.
        world.post.isUp = true
        try world.peers[0].restart(now: world.now, reason: "test")
        world.run(for: .seconds(2))
        #expect(world.isAtRest && world.agree && stages(world, 0).suffix(2) == [.started, .recovered])
        #expect(world.finish())
    }

    /// Both agree on a generation whose candidates lead nowhere.
    @Test func aRestartWithoutAPathHarmsNothing() throws {
        let world = World(seed: 2) { $1.timers.restartAttempts = 2 }
        try world.connect()
        world.tamper = { _, signal in
            func astray(_ sdp: String) -> String {
                sdp.replacingOccurrences(" 192.0.2.1 ", " 192.0.2.111 ").replacingOccurrences(
                    " 192.0.2.2 ", " 192.0.2.222 ")
            }
            switch signal {
            case .offer(let sdp, let generation, let isRestart):
                return .offer(sdp: astray(sdp), generation: generation, isRestart: isRestart)
            case .answer(let sdp, let generation): return .answer(sdp: astray(sdp), generation: generation)
            case .candidate: return signal
            }
        }
        try world.peers[1].restart(now: world.now, reason: "test")
        world.run(for: .seconds(30))
        #expect(stages(world, 1) == [.started, .failed, .started, .failed, .givenUp])
        #expect(
            stages(world, 0) == [.started, .failed, .started, .failed]
                || stages(world, 0) == [.started, .started, .failed])
        #expect(world.longestGap.allSatisfy { $0 <= .milliseconds(60) })
        #expect(world.peers.allSatisfy { !$0.isClosed } && world.events.allSatisfy { $0 == [.connecting, .connected] })
        world.tamper = { $1 }
        try world.peers[0].negotiate(now: world.now)
        world.run(for: .seconds(3))
        #expect(world.isAtRest && world.agree && world.finish())
    }

    /// Neither the other side nor the host with the messages can be reached.
    @Test(arguments: [1, 10, 60], [false, true])
    func comesBackAfterTheNetworkWasAway(seconds: Int64, isTold: Bool) throws {
        for seed in 0..<5 {
            let world = World(seed: UInt64(seed)) { $1.timers.restartAttempts = 14 }
            try world.connect()
            world.links[0][0].isUp = false
            world.post.isUp = false
            if isTold { world.peers[0].networkChanged(isOnline: false, now: world.now) }
            world.run(for: .seconds(seconds))
            #expect(world.peers.allSatisfy { !$0.isClosed })
            world.links[0][0].isUp = true
            world.post.isUp = true
            let back = world.now
            if isTold { world.peers[0].networkChanged(isOnline: true, now: world.now) }
            let before = world.received
            #expect(
                world.run(for: .seconds(20)) { $0.received[0] > before[0] && $0.received[1] > before[1] },
                "seed \(seed)\n\(world.state)")
            let overshoot = world.now - back
            if isTold { #expect(overshoot <= .milliseconds(300), "seed \(seed): \(overshoot.milliseconds) ms") }
            #expect(overshoot <= .seconds(9), "seed \(seed): \(overshoot.milliseconds) ms")
            #expect(world.run(for: .seconds(30)) { $0.isAtRest }, "seed \(seed)\n\(world.state)")
            #expect(world.agree && world.finish(), "seed \(seed) \(world.problems)\n\(world.state)")
            if isTold, seconds > 1 { #expect(stages(world, 0).contains(.paused)) }
            for side in 0..<2 {
                let told = world.events[side].filter { $0 == .disconnected || $0 == .reconnected }
                #expect(
                    told == (seconds == 1 ? [] : [.disconnected, .reconnected]), "seed \(seed) side \(side) \(told)")
            }
        }
    }

    @Test(arguments: [[0], [1], [0, 1]])
    func followsAddressesThatChange(sides: [Int]) throws {
        for seed in 0..<10 {
            let world = World(seed: UInt64(seed), links: twoLinks())
            hide(world, [0, 1])
            try world.connect()
            world.run(for: .milliseconds(Int64(world.random.next() % 3000)))
            for side in sides { move(world, side) }
            let moved = world.now
            let before = world.received
            #expect(
                world.run(for: .seconds(20)) { $0.received[0] > before[0] + 3 && $0.received[1] > before[1] + 3 },
                "seed \(seed)\n\(world.state)")
            #expect(world.now - moved <= .milliseconds(500), "seed \(seed): \((world.now - moved).milliseconds) ms")
            #expect(world.run(for: .seconds(20)) { $0.isAtRest }, "seed \(seed)\n\(world.state)")
            #expect(world.agree && world.finish(), "seed \(seed) \(world.problems)")
            for side in sides { #expect(world.peers[side].selectedPath?.local == world.links[side][1].address) }
            #expect(world.events.allSatisfy { $0 == [.connecting, .connected] })
        }
    }

    /// Nobody says that the path is dead, and no second one is known: only a restart finds another.
    @Test func aPathThatDiesIsNoticedAndReplaced() throws {
        var times: [Int64] = []
        for seed in 0..<20 {
            let world = World(seed: UInt64(seed), links: twoLinks()) { $1.timers.standbyInterval = nil }
            hide(world, [0, 1])
            world.interval = .milliseconds(10)
            try world.connect(from: seed % 2)
            world.run(for: .milliseconds(Int64(world.random.next() % 3000)))
            // There are other addresses, and the sides do not know them of each other: only descriptions come through.
            world.tamper = { _, signal in if case .candidate = signal { nil } else { signal } }
            for side in 0..<2 {
                world.peers[side].addLocalCandidate(world.links[side][1].candidate(65000), now: world.now)
                world.links[side][0].loss = 1
            }
            let died = world.now
            world.run(for: .milliseconds(20))
            let before = world.received
            #expect(
                world.run(for: .seconds(20)) { $0.received[0] > before[0] + 3 && $0.received[1] > before[1] + 3 },
                "seed \(seed)\n\(world.state)")
            times.append((world.now - died).milliseconds)
            #expect(world.run(for: .seconds(20)) { $0.isAtRest }, "seed \(seed)\n\(world.state)")
            #expect(world.agree && world.finish(), "seed \(seed) \(world.problems)")
        }
        times.sort()
        #expect(times[times.count / 2] <= 500, "\(times)")
    }

    /// RFC 7675: consent is gone, nothing is sent, and DTLS and SCTP outlive it while attempts are made.
    @Test func outlivesItsConsent() throws {
        let world = World(seed: 3) {
            $1.timers.failed = .seconds(6)
            $1.timers.disconnect = .seconds(2)
        }
        try world.connect()
        world.links[0][0].isUp = false
        world.run(for: .seconds(20))
        #expect(world.peers.allSatisfy { !$0.isClosed && $0.selectedPath == nil })
        #expect(world.events.allSatisfy { $0 == [.connecting, .connected, .disconnected] })
        world.links[0][0].isUp = true
        #expect(world.run(for: .seconds(10)) { $0.isAtRest }, "\(world.state)")
        #expect(world.events.allSatisfy { $0 == [.connecting, .connected, .disconnected, .reconnected] })
        #expect(world.finish(), "\(world.problems)")
    }

    @Test func endsWhenAllAttemptsHaveFailed() throws {
        let world = World(seed: 4) {
            $1.timers.failed = .seconds(8)
            $1.timers.restartAttempts = 2
        }
        try world.connect()
        world.links[0][0].isUp = false
        world.post.isUp = false
        let start = world.now
        #expect(world.run(for: .seconds(60)) { $0.peers.allSatisfy { $0.isClosed } })
        #expect(world.now - start >= .seconds(8) && world.now - start <= .seconds(16))
        for side in 0..<2 {
            #expect(world.events[side].last == .closed(.consentExpired))
            #expect(stages(world, side).last == .givenUp)
        }
    }

    @Test func withoutAttemptsSilenceEndsItAsEver() throws {
        let world = World(seed: 5) { $1.timers.restartAttempts = 0 }
        try world.connect()
        world.links[0][0].isUp = false
        let start = world.now
        #expect(world.run(for: .seconds(60)) { $0.peers.allSatisfy { $0.isClosed } })
        #expect(world.now - start <= .seconds(40))
        #expect(world.restarts.allSatisfy { $0.isEmpty })
    }

    @Test func offlineNothingIsTriedAndOnlineAtOnce() throws {
        let world = World(seed: 6)
        try world.connect()
        for side in 0..<2 { world.peers[side].networkChanged(isOnline: false, now: world.now) }
        world.links[0][0].isUp = false
        let told = world.signals.map(\.count)
        world.run(for: .seconds(300))
        #expect(world.signals.map(\.count) == told)
        #expect(world.peers.allSatisfy { !$0.isClosed }, "\(world.state)")
        #expect(stages(world, 0) == [.paused] && stages(world, 1) == [.paused])
        world.links[0][0].isUp = true
        for side in 0..<2 { world.peers[side].networkChanged(isOnline: true, now: world.now) }
        let back = world.now
        #expect(world.run(for: .seconds(5)) { $0.isAtRest })
        #expect(world.now - back <= .milliseconds(300))
        #expect(world.agree && world.finish())
    }

    /// A network that changes without harm, again and again, costs no restarts.
    @Test func whatStillWorksIsNotRestarted() throws {
        let world = World(seed: 7)
        try world.connect()
        for _ in 0..<20 {
            for peer in world.peers { peer.networkChanged(isOnline: true, now: world.now) }
            world.run(for: .milliseconds(700))
        }
        #expect(world.restarts.allSatisfy { $0.isEmpty })
        #expect(world.finish())
    }

    /// A bad path is still a path: a few lost packets are no reason.
    @Test func badWeatherIsNoReasonToRestartAgainAndAgain() throws {
        for seed in 0..<5 {
            let world = World(seed: UInt64(seed))
            try world.connect()
            world.loss = 0.1
            world.run(for: .seconds(60))
            world.loss = 0
            let begun = stages(world, 0).filter { $0 == .started }.count
            #expect(begun <= 12, "seed \(seed): \(begun)")
            #expect(world.run(for: .seconds(20)) { $0.isAtRest }, "seed \(seed)\n\(world.state)")
            #expect(world.finish(.seconds(60)), "seed \(seed) \(world.problems)")
        }
    }

    /// Behind every kind of NAT, which forgets its mappings in the middle, with the other side reachable.
    @Test(arguments: NATKind.allCases)
    func livesBehindNATs(kind: NATKind) throws {
        for seed in 0..<5 {
            let world = World(seed: UInt64(seed), links: twoLinks())
            hide(world, [0, 1])
            let nat = NAT(kind, outside: "203.0.113.9")
            world.links[0][0].nat = nat
            try world.connect(from: seed % 2)
            world.run(for: .seconds(1))
            #expect(world.paths[1].last?.remote.contains("203.0.113.9") == true)
            for _ in 0..<3 {
                try world.peers[Int(world.random.next() % 2)].restart(now: world.now, reason: "test")
                world.run(for: .milliseconds(Int64(world.random.next() % 1000)))
                nat.forget()
                world.run(for: .seconds(4))
            }
            #expect(world.run(for: .seconds(20)) { $0.isAtRest }, "seed \(seed)\n\(world.state)")
            #expect(world.agree && world.finish(), "\(kind) seed \(seed) \(world.problems)\n\(world.state)")
        }
    }

    /// Whatever happens to paths and to the channel for messages, in any order.
    @Test(arguments: 0..<4)
    func nothingIsEverLostDoubledOrReordered(part: Int) throws {
        for index in 0..<50 {
            let seed = UInt64(part * 1000 + index)
            let problem = try storm(seed)
            #expect(problem == nil, "seed \(seed)")
            if problem != nil { return }
        }
    }

    private func storm(_ seed: UInt64) throws -> String? {
        var random = SeededGenerator(seed: seed ^ 0x5708)
        func pick(_ bound: Int) -> Int { Int(random.next() % UInt64(bound)) }
        let world = World(seed: seed, links: twoLinks()) { $1.timers.restartAttempts = 30 }
        for link in world.links.joined() { link.delay = .milliseconds(Int64(1 + pick(60))) }
        world.post.delay = 1...Int64(1 + pick(400))
        try world.connect(from: pick(2))
        var offline = [false, false]
        for _ in 0..<(5 + pick(15)) {
            let side = pick(2)
            let link = world.links[side][pick(2)]
            switch pick(9) {
            case 0: link.isUp.toggle()
            case 1: link.loss = [0, 0.1, 0.3, 1][pick(4)]
            case 2: try world.peers[side].restart(now: world.now, reason: "test")
            case 3: try world.peers[side].negotiate(now: world.now)
            case 4: world.post.isUp.toggle()
            case 5:
                offline[side].toggle()
                for link in world.links[side] { link.isUp = !offline[side] }
                world.peers[side].networkChanged(isOnline: !offline[side], now: world.now)
            case 6:
                world.peers[side].removeLocalCandidates(where: { $0.address == link.address }, now: world.now)
                link.isUp = false
                world.peers[side].networkChanged(isOnline: !offline[side], now: world.now)
            case 7:
                link.isUp = !offline[side]
                world.peers[side].addLocalCandidate(link.candidate(UInt16(60000 + pick(1000))), now: world.now)
                world.peers[side].networkChanged(isOnline: !offline[side], now: world.now)
            default: world.post.loss = [0, 0.2][pick(2)]
            }
            world.run(for: .milliseconds(Int64(pick([10, 300, 3000][pick(3)]))))
        }
        world.post = Post()
        for side in 0..<2 {
            for link in world.links[side] {
                link.isUp = true
                link.loss = 0
                world.peers[side].addLocalCandidate(link.candidate(65000), now: world.now)
            }
            world.peers[side].networkChanged(isOnline: true, now: world.now)
        }
        guard world.run(for: .seconds(90), until: { $0.isAtRest || !$0.problems.isEmpty }) else {
            return "stuck\n\(world.state)"
        }
        guard world.finish(.seconds(60)) else { return "\(world.problems)\n\(world.state)" }
        guard world.agree, world.peers.allSatisfy({ !$0.isClosed }) else { return "no end\n\(world.state)" }
        return nil
    }
}
