import Wire

/// RFC 4648 section 5 without padding, for words of 64 bits: what clients carry around.
enum Base64URL {
    /// The first `count` digits of the words' bits, most significant first.
    static func text(_ words: [UInt64], count: Int) -> String {
        var digits: [UInt8] = []
        digits.reserveCapacity(count)
        for index in 0..<count { digits.append(digit(bits(words, at: index &* 6))) }
        return String(decoding: digits, as: UTF8.self)
    }

    /// Six bits at `offset`; bits past the end are zero.
    private static func bits(_ words: [UInt64], at offset: Int) -> UInt8 {
        var value: UInt8 = 0
        for bit in offset..<offset &+ 6 {
            let isSet = bit < words.count &* 64 && words[bit &>> 6] &>> UInt64(63 &- bit & 63) & 1 == 1
            value = value &<< 1 | (isSet ? 1 : 0)
        }
        return value
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
