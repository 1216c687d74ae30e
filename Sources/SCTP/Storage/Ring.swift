/// A first-in, first-out queue in one growing allocation.
struct Ring<Element> {
    private var storage: ContiguousArray<Element?> = []
    private var head = 0
    private(set) var count = 0

    var isEmpty: Bool { count == 0 }

    mutating func append(_ element: Element) {
        if count == storage.count { grow() }
        storage[(head &+ count) & (storage.count &- 1)] = element
        count &+= 1
    }

    mutating func popFirst() -> Element? {
        guard count > 0 else { return nil }
        let element = storage[head].take()
        head = (head &+ 1) & (storage.count &- 1)
        count &-= 1
        // A burst must not hold on to its memory.
        if count == 0, storage.count > 1024 {
            storage = []
            head = 0
        }
        return element
    }

    mutating func removeAll() {
        storage = []
        head = 0
        count = 0
    }

    private mutating func grow() {
        var larger = ContiguousArray<Element?>(repeating: nil, count: max(8, storage.count &* 2))
        for index in 0..<count { larger[index] = storage[(head &+ index) & (storage.count &- 1)].take() }
        storage = larger
        head = 0
    }
}
