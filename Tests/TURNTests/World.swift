import STUN
import Wire

@testable import TURN

/// One client, servers, and the network between, on virtual time.
final class World {
    static let peer = address("198.51.100.7", 7000)
    static let peer6 = address("2001:db8:7::7", 7000)

    var now = Instant(nanoseconds: 1_000_000_000)
    var random: SeededGenerator
    var client: RelayClient
    var servers: [SimulatedServer]
    var server: SimulatedServer { servers[0] }
    /// The client's address as the servers see it.
    var home = address("192.0.2.9", 40000)
    let isStream: Bool
    var delay = Duration.milliseconds(20)
    var jitter = Duration.zero
    var loss = 0.0
    var duplication = 0.0
    var events: [RelayClient.Event] = []
    var delivered: [(from: SocketAddress, data: [UInt8])] = []
    var sent = 0
    /// Datagrams under way; on a stream, pieces of it in order.
    private var inFlight: [(at: Instant, bytes: [UInt8], client: SocketAddress, server: SocketAddress, up: Bool)] = []
    private var upstream: [UInt8] = []
    private var lastArrival: [Bool: Instant] = [:]

    init(
        seed: UInt64 = 1, transport: RelayTransport = .udp,
        credentials: RelayCredentials? = RelayCredentials(username: "alice", password: "secret"),
        _ adjust: (inout RelayClient.Configuration) -> Void = { _ in }
    ) {
        random = SeededGenerator(seed: seed)
        var configuration = RelayClient.Configuration()
        adjust(&configuration)
        let first = SimulatedServer(address("203.0.113.1", 3478))
        servers = [first]
        isStream = transport.isStream
        client = RelayClient(
            configuration, server: first.address, transport: transport, credentials: credentials,
            random: SeededGenerator(seed: seed &+ 77))
    }

    /// Starts, and runs until there is an allocation.
    func allocate() {
        client.start(now: now)
        flush()
        run(for: .seconds(2))
    }

    func permit(_ peer: SocketAddress = World.peer) {
        _ = client.permit(peer.ip, now: now)
        flush()
        run(for: .milliseconds(200))
    }

    var failures: [RelayClient.Failure] {
        events.compactMap { if case .failed(let failure) = $0 { failure } else { nil } }
    }

    var relayed: SocketAddress { client.allocation!.relayed.last! }

    @discardableResult
    func send(_ data: [UInt8], to peer: SocketAddress = World.peer) -> RelayClient.Outcome {
        flush()
        var outcome = RelayClient.Outcome.noRoom
        let bytes = written { output in
            outcome = client.send(data.span.bytes, to: peer, into: &output, now: now)
        }
        if outcome == .written { up(bytes, client.server) }
        flush()
        return outcome
    }

    func peerSends(_ data: [UInt8], from peer: SocketAddress = World.peer) {
        guard let (bytes, to) = server.fromPeer(data, from: peer, to: relayed, isStream: isStream, now: now) else {
            return
        }
        down(bytes, from: server.address, to: to)
    }

    func run(for span: Duration) {
        let end = now + span
        var turns = 0
        while true {
            turns += 1
            precondition(turns < 1_000_000, "no progress")
            let arrival = inFlight.map(\.at).min()
            guard let next = [arrival, client.nextTimeout].compactMap({ $0 }).min(), next <= end else {
                now = end
                return
            }
            now = max(now, next)
            while let index = inFlight.firstIndex(where: { $0.at <= now }) {
                let packet = inFlight.remove(at: index)
                if packet.up { arriveAtServer(packet.bytes, packet.client, packet.server) } else { arrive(packet) }
            }
            if let due = client.nextTimeout, due <= now { client.handleTimeout(now: now) }
            flush()
        }
    }

    func flush() {
        while true {
            var to: SocketAddress?
            let bytes = written { output in to = client.pollTransmit(into: &output, now: now) }
            guard let to else { break }
            sent += 1
            up(bytes, to)
        }
        while let event = client.pollEvent() { events.append(event) }
    }

    /// Bytes from nowhere.
    func inject(_ bytes: [UInt8], from: SocketAddress? = nil) -> RelayClient.Disposition {
        defer { flush() }
        return client.handle(datagram: bytes.span.bytes, from: from ?? client.server, now: now) { peer, data in
            delivered.append((peer, data.copied()))
        }
    }

    func injectStream(_ bytes: [UInt8]) {
        client.handle(stream: bytes.span.bytes, now: now) { peer, data in delivered.append((peer, data.copied())) }
        flush()
    }

    /// Another local address, or another stream.
    func move(_ number: UInt16, server other: SocketAddress? = nil) {
        home.port = number
        upstream = []
        inFlight.removeAll { _ in isStream }
        client.connectionChanged(server: other, now: now)
        flush()
    }

    private func up(_ bytes: [UInt8], _ to: SocketAddress) { enqueue(bytes, home, to, up: true) }

    func down(_ bytes: [UInt8], from: SocketAddress, to: SocketAddress) { enqueue(bytes, to, from, up: false) }

    private func enqueue(_ bytes: [UInt8], _ client: SocketAddress, _ server: SocketAddress, up: Bool) {
        guard isStream else {
            for _ in 0..<(chance(duplication) ? 2 : 1) where !chance(loss) {
                let extra = Duration.nanoseconds(Int64.random(in: 0...max(jitter.nanoseconds, 0), using: &random))
                inFlight.append((now + delay + extra, bytes, client, server, up))
            }
            return
        }
        // In pieces that have nothing to do with messages.
        var rest = bytes[...]
        while !rest.isEmpty {
            let piece = rest.prefix(Int.random(in: 1...max(1, min(rest.count, 900)), using: &random))
            rest = rest.dropFirst(piece.count)
            let at = max(now + delay, (lastArrival[up] ?? now) + .nanoseconds(1))
            lastArrival[up] = at
            inFlight.append((at, Array(piece), client, server, up))
        }
    }

    private func arriveAtServer(_ bytes: [UInt8], _ client: SocketAddress, _ to: SocketAddress) {
        guard let server = servers.first(where: { $0.address == to }) else { return }
        guard isStream else {
            if let answer = server.handle(bytes, from: client, now: now) { down(answer, from: to, to: client) }
            return
        }
        upstream += bytes
        while upstream.count >= 4 {
            let length = Int(upstream[2]) << 8 | Int(upstream[3])
            let whole = upstream[0] >> 6 == 1 ? 4 + (length + 3) / 4 * 4 : 20 + length
            guard upstream.count >= whole else { break }
            let message = Array(upstream.prefix(whole))
            upstream.removeFirst(whole)
            if let answer = server.handle(message, from: client, now: now) { down(answer, from: to, to: client) }
        }
    }

    private func arrive(_ packet: (at: Instant, bytes: [UInt8], client: SocketAddress, server: SocketAddress, up: Bool))
    {
        // What was sent to an address that the client has left does not arrive.
        guard packet.client == home else { return }
        if isStream { injectStream(packet.bytes) } else { _ = inject(packet.bytes, from: packet.server) }
    }

    private func chance(_ probability: Double) -> Bool {
        probability > 0 && Double.random(in: 0..<1, using: &random) < probability
    }
}
