import CSystem
import Storage
import Wire

/// What a ``Stream`` tells. In each of these calls the stream may be written to and closed.
protocol StreamOwner: AnyObject {
    /// It is there, with TLS if that was asked for.
    func streamOpened(_ stream: Stream, now: Instant)
    /// Bytes, however they were cut on their way.
    func stream(_ stream: Stream, received bytes: RawSpan, now: Instant)
    /// It ended by itself; not told after ``Stream/close()``. ``Stream/state`` says why.
    func streamClosed(_ stream: Stream, now: Instant)
}

/// One TCP connection, with TLS on it if asked. It never waits, and tells its ``owner`` what happens, from ``ready(_:now:)``
/// and ``handleTimeout(now:)`` only.
///
/// What is written is kept until ``flush(now:)``: call it once after all that there is to write.
final class Stream {
    enum State {
        /// Until it is connected, then TLS's handshake.
        case connecting
        case securing
        case open
        /// Nil: by this side, or the other one ended it in good order. Otherwise `.turnUnreachable` before it was
        /// connected, `.turnTLSFailed` in the handshake, `.turnLost` after it; or what the system had too little of.
        case closed(Failure?)
    }

    /// TLS 1.2 or later; the server must prove that it is `host`, a name or an address in numbers.
    struct Security {
        var trust: TLSTrust
        var host: String
    }

    static let connectTimeout = Duration.seconds(10)
    static let writeLimit = 262_144
    /// As much is read in one turn, so that no connection keeps the others waiting.
    static let readLimit = 65_536
    /// TLS makes records of what is written as long as no more than this waits for the socket.
    private static let sealedLimit = 65_536

    weak var owner: (any StreamOwner)?
    let remote: SocketAddress
    /// This end, as soon as it is known.
    private(set) var local: SocketAddress
    private(set) var state: State
    private(set) var bytesSent: UInt64 = 0
    private(set) var bytesReceived: UInt64 = 0

    private let watch: any DescriptorWatch
    private let limit: Int
    private let host: String?
    private var descriptor: Int32
    private var tls: TLSSession?
    private var deadline: Instant?
    /// Written, and with TLS not yet sealed.
    private var plain = ByteQueue()
    /// Sealed, waiting for the socket.
    private var sealed = ByteQueue()
    private var waitsForRoom = true
    private var isFinishing = false

    private init(
        _ descriptor: Int32, _ local: SocketAddress, _ remote: SocketAddress, _ state: State,
        watch: any DescriptorWatch, limit: Int, host: String?
    ) {
        self.descriptor = descriptor
        self.local = local
        self.remote = remote
        self.state = state
        self.watch = watch
        self.limit = limit
        self.host = host
    }

    deinit { release() }

    /// Starts to connect to `remote`, from `ip` if that is not nil or unspecified.
    static func connect(
        to remote: SocketAddress, from ip: IPAddress? = nil, security: Security? = nil, watch: any DescriptorWatch,
        owner: (any StreamOwner)? = nil, limit: Int = writeLimit, now: Instant
    ) throws(Failure) -> Stream {
        var session: TLSSession?
        if let security {
            session = TLSSession(security.trust, host: security.host)
            guard session != nil else {
                throw Failure(.turnTLSFailed, "TLS with \"\(security.host.prefix(64))\": not a name for a certificate")
            }
        }
        let ip = ip.flatMap { $0.isUnspecified || $0.isIPv4 != remote.ip.isIPv4 ? nil : $0 }
        let local = SocketAddress(
            ip: ip ?? (remote.ip.isIPv4 ? .anyIPv4 : .anyIPv6), port: 0,
            scope: ip?.isLinkLocal == true ? remote.scope : 0)
        var (to, from) = (remote.system, local.system)
        let descriptor = unsafe cs_tcp_connect(&to, &from)
        guard descriptor >= 0 else { throw Stream.unreachable(remote, -descriptor) }
        let stream = Stream(
            descriptor, local, remote, .connecting, watch: watch, limit: limit, host: security?.host)
        stream.tls = session.take()
        stream.owner = owner
        stream.deadline = now + connectTimeout
        guard watch.watch(descriptor, writable: true, by: stream) else {
            throw Failure(.noDescriptors, "cannot watch a connection to \(remote)")
        }
        return stream
    }

    /// Takes over a connection that came in. Nil, and it is closed, if it cannot be watched.
    static func accepted(
        _ descriptor: Int32, local: SocketAddress, remote: SocketAddress, watch: any DescriptorWatch,
        owner: (any StreamOwner)? = nil, limit: Int = writeLimit
    ) -> Stream? {
        let stream = Stream(descriptor, local, remote, .open, watch: watch, limit: limit, host: nil)
        stream.owner = owner
        stream.waitsForRoom = false
        return watch.watch(descriptor, writable: false, by: stream) ? stream : nil
    }

    var isOpen: Bool { if case .open = state { true } else { false } }
    var isClosed: Bool { if case .closed = state { true } else { false } }
    /// Why it ended, if it did and not in good order.
    var failure: Failure? { if case .closed(let failure) = state { failure } else { nil } }
    /// Bytes that wait to be sent.
    var waiting: Int { plain.count &+ sealed.count }

    // MARK: Writing

    /// Queues a message, before it is open also. False, and nothing of it is kept, if too much waits already or it is
    /// closed.
    @discardableResult
    func write(_ bytes: RawSpan) -> Bool {
        guard !isClosed, !isFinishing, waiting &+ bytes.byteCount <= limit else { return false }
        plain.append(bytes)
        return true
    }

    /// Queues a message after its length (RFC 4571 section 2), as ``write(_:)``.
    @discardableResult
    func write(framed bytes: RawSpan) -> Bool {
        guard !isClosed, !isFinishing, waiting &+ bytes.byteCount &+ 2 <= limit,
            let length = UInt16(exactly: bytes.byteCount)
        else { return false }
        plain.append(bigEndian: length)
        plain.append(bytes)
        return true
    }

    /// Sends as much as the socket takes. The rest goes by itself when there is room.
    func flush(now: Instant) {
        guard isOpen, !waitsForRoom, waiting > 0 || isFinishing else { return }
        if let failure = transmit() { end(failure, now) }
    }

    /// Sends what was written, then tells the other side that nothing more will come. It still may send.
    func finish(now: Instant) {
        guard !isFinishing, !isClosed else { return }
        isFinishing = true
        flush(now: now)
    }

    /// Ends it: what was written and fits into the socket is still sent.
    func close() {
        guard !isClosed else { return }
        if isOpen {
            isFinishing = true
            if !waitsForRoom { _ = transmit() }
        }
        state = .closed(nil)
        release()
    }

    /// Nil, or why that was the end.
    private func transmit() -> Failure? {
        while true {
            if let failure = seal() { return failure }
            let isPlain = tls == nil
            let queued = isPlain ? plain.count : sealed.count
            guard queued > 0 else { break }
            let count = (isPlain ? plain : sealed).withBytes { bytes in
                unsafe bytes.withUnsafeBytes {
                    unsafe cs_stream_send(descriptor, $0.baseAddress, UInt64($0.count))
                }
            }
            if count == -Int64(CS_EAGAIN) { return waitForRoom(true) }
            guard count > 0 else { return lost(Int32(clamping: -count)) }
            bytesSent &+= UInt64(count)
            if isPlain { plain.removeFirst(Int(count)) } else { sealed.removeFirst(Int(count)) }
        }
        if isFinishing, isOpen { cs_tcp_finish(descriptor) }
        return waitForRoom(false)
    }

    private func seal() -> Failure? {
        guard tls != nil else { return nil }
        while isOpen, !plain.isEmpty, sealed.count < Stream.sealedLimit {
            let progress = plain.withBytes { bytes in
                tls?.write(bytes.extracting(first: Stream.sealedLimit)) ?? .later
            }
            guard case .done(let count) = progress else {
                if case .failed(let problem) = progress { return broken(problem) }
                return nil
            }
            plain.removeFirst(count)
            tls?.moveOutput(to: &sealed)
        }
        if isFinishing, plain.isEmpty, isOpen { tls?.finish() }
        tls?.moveOutput(to: &sealed)
        return nil
    }

    private func waitForRoom(_ waits: Bool) -> Failure? {
        guard waitsForRoom != waits else { return nil }
        waitsForRoom = waits
        guard watch.watch(descriptor, writable: waits, by: self) else {
            return Failure(.noDescriptors, "cannot watch the connection to \(remote)")
        }
        return nil
    }

    // MARK: Time

    var nextTimeout: Instant? { deadline }

    func handleTimeout(now: Instant) {
        guard let deadline, deadline <= now else { return }
        if case .securing = state {
            end(
                Failure(.turnTLSFailed, "\(tlsName): no answer within \(Stream.connectTimeout.milliseconds / 1000) s"),
                now)
        } else {
            let seconds = Stream.connectTimeout.milliseconds / 1000
            end(Failure(.turnUnreachable, "cannot connect to \(remote): no answer within \(seconds) s"), now)
        }
    }

    // MARK: Ends

    private func end(_ failure: Failure?, _ now: Instant) {
        guard !isClosed else { return }
        state = .closed(failure)
        release()
        owner?.streamClosed(self, now: now)
    }

    private func release() {
        deadline = nil
        plain.removeAll()
        sealed.removeAll()
        tls = nil
        guard descriptor >= 0 else { return }
        watch.unwatch(descriptor)
        cs_close(descriptor)
        descriptor = -1
    }

    private var tlsName: String { "TLS with \(host ?? "?") at \(remote)" }

    private func broken(_ problem: String) -> Failure {
        Failure(isOpen ? .turnLost : .turnTLSFailed, "\(tlsName): \(problem)")
    }

    private func lost(_ error: Int32) -> Failure {
        if case .securing = state { return broken(String(systemError: error)) }
        return Failure(.turnLost, "the connection to \(remote) broke: \(String(systemError: error))")
    }

    private static func unreachable(_ remote: SocketAddress, _ error: Int32) -> Failure {
        let status = Status(systemError: error)
        let isOurs = status == .noDescriptors || status == .noMemory
        return Failure(
            isOurs ? status : .turnUnreachable, "cannot connect to \(remote): \(String(systemError: error))")
    }
}

extension Stream: DescriptorOwner {
    func ready(_ descriptor: Int32, now: Instant) {
        guard descriptor == self.descriptor else { return }
        if case .connecting = state {
            guard isConnected(now) else { return }
        }
        if waitsForRoom, isOpen || tls != nil {
            // Perhaps there is room now: trying tells.
            if let failure = transmit() { return end(failure, now) }
        }
        receive(now)
    }

    /// It is connected, and TLS begins or it is open.
    private func isConnected(_ now: Instant) -> Bool {
        let error = cs_stream_result(descriptor)
        guard error == 0 else {
            end(Stream.unreachable(remote, error), now)
            return false
        }
        var address = cs_address()
        // Told too early, by the descriptor's owner before.
        guard cs_tcp_is_connected(descriptor) != 0 else { return false }
        if unsafe cs_tcp_local(descriptor, &address) == 0 { local = SocketAddress(address) }
        if tls != nil {
            state = .securing
            proceed(now)
        } else {
            open(now)
        }
        return !isClosed
    }

    private func open(_ now: Instant) {
        state = .open
        deadline = nil
        if let failure = transmit() { return end(failure, now) }
        owner?.streamOpened(self, now: now)
    }

    /// One step of the handshake.
    private func proceed(_ now: Instant) {
        let progress = tls?.handshake() ?? .later
        switch progress {
        case .done: open(now)
        case .later: if let failure = transmit() { end(failure, now) }
        case .closed: end(broken("it ended the handshake"), now)
        case .failed(let problem):
            // The alert says why.
            tls?.moveOutput(to: &sealed)
            _ = transmit()
            end(broken(problem), now)
        }
    }

    private func receive(_ now: Instant) {
        withUnsafeTemporaryAllocation(byteCount: Stream.readLimit, alignment: 16) { buffer in
            guard !isClosed else { return }
            let count = unsafe cs_stream_receive(descriptor, buffer.baseAddress, UInt64(buffer.count))
            guard count > 0 else {
                if count == -Int64(CS_EAGAIN) { return }
                return ended(Int32(clamping: -count), now)
            }
            bytesReceived &+= UInt64(count)
            let bytes = unsafe UnsafeRawBufferPointer(rebasing: buffer[..<Int(count)])
            guard tls != nil else {
                unsafe owner?.stream(self, received: bytes.bytes, now: now)
                return
            }
            guard unsafe tls?.take(bytes.bytes) == true else { return end(broken("no memory"), now) }
            unsafe unseal(buffer, now)
        }
    }

    private func unseal(_ buffer: UnsafeMutableRawBufferPointer, _ now: Instant) {
        if case .securing = state { proceed(now) }
        while isOpen {
            switch unsafe tls?.read(buffer) {
            case .done(let count)?:
                let bytes = unsafe UnsafeRawBufferPointer(rebasing: buffer[..<min(count, buffer.count)])
                unsafe owner?.stream(self, received: bytes.bytes, now: now)
            case .closed?: return end(nil, now)
            case .failed(let problem)?: return end(broken(problem), now)
            case .later?, nil:
                // TLS may have something to say by itself: an answer to a key update.
                tls?.moveOutput(to: &sealed)
                if !sealed.isEmpty, !waitsForRoom, let failure = transmit() { end(failure, now) }
                return
            }
        }
    }

    /// The other side has closed, or the connection is broken.
    private func ended(_ error: Int32, _ now: Instant) {
        if error != 0 { return end(lost(error), now) }
        if case .securing = state { return end(broken("it closed the connection in the handshake"), now) }
        end(nil, now)
    }
}
