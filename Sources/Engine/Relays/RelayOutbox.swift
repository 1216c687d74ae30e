import Wire

/// Peers' datagrams on their way to servers over UDP: one run of bytes, empty again after each turn of the loop.
struct RelayOutbox {
    struct Entry {
        let leg: RelayLeg
        let peer: SocketAddress
        let offset: Int
        let count: Int
    }

    /// More than a turn of the loop ever has; beyond, datagrams are dropped as on any network.
    static let maximumBytes = 1 << 20
    private static let kept = 1 << 16

    private var bytes: [UInt8] = []
    private var entries = Queue<Entry>()

    var first: Entry? { entries.first }

    /// False: no room.
    mutating func append(_ datagram: RawSpan, _ leg: RelayLeg, _ peer: SocketAddress) -> Bool {
        guard datagram.byteCount <= RelayOutbox.maximumBytes &- bytes.count else { return false }
        entries.append(Entry(leg: leg, peer: peer, offset: bytes.count, count: datagram.byteCount))
        unsafe datagram.withUnsafeBytes { unsafe bytes.append(contentsOf: $0) }
        return true
    }

    func withBytes<Result>(of entry: Entry, _ body: (RawSpan) -> Result) -> Result? {
        let all = bytes.span.bytes
        guard let part = all.slice(at: entry.offset, count: entry.count) else { return nil }
        return body(part)
    }

    mutating func removeFirst() {
        _ = entries.popFirst()
        if entries.isEmpty { bytes.removeAll(keepingCapacity: bytes.capacity <= RelayOutbox.kept) }
    }

    mutating func removeAll() {
        entries.removeAll()
        bytes = []
    }
}
