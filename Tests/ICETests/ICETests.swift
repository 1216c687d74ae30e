import Testing
import Wire

@testable import ICE

let a4 = address("192.0.2.1", 1000)
let a6 = address("2001:db8::1", 1000)
let b4 = address("198.51.100.2", 2000)
let b6 = address("2001:db8:2::2", 2000)

@Suite struct Establishing {
    @Test func fullOffererReachesLiteAnswererOverIPv6() {
        let network = Network(seed: 1)
        let offerer = network.agent(.controlling, on: [a4, a6])
        let answerer = network.agent(.controlled, lite: true, on: [b4, b6])
        network.introduce(offerer, answerer)
        network.run(for: .seconds(1))
        #expect(offerer.events == [.verified(Path(local: a6, remote: b6)), .selected(Path(local: a6, remote: b6))])
        #expect(answerer.events == [.verified(Path(local: b6, remote: a6)), .selected(Path(local: b6, remote: a6))])
        #expect(offerer.agent.roundTrip == .milliseconds(20) && answerer.agent.roundTrip == nil)
        #expect(offerer.agent.isNominated && answerer.agent.isNominated)
    }

    @Test func fullAgentsAgreeOnTheBestPair() {
        let network = Network(seed: 2)
        let offerer = network.agent(.controlling, on: [a4, a6])
        let answerer = network.agent(.controlled, on: [b4, b6])
        network.introduce(offerer, answerer)
        network.run(for: .seconds(1))
        #expect(offerer.selected == [Path(local: a6, remote: b6)])
        #expect(answerer.selected == [Path(local: b6, remote: a6)])
        #expect(answerer.verified.count == 1 && answerer.agent.roundTrip == .milliseconds(20))
    }

    /// What a browser does for an answerer on a public address: it offers nothing, and checks.
    @Test(arguments: [true, false])
    func candidatesOfTheOffererAreNotNeeded(lite: Bool) {
        let network = Network(seed: 3)
        let offerer = network.agent(.controlling, on: [a4])
        let answerer = network.agent(.controlled, lite: lite, on: [b4])
        network.describe(offerer, to: answerer, false)
        network.describe(answerer, to: offerer)
        network.run(for: .seconds(1))
        #expect(answerer.selected == [Path(local: b4, remote: a4)] && offerer.selected == [Path(local: a4, remote: b4)])
        #expect(answerer.agent.statistics.peerReflexiveRemote == 1)
    }

    @Test func verifiedOneWayAfterTheFirstCheck() {
        let network = Network(seed: 4)
        let offerer = network.agent(.controlling, on: [a4])
        let answerer = network.agent(.controlled, lite: true, on: [b4])
        network.introduce(offerer, answerer)
        let start = network.now
        network.run(for: .seconds(1)) { !answerer.verified.isEmpty }
        #expect(network.now - start == .milliseconds(10) && answerer.selected.isEmpty)
        #expect(answerer.agent.selectedPath == Path(local: b4, remote: a4) && !answerer.agent.isNominated)
    }

    @Test func localAddressesNeedNotBeKnown() {
        for lite in [true, false] {
            let network = Network(seed: 5)
            let offerer = network.agent(.controlling, on: [a4, a6])
            let answerer = network.agent(.controlled, lite: lite, on: [b4, b6])
            offerer.showsLocalAddress = false
            answerer.showsLocalAddress = false
            network.introduce(offerer, answerer)
            network.run(for: .seconds(1))
            #expect(offerer.selected.map(\.remote) == [b6] && answerer.selected.map(\.remote) == [a6])
        }
    }

    @Test(arguments: [true, false])
    func agentsBehindTranslatorsFindTheirPublicAddresses(lite: Bool) {
        let network = Network(seed: 6)
        let (publicA, publicB) = (address("203.0.113.1", 61000), address("203.0.113.2", 62000))
        let offerer = network.agent(.controlling, on: [address("10.0.0.1", 1000)])
        let answerer = network.agent(.controlled, lite: lite, on: [address("192.168.1.1", 2000)])
        offerer.mapping = [address("10.0.0.1", 1000): publicA]
        answerer.mapping = [address("192.168.1.1", 2000): publicB]
        network.introduce(offerer, answerer)
        offerer.agent.addRemoteCandidate(
            Candidate(kind: .serverReflexive, address: publicB, priority: 1, foundation: "s"))
        network.flush(offerer)
        network.run(for: .seconds(2))
        #expect(offerer.selected.map(\.remote) == [publicB] && answerer.selected.map(\.remote) == [publicA])
        #expect(offerer.agent.reflexiveAddress == publicA)
        #expect(answerer.agent.reflexiveAddress == (lite ? nil : publicB))
        #expect(answerer.agent.statistics.peerReflexiveRemote == 1 && offerer.agent.statistics.peerReflexiveLocal == 1)
    }

    @Test(arguments: [true, false])
    func checksBeforeTheDescriptionAreAnswered(lite: Bool) {
        let network = Network(seed: 7)
        let offerer = network.agent(.controlled, on: [a4])
        let answerer = network.agent(.controlling, lite: false, on: [b4])
        // The answerer has the offer and checks; its answer is still on its way.
        network.describe(offerer, to: answerer)
        network.run(for: .milliseconds(200))
        #expect(offerer.verified == [Path(local: a4, remote: b4)] && answerer.verified == [Path(local: b4, remote: a4)])
        network.describe(answerer, to: offerer, lite)
        network.run(for: .seconds(1))
        #expect(offerer.selected == [Path(local: a4, remote: b4)])
    }

    @Test func trickledCandidatesAreTaken() {
        let network = Network(seed: 8)
        let offerer = network.agent(.controlling, on: [a4, a6])
        let answerer = network.agent(.controlled, lite: true, on: [b4, b6])
        network.describe(offerer, to: answerer, false)
        network.describe(answerer, to: offerer, false)
        network.run(for: .seconds(120))
        #expect(network.sent == 0 && offerer.events.isEmpty && offerer.agent.nextTimeout == nil)
        offerer.agent.addRemoteCandidate(answerer.agent.localCandidates[1])
        network.flush(offerer)
        network.run(for: .seconds(1))
        #expect(offerer.selected == [Path(local: a4, remote: b4)])
    }

    @Test func aDeadBetterPairDelaysLittle() {
        let network = Network(seed: 9)
        let offerer = network.agent(.controlling, on: [a4, a6])
        let answerer = network.agent(.controlled, lite: true, on: [b4, b6])
        network.filter = { $0.to.ip.isIPv4 }
        network.introduce(offerer, answerer)
        let start = network.now
        network.run(for: .seconds(1)) { !answerer.selected.isEmpty }
        // The second check begins one interval later, is answered, settles, and the nomination travels.
        #expect(network.now - start == .milliseconds(20 + 20 + 100 + 10))
        #expect(offerer.agent.selectedPath?.remote == b4)
    }

    @Test func failureTakesPatience() {
        let network = Network(seed: 10)
        let offerer = network.agent(.controlling, on: [a4])
        let answerer = network.agent(.controlled, lite: true, on: [b4])
        network.filter = { _ in false }
        network.introduce(offerer, answerer)
        let start = network.now
        network.run(for: .seconds(60)) { !offerer.failures.isEmpty }
        #expect(offerer.failures == [.noPath] && network.now - start == .milliseconds(39_500))
        // RFC 8489 section 6.2.1: the request is sent Rc times.
        #expect(network.sent == 7)
        network.run(for: .seconds(60))
        #expect(network.sent == 7 && answerer.events.isEmpty && answerer.agent.nextTimeout == nil)
    }

    @Test func aLiteAgentMayBeGivenATimeLimit() {
        let network = Network(seed: 11)
        let answerer = network.agent(.controlled, lite: true, on: [b4]) { $0.establishTimeout = .seconds(15) }
        answerer.agent.start(now: network.now)
        network.run(for: .seconds(14))
        #expect(answerer.failures.isEmpty)
        network.run(for: .seconds(1))
        #expect(answerer.failures == [.timeout])
    }

    @Test func twoLiteAgentsCannotMeet() {
        let network = Network(seed: 12)
        let left = network.agent(.controlling, lite: true, on: [a4])
        let right = network.agent(.controlled, lite: true, on: [b4])
        network.introduce(left, right)
        #expect(left.failures == [.bothLite] && right.failures == [.bothLite])
    }

    @Test(arguments: [Role.controlling, .controlled])
    func roleConflictsAreRepaired(role: Role) {
        for seed in 0..<50 as Range<UInt64> {
            let network = Network(seed: seed)
            let left = network.agent(role, on: [a4, a6])
            let right = network.agent(role, on: [b4, b6])
            network.introduce(left, right)
            network.run(for: .seconds(2))
            #expect(left.agent.role != right.agent.role, "seed \(seed)")
            #expect(left.agent.selectedPath == Path(local: a6, remote: b6), "seed \(seed)")
            #expect(right.agent.selectedPath == Path(local: b6, remote: a6), "seed \(seed)")
        }
    }

    /// RFC 8445 section 7.3.1.1: the larger tie-breaker controls.
    @Test func theLargerTieBreakerControls() {
        for (mine, theirs) in [(1, 2), (2, 1), (7, 6)] as [(UInt64, UInt64)] {
            for role in [Role.controlling, .controlled] {
                let network = Network(seed: mine)
                let left = network.agent(role, on: [a4]) { $0.tieBreaker = mine }
                let right = network.agent(role, on: [b4]) { $0.tieBreaker = theirs }
                network.introduce(left, right)
                network.run(for: .seconds(2))
                #expect(left.agent.role == (mine > theirs ? .controlling : .controlled))
                #expect(right.agent.role == (mine > theirs ? .controlled : .controlling))
                #expect(left.agent.isNominated && right.agent.isNominated)
            }
        }
    }

    @Test func aFullAgentControlsALiteOne() {
        let network = Network(seed: 13)
        let left = network.agent(.controlled, on: [a4])
        let right = network.agent(.controlling, lite: true, on: [b4])
        network.introduce(left, right)
        network.run(for: .seconds(1))
        #expect(left.agent.role == .controlling && right.agent.role == .controlled && right.agent.isNominated)
    }

    @Test func lostNominationsAreRepeated() {
        let network = Network(seed: 14)
        let offerer = network.agent(.controlling, on: [a4])
        let answerer = network.agent(.controlled, lite: true, on: [b4])
        var nominations = 0
        network.filter = { datagram in
            guard Checks.nominates(datagram.bytes) else { return true }
            nominations += 1
            return nominations > 3
        }
        network.introduce(offerer, answerer)
        network.run(for: .seconds(5))
        #expect(offerer.selected.count == 1 && answerer.selected.count == 1 && nominations >= 4)
        #expect(offerer.agent.statistics.checksRetransmitted == 3)
    }

    @Test func limitsHold() {
        let network = Network(seed: 15)
        let offerer = network.agent(.controlling, on: [a4, a6])
        let stranger = network.agent(.controlled, on: [b4])
        network.describe(stranger, to: offerer, false)
        for index in 0..<1000 {
            offerer.agent.addRemoteCandidate(
                Candidate(
                    kind: .host, address: address("198.51.100.9", UInt16(index)), priority: UInt32(index + 1),
                    foundation: "\(index)"))
        }
        // Port 0, and all beyond the limit.
        #expect(offerer.agent.statistics.candidatesRefused == 1000 - 32)
        for candidate in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "ff02::1", "::"] {
            offerer.agent.addRemoteCandidate(Candidate(kind: .host, address: address(candidate, 9), priority: 1))
        }
        #expect(offerer.agent.statistics.candidatesRefused == 1000 - 32 + 5)
        network.flush(offerer)
        network.run(for: .seconds(60))
        // 32 pairs, each checked seven times.
        #expect(network.sent == 32 * 7)
    }

    /// RFC 8445 section 6.1.4.2: one pair of a foundation at a time, until one works.
    @Test func pairsOfOneFoundationWaitForEachOther() {
        let network = Network(seed: 17)
        let offerer = network.agent(.controlling, on: [a4]) { $0.checkInterval = .milliseconds(50) }
        let answerer = network.agent(.controlled, on: [b4])
        var tried: [UInt16] = []
        network.filter = { datagram in
            if Checks.isRequest(datagram.bytes), datagram.from == a4, tried.last != datagram.to.port {
                tried.append(datagram.to.port)
            }
            return datagram.to.port != 1
        }
        network.describe(answerer, to: offerer, false)
        for (port, priority) in [(1, 30), (2000, 20), (3, 10)] as [(UInt16, UInt32)] {
            offerer.agent.addRemoteCandidate(
                Candidate(kind: .host, address: address("198.51.100.2", port), priority: priority))
        }
        network.flush(offerer)
        network.run(for: .seconds(2))
        #expect(tried == [1])
        network.run(for: .seconds(20)) { !offerer.selected.isEmpty }
        #expect(tried == [1, 2000] && offerer.selected == [Path(local: a4, remote: b4)])
    }

    @Test func checksArePaced() {
        let network = Network(seed: 16)
        let offerer = network.agent(.controlling, on: [a4]) { $0.retransmission = .seconds(10) }
        let answerer = network.agent(.controlled, on: [b4])
        var times: [Instant] = []
        network.filter = { _ in
            times.append(network.now)
            return false
        }
        network.describe(answerer, to: offerer, false)
        for port in 1...10 as ClosedRange<UInt16> {
            offerer.agent.addRemoteCandidate(
                Candidate(kind: .host, address: address("198.51.100.9", port), priority: 1, foundation: "\(port)"))
        }
        network.flush(offerer)
        network.run(for: .seconds(1))
        #expect(times.count == 10)
        #expect(zip(times, times.dropFirst()).allSatisfy { $1 - $0 == .milliseconds(20) })
    }
}
