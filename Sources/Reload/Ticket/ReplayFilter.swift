public import Wire

/// Remembers the checks that made a peer, so that a copy of one makes no second peer.
///
/// A check is known by an id of the caller's: here its USERNAME, since a client's user fragment is new for each
/// connection. What is kept of an id is a keyed hash of 64 bits, in two generations of a fixed size: when the
/// young one is full, or as old as the lifetime, it becomes the old one and the old one is forgotten. So an id is
/// remembered for at least the lifetime, or until at least `capacity` others came after it.
///
/// Only checks whose integrity was verified are entered, so to push one out takes as many checks with the password of
/// a valid ticket; and a copy that passes gets no further than a DTLS handshake that cannot be finished without the
/// client's key. An id that is new is taken for known with a chance of 2 * capacity / 2^64.
public final class ReplayFilter {
    private let capacity: Int
    private let lifetime: Duration
    private let hash: SipHash
    /// Open addressing, twice as many places as entries; 0 is empty.
    private var young: [UInt64]
    private var old: [UInt64]
    /// Entries of the young generation.
    private(set) var count = 0
    private var born: Instant?

    /// `capacity` ids in each generation, 32 bytes for each.
    public init(
        capacity: Int = 16_384, lifetime: Duration = .seconds(7 * 86_400),
        using random: inout some RandomNumberGenerator
    ) {
        var size = 1
        while size < min(max(capacity, 1), 1 << 24) { size <<= 1 }
        self.capacity = size
        self.lifetime = lifetime
        hash = SipHash(using: &random)
        young = Array(repeating: 0, count: 2 * size)
        old = young
    }

    /// True if the id was here before; from now on it was. The two numbers are the id in any fixed way.
    public func isReplay(_ high: UInt64, _ low: UInt64, now: Instant) -> Bool {
        rotate(now)
        let entry = entry(high, low)
        if find(entry, in: old) != nil { return true }
        guard let place = emptyPlace(entry) else { return true }
        young[place] = entry
        count += 1
        return false
    }

    func entry(_ high: UInt64, _ low: UInt64) -> UInt64 { max(hash.hash([high, low]), 1) }

    private func rotate(_ now: Instant) {
        guard let born else {
            self.born = now
            return
        }
        let age = now - born
        guard count >= capacity || age >= lifetime else { return }
        swap(&young, &old)
        Self.clear(&young)
        // After two lifetimes without a check nothing is worth keeping.
        if age >= lifetime + lifetime { Self.clear(&old) }
        count = 0
        self.born = now
    }

    private static func clear(_ table: inout [UInt64]) {
        for index in table.indices { table[index] = 0 }
    }

    private func find(_ entry: UInt64, in table: [UInt64]) -> Int? {
        var place = Int(truncatingIfNeeded: entry) & (2 * capacity - 1)
        while table[place] != 0 {
            if table[place] == entry { return place }
            place = (place + 1) & (2 * capacity - 1)
        }
        return nil
    }

    /// nil if the entry is there. At least half of the places are empty.
    private func emptyPlace(_ entry: UInt64) -> Int? {
        var place = Int(truncatingIfNeeded: entry) & (2 * capacity - 1)
        while young[place] != 0 {
            if young[place] == entry { return nil }
            place = (place + 1) & (2 * capacity - 1)
        }
        return place
    }
}
