import Testing
import Wire

@testable import ICE

/// Paths that die while data flows, one of several.
@Suite struct Failover {
    private func connected(
        _ seed: UInt64, lite: Bool = false, renomination: Bool = false,
        _ adjust: (inout Agent.Configuration) -> Void = { _ in }
    ) -> (Network, Host, Host) {
        let network = Network(seed: seed)
        let offerer = network.agent(.controlling, on: [a4, a6], adjust)
        let answerer = network.agent(.controlled, lite: lite, on: [b4, b6], adjust)
        network.introduce(offerer, answerer, renomination: renomination)
        network.run(for: .seconds(1))
        return (network, offerer, answerer)
    }

    private func interruption(_ host: Host, since: Instant) -> Duration {
        zip(host.arrivals, host.arrivals.dropFirst()).filter { $1 > since }.map { $1 - $0 }.max() ?? .forever
    }

    @Test func aSecondPathIsKeptWarm() {
        let (network, offerer, answerer) = connected(1)
        #expect(offerer.agent.standbyPath == Path(local: a4, remote: b4))
        #expect(answerer.agent.standbyPath == Path(local: b4, remote: a4))
        var times: [Instant] = []
        network.filter = { datagram in
            if datagram.from == a4, Checks.isRequest(datagram.bytes) {
                times.append(network.now)
                #expect(!Checks.nominates(datagram.bytes))
            }
            return true
        }
        network.run(for: .seconds(60))
        #expect(times.count >= 23 && times.count <= 25 && offerer.agent.statistics.standbyChecksSent >= 23)
        // Both stay on the better one.
        #expect(offerer.selected.count == 1 && answerer.selected.count == 1)
    }

    @Test func withoutAnIntervalThereIsNoSecondPath() {
        let (network, offerer, _) = connected(2) { $0.standbyInterval = nil }
        var count = 0
        network.filter = { datagram in
            if datagram.to.ip.isIPv4 { count += 1 }
            return true
        }
        network.run(for: .seconds(60))
        #expect(count == 0 && offerer.agent.statistics.standbyChecksSent == 0)
    }

    /// The target: 200 ms at a round trip of 20 ms.
    @Test(arguments: [true, false], [true, false])
    func aDeadPathInterruptsForAMoment(sendsOfferer: Bool, renomination: Bool) {
        let (network, offerer, answerer) = connected(3, renomination: renomination)
        let (sender, receiver) = sendsOfferer ? (offerer, answerer) : (answerer, offerer)
        network.stream(by: [sender], for: .seconds(5))
        network.filter = { $0.to.ip.isIPv4 }
        let start = network.now
        network.stream(by: [sender], for: .seconds(5))
        #expect(interruption(receiver, since: start) <= .milliseconds(240))
        #expect(offerer.agent.selectedPath == Path(local: a4, remote: b4))
        #expect(answerer.agent.selectedPath == Path(local: b4, remote: a4))
        #expect(sender.events.contains(.suspected) && sender.agent.statistics.failovers == 1)
        #expect(sender.agent.selectionReason == .failover && !sender.events.contains(.disconnected))
        #expect(offerer.selected.count == 2 && answerer.selected.count == 2)
    }

    @Test(arguments: [true, false])
    func oneDirectionThatDiesIsEnough(towardsAnswerer: Bool) {
        for seed in 0..<20 as Range<UInt64> {
            let (network, offerer, answerer) = connected(seed)
            network.stream(by: [offerer, answerer], for: .seconds(1))
            network.filter = { $0.to.ip.isIPv4 || $0.to == (towardsAnswerer ? a6 : b6) }
            network.stream(by: [offerer, answerer], for: .seconds(5))
            #expect(offerer.agent.selectedPath == Path(local: a4, remote: b4), "seed \(seed)")
            #expect(answerer.agent.selectedPath == Path(local: b4, remote: a4), "seed \(seed)")
        }
    }

    @Test func aLitePeerIsLedToTheSecondPath() {
        let (network, offerer, answerer) = connected(4, lite: true)
        network.stream(by: [offerer], for: .seconds(2))
        network.filter = { $0.to.ip.isIPv4 }
        let start = network.now
        network.stream(by: [offerer], for: .seconds(2))
        #expect(interruption(answerer, since: start) <= .milliseconds(240))
        #expect(answerer.agent.selectedPath == Path(local: b4, remote: a4))
    }

    /// A pause of the path is not its end.
    @Test func aPathThatAnswersIsTrusted() {
        let (network, offerer, answerer) = connected(5)
        network.stream(by: [offerer], for: .seconds(1))
        // Data is lost, checks are not.
        network.filter = { $0.bytes.first != 0xD1 }
        network.stream(by: [offerer], for: .milliseconds(300))
        network.filter = { _ in true }
        network.stream(by: [offerer], for: .seconds(1))
        #expect(offerer.events.suffix(2).first == .suspected && offerer.events.last == .trusted)
        #expect(offerer.selected.count == 1 && answerer.selected.count == 1)
        #expect(offerer.agent.statistics.suspicions >= 1 && offerer.agent.statistics.failovers == 0)
    }

    /// The other path is quicker to answer; the one in use still has its round trip.
    @Test func aSlowPathIsNotLeftForAQuickOne() {
        let network = Network(seed: 14)
        network.slowPath = ({ $0.to.ip.isIPv6 }, 60...60)
        let offerer = network.agent(.controlling, on: [a4, a6]) { $0.settleTime = .seconds(1) }
        let answerer = network.agent(.controlled, on: [b4, b6])
        network.introduce(offerer, answerer)
        network.run(for: .seconds(10))
        network.stream(by: [offerer], for: .seconds(3))
        #expect(offerer.agent.selectedPath?.local == a6 && offerer.selected.count == 1)
        network.filter = { $0.bytes.first != 0xD1 }
        network.stream(by: [offerer], for: .milliseconds(600))
        network.filter = { _ in true }
        network.stream(by: [offerer], for: .seconds(1))
        #expect(offerer.agent.statistics.suspicions > 0 && offerer.agent.statistics.failovers == 0)
        #expect(offerer.selected.count == 1 && answerer.selected.count == 1)
    }

    /// SCTP acknowledges one packet after up to 200 ms: a reason to ask, not to worry the host.
    @Test func singlePacketsAreNoReasonForSuspicion() {
        let (network, offerer, _) = connected(6)
        let before = offerer.agent.statistics.consentChecksSent
        for _ in 0..<20 {
            offerer.agent.noteSent(now: network.now)
            network.run(for: .milliseconds(200))
            offerer.agent.noteTraffic(Path(local: a6, remote: b6), now: network.now)
            network.run(for: .milliseconds(800))
        }
        offerer.collect()
        #expect(!offerer.events.contains(.suspected))
        #expect(offerer.agent.statistics.consentChecksSent - before <= 32)
    }

    @Test func aSinglePacketFindsOutToo() {
        let (network, offerer, answerer) = connected(7)
        network.filter = { $0.to.ip.isIPv4 }
        let start = network.now
        network.sendData(by: offerer)
        network.run(for: .seconds(2)) { offerer.agent.selectedPath?.local == a4 }
        #expect(network.now - start < .milliseconds(400))
        network.run(for: .seconds(2)) { answerer.agent.selectedPath?.local == b4 }
        #expect(answerer.agent.selectedPath?.local == b4)
    }

    @Test func idlePathsAreAskedByHeartbeat() {
        let (network, offerer, answerer) = connected(8) { $0.heartbeat = .seconds(1) }
        network.run(for: .seconds(10))
        network.filter = { $0.to.ip.isIPv4 }
        let start = network.now
        network.run(for: .seconds(10)) {
            offerer.agent.selectedPath?.local == a4 && answerer.agent.selectedPath?.local == b4
        }
        #expect(network.now - start < .seconds(2) && !offerer.events.contains(.disconnected))
    }

    @Test(arguments: [Duration.milliseconds(20), .milliseconds(100), .milliseconds(600)])
    func suspicionTakesTwoRoundTrips(roundTrip: Duration) {
        let network = Network(seed: 9)
        network.delay = (roundTrip / 2).milliseconds...(roundTrip / 2).milliseconds
        let offerer = network.agent(.controlling, on: [a4, a6])
        let answerer = network.agent(.controlled, on: [b4, b6])
        network.introduce(offerer, answerer)
        network.run(for: .seconds(5))
        network.stream(by: [offerer], for: .seconds(5))
        #expect(!offerer.events.contains(.suspected))
        network.filter = { _ in false }
        let start = network.now
        network.stream(by: [offerer], for: .seconds(5)) { offerer.events.contains(.suspected) }
        let limit = max(.milliseconds(150), roundTrip * 2 + .milliseconds(50))
        // What was under way still arrived for a round trip at most.
        #expect(network.now - start >= limit && network.now - start <= limit + roundTrip + .milliseconds(30))
    }

    @Test func aNetworkChangeAsksBothPathsAtOnce() {
        let (network, offerer, _) = connected(10)
        network.run(for: .seconds(2))
        var asked: [SocketAddress] = []
        network.filter = { datagram in
            if Checks.isRequest(datagram.bytes), datagram.from == a4 || datagram.from == a6 {
                asked.append(datagram.from)
            }
            return datagram.to.ip.isIPv4
        }
        offerer.agent.networkChanged(now: network.now)
        network.flush(offerer)
        #expect(Set(asked) == [a4, a6] && asked.count == 2)
        let start = network.now
        network.run(for: .seconds(3)) { offerer.agent.selectedPath?.local == a4 }
        #expect(network.now - start <= .milliseconds(250))
    }

    @Test func anInterfaceThatGoesDownIsLeftAtOnce() {
        let (network, offerer, answerer) = connected(11)
        offerer.agent.removeLocalCandidates(where: { $0.address == a6 }, now: network.now)
        network.flush(offerer)
        #expect(offerer.agent.selectedPath == Path(local: a4, remote: b4))
        #expect(offerer.agent.selectionReason == .failover)
        network.run(for: .seconds(2))
        #expect(answerer.agent.selectedPath == Path(local: b4, remote: a4))
        network.run(for: .seconds(60))
        #expect(offerer.failures.isEmpty && answerer.failures.isEmpty && offerer.agent.pairCount == 1)
        // It comes back: the second path again.
        offerer.agent.addLocalCandidate(Candidate.host([a6])[0], now: network.now)
        network.flush(offerer)
        network.run(for: .seconds(5))
        #expect(offerer.agent.standbyPath == Path(local: a6, remote: b6))
    }

    @Test func theOnlyInterfaceMayGoAndComeBack() {
        let network = Network(seed: 12)
        let offerer = network.agent(.controlling, on: [a4])
        let answerer = network.agent(.controlled, on: [b4])
        network.introduce(offerer, answerer)
        network.run(for: .seconds(2))
        offerer.agent.removeLocalCandidates(where: { _ in true }, now: network.now)
        network.flush(offerer)
        #expect(offerer.events.last == .suspected && offerer.agent.selectedPath != nil)
        network.run(for: .seconds(10))
        #expect(offerer.events.last == .disconnected)
        let other = address("192.0.2.77", 1000)
        offerer.agent.addLocalCandidate(Candidate.host([other])[0], now: network.now)
        network.flush(offerer)
        network.run(for: .seconds(3)) { answerer.agent.selectedPath?.remote == other }
        network.run(for: .seconds(1))
        #expect(offerer.agent.selectedPath == Path(local: other, remote: b4))
        #expect(answerer.agent.selectedPath == Path(local: b4, remote: other))
        #expect(offerer.events.contains(.reconnected) && offerer.failures.isEmpty)
    }

    /// A relay was quicker; the direct path is found working later.
    @Test func aMoreDirectPathIsMovedTo() {
        let network = Network(seed: 13)
        let offerer = network.host(
            .controlling, inside: a4, outside: "", relay: address("192.0.2.201", 50_000))
        let answerer = network.host(.controlled, inside: b4, outside: "")
        network.filter = { $0.from.port == 50_000 || $0.to.port == 50_000 }
        network.introduce(offerer, answerer)
        network.run(for: .seconds(2))
        #expect(offerer.agent.selectedPath?.local.port == 50_000)
        network.filter = { _ in true }
        network.run(for: .seconds(60))
        #expect(offerer.agent.selectedPath == Path(local: a4, remote: b4))
        #expect(answerer.agent.selectedPath == Path(local: b4, remote: a4))
        #expect(offerer.agent.selectionReason == .better)
    }

    @Test(arguments: [true, false])
    func everySeedEndsOnAPathThatWorks(renomination: Bool) {
        for seed in 0..<200 as Range<UInt64> {
            let network = Network(seed: seed)
            network.loss = Double.random(in: 0...0.08, using: &network.random)
            network.duplication = Double.random(in: 0...0.1, using: &network.random)
            network.delay = 1...Int64.random(in: 1...60, using: &network.random)
            let offerer = network.host(.controlling, inside: a4, outside: "", relay: address("192.0.2.201", 50_000))
            offerer.agent.addLocalCandidate(Candidate.host([a6])[0], now: network.now)
            let answerer = network.agent(.controlled, on: [b4, b6])
            network.introduce(offerer, answerer, renomination: renomination)
            network.run(for: .seconds(5))
            // Any of the three paths, any of their directions.
            var works: Set<Int> = [0, 1, 2, 3, 4, 5]
            func route(_ from: SocketAddress, _ to: SocketAddress) -> Int {
                if from.port == 50_000 { return 4 }
                if to.port == 50_000 { return 5 }
                return (to.ip.isIPv4 ? 0 : 2) + (to == b4 || to == b6 ? 0 : 1)
            }
            network.filter = { works.contains(route($0.from, $0.to)) }
            for round in 0..<4 {
                works = works.filter { _ in Bool.random(using: &network.random) }
                let whole = Int.random(in: 0..<3, using: &network.random)
                works.formUnion([2 * whole, 2 * whole + 1])
                let senders = [[offerer], [answerer], [offerer, answerer]].randomElement(using: &network.random)!
                func agree() -> Bool {
                    guard let here = offerer.agent.selectedPath, let there = answerer.agent.selectedPath else {
                        return false
                    }
                    return there.local == here.remote && there.remote == here.local
                        && works.contains(route(here.local, here.remote))
                        && works.contains(route(there.local, there.remote))
                }
                #expect(
                    network.stream(by: senders, every: .milliseconds(20), for: .seconds(12), until: agree),
                    "seed \(seed), round \(round), \(works)")
                network.stream(
                    by: senders, every: .milliseconds(20),
                    for: .milliseconds(Int64.random(in: 0...1500, using: &network.random)))
                _ = network.stream(by: senders, every: .milliseconds(20), for: .seconds(6), until: agree)
                #expect(agree(), "seed \(seed), round \(round) afterwards, \(works)")
            }
            #expect(offerer.failures.isEmpty && answerer.failures.isEmpty, "seed \(seed)")
        }
    }
}
