import CSystem
import ICE
import STUN
import Storage
import Wire

/// Datagrams over TCP for all peers of an engine (RFC 6544): one listening socket, and connections opened on demand. Each
/// datagram has its length before it (RFC 4571).
///
/// A connection that came in is trusted by nobody until ``trust(_:for:)``: it must begin with a binding request, and has
/// ``Settings/trustTimeout`` to send one that is accepted. Belongs to the loop: keep ``nextTimeout``, and after each turn
/// call ``flush(now:)`` and take ``pollClosed()`` until it is nil.
final class StreamPort {
    struct Settings {
        /// Of both kinds. When there are as many, the oldest one that nobody trusts makes room.
        var maximumConnections = 4096
        /// That nobody trusts yet, from one IPv4 address or one /64 of IPv6.
        var maximumUntrusted = 64
        /// Of one peer, opened and trusted.
        var maximumPerPeer = 32
        var trustTimeout = Duration.seconds(10)
        /// What waits in one connection; whole datagrams beyond it are dropped, as UDP does.
        var queueLimit = 1 << 20
        /// The same until it is open, and as long as nobody trusts it.
        var openingQueueLimit = 65_536
        /// RFC 6347 section 4.1.1 and RFC 5246 section 6.2.3: nothing that peers send is longer than a record of DTLS.
        var maximumDatagram = 18_445
        /// Of those that nobody trusts.
        var maximumCheck = 2048
        var acceptsPerTurn = 64
        /// How long nothing is accepted when the system has no descriptors left.
        var acceptPause = Duration.milliseconds(500)
    }

    struct Statistics: Equatable {
        var accepted: UInt64 = 0
        var opened: UInt64 = 0
        /// Came in beyond a limit.
        var refused: UInt64 = 0
        /// Closed because what they sent was not this protocol, or nothing for ``Settings/trustTimeout``.
        var malformed: UInt64 = 0
        var expired: UInt64 = 0
        /// Could not be opened.
        var unreachable: UInt64 = 0
        var datagramsSent: UInt64 = 0
        var datagramsReceived: UInt64 = 0
        /// Not sent: no connection, or one with too much to send already.
        var datagramsDropped: UInt64 = 0
        /// Over the network, lengths included, both counted when a connection ends or is asked for.
        var bytesSent: UInt64 = 0
        var bytesReceived: UInt64 = 0
    }

    /// A connection that ended by itself.
    struct Closed {
        var path: Path
        /// Who opened it, or whom it is trusted for; 0: nobody.
        var peer: UInt64
        /// Nil: the other side ended it in good order.
        var failure: Failure?
    }

    /// RFC 6544 section 4.5: what an agent says its port is where it opens connections.
    static let discardPort: UInt16 = 9

    /// A datagram arrived: on which path, and for which peer: who opened the connection, or whom it is trusted for; 0: not
    /// known, and then it is STUN. It may send, trust and release in there.
    var deliver: (_ datagram: RawSpan, _ path: Path, _ peer: UInt64, _ now: Instant) -> Void = { _, _, _, _ in }

    /// The listening socket's, if there is one.
    private(set) var port: UInt16?
    var count: Int { connections.count }

    private let settings: Settings
    private let watch: any DescriptorWatch
    private var listener: Int32 = -1
    private var isListenerWatched = false
    private var acceptAgainAt: Instant?
    private var connections: [Key: StreamConnection] = [:]
    private var byPeer: [UInt64: [StreamConnection]] = [:]
    private var untrustedBySource: [IPAddress: Int] = [:]
    private var untrusted = Deadlines<StreamConnection>()
    private var opening = Deadlines<StreamConnection>()
    private var dirty: [StreamConnection] = []
    private var closed = Queue<Closed>()
    private var counters = Statistics()
    private var isClosed = false

    /// Two peers may each have a connection of their own to one place, from the same port 9.
    private struct Key: Hashable {
        var path: Path
        var peer: UInt64
    }

    init(watch: any DescriptorWatch, settings: Settings = Settings()) {
        self.watch = watch
        self.settings = settings
    }

    deinit { close() }

    // MARK: Listening

    /// Listens, on `ip` or everywhere. `port` 0: `preferred`, or if that is taken any free one.
    func listen(on ip: IPAddress?, port wanted: UInt16, preferring preferred: UInt16 = 0) throws(Failure) {
        guard listener < 0, !isClosed else { return }
        let ip = ip ?? .anyIPv6
        var result = Int32(-CS_EADDRINUSE)
        var number: UInt16 = 0
        for choice in wanted != 0 ? [wanted] : preferred != 0 ? [preferred, 0] : [0] {
            var address = SocketAddress(ip: ip, port: choice).system
            result = unsafe cs_tcp_listen(&address, &number)
            if result >= 0 { break }
        }
        guard result >= 0 else {
            let reason = String(systemError: -result)
            throw Failure(Status(systemError: -result), "cannot open TCP port \(wanted) on \(ip): \(reason)")
        }
        guard watch.watch(result, writable: false, by: self) else {
            cs_close(result)
            throw Failure(.noDescriptors, "cannot watch the TCP port: the limit of open files is reached")
        }
        listener = result
        isListenerWatched = true
        port = number
    }

    private func accept(_ now: Instant) {
        for _ in 0..<settings.acceptsPerTurn {
            var (local, remote) = (cs_address(), cs_address())
            let descriptor = unsafe cs_tcp_accept(listener, &local, &remote)
            guard descriptor >= 0 else {
                if descriptor != -Int32(CS_EAGAIN) { pauseAccepting(now) }
                return
            }
            admit(descriptor, SocketAddress(local), SocketAddress(remote), now)
        }
    }

    /// Nothing can be accepted (accept(2): no descriptors, no memory), and the socket goes on being readable.
    private func pauseAccepting(_ now: Instant) {
        guard isListenerWatched else { return }
        watch.unwatch(listener)
        isListenerWatched = false
        acceptAgainAt = now + settings.acceptPause
    }

    private func acceptAgain(_ now: Instant) {
        isListenerWatched = watch.watch(listener, writable: false, by: self)
        acceptAgainAt = isListenerWatched ? nil : now + settings.acceptPause
    }

    private func admit(_ descriptor: Int32, _ local: SocketAddress, _ remote: SocketAddress, _ now: Instant) {
        let source = StreamPort.source(remote.ip)
        guard untrustedBySource[source, default: 0] < settings.maximumUntrusted, makesRoom(now) else {
            counters.refused &+= 1
            return cs_close(descriptor)
        }
        guard
            let stream = Stream.accepted(
                descriptor, local: local, remote: remote, watch: watch, limit: settings.queueLimit)
        else {
            counters.refused &+= 1
            return
        }
        let path = Path(local: local, remote: remote, transport: .tcp)
        let connection = StreamConnection(stream, path, peer: 0, isTrusted: false, port: self)
        stream.owner = connection
        if let previous = connections[Key(path: path, peer: 0)] { drop(previous) }
        connections[Key(path: path, peer: 0)] = connection
        untrustedBySource[source, default: 0] += 1
        untrusted.set(connection, now + settings.trustTimeout)
        counters.accepted &+= 1
    }

    /// Whether one more connection may be.
    private func makesRoom(_ now: Instant) -> Bool {
        guard connections.count >= settings.maximumConnections else { return true }
        guard let oldest = untrusted.popDue(at: .distantFuture) else { return false }
        counters.expired &+= 1
        drop(oldest, tells: true)
        return true
    }

    /// Whoever has one address of an IPv6 network has all of it.
    private static func source(_ ip: IPAddress) -> IPAddress { ip.isIPv4 ? ip : IPAddress(high: ip.high, low: 0) }

    // MARK: Using

    /// Queues a datagram. Where the path's local port is 9 (RFC 6544 section 4.5), over the connection that `peer` opened,
    /// which is opened now if there is none and `opens` is true. False if it is dropped.
    @discardableResult
    func send(_ datagram: RawSpan, over path: Path, peer: UInt64, opens: Bool, now: Instant) -> Bool {
        guard
            let connection = connections[key(path, peer)]
                ?? (opens && path.local.port == StreamPort.discardPort ? open(path, peer, now) : nil),
            connection.stream.isOpen && connection.isTrusted
                || connection.stream.waiting < settings.openingQueueLimit,
            connection.stream.write(framed: datagram)
        else {
            counters.datagramsDropped &+= 1
            return false
        }
        counters.datagramsSent &+= 1
        if !connection.isDirty {
            connection.isDirty = true
            dirty.append(connection)
        }
        return true
    }

    private func key(_ path: Path, _ peer: UInt64) -> Key {
        Key(path: path, peer: path.local.port == StreamPort.discardPort ? peer : 0)
    }

    private func open(_ path: Path, _ peer: UInt64, _ now: Instant) -> StreamConnection? {
        guard !isClosed, path.remote.port != 0, !path.remote.ip.isUnspecified, !path.remote.ip.isMulticast,
            byPeer[peer, default: []].count < settings.maximumPerPeer, makesRoom(now)
        else { return nil }
        do throws(Failure) {
            let stream = try Stream.connect(
                to: path.remote, from: path.local.ip, watch: watch, limit: settings.queueLimit, now: now)
            let connection = StreamConnection(stream, path, peer: peer, isTrusted: true, port: self)
            stream.owner = connection
            connections[key(path, peer)] = connection
            byPeer[peer, default: []].append(connection)
            opening.set(connection, stream.nextTimeout)
            return connection
        } catch {
            counters.unreachable &+= 1
            closed.append(Closed(path: path, peer: peer, failure: error))
            return nil
        }
    }

    /// Whether there is a connection, open or on its way.
    func has(_ path: Path, peer: UInt64) -> Bool { connections[key(path, peer)] != nil }

    /// A check that came on this path was accepted: from now on the connection belongs to that peer. False, and it will
    /// not live long, if the peer has too many.
    @discardableResult
    func trust(_ path: Path, for peer: UInt64) -> Bool {
        guard let connection = connections[key(path, peer)] else { return false }
        guard connection.isAccepted, connection.peer != peer else { return true }
        guard byPeer[peer, default: []].count < settings.maximumPerPeer else { return false }
        disown(connection)
        connection.peer = peer
        connection.isTrusted = true
        byPeer[peer, default: []].append(connection)
        return true
    }

    /// Nobody needs the path any more. What was queued is still sent if the socket has room.
    func release(_ path: Path, peer: UInt64) {
        if let connection = connections[key(path, peer)] { drop(connection) }
    }

    /// The peer is gone, with all of its connections.
    func release(peer: UInt64) {
        for connection in byPeer[peer] ?? [] { drop(connection) }
    }

    /// Sends what this turn has queued.
    func flush(now: Instant) {
        guard !dirty.isEmpty else { return }
        let work = dirty
        dirty.removeAll(keepingCapacity: work.count <= 256)
        for connection in work {
            connection.isDirty = false
            connection.stream.flush(now: now)
        }
    }

    /// A connection that ended by itself since it was last asked.
    func pollClosed() -> Closed? { closed.popFirst() }

    // MARK: Time

    var nextTimeout: Instant? {
        var next = acceptAgainAt ?? .distantFuture
        if let due = untrusted.earliest { next = min(next, due) }
        if let due = opening.earliest { next = min(next, due) }
        return next == .distantFuture ? nil : next
    }

    func handleTimeout(now: Instant) {
        if let due = acceptAgainAt, due <= now { acceptAgain(now) }
        while let connection = untrusted.popDue(at: now) {
            counters.expired &+= 1
            drop(connection, tells: true)
        }
        while let connection = opening.popDue(at: now) { connection.stream.handleTimeout(now: now) }
    }

    // MARK: Ends

    /// Ends everything; nothing is told.
    func close() {
        isClosed = true
        if listener >= 0 {
            if isListenerWatched { watch.unwatch(listener) }
            cs_close(listener)
            listener = -1
        }
        acceptAgainAt = nil
        port = nil
        for connection in Array(connections.values) { drop(connection) }
        closed.removeAll()
        dirty = []
    }

    var statistics: Statistics {
        var all = counters
        for connection in connections.values { all.add(connection.stream) }
        return all
    }

    /// Takes it out of all tables and closes it. `tells`: the path was known outside, perhaps.
    private func drop(_ connection: StreamConnection, tells: Bool = false) {
        let key = key(connection.path, connection.peer)
        guard connections[key] === connection else { return }
        connections[key] = nil
        counters.add(connection.stream)
        let peer = connection.peer
        disown(connection)
        connection.stream.close()
        guard tells, connection.isKnown, !isClosed else { return }
        closed.append(Closed(path: connection.path, peer: peer, failure: connection.stream.failure))
    }

    /// It is not its peer's any more, nor one that waits for anything.
    private func disown(_ connection: StreamConnection) {
        if connection.isTrusted {
            opening.set(connection, nil)
            byPeer[connection.peer]?.removeAll { $0 === connection }
            if byPeer[connection.peer]?.isEmpty == true { byPeer[connection.peer] = nil }
        } else {
            untrusted.set(connection, nil)
            let source = StreamPort.source(connection.path.remote.ip)
            let left = untrustedBySource[source, default: 0] - 1
            untrustedBySource[source] = left > 0 ? left : nil
        }
    }
}

extension StreamPort: DescriptorOwner {
    func ready(_ descriptor: Int32, now: Instant) {
        if descriptor == listener { accept(now) }
    }
}

/// What its connections tell.
extension StreamPort {
    func opened(_ connection: StreamConnection) {
        counters.opened &+= 1
        opening.set(connection, nil)
    }

    func ended(_ connection: StreamConnection) {
        if !connection.isAccepted, connection.stream.failure?.status == .turnUnreachable { counters.unreachable &+= 1 }
        drop(connection, tells: true)
    }

    /// False: this is not the protocol, and that was the end.
    func admits(_ connection: StreamConnection, length: Int) -> Bool {
        guard length <= (connection.isTrusted ? settings.maximumDatagram : settings.maximumCheck) else {
            counters.malformed &+= 1
            drop(connection, tells: true)
            return false
        }
        return true
    }

    func take(_ datagram: RawSpan, _ connection: StreamConnection, _ now: Instant) {
        // RFC 4571 section 2: a length of zero is a packet of nothing.
        guard datagram.byteCount > 0 else { return }
        if !connection.isKnown {
            // RFC 6544 section 7.2: who connects sends a check. It names the peer that it is for.
            guard connection.isTrusted || STUN.isMessage(datagram) && isBindingRequest(datagram) else {
                counters.malformed &+= 1
                return drop(connection)
            }
            connection.isKnown = true
        }
        counters.datagramsReceived &+= 1
        deliver(datagram, connection.path, connection.peer, now)
    }
}

extension StreamPort.Statistics {
    fileprivate mutating func add(_ stream: Stream) {
        bytesSent &+= stream.bytesSent
        bytesReceived &+= stream.bytesReceived
    }
}

private func isBindingRequest(_ message: RawSpan) -> Bool {
    message.load(bigEndianAt: 0, as: UInt16.self) == MessageType(.request, method: MessageType.binding).rawValue
}
