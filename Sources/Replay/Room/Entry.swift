import Wire

/// One number of a room's history: a message, or what is left of one.
struct Entry {
    /// When it was published, and when its own lifetime ends; nanoseconds.
    var published: Int64
    var expires: Int64
    var negotiation: UInt64
    /// Serials of sender and recipient in the room; 0: the server, everybody.
    var from: UInt32
    var to: UInt32
    var block: UInt32
    var length: UInt32
    var kind: MessageKind
    /// Those of ``MessageProperties/flags``, and `superseded`.
    var flags: UInt8

    static let text: UInt8 = 1
    static let priority: UInt8 = 2
    /// Replaced by a newer message; its bytes are gone, only the number is kept.
    static let superseded: UInt8 = 4
    static let compressed: UInt8 = 8

    var isCompressed: Bool { flags & Self.compressed != 0 }
    var isText: Bool { flags & Self.text != 0 }
    var isSuperseded: Bool { flags & Self.superseded != 0 }

    /// True if it stays when messages are trimmed by count.
    var isKept: Bool { kind == .offer || kind == .answer || flags & Self.priority != 0 }

    func isExpired(at time: Int64) -> Bool { expires <= time }

    func isFor(_ serial: UInt32) -> Bool { (to == 0 || to == serial) && from != serial }
}

/// Entries under consecutive numbers. A number is an index: finding one takes no search.
struct Ring {
    private var entries: ContiguousArray<Entry> = []
    private var head = 0
    private(set) var count = 0
    /// The number of the first entry, if there is one.
    private(set) var first: UInt64 = 1

    private static let empty = Entry(
        published: 0, expires: 0, negotiation: 0, from: 0, to: 0, block: Arena.none, length: 0, kind: .other,
        flags: Entry.superseded)

    /// `index` counts from the first entry; it must be below `count`.
    subscript(index: Int) -> Entry {
        @inline(__always) get { entries[(head &+ index) & (entries.count &- 1)] }
        @inline(__always) _modify { yield &entries[(head &+ index) & (entries.count &- 1)] }
    }

    /// The first entry's number is `sequence` if there is none yet; otherwise the new one's follows the last.
    @inline(__always)
    mutating func append(_ entry: Entry, sequence: UInt64) {
        if count == 0 { first = sequence }
        if count == entries.count { grow() }
        entries[(head &+ count) & (entries.count &- 1)] = entry
        count &+= 1
    }

    @inline(__always)
    mutating func popFirst() -> Entry? {
        guard count > 0 else { return nil }
        let entry = entries[head]
        head = (head &+ 1) & (entries.count &- 1)
        count &-= 1
        first &+= 1
        return entry
    }

    /// Gives the memory back.
    mutating func removeAll() {
        entries = []
        head = 0
        count = 0
    }

    private mutating func grow() {
        var larger = ContiguousArray(repeating: Self.empty, count: max(entries.count &* 2, 8))
        for index in 0..<count { larger[index] = self[index] }
        entries = larger
        head = 0
    }
}
