/// Outcomes and events on their way to the host, in chunks. Whoever takes some has a batch, and their chunks stay until
/// it is given back. Not shared: its owner has a lock.
struct EventQueue {
    private var current = EventChunk()
    /// Those before the current one, the oldest first, with events that nobody has taken.
    private var older: [EventChunk] = []
    private var spare: [EventChunk] = []
    private var batches: [UInt64: EventBatch] = [:]
    private var lastBatch: UInt64 = 0
    private(set) var count = 0
    /// Memory of batches that were not given back.
    private(set) var batchCost = 0

    private static let maximumSpare = 8

    private var olderCost = 0

    /// Memory of all that waits or was not given back.
    var cost: Int { batchCost &+ olderCost &+ current.cost }

    var batchCount: Int { batches.count }

    /// Where the next event goes; what it points to goes into the same chunk.
    mutating func chunk() -> EventChunk {
        if current.isFull { seal() }
        return current
    }

    mutating func append(_ event: ReplayEvent) {
        current.append(event)
        count &+= 1
    }

    private mutating func seal() {
        if current.count > 0 {
            older.append(current)
            olderCost &+= current.cost
        }
        current = spare.popLast() ?? EventChunk()
    }

    /// The oldest, at most `max`; nil if there are none.
    mutating func take(_ max: Int) -> EventBatch? {
        guard count > 0, max > 0 else { return nil }
        var parts: [EventBatch.Part] = []
        var left = min(max, count)
        count &-= left
        while left > 0 {
            if older.isEmpty { seal() }
            guard let chunk = older.first else { break }
            let number = min(left, chunk.count)
            parts.append(EventBatch.Part(chunk: chunk, events: chunk.taken..<chunk.taken &+ number))
            chunk.taken &+= number
            left &-= number
            if chunk.count == 0 {
                older.removeFirst()
                olderCost &-= chunk.cost
            }
        }
        lastBatch &+= 1
        let batch = EventBatch(number: lastBatch, parts: parts)
        batches[lastBatch] = batch
        batchCost &+= batch.cost
        return batch
    }

    /// False if there is no such batch.
    mutating func release(_ number: UInt64) -> Bool {
        guard var batch = batches.removeValue(forKey: number) else { return false }
        batchCost &-= batch.cost
        // Somebody may still be reading it.
        guard isKnownUniquelyReferenced(&batch) else { return true }
        var chunks = batch.removeParts()
        while var chunk = chunks.popLast() {
            guard spare.count < Self.maximumSpare, chunk.count == 0, isKnownUniquelyReferenced(&chunk), chunk.isReusable
            else { continue }
            chunk.removeAll()
            spare.append(chunk)
        }
        return true
    }
}

/// Events that were taken with one call.
public final class EventBatch {
    public struct Part {
        public let chunk: EventChunk
        public let events: Range<Int>
    }

    public let number: UInt64
    public private(set) var parts: [Part]
    let cost: Int
    /// What else lives as long as the batch.
    public var attachment: AnyObject?

    init(number: UInt64, parts: [Part]) {
        self.number = number
        self.parts = parts
        cost = parts.reduce(256) { cost, part in
            let all = max(part.chunk.events.count, 1)
            return cost &+ part.chunk.cost / all &* part.events.count
        }
    }

    public var count: Int { parts.reduce(0) { $0 &+ $1.events.count } }

    fileprivate func removeParts() -> [EventChunk] {
        let chunks = parts.map(\.chunk)
        parts = []
        return chunks
    }
}
