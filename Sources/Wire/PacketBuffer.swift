/// A reusable buffer for one packet on its way between two layers.
public final class PacketBuffer {
    private let storage: UnsafeMutableRawBufferPointer
    public private(set) var count = 0

    public init(capacity: Int) {
        unsafe storage = .allocate(byteCount: max(capacity, 1), alignment: 16)
    }

    deinit { unsafe storage.deallocate() }

    /// Empties the buffer and lets `body` write into it. Answers what `body` answers; the buffer is empty after
    /// a false.
    public func fill(_ body: (inout OutputRawSpan) -> Bool) -> Bool {
        var output = unsafe OutputRawSpan(buffer: storage, initializedCount: 0)
        let isFilled = body(&output)
        let written = unsafe output.finalize(for: storage)
        count = isFilled ? written : 0
        return isFilled
    }

    public func withBytes<Result>(_ body: (RawSpan) -> Result) -> Result {
        unsafe body(UnsafeRawBufferPointer(rebasing: storage[..<count]).bytes)
    }
}
