/// A first-in first-out queue in one growing buffer.
struct Ring<Element> {
    private var storage: [Element?] = []
    private var head = 0
    private(set) var count = 0

    var isEmpty: Bool { count == 0 }

    var first: Element? { count == 0 ? nil : storage[head] }

    mutating func append(_ element: Element) {
        if count == storage.count { grow() }
        storage[(head + count) & (storage.count - 1)] = element
        count += 1
    }

    mutating func popFirst() -> Element? {
        guard count > 0 else { return nil }
        let element = storage[head].take()
        head = (head + 1) & (storage.count - 1)
        count -= 1
        return element
    }

    mutating func removeAll() {
        storage.removeAll()
        head = 0
        count = 0
    }

    /// The capacity is always a power of two.
    private mutating func grow() {
        var larger: [Element?] = []
        larger.reserveCapacity(max(16, storage.count * 2))
        for offset in 0..<count { larger.append(storage[(head + offset) & (storage.count - 1)]) }
        while larger.count < max(16, storage.count * 2) { larger.append(nil) }
        storage = larger
        head = 0
    }
}
