import Wire

/// One bit for each of a window of TSNs. A TSN's place is its value modulo the capacity, a power of
/// two, so nothing moves when the window does, not even around 2^32.
struct BitRing {
    private var words: ContiguousArray<UInt64> = []
    private var mask: UInt32 = 0

    var capacity: Int { words.count &* 64 }

    /// Makes room for `span` TSNs from `first` on; `used` of them have bits to keep.
    mutating func reserve(_ span: Int, from first: TSN, used: Int) {
        guard span > capacity else { return }
        var size = max(64, capacity)
        while size < span { size &*= 2 }
        let before = self
        words = ContiguousArray(repeating: 0, count: size / 64)
        mask = UInt32(truncatingIfNeeded: size &- 1)
        guard before.capacity > 0 else { return }
        for step in 0..<UInt32(truncatingIfNeeded: min(used, before.capacity)) {
            let tsn = first.advanced(by: step)
            if before.contains(tsn) { insert(tsn) }
        }
    }

    @inline(__always)
    func contains(_ tsn: TSN) -> Bool {
        let place = Int(tsn.value & mask)
        guard place >> 6 < words.count else { return false }
        return words[place >> 6] >> UInt64(place & 63) & 1 != 0
    }

    @inline(__always)
    mutating func insert(_ tsn: TSN) {
        let place = Int(tsn.value & mask)
        guard place >> 6 < words.count else { return }
        words[place >> 6] |= 1 << UInt64(place & 63)
    }

    @inline(__always)
    mutating func remove(_ tsn: TSN) {
        let place = Int(tsn.value & mask)
        guard place >> 6 < words.count else { return }
        words[place >> 6] &= ~(1 << UInt64(place & 63))
    }

    /// Clears `count` bits from `first` on.
    mutating func remove(from first: TSN, count: Int) {
        if count >= capacity {
            for index in words.indices { words[index] = 0 }
            return
        }
        var done = 0
        while done < count {
            let place = Int((first.value &+ UInt32(truncatingIfNeeded: done)) & mask)
            let length = min(64 &- (place & 63), count &- done)
            let bits: UInt64 = length == 64 ? ~0 : ((1 << UInt64(length)) &- 1) << UInt64(place & 63)
            words[place >> 6] &= ~bits
            done &+= length
        }
    }

    /// How many bits from `first` on equal `value`, at most `limit`.
    func run(of value: Bool, from first: TSN, limit: Int) -> Int {
        guard !words.isEmpty else { return value ? 0 : limit }
        var count = 0
        while count < limit {
            let place = Int((first.value &+ UInt32(truncatingIfNeeded: count)) & mask)
            let word = value ? words[place >> 6] : ~words[place >> 6]
            let available = 64 &- (place & 63)
            let equal = min((~(word >> UInt64(place & 63))).trailingZeroBitCount, available)
            count &+= equal
            if equal < available { break }
        }
        return min(count, limit)
    }

    mutating func removeAll() {
        words = []
        mask = 0
    }
}
