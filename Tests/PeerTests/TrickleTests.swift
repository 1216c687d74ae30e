import DTLS
import SDP
import Testing
import Wire

@testable import ICE
@testable import Peer

@Suite struct Trickle {
    private func sdp(_ signal: Peer.Signal) -> String {
        switch signal {
        case .offer(let sdp, _, _), .answer(let sdp, _): sdp
        case .candidate: ""
        }
    }

    private func candidates(_ signals: [Peer.Signal]) -> [(line: String?, mid: String, ufrag: String)] {
        signals.compactMap { if case .candidate(let line, let mid, let ufrag) = $0 { (line, mid, ufrag) } else { nil } }
    }

    /// Without a candidate in either description.
    @Test func candidatesMayAllComeLater() throws {
        let links = [[Link("192.0.2.1", port: 1000)], [Link("192.0.2.2", port: 2000)]]
        let world = World(seed: 1, links: links)
        for side in 0..<2 { world.peers[side].removeLocalCandidates(where: { _ in true }, now: world.now) }
        world.startStream()
        try world.peers[0].negotiate(now: world.now)
        world.run(for: .seconds(1))
        #expect(world.signals.map(\.count) == [1, 1] && !world.areConnected)
        for signal in world.signals.joined() {
            let transport = try SessionDescription(parsing: sdp(signal)).dataTransport()
            #expect(transport.candidates.isEmpty && !transport.hasEndOfCandidates && transport.supportsTrickle)
        }
        for side in 0..<2 {
            world.peers[side].addLocalCandidate(links[side][0].candidate(65535), now: world.now)
            // A second time it is no news.
            world.peers[side].addLocalCandidate(links[side][0].candidate(65535), now: world.now)
            world.peers[side].localCandidatesComplete(now: world.now)
            world.peers[side].localCandidatesComplete(now: world.now)
        }
        #expect(world.run(for: .seconds(5)) { $0.areConnected })
        for side in 0..<2 {
            let told = candidates(world.signals[side])
            let ufrag = world.peers[side].localUfrag
            #expect(told.count == 2 && told[0].line?.hasSuffix(" ufrag \(ufrag)") == true && told[1].line == nil)
            #expect(told.allSatisfy { $0.ufrag == ufrag && $0.mid == "0" })
        }
        #expect(world.finish())
    }

    /// Messages overtake each other: a candidate comes before the description that it belongs to.
    @Test func candidatesBeforeTheDescriptionWait() throws {
        for withUfrag in [true, false] {
            let world = World(seed: 2)
            world.startStream()
            try world.peers[0].negotiate(now: world.now)
            world.drain()
            let offer = try #require(world.letters.last).signal
            world.letters = []
            let text = sdp(offer)
            let own = try SessionDescription(parsing: text).dataTransport()
            let lines = own.candidates
            let stripped =
                text.split(separator: "\r\n").filter { !$0.hasPrefix("a=candidate") }
                .joined(separator: "\r\n") + "\r\n"
            for line in lines {
                try world.peers[1].receive(
                    candidate: line, ufrag: withUfrag ? own.iceUfrag : nil, now: world.now)
            }
            // And so many of somebody else that the queue is full of them; the latest are kept.
            for index in 0..<63 {
                try world.peers[1].receive(candidate: "candidate:\(index)", ufrag: "other", now: world.now)
            }
            // The answerer's own candidates would be enough for a path: they are not told here.
            world.tamper = { side, signal in
                guard side == 1, case .answer(let sdp, let generation) = signal else { return signal }
                let lines = sdp.split(separator: "\r\n").filter { !$0.hasPrefix("a=candidate") }
                return .answer(sdp: lines.joined(separator: "\r\n") + "\r\n", generation: generation)
            }
            world.deliver(.offer(sdp: stripped, generation: 0, isRestart: false), to: 1)
            #expect(world.peers[1].remoteCandidateTexts.count == lines.count)
            #expect(world.run(for: .seconds(5)) { $0.areConnected })
            #expect(world.finish())
        }
    }

    @Test func theQueueIsBounded() throws {
        let world = World(seed: 3)
        for index in 0..<10_000 {
            try world.peers[1].receive(
                candidate: "candidate:\(index) 1 udp 1 192.0.2.1 \(index % 60000 + 1) typ host", ufrag: "early",
                now: world.now)
        }
        try world.peers[0].negotiate(now: world.now)
        world.tamper = { side, signal in
            guard side == 0, case .offer(let sdp, let generation, let isRestart) = signal else { return signal }
            return .offer(
                sdp: sdp.replacingOccurrences(world.peers[0].localUfrag, "early"), generation: generation,
                isRestart: isRestart)
        }
        world.run(for: .milliseconds(100))
        // 64 waited; the agent takes 32.
        #expect(world.peers[1].remoteCandidateTexts.count == 32)
        #expect(world.peers[1].remoteCandidateTexts.contains { $0.contains("candidate:9937 ") })
        #expect(!world.peers[1].remoteCandidateTexts.contains { $0.contains("candidate:9935 ") })
    }

    @Test func candidatesOfEarlierGenerationsAreIgnored() throws {
        let world = World(seed: 4)
        try world.connect()
        let former = world.peers[0].localUfrag
        try world.peers[0].restart(now: world.now, reason: "test")
        #expect(world.run(for: .seconds(5)) { $0.isAtRest })
        let before = world.peers[1].remoteCandidateTexts
        let line = "candidate:1 1 udp 1 192.0.2.77 7 typ host"
        try world.peers[1].receive(candidate: line, ufrag: former, now: world.now)
        try world.peers[1].receive(candidate: line + " generation 0 ufrag \(former)", ufrag: nil, now: world.now)
        #expect(world.peers[1].remoteCandidateTexts == before)
        let current = try #require(world.peers[0].localUfrags.first)
        try world.peers[1].receive(candidate: line, ufrag: current, now: world.now)
        #expect(world.peers[1].remoteCandidateTexts.count == before.count + 1)
        #expect(world.finish())
    }

    /// RFC 8838 section 14 and W3C: in the description, null, or an empty line.
    @Test(arguments: ["description", "null", "empty"])
    func theEndIsUnderstoodInAllForms(form: String) throws {
        let world = World(seed: 5)
        try world.peers[0].negotiate(now: world.now)
        world.tamper = { side, signal in
            guard side == 0, form == "description", case .offer(let sdp, let generation, _) = signal else {
                return signal
            }
            return .offer(sdp: sdp + "a=end-of-candidates\r\n", generation: generation, isRestart: false)
        }
        world.run(for: .milliseconds(30))
        if form == "null" { try world.peers[1].receive(candidate: nil, ufrag: nil, now: world.now) }
        if form == "empty" {
            try world.peers[1].receive(candidate: "", ufrag: world.peers[0].localUfrag, now: world.now)
        }
        #expect(world.peers[1].agent.generation.remoteIsComplete)
    }

    @Test func theEndIsToldOncePerGeneration() throws {
        let world = World(seed: 6)
        world.peers[0].localCandidatesComplete(now: world.now)
        try world.connect()
        // Said in the description.
        #expect(candidates(world.signals[0]).isEmpty && sdp(world.signals[0][0]).contains("a=end-of-candidates"))
        try world.peers[0].restart(now: world.now, reason: "test")
        #expect(world.run(for: .seconds(5)) { $0.isAtRest })
        #expect(candidates(world.signals[0]).isEmpty && sdp(world.signals[0][1]).contains("a=end-of-candidates"))
        // And the other side, which has not said so: for the new generation only.
        #expect(!sdp(world.signals[1][1]).contains("a=end-of-candidates"))
        world.peers[1].localCandidatesComplete(now: world.now)
        world.run(for: .seconds(1))
        let told = candidates(world.signals[1])
        #expect(told.count == 1 && told[0].line == nil && [told[0].ufrag] == world.peers[1].localUfrags)
    }

    @Test func aCandidateThatAppearsIsToldAndUsedAtOnce() throws {
        let links = [[Link("192.0.2.1", port: 1000), Link("192.0.2.9", port: 1009)], [Link("192.0.2.2", port: 2000)]]
        let world = World(seed: 7, links: links)
        world.peers[0].removeLocalCandidates(where: { $0.address.port == 1009 }, now: world.now)
        try world.connect()
        world.peers[0].addLocalCandidate(links[0][1].candidate(65530), now: world.now)
        world.run(for: .seconds(2))
        let told = candidates(world.signals[0])
        #expect(told.count == 1 && told[0].line?.contains("192.0.2.9 1009") == true)
        #expect(world.peers[1].remoteCandidateTexts.contains { $0.contains("192.0.2.9 1009") })
        #expect(world.seen.contains { $0.local == links[0][1].address })
        #expect(world.finish())
    }

    /// S1: no other candidate is made, sent, checked or selected.
    @Test func relayOnlyShowsNothingButTheRelay() throws {
        let links = [
            [Link("192.0.2.1", port: 1000), Link("203.0.113.5", port: 4000)], [Link("192.0.2.2", port: 2000)],
        ]
        links[0][1].kind = .relayed
        let world = World(seed: 8, links: links) { side, configuration in configuration.relayOnly = side == 0 }
        try world.connect(from: 1)
        let reflexive = Candidate(
            kind: .serverReflexive, address: SocketAddress(ip: IPAddress("198.51.100.1")!, port: 5), priority: 5,
            base: links[0][0].address)
        world.peers[0].addLocalCandidate(reflexive, now: world.now)
        world.peers[0].addLocalCandidate(links[0][0].candidate(9), now: world.now)
        try world.peers[0].restart(now: world.now, reason: "test")
        #expect(world.run(for: .seconds(5)) { $0.isAtRest })
        world.peers[0].localCandidatesComplete(now: world.now)
        world.run(for: .seconds(10))
        for signal in world.signals[0] {
            switch signal {
            case .offer(let sdp, _, _), .answer(let sdp, _):
                let lines = try SessionDescription(parsing: sdp).dataTransport().candidates
                #expect(lines.count == 1)
                for hidden in ["192.0.2.1 ", "198.51.100"] {
                    #expect(!sdp.replacingOccurrences("\r", " ").contains(hidden))
                }
                #expect(lines[0].contains("203.0.113.5 4000 typ relay raddr 0.0.0.0 rport 9"))
            case .candidate(let line, _, _): #expect(line == nil)
            }
        }
        let used = Set(world.seen.map(\.local)).subtracting([links[1][0].address])
        #expect(used == [links[0][1].address])
        #expect(world.paths[0].allSatisfy { $0.local.contains("typ relay raddr 0.0.0.0 rport 9") })
        #expect(world.peers[0].statistics.localKind == .relayed && world.peers[1].statistics.remoteKind == .relayed)
        #expect(world.finish())
    }

    @Test func namesAreResolvedOnce() throws {
        let world = World(seed: 9) { $1.resolvesNames = true }
        let name = "0b7e6a4e-6f0d-4c8e-9d0c-0a4c2f3d6e10.local"
        world.tamper = { side, signal in
            guard side == 0, case .offer(let sdp, let generation, let isRestart) = signal else { return signal }
            let line = "candidate:9 1 udp 2113937151 \(name) 1000 typ host"
            let lines = sdp.split(separator: "\r\n").flatMap {
                $0.hasPrefix("a=candidate") ? ["a=" + line, "a=" + line + " generation 0"] : [String($0)]
            }
            return .offer(
                sdp: lines.joined(separator: "\r\n") + "\r\n", generation: generation, isRestart: isRestart)
        }
        try world.peers[0].negotiate(now: world.now)
        world.run(for: .milliseconds(30))
        #expect(world.events[1].filter { $0 == .resolve(name: name) }.count == 1)
        #expect(world.peers[1].remoteCandidateTexts.isEmpty)
        world.peers[1].resolved(name: "another.local", ip: IPAddress("192.0.2.200"), now: world.now)
        #expect(world.peers[1].remoteCandidateTexts.isEmpty)
        world.peers[1].resolved(name: name, ip: IPAddress("192.0.2.1"), now: world.now)
        #expect(world.peers[1].remoteCandidateTexts.count == 1)
        #expect(world.run(for: .seconds(5)) { $0.areConnected })
        // Many names: bounded.
        for index in 0..<100 {
            try world.peers[1].receive(
                candidate: "candidate:9 1 udp 2113937151 a\(index).local 1000 typ host",
                ufrag: world.peers[0].localUfrag, now: world.now)
        }
        world.drain()
        let asked = world.events[1].filter { if case .resolve = $0 { true } else { false } }
        #expect(asked.count == 1 + Peer.maximumNames)
        #expect(world.peers[1].statistics.candidatesRefused >= 84)
    }

    @Test func whatIsNoCandidateIsCounted() throws {
        let world = World(seed: 10)
        try world.connect()
        let ufrag = world.peers[0].localUfrag
        for line in ["candidate", "x", "candidate:1 1 udp 0 192.0.2.1 1 typ host", String(repeating: "c", count: 5000)]
        {
            try world.peers[1].receive(candidate: line, ufrag: ufrag, now: world.now)
        }
        #expect(world.peers[1].statistics.candidatesRefused == 4)
        #expect(world.finish())
    }
}

/// Descriptions of browsers and libraries, against a peer that negotiates by itself.
@Suite struct Compatibility {
    /// As they are, and later as a restart: another ufrag and password, the next version in the origin.
    private func page(ufrag: String, version: Int, setup: String = "actpass", sections: Int = 1) -> String {
        var lines = [
            "v=0", "o=- 4611731400430051336 \(version) IN IP4 127.0.0.1", "s=-", "t=0 0",
            "a=group:BUNDLE " + (sections == 1 ? "0" : "audio 0"), "a=extmap-allow-mixed", "a=msid-semantic: WMS",
        ]
        if sections == 2 {
            lines += [
                "m=audio 9 UDP/TLS/RTP/SAVPF 111", "c=IN IP4 0.0.0.0", "a=mid:audio", "a=rtpmap:111 opus/48000/2",
            ]
        }
        lines += [
            "m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "c=IN IP4 0.0.0.0", "a=ice-ufrag:\(ufrag)",
            "a=ice-pwd:asd88fgpdd777uzjYhagZg\(ufrag)", "a=ice-options:trickle",
            "a=fingerprint:sha-256 " + Array(repeating: "AB", count: 32).joined(separator: ":"), "a=setup:\(setup)",
            "a=mid:0", "a=sctp-port:5000", "a=max-message-size:262144",
        ]
        return lines.joined(separator: "\r\n") + "\r\n"
    }

    private func answers(_ peer: Peer) -> [String] {
        var texts: [String] = []
        while let event = peer.pollEvent() {
            if case .signal(.answer(let sdp, _)) = event { texts.append(sdp) }
        }
        return texts
    }

    private func make(_ style: Peer.Style = .polite) -> Peer {
        var configuration = Peer.Configuration()
        configuration.style = style
        return Peer(
            role: .answerer, configuration: configuration,
            candidates: Candidate.host([SocketAddress(ip: IPAddress("192.0.2.2")!, port: 2000)]),
            provider: SimulatedContext(seed: 1), packets: PacketBuffer(capacity: 1 << 16),
            random: SeededGenerator(seed: 4),
            now: Instant(nanoseconds: 0))
    }

    @Test func pagesRestartWithoutNumbers() throws {
        let now = Instant(nanoseconds: 0)
        let peer = make()
        for (index, ufrag) in ["aaaa", "bbbb", "bbbb", "cccc"].enumerated() {
            let offer = try SessionDescription(parsing: page(ufrag: ufrag, version: index + 2))
            try peer.receive(offer: offer, generation: nil, isRestart: index != 0, now: now)
        }
        let told = try answers(peer).map { try SessionDescription(parsing: $0) }
        let ufrags = try told.map { try $0.dataTransport().iceUfrag }
        // RFC 8839 section 4.4.1.1.1: new ones for new ones, and the same for the same.
        #expect(Set(ufrags).count == 3 && ufrags[1] == ufrags[2])
        #expect(peer.statistics.generation == 2)
        #expect(Set(told.map(\.sessionID)).count == 1 && told.map(\.sessionVersion) == ["1", "2", "3", "4"])
        // An old one again.
        try peer.receive(
            offer: SessionDescription(parsing: page(ufrag: "aaaa", version: 2)), generation: nil, isRestart: true,
            now: now)
        #expect(answers(peer).isEmpty && peer.statistics.generation == 2)
    }

    /// Our own later offers have the page's sections, the rejected ones included.
    @Test func ourOffersKeepTheirSections() throws {
        let now = Instant(nanoseconds: 0)
        let peer = make(.impolite)
        let first = page(ufrag: "aaaa", version: 2, sections: 2)
        try peer.receive(offer: SessionDescription(parsing: first), generation: nil, isRestart: false, now: now)
        try peer.negotiate(now: now)
        var offers: [SessionDescription] = []
        while let event = peer.pollEvent() {
            if case .signal(.offer(let sdp, _, _)) = event { offers.append(try SessionDescription(parsing: sdp)) }
        }
        #expect(offers.count == 1 && peer.dataSectionIndex == 1)
        #expect(offers[0].media.map(\.mid) == ["audio", "0"] && offers[0].media.map(\.port) == [0, 9])
        #expect(try offers[0].dataTransport().mid == "0")
        // Its answer, in the same form.
        let answer = page(ufrag: "aaaa", version: 3, setup: "active", sections: 2)
            .replacingOccurrences("m=audio 9", "m=audio 0").replacingOccurrences("BUNDLE audio 0", "BUNDLE 0")
        try peer.receive(answer: SessionDescription(parsing: answer), generation: nil, now: now)
        #expect(peer.signaling.isStable)
    }

    /// aiortc answers a restart with the credentials it had: that is no restart, and what there is stays.
    @Test func anAnswerThatDoesNotRestartIsNoAnswerToARestart() throws {
        var now = Instant(nanoseconds: 0)
        let peer = make(.impolite)
        try peer.receive(
            offer: SessionDescription(parsing: page(ufrag: "aaaa", version: 2)), generation: nil, isRestart: false,
            now: now)
        try peer.restart(now: now, reason: "test")
        try peer.receive(
            answer: SessionDescription(parsing: page(ufrag: "aaaa", version: 3, setup: "active")), generation: nil,
            now: now)
        #expect(!peer.signaling.isStable)
        var reports: [Peer.RestartReport] = []
        for _ in 0..<100 {
            while let event = peer.pollEvent() { if case .restart(let report) = event { reports.append(report) } }
            now = now + .milliseconds(100)
            if let due = peer.nextTimeout, due <= now { peer.handleTimeout(now: now) }
        }
        #expect(reports.prefix(2).map(\.stage) == [.started, .failed])
        #expect(peer.statistics.generation == 0 && !peer.isClosed)
    }
}
