import Wire

@testable import ICE

func address(_ text: String, _ port: UInt16) -> SocketAddress { SocketAddress(ip: IPAddress(text)!, port: port) }

extension Agent {
    /// Everything the agent has to send at `now`.
    func drain(_ now: Instant) -> [Datagram] {
        var datagrams: [Datagram] = []
        var storage = [UInt8](repeating: 0, count: Agent.maximumDatagram)
        while true {
            let sent: Datagram? = storage.withUnsafeMutableBytes { buffer in
                var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
                guard let transmit = pollTransmit(into: &output, now: now) else { return nil }
                let count = output.finalize(for: buffer)
                return Datagram(from: transmit.from, to: transmit.to, bytes: Array(buffer[..<count]))
            }
            guard let sent else { return datagrams }
            datagrams.append(sent)
        }
    }

    func handle(_ datagram: Datagram, _ now: Instant) -> Disposition {
        handle(datagram: datagram.bytes.span.bytes, from: datagram.from, to: datagram.to, now: now)
    }

    func drainEvents() -> [Event] {
        var events: [Event] = []
        while let event = pollEvent() { events.append(event) }
        return events
    }
}

struct Datagram {
    var from: SocketAddress
    var to: SocketAddress
    var bytes: [UInt8]
}

/// An agent on a simulated network, with what became of it.
final class Host {
    let agent: Agent
    /// Local addresses to those the network shows for them: a full-cone NAT. Identity if absent.
    var mapping: [SocketAddress: SocketAddress] = [:]
    /// Whether the agent is told which local address a datagram came to.
    var showsLocalAddress = true
    private(set) var events: [Event] = []
    private(set) var ignored: [Disposition.Reason: Int] = [:]

    init(_ agent: Agent) { self.agent = agent }

    var selected: [Path] { events.compactMap { if case .selected(let path) = $0 { path } else { nil } } }
    var verified: [Path] { events.compactMap { if case .verified(let path) = $0 { path } else { nil } } }
    var failures: [Failure] { events.compactMap { if case .failed(let failure) = $0 { failure } else { nil } } }

    func note(_ disposition: Disposition) {
        if case .ignored(let reason) = disposition { ignored[reason, default: 0] += 1 }
    }

    func collect() { events += agent.drainEvents() }
}

/// Virtual time and a network that loses, delays, doubles and damages datagrams as a seed says.
final class Network {
    var now = Instant(nanoseconds: 1_000_000_000)
    var random: SeededGenerator
    var loss = 0.0
    var duplication = 0.0
    var corruption = 0.0
    var delay: ClosedRange<Int64> = 10...10
    var hosts: [Host] = []
    /// Sees every datagram that is sent; false drops it.
    var filter: (Datagram) -> Bool = { _ in true }
    private(set) var sent = 0
    private var inFlight: [(at: Instant, order: Int, datagram: Datagram)] = []
    private var steps = 0

    init(seed: UInt64) { random = SeededGenerator(seed: seed) }

    func agent(
        _ role: Role, lite: Bool = false, on addresses: [SocketAddress],
        _ adjust: (inout Agent.Configuration) -> Void = { _ in }
    ) -> Host {
        var configuration = Agent.Configuration(role: role, isLite: lite, credentials: Credentials(using: &random))
        adjust(&configuration)
        let host = Host(
            Agent(
                configuration, localCandidates: Candidate.host(addresses),
                random: SeededGenerator(seed: random.next())))
        hosts.append(host)
        return host
    }

    /// Gives each host the other's description.
    func introduce(_ left: Host, _ right: Host, candidates: Bool = true) {
        describe(left, to: right, candidates)
        describe(right, to: left, candidates)
    }

    func describe(_ described: Host, to host: Host, _ candidates: Bool = true) {
        host.agent.setRemote(described.agent.credentials, isLite: described.agent.isLite)
        if candidates {
            for candidate in described.agent.localCandidates { host.agent.addRemoteCandidate(candidate) }
            host.agent.remoteCandidatesComplete()
        }
        host.agent.start(now: now)
        flush(host)
    }

    func flush(_ host: Host) {
        for datagram in host.agent.drain(now) { send(datagram, by: host) }
        host.collect()
    }

    func send(_ datagram: Datagram, by host: Host) {
        sent += 1
        var datagram = datagram
        if datagram.from.ip.isUnspecified {
            // The routing table's choice.
            datagram.from = host.agent.localCandidates.first { $0.address.ip.isIPv4 == datagram.to.ip.isIPv4 }!.address
        }
        datagram.from = host.mapping[datagram.from] ?? datagram.from
        guard filter(datagram), !chance(loss) else { return }
        deliver(datagram)
        if chance(duplication) { deliver(datagram) }
    }

    /// Puts a datagram on the network, as an attacker would.
    func deliver(_ datagram: Datagram) {
        var datagram = datagram
        if chance(corruption), !datagram.bytes.isEmpty {
            datagram.bytes[Int.random(in: datagram.bytes.indices, using: &random)] ^= UInt8.random(
                in: 1...255, using: &random)
        }
        steps += 1
        let delay = Duration.milliseconds(Int64.random(in: delay, using: &random))
        inFlight.append((now + delay, steps, datagram))
    }

    private func chance(_ probability: Double) -> Bool {
        probability > 0 && Double.random(in: 0..<1, using: &random) < probability
    }

    /// Runs for a span of time, or until `condition` holds. True if it held at the end.
    @discardableResult
    func run(for span: Duration, until condition: () -> Bool = { false }) -> Bool {
        let end = now + span
        var turns = 0
        while !condition() {
            turns += 1
            // An agent whose timeout does not move would be asked for ever.
            precondition(turns < 1_000_000, "no progress")
            let arrival = inFlight.min { ($0.at, $0.order) < ($1.at, $1.order) }?.at
            let timeout = hosts.compactMap { $0.agent.nextTimeout }.min()
            guard let next = [arrival, timeout].compactMap({ $0 }).min(), next <= end else {
                now = end
                return condition()
            }
            now = max(now, next)
            step()
        }
        return true
    }

    private func step() {
        while let index = inFlight.indices.filter({ inFlight[$0].at <= now }).min(by: {
            (inFlight[$0].at, inFlight[$0].order) < (inFlight[$1].at, inFlight[$1].order)
        }) {
            arrive(inFlight.remove(at: index).datagram)
        }
        for host in hosts where host.agent.nextTimeout.map({ $0 <= now }) ?? false {
            host.agent.handleTimeout(now: now)
            flush(host)
        }
    }

    private func arrive(_ datagram: Datagram) {
        for host in hosts {
            for candidate in host.agent.localCandidates
            where host.mapping[candidate.address] ?? candidate.address == datagram.to {
                var datagram = datagram
                datagram.to = candidate.address
                if !host.showsLocalAddress { datagram.to.ip = .anyIPv6 }
                host.note(host.agent.handle(datagram, now))
                flush(host)
                return
            }
        }
    }
}

extension Instant {
    static func + (left: Instant, right: Int64) -> Instant { left + .milliseconds(right) }
}

extension Agent {
    var pairCount: Int { pairs.count }
}
