import Wire

/// A whole ordered message that waits for those before it.
struct WaitingMessage {
    let sequence: UInt16
    let protocolIdentifier: UInt32
    let payload: Payload
}

/// Receive state of one stream: the next sequence number, and messages that came too early, sorted.
struct IncomingStream {
    let id: UInt16
    private(set) var expected: StreamSequence
    private var waiting: ContiguousArray<WaitingMessage?> = []
    private var head = 0

    init(id: UInt16, expected: UInt16) {
        self.id = id
        self.expected = StreamSequence(expected)
    }

    var hasWaiting: Bool { head < waiting.count }

    @inline(__always)
    mutating func advance() { expected = expected.next }

    /// Keeps a message whose turn comes later. False if one with this number waits already.
    mutating func insert(_ message: WaitingMessage) -> Bool {
        let distance = StreamSequence(message.sequence).distance(from: expected)
        var low = head
        var high = waiting.count
        // Most come in order of their numbers: look at the end first.
        if let last = waiting.last, let last, StreamSequence(last.sequence).distance(from: expected) < distance {
            low = high
        }
        while low < high {
            let middle = (low &+ high) / 2
            guard let other = waiting[middle] else { return false }
            let otherDistance = StreamSequence(other.sequence).distance(from: expected)
            if otherDistance == distance { return false }
            if otherDistance < distance { low = middle &+ 1 } else { high = middle }
        }
        waiting.insert(message, at: low)
        return true
    }

    /// Takes the message whose turn it is.
    mutating func takeExpected() -> WaitingMessage? {
        guard head < waiting.count, waiting[head]?.sequence == expected.value else { return nil }
        expected = expected.next
        return takeFirst()
    }

    /// Takes the first message numbered up to `last`, whatever is missing before it.
    mutating func takeFirst(upTo last: StreamSequence) -> WaitingMessage? {
        guard head < waiting.count, let first = waiting[head],
            StreamSequence(first.sequence).precedesOrEquals(last)
        else { return nil }
        return takeFirst()
    }

    private mutating func takeFirst() -> WaitingMessage? {
        let message = waiting[head].take()
        head &+= 1
        if head == waiting.count {
            waiting.removeAll(keepingCapacity: waiting.count <= 64)
            head = 0
        } else if head >= 64, head &* 2 >= waiting.count {
            waiting.removeFirst(head)
            head = 0
        }
        return message
    }

    /// Messages up to `last` will not come any more (RFC 3758 section 3.6).
    mutating func skip(to last: StreamSequence) { expected = last.next }

    /// Starts anew (RFC 6525). Answers the bytes that were dropped, `overhead` for each message included.
    mutating func reset(overhead: Int) -> Int {
        var dropped = 0
        for message in waiting { if let message { dropped &+= message.payload.count &+ overhead } }
        waiting = []
        head = 0
        expected = StreamSequence(0)
        return dropped
    }
}
