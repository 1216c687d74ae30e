import Testing
import Wire

@testable import ICE

/// Every kind of translator against every other, with and without relays.
@Suite struct Traversal {
    /// What the offerer's pair is between: its own candidate and the other side's.
    struct Ends: Hashable, CustomStringConvertible {
        var local: Candidate.Kind
        var remote: Candidate.Kind
        var description: String { "\(local.rawValue)-\(remote.rawValue)" }
    }

    struct Cell: CustomTestStringConvertible {
        var left: NAT.Kind
        var right: NAT.Kind
        var testDescription: String { "\(left) with \(right)" }
    }

    static let cells = NAT.Kind.allCases.flatMap { left in NAT.Kind.allCases.map { Cell(left: left, right: $0) } }

    /// The offerer's view without relays; nil: there is no path.
    ///
    ///     offerer \ answerer  none         full cone    address      port         symmetric
    ///     none                host-host    host-srflx   host-srflx   host-srflx   host-prflx
    ///     full cone           srflx-host   srflx-srflx  srflx-srflx  srflx-srflx  srflx-prflx
    ///     address             srflx-host   srflx-srflx  srflx-srflx  srflx-srflx  srflx-prflx
    ///     port                srflx-host   srflx-srflx  srflx-srflx  srflx-srflx  no path
    ///     symmetric           prflx-host   prflx-srflx  prflx-srflx  no path      no path
    private func expected(_ cell: Cell) -> Ends? {
        switch (cell.left, cell.right) {
        case (.symmetric, .symmetric), (.symmetric, .portRestricted), (.portRestricted, .symmetric): nil
        default: Ends(local: kind(cell.left), remote: kind(cell.right))
        }
    }

    private func kind(_ nat: NAT.Kind) -> Candidate.Kind {
        switch nat {
        case .none: .host
        case .symmetric: .peerReflexive
        case .fullCone, .addressRestricted, .portRestricted: .serverReflexive
        }
    }

    private func ends(_ host: Host) -> Ends? {
        host.agent.selectedPath.flatMap { host.agent.candidates(of: $0) }
            .map { Ends(local: $0.local.kind, remote: $0.remote.kind) }
    }

    private func connect(
        _ cell: Cell, seed: UInt64, relays: (left: Bool, right: Bool) = (false, false),
        relayOnly: Bool = false
    ) -> (Network, Host, Host) {
        let network = Network(seed: seed)
        network.loss = seed % 3 == 2 ? 0.1 : 0
        network.delay = seed % 2 == 0 ? 10...10 : 5...40
        let left = network.host(
            .controlling, cell.left, inside: cell.left == .none ? a4 : address("10.0.0.1", 1000),
            outside: "203.0.113.1",
            relay: relays.left ? address("192.0.2.201", 50_000) : nil
        ) { $0.relayOnly = relayOnly }
        let right = network.host(
            .controlled, cell.right, inside: cell.right == .none ? b4 : address("192.168.1.1", 2000),
            outside: "203.0.113.2", relay: relays.right ? address("192.0.2.202", 50_000) : nil
        ) { $0.relayOnly = relayOnly }
        network.introduce(left, right)
        network.run(for: .seconds(60)) { !left.failures.isEmpty || left.agent.isNominated && right.agent.isNominated }
        return (network, left, right)
    }

    @Test(arguments: cells)
    func everyCellHasThePairItShould(cell: Cell) {
        for seed in 0..<6 as Range<UInt64> {
            let (network, left, right) = connect(cell, seed: seed)
            let wanted = expected(cell)
            #expect(ends(left) == wanted, "seed \(seed)")
            #expect(ends(right) == wanted.map { Ends(local: $0.remote, remote: $0.local) }, "seed \(seed)")
            if wanted == nil {
                network.run(for: .seconds(60))
                #expect(left.failures == [.noPath] && right.failures == [.noPath], "seed \(seed)")
            }
        }
    }

    /// A relay at either side carries what could not be connected; and nothing that could.
    @Test(arguments: cells)
    func relaysAreUsedWhereNothingElseWorks(cell: Cell) {
        for (left, right) in [(true, false), (false, true), (true, true)] {
            for seed in 0..<3 as Range<UInt64> {
                let (network, offerer, answerer) = connect(cell, seed: seed, relays: (left, right))
                network.loss = 0
                network.run(for: .seconds(20))
                guard let found = ends(offerer) else {
                    Issue.record("no path, seed \(seed)")
                    continue
                }
                if let wanted = expected(cell) {
                    #expect(found == wanted, "relays \(left) \(right), seed \(seed)")
                } else {
                    // One relay is enough, and it is one of a side that has one.
                    #expect(
                        (found.local == .relayed) != (found.remote == .relayed), "\(found), \(left) \(right) \(seed)")
                    #expect(found.local == .relayed ? left : right, "\(found), \(left) \(right) \(seed)")
                }
                #expect(offerer.failures.isEmpty && answerer.failures.isEmpty)
            }
        }
    }

    /// With the policy "relay only" nothing is sent from, answered on or selected but the relayed addresses.
    @Test(arguments: cells)
    func relayOnlyMeansOnlyTheRelay(cell: Cell) {
        for right in [true, false] {
            let network = Network(seed: 7)
            let offerer = network.host(
                .controlling, cell.left, inside: address("10.0.0.1", 1000), outside: "203.0.113.1",
                relay: address("192.0.2.201", 50_000)
            ) { $0.relayOnly = true }
            let answerer = network.host(
                .controlled, cell.right, inside: b4, outside: "203.0.113.2",
                relay: right ? address("192.0.2.202", 50_000) : nil
            ) { $0.relayOnly = right }
            var leaked = 0
            network.filter = { datagram in
                if !right {
                    if datagram.from.ip == IPAddress("203.0.113.1") || datagram.from.ip == IPAddress("10.0.0.1") {
                        leaked += 1
                    }
                } else if datagram.from.port != 50_000 {
                    leaked += 1
                }
                return true
            }
            network.introduce(offerer, answerer)
            network.run(for: .seconds(30))
            #expect(leaked == 0)
            #expect(offerer.agent.selectedPath?.local == address("192.0.2.201", 50_000))
            let remote = ends(offerer)?.remote
            #expect(right ? remote == .relayed : remote == kind(cell.right))
            network.run(for: .seconds(100))
            #expect(offerer.failures.isEmpty && leaked == 0)
        }
    }

    /// RFC 8445 section 7.3 on an address the policy does not allow: as if nobody were there.
    @Test func relayOnlyAnswersNobodyElse() {
        let network = Network(seed: 8)
        let host = network.host(
            .controlled, inside: b4, outside: "", relay: address("192.0.2.202", 50_000)
        ) { $0.relayOnly = true }
        host.agent.start(now: network.now)
        let check = Checks.make(for: host.agent.credentials, id: 1, nominates: true)
        #expect(host.agent.handle(Datagram(from: a4, to: b4, bytes: check), network.now) == .ignored(.forbidden))
        #expect(host.agent.drain(network.now).isEmpty && host.agent.pairCount == 0)
        let relayed = Datagram(from: a4, to: address("192.0.2.202", 50_000), bytes: check)
        #expect(host.agent.handle(relayed, network.now) == .consumed)
        #expect(host.agent.drain(network.now).allSatisfy { $0.from == relayed.to })
        #expect(host.agent.statistics.forbidden == 1)
    }

    /// An allocation that is made only after everything else has failed.
    @Test(arguments: [true, false])
    func aRelayThatArrivesLaterIsPaired(atOfferer: Bool) {
        let network = Network(seed: 9)
        let left = network.host(
            .controlling, .symmetric, inside: address("10.0.0.1", 1000), outside: "203.0.113.1"
        ) { $0.tricklesCandidates = true }
        let right = network.host(
            .controlled, .symmetric, inside: address("192.168.1.1", 2000), outside: "203.0.113.2"
        ) { $0.tricklesCandidates = true }
        network.introduce(left, right)
        network.run(for: .seconds(60))
        // Both could still get candidates.
        #expect(left.failures.isEmpty && right.failures.isEmpty && left.agent.selectedPath == nil)
        let (one, other) = atOfferer ? (left, right) : (right, left)
        network.addRelay(address("192.0.2.201", 50_000), to: one)
        other.agent.addRemoteCandidate(one.agent.localCandidates.last!)
        network.flush(other)
        network.run(for: .seconds(5))
        #expect(left.agent.isNominated && right.agent.isNominated)
        #expect(ends(one)?.local == .relayed && ends(other)?.remote == .relayed)
    }

    @Test func withoutARelayTheyGiveUpOnlyWhenAllCandidatesAreThere() {
        let network = Network(seed: 10)
        let left = network.host(
            .controlling, .symmetric, inside: address("10.0.0.1", 1000), outside: "203.0.113.1"
        ) { $0.tricklesCandidates = true }
        let right = network.host(
            .controlled, .symmetric, inside: address("192.168.1.1", 2000), outside: "203.0.113.2")
        network.introduce(left, right)
        network.run(for: .seconds(100))
        #expect(left.failures.isEmpty && right.failures == [.noPath])
        left.agent.localCandidatesComplete()
        left.collect()
        #expect(left.failures == [.noPath])
    }

    @Test func anAgentWithoutAnyCandidateWaits() {
        let network = Network(seed: 11)
        let left = network.agent(.controlling, on: [])
        let right = network.agent(.controlled, on: [b4])
        network.describe(left, to: right, false)
        network.describe(right, to: left)
        network.run(for: .seconds(300))
        #expect(left.failures.isEmpty)
        left.agent.addLocalCandidate(Candidate.host([a4])[0], now: network.now)
        network.flush(left)
        network.run(for: .seconds(1))
        #expect(left.agent.isNominated)
    }
}
