import Wire

/// Which TSNs have arrived: the cumulative TSN, and one bit for each above it.
struct ReceivedTSNs {
    enum Arrival { case next, ahead, duplicate, tooFar }

    private(set) var cumulative: TSN
    /// Distance of the highest TSN that arrived from the cumulative one; 0: there is no gap.
    private(set) var highest = 0
    private var bits = BitRing()
    private(set) var duplicates: ContiguousArray<UInt32> = []
    /// How far ahead of the cumulative TSN an arrival can be remembered (at most what the 16 bits of a
    /// gap block offset can name).
    let reach: Int

    init(cumulative: TSN, reach: Int) {
        self.cumulative = cumulative
        self.reach = min(max(reach, 64), 65_535)
    }

    var hasGap: Bool { highest > 0 }

    /// What the arrival of `tsn` would be.
    @inline(__always)
    func classify(_ tsn: TSN) -> Arrival {
        let distance = tsn.distance(from: cumulative)
        if distance == 1 { return .next }
        if distance == 0 || distance > 0x8000_0000 { return .duplicate }
        if distance > UInt32(truncatingIfNeeded: reach) { return .tooFar }
        return Int(distance) <= highest && bits.contains(tsn) ? .duplicate : .ahead
    }

    /// Notes `tsn`, which is `.next`. Answers by how much the cumulative TSN moves.
    @inline(__always)
    mutating func insertNext() -> Int {
        guard highest > 0 else {
            cumulative = cumulative.next
            return 1
        }
        return advance(over: 1)
    }

    /// Notes `tsn`, which is `.ahead`.
    mutating func insertAhead(_ tsn: TSN) {
        let distance = Int(tsn.distance(from: cumulative))
        bits.reserve(distance &+ 1, from: cumulative, used: highest &+ 1)
        bits.insert(tsn)
        highest = max(highest, distance)
    }

    /// Moves the cumulative TSN over `count` TSNs, arrived or not, and over what has arrived behind
    /// them. Answers by how much it moved.
    mutating func advance(over count: Int) -> Int {
        guard count < highest else {
            bits.remove(from: cumulative.next, count: highest)
            highest = 0
            cumulative = cumulative.advanced(by: UInt32(truncatingIfNeeded: count))
            return count
        }
        let behind = cumulative.advanced(by: UInt32(truncatingIfNeeded: count &+ 1))
        let total = count &+ bits.run(of: true, from: behind, limit: highest &- count)
        bits.remove(from: cumulative.next, count: total)
        highest = highest > total ? highest &- total : 0
        cumulative = cumulative.advanced(by: UInt32(truncatingIfNeeded: total))
        return total
    }

    mutating func noteDuplicate(_ tsn: TSN) {
        guard duplicates.count < 32 else { return }
        duplicates.append(tsn.value)
    }

    mutating func clearDuplicates() {
        if !duplicates.isEmpty { duplicates.removeAll(keepingCapacity: true) }
    }

    /// The first gap block at or behind `distance` from the cumulative TSN: its ends as distances.
    func gapBlock(from distance: Int) -> (start: Int, end: Int)? {
        guard distance <= highest else { return nil }
        let from = cumulative.advanced(by: UInt32(truncatingIfNeeded: distance))
        let missing = bits.run(of: false, from: from, limit: highest &- distance &+ 1)
        let start = distance &+ missing
        guard start <= highest else { return nil }
        let first = cumulative.advanced(by: UInt32(truncatingIfNeeded: start))
        let length = bits.run(of: true, from: first, limit: highest &- start &+ 1)
        return (start, start &+ length &- 1)
    }
}
