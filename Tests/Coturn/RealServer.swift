import COpenSSL
import Glibc
package import TURN
package import Wire

package struct Overdue: Error, CustomStringConvertible {
    package let what: String

    package init(what: String) { self.what = what }

    package var description: String { "overdue: \(what)" }
}

/// Far beyond what anything here takes.
package let patience = Wire.Duration.seconds(30)

package func monotonicTime() -> Instant {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Instant(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
}

/// Waits for something to read, for so long at most.
package func wait(for descriptor: Int32, _ limit: Wire.Duration, writing: Bool = false) {
    var entry = pollfd(fd: descriptor, events: Int16(writing ? POLLOUT : POLLIN), revents: 0)
    _ = poll(&entry, descriptor < 0 ? 0 : 1, Int32(max(0, min(limit.milliseconds + 1, 1000))))
}

/// A loopback address as the system wants it.
private func withName<Result>(_ address: SocketAddress, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result)
    -> Result
{
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
package func connected(_ address: SocketAddress, stream: Bool) throws -> Int32 {
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

private func loopback(_ port: UInt16) -> SocketAddress { SocketAddress(ip: IPAddress(v4: 0x7F00_0001), port: port) }

/// Ports that nobody has right now, neither for streams nor for datagrams.
private func freePorts(_ count: Int) -> [UInt16] {
    var descriptors: [Int32] = []
    defer { for descriptor in descriptors { close(descriptor) } }
    var ports: [UInt16] = []
    while ports.count < count {
        let stream = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        let datagrams = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
        descriptors += [stream, datagrams]
        _ = withName(loopback(0)) { bind(stream, $0, $1) }
        var name = sockaddr_in()
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        withUnsafeMutablePointer(to: &name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { _ = getsockname(stream, $0, &size) }
        }
        let port = UInt16(bigEndian: name.sin_port)
        if withName(loopback(port), { bind(datagrams, $0, $1) }) == 0 { ports.append(port) }
    }
    return ports
}

/// coturn on the loopback interface, ended with this object.
package final class RealServer {
    package private(set) var port: UInt16 = 0
    package private(set) var tlsPort: UInt16 = 0
    private var process: pid_t = 0
    private let folder: String
    private var arguments: [String] = []

    package init(
        _ more: [String], users: [String] = ["--lt-cred-mech", "--user=alice:secret"],
        certificate: (pem: String, key: String)? = nil
    ) throws {
        var template = Array("/tmp/turn-test-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Overdue(what: "a folder") }
        folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        if certificate == nil { try RealServer.writeCertificate(folder + "/certificate.pem") }
        let own = folder + "/certificate.pem"
        let files = ["--cert=\(certificate?.pem ?? own)", "--pkey=\(certificate?.key ?? own)"]
        // A port that was free may not be so any more.
        for attempt in 1...5 as ClosedRange<Int> {
            choosePorts(more + users + files)
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
            ] + more
    }

    deinit {
        end()
        for name in ["certificate.pem", "log", "pid", "users"] { unlink(folder + "/" + name) }
        rmdir(folder)
    }

    package func start(patience: Wire.Duration = patience) throws {
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
        let limit = monotonicTime() + patience
        while monotonicTime() < limit, process > 0 {
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
        guard let descriptor = try? connected(loopback(port), stream: false) else { return false }
        defer { close(descriptor) }
        // RFC 8489 section 5: a Binding request without attributes.
        let request: [UInt8] = [0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42] + [UInt8](repeating: 7, count: 12)
        _ = request.withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, 0) }
        wait(for: descriptor, .milliseconds(200))
        var answer = [UInt8](repeating: 0, count: 1500)
        if answer.withUnsafeMutableBytes({ recv(descriptor, $0.baseAddress, $0.count, 0) }) > 0 { return true }
        // A refusal comes at once.
        wait(for: -1, .milliseconds(20))
        return false
    }

    /// At once, as a crash does.
    package func end() {
        guard process > 0 else { return }
        kill(process, SIGKILL)
        waitpid(process, nil, 0)
        process = 0
    }

    /// It holds everything, and answers nothing.
    package func freeze() { if process > 0 { kill(process, SIGSTOP) } }
    package func thaw() { if process > 0 { kill(process, SIGCONT) } }

    package func endpoint(_ transport: RelayTransport, isIPv6: Bool = false) -> SocketAddress {
        SocketAddress(
            ip: isIPv6 ? IPAddress(high: 0, low: 1) : IPAddress(v4: 0x7F00_0001),
            port: transport == .tls ? tlsPort : port)
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
