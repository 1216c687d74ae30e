import Wire

/// The bytes of all messages, in blocks of one size: nothing is allocated per message, nothing fragments, and the
/// memory in use is the number of blocks. A message is a chain of blocks, mostly neighbours.
struct Arena {
    static let blockSize = 256
    /// Blocks are got from the system this many at a time.
    static let blocksPerSegment = 128
    /// Kept when nothing is in use.
    static let idleSegments = 32
    /// No block.
    static let none = UInt32.max
    /// What a message costs beside its bytes: its entry in the ring.
    static let entryCost = 64

    /// One message's blocks.
    struct Chain {
        let first: UInt32
        let count: Int
    }

    private var segments: [[UInt8]] = []
    private var next: [UInt32] = []
    private var free = none
    private(set) var blocksInUse = 0
    private let maximumBlocks: Int

    /// Room for messages of `maximumBytes` by ``cost(_:)``.
    init(maximumBytes: Int) {
        maximumBlocks = min(maximumBytes / Self.blockSize &+ 1, Int(UInt32.max) - 1)
    }

    static func blocks(_ count: Int) -> Int { (count &+ blockSize &- 1) / blockSize }

    /// Memory for a message of `count` bytes.
    static func cost(_ count: Int) -> Int { blocks(count) &* blockSize &+ entryCost }

    /// Bytes got from the system.
    var reserved: Int { segments.count &* Self.blocksPerSegment &* Self.blockSize }

    /// Copies `bytes` in. nil if there is no room; ``none`` for no bytes.
    mutating func store(_ bytes: RawSpan) -> UInt32? {
        let needed = Self.blocks(bytes.byteCount)
        guard needed > 0 else { return Self.none }
        guard blocksInUse &+ needed <= maximumBlocks else { return nil }
        var first = Self.none
        var last = Self.none
        var offset = 0
        while offset < bytes.byteCount {
            if free == Self.none { addSegment() }
            let block = free
            free = next[Int(block)]
            next[Int(block)] = Self.none
            if last == Self.none { first = block } else { next[Int(last)] = block }
            last = block
            let count = min(Self.blockSize, bytes.byteCount &- offset)
            write(bytes, from: offset, count: count, to: block)
            offset &+= count
        }
        blocksInUse &+= needed
        return first
    }

    private mutating func write(_ bytes: RawSpan, from offset: Int, count: Int, to block: UInt32) {
        let start = Int(block) % Self.blocksPerSegment &* Self.blockSize
        unsafe segments[Int(block) / Self.blocksPerSegment].withUnsafeMutableBytes { segment in
            unsafe bytes.withUnsafeBytes { source in
                let part = unsafe UnsafeRawBufferPointer(rebasing: source[offset..<offset &+ count])
                unsafe UnsafeMutableRawBufferPointer(rebasing: segment[start..<start &+ count]).copyMemory(from: part)
            }
        }
    }

    /// Appends the bytes of `chains`, `total` in all, to `output`.
    func read(_ chains: ContiguousArray<Chain>, total: Int, into output: inout [UInt8]) {
        output.append(addingCapacity: total) { span in
            unsafe span.withUnsafeMutableBufferPointer { buffer, written in
                for chain in chains {
                    var block = chain.first
                    var remaining = chain.count
                    while remaining > 0, block != Self.none {
                        let part = min(Self.blockSize, remaining)
                        let start = Int(block) % Self.blocksPerSegment &* Self.blockSize
                        let target = unsafe UnsafeMutableRawBufferPointer(
                            UnsafeMutableBufferPointer(rebasing: buffer[written..<written &+ part]))
                        unsafe segments[Int(block) / Self.blocksPerSegment].withUnsafeBytes { segment in
                            unsafe target.copyMemory(
                                from: UnsafeRawBufferPointer(rebasing: segment[start..<start &+ part]))
                        }
                        written &+= part
                        remaining &-= part
                        block = next[Int(block)]
                    }
                }
            }
        }
    }

    /// Gives a chain back, whole.
    mutating func release(_ first: UInt32) {
        guard first != Self.none else { return }
        var last = first
        var count = 1
        while next[Int(last)] != Self.none {
            last = next[Int(last)]
            count &+= 1
        }
        next[Int(last)] = free
        free = first
        blocksInUse &-= count
        if blocksInUse == 0, segments.count > Self.idleSegments {
            // A burst must not hold on to its memory.
            segments = []
            next = []
            free = Self.none
        }
    }

    private mutating func addSegment() {
        let first = UInt32(truncatingIfNeeded: next.count)
        segments.append([UInt8](repeating: 0, count: Self.blocksPerSegment &* Self.blockSize))
        next.reserveCapacity(next.count &+ Self.blocksPerSegment)
        for index in 0..<UInt32(Self.blocksPerSegment) { next.append(first &+ index &+ 1) }
        next[next.count &- 1] = free
        free = first
    }
}
