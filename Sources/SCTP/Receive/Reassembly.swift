import Wire

/// What a DATA chunk's header says.
struct DataHeader {
    var tsn: TSN
    var stream: UInt16
    var sequence: UInt16
    var protocolIdentifier: UInt32
    var flags: UInt8

    @inline(__always) var isUnordered: Bool { flags & DataFlag.unordered != 0 }
    @inline(__always) var isBeginning: Bool { flags & DataFlag.beginning != 0 }
    @inline(__always) var isEnd: Bool { flags & DataFlag.end != 0 }

    /// True if `next` can be the fragment behind this one.
    func continues(with next: DataHeader) -> Bool {
        !isEnd && !next.isBeginning && stream == next.stream && isUnordered == next.isUnordered
            && (isUnordered || sequence == next.sequence)
    }
}

/// Puts fragments together and ordered messages in order.
///
/// "The TSNs of a message's fragments are consecutive" (RFC 9260 section 6.9), so there is at most one
/// message that is complete up to the cumulative TSN: its fragments go straight into its payload.
/// Fragments beyond a gap wait in a ring indexed by TSN until the gap closes or until all of their
/// message is there.
struct Reassembly {
    enum Violation: Error { case interleaved, tooLarge }

    private struct Assembly {
        var last: DataHeader
        var payload: Payload
        var protocolIdentifier: UInt32
    }

    private struct Fragment {
        var header: DataHeader
        var payload: Payload
        /// Of the first fragment of a run of connected ones: the last one. Of the last: the first.
        var other: TSN
    }

    private var streams = StreamTable<IncomingStream>()
    private var assembly: Assembly?
    private var fragments: ContiguousArray<Fragment?> = []
    private var fragmentCount = 0
    private var expectedSize = 0
    /// Memory held here, overheads included; what has been handed to the events excluded.
    private(set) var heldBytes = 0
    private(set) var orphans: UInt64 = 0
    let maximumMessageSize: Int
    /// Sequence number that streams start with.
    var initialSequence: UInt16 = 0

    static let overhead = 96

    init(maximumMessageSize: Int) { self.maximumMessageSize = maximumMessageSize }

    // MARK: At the cumulative TSN

    /// The chunk behind the cumulative TSN.
    @inline(__always)
    mutating func receiveNext(_ header: DataHeader, _ data: RawSpan, _ events: inout EventQueue) throws(Violation) {
        if header.flags & DataFlag.whole == DataFlag.whole {
            guard assembly == nil else { throw .interleaved }
            guard data.byteCount <= maximumMessageSize else { throw .tooLarge }
            complete(header, header.protocolIdentifier, Payload.copying(data), &events)
        } else {
            try append(header, data, &events)
        }
    }

    private mutating func append(_ header: DataHeader, _ data: RawSpan, _ events: inout EventQueue) throws(Violation) {
        if header.isBeginning {
            guard assembly == nil else { throw .interleaved }
            guard data.byteCount <= maximumMessageSize else { throw .tooLarge }
            // The size is not announced: the last message's is a good guess.
            let capacity = max(min(expectedSize, maximumMessageSize), data.byteCount &* 4)
            let payload = Payload.allocate(capacity: capacity)
            payload.append(data)
            assembly = Assembly(last: header, payload: payload, protocolIdentifier: header.protocolIdentifier)
            heldBytes &+= data.byteCount &+ Self.overhead
            return
        }
        guard var current = assembly.take() else {
            // The rest of a message whose beginning was given up by the peer.
            orphans &+= 1
            return
        }
        guard current.last.continues(with: header) else {
            heldBytes &-= current.payload.count &+ Self.overhead
            throw .interleaved
        }
        let total = current.payload.count &+ data.byteCount
        guard total <= maximumMessageSize else {
            heldBytes &-= current.payload.count &+ Self.overhead
            throw .tooLarge
        }
        if current.payload.room < data.byteCount {
            let larger = Payload.allocate(capacity: max(total, min(total &* 2, maximumMessageSize)))
            current.payload.withBytes { _ = larger.append($0) }
            current.payload = larger
        }
        current.payload.append(data)
        heldBytes &+= data.byteCount
        guard header.isEnd else {
            current.last = header
            assembly = current
            return
        }
        heldBytes &-= total &+ Self.overhead
        expectedSize = total
        // A wrong guess must not hold on to memory.
        if current.payload.room > total {
            let exact = Payload.allocate(capacity: total)
            current.payload.withBytes { _ = exact.append($0) }
            current.payload = exact
        }
        complete(header, current.protocolIdentifier, current.payload, &events)
    }

    /// The cumulative TSN moved from `before` by `count` over TSNs that arrived earlier.
    mutating func advanced(from before: TSN, by count: Int, _ events: inout EventQueue) throws(Violation) {
        guard fragmentCount > 0 else {
            if assembly != nil { throw .interleaved }
            return
        }
        var tsn = before
        for _ in 0..<count {
            tsn = tsn.next
            guard let fragment = take(tsn) else {
                // It was delivered, so it does not belong to the message that has begun.
                if assembly != nil { throw .interleaved }
                continue
            }
            let payload = fragment.payload
            var violation: Violation?
            payload.withBytes { bytes in
                do throws(Violation) { try append(fragment.header, bytes, &events) } catch { violation = error }
            }
            if let violation { throw violation }
        }
    }

    // MARK: Beyond a gap

    /// A chunk beyond a gap, `distance` from the cumulative TSN.
    mutating func receiveAhead(
        _ header: DataHeader, _ data: RawSpan, distance: Int, _ events: inout EventQueue
    ) throws(Violation) {
        guard data.byteCount <= maximumMessageSize else { throw .tooLarge }
        if header.flags & DataFlag.whole == DataFlag.whole {
            complete(header, header.protocolIdentifier, Payload.copying(data), &events)
            return
        }
        reserve(distance &+ 1)
        let tsn = header.tsn
        var first = tsn
        var last = tsn
        // Tsn's neighbours are the ends of their runs, so they know the other ends.
        if let before = fragment(tsn.previous), before.header.continues(with: header) { first = before.other }
        if let after = fragment(tsn.next), header.continues(with: after.header) { last = after.other }
        store(Fragment(header: header, payload: Payload.copying(data), other: tsn))
        set(first, other: last)
        set(last, other: first)
        if let beginning = fragment(first), beginning.header.isBeginning,
            let end = fragment(last), end.header.isEnd
        {
            try join(first, last, &events)
        }
    }

    private mutating func join(_ first: TSN, _ last: TSN, _ events: inout EventQueue) throws(Violation) {
        let count = Int(last.distance(from: first)) &+ 1
        guard count <= fragmentCount else { return }
        var total = 0
        for step in 0..<count {
            guard let fragment = fragment(first.advanced(by: UInt32(truncatingIfNeeded: step))) else { return }
            total &+= fragment.payload.count
        }
        guard total <= maximumMessageSize else { throw .tooLarge }
        let payload = Payload.allocate(capacity: total)
        var header: DataHeader?
        for step in 0..<count {
            guard let fragment = take(first.advanced(by: UInt32(truncatingIfNeeded: step))) else { return }
            fragment.payload.withBytes { _ = payload.append($0) }
            if header == nil { header = fragment.header }
        }
        guard let header else { return }
        expectedSize = total
        complete(header, header.protocolIdentifier, payload, &events)
    }

    // MARK: The ring of fragments

    private func fragment(_ tsn: TSN) -> Fragment? {
        guard fragmentCount > 0 else { return nil }
        guard let fragment = fragments[Int(tsn.value) & (fragments.count &- 1)], fragment.header.tsn == tsn else {
            return nil
        }
        return fragment
    }

    private mutating func set(_ tsn: TSN, other: TSN) {
        fragments[Int(tsn.value) & (fragments.count &- 1)]?.other = other
    }

    private mutating func store(_ fragment: Fragment) {
        fragments[Int(fragment.header.tsn.value) & (fragments.count &- 1)] = fragment
        fragmentCount &+= 1
        heldBytes &+= fragment.payload.count &+ Self.overhead
    }

    private mutating func take(_ tsn: TSN) -> Fragment? {
        guard fragmentCount > 0 else { return nil }
        let place = Int(tsn.value) & (fragments.count &- 1)
        guard let fragment = fragments[place], fragment.header.tsn == tsn else { return nil }
        fragments[place] = nil
        fragmentCount &-= 1
        heldBytes &-= fragment.payload.count &+ Self.overhead
        if fragmentCount == 0, fragments.count > 1024 { fragments = [] }
        return fragment
    }

    private mutating func reserve(_ span: Int) {
        guard span > fragments.count else { return }
        var size = max(64, fragments.count)
        while size < span { size &*= 2 }
        var larger = ContiguousArray<Fragment?>(repeating: nil, count: size)
        if fragmentCount > 0 {
            for case let fragment? in fragments { larger[Int(fragment.header.tsn.value) & (size &- 1)] = fragment }
        }
        fragments = larger
    }

    // MARK: Order

    /// A whole message: to the host if it is its turn.
    @inline(__always)
    private mutating func complete(
        _ header: DataHeader, _ protocolIdentifier: UInt32, _ payload: Payload, _ events: inout EventQueue
    ) {
        guard !header.isUnordered else {
            events.append(
                Association.Message(
                    stream: header.stream, ordered: false, protocolIdentifier: protocolIdentifier, payload: payload))
            return
        }
        let slot = streams.slot(header.stream, initial: IncomingStream(id: header.stream, expected: initialSequence))
        if streams[slot].expected.value == header.sequence {
            streams[slot].advance()
            events.append(
                Association.Message(
                    stream: header.stream, ordered: true, protocolIdentifier: protocolIdentifier, payload: payload))
            if streams[slot].hasWaiting { deliverWaiting(slot, &events) }
        } else if streams[slot].expected.precedes(StreamSequence(header.sequence)) {
            let waits = streams[slot].insert(
                WaitingMessage(sequence: header.sequence, protocolIdentifier: protocolIdentifier, payload: payload))
            if waits { heldBytes &+= payload.count &+ Self.overhead } else { orphans &+= 1 }
        } else {
            orphans &+= 1
        }
    }

    private mutating func deliverWaiting(_ slot: Int, _ events: inout EventQueue) {
        while let message = streams[slot].takeExpected() { deliver(message, slot, &events) }
    }

    private mutating func deliver(_ message: WaitingMessage, _ slot: Int, _ events: inout EventQueue) {
        heldBytes &-= message.payload.count &+ Self.overhead
        events.append(
            Association.Message(
                stream: streams[slot].id, ordered: true, protocolIdentifier: message.protocolIdentifier,
                payload: message.payload))
    }

    // MARK: FORWARD TSN and stream reset

    /// The peer gave up everything up to `cumulative` (RFC 3758 section 3.6), `count` TSNs.
    mutating func dropFragments(through cumulative: TSN, count: Int) {
        if let dropped = assembly.take() { heldBytes &-= dropped.payload.count &+ Self.overhead }
        guard fragmentCount > 0 else { return }
        if count >= fragments.count {
            for case let fragment? in fragments { heldBytes &-= fragment.payload.count &+ Self.overhead }
            fragments = []
            fragmentCount = 0
            return
        }
        for step in 0..<UInt32(truncatingIfNeeded: count) where fragmentCount > 0 {
            _ = take(cumulative.retreated(by: step))
        }
    }

    /// Messages of `stream` up to `last` will not come any more. Those that are here go to the host.
    mutating func skip(stream: UInt16, to last: StreamSequence, _ events: inout EventQueue) {
        let slot = streams.slot(stream, initial: IncomingStream(id: stream, expected: initialSequence))
        guard streams[slot].expected.precedesOrEquals(last) else { return }
        while let message = streams[slot].takeFirst(upTo: last) { deliver(message, slot, &events) }
        streams[slot].skip(to: last)
        deliverWaiting(slot, &events)
    }

    /// The peer starts `streams` anew; all of them if there are none (RFC 6525 section 5.2.2).
    mutating func reset(_ ids: [UInt16]) {
        if ids.isEmpty {
            initialSequence = 0
            for slot in 0..<streams.count { heldBytes &-= streams[slot].reset(overhead: Self.overhead) }
        }
        for id in ids {
            let slot = streams.slot(id, initial: IncomingStream(id: id, expected: 0))
            heldBytes &-= streams[slot].reset(overhead: Self.overhead)
        }
    }
}
