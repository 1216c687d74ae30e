import Wire

/// Bytes on their way, first in, first out.
struct ByteQueue {
    private var bytes: [UInt8] = []
    private var head = 0
    /// What is gone from the beginning stays in memory until it is this much.
    private static let slack = 16_384

    var count: Int { bytes.count &- head }
    var isEmpty: Bool { bytes.count == head }

    mutating func append(_ more: RawSpan) {
        unsafe more.withUnsafeBytes { unsafe bytes.append(contentsOf: $0) }
    }

    mutating func append(bigEndian value: UInt16) {
        bytes.append(UInt8(truncatingIfNeeded: value >> 8))
        bytes.append(UInt8(truncatingIfNeeded: value))
    }

    mutating func removeFirst(_ count: Int) {
        head = min(head &+ max(count, 0), bytes.count)
        if head == bytes.count {
            // A burst must not hold on to its memory.
            bytes.removeAll(keepingCapacity: bytes.capacity <= 2 * ByteQueue.slack)
            head = 0
        } else if head >= ByteQueue.slack, head > bytes.count / 2 {
            bytes.removeSubrange(..<head)
            head = 0
        }
    }

    mutating func removeAll() {
        bytes = []
        head = 0
    }

    func withBytes<Result>(_ body: (RawSpan) -> Result) -> Result {
        body(bytes.span.bytes.extracting(droppingFirst: head))
    }
}
