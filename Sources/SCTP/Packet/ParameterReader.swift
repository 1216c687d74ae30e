import Wire

/// Walks the type-length-value parameters of a chunk (RFC 9260 section 3.2.1); error causes have the
/// same form.
struct ParameterReader: ~Escapable {
    private let bytes: RawSpan
    private var position = 0
    /// A length below 4 or past the end was met.
    private(set) var isMalformed = false

    @_lifetime(copy bytes)
    init(_ bytes: RawSpan) { self.bytes = bytes }

    /// The next parameter's type; its value and its whole extent (padding excluded) by offset.
    mutating func next() -> (type: UInt16, value: Range<Int>, whole: Range<Int>)? {
        guard position < bytes.byteCount else { return nil }
        guard let type: UInt16 = bytes.load(bigEndianAt: position),
            let length: UInt16 = bytes.load(bigEndianAt: position &+ 2),
            length >= 4, Int(length) <= bytes.byteCount &- position
        else {
            isMalformed = true
            return nil
        }
        let whole = position..<position &+ Int(length)
        position &+= padded(Int(length))
        return (type, whole.lowerBound &+ 4..<whole.upperBound, whole)
    }
}
