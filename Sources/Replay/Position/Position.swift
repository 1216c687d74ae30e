import Wire

/// Where a client is in a room's history: after the message with this number, in this incarnation of the numbering.
///
/// Clients see it only as an opaque text (``PositionKey``). Sequence 0 is before the first message.
public struct Position: Hashable, Sendable {
    /// Random, and new whenever the numbers could have restarted.
    public var epoch: UInt64
    public var sequence: UInt64

    public init(epoch: UInt64, sequence: UInt64) {
        self.epoch = epoch
        self.sequence = sequence
    }

    /// The epoch's lowest bit tells who numbered: a store's own epochs have it clear, those that a server gives out
    /// while its store is away have it set. The two can never be taken for each other.
    static let degradedBit: UInt64 = 1

    /// True if the number was given out while the store was away.
    public var isDegraded: Bool { epoch & Self.degradedBit != 0 }
}

/// Why a text is not a position.
public enum PositionError: Error, Equatable, Sendable {
    /// Truncated, too long, or not base64url.
    case malformed
    /// The code does not fit: altered, made up, or signed with another secret.
    case forged
}

/// Signs and checks positions: epoch, sequence and a 64-bit code (SipHash-2-4), 32 characters of base64url.
///
/// Servers that share a store share the secret. A code of this length withstands guessing over the network, and what
/// it guards is small: a position opens nothing without a ``ResumeToken``.
public struct PositionKey: Sendable {
    private let hash: SipHash

    /// Derived from a secret of any length; 16 random bytes or more are right.
    public init(secret: [UInt8]) {
        let digest = SHA256.hash(Array("replay position\u{0}".utf8) + secret)
        hash = SipHash(key0: digest.0, key1: digest.1)
    }

    public init(using random: inout some RandomNumberGenerator) { hash = SipHash(using: &random) }

    /// Length of every text.
    public static let textLength = 32

    public func text(_ position: Position) -> String {
        let code = hash.hash([position.epoch, position.sequence])
        return Base64URL.text((position.epoch, position.sequence, code), count: Self.textLength)
    }

    /// Appends the text's 32 bytes. False, and nothing written, if they do not fit.
    @discardableResult
    public func write(_ position: Position, into output: inout OutputRawSpan) -> Bool {
        guard output.freeCapacity >= Self.textLength else { return false }
        var words = (position.epoch, position.sequence, hash.hash([position.epoch, position.sequence]))
        for _ in 0..<Self.textLength { output.append(Base64URL.next(&words), as: UInt8.self) }
        return true
    }

    /// The characters of ``text(_:)``.
    public func characters(_ position: Position) -> InlineArray<32, UInt8> {
        let words = (position.epoch, position.sequence, hash.hash([position.epoch, position.sequence]))
        var text = InlineArray<32, UInt8>(repeating: 0)
        // 24 bits are four digits: one piece of a word, or of two neighbours.
        Base64URL.write(words.0 &>> 40, &text, 0)
        Base64URL.write(words.0 &>> 16, &text, 4)
        Base64URL.write(words.0 &<< 8 | words.1 &>> 56, &text, 8)
        Base64URL.write(words.1 &>> 32, &text, 12)
        Base64URL.write(words.1 &>> 8, &text, 16)
        Base64URL.write(words.1 &<< 16 | words.2 &>> 48, &text, 20)
        Base64URL.write(words.2 &>> 24, &text, 24)
        Base64URL.write(words.2, &text, 28)
        return text
    }

    /// Takes exactly what ``text(_:)`` gives.
    public func position(_ text: RawSpan) throws(PositionError) -> Position {
        guard text.byteCount == Self.textLength else { throw .malformed }
        var words: (UInt64, UInt64, UInt64) = (0, 0, 0)
        for offset in 0..<Self.textLength {
            guard let character: UInt8 = text.load(bigEndianAt: offset), let digit = Base64URL.value(character) else {
                throw .malformed
            }
            words.0 = words.0 &<< 6 | words.1 &>> 58
            words.1 = words.1 &<< 6 | words.2 &>> 58
            words.2 = words.2 &<< 6 | UInt64(digit)
        }
        // Two words compared as one: nothing depends on where they differ.
        guard hash.hash([words.0, words.1]) ^ words.2 == 0 else { throw .forged }
        return Position(epoch: words.0, sequence: words.1)
    }

    public func position(_ text: String) throws(PositionError) -> Position {
        let bytes = Array(text.utf8)
        return try position(bytes.span.bytes)
    }
}
