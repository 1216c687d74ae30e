/// An IPv6 address, or an IPv4 address in its IPv4-mapped form (RFC 4291 section 2.5.5.2), so that
/// one dual-stack socket and one table of addresses serve both.
@frozen
public struct IPAddress: Hashable, Sendable {
    public var high: UInt64
    public var low: UInt64

    @inlinable
    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    @inlinable
    public init(v4 bits: UInt32) { self.init(high: 0, low: 0x0000_FFFF_0000_0000 | UInt64(bits)) }

    public static let anyIPv6 = IPAddress(high: 0, low: 0)
    public static let anyIPv4 = IPAddress(v4: 0)

    @inlinable public var isIPv4: Bool { high == 0 && low >> 32 == 0xFFFF }
    @inlinable public var isIPv6: Bool { !isIPv4 }
    /// The 32 bits of an IPv4 address; meaningless for IPv6.
    @inlinable public var v4Bits: UInt32 { UInt32(truncatingIfNeeded: low) }

    public var isUnspecified: Bool { isIPv4 ? v4Bits == 0 : high == 0 && low == 0 }
    public var isLoopback: Bool { isIPv4 ? v4Bits >> 24 == 127 : high == 0 && low == 1 }
    public var isLinkLocal: Bool { isIPv4 ? v4Bits >> 16 == 0xA9FE : high >> 54 == 0x3FA }
    public var isMulticast: Bool { isIPv4 ? v4Bits >> 28 == 0xE : high >> 56 == 0xFF }
    /// Unique local (RFC 4193) or private (RFC 1918).
    public var isPrivate: Bool {
        isIPv4
            ? v4Bits >> 24 == 10 || v4Bits >> 20 == 0xAC1 || v4Bits >> 16 == 0xC0A8
            : high >> 57 == 0x7E
    }
}

/// An address and port, as a datagram comes from or goes to one.
@frozen
public struct SocketAddress: Hashable, Sendable {
    public var ip: IPAddress
    public var port: UInt16
    /// Interface index of a link-local IPv6 address, otherwise 0.
    public var scope: UInt32

    @inlinable
    public init(ip: IPAddress, port: UInt16, scope: UInt32 = 0) {
        self.ip = ip
        self.port = port
        self.scope = scope
    }
}

extension IPAddress: LosslessStringConvertible, CustomStringConvertible {
    /// Parses dotted IPv4 (four decimal numbers, no leading zeros) or IPv6 (RFC 4291 section 2.2).
    /// Names, zones and brackets are refused.
    public init?(_ text: String) { self.init(utf8: text.utf8.span.bytes) }

    public init?(utf8 text: RawSpan) {
        guard text.byteCount > 1, text.byteCount <= 45 else { return nil }
        var hasColon = false
        for offset in 0..<text.byteCount where text.byte(offset) == UInt8(ascii: ":") { hasColon = true }
        if hasColon {
            guard let (high, low) = IPAddress.parseIPv6(text) else { return nil }
            self.init(high: high, low: low)
        } else {
            guard let bits = IPAddress.parseIPv4(text, from: 0) else { return nil }
            self.init(v4: bits)
        }
    }

    private static func parseIPv4(_ text: RawSpan, from start: Int) -> UInt32? {
        var bits: UInt32 = 0
        var parts = 0
        var value: UInt32 = 0
        var digits = 0
        var offset = start
        while offset <= text.byteCount {
            let character = offset < text.byteCount ? text.byte(offset) : UInt8(ascii: ".")
            offset += 1
            if character == UInt8(ascii: ".") {
                guard digits > 0, parts < 4 else { return nil }
                bits = bits << 8 | value
                parts += 1
                value = 0
                digits = 0
            } else {
                guard character >= 0x30, character <= 0x39, digits < 3, !(digits == 1 && value == 0) else { return nil }
                value = value * 10 + UInt32(character - 0x30)
                digits += 1
                guard value <= 255 else { return nil }
            }
        }
        return parts == 4 ? bits : nil
    }

    private static func parseIPv6(_ text: RawSpan) -> (UInt64, UInt64)? {
        var groups: [UInt16] = []
        groups.reserveCapacity(8)
        var gap: Int?
        var offset = 0
        let end = text.byteCount
        if text.byte(0) == UInt8(ascii: ":") {
            guard end >= 2, text.byte(1) == UInt8(ascii: ":") else { return nil }
            gap = 0
            offset = 2
        }
        while offset < end {
            guard groups.count < 8 else { return nil }
            let start = offset
            var value: UInt32 = 0
            while offset < end, offset - start < 5, let digit = text.byte(offset).hexadecimalValue {
                value = value << 4 | UInt32(digit)
                offset += 1
            }
            guard offset > start, offset - start <= 4 else { return nil }
            if offset < end, text.byte(offset) == UInt8(ascii: ".") {
                guard groups.count <= 6, let v4 = parseIPv4(text, from: start) else { return nil }
                groups.append(UInt16(v4 >> 16))
                groups.append(UInt16(v4 & 0xFFFF))
                offset = end
                break
            }
            groups.append(UInt16(value))
            guard offset < end else { break }
            guard text.byte(offset) == UInt8(ascii: ":"), offset + 1 < end else { return nil }
            offset += 1
            if text.byte(offset) == UInt8(ascii: ":") {
                guard gap == nil else { return nil }
                gap = groups.count
                offset += 1
            }
        }
        guard gap != nil ? groups.count < 8 : groups.count == 8 else { return nil }
        if let gap { groups.insert(contentsOf: repeatElement(0, count: 8 - groups.count), at: gap) }
        var high: UInt64 = 0
        var low: UInt64 = 0
        for index in 0..<4 { high = high << 16 | UInt64(groups[index]) }
        for index in 4..<8 { low = low << 16 | UInt64(groups[index]) }
        return (high, low)
    }

    /// The canonical text (RFC 5952); IPv4 in dotted form.
    public var description: String {
        if isIPv4 {
            return "\(v4Bits >> 24).\(v4Bits >> 16 & 0xFF).\(v4Bits >> 8 & 0xFF).\(v4Bits & 0xFF)"
        }
        let groups = (0..<8).map { index in
            UInt16(truncatingIfNeeded: (index < 4 ? high : low) >> UInt64(48 - 16 * (index % 4)))
        }
        // RFC 5952 section 4.2: the longest run of two or more zero groups is shortened, the first of equals.
        var best = 0..<0
        var start = 0
        while start < 8 {
            var end = start
            while end < 8, groups[end] == 0 { end += 1 }
            if end - start > max(best.count, 1) { best = start..<end }
            start = max(end, start + 1)
        }
        func text(_ slice: ArraySlice<UInt16>) -> String {
            slice.map { String($0, radix: 16) }.joined(separator: ":")
        }
        guard !best.isEmpty else { return text(groups[...]) }
        return text(groups[..<best.lowerBound]) + "::" + text(groups[best.upperBound...])
    }
}

extension SocketAddress: CustomStringConvertible {
    public var description: String { ip.isIPv4 ? "\(ip):\(port)" : "[\(ip)]:\(port)" }
}

extension RawSpan {
    /// The byte at `offset`; zero outside.
    @inlinable
    public func byte(_ offset: Int) -> UInt8 {
        guard offset >= 0, offset < byteCount else { return 0 }
        return unsafe unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt8.self)
    }
}
