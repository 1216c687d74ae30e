/// RFC 8489 section 5: the class is two bits inside the type.
public enum MessageClass: UInt16, Sendable {
    case request = 0x000
    case indication = 0x010
    case success = 0x100
    case error = 0x110
}

/// The first 16 bits of a message: method and class.
public struct MessageType: Hashable, Sendable {
    public let rawValue: UInt16

    public init(rawValue: UInt16) { self.rawValue = rawValue }

    /// `method` has 12 bits, which lie around the two of the class.
    public init(_ messageClass: MessageClass, method: UInt16 = MessageType.binding) {
        rawValue = (method & 0xF80) << 2 | (method & 0x70) << 1 | method & 0xF | messageClass.rawValue
    }

    public static let binding: UInt16 = 1

    // RFC 8656 section 17.
    public static let allocate: UInt16 = 3
    public static let refresh: UInt16 = 4
    public static let send: UInt16 = 6
    public static let data: UInt16 = 7
    public static let createPermission: UInt16 = 8
    public static let channelBind: UInt16 = 9

    public var messageClass: MessageClass {
        switch rawValue & 0x110 {
        case 0x000: .request
        case 0x010: .indication
        case 0x100: .success
        default: .error
        }
    }

    public var method: UInt16 { rawValue >> 2 & 0xF80 | rawValue >> 1 & 0x70 | rawValue & 0xF }
}

/// The 96 bits that tie a response to its request (RFC 8489 section 5).
public struct TransactionID: Hashable, Sendable {
    public var high: UInt32
    public var low: UInt64

    public init(high: UInt32, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// RFC 8489 section 5: uniformly and randomly chosen, and not to be guessed.
    public init(using random: inout some RandomNumberGenerator) {
        high = UInt32(truncatingIfNeeded: random.next())
        low = random.next()
    }
}
