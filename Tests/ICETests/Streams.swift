import Testing
import Wire

@testable import ICE

private let listening = address("198.51.100.2", 443)

/// ICE over TCP (RFC 6544).
@Suite struct Streams {
    private func hosts(_ network: Network, udp: Bool = true) -> (Host, Host) {
        let offerer = network.agent(.controlling, on: udp ? [a4] : [])
        let answerer = network.agent(.controlled, on: udp ? [b4] : [])
        offerer.agent.addLocalCandidate(Candidate.host([a4], .active)[0], now: network.now)
        answerer.agent.addLocalCandidate(Candidate.host([listening], .passive)[0], now: network.now)
        return (offerer, answerer)
    }

    @Test func candidatesSayTheirType() {
        let (active, passive) = (Candidate.host([a4], .active)[0], Candidate.host([listening], .passive)[0])
        #expect(active.text.hasSuffix(" 1 tcp \(active.priority) 192.0.2.1 9 typ host tcptype active"))
        #expect(passive.text.hasSuffix(" 198.51.100.2 443 typ host tcptype passive"))
        for candidate in [active, passive] {
            #expect(CandidateText(parsing: candidate.text) == .candidate(candidate) && candidate.transport == .tcp)
        }
        // RFC 6544 section 4.2, worked out by hand: 90, then 6 or 4 in the top three bits, 8191 behind them.
        #expect(active.priority == 90 << 24 | (6 << 13 | 8191) << 8 | 255)
        #expect(passive.priority == 90 << 24 | (4 << 13 | 8191) << 8 | 255)
        // UDP first, whatever kind; relays last.
        let reflexive = Candidate.priority(.serverReflexive, localPreference: 0)
        #expect(active.priority < reflexive && active.priority > Candidate.priority(.relayed, localPreference: .max))
        #expect(active.foundation != Candidate.host([a4])[0].foundation)
        let names = [
            "candidate:1 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active generation 0 network-cost 10",
            "candidate:1 1 TCP 1518280447 192.0.2.1 0 typ host tcptype active",
            "candidate:1 1 tcp 1518214911 192.0.2.1 7000 typ srflx raddr 10.0.0.1 rport 9 tcptype so",
        ]
        let types: [Candidate.TCPType] = [.active, .active, .simultaneousOpen]
        for (text, type) in zip(names, types) {
            guard case .candidate(let candidate) = CandidateText(parsing: text) else {
                Issue.record("\(text)")
                continue
            }
            #expect(candidate.tcpType == type && candidate.address.port == (type == .active ? 9 : 7000))
        }
    }

    @Test func mDNSNamesKeepWhatTheyStandFor() throws {
        let text = "candidate:7 1 tcp 1518280447 4a2e.local 7001 typ host tcptype passive"
        guard case .name(let name, let candidate) = CandidateText(parsing: text) else {
            Issue.record("not a name")
            return
        }
        #expect(name == "4a2e.local" && candidate.address.ip.isUnspecified)
        let resolved = try #require(candidate.resolved(IPAddress("192.0.2.7")!))
        #expect(resolved.address == address("192.0.2.7", 7001) && resolved.tcpType == .passive)
        #expect(resolved.priority == 1_518_280_447 && resolved.foundation == "7")
        #expect(candidate.resolved(IPAddress("224.0.0.251")!) == nil)
    }

    /// Everything but TCP is blocked.
    @Test(arguments: [true, false])
    func whatUDPCannotTCPCan(trickled: Bool) {
        let network = Network(seed: 1)
        network.filter = { $0.transport == .tcp }
        let (offerer, answerer) = hosts(network)
        network.introduce(offerer, answerer, candidates: !trickled)
        if trickled {
            for candidate in answerer.agent.localCandidates { offerer.agent.addRemoteCandidate(candidate) }
            network.flush(offerer)
        }
        network.run(for: .seconds(3))
        let here = Path(local: address("192.0.2.1", 9), remote: listening, transport: .tcp)
        #expect(offerer.agent.selectedPath == here)
        let there = answerer.agent.selectedPath
        #expect(there?.local == listening && there?.transport == .tcp && there?.remote.ip == a4.ip)
        let ends = offerer.agent.candidates(of: here)
        #expect(ends?.local.tcpType == .active && ends?.remote.tcpType == .passive && ends?.remote.kind == .host)
        let seen = there.flatMap { answerer.agent.candidates(of: $0) }
        #expect(
            seen?.local.tcpType == .passive && seen?.remote.kind == .peerReflexive && seen?.remote.tcpType == .active)
        network.stream(by: [offerer, answerer], for: .seconds(60))
        #expect(offerer.failures.isEmpty && answerer.failures.isEmpty && offerer.selected.count == 1)
        #expect(!offerer.events.contains(.suspected))
    }

    @Test func udpIsPreferred() {
        let network = Network(seed: 2)
        let (offerer, answerer) = hosts(network)
        network.introduce(offerer, answerer)
        network.run(for: .seconds(5))
        #expect(offerer.agent.selectedPath == Path(local: a4, remote: b4))
        #expect(answerer.agent.selectedPath == Path(local: b4, remote: a4))
        // TCP is the second path, and takes over.
        #expect(offerer.agent.standbyPath?.transport == .tcp)
        network.filter = { $0.transport == .tcp }
        network.stream(by: [offerer], for: .seconds(2))
        #expect(offerer.agent.selectedPath?.transport == .tcp && answerer.agent.selectedPath?.transport == .tcp)
    }

    /// Only active with passive, and only the active side begins.
    @Test func pairsAreActiveWithPassive() {
        let network = Network(seed: 3)
        let offerer = network.agent(.controlling, on: [])
        let answerer = network.agent(.controlled, on: [])
        for (host, ip) in [(offerer, a4), (answerer, b4)] {
            host.agent.addLocalCandidate(Candidate.host([ip], .active)[0], now: network.now)
            host.agent.addLocalCandidate(Candidate.host([ip], .passive)[0], now: network.now)
            host.agent.addLocalCandidate(Candidate.host([ip], .simultaneousOpen)[0], now: network.now)
            host.agent.localCandidatesComplete()
        }
        network.filter = { datagram in
            #expect(datagram.from.port == 9 && datagram.to.port != 9)
            return false
        }
        network.introduce(offerer, answerer)
        network.run(for: .seconds(20))
        #expect(offerer.agent.pairCount == 1 && answerer.agent.pairCount == 1)
        // RFC 8489 section 6.2.2: sent once.
        #expect(network.sent == 2)
        network.run(for: .seconds(40))
        #expect(network.sent == 2 && offerer.failures == [.noPath] && answerer.failures == [.noPath])
    }

    @Test func aBrokenConnectionIsOpenedAgain() {
        let network = Network(seed: 4)
        let (offerer, answerer) = hosts(network, udp: false)
        network.introduce(offerer, answerer)
        network.run(for: .seconds(2))
        let old = answerer.agent.selectedPath
        #expect(old?.transport == .tcp)
        network.breakStreams(of: offerer)
        #expect(offerer.events.contains(.suspected))
        network.run(for: .seconds(3))
        #expect(offerer.agent.selectedPath?.transport == .tcp && offerer.failures.isEmpty)
        #expect(answerer.agent.selectedPath?.remote != old?.remote && answerer.failures.isEmpty)
        network.stream(by: [offerer, answerer], for: .seconds(40))
        #expect(offerer.failures.isEmpty && answerer.failures.isEmpty)
        #expect(answerer.agent.pairCount <= 2)
    }

    @Test func aBrokenConnectionGivesWayToAnotherPathAtOnce() {
        let network = Network(seed: 5)
        let (offerer, answerer) = hosts(network)
        network.filter = { $0.transport == .tcp }
        network.introduce(offerer, answerer)
        network.run(for: .seconds(2))
        #expect(offerer.agent.selectedPath?.transport == .tcp)
        network.filter = { _ in true }
        // UDP is found working, and is more direct.
        network.run(for: .seconds(60))
        #expect(offerer.agent.selectedPath?.transport == .udp && offerer.agent.selectionReason == .better)
        network.breakStreams(of: offerer)
        network.run(for: .seconds(60))
        #expect(offerer.agent.selectedPath?.transport == .udp && answerer.agent.selectedPath?.transport == .udp)
        #expect(offerer.failures.isEmpty && answerer.failures.isEmpty && answerer.agent.pairCount <= 3)
    }
}

/// Many candidates, dead families, and what else a description may bring.
@Suite struct CheckLists {
    /// RFC 8421: one family that is dead costs the other one interval, however many addresses it has.
    @Test func familiesTakeTurns() {
        let network = Network(seed: 1)
        let six = (1...8).map { address("2001:db8::\($0)", 1000) }
        let offerer = network.agent(.controlling, on: six + [a4])
        let answerer = network.agent(.controlled, on: (1...8).map { address("2001:db8:2::\($0)", 2000) } + [b4])
        network.filter = { $0.to.ip.isIPv4 }
        let start = network.now
        network.introduce(offerer, answerer)
        network.run(for: .seconds(2)) { !offerer.verified.isEmpty && !answerer.verified.isEmpty }
        // One interval, and a round trip for the answer.
        #expect(network.now - start <= .milliseconds(20 + 20))
        #expect(offerer.verified.first?.local == a4)
    }

    @Test func thousandsOfCandidatesAreCounted() {
        let network = Network(seed: 2)
        let offerer = network.agent(.controlling, on: [a4, a6])
        offerer.agent.addLocalCandidate(Candidate.host([a4], .active)[0], now: network.now)
        let stranger = network.agent(.controlled, on: [b4])
        network.describe(stranger, to: offerer, false)
        for index in 0..<20_000 {
            offerer.agent.addRemoteCandidate(
                Candidate(
                    kind: .host, address: address(index % 2 == 0 ? "198.51.100.9" : "2001:db8::9", UInt16(1 + index)),
                    priority: UInt32(index + 1), foundation: "\(index)",
                    tcpType: index % 5 == 0 ? .passive : nil))
        }
        #expect(offerer.agent.statistics.candidatesRefused == 20_000 - 32 && offerer.agent.pairCount <= 64)
        // Active ones are never sent to, so they cost nothing.
        for _ in 0..<100 {
            offerer.agent.addRemoteCandidate(Candidate.host([b4], .active)[0])
        }
        #expect(offerer.agent.statistics.candidatesRefused == 20_000 - 32)
        for index in 0..<1000 {
            offerer.agent.addLocalCandidate(
                Candidate(kind: .host, address: address("192.0.2.1", UInt16(3000 + index)), priority: 1),
                now: network.now)
        }
        #expect(offerer.agent.localCandidates.count == 32 && offerer.agent.pairCount <= 100)
        network.flush(offerer)
        network.run(for: .seconds(60))
        #expect(network.sent <= 100 * 7)
    }

    /// A host candidate and its reflexive address share a base: one pair (RFC 8445 section 6.1.2.4).
    @Test func pairsAreMadeOfBases() {
        let network = Network(seed: 3)
        let offerer = network.host(.controlling, .fullCone, inside: address("10.0.0.1", 1000), outside: "203.0.113.1")
        let answerer = network.agent(.controlled, on: [b4])
        network.describe(answerer, to: offerer)
        #expect(offerer.agent.localCandidates.count == 2 && offerer.agent.pairCount == 1)
    }

    /// A translator that forgets, as after a reboot, while data flows: its new address is learned from a check.
    @Test(arguments: [NAT.Kind.fullCone, .portRestricted, .symmetric])
    func aTranslatorThatForgetsIsFollowed(kind: NAT.Kind) {
        for seed in 0..<20 as Range<UInt64> {
            let network = Network(seed: seed)
            network.delay = 5...20
            let offerer = network.host(.controlling, kind, inside: address("10.0.0.1", 1000), outside: "203.0.113.1")
            let answerer = network.agent(.controlled, on: [b4])
            network.introduce(offerer, answerer)
            network.stream(by: [offerer], for: .seconds(3))
            offerer.nat?.renew("203.0.113.9")
            let start = network.now
            network.stream(by: [offerer], for: .seconds(3)) {
                answerer.agent.selectedPath?.remote.ip == IPAddress("203.0.113.9")
            }
            #expect(network.now - start <= .milliseconds(600), "seed \(seed)")
            network.stream(by: [offerer, answerer], for: .seconds(3))
            #expect(offerer.failures.isEmpty && answerer.failures.isEmpty, "seed \(seed)")
            #expect(!offerer.events.contains(.disconnected) && !answerer.events.contains(.disconnected))
        }
    }

    @Test func timersMayBeChanged() {
        let network = Network(seed: 4)
        let offerer = network.agent(.controlling, on: [a4, a6])
        let answerer = network.agent(.controlled, on: [b4, b6])
        network.introduce(offerer, answerer)
        network.run(for: .seconds(2))
        var timers = Agent.Timers()
        timers.standbyInterval = .milliseconds(100)
        timers.heartbeat = .milliseconds(500)
        offerer.agent.setTimers(timers)
        let (consent, warm) = (
            offerer.agent.statistics.consentChecksSent, offerer.agent.statistics.standbyChecksSent
        )
        network.run(for: .seconds(20))
        #expect(offerer.agent.statistics.standbyChecksSent - warm > 150)
        #expect(offerer.agent.statistics.consentChecksSent - consent > 30)
        timers.standbyInterval = nil
        timers.heartbeat = nil
        offerer.agent.setTimers(timers)
        network.run(for: .seconds(1))
        let after = offerer.agent.statistics.standbyChecksSent
        network.run(for: .seconds(20))
        #expect(offerer.agent.statistics.standbyChecksSent == after && offerer.agent.standbyPath == nil)
    }

    /// Who still uses the credentials of before the restart is answered, for a while.
    @Test func theOldCredentialsAreAnsweredForAMoment() {
        let network = Network(seed: 5)
        let offerer = network.agent(.controlling, on: [a4])
        let answerer = network.agent(.controlled, on: [b4])
        network.introduce(offerer, answerer)
        network.run(for: .seconds(1))
        let (old, sender) = (answerer.agent.credentials, offerer.agent.credentials.ufrag)
        for host in [offerer, answerer] {
            host.agent.restart(Credentials(using: &network.random), now: network.now)
        }
        network.introduce(offerer, answerer)
        network.run(for: .seconds(1))
        #expect(!answerer.agent.isRestarting)
        func ask(_ id: UInt64) -> Disposition {
            let check = Checks.make(for: old, from: sender, id: id, nominates: true)
            return answerer.agent.handle(Datagram(from: address("203.0.113.5", 5), to: b4, bytes: check), network.now)
        }
        #expect(ask(1) == .consumed && answerer.agent.pairCount == 1)
        let answers = answerer.agent.drain(network.now)
        #expect(answers.count == 1 && Checks.isAuthentic(answers[0].bytes, old.password))
        network.run(for: .seconds(31))
        #expect(ask(2) == .ignored(.otherUfrag))
    }
}
