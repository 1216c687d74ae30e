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
                return Datagram(
                    from: transmit.from, to: transmit.to, bytes: Array(buffer[..<count]), transport: transmit.transport)
            }
            guard let sent else { return datagrams }
            datagrams.append(sent)
        }
    }

    func handle(_ datagram: Datagram, _ now: Instant) -> Disposition {
        handle(
            datagram: datagram.bytes.span.bytes, from: datagram.from, to: datagram.to, transport: datagram.transport,
            now: now)
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
    var transport = Transport.udp
}

/// An agent on a simulated network, with what became of it.
final class Host {
    let agent: Agent
    /// Local addresses to those the network shows for them: a full-cone NAT. Identity if absent.
    var mapping: [SocketAddress: SocketAddress] = [:]
    var nat: NAT?
    var relay: Relay?
    /// Whether a TCP connection to this host's listening addresses gets through.
    var acceptsStreams = true
    /// TCP connections by the address that this host sees at their other end.
    var streams: [SocketAddress: (host: Host, own: SocketAddress, theirs: SocketAddress)] = [:]
    /// Data that arrived, and when.
    var arrivals: [Instant] = []
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
    /// Another delay for some datagrams.
    var slowPath: (isSlow: (Datagram) -> Bool, delay: ClosedRange<Int64>)?
    var hosts: [Host] = []
    /// Sees every datagram that is sent; false drops it.
    var filter: (Datagram) -> Bool = { _ in true }
    private(set) var sent = 0
    private var inFlight: [(at: Instant, order: Int, datagram: Datagram)] = []
    private var steps = 0
    private var nextStreamPort: UInt16 = 40_000

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
    func introduce(_ left: Host, _ right: Host, candidates: Bool = true, renomination: Bool = false) {
        describe(left, to: right, candidates, renomination: renomination)
        describe(right, to: left, candidates, renomination: renomination)
    }

    func describe(_ described: Host, to host: Host, _ candidates: Bool = true, renomination: Bool = false) {
        host.agent.setRemote(
            described.agent.credentials, isLite: described.agent.isLite, renomination: renomination)
        if candidates {
            for candidate in described.agent.localCandidates { host.agent.addRemoteCandidate(candidate) }
            host.agent.remoteCandidatesComplete()
        }
        host.agent.start(now: now)
        flush(host)
    }

    /// A host behind a translator and with a relay, if asked for.
    func host(
        _ role: Role, _ kind: NAT.Kind = .none, inside: SocketAddress, outside: String, relay: SocketAddress? = nil,
        _ adjust: (inout Agent.Configuration) -> Void = { _ in }
    ) -> Host {
        let host = agent(role, on: [inside], adjust)
        if kind != .none {
            let nat = NAT(kind, outside)
            host.nat = nat
            // What a STUN server showed.
            let reflexive = nat.map(inside, to: address("192.0.2.250", 3478))
            host.agent.addLocalCandidate(
                Candidate(
                    kind: .serverReflexive, address: reflexive,
                    priority: Candidate.priority(.serverReflexive, localPreference: 65_535), base: inside,
                    relatedAddress: inside), now: now)
        }
        if let relay { addRelay(relay, to: host) }
        return host
    }

    func addRelay(_ address: SocketAddress, to host: Host) {
        host.relay = Relay(address)
        host.agent.addLocalCandidate(
            Candidate(
                kind: .relayed, address: address, priority: Candidate.priority(.relayed, localPreference: 65_535)),
            now: now)
        flush(host)
    }

    func flush(_ host: Host) {
        for datagram in host.agent.drain(now) { send(datagram, by: host) }
        host.collect()
    }

    func send(_ datagram: Datagram, by host: Host) {
        sent += 1
        var datagram = datagram
        if datagram.transport == .tcp { return stream(datagram, by: host) }
        if let relay = host.relay, relay.address == datagram.from {
            relay.permit(datagram.to.ip)
            guard !relay.isDead, filter(datagram), !chance(loss) else { return }
            return deliver(datagram)
        }
        // A machine does not send from an address that it does not have.
        guard
            datagram.from.ip.isUnspecified
                || host.agent.localCandidates.contains(where: { ($0.base ?? $0.address) == datagram.from })
        else { return }
        if datagram.from.ip.isUnspecified {
            // The routing table's choice.
            datagram.from = host.agent.localCandidates.first { $0.address.ip.isIPv4 == datagram.to.ip.isIPv4 }!.address
        }
        datagram.from = host.mapping[datagram.from] ?? datagram.from
        if let nat = host.nat { datagram.from = nat.map(datagram.from, to: datagram.to) }
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
        let span = slowPath.flatMap { $0.isSlow(datagram) ? $0.delay : nil } ?? delay
        let delay = Duration.milliseconds(Int64.random(in: span, using: &random))
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
        var datagram = datagram
        if datagram.transport == .tcp {
            if let stream = hosts.first(where: { $0.streams[datagram.from]?.own == datagram.to }) {
                give(datagram, to: stream)
            }
            return
        }
        for host in hosts {
            if let relay = host.relay, relay.address == datagram.to {
                if relay.admits(datagram.from.ip) { give(datagram, to: host) }
                return
            }
            if let nat = host.nat {
                guard let inside = nat.admit(from: datagram.from, to: datagram.to) else { continue }
                datagram.to = inside
                return give(datagram, to: host)
            }
            for candidate in host.agent.localCandidates
            where candidate.transport == .udp
                && host.mapping[candidate.address] ?? candidate.address == datagram.to
            {
                datagram.to = candidate.address
                if !host.showsLocalAddress { datagram.to.ip = .anyIPv6 }
                return give(datagram, to: host)
            }
        }
    }

    private func give(_ datagram: Datagram, to host: Host) {
        guard datagram.bytes.first == 0xD1 || datagram.bytes.first == 0xD2 else {
            host.note(host.agent.handle(datagram, now))
            return flush(host)
        }
        // Data and its acknowledgement.
        host.agent.noteTraffic(
            Path(local: datagram.to, remote: datagram.from, transport: datagram.transport), now: now)
        if datagram.bytes.first == 0xD1 {
            host.arrivals.append(now)
            sendOnPath([0xD2], by: host)
        }
        flush(host)
    }

    private func sendOnPath(_ bytes: [UInt8], by host: Host) {
        guard let path = host.agent.selectedPath else { return }
        send(Datagram(from: path.local, to: path.remote, bytes: bytes, transport: path.transport), by: host)
    }

    /// One packet of data on the path in use, and its acknowledgement.
    func sendData(by host: Host) {
        sendOnPath([0xD1], by: host)
        host.agent.noteSent(now: now)
        flush(host)
    }

    /// Sends data at an interval for a span of time, or until `condition` holds.
    @discardableResult
    func stream(
        by senders: [Host], every interval: Duration = .milliseconds(10), for span: Duration,
        until condition: () -> Bool = { false }
    ) -> Bool {
        let end = now + span
        while now < end, !condition() {
            for host in senders { sendData(by: host) }
            run(for: interval)
        }
        return condition()
    }

    /// A datagram over TCP: the first one from port 9 opens the connection.
    private func stream(_ datagram: Datagram, by host: Host) {
        guard filter(datagram) else { return }
        if datagram.from.port == Candidate.discardPort, host.streams[datagram.to] == nil {
            let listening = hosts.first { other in
                other.acceptsStreams
                    && other.agent.localCandidates.contains { $0.tcpType == .passive && $0.address == datagram.to }
            }
            guard let listening else { return }
            nextStreamPort &+= 1
            let own = SocketAddress(ip: datagram.from.ip, port: nextStreamPort)
            host.streams[datagram.to] = (listening, datagram.from, own)
            listening.streams[own] = (host, datagram.to, datagram.to)
        }
        guard let connection = host.streams[datagram.to] else { return }
        // The other end sees the connection's own port.
        var copy = datagram
        copy.from = connection.theirs
        copy.to = connection.host.streams[connection.theirs]?.own ?? datagram.to
        deliver(copy)
    }

    /// All TCP connections of a host break, and both ends notice.
    func breakStreams(of host: Host) {
        for (remote, stream) in host.streams {
            host.agent.connectionFailed(Path(local: stream.own, remote: remote, transport: .tcp), now: now)
            if let other = stream.host.streams.removeValue(forKey: stream.theirs) {
                stream.host.agent.connectionFailed(
                    Path(local: other.own, remote: stream.theirs, transport: .tcp), now: now)
                flush(stream.host)
            }
        }
        host.streams = [:]
        flush(host)
    }
}

extension Instant {
    static func + (left: Instant, right: Int64) -> Instant { left + .milliseconds(right) }
}

extension Agent {
    var pairCount: Int { pairs.count }
}
