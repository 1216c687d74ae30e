import DataChannel
import Glibc
import SCTP
import Testing
import Wire

@testable import Peer

/// What may happen in a run beside traffic.
private struct Adversities {
    var closes = true
    var partitions = true
    var rebinds = true
    var clockJumps = true
    var pauses = true
}

private final class Run {
    let seed: UInt64
    let simulation: Simulation
    let traffic: Traffic
    let adversities: Adversities
    private var random: SeededGenerator
    private let isLite: Bool
    private var nextPort: UInt16 = 3000

    init(seed: UInt64, _ adversities: Adversities = Adversities()) {
        self.seed = seed
        self.adversities = adversities
        var random = SeededGenerator(seed: seed ^ 0xBAD_5EED)
        func pick(_ bound: Int) -> Int { Int(random.next() % UInt64(bound)) }
        var weather = Weather()
        weather.loss = [0, 0.02, 0.1, 0.3][pick(4)]
        weather.duplication = [0, 0.1, 0.3][pick(3)]
        weather.corruption = [0, 0, 0.05][pick(3)]
        weather.delay = .milliseconds(Int64(1 + pick(80)))
        weather.jitter = pick(2) == 0 ? .zero : .milliseconds(Int64(1 + pick(60)))
        isLite = pick(2) == 0
        let window = [16_384, 65_536, 1 << 21][pick(3)]
        simulation = Simulation(
            seed: seed, weather: weather, isLite: isLite, prefersActive: pick(2) == 0, ipv6: pick(2) == 0
        ) {
            $0.receiveBuffer = window
            $0.maximumMessageSize = 4000
            // The worst weather is there from the first datagram on.
            $0.connectTimeout = .seconds(120)
        }
        traffic = Traffic(simulation)
        self.random = random
    }

    private func pick(_ bound: Int) -> Int { Int(random.next() % UInt64(bound)) }

    /// What went wrong; nil if nothing did.
    func result() throws -> String? {
        for side in 0..<2 { traffic.open(side, Traffic.Style.allCases[pick(6)]) }
        traffic.open(pick(2), .ordered)
        try simulation.negotiate()
        // Checks and handshakes give up after so many losses in a row; that is the next test's matter.
        let worst = simulation.weather.loss
        simulation.weather.loss = min(worst, 0.05)
        guard simulation.run(for: .seconds(100), until: { $0.areConnected || self.failure != nil }), failure == nil else {
            return failure ?? "not connected"
        }
        simulation.weather.loss = worst
        let steps = 40 + pick(60)
        for _ in 0..<steps {
            act()
            simulation.run(for: .milliseconds(Int64(pick(120))))
            traffic.check()
            if let failure { return failure }
        }
        return finish()
    }

    private var failure: String? {
        if let first = traffic.failures.first { return first }
        for side in 0..<2 {
            if let end = simulation.events[side].last, case .closed(let reason) = end { return "peer \(side) closed: \(reason)" }
        }
        return nil
    }

    private func finish() -> String? {
        simulation.weather = Weather()
        simulation.isPartitioned = false
        simulation.takesMessages = [true, true]
        let isComplete = simulation.run(for: .seconds(90)) { simulation in
            self.traffic.check()
            return simulation.knowEachOther && self.traffic.isComplete || self.failure != nil
        }
        traffic.check()
        if let failure { return failure }
        guard isComplete else { return "stuck at \(simulation.now):\n\(traffic.state)" }
        // And the connection is good for more.
        for side in 0..<2 { traffic.open(side, .ordered) }
        for line in traffic.lines.suffix(2) { for side in 0..<2 { traffic.send(side, line) } }
        guard simulation.run(for: .seconds(10), until: { _ in self.traffic.check(); return self.traffic.isComplete }) else {
            return "stuck afterwards:\n\(traffic.state)"
        }
        simulation.peers[pick(2)].close(now: simulation.now)
        guard simulation.run(for: .seconds(1), until: { $0.offerer.isClosed && $0.answerer.isClosed }) else { return "no goodbye" }
        return traffic.failures.first
    }

    func trace(_ sentence: @autoclosure () -> String) {
        if chosenSeed != nil { print("\(simulation.now.nanoseconds / 1_000_000) ms: \(sentence())") }
    }

    private func act() {
        for _ in 0..<pick(6) {
            let line = traffic.lines[pick(traffic.lines.count)]
            let side = pick(2)
            for _ in 0...pick(4) { traffic.send(side, line) }
        }
        switch pick(24) {
        case 0, 1: if traffic.lines.count < 12 { traffic.open(pick(2), Traffic.Style.allCases[pick(6)]) }
        case 2: if adversities.closes { traffic.close(pick(2), traffic.lines[pick(traffic.lines.count)]) }
        case 3: if adversities.partitions { partition() }
        case 4: if adversities.rebinds { rebind() }
        case 5: if adversities.clockJumps { simulation.now = simulation.now + .milliseconds(Int64(pick(8000))) }
        case 6: if adversities.clockJumps { simulation.now = simulation.now - .milliseconds(Int64(pick(50))) }
        case 7: if adversities.pauses { simulation.takesMessages[pick(2)].toggle() }
        default: break
        }
    }

    private func partition() {
        trace("partition")
        simulation.isPartitioned = true
        simulation.run(for: .milliseconds(Int64(pick(4000))))
        simulation.isPartitioned = false
    }

    /// A NAT gives one side another address. Not to one before the other one's has been learned, which nobody could
    /// survive; and not to a Lite server, which is not behind one.
    private func rebind() {
        guard simulation.areConnected, simulation.knowEachOther else { return }
        let side = isLite ? 0 : pick(2)
        nextPort += 1
        trace("rebind \(side)")
        simulation.shown[side].port = nextPort
        // It takes a while until the other side has heard of it; a partition would make it both sides' move.
        simulation.run(for: .milliseconds(Int64(pick(3000))))
    }
}

/// `PEER_SEED=4711 swift test --filter PeerTests` repeats one run.
private let chosenSeed: UInt64? = getenv("PEER_SEED").flatMap { UInt64(String(cString: $0)) }

@Suite struct UnderAdversity {
    static let batches = 40
    static let runs = 50

    @Test(arguments: 0..<batches)
    func everyReliableMessageArrivesOnceAndNothingIsStuck(batch: Int) throws {
        let seeds = chosenSeed.map { batch == 0 ? [$0] : [] } ?? (0..<Self.runs).map { UInt64(batch * Self.runs + $0 + 1) }
        for seed in seeds {
            let run = Run(seed: seed)
            if let failure = try run.result() {
                Issue.record("PEER_SEED=\(seed): \(failure)\nevents \(run.simulation.events) weather \(run.simulation.weather)")
                return
            }
        }
    }
}
