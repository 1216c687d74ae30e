import Wire

extension RawSpan {
    /// True if the bytes are well-formed UTF-8 (RFC 3629): no overlong forms, surrogates or values beyond U+10FFFF.
    public var isValidUTF8: Bool {
        var offset = 0
        while offset < byteCount {
            // Eight ASCII characters at a time.
            if let word = load(bigEndianAt: offset, as: UInt64.self), word & 0x8080_8080_8080_8080 == 0 {
                offset &+= 8
                continue
            }
            let length = utf8SequenceLength(at: offset)
            guard length > 0 else { return false }
            offset &+= length
        }
        return true
    }

    /// RFC 3629 section 4: the length of the well-formed sequence at `offset`; zero if there is none.
    private func utf8SequenceLength(at offset: Int) -> Int {
        let first = byte(offset)
        let second = byte(offset &+ 1)
        let length: Int
        let allowed: ClosedRange<UInt8>
        switch first {
        case 0x00...0x7F: return 1
        case 0xC2...0xDF: (length, allowed) = (2, 0x80...0xBF)
        case 0xE0: (length, allowed) = (3, 0xA0...0xBF)
        case 0xED: (length, allowed) = (3, 0x80...0x9F)
        case 0xE1...0xEF: (length, allowed) = (3, 0x80...0xBF)
        case 0xF0: (length, allowed) = (4, 0x90...0xBF)
        case 0xF1...0xF3: (length, allowed) = (4, 0x80...0xBF)
        case 0xF4: (length, allowed) = (4, 0x80...0x8F)
        default: return 0
        }
        // Bytes past the end read as zero, which continues nothing.
        guard allowed.contains(second) else { return 0 }
        for index in 2..<max(length, 2) where byte(offset &+ index) & 0xC0 != 0x80 { return 0 }
        return length
    }
}
