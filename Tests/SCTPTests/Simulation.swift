import Wire

@testable import SCTP

/// What the path does to packets.
struct PathConditions {
    var delay: Duration = .milliseconds(20)
    /// Up to this much is added at random, which also reorders.
    var jitter: Duration = .zero
    /// Chances in a thousand.
    var loss = 0
    var duplication = 0
    var corruption = 0
    var reordering = 0
}

/// Two associations joined by a path, on virtual time. The same seed gives the same run.
final class Simulation {
    struct Packet {
        var at: Instant
        var order: Int
        var to: Int
        var bytes: [UInt8]
    }

    var generator: SeededGenerator
    var now = Instant(nanoseconds: 1_000_000_000)
    var conditions: PathConditions
    let ends: [Association]
    private(set) var packets: [Packet] = []
    private var sent = 0
    /// Events taken from each end.
    var events: [[Association.Event]] = [[], []]
    /// An end whose host does not take events.
    var isReading = [true, true]
    /// Called for every packet that an end sends; false drops it.
    var filter: ((Int, [UInt8]) -> Bool)?
    var transmitted = [0, 0]
    var peakReceiveBuffer = 0
    private var buffer = [UInt8](repeating: 0, count: 2048)

    init(
        seed: UInt64, conditions: PathConditions = PathConditions(),
        _ configuration: Association.Configuration = Association.Configuration(),
        other: Association.Configuration? = nil
    ) {
        generator = SeededGenerator(seed: seed)
        self.conditions = conditions
        ends = [
            Association(configuration: configuration, random: SeededGenerator(seed: seed &* 2 &+ 1)),
            Association(configuration: other ?? configuration, random: SeededGenerator(seed: seed &* 2 &+ 2)),
        ]
    }

    init(seed: UInt64, conditions: PathConditions = PathConditions(), ends: [Association]) {
        generator = SeededGenerator(seed: seed)
        self.conditions = conditions
        self.ends = ends
    }

    func connect() {
        for end in ends { end.connect(now: now) }
        drain()
    }

    /// Lets both ends send all they can and takes their events.
    func drain() {
        var goesOn = true
        while goesOn {
            goesOn = false
            for index in ends.indices {
                while let packet = poll(index) {
                    goesOn = true
                    carry(packet, from: index)
                }
                while isReading[index], let event = ends[index].pollEvent() {
                    events[index].append(event)
                    goesOn = true
                }
                peakReceiveBuffer = max(peakReceiveBuffer, ends[index].statistics.receiveBufferUsed)
            }
        }
    }

    func poll(_ index: Int) -> [UInt8]? {
        let end = ends[index]
        let count: Int = buffer.withUnsafeMutableBytes { bytes in
            var output = OutputRawSpan(buffer: bytes, initializedCount: 0)
            let any = end.pollTransmit(into: &output, now: now)
            let written = output.finalize(for: bytes)
            return any ? written : 0
        }
        return count > 0 ? Array(buffer[0..<count]) : nil
    }

    private func chance(_ perMille: Int) -> Bool {
        perMille > 0 && Int(generator.next() % 1000) < perMille
    }

    private func carry(_ packet: [UInt8], from index: Int) {
        transmitted[index] += 1
        if let filter, !filter(index, packet) { return }
        if chance(conditions.loss) { return }
        var bytes = packet
        if chance(conditions.corruption) {
            bytes[Int(generator.next() % UInt64(bytes.count))] ^= UInt8(1 << (generator.next() % 8))
        }
        deliver(bytes, to: 1 - index)
        if chance(conditions.duplication) { deliver(bytes, to: 1 - index) }
    }

    func deliver(_ bytes: [UInt8], to index: Int) {
        var delay = conditions.delay
        if conditions.jitter > .zero {
            delay = delay + Duration(nanoseconds: Int64(generator.next() % UInt64(conditions.jitter.nanoseconds)))
        }
        if chance(conditions.reordering) { delay = delay + conditions.delay * 2 }
        sent += 1
        packets.append(Packet(at: now + delay, order: sent, to: index, bytes: bytes))
    }

    /// Hands a packet made by hand to an end at once.
    func give(_ packet: PacketBuilder, to index: Int) {
        let bytes = packet.finished()
        ends[index].handle(packet: bytes.span.bytes, now: now)
    }

    /// One step in time: the next packet or time-out. False if nothing will happen any more.
    func step() -> Bool {
        var earliest: Int?
        for index in packets.indices {
            guard let best = earliest else {
                earliest = index
                continue
            }
            if (packets[index].at.nanoseconds, packets[index].order) < (
                packets[best].at.nanoseconds, packets[best].order
            ) {
                earliest = index
            }
        }
        let timeouts = ends.map { $0.nextTimeout }
        let nextTimeout = timeouts.compactMap { $0 }.min()
        if let earliest, nextTimeout.map({ packets[earliest].at <= $0 }) ?? true {
            let packet = packets.remove(at: earliest)
            now = max(now, packet.at)
            ends[packet.to].handle(packet: packet.bytes.span.bytes, now: now)
        } else if let nextTimeout {
            now = max(now, nextTimeout)
            for (index, timeout) in timeouts.enumerated() where timeout.map({ $0 <= now }) ?? false {
                ends[index].handleTimeout(now: now)
            }
        } else {
            return false
        }
        drain()
        return true
    }

    /// Runs until `condition` holds; false if it does not within `limit` of virtual time.
    @discardableResult
    func run(for limit: Duration = .seconds(600), until condition: () -> Bool) -> Bool {
        let deadline = now + limit
        drain()
        var steps = 0
        while !condition() {
            steps += 1
            guard now < deadline, steps < 200_000, step() else { return condition() }
        }
        return true
    }

    func run(for limit: Duration) {
        let deadline = now + limit
        drain()
        while let next = nextInstant, next <= deadline, step() {}
        now = max(now, deadline)
    }

    private var nextInstant: Instant? {
        (packets.map(\.at) + ends.compactMap { $0.nextTimeout }).min()
    }

    // MARK: What happened

    func messages(_ index: Int) -> [Association.Message] {
        events[index].compactMap { if case .message(let message) = $0 { message } else { nil } }
    }

    func connections(_ index: Int) -> Int {
        events[index].filter { if case .connected = $0 { true } else { false } }.count
    }

    var bothEstablished: Bool { ends.allSatisfy(\.isEstablished) }
    var bothClosed: Bool { ends.allSatisfy(\.isClosed) }

    func aborts(_ index: Int) -> [Association.AbortReason] {
        events[index].compactMap { if case .aborted(let reason) = $0 { reason } else { nil } }
    }

    func send(
        _ index: Int, stream: UInt16 = 0, _ bytes: [UInt8], ordered: Bool = true,
        reliability: Association.Reliability = .reliable
    ) throws(Association.SendError) {
        try ends[index].send(
            stream: stream, protocolIdentifier: 53, payload: .copying(bytes.span.bytes), ordered: ordered,
            reliability: reliability, now: now)
    }
}

/// Chunk types of a packet, in order.
func chunkTypes(_ packet: [UInt8]) -> [UInt8] {
    var types: [UInt8] = []
    var offset = 12
    while offset + 4 <= packet.count {
        types.append(packet[offset])
        let length = Int(packet[offset + 2]) << 8 | Int(packet[offset + 3])
        guard length >= 4 else { break }
        offset += (length + 3) & ~3
    }
    return types
}

/// Puts the right checksum into a packet made by hand.
func withChecksum(_ packet: [UInt8]) -> [UInt8] {
    var result = packet
    let checksum = packetChecksum(packet.span.bytes)
    for index in 0..<4 { result[8 + index] = UInt8(truncatingIfNeeded: checksum >> UInt32(24 - 8 * index)) }
    return result
}
