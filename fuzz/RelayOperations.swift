// A TURN client, a host that does anything in any order, and a server that answers as the input says: rightly signed,
// not signed, or with any bytes.
import STUN
import TURN
import Wire

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzRelayOperations(_ data: UnsafePointer<UInt8>, _ size: Int) -> CInt {
    let bytes = unsafe UnsafeRawBufferPointer(start: data, count: min(size, 4096)).bytes
    let world = World(bytes.copied())
    world.run()
    return 0
}

private final class World {
    private let script: [UInt8]
    private var position = 0
    private var now = Instant(nanoseconds: 0)
    private let client: RelayClient
    private let isStream: Bool
    /// The last requests: type and transaction.
    private var requests: [(method: UInt16, id: TransactionID)] = []
    private let keys: [IntegrityKey]
    private var storage = [UInt8](repeating: 0, count: 4096)
    private var connections = 0

    init(_ script: [UInt8]) {
        self.script = script
        let first = script.first ?? 0
        var configuration = RelayClient.Configuration()
        configuration.families = [.ipv4, .ipv6, .both][Int(first >> 4) % 3]
        configuration.maximumPermissions = 8
        configuration.maximumChannels = 4
        configuration.permissionsPerRequest = 3
        isStream = first & 1 == 1
        client = RelayClient(
            configuration, server: SocketAddress(ip: IPAddress(v4: 0xC000_0201), port: 3478),
            transport: isStream ? .tls : .udp,
            credentials: first & 2 == 0 ? RelayCredentials(username: "a", password: "b") : nil,
            random: SeededGenerator(seed: 7))
        keys = [
            IntegrityKey(username: "a", realm: "r", password: "b", algorithm: .sha1),
            IntegrityKey(username: "a", realm: "r", password: "b", algorithm: .sha256),
            IntegrityKey(username: "c", realm: "r", password: "d", algorithm: .sha1),
        ]
        position = 1
    }

    private func next() -> UInt8 {
        guard position < script.count else { return 0 }
        defer { position += 1 }
        return script[position]
    }

    private func peer() -> SocketAddress {
        let choice = next()
        let ip = choice & 1 == 0 ? IPAddress(v4: 0xC633_6400 | UInt32(choice >> 2 & 15)) : IPAddress(high: 1, low: 2)
        return SocketAddress(ip: ip, port: UInt16(choice >> 6) + 1)
    }

    func run() {
        client.start(now: now)
        drain()
        while position < script.count {
            step(next())
            drain()
        }
        client.close(now: now)
        drain()
        // Whatever has happened, it ends.
        for _ in 0..<64 {
            guard let due = client.nextTimeout else { break }
            now = max(now, due)
            client.handleTimeout(now: now)
            drain()
        }
        check(client.nextTimeout == nil)
    }

    private func step(_ operation: UInt8) {
        switch operation % 16 {
        case 0: client.start(now: now)
        case 1:
            connections += 1
            client.connectionChanged(now: now)
        case 2: client.connectionClosed(now: now)
        case 3: _ = client.permit(peer().ip, now: now)
        case 4: client.forbid(peer().ip)
        case 5: _ = client.bindChannel(peer(), now: now)
        case 6: client.releaseChannel(peer())
        case 7: client.probe(now: now)
        case 8:
            let other = next() & 1 == 0
            client.setCredentials(
                RelayCredentials(
                    username: other ? "a" : "c", password: other ? "b" : "d", expires: now + .seconds(100)),
                now: now)
        case 9: send()
        case 10:
            now = now + .milliseconds(Int64(next()) * Int64(next()) * 20)
            if let due = client.nextTimeout, due <= now { client.handleTimeout(now: now) }
        case 11:
            if let due = client.nextTimeout {
                now = max(now, due)
                client.handleTimeout(now: now)
            }
        case 12:
            let count = Int(next())
            arrive((0..<count).map { _ in next() })
        case 13 where operation >= 128: client.reclaim(now: now)
        default: answer()
        }
    }

    private func arrive(_ bytes: [UInt8]) {
        if isStream {
            client.handle(stream: bytes.span.bytes, now: now) { _, data in check(data.byteCount <= 70_000) }
        } else {
            client.handle(datagram: bytes.span.bytes, from: client.server, now: now) { _, data in
                check(data.byteCount <= bytes.count)
            }
        }
    }

    private func send() {
        let data = [UInt8](repeating: 1, count: Int(next()) * 8)
        let peer = peer()
        storage.withUnsafeMutableBytes { buffer in
            var output = unsafe OutputRawSpan(buffer: buffer, initializedCount: 0)
            let outcome = client.send(data.span.bytes, to: peer, into: &output, now: now)
            check((outcome == .written) == (output.byteCount > 0))
        }
    }

    /// An answer to one of the last requests, or an indication.
    private func answer() {
        let flags = next()
        guard !requests.isEmpty else { return }
        let request = requests[Int(flags >> 5) % requests.count]
        let key = flags & 3 == 3 ? nil : keys[Int(flags & 3)]
        let kind = next()
        var message: [UInt8] = []
        let count = storage.withUnsafeMutableBytes { buffer in
            var output = unsafe OutputRawSpan(buffer: buffer, initializedCount: 0)
            let messageClass: MessageClass = kind & 1 == 0 ? .success : kind & 2 == 0 ? .error : .indication
            var writer = MessageWriter(
                messageClass, method: messageClass == .indication ? MessageType.data : request.method, id: request.id,
                to: &output)
            attributes(messageClass, &writer, &output)
            writer.finish(key, flags & 4 == 0 ? .sha1 : .sha256, to: &output)
            return unsafe output.finalize(for: buffer)
        }
        message = Array(storage[..<count])
        arrive(message)
    }

    private func attributes(
        _ messageClass: MessageClass, _ writer: inout MessageWriter, _ output: inout OutputRawSpan
    ) {
        let wishes = next()
        let address = SocketAddress(ip: IPAddress(v4: 0xCB00_7100 | UInt32(next())), port: 9)
        if messageClass == .error {
            let codes = [300, 400, 401, 403, 405, 420, 437, 438, 440, 441, 442, 443, 486, 500, 508, 600]
            writer.append(errorCode: codes[Int(next() & 15)], to: &output)
        }
        if messageClass == .indication {
            writer.append(.xorPeerAddress, peer(), to: &output)
            writer.append(.data, [1, 2, 3], to: &output)
        }
        if wishes & 1 == 0 { writer.append(.lifetime, UInt32(next()) << (next() & 24), to: &output) }
        if wishes & 2 == 0 { writer.append(.xorRelayedAddress, address, to: &output) }
        if wishes & 4 == 0 {
            writer.append(.xorRelayedAddress, SocketAddress(ip: IPAddress(high: 5, low: 5), port: 5), to: &output)
        }
        if wishes & 8 == 0 {
            writer.append(.realm, [UInt8(ascii: "r")], to: &output)
            writer.append(.nonce, [1, next()], to: &output)
        }
        if wishes & 16 != 0 { writer.append(.passwordAlgorithms, [0, next() & 3, 0, 0], to: &output) }
        if wishes & 32 != 0 { writer.append(.mobilityTicket, [1, 2], to: &output) }
        if wishes & 64 != 0 { writer.append(.alternateServer, address, to: &output) }
        if wishes & 128 != 0 { writer.append(AttributeType(rawValue: UInt16(next())), [], to: &output) }
    }

    private func drain() {
        for turn in 0... {
            check(turn < 1000)
            var to: SocketAddress?
            let count = storage.withUnsafeMutableBytes { buffer in
                var output = unsafe OutputRawSpan(buffer: buffer, initializedCount: 0)
                to = client.pollTransmit(into: &output, now: now)
                return unsafe output.finalize(for: buffer)
            }
            guard to != nil else { break }
            check(count > 0)
            note(Array(storage[..<count]))
        }
        for turn in 0... {
            check(turn < 1000)
            guard client.pollEvent() != nil else { break }
        }
    }

    private func note(_ bytes: [UInt8]) {
        guard let message = try? Message(bytes.span.bytes), message.messageClass == .request else { return }
        let id = message.transactionID
        if requests.contains(where: { $0.id == id }) { return }
        requests.insert((message.method, id), at: 0)
        if requests.count > 8 { requests.removeLast() }
    }
}

private func check(_ condition: Bool) { precondition(condition) }
