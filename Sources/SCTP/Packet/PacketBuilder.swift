import Wire

/// Builds the rare packets and chunks that are not written straight into the caller's buffer.
struct PacketBuilder {
    private(set) var bytes: [UInt8] = []

    init() {}

    init(localPort: UInt16, remotePort: UInt16, tag: UInt32) {
        write(localPort)
        write(remotePort)
        write(tag)
        write(0 as UInt32)
    }

    mutating func write<Value: FixedWidthInteger>(_ value: Value) {
        for shift in stride(from: Value.bitWidth - 8, through: 0, by: -8) {
            bytes.append(UInt8(truncatingIfNeeded: value >> Value(shift)))
        }
    }

    mutating func write(_ more: [UInt8]) { bytes.append(contentsOf: more) }

    mutating func pad() {
        while bytes.count & 3 != 0 { bytes.append(0) }
    }

    /// A chunk around what `body` writes; the length excludes the padding behind it.
    mutating func chunk(_ type: UInt8, flags: UInt8 = 0, _ body: (inout PacketBuilder) -> Void = { _ in }) {
        pad()
        let start = bytes.count
        write(type)
        write(flags)
        write(0 as UInt16)
        body(&self)
        setLength(at: start)
        pad()
    }

    /// A parameter or error cause. The one before is padded; the last one in a chunk is not, so that
    /// the chunk's length leaves the padding out.
    mutating func parameter(_ type: UInt16, _ body: (inout PacketBuilder) -> Void = { _ in }) {
        pad()
        let start = bytes.count
        write(type)
        write(0 as UInt16)
        body(&self)
        setLength(at: start)
    }

    private mutating func setLength(at start: Int) {
        let length = UInt16(truncatingIfNeeded: bytes.count &- start)
        bytes[start + 2] = UInt8(truncatingIfNeeded: length >> 8)
        bytes[start + 3] = UInt8(truncatingIfNeeded: length)
    }

    /// The packet with its checksum.
    consuming func finished() -> [UInt8] {
        pad()
        let checksum = packetChecksum(bytes.span.bytes)
        guard bytes.count >= commonHeaderSize else { return bytes }
        for index in 0..<4 { bytes[8 + index] = UInt8(truncatingIfNeeded: checksum >> UInt32(24 - 8 * index)) }
        return bytes
    }
}
