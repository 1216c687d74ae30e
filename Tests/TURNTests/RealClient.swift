import COpenSSL
import Coturn
import Glibc
import STUN
import TURN
import Wire

/// A client with its socket: what an engine is to it.
final class RealClient {
    private(set) var client: RelayClient
    private var descriptor: Int32
    private var tls: OpaquePointer?
    private let context = SSL_CTX_new(TLS_client_method())
    private(set) var events: [RelayClient.Event] = []
    private(set) var delivered: [(from: SocketAddress, data: [UInt8])] = []
    private(set) var isClosed = false

    init(
        _ server: RealServer, _ transport: RelayTransport, isIPv6: Bool = false,
        credentials: RelayCredentials = RelayCredentials(username: "alice", password: "secret"),
        _ adjust: (inout RelayClient.Configuration) -> Void = { _ in }
    ) throws {
        var configuration = RelayClient.Configuration()
        adjust(&configuration)
        let endpoint = server.endpoint(transport, isIPv6: isIPv6)
        client = RelayClient(
            configuration, server: endpoint, transport: transport, credentials: credentials,
            random: SystemRandomNumberGenerator())
        descriptor = -1
        try open()
        client.start(now: monotonicTime())
    }

    deinit {
        SSL_free(tls)
        SSL_CTX_free(context)
        close(descriptor)
    }

    /// Another socket to the same server.
    func open() throws {
        SSL_free(tls)
        tls = nil
        if descriptor >= 0 { close(descriptor) }
        isClosed = false
        descriptor = try connected(client.server, stream: client.transport.isStream)
        guard client.transport == .tls else { return }
        tls = SSL_new(context)
        SSL_set_fd(tls, descriptor)
        SSL_set_connect_state(tls)
        let limit = monotonicTime() + patience
        while SSL_do_handshake(tls) != 1 {
            guard monotonicTime() < limit else { throw Overdue(what: "a TLS handshake") }
            wait(for: descriptor, .milliseconds(50))
        }
    }

    func move() throws {
        try open()
        client.connectionChanged(now: monotonicTime())
    }

    func send(_ data: [UInt8], to peer: SocketAddress) -> RelayClient.Outcome {
        flush()
        var outcome = RelayClient.Outcome.noRoom
        let bytes = written { output in
            outcome = client.send(data.span.bytes, to: peer, into: &output, now: monotonicTime())
        }
        if outcome == .written { write(bytes) }
        return outcome
    }

    private func write(_ bytes: [UInt8]) {
        var rest = bytes[...]
        let limit = monotonicTime() + patience
        while !rest.isEmpty, monotonicTime() < limit {
            let count = rest.withUnsafeBytes { buffer in
                tls == nil
                    ? Glibc.send(descriptor, buffer.baseAddress, buffer.count, Int32(MSG_NOSIGNAL))
                    : Int(SSL_write(tls, buffer.baseAddress, Int32(buffer.count)))
            }
            if count > 0 { rest = rest.dropFirst(count) } else if tls == nil, errno != EAGAIN { return }
        }
    }

    private func flush() {
        while true {
            var to: SocketAddress?
            let bytes = written { output in to = client.pollTransmit(into: &output, now: monotonicTime()) }
            guard to != nil else { break }
            write(bytes)
        }
        while let event = client.pollEvent() { events.append(event) }
    }

    /// One turn of the loop; waits for so long at most.
    func turn(_ limit: Wire.Duration = .milliseconds(20)) {
        flush()
        let due = client.nextTimeout.map { $0 - monotonicTime() } ?? limit
        wait(for: descriptor, min(limit, max(due, .zero)))
        var buffer = [UInt8](repeating: 0, count: 70_000)
        while !isClosed {
            let count = buffer.withUnsafeMutableBytes { bytes in
                tls == nil
                    ? recv(descriptor, bytes.baseAddress, bytes.count, 0)
                    : Int(SSL_read(tls, bytes.baseAddress, Int32(bytes.count)))
            }
            guard count > 0 else {
                let isOver =
                    tls == nil
                    ? count == 0 || errno != EAGAIN && errno != ECONNREFUSED
                    : SSL_get_error(tls, Int32(count)) != SSL_ERROR_WANT_READ
                if isOver, client.transport.isStream {
                    isClosed = true
                    client.connectionClosed(now: monotonicTime())
                }
                break
            }
            let bytes = Array(buffer[..<count])
            let deliver = { (peer: SocketAddress, data: RawSpan) in self.delivered.append((peer, data.copied())) }
            if client.transport.isStream {
                client.handle(stream: bytes.span.bytes, now: monotonicTime(), deliver: deliver)
            } else {
                client.handle(datagram: bytes.span.bytes, from: client.server, now: monotonicTime(), deliver: deliver)
            }
        }
        if let due = client.nextTimeout, due <= monotonicTime() { client.handleTimeout(now: monotonicTime()) }
        flush()
    }

    /// Runs until it is as wanted.
    func run(_ what: String, with other: RealClient? = nil, until isDone: (RealClient) -> Bool) throws {
        let limit = monotonicTime() + patience
        while !isDone(self) {
            guard monotonicTime() < limit else {
                throw Overdue(what: "\(what); events \(events), \(client.statistics)")
            }
            turn()
            other?.turn(.zero)
        }
    }

    func allocate() throws -> SocketAddress {
        try run("an allocation") { $0.client.allocation != nil || !$0.failures.isEmpty }
        guard let address = client.allocation?.relayed.last else { throw Overdue(what: "an allocation, \(events)") }
        return address
    }

    var failures: [RelayClient.Failure] {
        events.compactMap { if case .failed(let failure) = $0 { failure } else { nil } }
    }

    /// As a program does that was started again and has the same port.
    func forgetState() {
        client = RelayClient(
            server: client.server, transport: client.transport,
            credentials: RelayCredentials(username: "alice", password: "secret"), random: SystemRandomNumberGenerator())
        events = []
        client.start(now: monotonicTime())
    }

    func has(_ event: RelayClient.Event) -> Bool { events.contains(event) }
}
