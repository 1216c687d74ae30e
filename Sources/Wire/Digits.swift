extension UInt8 {
    /// The value of a hexadecimal digit, in either case; nil for other characters.
    @inlinable
    public var hexadecimalValue: UInt8? {
        switch self {
        case 0x30...0x39: self &- 0x30
        case 0x41...0x46: self &- 0x41 &+ 10
        case 0x61...0x66: self &- 0x61 &+ 10
        default: nil
        }
    }
}

extension UInt8 {
    /// RFC 8839 section 5.1: ice-char is a letter, a digit, "+" or "/".
    @inlinable
    public var isICECharacter: Bool { Base64Alphabet.standard.value(of: self) != nil }
}

/// The 64 digits of base 64 (RFC 4648).
@frozen
public enum Base64Alphabet: Sendable {
    /// Section 4, with "+" and "/".
    case standard
    /// Section 5, with "-" and "_".
    case url

    /// The digit of the lowest six bits.
    @inlinable
    public func digit(_ value: UInt8) -> UInt8 {
        let value = value & 63
        return switch value {
        case 0...25: 0x41 &+ value
        case 26...51: 0x61 &+ value &- 26
        case 52...61: 0x30 &+ value &- 52
        case 62: self == .standard ? 0x2B : 0x2D
        default: self == .standard ? 0x2F : 0x5F
        }
    }

    /// Nil for other characters.
    @inlinable
    public func value(of digit: UInt8) -> UInt8? {
        switch digit {
        case 0x41...0x5A: digit &- 0x41
        case 0x61...0x7A: digit &- 0x61 &+ 26
        case 0x30...0x39: digit &- 0x30 &+ 52
        case self == .standard ? 0x2B : 0x2D: 62
        case self == .standard ? 0x2F : 0x5F: 63
        default: nil
        }
    }
}
