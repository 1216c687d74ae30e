import DTLS
import DataChannel
import ICE
import SCTP
import SDP
import Testing
import Wire

@testable import Peer

/// What a NAT lets in (RFC 4787 section 5), and what it makes of a port (section 4.1).
enum NATKind: CaseIterable {
    case fullCone
    case addressRestricted
    case portRestricted
    case symmetric
}

final class NAT {
    let kind: NATKind
    let outside: IPAddress
    private var nextPort: UInt16 = 50_000
    private struct Mapping {
        var inner: SocketAddress
        var outer: SocketAddress
        /// Symmetric ones map each destination for itself.
        var to: SocketAddress?
        var permitted: [SocketAddress] = []
    }
    private var mappings: [Mapping] = []

    init(_ kind: NATKind, outside: String) {
        self.kind = kind
        self.outside = IPAddress(outside)!
    }

    func outbound(_ from: SocketAddress, _ to: SocketAddress) -> SocketAddress {
        let wanted = kind == .symmetric ? to : nil
        if let index = mappings.firstIndex(where: { $0.inner == from && $0.to == wanted }) {
            if !mappings[index].permitted.contains(to) { mappings[index].permitted.append(to) }
            return mappings[index].outer
        }
        nextPort += 1
        let outer = SocketAddress(ip: outside, port: nextPort)
        mappings.append(Mapping(inner: from, outer: outer, to: wanted, permitted: [to]))
        return outer
    }

    func inbound(_ to: SocketAddress, from: SocketAddress) -> SocketAddress? {
        guard let mapping = mappings.first(where: { $0.outer == to }) else { return nil }
        switch kind {
        case .fullCone: return mapping.inner
        case .addressRestricted:
            return mapping.permitted.contains { $0.ip == from.ip } ? mapping.inner : nil
        case .portRestricted, .symmetric: return mapping.permitted.contains(from) ? mapping.inner : nil
        }
    }

    /// As after a reboot.
    func forget() { mappings.removeAll() }
}

/// An address of a host and what it is connected to.
final class Link {
    let address: SocketAddress
    var isUp = true
    /// Datagrams of at least so many bytes only: a path on which checks come through and nothing else, or the reverse.
    var nat: NAT?
    var delay = Duration.milliseconds(10)
    var loss = 0.0
    var kind = Candidate.Kind.host

    init(_ text: String, port: UInt16) { address = SocketAddress(ip: IPAddress(text)!, port: port) }

    func candidate(_ preference: UInt16) -> Candidate {
        Candidate(
            kind: kind, address: address, priority: Candidate.priority(kind, localPreference: preference),
            relatedAddress: kind == .relayed ? SocketAddress(ip: IPAddress("198.51.100.99")!, port: 7) : nil)
    }
}

/// What the channel between the hosts does to messages.
struct Post {
    var delay: ClosedRange<Int64> = 20...20
    var loss = 0.0
    var duplication = 0.0
    /// Messages keep their order, as over one connection.
    var isOrdered = true
    var isUp = true
}

/// Two peers that negotiate by themselves: hosts with several addresses, NATs, a channel for their messages, a numbered
/// stream of messages in both directions, on virtual time.
final class World {
    struct Flight {
        var due: Instant
        var from: SocketAddress
        var to: SocketAddress
        var side: Int
        var bytes: [UInt8]
    }

    struct Letter {
        var due: Instant
        var to: Int
        var signal: Peer.Signal
    }

    let seed: UInt64
    var random: SeededGenerator
    var now = Instant(nanoseconds: 1_000_000_000)
    var peers: [Peer] = []
    var links: [[Link]]
    var post = Post()
    var loss = 0.0
    let packets = PacketBuffer(capacity: 1 << 16)
    var flights: [Flight] = []
    var letters: [Letter] = []
    private var lastLetter = [Instant(nanoseconds: 0), Instant(nanoseconds: 0)]
    var events: [[Peer.Event]] = [[], []]
    var signals: [[Peer.Signal]] = [[], []]
    var paths: [[Peer.PathReport]] = [[], []]
    var restarts: [[Peer.RestartReport]] = [[], []]
    var problems: [String] = []
    /// What was sent where, for tests that look at it: side, from, to.
    var seen: Set<Path> = []
    /// Changes a signal on its way.
    var tamper: (Int, Peer.Signal) -> Peer.Signal? = { $1 }
    /// Hands a signal in, in place of ``deliver(_:to:)``.
    var carry: ((Peer.Signal, Int) -> Peer.Signal?)?
    private var buffer = [UInt8](repeating: 0, count: 2048)

    // The stream.
    private var channels: [ChannelID?] = [nil, nil]
    var interval = Duration.milliseconds(50)
    private var nextMessage = Instant.distantFuture
    private(set) var sent: [UInt32] = [0, 0]
    private(set) var received: [UInt32] = [0, 0]
    /// When each side got a message last, and the longest time between two.
    private(set) var lastArrival: [Instant] = [.distantFuture, .distantFuture]
    var longestGap = [Duration.zero, Duration.zero]

    init(
        seed: UInt64, links: [[Link]]? = nil, styles: [Peer.Style] = [.polite, .impolite],
        roles: [Peer.Role] = [.offerer, .offerer], configure: (Int, inout Peer.Configuration) -> Void = { _, _ in }
    ) {
        self.seed = seed
        random = SeededGenerator(seed: seed)
        self.links = links ?? [[Link("192.0.2.1", port: 1000)], [Link("192.0.2.2", port: 2000)]]
        for side in 0..<2 {
            var configuration = Peer.Configuration()
            configuration.style = styles[side]
            configure(side, &configuration)
            peers.append(
                Peer(
                    role: roles[side], configuration: configuration,
                    candidates: self.links[side].enumerated().map { $1.candidate(65535 - UInt16($0)) },
                    provider: SimulatedContext(seed: random.next()), packets: packets,
                    random: SeededGenerator(seed: random.next()), now: now))
        }
    }

    // MARK: The stream

    func startStream() {
        for side in 0..<2 {
            channels[side] = try? peers[side].openChannel(ChannelParameters(label: "s"), negotiatedStream: 7, now: now)
        }
        nextMessage = now
    }

    func stopStream() { nextMessage = .distantFuture }

    private func sendMessages() {
        for side in 0..<2 {
            guard let channel = channels[side] else { continue }
            let number = sent[side]
            let bytes =
                [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: number >> $0) } + [UInt8](repeating: 7, count: 90)
            do throws(ChannelError) {
                try peers[side].send(channel, isText: false, Payload.copying(bytes.span.bytes), now: now)
                sent[side] += 1
            } catch {
                if error != .bufferFull { problems.append("send: \(error)") }
            }
        }
    }

    private func take(_ event: ChannelEvent, _ side: Int) {
        switch event {
        case .opened: break
        case .closed(_, let reason): if !peers[side].isClosed { problems.append("channel of \(side): \(reason)") }
        case .message(_, _, let payload):
            let bytes = payload.copied()
            let number = bytes.prefix(4).reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
            if number != received[side] {
                problems.append("side \(side) got \(number) for \(received[side])")
            }
            received[side] = number &+ 1
            if lastArrival[side] != .distantFuture {
                longestGap[side] = max(longestGap[side], now - lastArrival[side])
            }
            lastArrival[side] = now
        }
    }

    var isComplete: Bool { received[0] == sent[1] && received[1] == sent[0] }

    // MARK: Signals

    private func post(_ signal: Peer.Signal, from side: Int) {
        signals[side].append(signal)
        note("from", side, signal)
        guard post.isUp, !chance(post.loss), let signal = tamper(side, signal) else { return }
        for _ in 0..<(chance(post.duplication) ? 2 : 1) {
            var due = now + .milliseconds(Int64.random(in: post.delay, using: &random))
            if post.isOrdered {
                due = max(due, lastLetter[side])
                lastLetter[side] = due
            }
            // Behind all that are due no later.
            let position = letters.firstIndex { $0.due > due } ?? letters.count
            letters.insert(Letter(due: due, to: 1 - side, signal: signal), at: position)
        }
    }

    /// Prints signals.
    var trace = false

    private func note(_ word: String, _ side: Int, _ signal: Peer.Signal) {
        guard trace else { return }
        let text =
            switch signal {
            case .offer(let sdp, let generation, let isRestart):
                "offer \(generation) \(isRestart) \(sdp.split(separator: "\r\n").filter { $0.hasPrefix("o=") || $0.hasPrefix("a=setup") || $0.hasPrefix("a=ice-ufrag") })"
            case .answer(let sdp, let generation):
                "answer \(generation) \(sdp.split(separator: "\r\n").filter { $0.hasPrefix("o=") || $0.hasPrefix("a=setup") || $0.hasPrefix("a=ice-ufrag") })"
            case .candidate(let line, _, let ufrag): "candidate \(line ?? "end") \(ufrag)"
            }
        print("\(now.nanoseconds / 1_000_000) ms \(word) \(side): \(text)")
    }

    func deliver(_ signal: Peer.Signal, to side: Int) {
        note("to", side, signal)
        if let carry, carry(signal, side) == nil { return }
        do {
            switch signal {
            case .offer(let sdp, let generation, let isRestart):
                try peers[side].receive(
                    offer: SessionDescription(parsing: sdp), generation: generation, isRestart: isRestart, now: now)
            case .answer(let sdp, let generation):
                try peers[side].receive(answer: SessionDescription(parsing: sdp), generation: generation, now: now)
            case .candidate(let line, _, let ufrag): try peers[side].receive(candidate: line, ufrag: ufrag, now: now)
            }
        } catch {
            if !peers[side].isClosed { problems.append("side \(side) refuses: \(error)") }
        }
    }

    // MARK: Datagrams

    private func chance(_ probability: Double) -> Bool {
        probability > 0 && Double.random(in: 0..<1, using: &random) < probability
    }

    private func launch(_ bytes: [UInt8], _ side: Int, _ route: Transmit) {
        seen.insert(Path(local: route.from, remote: route.to, transport: route.transport))
        guard let link = links[side].first(where: { $0.address == route.from }) else { return }
        guard link.isUp, !chance(loss), !chance(link.loss) else { return }
        let from = link.nat?.outbound(route.from, route.to) ?? route.from
        let flight = Flight(due: now + link.delay, from: from, to: route.to, side: 1 - side, bytes: bytes)
        let position = flights.firstIndex { $0.due > flight.due } ?? flights.count
        flights.insert(flight, at: position)
    }

    private func land(_ flight: Flight) {
        for link in links[flight.side] where link.isUp {
            let inner = link.nat.map { $0.inbound(flight.to, from: flight.from) } ?? flight.to
            guard inner == link.address, !chance(link.loss) else { continue }
            _ = peers[flight.side].handle(
                datagram: flight.bytes.span.bytes, from: flight.from, to: link.address, now: now)
            return
        }
    }

    // MARK: Time

    func drain() {
        for side in 0..<2 {
            let peer = peers[side]
            while let event = peer.pollEvent() {
                switch event {
                case .signal(let signal): post(signal, from: side)
                case .path(let report): paths[side].append(report)
                case .restart(let report): restarts[side].append(report)
                case .ufragsChanged: break
                default: events[side].append(event)
                }
            }
            while let event = peer.pollChannelEvent(now: now) { take(event, side) }
            while true {
                var route: Transmit?
                let count = buffer.withUnsafeMutableBytes { bytes in
                    var output = OutputRawSpan(buffer: bytes, initializedCount: 0)
                    route = peer.pollTransmit(into: &output, now: now)
                    return output.finalize(for: bytes)
                }
                guard let route else { break }
                launch(Array(buffer[..<count]), side, route)
            }
        }
    }

    private func step(until limit: Instant) -> Bool {
        var next = peers.compactMap(\.nextTimeout).min() ?? .distantFuture
        if let first = flights.first { next = min(next, first.due) }
        if let first = letters.first { next = min(next, first.due) }
        next = min(next, nextMessage)
        guard next <= limit else { return false }
        now = max(now, next)
        while let first = flights.first, first.due <= now { land(flights.removeFirst()) }
        while let first = letters.first, first.due <= now {
            let letter = letters.removeFirst()
            deliver(letter.signal, to: letter.to)
        }
        if nextMessage <= now {
            sendMessages()
            nextMessage = now + interval
        }
        for peer in peers {
            if let due = peer.nextTimeout, due <= now {
                peer.handleTimeout(now: now)
            }
        }
        drain()
        settle()
        return true
    }

    /// What is due is done now, and not due again.
    private func settle() {
        for peer in peers {
            for _ in 0..<4 {
                guard let again = peer.nextTimeout, again <= now else { break }
                peer.handleTimeout(now: now)
                drain()
            }
            if let again = peer.nextTimeout, again <= now { problems.append("a timeout that stays at \(again)") }
        }
    }

    @discardableResult
    func run(for limit: Duration, until isDone: (World) -> Bool = { _ in false }) -> Bool {
        let end = now + limit
        drain()
        var steps = 0
        while !isDone(self) {
            guard step(until: end) else { break }
            steps += 1
            guard steps < 500_000 else {
                problems.append("no end")
                break
            }
        }
        let done = isDone(self)
        if !done { now = max(now, end) }
        return done
    }

    // MARK: How it stands

    var areConnected: Bool { peers.allSatisfy { $0.isConnected } }

    /// Both have the same generation, and nothing is under way or wanted.
    var isAtRest: Bool {
        peers.allSatisfy { $0.signaling.isStable && !$0.restarts.isActive && !$0.agent.isRestarting }
            && peers.allSatisfy { !$0.signaling.wantsExchange && !$0.signaling.wantsRestart } && match
    }

    /// Each knows the other one's credentials.
    var match: Bool {
        guard let first = peers[0].signaling.agreed, let second = peers[1].signaling.agreed else { return false }
        return first.local.ufrag == second.remote.iceUfrag && second.local.ufrag == first.remote.iceUfrag
    }

    /// And its number.
    var agree: Bool { match && peers[0].statistics.generation == peers[1].statistics.generation }

    func connect(from side: Int = 0) throws {
        startStream()
        try peers[side].negotiate(now: now)
        try #require(run(for: .seconds(20)) { $0.areConnected && $0.received[0] > 0 && $0.received[1] > 0 })
        try #require(run(for: .seconds(20)) { $0.isAtRest })
        longestGap = [.zero, .zero]
    }

    /// Ends the stream: everything that was sent has arrived.
    func finish(_ limit: Duration = .seconds(30)) -> Bool {
        stopStream()
        return run(for: limit) { $0.isComplete || !$0.problems.isEmpty } && problems.isEmpty
    }

    var state: String {
        (0..<2).map { side in
            let peer = peers[side]
            return
                "\(side): \(String(describing: peer.transportRole)) \(peer.agent.role) \(String(describing: peer.transport?.state)) open \(String(describing: peer.signaling.open?.generation)) agreed \(String(describing: peer.signaling.agreed?.generation)) settled \(String(describing: peer.signaling.settled?.generation)) schedule \(peer.restarts.phase) wants \(peer.signaling.wantsExchange) \(peer.signaling.wantsRestart) restarting \(peer.agent.isRestarting) path \(String(describing: peer.selectedPath)) sent \(sent[side]) received \(received[side]) closed \(peer.isClosed) last \(events[side].suffix(3))"
        }.joined(separator: "\n") + "\nat \(now.nanoseconds / 1_000_000) ms"
    }
}
