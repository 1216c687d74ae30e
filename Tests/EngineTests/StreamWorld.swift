import COpenSSL
import CSystem
import Glibc
import Wire

@testable import Engine

struct StreamOverdue: Error, CustomStringConvertible {
    let what: String
    var description: String { "overdue: \(what)" }
}

/// What an engine's loop is to streams: descriptors that are watched, a clock, and others that want a turn.
final class StreamWorld {
    private let epoll = cs_epoll_create()
    let table: DescriptorTable
    /// Called once each turn.
    var others: [() -> Void] = []

    init() { table = DescriptorTable(epoll: epoll) }

    deinit { cs_close(epoll) }

    var now: Instant { Instant(nanoseconds: cs_monotonic_ns()) }

    func turn(_ milliseconds: Int64 = 5) {
        var tokens = [UInt64](repeating: 0, count: 64)
        let count = cs_epoll_wait(epoll, &tokens, 64, milliseconds * 1_000_000)
        for token in tokens.prefix(max(0, Int(count))) { _ = table.ready(Int32(truncatingIfNeeded: token), now: now) }
        for other in others { other() }
    }

    /// Runs until it is so; far beyond what anything here takes, it gives up.
    func run(_ what: @autoclosure () -> String, until isDone: () -> Bool) throws {
        let limit = now + .seconds(60)
        while !isDone() {
            guard now < limit else { throw StreamOverdue(what: what()) }
            turn()
        }
    }

    /// Some turns in which nothing more is to happen.
    func settle(_ turns: Int = 5) { for _ in 0..<turns { turn(1) } }
}

extension Stream {
    /// `#expect` cannot take spans.
    @discardableResult
    func put(_ bytes: [UInt8]) -> Bool { write(bytes.span.bytes) }
}

/// Remembers what a stream tells.
final class StreamRecorder: StreamOwner {
    var opened = 0
    var closed = 0
    var bytes: [UInt8] = []
    var failure: Failure?
    var onOpen: (Stream) -> Void = { _ in }
    var onBytes: (Stream) -> Void = { _ in }

    func streamOpened(_ stream: Stream, now: Instant) {
        opened += 1
        onOpen(stream)
    }

    func stream(_ stream: Stream, received bytes: RawSpan, now: Instant) {
        self.bytes += bytes.copied()
        onBytes(stream)
    }

    func streamClosed(_ stream: Stream, now: Instant) {
        closed += 1
        failure = stream.failure
    }
}

/// A socket without this library's code, which never waits.
final class RawSocket {
    let descriptor: Int32

    init(_ descriptor: Int32) {
        self.descriptor = descriptor
        _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
    }

    deinit { close(descriptor) }

    /// Listens on a loopback address; how small its buffers are is up to the test.
    static func listening(_ ip: String = "127.0.0.1", port: UInt16 = 0, receiveBuffer: Int32 = 0) -> RawSocket {
        let address = IPAddress(ip)!
        let made = RawSocket(
            socket(address.isIPv4 ? AF_INET : AF_INET6, Int32(SOCK_STREAM.rawValue), 0))
        var one: Int32 = 1
        setsockopt(made.descriptor, SOL_SOCKET, SO_REUSEADDR, &one, 4)
        if receiveBuffer > 0 {
            var size = receiveBuffer
            setsockopt(made.descriptor, SOL_SOCKET, SO_RCVBUF, &size, 4)
        }
        _ = withSystemName(SocketAddress(ip: address, port: port)) { bind(made.descriptor, $0, $1) }
        listen(made.descriptor, 16)
        return made
    }

    static func connected(_ address: SocketAddress, from: String? = nil) -> RawSocket? {
        let descriptor = socket(address.ip.isIPv4 ? AF_INET : AF_INET6, Int32(SOCK_STREAM.rawValue), 0)
        if let from {
            _ = withSystemName(SocketAddress(ip: IPAddress(from)!, port: 0)) { bind(descriptor, $0, $1) }
        }
        // On the loopback interface that does not wait.
        guard withSystemName(address, { connect(descriptor, $0, $1) }) == 0 else {
            close(descriptor)
            return nil
        }
        return RawSocket(descriptor)
    }

    var local: SocketAddress {
        var address = cs_address()
        cs_tcp_local(descriptor, &address)
        return SocketAddress(address)
    }

    func accepted() -> (socket: RawSocket, remote: SocketAddress)? {
        var (local, remote) = (cs_address(), cs_address())
        let descriptor = cs_tcp_accept(self.descriptor, &local, &remote)
        return descriptor >= 0 ? (RawSocket(descriptor), SocketAddress(remote)) : nil
    }

    /// As much as goes; how much that was.
    @discardableResult
    func write(_ bytes: some Sequence<UInt8>) -> Int {
        Array(bytes).withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
    }

    /// Nil: the other side has closed. Empty: nothing there.
    func read(_ limit: Int = 65_536) -> [UInt8]? {
        var buffer = [UInt8](repeating: 0, count: limit)
        let count = recv(descriptor, &buffer, limit, 0)
        if count == 0 || count < 0 && errno != EAGAIN { return nil }
        return Array(buffer.prefix(max(0, count)))
    }

    /// Closes so that the other side gets a reset.
    func reset() {
        var setting = linger(l_onoff: 1, l_linger: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &setting, socklen_t(MemoryLayout<linger>.size))
    }

    func finish() { shutdown(descriptor, Int32(SHUT_WR)) }
}

func withSystemName<Result>(_ address: SocketAddress, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result
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
