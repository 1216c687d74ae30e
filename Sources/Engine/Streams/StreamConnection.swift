import ICE
import Wire

/// One connection of a ``StreamPort``: cuts what comes into datagrams (RFC 4571 section 2).
final class StreamConnection: StreamOwner, Scheduled {
    let stream: Stream
    let path: Path
    /// Who opened it, or whom it is trusted for; 0: nobody yet.
    var peer: UInt64
    var isTrusted: Bool
    /// Its path was told to others.
    var isKnown: Bool
    var isDirty = false
    var due = Instant.distantFuture
    var heapIndex: Int?
    private weak let port: StreamPort?
    /// The beginning of a datagram with its length, never a whole one.
    private var partial: [UInt8] = []

    init(_ stream: Stream, _ path: Path, peer: UInt64, isTrusted: Bool, port: StreamPort) {
        self.stream = stream
        self.path = path
        self.peer = peer
        self.isTrusted = isTrusted
        isKnown = isTrusted
        self.port = port
    }

    var isAccepted: Bool { path.local.port != StreamPort.discardPort }

    func streamOpened(_ stream: Stream, now: Instant) { port?.opened(self) }

    func streamClosed(_ stream: Stream, now: Instant) { port?.ended(self) }

    func stream(_ stream: Stream, received bytes: RawSpan, now: Instant) {
        guard let port else { return }
        var offset = 0
        if !partial.isEmpty {
            guard let taken = complete(bytes, port, now) else { return }
            offset = taken
        }
        while !stream.isClosed, let length = bytes.load(bigEndianAt: offset, as: UInt16.self) {
            guard port.admits(self, length: Int(length)) else { return }
            guard let datagram = bytes.slice(at: offset &+ 2, count: Int(length)) else { break }
            offset &+= 2 &+ Int(length)
            port.take(datagram, self, now)
        }
        guard !stream.isClosed, let rest = bytes.slice(at: offset, count: bytes.byteCount &- offset) else { return }
        if rest.byteCount > 0 { partial = rest.copied() }
    }

    /// Takes what the kept datagram needs, and delivers it. How much that was; nil: all, or that was the end.
    private func complete(_ bytes: RawSpan, _ port: StreamPort, _ now: Instant) -> Int? {
        var taken = 0
        while partial.count < 2 {
            guard taken < bytes.byteCount else { return nil }
            partial.append(bytes.byte(taken))
            taken &+= 1
        }
        let length = Int(partial[0]) << 8 | Int(partial[1])
        guard port.admits(self, length: length) else { return nil }
        let missing = 2 &+ length &- partial.count
        guard let part = bytes.slice(at: taken, count: min(missing, bytes.byteCount &- taken)) else { return nil }
        unsafe part.withUnsafeBytes { unsafe partial.append(contentsOf: $0) }
        guard part.byteCount == missing else { return nil }
        let whole = partial
        partial = []
        port.take(whole.span.bytes.extracting(droppingFirst: 2), self, now)
        return stream.isClosed ? nil : taken &+ missing
    }
}
