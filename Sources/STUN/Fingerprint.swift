import Wire

/// CRC-32 as in ITU V.42 and zlib (reflected polynomial 0xEDB88320), continued from `initial`.
/// RFC 8489 section 14.7 uses it for FINGERPRINT.
public func crc32(_ bytes: RawSpan, initial: UInt32 = 0) -> UInt32 {
    let table = crcTable
    var crc = ~initial
    var offset = 0
    // Four bytes at a time, through four tables.
    while let word = bytes.load(bigEndianAt: offset, as: UInt32.self) {
        crc ^= word.byteSwapped
        crc =
            table[768 + Int(crc & 0xFF)] ^ table[512 + Int(crc >> 8 & 0xFF)] ^ table[256 + Int(crc >> 16 & 0xFF)]
            ^ table[Int(crc >> 24)]
        offset &+= 4
    }
    while offset < bytes.byteCount {
        crc = crc >> 8 ^ table[Int((crc ^ UInt32(bytes.byte(offset))) & 0xFF)]
        offset &+= 1
    }
    return ~crc
}

/// RFC 8489 section 14.7: the CRC is XORed with this, so that a CRC of another protocol in the same
/// place does not fit.
let fingerprintMask: UInt32 = 0x5354_554E

private let crcTable: [UInt32] = {
    var table = [UInt32](repeating: 0, count: 1024)
    for index in 0..<256 {
        var crc = UInt32(index)
        for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0xEDB8_8320 : crc >> 1 }
        table[index] = crc
    }
    for index in 0..<768 {
        let crc = table[index]
        table[index + 256] = crc >> 8 ^ table[Int(crc & 0xFF)]
    }
    return table
}()
