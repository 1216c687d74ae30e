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

    /// The digits of the lowest 24 bits, from `place` on.
    @inline(__always)
    static func write(_ bits: UInt64, _ text: inout InlineArray<32, UInt8>, _ place: Int) {
        text[place] = digit(UInt8(truncatingIfNeeded: bits &>> 18))
        text[place &+ 1] = digit(UInt8(truncatingIfNeeded: bits &>> 12))
        text[place &+ 2] = digit(UInt8(truncatingIfNeeded: bits &>> 6))
        text[place &+ 3] = digit(UInt8(truncatingIfNeeded: bits))
    }

    /// Without branches: the digits of random bits cannot be predicted.
    @inline(__always)
    static func digit(_ value: UInt8) -> UInt8 {
        let value = value & 63
        var digit = value &+ 0x41
        digit &+= value > 25 ? 6 : 0
        digit &-= value > 51 ? 75 : 0
        digit &-= value > 61 ? 13 : 0
        digit &+= value > 62 ? 49 : 0
        return digit
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
