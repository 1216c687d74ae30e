import Wire

/// What a returning client shows: "session-" and 32 characters of base64url, 192 random bits, so that
/// the part a log shows leaves well over 128 bits unknown.
///
/// Deliberately not Hashable: tables find tokens by a keyed hash (``MemoryStore``), never by the
/// token itself, and equality takes the same time wherever two tokens differ.
public struct SessionToken: Equatable, Sendable {
    let words: (UInt64, UInt64, UInt64)

    public init(using random: inout some RandomNumberGenerator) {
        words = (random.next(), random.next(), random.next())
    }

    init(words: (UInt64, UInt64, UInt64)) { self.words = words }

    /// All words are compared before anything is decided: no early exit.
    public static func == (left: SessionToken, right: SessionToken) -> Bool {
        let difference =
            (left.words.0 ^ right.words.0) | (left.words.1 ^ right.words.1) | (left.words.2 ^ right.words.2)
        return difference == 0
    }

    static let prefix = "session-"
    static let digitCount = 32

    /// Takes exactly what ``text`` gives; nil for everything else.
    public init?(parsing text: String) {
        var text = text
        let parsed = text.withUTF8 { bytes -> (UInt64, UInt64, UInt64)? in
            let prefix = Self.prefix.utf8
            guard bytes.count == prefix.count + Self.digitCount, bytes.starts(with: prefix) else { return nil }
            var words: [UInt64] = [0, 0, 0]
            // 32 digits of 6 bits, most significant first, are three words of 64 bits.
            for index in 0..<Self.digitCount {
                guard let digit = Base64Alphabet.url.value(of: unsafe bytes[prefix.count + index]) else { return nil }
                words[0] = words[0] << 6 | words[1] >> 58
                words[1] = words[1] << 6 | words[2] >> 58
                words[2] = words[2] << 6 | UInt64(digit)
            }
            return (words[0], words[1], words[2])
        }
        guard let parsed else { return nil }
        words = parsed
    }

    /// For messages: the whole secret. Never for logs.
    public var text: String { Self.prefix + String(decoding: digits, as: UTF8.self) }

    /// For logs: the first eight characters of the random part.
    public var displayPrefix: String { String(decoding: digits.prefix(8), as: UTF8.self) }

    private var digits: [UInt8] {
        var words = words
        var digits = [UInt8](repeating: 0, count: Self.digitCount)
        for index in stride(from: Self.digitCount - 1, through: 0, by: -1) {
            digits[index] = Base64Alphabet.url.digit(UInt8(truncatingIfNeeded: words.2))
            words.2 = words.2 >> 6 | words.1 << 58
            words.1 = words.1 >> 6 | words.0 << 58
            words.0 >>= 6
        }
        return digits
    }
}

/// A printed token shows only what a log may show.
extension SessionToken: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    public var description: String { displayPrefix }
    public var debugDescription: String { displayPrefix }
    public var customMirror: Mirror { Mirror(self, children: []) }
}
