import Wire

/// RFC 4648 without padding; usually in the alphabet of section 4, which is exactly that of ICE user fragments and
/// passwords (RFC 8839 section 5.4, ice-char).
enum Base64 {
    static func text(_ bytes: [UInt8], _ alphabet: Base64Alphabet = .standard) -> [UInt8] {
        var text: [UInt8] = []
        text.reserveCapacity(textCount(bytes.count))
        var bits: UInt32 = 0
        var count: UInt32 = 0
        for byte in bytes {
            bits = bits << 8 | UInt32(byte)
            count += 8
            while count >= 6 {
                count -= 6
                text.append(alphabet.digit(UInt8(truncatingIfNeeded: bits >> count)))
            }
        }
        if count > 0 { text.append(alphabet.digit(UInt8(truncatingIfNeeded: bits << (6 - count)))) }
        return text
    }

    static func textCount(_ bytes: Int) -> Int { (bytes * 8 + 5) / 6 }

    /// The bytes of the text from `start` on; nil unless it is what ``text(_:)`` gives.
    static func bytes(_ text: RawSpan, from start: Int) -> [UInt8]? {
        // One digit alone is less than a byte.
        guard start >= 0, start <= text.byteCount, (text.byteCount - start) % 4 != 1 else { return nil }
        var bytes: [UInt8] = []
        bytes.reserveCapacity((text.byteCount - start) * 3 / 4)
        var bits: UInt32 = 0
        var count: UInt32 = 0
        for offset in start..<text.byteCount {
            guard let digit = Base64Alphabet.standard.value(of: text.byte(offset)) else { return nil }
            bits = bits << 6 | UInt32(digit)
            count += 6
            guard count >= 8 else { continue }
            count -= 8
            bytes.append(UInt8(truncatingIfNeeded: bits >> count))
        }
        // RFC 4648 section 3.5: pad bits other than zero would make several texts of the same bytes.
        guard bits & (1 << count - 1) == 0 else { return nil }
        return bytes
    }
}
