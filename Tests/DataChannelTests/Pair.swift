import DataChannel
import SCTP
import Wire

/// What one end saw, in an order that can be compared.
enum Seen: Equatable, CustomStringConvertible {
    case opened(ChannelID, String, stream: UInt16, isRemote: Bool)
    case message(ChannelID, MessageKind, [UInt8])
    case low(ChannelID)
    case sendBufferAvailable
    case closed(ChannelID, ChannelCloseReason)
    case connected
    case over

    init?(_ event: ChannelSet.Event) {
        switch event {
        case .opened(let id, let parameters, let stream, let isRemote):
            self = .opened(id, parameters.label, stream: stream, isRemote: isRemote)
        case .message(let id, let kind, let payload): self = .message(id, kind, payload.copied())
        case .bufferedAmountLow(let id): self = .low(id)
        case .sendBufferAvailable: self = .sendBufferAvailable
        case .closed(let id, let reason): self = .closed(id, reason)
        case .association(.connected): self = .connected
        case .association(.aborted), .association(.closed): self = .over
        case .association: return nil
        }
    }

    var description: String {
        switch self {
        case .opened(let id, let label, let stream, let isRemote):
            "opened(\(id.number), \(label), stream \(stream)\(isRemote ? ", remote" : ""))"
        case .message(let id, let kind, let bytes): "message(\(id.number), \(kind), \(bytes.count) bytes)"
        case .low(let id): "low(\(id.number))"
        case .sendBufferAvailable: "sendBufferAvailable"
        case .closed(let id, let reason): "closed(\(id.number), \(reason))"
        case .connected: "connected"
        case .over: "over"
        }
    }
}

/// One end: an association and its channels.
final class End {
    let association: Association
    let channels: ChannelSet
    var seen: [Seen] = []
    /// The parameters of channels as they were opened.
    var parameters: [ChannelID: ChannelParameters] = [:]
    /// The association's own events when no channel set is attached.
    var raw: [Association.Event] = []
    var isAttached = false
    /// False: events stay inside.
    var polls = true

    init(seed: UInt64, association configuration: Association.Configuration, channels: ChannelSet.Configuration) {
        association = Association(configuration: configuration, random: SeededGenerator(seed: seed))
        self.channels = ChannelSet(configuration: channels)
    }

    func poll(_ now: Instant) {
        guard polls else { return }
        if isAttached {
            while let event = channels.pollEvent(now: now) {
                if case .opened(let id, let parameters, _, _) = event { self.parameters[id] = parameters }
                if let seen = Seen(event) { self.seen.append(seen) }
            }
        } else {
            while let event = association.pollEvent() { raw.append(event) }
        }
    }

    /// What was seen without the coming and going of the association.
    var channelEvents: [Seen] { seen.filter { $0 != .connected && $0 != .over && $0 != .sendBufferAvailable } }
    var messages: [[UInt8]] { seen.compactMap { if case .message(_, _, let bytes) = $0 { bytes } else { nil } } }
    var openedIDs: [ChannelID] { seen.compactMap { if case .opened(let id, _, _, _) = $0 { id } else { nil } } }
    var closes: [Seen] { seen.filter { if case .closed = $0 { true } else { false } } }
}

/// Two ends and a network between them, on virtual time.
final class Pair {
    var now = Instant(nanoseconds: 1_000_000_000)
    let client: End
    private(set) var server: End
    var loss = 0.0
    var duplication = 0.0
    var delay = Duration.milliseconds(10)
    var jitter = Duration.zero
    var packets = 0
    private var flying: [(arrival: Instant, order: Int, toServer: Bool, bytes: [UInt8])] = []
    private var generator: SeededGenerator

    init(
        seed: UInt64 = 1, client: ChannelSet.Configuration = .init(), server: ChannelSet.Configuration = .init(),
        association: Association.Configuration = .init(), serverAssociation: Association.Configuration? = nil
    ) {
        generator = SeededGenerator(seed: seed)
        self.client = End(seed: seed &* 2, association: association, channels: client)
        self.server = End(seed: seed &* 2 &+ 1, association: serverAssociation ?? association, channels: server)
    }

    /// Both ends attach and connect, as in WebRTC.
    func start(serverHasChannels: Bool = true) {
        client.isAttached = true
        client.channels.attach(client.association, parity: .even, peerMaximumMessageSize: 1 << 18, now: now)
        if serverHasChannels {
            server.isAttached = true
            server.channels.attach(server.association, parity: .odd, peerMaximumMessageSize: 1 << 18, now: now)
        }
        client.association.connect(now: now)
        server.association.connect(now: now)
        drain()
    }

    /// A server that has lost everything, as after a crash.
    func restartServer(seed: UInt64) {
        server = End(seed: seed, association: .init(), channels: .init())
        server.isAttached = true
        server.channels.attach(server.association, parity: .odd, peerMaximumMessageSize: 1 << 18, now: now)
        server.association.connect(now: now)
    }

    private func chance(_ probability: Double) -> Bool {
        probability > 0 && Double.random(in: 0..<1, using: &generator) < probability
    }

    func drain() {
        for end in [client, server] {
            end.poll(now)
            while let packet = packet(of: end) {
                packets += 1
                for _ in 0..<(chance(duplication) ? 2 : 1) where !chance(loss) {
                    let extra = jitter > .zero ? Int64.random(in: 0...jitter.nanoseconds, using: &generator) : 0
                    flying.append((now + delay + .nanoseconds(extra), packets, end === client, packet))
                }
            }
            end.poll(now)
        }
    }

    private func packet(of end: End) -> [UInt8]? {
        var storage = [UInt8](repeating: 0, count: 2048)
        var isWritten = false
        let count = storage.withUnsafeMutableBytes { buffer in
            var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
            isWritten = end.association.pollTransmit(into: &output, now: now)
            return output.finalize(for: buffer)
        }
        return isWritten ? Array(storage.prefix(count)) : nil
    }

    /// Runs until `done`, or nothing happens any more, or `limit` has passed.
    func run(for limit: Duration = .seconds(60), until done: () -> Bool = { false }) {
        let end = now + limit
        drain()
        while !done() {
            var next = flying.map(\.arrival).min() ?? .distantFuture
            for timeout in [client, server].compactMap({ $0.association.nextTimeout }) { next = min(next, timeout) }
            guard next <= end else { return }
            now = max(now, next)
            let due = flying.filter { $0.arrival <= now }.sorted { ($0.arrival, $0.order) < ($1.arrival, $1.order) }
            flying.removeAll { $0.arrival <= now }
            for packet in due {
                let receiver = packet.toServer ? server : client
                receiver.association.handle(packet: packet.bytes.span.bytes, now: now)
                drain()
            }
            for end in [client, server] {
                if let timeout = end.association.nextTimeout, timeout <= now { end.association.handleTimeout(now: now) }
            }
            drain()
        }
    }

    /// Long enough for everything but heartbeats.
    func settle() { run(for: .seconds(5)) }
}

func payload(_ bytes: [UInt8]) -> Payload { Payload.copying(bytes.span.bytes) }
func payload(_ text: String) -> Payload { payload(Array(text.utf8)) }

func failure<Success>(_ body: () throws(ChannelError) -> Success) -> ChannelError? {
    do throws(ChannelError) {
        _ = try body()
        return nil
    } catch {
        return error
    }
}
