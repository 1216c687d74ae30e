import Wire

/// Something that wants to be called at a time.
protocol Scheduled: AnyObject {
    var due: Instant { get set }
    /// Its place among the deadlines; theirs to write.
    var heapIndex: Int? { get set }
}

/// When which connection wants to be called: a binary heap in which each connection stands at most once and knows its
/// place, so that a deadline can move either way.
struct Deadlines<Item: Scheduled> {
    private var heap: [Item] = []

    var earliest: Instant? { heap.first?.due }

    /// Sets, moves or (with nil) takes away the connection's deadline.
    mutating func set(_ connection: Item, _ due: Instant?) {
        guard let due else { return remove(connection) }
        if let index = connection.heapIndex {
            guard due != connection.due else { return }
            connection.due = due
            settle(index)
        } else {
            connection.due = due
            connection.heapIndex = heap.count
            heap.append(connection)
            settle(heap.count - 1)
        }
    }

    /// Takes one connection that is due.
    mutating func popDue(at now: Instant) -> Item? {
        guard let first = heap.first, first.due <= now else { return nil }
        remove(first)
        return first
    }

    private mutating func remove(_ connection: Item) {
        guard let index = connection.heapIndex else { return }
        connection.heapIndex = nil
        let last = heap.removeLast()
        guard index < heap.count else { return }
        heap[index] = last
        last.heapIndex = index
        settle(index)
    }

    /// Moves the one at `start` to where it belongs.
    private mutating func settle(_ start: Int) {
        var index = start
        while index > 0, heap[index].due < heap[(index - 1) / 2].due {
            exchange(index, (index - 1) / 2)
            index = (index - 1) / 2
        }
        while true {
            var smallest = index
            for child in (2 * index + 1)...(2 * index + 2)
            where child < heap.count && heap[child].due < heap[smallest].due { smallest = child }
            guard smallest != index else { return }
            exchange(index, smallest)
            index = smallest
        }
    }

    private mutating func exchange(_ one: Int, _ other: Int) {
        heap.swapAt(one, other)
        heap[one].heapIndex = one
        heap[other].heapIndex = other
    }
}
