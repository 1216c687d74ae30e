import Testing
import Wire

@testable import ICE

/// Networks that lose, delay, double and damage datagrams; every seed must end well.
@Suite struct Adversity {
    struct Case: CustomTestStringConvertible {
        var lite: Bool
        var translated = false
        var conflict = false
        var testDescription: String { "lite \(lite), translated \(translated), conflict \(conflict)" }
    }

    private func network(_ seed: UInt64) -> Network {
        let network = Network(seed: seed)
        network.loss = Double.random(in: 0...0.3, using: &network.random)
        network.duplication = Double.random(in: 0...0.2, using: &network.random)
        network.corruption = Double.random(in: 0...0.1, using: &network.random)
        network.delay = 1...Int64.random(in: 1...150, using: &network.random)
        return network
    }

    /// Whether both use the same path, the left host perhaps behind a translator.
    private func agree(_ left: Host, _ right: Host) -> Bool {
        guard let here = left.agent.selectedPath, let there = right.agent.selectedPath else { return false }
        return there == Path(local: here.remote, remote: left.mapping[here.local] ?? here.local)
    }

    @Test(arguments: [
        Case(lite: true), Case(lite: false), Case(lite: true, translated: true), Case(lite: false, translated: true),
        Case(lite: false, conflict: true),
    ])
    func everySeedConnects(test: Case) {
        for seed in 0..<600 as Range<UInt64> {
            let network = network(seed)
            let offerer = network.agent(.controlling, on: [a4, a6])
            let answerer = network.agent(test.conflict ? .controlling : .controlled, lite: test.lite, on: [b4, b6])
            if test.translated {
                offerer.mapping = [a4: address("203.0.113.1", 61000), a6: address("2001:db8:9::1", 61001)]
            }
            network.introduce(offerer, answerer, candidates: true)
            let connected = network.run(for: .seconds(20)) {
                offerer.agent.isNominated && answerer.agent.isNominated
            }
            #expect(connected, "seed \(seed)")
            // Whatever was selected in between, both end on the same path, and nobody gives up.
            network.run(for: .seconds(20))
            #expect(network.run(for: .seconds(10)) { agree(offerer, answerer) }, "seed \(seed)")
            #expect(offerer.failures.isEmpty && answerer.failures.isEmpty, "seed \(seed)")
            #expect(offerer.verified.count == 1 && answerer.verified.count == 1, "seed \(seed)")
        }
    }

    @Test(arguments: [true, false])
    func everySeedFollowsAnAddressChange(lite: Bool) {
        for seed in 0..<600 as Range<UInt64> {
            let network = network(seed)
            let offerer = network.agent(.controlling, on: [a4])
            let answerer = network.agent(.controlled, lite: lite, on: [b4])
            network.introduce(offerer, answerer)
            let connected = network.run(for: .seconds(20)) {
                offerer.agent.isNominated && answerer.agent.isNominated
            }
            #expect(connected, "seed \(seed)")
            network.run(for: .milliseconds(Int64.random(in: 0...5000, using: &network.random)))
            let moved = address("203.0.113.77", UInt16.random(in: 1000...60000, using: &network.random))
            offerer.mapping = [a4: moved]
            let followed = network.run(for: .seconds(25)) { answerer.agent.selectedPath?.remote == moved }
            #expect(followed, "seed \(seed)")
            network.run(for: .seconds(30))
            #expect(answerer.agent.selectedPath?.remote == moved, "seed \(seed)")
            #expect(offerer.failures.isEmpty && answerer.failures.isEmpty, "seed \(seed)")
        }
    }

    /// Both paths alternate between working and not, in no order.
    @Test(arguments: [true, false])
    func everySeedSurvivesOutages(lite: Bool) {
        for seed in 0..<200 as Range<UInt64> {
            let network = network(seed)
            network.corruption = 0
            network.loss = min(network.loss, 0.1)
            let offerer = network.agent(.controlling, on: [a4, a6])
            let answerer = network.agent(.controlled, lite: lite, on: [b4, b6])
            var (works4, works6) = (true, true)
            network.filter = { $0.to.ip.isIPv4 ? works4 : works6 }
            network.introduce(offerer, answerer)
            for _ in 0..<6 {
                works4 = Bool.random(using: &network.random)
                works6 = !works4 || Bool.random(using: &network.random)
                let agreed = network.run(for: .seconds(25)) {
                    guard let path = offerer.agent.selectedPath, !path.local.ip.isIPv4 ? works6 : works4,
                        !offerer.agent.isSuspect
                    else { return false }
                    return agree(offerer, answerer)
                }
                #expect(agreed, "seed \(seed): \(works4), \(works6)")
                network.run(for: .milliseconds(Int64.random(in: 0...9000, using: &network.random)))
            }
            #expect(offerer.failures.isEmpty && answerer.failures.isEmpty, "seed \(seed)")
        }
    }
}
