import Testing
import Wire

@testable import ICE

@Suite struct Liveness {
    private func connected(
        _ seed: UInt64, lite: Bool, _ adjust: (inout Agent.Configuration) -> Void = { _ in }
    ) -> (Network, Host, Host) {
        let network = Network(seed: seed)
        let offerer = network.agent(.controlling, on: [a4], adjust)
        let answerer = network.agent(.controlled, lite: lite, on: [b4], adjust)
        network.introduce(offerer, answerer)
        network.run(for: .seconds(1))
        return (network, offerer, answerer)
    }

    @Test(arguments: [true, false])
    func idlePathsStayConnected(lite: Bool) {
        let (network, offerer, answerer) = connected(1, lite: lite)
        let before = network.sent
        network.run(for: .seconds(600))
        #expect(offerer.events.count == 2 && answerer.events.count == 2)
        // A check and its answer every 2.5 s from one side keep both sides informed.
        #expect(network.sent - before < 600)
        #expect(offerer.agent.statistics.consentChecksSent > 100)
    }

    /// RFC 7675 section 5.1: what else arrives is no consent, so that is still asked for; about every 5 s.
    @Test func trafficLeavesOnlyConsentChecks() {
        let (network, offerer, answerer) = connected(2, lite: true)
        let before = offerer.agent.statistics.consentChecksSent
        for _ in 0..<1000 {
            network.run(for: .milliseconds(100))
            offerer.agent.noteTraffic(Path(local: a4, remote: b4), now: network.now)
        }
        let checks = offerer.agent.statistics.consentChecksSent - before
        #expect(checks >= 100 / 6 && checks <= 100 / 4)
        #expect(answerer.events.count == 2)
    }

    /// RFC 7675 section 5.1: who no longer answers checks has not consented, whatever else comes.
    @Test func trafficIsNoConsent() {
        let (network, offerer, _) = connected(9, lite: false)
        network.filter = { !($0.to == a4 && !Checks.isRequest($0.bytes)) }
        let start = network.now
        while network.now - start < .seconds(40), offerer.failures.isEmpty {
            network.run(for: .milliseconds(100))
            offerer.agent.noteTraffic(Path(local: a4, remote: b4), now: network.now)
            offerer.collect()
        }
        #expect(offerer.failures == [.consentExpired] && !offerer.events.contains(.disconnected))
        #expect(network.now - start >= .seconds(25) && network.now - start <= .seconds(31))
    }

    @Test func consentChecksAreSpreadOverTheirInterval() {
        let (network, offerer, _) = connected(3, lite: true) { $0.disconnectedAfter = .seconds(60) }
        var times: [Instant] = []
        network.filter = { datagram in
            if Checks.isRequest(datagram.bytes) { times.append(network.now) }
            return true
        }
        network.run(for: .seconds(600))
        let intervals = zip(times, times.dropFirst()).map { ($1 - $0).milliseconds }
        #expect(intervals.allSatisfy { $0 >= 4000 && $0 <= 6020 } && intervals.count > 100)
        #expect(intervals.min()! < 4300 && intervals.max()! > 5700 && offerer.failures.isEmpty)
    }

    @Test(arguments: [true, false])
    func silenceIsReportedThenConsentExpires(lite: Bool) {
        let (network, offerer, answerer) = connected(4, lite: lite)
        network.run(for: .seconds(60))
        network.filter = { _ in false }
        let start = network.now
        var disconnected: [Instant] = []
        for host in [offerer, answerer] {
            network.run(for: .seconds(20)) { host.events.contains(.disconnected) }
            disconnected.append(network.now)
        }
        // The last answer came up to 2.5 s before, the last check up to 2.5 s.
        #expect((disconnected[0] - start).milliseconds >= 2000 && disconnected[0] - start <= .seconds(5))
        #expect(disconnected[1] - start <= .seconds(lite ? 8 : 5))
        network.run(for: .seconds(60)) { !offerer.failures.isEmpty && !answerer.failures.isEmpty }
        #expect(offerer.failures == [.consentExpired] && answerer.failures == [.consentExpired])
        #expect(network.now - start <= .seconds(30) && network.now - start >= .seconds(24))
        // RFC 7675 section 5.1: nothing is sent any more.
        let sent = network.sent
        network.run(for: .seconds(60))
        #expect(network.sent == sent && offerer.agent.selectedPath == nil && answerer.agent.nextTimeout == nil)
    }

    @Test(arguments: [true, false])
    func shortOutagesEndWithReconnection(lite: Bool) {
        let (network, offerer, answerer) = connected(5, lite: lite)
        network.filter = { _ in false }
        network.run(for: .seconds(12))
        network.filter = { _ in true }
        network.run(for: .seconds(5))
        #expect(offerer.events.suffix(2) == [.disconnected, .reconnected])
        #expect(answerer.events.suffix(2) == [.disconnected, .reconnected])
        #expect(offerer.agent.selectedPath != nil && offerer.selected.count == 1)
    }

    @Test func trafficKeepsALiteAgentConnected() {
        let (network, offerer, answerer) = connected(6, lite: true)
        network.filter = { _ in false }
        for _ in 0..<60 {
            network.run(for: .seconds(1))
            answerer.agent.noteTraffic(Path(local: b4, remote: a4), now: network.now)
        }
        answerer.agent.noteTraffic(Path(local: b4, remote: address("203.0.113.1", 1)), now: network.now)
        #expect(answerer.events.count == 2 && offerer.failures == [.consentExpired])
    }

    @Test func aProbeAsksAtOnce() {
        let (network, offerer, _) = connected(7, lite: true)
        let before = offerer.agent.statistics.consentChecksSent
        offerer.agent.probe(now: network.now)
        network.flush(offerer)
        #expect(offerer.agent.statistics.consentChecksSent == before + 1)
    }

    /// A clock that jumps ahead, as after a suspended machine, is one more silence.
    @Test func aClockJumpDoesNotLoop() {
        for span in [Duration.seconds(4), .seconds(20), .seconds(1_000_000), .forever] {
            let (network, offerer, answerer) = connected(8, lite: false)
            network.now = network.now + span
            for host in [offerer, answerer] {
                for _ in 0..<100 where host.agent.nextTimeout.map({ $0 <= network.now }) ?? false {
                    host.agent.handleTimeout(now: network.now)
                    network.flush(host)
                }
                if span != .forever {
                    #expect(host.agent.nextTimeout.map { $0 > network.now } ?? true, "\(span.seconds) s")
                }
            }
        }
    }
}

@Suite struct Moving {
    private let moved = address("203.0.113.77", 33333)

    private func connected(_ seed: UInt64, lite: Bool, on addresses: [SocketAddress] = [a4]) -> (Network, Host, Host) {
        let network = Network(seed: seed)
        let offerer = network.agent(.controlling, on: addresses)
        let answerer = network.agent(.controlled, lite: lite, on: [b4, b6])
        network.introduce(offerer, answerer)
        network.run(for: .seconds(1))
        return (network, offerer, answerer)
    }

    private func nomination(from sender: Host, to receiver: Host) -> [UInt8] {
        Checks.make(
            for: receiver.agent.credentials, from: sender.agent.credentials.ufrag, id: 1, priority: 0x6EFF_FEFF,
            nominates: true)
    }

    @Test(arguments: [true, false])
    func aNominatedCheckFromANewAddressMovesThePath(lite: Bool) {
        let (network, offerer, answerer) = connected(1, lite: lite)
        network.run(for: .seconds(2))
        offerer.mapping = [a4: moved]
        offerer.agent.probe(now: network.now)
        network.flush(offerer)
        let start = network.now
        network.run(for: .seconds(5)) { answerer.agent.selectedPath?.remote == moved }
        // The old path had been silent: one way for a Lite agent, one round trip more for a full one.
        #expect(network.now - start == .milliseconds(lite ? 10 : 30))
        network.run(for: .seconds(60))
        #expect(answerer.selected.map(\.remote) == [a4, moved] && answerer.failures.isEmpty)
        #expect(!answerer.events.contains(.disconnected) && offerer.failures.isEmpty)
        #expect(answerer.agent.statistics.pathChanges == 1)
    }

    /// While the old path is in use, a nomination elsewhere that is no better has to be confirmed.
    @Test func aLateCheckDoesNotMoveThePath() {
        let (network, offerer, answerer) = connected(2, lite: true)
        let late = nomination(from: offerer, to: answerer)
        network.run(for: .milliseconds(200))
        answerer.agent.noteTraffic(Path(local: b4, remote: a4), now: network.now)
        _ = answerer.agent.handle(Datagram(from: moved, to: b4, bytes: late), network.now)
        for _ in 0..<20 {
            network.run(for: .milliseconds(100))
            answerer.agent.noteTraffic(Path(local: b4, remote: a4), now: network.now)
            answerer.collect()
        }
        #expect(answerer.agent.selectedPath?.remote == a4 && answerer.selected.count == 1)
        #expect(answerer.agent.pairCount == 2)
    }

    @Test func theOtherSidesDataConfirmsAMove() {
        let (network, offerer, answerer) = connected(3, lite: true)
        let check = nomination(from: offerer, to: answerer)
        answerer.agent.noteTraffic(Path(local: b4, remote: a4), now: network.now)
        _ = answerer.agent.handle(Datagram(from: moved, to: b4, bytes: check), network.now)
        #expect(answerer.agent.selectedPath?.remote == a4)
        answerer.agent.noteTraffic(Path(local: b4, remote: moved), now: network.now)
        #expect(answerer.agent.selectedPath?.remote == moved)
    }

    @Test func silenceConfirmsAMove() {
        let (network, offerer, answerer) = connected(4, lite: true)
        let check = nomination(from: offerer, to: answerer)
        answerer.agent.noteTraffic(Path(local: b4, remote: a4), now: network.now)
        _ = answerer.agent.handle(Datagram(from: moved, to: b4, bytes: check), network.now)
        let start = network.now
        network.run(for: .seconds(1)) { answerer.agent.selectedPath?.remote == moved }
        #expect(network.now - start == .milliseconds(300))
    }

    @Test func aReplayedCheckDoesNotMoveThePath() {
        let (network, offerer, answerer) = connected(5, lite: true)
        var recorded: [Datagram] = []
        network.filter = { datagram in
            if Checks.nominates(datagram.bytes) { recorded.append(datagram) }
            return true
        }
        network.run(for: .seconds(20))
        #expect(recorded.count > 4)
        for datagram in recorded {
            var copy = datagram
            copy.from = moved
            #expect(answerer.agent.handle(copy, network.now) == .ignored(.replayed))
        }
        #expect(answerer.agent.drain(network.now).isEmpty && answerer.agent.selectedPath?.remote == a4)
        // The same from the same address is a retransmission: answered, and nothing else.
        let before = answerer.agent.statistics
        #expect(answerer.agent.handle(recorded[0], network.now) == .consumed)
        #expect(answerer.agent.drain(network.now).count == 1)
        #expect(answerer.agent.statistics.responsesSent == before.responsesSent + 1 && offerer.failures.isEmpty)
    }

    /// RFC 5245's aggressive nomination: every check nominates. The best pair counts, in any order.
    @Test func ofSeveralNominationsTheBestCounts() {
        for order in [[a4, a6], [a6, a4]] {
            let network = Network(seed: 6)
            let answerer = network.agent(.controlled, lite: true, on: [b4, b6])
            answerer.agent.start(now: network.now)
            for (id, remote) in order.enumerated() {
                let priority: UInt32 = remote == a6 ? 0x6EFF_FFFF : 0x6EFF_FEFF
                let check = Checks.make(
                    for: answerer.agent.credentials, id: UInt64(id), priority: priority, nominates: true)
                _ = answerer.agent.handle(
                    Datagram(from: remote, to: remote == a6 ? b6 : b4, bytes: check), network.now)
            }
            #expect(answerer.agent.selectedPath?.remote == a6)
        }
    }

    @Test func whileOnePathIsDeadAnotherIsNominated() {
        let (network, offerer, answerer) = connected(7, lite: true, on: [a4, a6])
        #expect(offerer.agent.selectedPath?.remote == b6)
        network.filter = { $0.to.ip.isIPv4 }
        let start = network.now
        network.run(for: .seconds(20)) { answerer.agent.selectedPath?.remote == a4 }
        #expect(network.now - start < .seconds(5))
        network.run(for: .milliseconds(10))
        #expect(offerer.agent.selectedPath == Path(local: a4, remote: b4) && offerer.failures.isEmpty)
    }

    @Test func learnedAddressesAreBounded() {
        let network = Network(seed: 8)
        for lite in [true, false] {
            let answerer = network.agent(.controlled, lite: lite, on: [b4])
            answerer.agent.setRemote(
                Credentials(ufrag: "peer", password: String(repeating: "p", count: 22))!, isLite: false)
            answerer.agent.start(now: network.now)
            for id in 0..<2000 {
                let check = Checks.make(
                    for: answerer.agent.credentials, from: "peer", id: UInt64(id), nominates: id == 0)
                _ = answerer.agent.handle(
                    Datagram(from: address("203.0.113.1", UInt16(1000 + id)), to: b4, bytes: check), network.now)
                _ = answerer.agent.drain(network.now)
            }
            #expect(answerer.agent.pairCount <= 16)
            if lite { #expect(answerer.agent.selectedPath?.remote.port == 1000) }
        }
    }
}

@Suite struct Restarting {
    @Test(arguments: [true, false])
    func theOldPathServesUntilTheNewOneIsSelected(lite: Bool) {
        let network = Network(seed: 1)
        let offerer = network.agent(.controlling, on: [a4, a6])
        let answerer = network.agent(.controlled, lite: lite, on: [b4, b6])
        network.filter = { $0.to.ip.isIPv4 }
        network.introduce(offerer, answerer)
        network.run(for: .seconds(2))
        #expect(answerer.selected.map(\.remote) == [a4])
        // The offer travels for 40 s, in which the old generation must stay alive on its own.
        offerer.agent.restart(Credentials(using: &network.random), now: network.now)
        network.run(for: .seconds(40))
        #expect(offerer.agent.selectedPath?.remote == b4 && answerer.agent.selectedPath?.remote == a4)
        network.filter = { _ in true }
        answerer.agent.restart(Credentials(using: &network.random), now: network.now)
        network.introduce(offerer, answerer)
        network.run(for: .milliseconds(5))
        #expect(offerer.agent.selectedPath?.remote == b4 && answerer.agent.selectedPath?.remote == a4)
        network.run(for: .seconds(60))
        #expect(offerer.selected.map(\.remote) == [b4, b6] && answerer.selected.map(\.remote) == [a4, a6])
        #expect(offerer.verified.count == 2 && answerer.verified.count == 2)
        #expect(offerer.failures.isEmpty && answerer.failures.isEmpty)
        #expect(!offerer.events.contains(.disconnected) && !answerer.events.contains(.disconnected))
        #expect(offerer.agent.pairCount <= 4 && answerer.agent.pairCount <= 4)
    }

    @Test func aSecondRestartBeforeTheFirstIsDoneHarmsNothing() {
        let network = Network(seed: 2)
        let offerer = network.agent(.controlling, on: [a4])
        let answerer = network.agent(.controlled, lite: true, on: [b4])
        network.introduce(offerer, answerer)
        network.run(for: .seconds(1))
        for _ in 0..<5 { offerer.agent.restart(Credentials(using: &network.random), now: network.now) }
        network.run(for: .seconds(60))
        #expect(offerer.agent.selectedPath?.remote == b4 && offerer.failures.isEmpty && answerer.failures.isEmpty)
        answerer.agent.restart(Credentials(using: &network.random), now: network.now)
        network.introduce(offerer, answerer)
        network.run(for: .seconds(60))
        #expect(offerer.selected.count == 2 && answerer.selected.count == 2 && offerer.failures.isEmpty)
    }

    @Test func aFailedAgentComesBackByRestart() {
        let network = Network(seed: 3)
        let offerer = network.agent(.controlling, on: [a4])
        let answerer = network.agent(.controlled, lite: true, on: [b4])
        network.introduce(offerer, answerer)
        network.run(for: .seconds(1))
        network.filter = { _ in false }
        network.run(for: .seconds(60))
        #expect(offerer.failures.count == 1 && answerer.failures.count == 1)
        network.filter = { _ in true }
        offerer.agent.restart(Credentials(using: &network.random), now: network.now)
        answerer.agent.restart(Credentials(using: &network.random), now: network.now)
        network.introduce(offerer, answerer)
        network.run(for: .seconds(1))
        #expect(offerer.agent.selectedPath?.remote == b4 && answerer.agent.selectedPath?.remote == a4)
    }
}
