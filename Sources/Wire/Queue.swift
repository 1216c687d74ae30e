/// First in, first out: a ring in one allocation, which doubles as it fills.
@frozen
public struct Queue<Element> {
    @usableFromInline var storage: ContiguousArray<Element?> = []
    @usableFromInline var head = 0
    @usableFromInline var length = 0

    @inlinable
    public init() {}

    @inlinable
    public init(_ elements: some Sequence<Element>) { for element in elements { append(element) } }

    @inlinable public var count: Int { length }
    @inlinable public var isEmpty: Bool { length == 0 }

    @inlinable public var first: Element? { length == 0 ? nil : storage[head] }

    @inlinable
    public mutating func append(_ element: Element) {
        if length == storage.count { grow() }
        storage[(head &+ length) & (storage.count &- 1)] = element
        length &+= 1
    }

    @inlinable
    public mutating func popFirst() -> Element? {
        guard length > 0 else { return nil }
        let element = storage[head].take()
        head = (head &+ 1) & (storage.count &- 1)
        length &-= 1
        // A burst must not hold on to its memory.
        if length == 0, storage.count > 1024 { removeAll() }
        return element
    }

    @inlinable
    public mutating func removeAll() {
        storage = []
        head = 0
        length = 0
    }

    /// The capacity is always a power of two.
    @inlinable
    mutating func grow() {
        var larger = ContiguousArray<Element?>(repeating: nil, count: Swift.max(8, storage.count &* 2))
        for index in 0..<length { larger[index] = storage[(head &+ index) & (storage.count &- 1)].take() }
        storage = larger
        head = 0
    }
}

extension Queue: Sendable where Element: Sendable {}

extension Queue: Sequence {
    /// What is in it, in order.
    @inlinable
    public func makeIterator() -> Iterator { Iterator(self) }

    @frozen
    public struct Iterator: IteratorProtocol {
        @usableFromInline let queue: Queue
        @usableFromInline var index = 0

        @inlinable
        init(_ queue: Queue) { self.queue = queue }

        @inlinable
        public mutating func next() -> Element? {
            guard index < queue.length else { return nil }
            defer { index &+= 1 }
            return queue.storage[(queue.head &+ index) & (queue.storage.count &- 1)]
        }
    }
}
