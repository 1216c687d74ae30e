import Wire

/// When which peer wants to be called: a binary heap that tolerates outdated entries. A peer whose deadline moved
/// later stays where it is and is asked again when its old time comes.
struct Deadlines<Key> {
    private struct Entry {
        var time: Instant
        var key: Key
    }

    private var heap: [Entry] = []

    var earliest: Instant? { heap.first?.time }

    mutating func insert(_ key: Key, at time: Instant) {
        heap.append(Entry(time: time, key: key))
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard heap[child].time < heap[parent].time else { break }
            heap.swapAt(child, parent)
            child = parent
        }
    }

    /// Takes one entry that is due.
    mutating func popDue(at now: Instant) -> (key: Key, time: Instant)? {
        guard let first = heap.first, first.time <= now else { return nil }
        let last = heap.removeLast()
        if !heap.isEmpty {
            heap[0] = last
            var parent = 0
            while true {
                var smallest = parent
                for child in [2 * parent + 1, 2 * parent + 2]
                where child < heap.count && heap[child].time < heap[smallest].time { smallest = child }
                guard smallest != parent else { break }
                heap.swapAt(parent, smallest)
                parent = smallest
            }
        }
        return (first.key, first.time)
    }
}
