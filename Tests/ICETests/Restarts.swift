import Testing
import Wire

@testable import ICE

/// New generations while the old one carries data.
@Suite struct Restarts {
    private func connected(_ seed: UInt64, lite: Bool = false, on: [SocketAddress] = [a4]) -> (Network, Host, Host) {
        let network = Network(seed: seed)
        let offerer = network.agent(.controlling, on: on)
        let answerer = network.agent(.controlled, lite: lite, on: [b4, b6])
        network.introduce(offerer, answerer)
        network.run(for: .seconds(1))
        return (network, offerer, answerer)
    }

    private func begin(_ host: Host, _ network: Network) {
        host.agent.restart(Credentials(using: &network.random), now: network.now)
    }

    private func restarts(_ host: Host) -> [Path] {
        host.events.compactMap { if case .restarted(let path) = $0 { path } else { nil } }
    }

    private func longestPause(_ host: Host) -> Duration {
        zip(host.arrivals, host.arrivals.dropFirst()).map { $1 - $0 }.max() ?? .forever
    }

    @Test(arguments: [true, false])
    func dataFlowsAllTheWhile(lite: Bool) {
        let (network, offerer, answerer) = connected(1, lite: lite)
        network.stream(by: [offerer], for: .seconds(1))
        begin(offerer, network)
        #expect(offerer.agent.isRestarting && offerer.agent.generationNumber == 1)
        network.stream(by: [offerer], for: .milliseconds(300))
        begin(answerer, network)
        network.introduce(offerer, answerer)
        network.stream(by: [offerer], for: .seconds(2))
        #expect(restarts(offerer) == [Path(local: a4, remote: b4)] && restarts(answerer).count == 1)
        #expect(!offerer.agent.isRestarting && !answerer.agent.isRestarting)
        #expect(offerer.agent.selectionReason == .restarted)
        #expect(longestPause(answerer) == .milliseconds(10))
        #expect(!offerer.events.contains(.suspected) && !answerer.events.contains(.disconnected))
        #expect(offerer.failures.isEmpty && answerer.failures.isEmpty)
    }

    /// The answer never comes, or nothing of the new generation works.
    @Test(arguments: [true, false])
    func aRestartThatFailsHarmsNothing(described: Bool) {
        let (network, offerer, answerer) = connected(2, on: [a4, a6])
        network.stream(by: [offerer, answerer], for: .seconds(1))
        begin(offerer, network)
        if described {
            offerer.agent.setRemote(Credentials(using: &network.random), isLite: false)
            offerer.agent.addRemoteCandidate(Candidate(kind: .host, address: address("198.51.100.99", 1), priority: 1))
            offerer.agent.remoteCandidatesComplete()
        }
        network.stream(by: [offerer, answerer], for: .seconds(50))
        #expect(offerer.failures.isEmpty && offerer.agent.isRestarting)
        offerer.agent.abandonRestart(now: network.now)
        #expect(!offerer.agent.isRestarting && offerer.agent.generationNumber == 0)
        network.stream(by: [offerer, answerer], for: .seconds(50))
        for host in [offerer, answerer] {
            #expect(host.failures.isEmpty && host.selected.count == 1 && longestPause(host) == .milliseconds(10))
            #expect(!host.events.contains(.disconnected) && !host.events.contains(.suspected))
            #expect(host.agent.selectedPath?.local.ip.isIPv4 == false)
        }
        // And the second path is there as before.
        network.filter = { $0.to.ip.isIPv4 }
        network.stream(by: [offerer, answerer], for: .seconds(3))
        #expect(offerer.agent.selectedPath?.local == a4 && answerer.agent.selectedPath?.local == b4)
    }

    /// The path in use dies while the restart is under way: its own second path takes over.
    @Test func theOldGenerationMayStillFailOver() {
        let (network, offerer, answerer) = connected(3, on: [a4, a6])
        network.stream(by: [offerer, answerer], for: .seconds(1))
        begin(offerer, network)
        network.filter = { $0.to.ip.isIPv4 }
        network.stream(by: [offerer, answerer], for: .seconds(5))
        #expect(offerer.agent.selectedPath?.local == a4 && answerer.agent.selectedPath?.local == b4)
        #expect(offerer.agent.isRestarting && restarts(offerer).isEmpty)
        begin(answerer, network)
        network.introduce(offerer, answerer)
        network.stream(by: [offerer, answerer], for: .seconds(3))
        #expect(restarts(offerer).count == 1 && restarts(answerer).count == 1)
    }

    /// The address changed; the old path is dead for good.
    @Test func aRestartFindsTheNewAddress() {
        let (network, offerer, answerer) = connected(4)
        network.stream(by: [offerer, answerer], for: .seconds(1))
        let other = address("192.0.2.77", 1000)
        offerer.agent.removeLocalCandidates(where: { _ in true }, now: network.now)
        offerer.agent.restart(
            Credentials(using: &network.random), localCandidates: Candidate.host([other]), now: network.now)
        network.run(for: .milliseconds(20))
        begin(answerer, network)
        network.introduce(offerer, answerer)
        network.stream(by: [offerer, answerer], for: .seconds(2))
        #expect(restarts(offerer) == [Path(local: other, remote: b4)])
        #expect(restarts(answerer) == [Path(local: b4, remote: other)])
        // Three round trips after the answer.
        #expect(longestPause(answerer) <= .milliseconds(20 + 60 + 30))
    }

    /// Consent for the old path runs out in the middle of a restart, which goes on.
    @Test func aLongOutageEndsWithARestart() {
        let (network, offerer, answerer) = connected(5)
        network.filter = { _ in false }
        network.run(for: .seconds(20))
        begin(offerer, network)
        begin(answerer, network)
        network.introduce(offerer, answerer)
        network.run(for: .seconds(35))
        // RFC 7675 section 5.1: nothing more on the old path; and no failure, for the new generation has patience.
        #expect(offerer.failures.isEmpty && answerer.failures.isEmpty && offerer.agent.selectedPath == nil)
        network.filter = { _ in true }
        begin(offerer, network)
        begin(answerer, network)
        network.introduce(offerer, answerer)
        network.run(for: .seconds(2))
        #expect(restarts(offerer).count == 1 && restarts(answerer).count == 1)
        #expect(offerer.events.contains(.reconnected))
    }

    @Test func withoutAPathToGoBackToAbandoningFails() {
        let (network, offerer, _) = connected(6)
        network.filter = { _ in false }
        network.run(for: .seconds(20))
        begin(offerer, network)
        network.run(for: .seconds(20))
        #expect(offerer.failures.isEmpty && offerer.agent.selectedPath == nil)
        offerer.agent.abandonRestart(now: network.now)
        offerer.collect()
        #expect(offerer.failures == [.consentExpired])
    }

    @Test func candidatesOfOtherDescriptionsAreTold() {
        let (network, offerer, answerer) = connected(7)
        let old = answerer.agent.credentials.ufrag
        begin(offerer, network)
        begin(answerer, network)
        let new = answerer.agent.credentials.ufrag
        let candidate = Candidate(kind: .host, address: b4, priority: 5)
        // The next description's candidates overtake it; the last one's are late.
        offerer.agent.addRemoteCandidate(candidate, ufrag: new)
        offerer.agent.addRemoteCandidate(Candidate(kind: .host, address: b6, priority: 6), ufrag: old)
        #expect(offerer.agent.statistics.candidatesStale == 1)
        network.describe(offerer, to: answerer)
        network.describe(answerer, to: offerer, false)
        network.run(for: .seconds(1))
        #expect(restarts(offerer) == [Path(local: a4, remote: b4)])
        offerer.agent.addRemoteCandidate(candidate, ufrag: old)
        #expect(offerer.agent.statistics.candidatesStale == 2)
        for index in 0..<100 {
            offerer.agent.addRemoteCandidate(candidate, ufrag: "unknown\(index)")
        }
        #expect(offerer.agent.statistics.candidatesRefused == 100 - 32)
    }

    /// A check list that is full of what the old generation has not tried leaves room for the new one.
    @Test func aFullCheckListHindersNoRestart() {
        let (network, offerer, answerer) = connected(8)
        for index in 0..<200 {
            offerer.agent.addLocalCandidate(
                Candidate(kind: .host, address: address("192.0.2.9", UInt16(3000 + index)), priority: 1),
                now: network.now)
            offerer.agent.addRemoteCandidate(
                Candidate(
                    kind: .host, address: address("198.51.100.9", UInt16(3000 + index)), priority: 1,
                    foundation: "\(index)"))
        }
        #expect(offerer.agent.pairCount == 100)
        begin(offerer, network)
        begin(answerer, network)
        network.introduce(offerer, answerer)
        network.run(for: .seconds(2))
        #expect(restarts(offerer) == [Path(local: a4, remote: b4)] && restarts(answerer).count == 1)
    }

    /// Each side restarts when it likes; descriptions arrive late, networks lose, and paths change.
    @Test func everySeedSurvivesItsRestarts() {
        for seed in 0..<200 as Range<UInt64> {
            let network = Network(seed: seed)
            network.loss = Double.random(in: 0...0.1, using: &network.random)
            network.duplication = Double.random(in: 0...0.1, using: &network.random)
            network.delay = 1...Int64.random(in: 1...60, using: &network.random)
            let offerer = network.agent(.controlling, on: [a4, a6])
            let answerer = network.agent(.controlled, on: [b4, b6])
            network.introduce(offerer, answerer)
            network.stream(by: [offerer, answerer], every: .milliseconds(50), for: .seconds(5))
            for _ in 0..<4 {
                let (one, other) = Bool.random(using: &network.random) ? (offerer, answerer) : (answerer, offerer)
                let moves = Bool.random(using: &network.random)
                if moves {
                    let ip = "203.0.113.\(Int.random(in: 1...250, using: &network.random))"
                    offerer.mapping = [a4: address(ip, 1000)]
                }
                begin(one, network)
                if Bool.random(using: &network.random) { begin(one, network) }
                // Both at once.
                let atOnce = Int.random(in: 0..<3, using: &network.random) == 0
                if atOnce { begin(other, network) }
                network.stream(
                    by: [offerer, answerer], every: .milliseconds(50),
                    for: .milliseconds(Int64.random(in: 0...1000, using: &network.random)))
                if Int.random(in: 0..<3, using: &network.random) == 0 {
                    for host in atOnce ? [one, other] : [one] {
                        host.agent.abandonRestart(now: network.now)
                        network.flush(host)
                    }
                } else {
                    begin(other, network)
                    network.describe(one, to: other)
                    network.run(for: .milliseconds(Int64.random(in: 0...300, using: &network.random)))
                    network.describe(other, to: one)
                }
                network.stream(by: [offerer, answerer], every: .milliseconds(50), for: .seconds(1))
                let isDone = network.stream(by: [offerer, answerer], every: .milliseconds(50), for: .seconds(12)) {
                    !offerer.agent.isRestarting && !answerer.agent.isRestarting
                }
                #expect(isDone, "seed \(seed)")
            }
            func agree() -> Bool {
                guard let here = offerer.agent.selectedPath, let there = answerer.agent.selectedPath else {
                    return false
                }
                return there.local == here.remote && there.remote == offerer.mapping[here.local] ?? here.local
            }
            let agreed = network.stream(
                by: [offerer, answerer], every: .milliseconds(50), for: .seconds(20), until: agree)
            #expect(agreed, "seed \(seed)")
            #expect(offerer.failures.isEmpty && answerer.failures.isEmpty, "seed \(seed)")
            #expect(!offerer.agent.isRestarting && !answerer.agent.isRestarting, "seed \(seed)")
            #expect(
                restarts(offerer).count == restarts(answerer).count,
                "seed \(seed): \(restarts(offerer).count), \(restarts(answerer).count)")
            #expect(offerer.agent.pairCount <= 8 && answerer.agent.pairCount <= 8, "seed \(seed)")
        }
    }
}

/// The numbers of nominations (draft-thatcher-ice-renomination).
@Suite struct Renomination {
    private func answerer(_ renomination: Bool) -> (Network, Host) {
        let network = Network(seed: 1)
        let host = network.agent(.controlled, on: [b4, b6])
        host.agent.setRemote(
            Credentials(ufrag: "peer", password: String(repeating: "p", count: 22))!, isLite: false,
            renomination: renomination)
        host.agent.start(now: network.now)
        return (network, host)
    }

    /// Makes the pairs over both families valid, as the other side's answers to our checks do.
    private func validate(_ host: Host, _ network: Network) {
        for (id, from) in [a6, a4].enumerated() {
            let check = Checks.make(for: host.agent.credentials, id: UInt64(900 + id))
            _ = host.agent.handle(Datagram(from: from, to: from == a6 ? b6 : b4, bytes: check), network.now)
        }
        for check in host.agent.drain(network.now) where Checks.isRequest(check.bytes) {
            let response = Checks.answer(check.bytes, mapped: check.from, password: String(repeating: "p", count: 22))
            _ = host.agent.handle(Datagram(from: check.to, to: check.from, bytes: response), network.now)
        }
    }

    private func nominate(_ host: Host, _ network: Network, _ id: UInt64, _ from: SocketAddress, _ number: UInt8?) {
        let check = Checks.make(
            for: host.agent.credentials, id: id, nominates: true,
            extra: number.map { [(0xC001, [0, 0, 0, $0])] } ?? [])
        _ = host.agent.handle(Datagram(from: from, to: from == a6 ? b6 : b4, bytes: check), network.now)
        _ = host.agent.drain(network.now)
    }

    @Test func theHighestNumberCounts() {
        let (network, host) = answerer(true)
        validate(host, network)
        nominate(host, network, 1, a6, 1)
        #expect(host.agent.selectedPath?.remote == a6)
        // A worse pair, at once, while the other one is not silent.
        nominate(host, network, 2, a4, 2)
        #expect(host.agent.selectedPath?.remote == a4)
        // Late or repeated ones change nothing.
        nominate(host, network, 3, a6, 1)
        network.run(for: .seconds(1))
        #expect(host.agent.selectedPath?.remote == a4)
        nominate(host, network, 4, a6, 3)
        #expect(host.agent.selectedPath?.remote == a6)
    }

    /// A path that was left because it did not answer is not gone back to because the other side still uses it.
    @Test func aPathThatWasLeftMustAnswerFirst() {
        let (network, host) = answerer(false)
        validate(host, network)
        nominate(host, network, 1, a6, nil)
        #expect(host.agent.selectedPath?.remote == a6)
        let password = String(repeating: "p", count: 22)
        /// Lets time pass, in which only the paths of one family answer.
        func pass(_ span: Duration, isIPv4: Bool?) {
            let end = network.now + span
            while network.now < end {
                network.now = network.now + .milliseconds(10)
                if host.agent.nextTimeout.map({ $0 <= network.now }) ?? false {
                    host.agent.handleTimeout(now: network.now)
                }
                for check in host.agent.drain(network.now)
                where Checks.isRequest(check.bytes) && check.to.ip.isIPv4 == isIPv4 {
                    let response = Checks.answer(check.bytes, mapped: check.from, password: password)
                    _ = host.agent.handle(Datagram(from: check.to, to: check.from, bytes: response), network.now)
                }
            }
        }
        host.agent.noteSent(now: network.now)
        host.agent.noteSent(now: network.now)
        pass(.milliseconds(400), isIPv4: true)
        #expect(host.agent.selectedPath?.remote == a4 && host.agent.selectionReason == .failover)
        // The other side has not noticed.
        nominate(host, network, 2, a6, nil)
        host.agent.noteTraffic(Path(local: b6, remote: a6), now: network.now)
        #expect(host.agent.selectedPath?.remote == a4)
        nominate(host, network, 3, a6, nil)
        pass(.milliseconds(600), isIPv4: false)
        #expect(host.agent.selectedPath?.remote == a6)
    }

    @Test func withoutTheOptionNumbersMeanNothing() {
        let (network, host) = answerer(false)
        validate(host, network)
        nominate(host, network, 1, a6, 1)
        nominate(host, network, 2, a4, 2)
        #expect(host.agent.selectedPath?.remote == a6)
    }

    @Test(arguments: [true, false])
    func checksCarryTheNumberOnlyIfBothWantIt(renomination: Bool) {
        let network = Network(seed: 2)
        let offerer = network.agent(.controlling, on: [a4, a6])
        let answerer = network.agent(.controlled, on: [b4, b6])
        var numbers: [UInt32] = []
        network.filter = { datagram in
            if let number = Checks.nomination(datagram.bytes), numbers.last != number { numbers.append(number) }
            return true
        }
        network.introduce(offerer, answerer, renomination: renomination)
        network.run(for: .seconds(5))
        offerer.agent.removeLocalCandidates(where: { $0.address == a6 }, now: network.now)
        network.flush(offerer)
        network.run(for: .seconds(5))
        #expect(numbers == (renomination ? [1, 2] : []))
        #expect(answerer.agent.selectedPath?.remote == a4)
    }
}
