import DTLS
import DataChannel
import ICE
import SCTP
import SDP
import Testing
import Wire

@testable import Peer

/// What a simulated network does to datagrams. Probabilities are of one datagram.
struct Weather {
    var loss = 0.0
    var duplication = 0.0
    var corruption = 0.0
    var delay = Duration.milliseconds(10)
    /// Added to the delay at random: reorders.
    var jitter = Duration.zero
}

/// Two peers and the network between them, on virtual time.
final class Simulation {
    struct Flight {
        var due: Instant
        var from: SocketAddress
        var to: SocketAddress
        var bytes: [UInt8]
    }

    let seed: UInt64
    var random: SeededGenerator
    var weather: Weather
    var now = Instant(nanoseconds: 1_000_000_000)
    /// The next one to arrive comes last.
    private(set) var flights: [Flight] = []
    private var buffer = [UInt8](repeating: 0, count: 2048)
    let packets = PacketBuffer(capacity: 1 << 16)
    let offerer: Peer
    private(set) var answerer: Peer
    private let configuration: Peer.Configuration
    private let contexts: [SimulatedContext]
    /// Where each peer is bound, and how the network shows its addresses to others (a NAT's mapping).
    var addresses: [SocketAddress]
    var shown: [SocketAddress]
    var events: [[Peer.Event]] = [[], []]
    var paths: [[Peer.PathReport]] = [[], []]
    var channelEvents: [[ChannelEvent]] = [[], []]
    /// False: the host does not take messages.
    var takesMessages = [true, true]
    var isPartitioned = false
    var datagrams = 0
    /// Datagrams lost in any weather, by sender and their number, from 0.
    var swallowed: [Set<Int>] = [[], []]
    private(set) var sent = [0, 0]

    init(
        seed: UInt64, weather: Weather = Weather(), isLite: Bool = false, prefersActive: Bool = false,
        ipv6: Bool = true,
        configure: (inout Peer.Configuration) -> Void = { _ in }
    ) {
        self.seed = seed
        self.weather = weather
        random = SeededGenerator(seed: seed)
        addresses = [
            SocketAddress(ip: IPAddress(ipv6 ? "2001:db8::1" : "192.0.2.1")!, port: 1000),
            SocketAddress(ip: IPAddress(ipv6 ? "2001:db8::2" : "192.0.2.2")!, port: 2000),
        ]
        shown = addresses
        var configuration = Peer.Configuration()
        configure(&configuration)
        configuration.isLite = isLite
        configuration.prefersActive = prefersActive
        self.configuration = configuration
        contexts = [SimulatedContext(seed: random.next()), SimulatedContext(seed: random.next())]
        offerer = Peer(
            role: .offerer, configuration: configuration, candidates: Candidate.host([addresses[0]]),
            provider: contexts[0], packets: packets,
            random: SeededGenerator(seed: random.next()),
            now: now)
        answerer = Peer(
            role: .answerer, configuration: configuration, candidates: Candidate.host([addresses[1]]),
            provider: contexts[1], packets: packets,
            random: SeededGenerator(seed: random.next()),
            now: now)
    }

    private(set) lazy var peers = [offerer, answerer]

    static let ticket = "lrc1/" + String(repeating: "Ab3+", count: 20)
    static let ticketPassword = String(repeating: "pW0/", count: 8)

    /// Without any description: the offerer knows its server, the answerer is made for the first check.
    /// `dead` is where the ticket says the server is as well, and where nobody is.
    func resume(derivesInits: Bool, as certificate: Int = 0, dead: [SocketAddress] = []) throws {
        let inits = [DerivedInit(tag: 7, initialTSN: 0xFFFF_FFFE), DerivedInit(tag: 9, initialTSN: 1 << 31)]
        func derived(_ own: Int) -> Peer.DerivedInits? {
            derivesInits ? Peer.DerivedInits(local: inits[own], remote: inits[1 - own]) : nil
        }
        let credentials = try #require(
            Credentials(ufrag: Simulation.ticket, password: Simulation.ticketPassword))
        answerer = Peer(
            role: .answerer, configuration: configuration, candidates: Candidate.host([addresses[1]]),
            provider: contexts[1], packets: packets, random: SeededGenerator(seed: random.next()),
            returning: Peer.ReturningClient(
                credentials: credentials, clientUfrag: offerer.localUfrag,
                fingerprint: contexts[certificate].localFingerprint(.sha256), maximumMessageSize: 262_144,
                derivedInits: derived(1)),
            now: now)
        peers[1] = answerer
        try offerer.resume(
            Peer.ExpectedServer(
                ufrag: Simulation.ticket, password: Simulation.ticketPassword,
                fingerprint: contexts[1].localFingerprint(.sha256).description,
                candidates: Candidate.host(dead + [shown[1]]).map(\.text), maximumMessageSize: 262_144,
                derivedInits: derived(0)), now: now)
    }

    func negotiate() throws {
        let offer = try SessionDescription(parsing: try offerer.makeOffer())
        let answer = try SessionDescription(parsing: try answerer.answer(offer, now: now))
        try offerer.accept(answer, now: now)
    }

    private func chance(_ probability: Double) -> Bool {
        probability > 0 && Double.random(in: 0..<1, using: &random) < probability
    }

    /// Takes everything that the peers have to say, at this instant.
    func drain() {
        for index in 0..<2 {
            let peer = peers[index]
            while let event = peer.pollEvent() {
                if case .path(let report) = event { paths[index].append(report) } else { events[index].append(event) }
            }
            while takesMessages[index], let event = peer.pollChannelEvent(now: now) {
                channelEvents[index].append(event)
            }
            while true {
                var route: Transmit?
                let count = buffer.withUnsafeMutableBytes { bytes in
                    var output = OutputRawSpan(buffer: bytes, initializedCount: 0)
                    route = peer.pollTransmit(into: &output, now: now)
                    return output.finalize(for: bytes)
                }
                guard let route else { break }
                send(Array(buffer[..<count]), from: index, to: route.to)
            }
        }
    }

    private func send(_ bytes: [UInt8], from index: Int, to: SocketAddress) {
        datagrams += 1
        sent[index] += 1
        guard !swallowed[index].contains(sent[index] - 1) else { return }
        guard !isPartitioned, !chance(weather.loss) else { return }
        for _ in 0..<(chance(weather.duplication) ? 2 : 1) {
            var copy = bytes
            if chance(weather.corruption), !copy.isEmpty {
                let position = Int.random(in: 0..<copy.count, using: &random)
                copy[position] ^= UInt8.random(in: 1...255, using: &random)
            }
            let extra = weather.jitter > .zero ? Int64.random(in: 0..<weather.jitter.nanoseconds, using: &random) : 0
            launch(Flight(due: now + weather.delay + .nanoseconds(extra), from: shown[index], to: to, bytes: copy))
        }
    }

    private func launch(_ flight: Flight) {
        var (low, high) = (0, flights.count)
        while low < high {
            let middle = (low + high) / 2
            if flights[middle].due > flight.due { low = middle + 1 } else { high = middle }
        }
        flights.insert(flight, at: low)
    }

    /// One step, after everything was drained: to the next arrival or timeout. False if nothing will ever happen
    /// again, or only after `limit`.
    private func step(until limit: Instant) -> Bool {
        var next = peers.compactMap(\.nextTimeout).min() ?? .distantFuture
        if let arrival = flights.last?.due { next = min(next, arrival) }
        guard next <= limit else { return false }
        now = max(now, next)
        while let due = flights.last?.due, due <= now {
            let flight = flights.removeLast()
            guard let receiver = shown.firstIndex(of: flight.to) else { continue }
            _ = peers[receiver].handle(
                datagram: flight.bytes.span.bytes, from: flight.from, to: addresses[receiver], now: now)
        }
        for peer in peers {
            if let due = peer.nextTimeout, due <= now { peer.handleTimeout(now: now) }
        }
        drain()
        return true
    }

    /// Runs until `isDone`, at most for `limit` of virtual time. True if it was done.
    @discardableResult
    func run(for limit: Duration, until isDone: (Simulation) -> Bool = { _ in false }) -> Bool {
        let end = now + limit
        drain()
        var steps = 0
        while !isDone(self) {
            guard step(until: end) else { break }
            steps += 1
            if steps > 2_000_000 { break }
        }
        let done = isDone(self)
        if !done { now = max(now, end) }
        return done
    }

    /// Both send to where the other one is.
    var knowEachOther: Bool {
        (0..<2).allSatisfy { peers[$0].selectedPath?.remote == shown[1 - $0] }
    }

    var areConnected: Bool { offerer.isConnected && answerer.isConnected }

    func opened(_ index: Int) -> [ChannelOpened] {
        channelEvents[index].compactMap { if case .opened(let opened) = $0 { opened } else { nil } }
    }

    func messages(_ index: Int, on id: ChannelID? = nil) -> [[UInt8]] {
        channelEvents[index].compactMap { event in
            guard case .message(let channel, _, let payload) = event, id == nil || channel == id else { return nil }
            return payload.copied()
        }
    }
}
