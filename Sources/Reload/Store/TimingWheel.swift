import Wire

/// Deadlines of numbered entries in a hierarchical timing wheel (Varghese and Lauck, 1987): scheduling
/// and cancelling take constant time, and finding what is due looks at no other entry.
///
/// Time counts in ticks. A level has 64 buckets; a bucket of level n spans 64^n ticks. An entry lies on
/// the level of the highest group of six bits in which its tick differs from the current one, so every
/// occupied bucket lies ahead, lower levels are due before higher ones, and the first occupied bucket is
/// a matter of counting zero bits. Eleven levels cover all 64 bits: there is no overflow list.
struct TimingWheel: Sendable {
    private static let levels = 11
    private static let none: Int32 = -1

    private struct Link: Sendable {
        var next: Int32 = TimingWheel.none
        var previous: Int32 = TimingWheel.none
        var bucket: Int32 = TimingWheel.none
        var tick: UInt64 = 0
    }

    private struct Bucket: Sendable {
        var head: Int32 = TimingWheel.none
        var tail: Int32 = TimingWheel.none
    }

    private let tick: Int64
    private var current: UInt64 = 0
    private var occupied = [UInt64](repeating: 0, count: levels)
    private var buckets = [Bucket](repeating: Bucket(), count: levels * 64)
    private var links: [Link] = []
    private(set) var count = 0

    init(tick: Duration) { self.tick = max(tick.nanoseconds, 1) }

    func isScheduled(_ entry: Int) -> Bool { entry < links.count && links[entry].bucket != Self.none }

    /// Sets the deadline of `entry`, a small number not below zero, in place of an earlier one.
    mutating func schedule(_ entry: Int, at deadline: Instant) {
        guard entry >= 0, entry < Int(Int32.max) else { return }
        cancel(entry)
        while links.count <= entry { links.append(Link()) }
        // Rounded up: an entry is never due early.
        let nanoseconds = max(deadline.nanoseconds, 0)
        let whole = UInt64(nanoseconds / tick) &+ (nanoseconds % tick == 0 ? 0 : 1)
        links[entry].tick = max(whole, current)
        insert(entry)
    }

    mutating func cancel(_ entry: Int) {
        guard entry >= 0, isScheduled(entry) else { return }
        let link = links[entry]
        let bucket = Int(link.bucket)
        if link.previous != Self.none {
            links[Int(link.previous)].next = link.next
        } else {
            buckets[bucket].head = link.next
        }
        if link.next != Self.none {
            links[Int(link.next)].previous = link.previous
        } else {
            buckets[bucket].tail = link.previous
        }
        if buckets[bucket].head == Self.none { occupied[bucket / 64] &= ~(1 << UInt64(bucket % 64)) }
        links[entry] = Link()
        count -= 1
    }

    /// Takes one entry whose deadline has passed. In order of deadlines, to the tick.
    mutating func popExpired(at now: Instant) -> Int? {
        let target = UInt64(max(now.nanoseconds, 0) / tick)
        while let bucket = firstBucket {
            let start = startTick(bucket)
            guard start <= target else { break }
            current = max(current, start)
            if bucket < 64 {
                let entry = Int(buckets[bucket].head)
                cancel(entry)
                return entry
            }
            spread(bucket)
        }
        // Nothing is due up to `target`, so moving there changes the level of no entry.
        current = max(current, target)
        return nil
    }

    /// The entry with the earliest deadline; among those of one bucket the one that was scheduled first.
    var earliest: Int? { firstBucket.map { Int(buckets[$0].head) } }

    /// No entry is due before this.
    var nextDue: Instant? {
        guard let bucket = firstBucket else { return nil }
        let (product, overflow) = startTick(bucket).multipliedReportingOverflow(by: UInt64(tick))
        return overflow ? .distantFuture : Instant(nanoseconds: Int64(clamping: product))
    }

    private var firstBucket: Int? {
        for level in 0..<Self.levels where occupied[level] != 0 {
            return level * 64 + occupied[level].trailingZeroBitCount
        }
        return nil
    }

    private func startTick(_ bucket: Int) -> UInt64 {
        let shift = UInt64(bucket / 64 * 6)
        // Shifts by 64 and more give zero: on the highest level nothing is left of the prefix.
        let below: UInt64 = ((1 as UInt64) << (shift + 6)) &- 1
        return current & ~below | UInt64(bucket % 64) << shift
    }

    /// Moves the entries of a bucket, which starts now, to the levels below it.
    private mutating func spread(_ bucket: Int) {
        var entry = buckets[bucket].head
        buckets[bucket] = Bucket()
        occupied[bucket / 64] &= ~(1 << UInt64(bucket % 64))
        while entry != Self.none {
            let next = links[Int(entry)].next
            let due = links[Int(entry)].tick
            links[Int(entry)] = Link(tick: due)
            count -= 1
            insert(Int(entry))
            entry = next
        }
    }

    /// Appends, so that entries of one tick stay in order.
    private mutating func insert(_ entry: Int) {
        let due = links[entry].tick
        let level = (63 - ((due ^ current) | 63).leadingZeroBitCount) / 6
        let slot = Int(due >> UInt64(level * 6) & 63)
        let bucket = level * 64 + slot
        let tail = buckets[bucket].tail
        links[entry].bucket = Int32(bucket)
        links[entry].previous = tail
        links[entry].next = Self.none
        if tail != Self.none {
            links[Int(tail)].next = Int32(entry)
        } else {
            buckets[bucket].head = Int32(entry)
        }
        buckets[bucket].tail = Int32(entry)
        occupied[level] |= 1 << UInt64(slot)
        count += 1
    }
}
