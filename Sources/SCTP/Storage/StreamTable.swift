/// State for the streams that are in use, found by stream identifier. 65535 streams cost nothing
/// until they are used: a directory of pages of 256 slot numbers.
struct StreamTable<State> {
    private(set) var states: ContiguousArray<State> = []
    /// Page number + 1 for each high byte, then slot + 1 for each low byte of a page.
    private var directory: ContiguousArray<UInt16> = []
    private var pages: ContiguousArray<UInt16> = []
    private var lastStream = -1
    private var lastSlot = -1

    var count: Int { states.count }

    subscript(slot: Int) -> State {
        @inline(__always) get { states[slot] }
        @inline(__always) _modify { yield &states[slot] }
    }

    /// The slot of `stream`, or nil if it was never used.
    @inline(__always)
    func find(_ stream: UInt16) -> Int? {
        if Int(stream) == lastStream { return lastSlot }
        guard !directory.isEmpty else { return nil }
        let page = Int(directory[Int(stream >> 8)])
        guard page > 0 else { return nil }
        let slot = Int(pages[(page &- 1) << 8 | Int(stream & 0xFF)])
        return slot > 0 ? slot &- 1 : nil
    }

    /// The slot of `stream`, made with `initial` if it was never used.
    @inline(__always)
    mutating func slot(_ stream: UInt16, initial: @autoclosure () -> State) -> Int {
        if Int(stream) == lastStream { return lastSlot }
        let slot = find(stream) ?? insert(stream, initial())
        lastStream = Int(stream)
        lastSlot = slot
        return slot
    }

    @inline(never)
    private mutating func insert(_ stream: UInt16, _ initial: State) -> Int {
        if directory.isEmpty { directory = ContiguousArray(repeating: 0, count: 256) }
        if directory[Int(stream >> 8)] == 0 {
            pages.append(contentsOf: repeatElement(0, count: 256))
            directory[Int(stream >> 8)] = UInt16(truncatingIfNeeded: pages.count >> 8)
        }
        states.append(initial)
        let page = Int(directory[Int(stream >> 8)]) &- 1
        pages[page << 8 | Int(stream & 0xFF)] = UInt16(truncatingIfNeeded: states.count)
        return states.count &- 1
    }

    mutating func removeAll() { self = StreamTable() }
}
