import COpenSSL
import Glibc
import STUN
import TURN
import Wire

struct Overdue: Error, CustomStringConvertible {
    let what: String
    var description: String { "overdue: \(what)" }
}

/// Far beyond what anything here takes.
let patience = Wire.Duration.seconds(30)

func clock() -> Instant {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Instant(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
}

/// Waits for something to read, for so long at most.
func wait(for descriptor: Int32, _ limit: Wire.Duration, writing: Bool = false) {
    var entry = pollfd(fd: descriptor, events: Int16(writing ? POLLOUT : POLLIN), revents: 0)
    _ = poll(&entry, descriptor < 0 ? 0 : 1, Int32(max(0, min(limit.milliseconds + 1, 1000))))
}

/// A loopback address as the system wants it.
func withName<Result>(_ address: SocketAddress, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
    if address.ip.isIPv4 {
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_port = address.port.bigEndian
        name.sin_addr.s_addr = address.ip.v4Bits.bigEndian
        return withUnsafePointer(to: &name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
    }
    var name = sockaddr_in6()
    name.sin6_family = sa_family_t(AF_INET6)
    name.sin6_port = address.port.bigEndian
    withUnsafeMutableBytes(of: &name.sin6_addr) { bytes in
        bytes.storeBytes(of: address.ip.high.bigEndian, toByteOffset: 0, as: UInt64.self)
        bytes.storeBytes(of: address.ip.low.bigEndian, toByteOffset: 8, as: UInt64.self)
    }
    return withUnsafePointer(to: &name) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in6>.size)) }
    }
}

/// A socket that is connected to `address`, not blocking.
func connected(_ address: SocketAddress, stream: Bool) throws -> Int32 {
    let type = Int32((stream ? SOCK_STREAM : SOCK_DGRAM).rawValue) | Int32(SOCK_NONBLOCK.rawValue)
    let descriptor = socket(address.ip.isIPv4 ? AF_INET : AF_INET6, type, 0)
    let result = withName(address) { connect(descriptor, $0, $1) }
    if result == 0 { return descriptor }
    guard errno == EINPROGRESS else {
        close(descriptor)
        throw Overdue(what: "a connection to \(address)")
    }
    wait(for: descriptor, patience, writing: true)
    var problem: Int32 = 0
    var size = socklen_t(MemoryLayout<Int32>.size)
    getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &problem, &size)
    guard problem == 0 else {
        close(descriptor)
        throw Overdue(what: "a connection to \(address)")
    }
    return descriptor
}

/// Ports that nobody has right now, neither for streams nor for datagrams.
func freePorts(_ count: Int) -> [UInt16] {
    var descriptors: [Int32] = []
    defer { for descriptor in descriptors { close(descriptor) } }
    var ports: [UInt16] = []
    while ports.count < count {
        let stream = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        let datagrams = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
        descriptors += [stream, datagrams]
        _ = withName(address("127.0.0.1", 0)) { bind(stream, $0, $1) }
        var name = sockaddr_in()
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        withUnsafeMutablePointer(to: &name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { _ = getsockname(stream, $0, &size) }
        }
        let port = UInt16(bigEndian: name.sin_port)
        if withName(address("127.0.0.1", port), { bind(datagrams, $0, $1) }) == 0 { ports.append(port) }
    }
    return ports
}

/// coturn on the loopback interface, ended with this object.
final class RealServer {
    private(set) var port: UInt16 = 0
    private(set) var tlsPort: UInt16 = 0
    private var process: pid_t = 0
    private let folder: String
    private var arguments: [String] = []

    init(_ more: [String], users: [String] = ["--lt-cred-mech", "--user=alice:secret"]) throws {
        var template = Array("/tmp/turn-test-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Overdue(what: "a folder") }
        folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        try RealServer.writeCertificate(folder + "/certificate.pem")
        // A port that was free may not be so any more.
        for attempt in 1...5 as ClosedRange<Int> {
            choosePorts(more + users)
            do {
                try start(patience: .seconds(6))
                return
            } catch {
                end()
                if attempt == 5 { throw error }
            }
        }
    }

    private func choosePorts(_ more: [String]) {
        let ports = freePorts(2)
        (port, tlsPort) = (ports[0], ports[1])
        let relayPorts = UInt16.random(in: 200...490) * 100
        arguments =
            [
                "-n", "--listening-ip=127.0.0.1", "--listening-ip=::1", "--relay-ip=127.0.0.1", "--relay-ip=::1",
                "--listening-port=\(port)", "--tls-listening-port=\(tlsPort)", "--min-port=\(relayPorts)",
                "--max-port=\(relayPorts + 99)", "--realm=example.org", "--allow-loopback-peers", "--no-cli",
                "--log-file=\(folder)/log", "--simple-log", "--no-stdout-log", "--pidfile=\(folder)/pid",
                "--userdb=\(folder)/users", "--no-dtls", "--relay-threads=1",
                "--cert=\(folder)/certificate.pem", "--pkey=\(folder)/certificate.pem",
            ] + more
    }

    deinit {
        end()
        for name in ["certificate.pem", "log", "pid", "users"] { unlink(folder + "/" + name) }
        rmdir(folder)
    }

    func start(patience: Wire.Duration = patience) throws {
        let path = getenv("PATH").map { String(cString: $0) } ?? "/usr/bin"
        let program = path.split(separator: ":").map { "\($0)/turnserver" }.first { (file: String) in
            access(file, X_OK) == 0
        }
        guard let program else { throw Overdue(what: "turnserver, which is not installed and is needed here") }
        var words = ([program] + arguments).map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var files = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&files)
        defer { posix_spawn_file_actions_destroy(&files) }
        for descriptor in 0...2 as ClosedRange<Int32> {
            posix_spawn_file_actions_addopen(&files, descriptor, "/dev/null", O_RDWR, 0)
        }
        guard posix_spawn(&process, program, &files, nil, &words, environ) == 0 else { throw Overdue(what: "coturn") }
        let limit = clock() + patience
        while clock() < limit, process > 0 {
            if answersBinding() { return }
            if waitpid(process, nil, WNOHANG) != 0 { process = 0 }
        }
        throw Overdue(what: "coturn's port \(port): \(log)")
    }

    /// The end of what it wrote.
    private var log: String {
        guard let file = fopen(folder + "/log", "r") else { return "no log" }
        defer { fclose(file) }
        fseek(file, -600, SEEK_END)
        var bytes = [UInt8](repeating: 0, count: 600)
        let count = fread(&bytes, 1, bytes.count, file)
        return String(decoding: bytes[..<count], as: UTF8.self)
    }

    /// Its ports are there before those who serve them.
    private func answersBinding() -> Bool {
        // Another port each time: what it lost for one it may go on losing.
        guard let descriptor = try? connected(address("127.0.0.1", port), stream: false) else { return false }
        defer { close(descriptor) }
        let request = written { output in
            var writer = MessageWriter(.request, id: TransactionID(high: 1, low: 2), to: &output)
            writer.finish(nil, to: &output)
        }
        _ = request.withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, 0) }
        wait(for: descriptor, .milliseconds(200))
        var answer = [UInt8](repeating: 0, count: 1500)
        if answer.withUnsafeMutableBytes({ recv(descriptor, $0.baseAddress, $0.count, 0) }) > 0 { return true }
        // A refusal comes at once.
        wait(for: -1, .milliseconds(20))
        return false
    }

    /// At once, as a crash does.
    func end() {
        guard process > 0 else { return }
        kill(process, SIGKILL)
        waitpid(process, nil, 0)
        process = 0
    }

    func endpoint(_ transport: RelayTransport, isIPv6: Bool = false) -> SocketAddress {
        address(isIPv6 ? "::1" : "127.0.0.1", transport == .tls ? tlsPort : port)
    }

    private static func writeCertificate(_ path: String) throws {
        var key: OpaquePointer?
        var certificate: OpaquePointer?
        let now = Int64(Glibc.time(nil))
        guard certificate_make(now - 60, now + 86_400, &key, &certificate) == 0 else {
            throw Overdue(what: "a certificate")
        }
        defer { certificate_free(key, certificate) }
        var count = 0
        guard let pem = certificate_encode(key, certificate, &count) else { throw Overdue(what: "a certificate") }
        defer { certificate_free_pem(pem, count) }
        guard let file = fopen(path, "w") else { throw Overdue(what: "a file") }
        fwrite(pem, 1, count, file)
        fclose(file)
    }
}

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
        client.start(now: clock())
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
        let limit = clock() + patience
        while SSL_do_handshake(tls) != 1 {
            guard clock() < limit else { throw Overdue(what: "a TLS handshake") }
            wait(for: descriptor, .milliseconds(50))
        }
    }

    func move() throws {
        try open()
        client.connectionChanged(now: clock())
    }

    func send(_ data: [UInt8], to peer: SocketAddress) -> RelayClient.Outcome {
        flush()
        var outcome = RelayClient.Outcome.noRoom
        let bytes = written { output in
            outcome = client.send(data.span.bytes, to: peer, into: &output, now: clock())
        }
        if outcome == .written { write(bytes) }
        return outcome
    }

    private func write(_ bytes: [UInt8]) {
        var rest = bytes[...]
        let limit = clock() + patience
        while !rest.isEmpty, clock() < limit {
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
            let bytes = written { output in to = client.pollTransmit(into: &output, now: clock()) }
            guard to != nil else { break }
            write(bytes)
        }
        while let event = client.pollEvent() { events.append(event) }
    }

    /// One turn of the loop; waits for so long at most.
    func turn(_ limit: Wire.Duration = .milliseconds(20)) {
        flush()
        let due = client.nextTimeout.map { $0 - clock() } ?? limit
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
                    client.connectionClosed(now: clock())
                }
                break
            }
            let bytes = Array(buffer[..<count])
            let deliver = { (peer: SocketAddress, data: RawSpan) in self.delivered.append((peer, data.copied())) }
            if client.transport.isStream {
                client.handle(stream: bytes.span.bytes, now: clock(), deliver: deliver)
            } else {
                client.handle(datagram: bytes.span.bytes, from: client.server, now: clock(), deliver: deliver)
            }
        }
        if let due = client.nextTimeout, due <= clock() { client.handleTimeout(now: clock()) }
        flush()
    }

    /// Runs until it is as wanted.
    func run(_ what: String, with other: RealClient? = nil, until isDone: (RealClient) -> Bool) throws {
        let limit = clock() + patience
        while !isDone(self) {
            guard clock() < limit else { throw Overdue(what: "\(what); events \(events), \(client.statistics)") }
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
        client.start(now: clock())
    }

    func has(_ event: RelayClient.Event) -> Bool { events.contains(event) }
}
