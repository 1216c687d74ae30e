import Wire

/// A DATA chunk that was sent and is not acknowledged cumulatively. It points into its message.
struct OutstandingChunk {
    var sentAt = Instant(nanoseconds: 0)
    var message: UInt32 = 0
    var offset: UInt32 = 0
    /// A missing report counts once a TSN from here on is acknowledged: the chunk's own at first,
    /// after a retransmission the first one sent later than that.
    var reportableFrom = TSN(0)
    var length: UInt16 = 0
    var transmissions: UInt16 = 0
    var flags: UInt8 = 0
    var missingReports: UInt8 = 0
}

/// All chunks between the peer's cumulative TSN and the next TSN to be sent, in a ring indexed by
/// TSN. A chunk is in flight, acknowledged by a gap block, marked for retransmission, or abandoned
/// (none of the three bits).
struct Outstanding {
    private var chunks: ContiguousArray<OutstandingChunk> = []
    private var mask: UInt32 = 0
    /// The lowest TSN that is not acknowledged cumulatively.
    private(set) var first: TSN
    private(set) var count = 0

    private var inFlight = BitRing()
    private var acknowledged = BitRing()
    private var marked = BitRing()
    private(set) var bytesInFlight = 0
    private(set) var markedCount = 0
    private(set) var acknowledgedCount = 0

    init(first: TSN) { self.first = first }

    var isEmpty: Bool { count == 0 }
    /// Gap blocks have 16-bit offsets, so no more can be told apart.
    var isFull: Bool { count >= 65_535 }
    var next: TSN { first.advanced(by: UInt32(truncatingIfNeeded: count)) }
    var cumulative: TSN { first.previous }

    func contains(_ tsn: TSN) -> Bool { Int(tsn.distance(from: first)) < count }

    subscript(tsn: TSN) -> OutstandingChunk {
        @inline(__always) get { chunks[Int(tsn.value & mask)] }
        @inline(__always) _modify { yield &chunks[Int(tsn.value & mask)] }
    }

    func isInFlight(_ tsn: TSN) -> Bool { inFlight.contains(tsn) }
    func isAcknowledged(_ tsn: TSN) -> Bool { acknowledged.contains(tsn) }
    func isMarked(_ tsn: TSN) -> Bool { marked.contains(tsn) }
    func isAbandoned(_ tsn: TSN) -> Bool { !isInFlight(tsn) && !isAcknowledged(tsn) && !isMarked(tsn) }

    /// Appends a chunk under the TSN `next`, as in flight or, a place-holder, as abandoned.
    mutating func append(_ chunk: OutstandingChunk, abandoned: Bool = false) {
        if count == chunks.count { grow() }
        let tsn = next
        chunks[Int(tsn.value & mask)] = chunk
        count &+= 1
        if !abandoned {
            inFlight.insert(tsn)
            bytesInFlight &+= Int(chunk.length)
        }
    }

    private mutating func grow() {
        let size = max(64, chunks.count &* 2)
        var larger = ContiguousArray(repeating: OutstandingChunk(), count: size)
        let largerMask = UInt32(truncatingIfNeeded: size &- 1)
        for step in 0..<UInt32(truncatingIfNeeded: count) {
            let tsn = first.advanced(by: step)
            larger[Int(tsn.value & largerMask)] = chunks[Int(tsn.value & mask)]
        }
        inFlight.reserve(size, from: first, used: count)
        acknowledged.reserve(size, from: first, used: count)
        marked.reserve(size, from: first, used: count)
        chunks = larger
        mask = largerMask
    }

    /// Takes the lowest chunk out. The answer says whether it counts as newly acknowledged.
    @inline(__always)
    mutating func removeFirst() -> (chunk: OutstandingChunk, newlyAcknowledged: Bool) {
        let tsn = first
        let chunk = chunks[Int(tsn.value & mask)]
        var newly = true
        if inFlight.contains(tsn) {
            inFlight.remove(tsn)
            bytesInFlight &-= Int(chunk.length)
        } else if marked.contains(tsn) {
            marked.remove(tsn)
            markedCount &-= 1
        } else {
            newly = false
            if acknowledged.contains(tsn) {
                acknowledged.remove(tsn)
                acknowledgedCount &-= 1
            }
        }
        first = tsn.next
        count &-= 1
        return (chunk, newly)
    }

    /// Gives back the memory of a large window when nothing is left in it.
    mutating func trim() {
        guard count == 0, chunks.count > 4096 else { return }
        self = Outstanding(first: first)
    }

    /// A gap block covers `tsn`. True if it was not acknowledged before.
    mutating func acknowledge(_ tsn: TSN) -> Bool {
        if inFlight.contains(tsn) {
            inFlight.remove(tsn)
            bytesInFlight &-= Int(self[tsn].length)
        } else if marked.contains(tsn) {
            marked.remove(tsn)
            markedCount &-= 1
        } else {
            return false
        }
        acknowledged.insert(tsn)
        acknowledgedCount &+= 1
        return true
    }

    /// The peer does not report any more what it had acknowledged in a gap block: it counts as in
    /// flight again (RFC 9260 section 6.2.1, D iv).
    mutating func renege(_ tsn: TSN) {
        guard acknowledged.contains(tsn) else { return }
        acknowledged.remove(tsn)
        acknowledgedCount &-= 1
        inFlight.insert(tsn)
        bytesInFlight &+= Int(self[tsn].length)
    }

    /// Marks a chunk in flight as lost.
    mutating func mark(_ tsn: TSN) {
        guard inFlight.contains(tsn) else { return }
        inFlight.remove(tsn)
        bytesInFlight &-= Int(self[tsn].length)
        marked.insert(tsn)
        markedCount &+= 1
    }

    /// A marked chunk was sent again.
    mutating func resend(_ tsn: TSN, now: Instant) {
        guard marked.contains(tsn) else { return }
        marked.remove(tsn)
        markedCount &-= 1
        inFlight.insert(tsn)
        let following = next
        bytesInFlight &+= Int(self[tsn].length)
        let slot = Int(tsn.value & mask)
        chunks[slot].sentAt = now
        chunks[slot].reportableFrom = following
        chunks[slot].missingReports = 0
        if chunks[slot].transmissions < .max { chunks[slot].transmissions &+= 1 }
    }

    mutating func abandon(_ tsn: TSN) {
        if inFlight.contains(tsn) {
            inFlight.remove(tsn)
            bytesInFlight &-= Int(self[tsn].length)
        }
        if marked.contains(tsn) {
            marked.remove(tsn)
            markedCount &-= 1
        }
        if acknowledged.contains(tsn) {
            acknowledged.remove(tsn)
            acknowledgedCount &-= 1
        }
    }

    /// A gap block covers `count` TSNs from `tsn` on. Answers the bytes and the highest TSN that were
    /// not acknowledged before.
    mutating func acknowledge(from tsn: TSN, count: Int) -> (bytes: Int, highest: TSN?) {
        var bytes = 0
        var highest: TSN?
        var done = 0
        while done < count {
            let known = acknowledged.run(
                of: true, from: tsn.advanced(by: UInt32(truncatingIfNeeded: done)), limit: count &- done)
            done &+= known
            guard done < count else { break }
            let next = tsn.advanced(by: UInt32(truncatingIfNeeded: done))
            if acknowledge(next) {
                bytes &+= Int(self[next].length)
                highest = next
            }
            done &+= 1
        }
        return (bytes, highest)
    }

    enum Mark { case inFlight, acknowledged, marked }

    /// The first TSN from `tsn` on, below `end`, that has this bit.
    func find(_ mark: Mark, from tsn: TSN, before end: TSN) -> TSN? {
        let limit = Int(end.distance(from: tsn))
        guard limit <= count else { return nil }
        let skipped: Int
        switch mark {
        case .inFlight: skipped = inFlight.run(of: false, from: tsn, limit: limit)
        case .acknowledged: skipped = acknowledged.run(of: false, from: tsn, limit: limit)
        case .marked: skipped = marked.run(of: false, from: tsn, limit: limit)
        }
        return skipped < limit ? tsn.advanced(by: UInt32(truncatingIfNeeded: skipped)) : nil
    }

    var firstMarked: TSN? { markedCount > 0 ? find(.marked, from: first, before: next) : nil }
}
