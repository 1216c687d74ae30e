import STUN
import Wire

@testable import ICE

/// What a NAT makes of the port behind it.
enum Translation {
    case none
    /// The same outside for everybody; after so long without a packet out it is forgotten, and the next is another.
    case cone(lifetime: Duration)
    /// Another port for each destination.
    case symmetric
}

/// A STUN server with its faults.
final class SimulatedServer {
    enum Manner {
        case proper
        /// MAPPED-ADDRESS, and the two attributes that servers of RFC 3489 add.
        case old
        case error(Int)
        /// Answers from another port than it was asked at.
        case elsewhere
        /// Says it saw this address.
        case lies(SocketAddress)
        /// One of so many addresses, at random.
        case raves(UInt16)
        /// With an attribute that must be understood and cannot be.
        case demands
        case bytes([UInt8])
        case silent
    }

    let address: SocketAddress
    var manner = Manner.proper
    var delay = Duration.milliseconds(10)
    /// When requests came, with their transactions.
    var requests: [(at: Instant, id: TransactionID)] = []

    init(_ address: SocketAddress) { self.address = address }
}

/// One port behind one NAT, and servers, on virtual time.
final class MappingWorld {
    static let home = address("192.168.1.20", 40000)
    static let home6 = address("2001:db8:1::20", 40000)

    var now = Instant(nanoseconds: 1_000_000_000)
    var random: SeededGenerator
    let mapping: MappedAddresses
    var servers: [SimulatedServer] = []
    var translation = Translation.cone(lifetime: .seconds(3600))
    /// What the NAT shows, and counts up when it forgets.
    var outside = address("203.0.113.7", 50000)
    var loss = 0.0
    /// What arrives at the port: bytes, sender.
    private var inFlight: [(at: Instant, bytes: [UInt8], from: SocketAddress, to: SocketAddress)] = []
    private var lastOut: Instant?
    var changes: [(at: Instant, mapped: [MappedAddresses.Mapped])] = []
    var consumed = 0
    var refused = 0
    var sent = 0

    init(seed: UInt64 = 1, _ adjust: (inout MappedAddresses.Configuration) -> Void = { _ in }) {
        random = SeededGenerator(seed: seed)
        var configuration = MappedAddresses.Configuration()
        adjust(&configuration)
        mapping = MappedAddresses(configuration, random: SeededGenerator(seed: seed &+ 99))
        mapping.setLocalAddresses([MappingWorld.home.ip, MappingWorld.home6.ip], now: now)
    }

    /// A server at 198.51.100.`number`.
    @discardableResult
    func server(_ number: UInt8, _ manner: SimulatedServer.Manner = .proper, after milliseconds: Int64 = 10)
        -> SimulatedServer
    {
        add(SimulatedServer(address("198.51.100.\(number)", 3478)), manner, milliseconds)
    }

    @discardableResult
    func server6(_ number: UInt8, _ manner: SimulatedServer.Manner = .proper) -> SimulatedServer {
        add(SimulatedServer(address("2001:db8:f::\(number)", 3478)), manner, 10)
    }

    private func add(_ server: SimulatedServer, _ manner: SimulatedServer.Manner, _ milliseconds: Int64)
        -> SimulatedServer
    {
        server.manner = manner
        server.delay = .milliseconds(milliseconds)
        servers.append(server)
        return server
    }

    /// Each server by itself.
    func begin() {
        mapping.setServers(servers.map { [$0.address] }, now: now)
        flush()
    }

    var addresses: [SocketAddress] { mapping.mapped.map(\.address) }

    func since(_ start: Instant) -> [Int64] { changes.map { ($0.at - start).milliseconds } }

    func run(for span: Duration) {
        let end = now + span
        var turns = 0
        while true {
            turns += 1
            precondition(turns < 1_000_000, "no progress")
            let arrival = inFlight.map(\.at).min()
            guard let next = [arrival, mapping.nextTimeout].compactMap({ $0 }).min(), next <= end else {
                now = end
                return
            }
            now = max(now, next)
            while let index = inFlight.firstIndex(where: { $0.at <= now }) {
                let datagram = inFlight.remove(at: index)
                hand(datagram.bytes, from: datagram.from, to: datagram.to)
            }
            if let due = mapping.nextTimeout, due <= now { mapping.handleTimeout(now: now) }
            flush()
        }
    }

    /// Hands a datagram to the port, as it arrives.
    func hand(_ bytes: [UInt8], from: SocketAddress, to: SocketAddress) {
        if mapping.handle(datagram: bytes.span.bytes, from: from, to: to, now: now) {
            consumed += 1
        } else {
            refused += 1
        }
        flush()
    }

    func flush() {
        var storage = [UInt8](repeating: 0, count: 1200)
        while true {
            let packet: (to: SocketAddress, bytes: [UInt8])? = storage.withUnsafeMutableBytes { buffer in
                var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
                guard let to = mapping.pollTransmit(into: &output, now: now) else { return nil }
                let count = output.finalize(for: buffer)
                return (to, Array(buffer[..<count]))
            }
            guard let packet else { break }
            sent += 1
            send(packet.bytes, to: packet.to)
        }
        while mapping.pollEvent() != nil { changes.append((now, mapping.mapped)) }
    }

    private func send(_ bytes: [UInt8], to: SocketAddress) {
        guard !chance(loss), let server = servers.first(where: { $0.address == to }),
            let request = try? Message(bytes.span.bytes), request.messageClass == .request
        else { return }
        let id = request.transactionID
        server.requests.append((now, id))
        let local = to.ip.isIPv6 ? MappingWorld.home6 : MappingWorld.home
        guard let answer = answer(id, by: server, seen: translate(local, to)), !chance(loss) else { return }
        var from = to
        if case .elsewhere = server.manner { from.port += 1 }
        inFlight.append((now + server.delay, answer, from, local))
    }

    private func translate(_ local: SocketAddress, _ to: SocketAddress) -> SocketAddress {
        guard !local.ip.isIPv6 else { return local }
        switch translation {
        case .none: return local
        case .symmetric:
            return SocketAddress(ip: outside.ip, port: outside.port &+ UInt16(truncatingIfNeeded: to.ip.low))
        case .cone(let lifetime):
            if let lastOut, now - lastOut > lifetime { outside.port &+= 1 }
            lastOut = now
            return outside
        }
    }

    private func answer(_ id: TransactionID, by server: SimulatedServer, seen: SocketAddress) -> [UInt8]? {
        switch server.manner {
        case .proper, .elsewhere: return Answer.success(id, seen)
        case .old:
            return Answer.make(.success, id) { writer, output in
                writer.append(.mappedAddress, seen, to: &output)
                writer.append(AttributeType(rawValue: 0x0004), server.address, to: &output)
                writer.append(AttributeType(rawValue: 0x0005), server.address, to: &output)
            }
        case .error(let code):
            return Answer.make(.error, id) { writer, output in
                writer.append(errorCode: code, to: &output)
                writer.append(.alternateServer, address("198.51.100.99", 3478), to: &output)
            }
        case .lies(let address): return Answer.success(id, address)
        case .raves(let count):
            let port = 2000 &+ UInt16.random(in: 0..<count, using: &random)
            return Answer.success(id, SocketAddress(ip: outside.ip, port: port))
        case .demands:
            return Answer.make(.success, id) { writer, output in
                writer.append(.xorMappedAddress, seen, to: &output)
                writer.append(AttributeType(rawValue: 0x7ABC), 1 as UInt32, to: &output)
            }
        case .bytes(let bytes): return bytes
        case .silent: return nil
        }
    }

    private func chance(_ probability: Double) -> Bool {
        probability > 0 && Double.random(in: 0..<1, using: &random) < probability
    }
}

/// Answers made by hand.
enum Answer {
    static func success(_ id: TransactionID, _ seen: SocketAddress) -> [UInt8] {
        make(.success, id) { writer, output in writer.append(.xorMappedAddress, seen, to: &output) }
    }

    static func make(
        _ messageClass: MessageClass, method: UInt16 = MessageType.binding, _ id: TransactionID,
        _ body: (inout MessageWriter, inout OutputRawSpan) -> Void
    ) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: 1200) { buffer, count in
            let bytes = UnsafeMutableRawBufferPointer(buffer)
            var output = OutputRawSpan(buffer: bytes, initializedCount: 0)
            var writer = MessageWriter(messageClass, method: method, id: id, to: &output)
            body(&writer, &output)
            writer.finish(nil, fingerprint: false, to: &output)
            count = output.finalize(for: bytes)
        }
    }
}
