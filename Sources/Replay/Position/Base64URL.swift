import Wire

/// RFC 4648 section 5 without padding, for words of 64 bits: what clients carry around.
enum Base64URL {
    /// The first `count` digits of the words' bits, most significant first.
    static func text(_ words: (UInt64, UInt64, UInt64), count: Int) -> String {
        var words = words
        var digits: [UInt8] = []
        digits.reserveCapacity(count)
        for _ in 0..<count { digits.append(next(&words)) }
        return String(decoding: digits, as: UTF8.self)
    }

    /// Takes the first digit off.
    @inline(__always)
    static func next(_ words: inout (UInt64, UInt64, UInt64)) -> UInt8 {
        let first = digit(UInt8(truncatingIfNeeded: words.0 &>> 58))
        words.0 = words.0 &<< 6 | words.1 &>> 58
        words.1 = words.1 &<< 6 | words.2 &>> 58
        words.2 = words.2 &<< 6
        return first
    }

    static func digit(_ value: UInt8) -> UInt8 {
        switch value & 63 {
        case 0...25: 0x41 &+ (value & 63)
        case 26...51: 0x61 &+ (value & 63) &- 26
        case 52...61: 0x30 &+ (value & 63) &- 52
        case 62: 0x2D
        default: 0x5F
        }
    }

    static func value(_ character: UInt8) -> UInt8? {
        switch character {
        case 0x41...0x5A: character &- 0x41
        case 0x61...0x7A: character &- 0x61 &+ 26
        case 0x30...0x39: character &- 0x30 &+ 52
        case 0x2D: 62
        case 0x5F: 63
        default: nil
        }
    }
}
