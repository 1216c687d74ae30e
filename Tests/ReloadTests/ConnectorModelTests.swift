import Signaling
import Testing
import Wire

@testable import Reload

/// Whatever happens to its attempts, in whatever order: a connect ends, once, and keeps only what worked.
@Suite struct ConnectorModel {
    struct Watch {
        var desk: Desk
        var modes: [Int: Connector.Mode] = [:]
        var running: [Int: Int64?] = [:]
        var ended: Set<Int> = []
        var startedModes: [Connector.Mode] = []
        var peers: Set<Int> = []
        var connected: Int?
        var won: Set<Int> = []
        var outcomes = 0
        var startedTotal = 0
        var lastExchange: Int64 = 0
        var problems: [String] = []

        /// Looks at what was wanted since the last time.
        mutating func look() {
            for action in desk.taken() {
                switch action {
                case .report(let report): look(at: report)
                case .startWithTicket(let attempt, _): begin(attempt, nil)
                case .startSignaling(let attempt, let exchange, let token):
                    if exchange <= lastExchange { problems.append("exchange \(exchange) again") }
                    lastExchange = exchange
                    if (token != nil) != (modes[attempt] == .fast) { problems.append("token in \(attempt)") }
                    begin(attempt, exchange)
                case .stop(let attempt): peers.remove(attempt)
                case .connected(let attempt, let mode, let replaced, _):
                    outcomes += 1
                    if modes[attempt] != mode { problems.append("connected as \(mode)") }
                    if replaced != connected { problems.append("replaces \(String(describing: replaced))") }
                    if let replaced { peers.remove(replaced) }
                    connected = attempt
                    won.insert(attempt)
                case .failed: outcomes += 1
                case .lost(let attempt, _, _):
                    if attempt != connected { problems.append("lost \(attempt)") }
                    connected = nil
                case .store(let entry): check(entry.sessionID, "token")
                case .storeTicket(let ticket): check(ticket.ufrag, "ticket")
                case .drop, .dropTicket: break
                }
            }
        }

        private mutating func look(at report: Connector.Report) {
            if report.outcome == .skipped {
                if report.reason == nil { problems.append("skipped without a reason") }
                return
            }
            switch report.outcome {
            case .skipped: break
            case .started:
                startedTotal += 1
                if startedModes.contains(report.mode) { problems.append("\(report.mode) twice") }
                startedModes.append(report.mode)
                if modes[report.attempt] != nil, ended.remove(report.attempt) == nil {
                    problems.append("\(report.attempt) changed its mode before it ended")
                }
                modes[report.attempt] = report.mode
            case .won, .failed, .stopped:
                if modes[report.attempt] != report.mode { problems.append("\(report.attempt) ends as \(report.mode)") }
                if !ended.insert(report.attempt).inserted { problems.append("\(report.attempt) ends twice") }
                if (report.outcome == .won) != (report.reason == nil) { problems.append("reason of \(report.outcome)") }
            }
        }

        private mutating func begin(_ attempt: Int, _ exchange: Int64?) {
            running[attempt] = exchange
            peers.insert(attempt)
        }

        /// What is kept names the attempt that it came from: one that has won.
        private mutating func check(_ text: String, _ what: String) {
            guard text.hasPrefix("from-"), let attempt = Int(text.dropFirst(5)), !won.contains(attempt) else { return }
            problems.append("\(what) of \(attempt) kept, which has not won")
        }
    }

    static func run(seed: UInt64) -> [String] {
        var random = SeededGenerator(seed: seed)
        func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }
        var watch = Watch(desk: Desk(chance(50) ? .race : .fallback, usesTickets: chance(90)))
        if chance(70) {
            watch.desk.kept = .sample(at: watch.desk.wall - Int64.random(in: -10...310_000, using: &random))
        }
        if chance(70) {
            watch.desk.ticket = .sample(expires: watch.desk.wall + Int64.random(in: -1000...100_000, using: &random))
        }
        for _ in 0..<Int.random(in: 1...4, using: &random) {
            if chance(10) { watch.desk.network += 1 }
            watch.startedModes = []
            watch.running = [:]
            let before = watch.outcomes
            let started = watch.startedTotal
            if !watch.desk.connect(isFastReloadOn: chance(90)) { watch.problems.append("connect refused") }
            watch.look()
            var steps = 0
            while watch.desk.connector.isConnecting {
                steps += 1
                if steps > 1000 {
                    watch.problems.append("no end")
                    break
                }
                step(&watch, &random)
                watch.look()
            }
            if watch.outcomes != before + 1 { watch.problems.append("\(watch.outcomes - before) outcomes") }
            if watch.startedTotal - started > 3 { watch.problems.append("too many attempts") }
            if watch.desk.connector.nextTimeout != nil { watch.problems.append("a timer is left") }
            if watch.modes.keys.contains(where: { !watch.ended.contains($0) }) {
                watch.problems.append("an attempt did not end")
            }
            if watch.peers != Set([watch.connected].compactMap(\.self)) {
                watch.problems.append("peers \(watch.peers), connected \(watch.connected ?? 0)")
            }
            if watch.connected != watch.desk.connector.connected { watch.problems.append("another one is connected") }
            // Late news of what is over changes nothing.
            let actions = watch.desk.actions.count
            for (attempt, exchange) in watch.running where attempt != watch.connected {
                if let exchange { watch.desk.answer(exchange, .fast, token: "from-\(attempt)") }
                watch.desk.open(attempt)
                watch.desk.end(attempt)
            }
            if watch.desk.actions.count != actions { watch.problems.append("late news did something") }
            if let connected = watch.connected, chance(50) {
                watch.desk.end(connected)
                watch.peers.remove(connected)
                watch.look()
            }
            if chance(30) { watch.desk.pass(.seconds(Int64.random(in: 0...400, using: &random))) }
        }
        watch.startedModes = []
        if chance(50), watch.desk.connect() {
            watch.look()
            watch.desk.connector.close(wallClock: watch.desk.wall, now: watch.desk.now)
            watch.desk.drain()
            watch.look()
            if !watch.peers.isEmpty { watch.problems.append("peers left after the end") }
            if watch.modes.keys.contains(where: { !watch.ended.contains($0) }) { watch.problems.append("one runs on") }
        }
        return watch.problems
    }

    private static func step(_ watch: inout Watch, _ random: inout SeededGenerator) {
        let attempt = watch.running.keys.sorted().randomElement(using: &random) ?? 0
        let exchange = watch.running[attempt] ?? nil
        switch Int.random(in: 0..<10, using: &random) {
        case 0...2:
            let ticket = Ticket.sample("from-\(attempt)", expires: watch.desk.wall + 60_000)
            guard let exchange else { return }
            watch.desk.answer(
                exchange, Bool.random(using: &random) ? .fast : .normal,
                token: Bool.random(using: &random) ? "from-\(attempt)" : nil,
                ticket: Bool.random(using: &random) ? ticket : nil)
        case 3:
            // Only what has an answer, or needs none, can open.
            if exchange == nil || !watch.desk.connector.awaitsAnswer(exchange ?? 0) { watch.desk.open(attempt) }
        case 4...5: watch.desk.end(attempt)
        case 6:
            if let exchange {
                watch.desk.connector.signalingFailed(exchange, now: watch.desk.now)
                watch.desk.drain()
            }
        case 7:
            if let connected = watch.connected, Int.random(in: 0..<4, using: &random) == 0 {
                watch.desk.end(connected)
                watch.peers.remove(connected)
                watch.connected = nil
            }
        case 8:
            watch.desk.connector.received(
                attempt, ticket: .sample("from-\(attempt)", expires: watch.desk.wall + 60_000),
                token: "from-\(attempt)", wallClock: watch.desk.wall)
            watch.desk.drain()
        default: watch.desk.pass(.milliseconds(Int64.random(in: 1...3000, using: &random)))
        }
    }

    @Test func endsOnceAndKeepsOnlyWhatWorked() {
        for seed in 0..<4000 as Range<UInt64> {
            let problems = ConnectorModel.run(seed: seed)
            if !problems.isEmpty {
                Issue.record("seed \(seed): \(problems.prefix(5))")
                return
            }
        }
    }
}
