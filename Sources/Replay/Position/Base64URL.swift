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
        let first = Base64Alphabet.url.digit(UInt8(truncatingIfNeeded: words.0 &>> 58))
        words.0 = words.0 &<< 6 | words.1 &>> 58
        words.1 = words.1 &<< 6 | words.2 &>> 58
        words.2 = words.2 &<< 6
        return first
    }
}
