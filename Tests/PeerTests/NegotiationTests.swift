import ICE
import SDP
import Testing
import Wire

@testable import Peer

@Suite struct Negotiating {
    @Test(arguments: [Peer.Style.polite, .impolite], [0, 1])
    func eitherSideMayBegin(style: Peer.Style, beginner: Int) throws {
        let other: Peer.Style = style == .polite ? .impolite : .polite
        let world = World(seed: 1, styles: [style, other])
        try world.connect(from: beginner)
        #expect(world.events == [[.connecting, .connected], [.connecting, .connected]])
        #expect(world.peers[beginner].agent.role == .controlling && world.peers[1 - beginner].agent.role == .controlled)
        #expect(world.peers[beginner].agent.statistics.roleConflicts == 0)
        #expect(world.peers[beginner].transportRole == .client)
        #expect(world.agree && world.finish())
        #expect(world.paths.map { $0.map(\.reason) } == [[.first], [.first]])
    }

    /// Both offer before either has anything: the roles of ICE and DTLS come from the offer that counts.
    @Test func bothMayBeginAtOnce() throws {
        for seed in 0..<50 {
            let world = World(seed: UInt64(seed))
            world.startStream()
            world.post.delay = 1...200
            try world.peers[0].negotiate(now: world.now)
            world.run(for: .milliseconds(Int64(seed)))
            try world.peers[1].negotiate(now: world.now)
            try #require(
                world.run(for: .seconds(10)) { $0.areConnected && $0.isAtRest }, "seed \(seed)\n\(world.state)")
            #expect(world.agree && world.finish(), "seed \(seed) \(world.problems)")
            let polite = world.peers[0]
            #expect(polite.transportRole != world.peers[1].transportRole)
            #expect(polite.agent.role != world.peers[1].agent.role)
            #expect(polite.agent.statistics.roleConflicts == 0, "seed \(seed)")
        }
    }

    @Test func theCollisionIsDecidedByPoliteness() throws {
        let world = World(seed: 2)
        for peer in world.peers { try peer.negotiate(now: world.now) }
        #expect(world.run(for: .seconds(5)) { $0.areConnected })
        // The polite one answers and does not offer again: what it wanted is done.
        #expect(world.signals[0].map(kind) == ["offer", "answer"] && world.signals[1].map(kind) == ["offer"])
        #expect(world.peers[1].agent.role == .controlling)
        world.run(for: .seconds(20))
        #expect(world.signals.map(\.count) == [2, 1])
    }

    func kind(_ signal: Peer.Signal) -> String {
        switch signal {
        case .offer: "offer"
        case .answer: "answer"
        case .candidate: "candidate"
        }
    }

    @Test func renegotiationKeepsWhatThereIs() throws {
        let world = World(seed: 3)
        try world.connect()
        let before = try SessionDescription(parsing: sdp(world.signals[0][0]))
        let transport = try before.dataTransport()
        for side in [0, 1, 1, 0] {
            try world.peers[side].negotiate(now: world.now)
            world.run(for: .seconds(1))
        }
        #expect(world.isAtRest && world.agree)
        let offers = try world.signals[0].filter { kind($0) == "offer" }.map {
            try SessionDescription(parsing: sdp($0))
        }
        #expect(offers.count == 3)
        for offer in offers {
            let again = try offer.dataTransport()
            #expect(again.setup == .actpass && again.mid == transport.mid && again.sctpPort == transport.sctpPort)
            #expect(again.iceUfrag == transport.iceUfrag && again.fingerprints == transport.fingerprints)
            #expect(offer.sessionID == before.sessionID)
        }
        // One version of o= for each description, of either kind.
        let versions = try world.signals[0].map { try Int(SessionDescription(parsing: sdp($0)).sessionVersion) }
        #expect(versions == Array(1...5))
        #expect(world.peers[0].transportRole == .client && world.peers[1].transportRole == .server)
        #expect(world.events == [[.connecting, .connected], [.connecting, .connected]])
        #expect(world.finish())
    }

    func sdp(_ signal: Peer.Signal) -> String {
        switch signal {
        case .offer(let sdp, _, _), .answer(let sdp, _): sdp
        case .candidate: ""
        }
    }

    @Test func anAnswerThatIsLostIsAskedForAgain() throws {
        let world = World(seed: 4)
        var lost = 0
        world.tamper = { side, signal in
            if side == 1, lost < 2 {
                lost += 1
                return nil
            }
            return signal
        }
        world.startStream()
        try world.peers[0].negotiate(now: world.now)
        #expect(world.run(for: .seconds(20)) { $0.areConnected && $0.isAtRest })
        #expect(world.signals[0].count == 3)
        #expect(world.agree && world.finish())
    }

    @Test func withoutAnAnswerTheOffersEndAndTheOtherSideMayBegin() throws {
        let world = World(seed: 5)
        world.post.isUp = false
        try world.peers[1].negotiate(now: world.now)
        world.run(for: .seconds(120))
        #expect(world.signals[1].count == 10)
        #expect(!world.peers[1].isClosed && world.peers[1].signaling.isStable)
        world.post.isUp = true
        try world.connect(from: 0)
        #expect(world.finish())
    }

    @Test func anotherFingerprintIsRefusedAndHarmsNothing() throws {
        let world = World(seed: 6)
        try world.connect()
        let foreign = World(seed: 77)
        try foreign.peers[0].negotiate(now: foreign.now)
        foreign.drain()
        for isRestart in [false, true] {
            let text = sdp(foreign.signals[0][0])
            let offer = try SessionDescription(parsing: text)
            #expect(throws: Peer.DescriptionError.self) {
                try world.peers[1].receive(offer: offer, generation: nil, isRestart: isRestart, now: world.now)
            }
        }
        // As an answer too.
        try world.peers[1].negotiate(now: world.now)
        let answer = try SessionDescription(
            parsing: sdp(foreign.signals[0][0]).replacingOccurrences("actpass", "active"))
        #expect(throws: Peer.DescriptionError.self) {
            try world.peers[1].receive(answer: answer, generation: nil, now: world.now)
        }
        world.run(for: .seconds(5))
        #expect(world.isAtRest && world.agree && world.finish())
        #expect(world.events[1] == [.connecting, .connected])
    }

    @Test func otherPortsAndRolesAreRefused() throws {
        let world = World(seed: 7)
        try world.connect()
        let changes = [("sctp-port:5000", "sctp-port:5001"), ("setup:actpass", "setup:passive")]
        for (old, new) in changes {
            try world.peers[0].negotiate(now: world.now)
            world.tamper = { side, signal in
                guard side == 0, case .offer(let sdp, let generation, let isRestart) = signal else { return signal }
                return .offer(
                    sdp: sdp.replacingOccurrences(old, new), generation: generation, isRestart: isRestart)
            }
            world.run(for: .milliseconds(500))
            #expect(world.problems.count == 1, "\(new) \(world.problems)")
            world.problems = []
            world.tamper = { $1 }
            world.run(for: .seconds(10))
            #expect(world.isAtRest && world.agree)
        }
        #expect(world.finish())
    }

    @Test func replayedMessagesChangeNothing() throws {
        let world = World(seed: 8)
        try world.connect()
        for _ in 0..<3 {
            try world.peers[0].restart(now: world.now, reason: "test")
            try #require(world.run(for: .seconds(5)) { $0.isAtRest })
            try world.peers[1].restart(now: world.now, reason: "test")
            try #require(world.run(for: .seconds(5)) { $0.isAtRest })
        }
        #expect(world.peers[0].statistics.generation == 6 && world.agree)
        let path = world.peers[0].selectedPath
        let told = world.signals
        for side in 0..<2 {
            for signal in told[side] { world.deliver(signal, to: 1 - side) }
        }
        world.run(for: .seconds(10))
        #expect(world.peers[0].statistics.generation == 6 && world.agree && world.isAtRest)
        #expect(world.peers[0].selectedPath == path && world.problems.isEmpty)
        #expect(world.peers[0].statistics.restarts == 6)
        #expect(world.finish())
    }

    @Test func manualPeersLeaveItToTheirHosts() throws {
        let simulation = Simulation(seed: 9)
        try simulation.negotiate()
        #expect(simulation.run(for: .seconds(5)) { $0.areConnected })
        let offer = try SessionDescription(parsing: Simulation(seed: 8).offerer.makeOffer())
        let (now, peer) = (simulation.now, simulation.answerer)
        #expect(throws: Peer.DescriptionError.self) { try peer.negotiate(now: now) }
        #expect(throws: Peer.DescriptionError.self) { try peer.restart(now: now, reason: "") }
        #expect(throws: Peer.DescriptionError.self) {
            try peer.receive(offer: offer, generation: nil, isRestart: false, now: now)
        }
        #expect(throws: Peer.DescriptionError.self) { try peer.receive(answer: offer, generation: nil, now: now) }
        #expect(throws: Peer.DescriptionError.self) { try peer.receive(candidate: nil, ufrag: nil, now: now) }
        // And the host's calls are not for the others.
        let world = World(seed: 1)
        #expect(throws: Peer.DescriptionError.self) { try world.peers[0].makeOffer() }
        #expect(throws: Peer.DescriptionError.self) { try world.peers[0].addRemoteCandidate(nil) }
    }

    /// Chromium, Firefox, pion and aiortc send no generation; a page takes its offer back and answers.
    @Test func theOtherSideNeedNotKnowGenerations() throws {
        for seed in 0..<40 {
            let world = World(seed: UInt64(seed))
            world.post.delay = 5...150
            world.carry = { [unowned world] signal, side in
                // As from a page: the sender's number does not come along.
                do {
                    switch signal {
                    case .offer(let sdp, _, let isRestart):
                        try world.peers[side].receive(
                            offer: SessionDescription(parsing: sdp), generation: nil, isRestart: isRestart,
                            now: world.now)
                    case .answer(let sdp, _):
                        try world.peers[side].receive(
                            answer: SessionDescription(parsing: sdp), generation: nil, now: world.now)
                    case .candidate(let line, _, let ufrag):
                        try world.peers[side].receive(candidate: line, ufrag: ufrag, now: world.now)
                    }
                } catch { world.problems.append("\(error)") }
                return nil
            }
            try world.connect(from: seed % 2)
            for _ in 0..<4 {
                try world.peers[0].restart(now: world.now, reason: "test")
                world.run(for: .milliseconds(Int64(world.random.next() % 200)))
                try world.peers[1].restart(now: world.now, reason: "test")
                #expect(world.run(for: .seconds(20)) { $0.isAtRest }, "seed \(seed)\n\(world.state)")
            }
            #expect(world.finish(), "seed \(seed) \(world.problems)")
        }
    }
}

extension String {
    func replacingOccurrences(_ old: String, _ new: String) -> String {
        var text = self
        while let range = text.range(of: old) { text.replaceSubrange(range, with: new) }
        return text
    }

    private func range(of text: String) -> Range<Index>? {
        var start = startIndex
        while start < endIndex {
            if self[start...].hasPrefix(text) { return start..<index(start, offsetBy: text.count) }
            start = index(after: start)
        }
        return nil
    }
}
