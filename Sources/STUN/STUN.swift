public import Wire

/// Bytes of the fixed header (RFC 8489 section 5).
public let headerSize = 20
/// The fixed value in every header, which RFC 3489's messages did not have.
public let magicCookie: UInt32 = 0x2112_A442
/// More attributes than any message of these protocols carries; the rest of a message that has more
/// is not walked, and the message is refused.
public let attributeLimit = 64

/// Whether `datagram` is to be handed to STUN rather than to another protocol on the same port
/// (RFC 8489 section 5, RFC 9443): two zero bits, the cookie, and a length that is a multiple of
/// four and fills the datagram. Looks at eight bytes.
@inlinable
public func isMessage(_ datagram: RawSpan) -> Bool {
    guard datagram.byteCount >= headerSize,
        let start = datagram.load(bigEndianAt: 0, as: UInt32.self),
        let cookie = datagram.load(bigEndianAt: 4, as: UInt32.self)
    else { return false }
    return start & 0xC000_0003 == 0 && cookie == magicCookie
        && Int(start & 0xFFFF) == datagram.byteCount &- headerSize
}

/// The receiver's half of USERNAME in a request, which names the peer a datagram from an unknown
/// address is for: in ICE the part before the first colon is the receiver's ufrag (RFC 8445 section
/// 7.2.2). Nil if `datagram` is no request or has no such attribute. Nothing is verified.
@_lifetime(copy datagram)
public func peekUsername(_ datagram: RawSpan) -> RawSpan? {
    guard let whole = peekWholeUsername(datagram) else { return nil }
    return ufragBeforeColon(whole)
}

/// USERNAME of a request as it is: both halves with the colon.
@_lifetime(copy datagram)
public func peekWholeUsername(_ datagram: RawSpan) -> RawSpan? {
    guard isMessage(datagram), let type = datagram.load(bigEndianAt: 0, as: UInt16.self),
        MessageType(rawValue: type).messageClass == .request
    else { return nil }
    var offset = headerSize
    for _ in 0..<attributeLimit {
        guard let header = datagram.load(bigEndianAt: offset, as: UInt32.self) else { return nil }
        let length = Int(header & 0xFFFF)
        if UInt16(header >> 16) == AttributeType.username.rawValue {
            return datagram.slice(at: offset &+ 4, count: length)
        }
        offset = offset &+ 4 &+ padded(length)
    }
    return nil
}

/// The receiver's half of a whole USERNAME; nil if it has no colon.
@_lifetime(copy username)
public func ufragBeforeColon(_ username: RawSpan) -> RawSpan? {
    for offset in 0..<username.byteCount where username.byte(offset) == UInt8(ascii: ":") {
        return username.slice(at: 0, count: offset)
    }
    return nil
}

/// RFC 8489 section 14: values are padded to a multiple of four, and the length does not count it.
func padded(_ length: Int) -> Int { (length &+ 3) & ~3 }
