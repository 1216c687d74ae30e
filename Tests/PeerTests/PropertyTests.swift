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
    private var interrupted = Duration.zero

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
        guard simulation.run(for: .seconds(100), until: { $0.areConnected || self.failure != nil }), failure == nil
        else {
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
            if let end = simulation.events[side].last, case .closed(let reason) = end {
                return "peer \(side) closed: \(reason)"
            }
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
        guard
            simulation.run(
                for: .seconds(10),
                until: { _ in
                    self.traffic.check()
                    return self.traffic.isComplete
                })
        else {
            return "stuck afterwards:\n\(traffic.state)"
        }
        simulation.peers[pick(2)].close(now: simulation.now)
        guard simulation.run(for: .seconds(1), until: { $0.offerer.isClosed && $0.answerer.isClosed }) else {
            return "no goodbye"
        }
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
        case 5:
            if adversities.clockJumps { simulation.now = simulation.now + interruption([100, 1000, 8000][pick(3)]) }
        case 6: if adversities.clockJumps { simulation.now = simulation.now - .milliseconds(Int64(pick(50))) }
        case 7: if adversities.pauses { simulation.takesMessages[pick(2)].toggle() }
        default: break
        }
    }

    /// All interruptions of a run together are shorter than what consent to send outlasts, 30 s, in which it may well
    /// happen that no response comes through.
    private func interruption(_ most: Int) -> Duration {
        let span = Duration.milliseconds(Int64(pick(most)))
        guard interrupted + span < .seconds(18) else { return .zero }
        interrupted = interrupted + span
        return span
    }

    private func partition() {
        trace("partition")
        simulation.isPartitioned = true
        simulation.run(for: interruption([200, 1000, 4000][pick(3)]))
        simulation.isPartitioned = false
    }

    /// A NAT gives one side another address. Not to one before the other one's has been learned, which nobody could
    /// survive; and not to a Lite server, which is not behind one.
    private func rebind() {
        guard interrupted < .seconds(12), simulation.areConnected, simulation.knowEachOther else { return }
        let side = isLite ? 0 : pick(2)
        nextPort += 1
        trace("rebind \(side)")
        simulation.shown[side].port = nextPort
        // It takes a while until the other side has heard of it; a partition would make it both sides' move.
        simulation.run(for: interruption(3000))
    }
}

/// `PEER_SEED=4711 swift test --filter PeerTests` repeats one run.
private let chosenSeed: UInt64? = getenv("PEER_SEED").flatMap { UInt64(String(cString: $0)) }

@Suite struct UnderAdversity {
    static let batches = getenv("PEER_BATCHES").flatMap { Int(String(cString: $0)) } ?? 40
    static let runs = 50

    @Test(arguments: 0..<batches)
    func everyReliableMessageArrivesOnceAndNothingIsStuck(batch: Int) throws {
        let seeds =
            chosenSeed.map { batch == 0 ? [$0] : [] } ?? (0..<Self.runs).map { UInt64(batch * Self.runs + $0 + 1) }
        for seed in seeds {
            let run = Run(seed: seed)
            if let failure = try run.result() {
                Issue.record(
                    "PEER_SEED=\(seed): \(failure)\nevents \(run.simulation.events) weather \(run.simulation.weather)")
                return
            }
        }
    }
}

@Suite struct Hosts {
    /// A host that takes nothing makes the other one wait: what is held for it is bounded, and nothing is lost.
    @Test(arguments: [0, 0.1])
    func thatTakeNoMessagesMakeTheOtherSideWait(loss: Double) throws {
        let simulation = Simulation(seed: 21, weather: Weather(loss: loss)) {
            $0.receiveBuffer = 32_768
            $0.maximumMessageSize = 4000
        }
        let traffic = Traffic(simulation)
        traffic.open(0, .ordered)
        traffic.open(0, .unordered)
        try simulation.negotiate()
        #expect(simulation.run(for: .seconds(60)) { $0.areConnected })
        simulation.takesMessages[1] = false
        for _ in 0..<300 { for line in traffic.lines { traffic.send(0, line) } }
        simulation.run(for: .seconds(60))
        traffic.check()
        let held = try #require(simulation.answerer.data.association?.statistics.receiveBufferUsed)
        #expect(held > 16_384 && held <= 2 * 36_864 + 4000)
        let waiting = traffic.lines.reduce(0) { $0 + simulation.offerer.bufferedAmount($1.ids[0]!) }
        #expect(waiting > 300_000)
        #expect(!simulation.offerer.isClosed && !simulation.answerer.isClosed)
        simulation.takesMessages[1] = true
        #expect(
            simulation.run(for: .seconds(60)) { _ in
                traffic.check()
                return traffic.isComplete
            }, "\(traffic.state)")
        #expect(traffic.failures.isEmpty, "\(traffic.failures)")
    }

    /// Also while the connection is made. What does not fit is refused, and fits later.
    @Test func canSendMuchBeforeTheConnection() throws {
        let simulation = Simulation(seed: 22)
        let traffic = Traffic(simulation)
        for _ in 0..<3 { traffic.open(0, .ordered) }
        for _ in 0..<2000 { for line in traffic.lines { traffic.send(0, line) } }
        let sent = traffic.lines.reduce(0) { $0 + $1.sent[0] }
        #expect(sent > 1000 && sent < 6000)
        try simulation.negotiate()
        #expect(
            simulation.run(for: .seconds(60)) { _ in
                traffic.check()
                return traffic.isComplete
            })
        for line in traffic.lines { traffic.send(0, line) }
        #expect(traffic.lines.reduce(0) { $0 + $1.sent[0] } == sent + 3)
        #expect(
            simulation.run(for: .seconds(5)) { _ in
                traffic.check()
                return traffic.isComplete
            })
        #expect(traffic.failures.isEmpty, "\(traffic.failures)")
    }
}

@Suite struct TheWorstWeather {
    /// 30 % loss in both directions from the first datagram on: nearly all connect; who does not, says why, in time.
    @Test func endsInAConnectionOrAReason() throws {
        var connected = 0
        let count = 300
        for seed in 0..<UInt64(count) {
            let simulation = Simulation(
                seed: seed, weather: Weather(loss: 0.3, duplication: 0.1, corruption: 0.05, jitter: .milliseconds(40)),
                isLite: seed % 2 == 0, prefersActive: seed % 3 == 0)
            try simulation.negotiate()
            simulation.run(for: .seconds(120)) { $0.areConnected || $0.offerer.isClosed && $0.answerer.isClosed }
            if simulation.areConnected { connected += 1 }
            #expect(
                simulation.areConnected || simulation.offerer.isClosed && simulation.answerer.isClosed,
                "seed \(seed): \(simulation.events)")
        }
        #expect(connected * 100 >= count * 95, "\(connected) of \(count)")
    }
}
