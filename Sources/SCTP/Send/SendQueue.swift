import Wire

/// A message from `send` until the peer has acknowledged all of it.
struct OutgoingMessage {
    var payload: Payload?
    /// When the message is given up (RFC 3758, timed reliability); `distantFuture` if never.
    var expiry = Instant.distantFuture
    var count: UInt32 = 0
    /// Bytes that have been given a TSN.
    var sent: UInt32 = 0
    var protocolIdentifier: UInt32 = 0
    var maximumRetransmits = UInt32.max
    var firstTSN = TSN(0)
    /// Chunks that have a TSN; those not acknowledged cumulatively.
    var chunks: UInt32 = 0
    var unacknowledged: UInt32 = 0
    /// The next message of the same stream, or the next free place; -1 for none.
    var next: Int32 = -1
    var slot: UInt16 = 0
    var sequence: UInt16 = 0
    var ordered = true
    var abandoned = false
    /// No more chunks will be made of it.
    var complete = false
}

struct OutgoingStream {
    enum Reset { case none, requested, underway }

    let id: UInt16
    var nextSequence: UInt16 = 0
    var reset = Reset.none
    var isScheduled = false
    /// Messages waiting to be sent, linked.
    var head: Int32 = -1
    var tail: Int32 = -1
    /// Next stream in the round.
    var nextScheduled: Int32 = -1
    /// Bytes not sent for the first time.
    var buffered = 0
    var threshold = -1
    /// Messages not acknowledged, queued ones included.
    var messages = 0
}

/// Messages waiting for their first transmission, by stream, and a slab of all that the peer has not
/// acknowledged. Streams take turns at message boundaries.
struct SendQueue {
    private(set) var messages: ContiguousArray<OutgoingMessage> = []
    private var free: Int32 = -1
    private var live = 0
    var streams = StreamTable<OutgoingStream>()
    private var roundHead: Int32 = -1
    private var roundTail: Int32 = -1

    /// Bytes not sent for the first time.
    private(set) var buffered = 0
    /// Memory: payloads not released yet, with the overhead of each message.
    private(set) var retained = 0
    /// A stream of which a reset was requested has nothing left to be acknowledged.
    var resetMayBeReady = false
    /// Sequence number that streams start with.
    var initialSequence: UInt16 = 0

    static let messageOverhead = 96

    var isEmpty: Bool { roundHead < 0 }

    @inline(__always)
    mutating func slot(of stream: UInt16) -> Int {
        streams.slot(stream, initial: OutgoingStream(id: stream, nextSequence: initialSequence))
    }

    mutating func append(_ message: consuming OutgoingMessage, to slot: Int) {
        let count = Int(message.count)
        let index: Int
        if free >= 0 {
            index = Int(free)
            free = messages[index].next
            messages[index] = message
        } else {
            index = messages.count
            messages.append(message)
        }
        live &+= 1
        messages[index].next = -1
        messages[index].slot = UInt16(truncatingIfNeeded: slot)
        let tail = streams[slot].tail
        if tail >= 0 { messages[Int(tail)].next = Int32(truncatingIfNeeded: index) }
        if streams[slot].head < 0 { streams[slot].head = Int32(truncatingIfNeeded: index) }
        streams[slot].tail = Int32(truncatingIfNeeded: index)
        streams[slot].buffered &+= count
        streams[slot].messages &+= 1
        buffered &+= count
        retained &+= count &+ Self.messageOverhead
        if !streams[slot].isScheduled { schedule(slot) }
    }

    private mutating func schedule(_ slot: Int) {
        streams[slot].isScheduled = true
        streams[slot].nextScheduled = -1
        if roundTail >= 0 { streams[Int(roundTail)].nextScheduled = Int32(truncatingIfNeeded: slot) }
        roundTail = Int32(truncatingIfNeeded: slot)
        if roundHead < 0 { roundHead = roundTail }
    }

    /// The message whose turn it is.
    var current: Int? { roundHead >= 0 ? Int(streams[Int(roundHead)].head) : nil }

    subscript(index: Int) -> OutgoingMessage {
        @inline(__always) get { messages[index] }
        @inline(__always) _modify { yield &messages[index] }
    }

    /// `length` bytes more of the current message have been given a TSN. Answers the stream's slot if
    /// its buffered amount fell to the threshold.
    mutating func sent(_ length: Int) -> Int? {
        guard let index = current else { return nil }
        let slot = Int(roundHead)
        messages[index].sent &+= UInt32(truncatingIfNeeded: length)
        let low = unbuffer(length, slot)
        if messages[index].sent >= messages[index].count { finishCurrent() }
        return low ? slot : nil
    }

    /// True if the stream's buffered amount fell to its threshold with this.
    private mutating func unbuffer(_ length: Int, _ slot: Int) -> Bool {
        let before = streams[slot].buffered
        let after = before &- length
        streams[slot].buffered = after
        buffered &-= length
        let threshold = streams[slot].threshold
        return threshold >= 0 && before > threshold && after <= threshold
    }

    /// The current message leaves its stream's queue, and the next stream has its turn.
    private mutating func finishCurrent() {
        let slot = Int(roundHead)
        let index = Int(streams[slot].head)
        messages[index].complete = true
        streams[slot].head = messages[index].next
        if streams[slot].head < 0 { streams[slot].tail = -1 }
        // Take the stream out of the round, and put it at its end if it has more.
        roundHead = streams[slot].nextScheduled
        if roundHead < 0 { roundTail = -1 }
        streams[slot].isScheduled = false
        if streams[slot].head >= 0 { schedule(slot) }
    }

    /// Drops what is not sent of the current message. Answers the stream's slot if its buffered
    /// amount fell to the threshold.
    mutating func abandonCurrent() -> Int? {
        guard let index = current else { return nil }
        let slot = Int(roundHead)
        let low = unbuffer(Int(messages[index].count &- messages[index].sent), slot)
        finishCurrent()
        messages[index].abandoned = true
        if messages[index].chunks == 0 { release(index) }
        return low ? slot : nil
    }

    /// Frees the payload early; the place stays until its TSNs are acknowledged.
    mutating func releasePayload(_ index: Int) {
        guard messages[index].payload != nil else { return }
        messages[index].payload = nil
        retained &-= Int(messages[index].count)
    }

    /// One chunk of the message was acknowledged cumulatively.
    @inline(__always)
    mutating func acknowledgedChunk(of index: Int) {
        messages[index].unacknowledged &-= 1
        if messages[index].unacknowledged == 0, messages[index].complete { release(index) }
    }

    private mutating func release(_ index: Int) {
        releasePayload(index)
        retained &-= Self.messageOverhead
        let slot = Int(messages[index].slot)
        messages[index].next = free
        free = Int32(truncatingIfNeeded: index)
        live &-= 1
        streams[slot].messages &-= 1
        if streams[slot].messages == 0, streams[slot].reset == .requested { resetMayBeReady = true }
        // A burst must not hold on to its memory.
        if live == 0, messages.count > 4096 {
            messages = []
            free = -1
        }
    }

    /// Drops messages that expired while waiting, wherever they are in their streams' queues, except
    /// one that is partly sent. Only for a full buffer: it looks at everything that waits.
    mutating func dropExpired(now: Instant, dropped: inout UInt64, low: (UInt16) -> Void) {
        for slot in 0..<streams.count where streams[slot].head >= 0 {
            let fell = dropQueued(slot, dropped: &dropped) { $0.expiry < now }
            if fell { low(streams[slot].id) }
        }
        rebuildRound()
    }

    /// Drops what waits on streams from `limit` on. Answers how many messages that were.
    mutating func dropQueued(from limit: UInt16) -> UInt64 {
        var dropped: UInt64 = 0
        for slot in 0..<streams.count where streams[slot].id >= limit {
            _ = dropQueued(slot, dropped: &dropped) { _ in true }
        }
        rebuildRound()
        return dropped
    }

    /// True if the stream's buffered amount fell to its threshold.
    private mutating func dropQueued(_ slot: Int, dropped: inout UInt64, where drops: (OutgoingMessage) -> Bool) -> Bool
    {
        var fell = false
        var before: Int32 = -1
        var index = streams[slot].head
        while index >= 0 {
            let following = messages[Int(index)].next
            if messages[Int(index)].chunks == 0, drops(messages[Int(index)]) {
                if before >= 0 { messages[Int(before)].next = following } else { streams[slot].head = following }
                if streams[slot].tail == index { streams[slot].tail = before }
                fell = unbuffer(Int(messages[Int(index)].count), slot) || fell
                dropped &+= 1
                release(Int(index))
            } else {
                before = index
            }
            index = following
        }
        return fell
    }

    /// Streams left without messages leave the round; the others keep their order.
    private mutating func rebuildRound() {
        var slot = roundHead
        roundHead = -1
        roundTail = -1
        while slot >= 0 {
            let following = streams[Int(slot)].nextScheduled
            streams[Int(slot)].isScheduled = false
            if streams[Int(slot)].head >= 0 { schedule(Int(slot)) }
            slot = following
        }
    }

    /// Forgets everything: the association ended or started anew.
    mutating func removeAll() {
        let sequence = initialSequence
        self = SendQueue()
        initialSequence = sequence
    }
}
