import DTLS
import Glibc
import Wire

func realNow() -> Instant {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Instant(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
}

/// Calls `body` with room for `capacity` bytes and gives what it appended; nil if it answered false.
func output(_ capacity: Int = 2048, _ body: (inout OutputRawSpan) -> Bool) -> [UInt8]? {
    var storage = [UInt8](repeating: 0, count: capacity)
    var result = false
    let count = storage.withUnsafeMutableBytes { buffer in
        var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
        result = body(&output)
        return output.finalize(for: buffer)
    }
    return result ? Array(storage.prefix(count)) : nil
}

extension SecureTransport {
    func receive(_ datagram: [UInt8], now: Instant) { receive(datagram.span.bytes, now: now) }
    func seal(_ plaintext: [UInt8]) -> [UInt8]? { output { seal(plaintext.span.bytes, into: &$0) } }
    func transmit() -> [UInt8]? { output { pollTransmit(into: &$0) } }
    func readAll() -> [[UInt8]] {
        var records: [[UInt8]] = []
        while let record = output(5000, { read(into: &$0) }) { records.append(record) }
        return records
    }
}

let certificates = (
    client: try! Certificate.make(wallClock: 1_800_000_000), server: try! Certificate.make(wallClock: 1_800_000_000),
    stranger: try! Certificate.make(wallClock: 1_800_000_000)
)
let contexts = (
    client: try! Context(certificate: certificates.client), server: try! Context(certificate: certificates.server),
    stranger: try! Context(certificate: certificates.stranger)
)

/// What happens to datagrams between the two ends.
struct Disturbance {
    var loss = 0.0
    var duplication = 0.0
    var reordering = 0.0
    var corruption = 0.0
}

/// Two transports and the way between them.
final class Link {
    let client: any SecureTransport
    let server: any SecureTransport
    var disturbance = Disturbance()
    /// Datagrams with their direction, as they were sent.
    var log: [(fromClient: Bool, bytes: [UInt8])] = []
    var readByClient: [[UInt8]] = []
    var readByServer: [[UInt8]] = []
    private var flying: [(toServer: Bool, bytes: [UInt8])] = []
    private var generator: SeededGenerator

    init(_ client: any SecureTransport, _ server: any SecureTransport, seed: UInt64 = 1) {
        self.client = client
        self.server = server
        generator = SeededGenerator(seed: seed)
    }

    convenience init(
        mtu: Int = 1200, initialRetransmission: Duration = .milliseconds(50), seed: UInt64 = 1,
        clientExpects: [Fingerprint]? = nil, serverExpects: [Fingerprint]? = nil
    ) {
        self.init(
            OpenSSLTransport(
                context: contexts.client, role: .client,
                expectedFingerprints: clientExpects ?? [certificates.server.fingerprint(.sha256)], mtu: mtu,
                initialRetransmission: initialRetransmission)!,
            OpenSSLTransport(
                context: contexts.server, role: .server,
                expectedFingerprints: serverExpects ?? [certificates.client.fingerprint(.sha256)], mtu: mtu,
                initialRetransmission: initialRetransmission)!, seed: seed)
    }

    private func chance(_ probability: Double) -> Bool {
        probability > 0 && Double.random(in: 0..<1, using: &generator) < probability
    }

    func put(_ bytes: [UInt8], fromClient: Bool) {
        log.append((fromClient, bytes))
        if chance(disturbance.loss) { return }
        var bytes = bytes
        if chance(disturbance.corruption) {
            bytes[Int.random(in: 0..<bytes.count, using: &generator)] ^= UInt8.random(in: 1...255, using: &generator)
        }
        for _ in 0..<(chance(disturbance.duplication) ? 2 : 1) {
            let place =
                chance(disturbance.reordering) ? Int.random(in: 0...flying.count, using: &generator) : flying.count
            flying.insert((fromClient, bytes), at: place)
        }
    }

    private func drain(_ transport: any SecureTransport) {
        if transport === client { readByClient += client.readAll() } else { readByServer += server.readAll() }
        while let datagram = transport.transmit() { put(datagram, fromClient: transport === client) }
    }

    /// Delivers until nothing is on its way.
    func settle(now: Instant) {
        drain(client)
        drain(server)
        while !flying.isEmpty {
            let (toServer, bytes) = flying.removeFirst()
            let receiver = toServer ? server : client
            receiver.receive(bytes, now: now)
            drain(receiver)
        }
    }

    func start(now: Instant) {
        server.start(now: now)
        client.start(now: now)
        settle(now: now)
    }

    var nextTimeout: Instant? { [client.nextTimeout, server.nextTimeout].compactMap { $0 }.min() }
    var isConnected: Bool { client.state == .connected && server.state == .connected }

    func handleTimeouts(now: Instant) {
        for end in [client, server] { if let due = end.nextTimeout, due <= now { end.handleTimeout(now: now) } }
        settle(now: now)
    }

    /// Runs on the real clock, waiting only for the transports' own timers, until `done` or too late.
    func run(for limit: Duration, until done: () -> Bool) {
        let end = realNow() + limit
        while !done(), realNow() < end {
            guard let next = nextTimeout else { return }
            let wait = (min(next, end) - realNow()).milliseconds + 1
            if wait > 0 { poll(nil, 0, Int32(wait)) }
            handleTimeouts(now: realNow())
        }
    }

    /// Runs on virtual time.
    func runVirtually(from start: Instant, for limit: Duration, until done: () -> Bool) {
        var now = start
        while !done(), let next = nextTimeout, next <= start + limit {
            now = max(now, next)
            handleTimeouts(now: now)
        }
    }
}
