import Wire

/// What a client shows to get what it missed: 128 random bits that belong to one membership of one user in one
/// incarnation of a room. The names of room and user alone open nothing.
///
/// Deliberately not Hashable, and equality takes the same time wherever two tokens differ.
public struct ResumeToken: Equatable, Sendable {
    /// The bits, for stores that keep them elsewhere.
    public let high: UInt64
    public let low: UInt64

    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    public init(using random: inout some RandomNumberGenerator) {
        high = random.next()
        low = random.next()
    }

    public static func == (left: ResumeToken, right: ResumeToken) -> Bool {
        (left.high ^ right.high) | (left.low ^ right.low) == 0
    }

    /// Length of every text.
    public static let textLength = 22

    /// Takes exactly what ``text`` gives.
    public init?(parsing text: String) {
        let bytes = Array(text.utf8)
        self.init(parsing: bytes.span.bytes)
    }

    public init?(parsing text: RawSpan) {
        guard text.byteCount == Self.textLength else { return nil }
        var words: (UInt64, UInt64) = (0, 0)
        for index in 0..<Self.textLength {
            guard let digit = Base64URL.value(text.byte(index)) else { return nil }
            // 22 digits are 132 bits: the last four must be zero.
            if index == Self.textLength &- 1 {
                guard digit & 15 == 0 else { return nil }
                words.0 = words.0 &<< 2 | words.1 &>> 62
                words.1 = words.1 &<< 2 | UInt64(digit &>> 4)
            } else {
                words.0 = words.0 &<< 6 | words.1 &>> 58
                words.1 = words.1 &<< 6 | UInt64(digit)
            }
        }
        high = words.0
        low = words.1
    }

    /// The characters of ``text``.
    public var characters: InlineArray<22, UInt8> {
        var words: (UInt64, UInt64, UInt64) = (high, low, 0)
        return InlineArray { _ in Base64URL.next(&words) }
    }

    /// For messages: the whole secret. Never for logs.
    public var text: String { Base64URL.text((high, low, 0), count: Self.textLength) }
}

/// A printed token shows only what a log may show.
extension ResumeToken: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    public var description: String { String(text.prefix(8)) }
    public var debugDescription: String { description }
    public var customMirror: Mirror { Mirror(self, children: []) }
}
