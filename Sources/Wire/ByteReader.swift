/// Reads big-endian fields from bytes that somebody else chose. Every read answers nil past the
/// end and then leaves the position where it was.
@frozen
public struct ByteReader: ~Escapable {
    @usableFromInline let bytes: RawSpan
    /// Offset of the next byte to read.
    public private(set) var position: Int = 0

    @inlinable
    @_lifetime(copy bytes)
    public init(_ bytes: RawSpan) { self.bytes = bytes }

    @inlinable public var remaining: Int { bytes.byteCount &- position }

    @inlinable
    public mutating func read<Value: FixedWidthInteger & BitwiseCopyable>(_ type: Value.Type = Value.self) -> Value? {
        guard let value = bytes.load(bigEndianAt: position, as: Value.self) else { return nil }
        advance(MemoryLayout<Value>.size)
        return value
    }

    @inlinable
    @_lifetime(copy self)
    public mutating func read(count: Int) -> RawSpan? {
        guard count >= 0, count <= remaining else { return nil }
        let slice = bytes.extracting(position..<position &+ count)
        advance(count)
        return slice
    }

    @inlinable
    public mutating func skip(_ count: Int) -> Bool {
        guard count >= 0, count <= remaining else { return false }
        advance(count)
        return true
    }

    @usableFromInline
    mutating func advance(_ count: Int) { position &+= count }
}

extension RawSpan {
    /// The big-endian integer at `offset`, or nil if it does not lie wholly inside.
    @inlinable
    public func load<Value: FixedWidthInteger & BitwiseCopyable>(
        bigEndianAt offset: Int, as type: Value.Type = Value.self
    ) -> Value? {
        guard offset >= 0, offset <= byteCount &- MemoryLayout<Value>.size else { return nil }
        return Value(bigEndian: unsafe unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: Value.self))
    }

    /// The bytes from `offset` on, `count` of them, or nil if they do not lie wholly inside.
    @inlinable
    @_lifetime(copy self)
    public func slice(at offset: Int, count: Int) -> RawSpan? {
        guard offset >= 0, count >= 0, offset <= byteCount, count <= byteCount &- offset else { return nil }
        return extracting(offset..<offset &+ count)
    }

    /// A copy, for the few places that keep bytes beyond the call.
    @inlinable
    public func copied() -> [UInt8] {
        unsafe withUnsafeBytes { unsafe Array($0) }
    }

    @inlinable
    public func elementsEqual(_ other: RawSpan) -> Bool {
        guard byteCount == other.byteCount else { return false }
        for offset in 0..<byteCount
        where unsafe unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt8.self)
            != other.unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt8.self)
        {
            return false
        }
        return true
    }

    /// Equality in time that depends on the lengths only: for secrets and integrity values.
    @inlinable
    public func equalsInConstantTime(_ other: RawSpan) -> Bool {
        guard byteCount == other.byteCount else { return false }
        var difference: UInt8 = 0
        for offset in 0..<byteCount {
            difference |=
                unsafe unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt8.self)
                ^ other.unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt8.self)
        }
        return difference == 0
    }
}
