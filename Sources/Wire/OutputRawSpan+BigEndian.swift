extension OutputRawSpan {
    /// Appends `value` in network byte order. False, and nothing written, if it does not fit.
    @inlinable
    @discardableResult
    @_lifetime(self: copy self)
    public mutating func write<Value: FixedWidthInteger & BitwiseCopyable>(_ value: Value) -> Bool {
        guard freeCapacity >= MemoryLayout<Value>.size else { return false }
        append(value.bigEndian, as: Value.self)
        return true
    }

    /// Appends a copy of `source`. False, and nothing written, if it does not fit.
    @inlinable
    @discardableResult
    @_lifetime(self: copy self)
    public mutating func write(_ source: RawSpan) -> Bool {
        guard freeCapacity >= source.byteCount else { return false }
        unsafe withUnsafeMutableBytes { buffer, count in
            unsafe source.withUnsafeBytes { from in
                guard let base = from.baseAddress, from.count > 0 else { return }
                unsafe (buffer.baseAddress! + count).copyMemory(from: base, byteCount: from.count)
            }
            count &+= source.byteCount
        }
        return true
    }

    @inlinable
    @discardableResult
    @_lifetime(self: copy self)
    public mutating func write(_ source: [UInt8]) -> Bool { write(source.span.bytes) }

    /// Appends `count` zero bytes. False, and nothing written, if they do not fit.
    @inlinable
    @discardableResult
    @_lifetime(self: copy self)
    public mutating func writeZeros(_ count: Int) -> Bool {
        guard count >= 0, freeCapacity >= count else { return false }
        for _ in 0..<count { append(0 as UInt8, as: UInt8.self) }
        return true
    }

    /// Overwrites bytes written before with `value` in network byte order. False if they are not all there.
    @inlinable
    @discardableResult
    @_lifetime(self: copy self)
    public mutating func overwrite<Value: FixedWidthInteger & BitwiseCopyable>(at offset: Int, with value: Value)
        -> Bool
    {
        guard offset >= 0, offset <= byteCount &- MemoryLayout<Value>.size else { return false }
        var written = mutableBytes
        written.storeBytes(of: value.bigEndian, toByteOffset: offset, as: Value.self)
        return true
    }
}
