import CSystem
import Replay
public import Wire

/// Events and everything they point to, in a few pieces of memory that are filled again and again. Filled under the
/// lock of its queue; once events of it have been taken it is only read.
public final class EventChunk {
    public private(set) var events: ContiguousArray<ReplayEvent> = []
    public private(set) var messages: ContiguousArray<ReplayedMessage> = []
    public private(set) var states: ContiguousArray<StateRecord> = []
    /// What the extents are of. It does not move any more once events have been taken.
    public private(set) var bytes = Payload.allocate(capacity: 1 << 14)
    /// How many events have been taken.
    var taken = 0
    /// The position that was written last, and where: an outcome and its live message have the same.
    private var lastPosition: (position: Position, text: Extent)?

    /// A chunk that is larger than this is full.
    static let fullBytes = 1 << 18
    static let fullEvents = 4_096

    var isFull: Bool { events.count >= Self.fullEvents || bytes.count >= Self.fullBytes }
    var count: Int { events.count &- taken }

    /// Memory, by what is in it.
    var cost: Int {
        bytes.count &+ events.count &* MemoryLayout<ReplayEvent>.stride
            &+ messages.count &* MemoryLayout<ReplayedMessage>.stride
    }

    /// Whether its memory is worth keeping for the next events.
    var isReusable: Bool {
        bytes.count &+ bytes.room <= 2 &* Self.fullBytes && messages.capacity <= 1 << 15
    }

    func removeAll() {
        events.removeAll(keepingCapacity: true)
        messages.removeAll(keepingCapacity: true)
        states.removeAll(keepingCapacity: true)
        bytes.removeAll()
        taken = 0
        lastPosition = nil
    }

    func append(_ event: ReplayEvent) { events.append(event) }

    func append(_ source: RawSpan) -> Extent {
        if bytes.room < source.byteCount { grow(source.byteCount) }
        let extent = Extent(offset: bytes.count, count: source.byteCount)
        bytes.append(source)
        return extent
    }

    func append(_ position: Position, signedWith key: PositionKey) -> Extent {
        if let known = lastPosition, known.position == position { return known.text }
        let characters = key.characters(position)
        let text = append(characters.span.bytes)
        lastPosition = (position, text)
        return text
    }

    func append(_ text: String) -> Extent {
        let bytes = Array(text.utf8)
        return append(bytes.span.bytes)
    }

    func append(_ state: StateRecord) -> UInt32 {
        states.append(state)
        return UInt32(truncatingIfNeeded: states.count)
    }

    func append(_ batch: borrowing Batch, to event: inout ReplayEvent) {
        guard !batch.isEmpty else { return }
        let base = append(batch.bytes.span.bytes).offset
        event.firstMessage = UInt32(truncatingIfNeeded: messages.count)
        event.messageCount = UInt32(truncatingIfNeeded: batch.count)
        for record in batch.records {
            messages.append(
                ReplayedMessage(
                    sequence: record.sequence, negotiation: record.negotiation,
                    data: Extent(offset: Int(base) &+ record.offset, count: record.count), isText: record.isText,
                    kind: record.kind.rawValue))
        }
    }

    private func grow(_ more: Int) {
        let larger = Payload.allocate(capacity: max(2 &* (bytes.count &+ bytes.room), bytes.count &+ more))
        bytes.withBytes { _ = larger.append($0) }
        bytes = larger
    }
}
