import Wire

/// Why a datagram is no STUN message, or not one to be processed.
public enum Malformation: Error, Hashable, Sendable {
    /// Not STUN at all (see ``isMessage(_:)``).
    case notSTUN
    /// An attribute reaches past the end of the message.
    case truncatedAttribute
    case tooManyAttributes
    /// An integrity or FINGERPRINT attribute of a length it cannot have.
    case badLength
    /// FINGERPRINT is not the last attribute.
    case fingerprintNotLast
    /// FINGERPRINT does not match: damaged, or another protocol.
    case badFingerprint
}

/// A received message, read in place. Making one checks the header, walks the attributes once and
/// checks FINGERPRINT; whether the sender knows the password is a second question, put with
/// ``isAuthentic(_:)``.
public struct Message: ~Escapable {
    /// The whole message.
    public let bytes: RawSpan
    public let type: MessageType
    public let transactionID: TransactionID
    /// Where the attributes that count end: RFC 8489 sections 14.5 and 14.6 have everything behind
    /// an integrity attribute ignored, except the stronger one and FINGERPRINT.
    private let end: Int
    /// Offsets of the trailing attributes; 0 if absent.
    private let integrity: Int
    private let integritySHA256: Int
    private let fingerprint: Int
    /// The types that had to be understood and are not, the first few of them.
    public let unknownAttributes: UnknownAttributes

    @_lifetime(copy datagram)
    public init(_ datagram: RawSpan) throws(Malformation) {
        guard isMessage(datagram),
            let type = datagram.load(bigEndianAt: 0, as: UInt16.self),
            let high = datagram.load(bigEndianAt: 8, as: UInt32.self),
            let low = datagram.load(bigEndianAt: 12, as: UInt64.self)
        else { throw .notSTUN }
        let walk = try AttributeWalk(datagram)
        bytes = datagram
        self.type = MessageType(rawValue: type)
        transactionID = TransactionID(high: high, low: low)
        end = walk.end == 0 ? datagram.byteCount : walk.end
        integrity = walk.integrity
        integritySHA256 = walk.integritySHA256
        fingerprint = walk.fingerprint
        unknownAttributes = walk.unknown
        guard fingerprint == 0 || hasMatchingFingerprint else { throw .badFingerprint }
    }

    public var messageClass: MessageClass { type.messageClass }
    public var method: UInt16 { type.method }
    public var hasFingerprint: Bool { fingerprint != 0 }

    /// The integrity attribute to go by; nil if there is none. RFC 8489 section 9.1.3: a receiver
    /// that knows the SHA-256 one looks at that and ignores the other.
    public var integrityAlgorithm: IntegrityAlgorithm? {
        integritySHA256 != 0 ? .sha256 : integrity != 0 ? .sha1 : nil
    }

    /// Whether the message was made by someone who has `key`, over everything the accessors show.
    public func isAuthentic(_ key: IntegrityKey) -> Bool {
        switch integrityAlgorithm {
        case .sha256: matches(key, .sha256, at: integritySHA256)
        case .sha1: matches(key, .sha1, at: integrity)
        case nil: false
        }
    }

    private func matches(_ key: IntegrityKey, _ algorithm: IntegrityAlgorithm, at offset: Int) -> Bool {
        guard let length = bytes.load(bigEndianAt: offset &+ 2, as: UInt16.self) else { return false }
        // RFC 8489 section 14.5: the length field is read as if this attribute were the last one.
        let covered = UInt16(truncatingIfNeeded: offset &+ 4 &- headerSize) &+ length
        let code = key.code(algorithm, over: bytes, count: offset, length: covered)
        var difference: UInt32 = 0
        for index in 0..<min(Int(length / 4), 8) {
            difference |=
                code[index] ^ (bytes.load(bigEndianAt: offset &+ 4 &+ 4 &* index, as: UInt32.self) ?? ~code[index])
        }
        return difference == 0
    }

    private var hasMatchingFingerprint: Bool {
        guard let covered = bytes.slice(at: 0, count: fingerprint),
            let value = bytes.load(bigEndianAt: fingerprint &+ 4, as: UInt32.self)
        else { return false }
        return crc32(covered) ^ fingerprintMask == value
    }

    /// The value of the first attribute of `type` (RFC 8489 section 14: later ones of the same type
    /// may be ignored). Integrity attributes and what lies behind them are not looked at.
    @_lifetime(copy self)
    public func value(of type: AttributeType) -> RawSpan? { value(of: type, 0) }

    /// The value of the attribute of `type` that comes behind `index` others of it: some may be there more than once.
    @_lifetime(copy self)
    public func value(of type: AttributeType, _ index: Int) -> RawSpan? {
        var offset = headerSize
        var others = index
        while offset < end {
            guard let header = bytes.load(bigEndianAt: offset, as: UInt32.self) else { return nil }
            let length = Int(header & 0xFFFF)
            if UInt16(header >> 16) == type.rawValue {
                if others == 0 { return bytes.slice(at: offset &+ 4, count: length) }
                others &-= 1
            }
            offset = offset &+ 4 &+ padded(length)
        }
        return nil
    }
}

/// Comprehension-required attributes the receiver does not know, in order of appearance. Keeps the
/// first few: enough for an answer, and no more than fits a small one.
public struct UnknownAttributes: Sendable {
    public private(set) var count = 0
    private var types = InlineArray<8, UInt16>(repeating: 0)

    public init() {}

    public var isEmpty: Bool { count == 0 }

    public mutating func append(_ type: UInt16) {
        guard count < types.count else { return }
        types[count] = type
        count &+= 1
    }

    /// The type at `index`; 0 outside.
    public subscript(index: Int) -> UInt16 { index >= 0 && index < count ? types[index] : 0 }
}

/// The one walk over a message's attributes.
private struct AttributeWalk {
    var end = 0
    var integrity = 0
    var integritySHA256 = 0
    var fingerprint = 0
    var unknown = UnknownAttributes()

    init(_ message: RawSpan) throws(Malformation) {
        var offset = headerSize
        var count = 0
        while offset < message.byteCount {
            guard count < attributeLimit else { throw .tooManyAttributes }
            count &+= 1
            guard let header = message.load(bigEndianAt: offset, as: UInt32.self) else { throw .truncatedAttribute }
            let length = Int(header & 0xFFFF)
            let next = offset &+ 4 &+ padded(length)
            guard next <= message.byteCount else { throw .truncatedAttribute }
            // RFC 8489 section 14.7: FINGERPRINT is the last attribute.
            guard fingerprint == 0 else { throw .fingerprintNotLast }
            try note(AttributeType(rawValue: UInt16(header >> 16)), length, at: offset)
            offset = next
        }
    }

    private mutating func note(_ type: AttributeType, _ length: Int, at offset: Int) throws(Malformation) {
        switch type {
        case .messageIntegrity:
            guard length == 20 else { throw .badLength }
            // Behind MESSAGE-INTEGRITY-SHA256 only FINGERPRINT counts (RFC 8489 section 14.6).
            if integrity == 0, integritySHA256 == 0 { integrity = offset }
        case .messageIntegritySHA256:
            // RFC 8489 section 14.6: may be truncated, to a multiple of 4 of at least 16 bytes.
            guard length >= 16, length <= 32, length & 3 == 0 else { throw .badLength }
            if integritySHA256 == 0 { integritySHA256 = offset }
        case .fingerprint:
            guard length == 4 else { throw .badLength }
            fingerprint = offset
        default:
            guard end == 0 else { return }
            if type.isComprehensionRequired, !type.isKnown { unknown.append(type.rawValue) }
            return
        }
        if end == 0 { end = offset }
    }
}
