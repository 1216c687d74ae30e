import Wire

// Character classes of the grammars, on bytes, and the checks built from them. Everything that is
// copied from one description into another passes here first, so that nothing a peer sends can end
// a line.

enum Characters {
    /// RFC 8866 section 9, token-char.
    static func isToken(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x21, 0x23...0x27, 0x2A...0x2B, 0x2D...0x2E, 0x30...0x39, 0x41...0x5A, 0x5E...0x7E: true
        default: false
        }
    }

    static func isVisible(_ byte: UInt8) -> Bool { byte > 0x20 && byte < 0x7F }

    /// RFC 4648 section 4, with the padding.
    static func isBase64(_ byte: UInt8) -> Bool { byte.isICECharacter || byte == UInt8(ascii: "=") }

    static func isDigit(_ byte: UInt8) -> Bool { byte >= 0x30 && byte <= 0x39 }
}

/// Lengths that this library takes for the values it copies or keeps.
enum Lengths {
    static let mid = 64
    static let format = 64
    static let formats = 256
    static let kind = 32
    static let proto = 64
    static let originField = 64
    static let option = 64
    static let options = 16
    static let groups = 64
    static let candidate = 1024
    static let sctpInit = 2048
    /// RFC 8839 section 5.4.
    static let ufrag = 4...256
    static let password = 22...256
}

extension RawSpan {
    /// The next run of bytes that are not separators, or nil at the end.
    func field(from position: inout Int, separator: (UInt8) -> Bool = { $0 == 0x20 }) -> Range<Int>? {
        while position < byteCount, separator(byte(position)) { position += 1 }
        guard position < byteCount else { return nil }
        let start = position
        while position < byteCount, !separator(byte(position)) { position += 1 }
        return start..<position
    }

    func firstOffset(of wanted: UInt8, from start: Int = 0) -> Int? {
        var offset = start
        while offset < byteCount {
            if byte(offset) == wanted { return offset }
            offset += 1
        }
        return nil
    }

    var whole: Range<Int> { 0..<byteCount }

    func all(_ range: Range<Int>, _ allowed: (UInt8) -> Bool) -> Bool {
        for offset in range where !allowed(byte(offset)) { return false }
        return true
    }

    func isToken(_ range: Range<Int>, maximum: Int) -> Bool {
        !range.isEmpty && range.count <= maximum && all(range, Characters.isToken)
    }

    func isICE(_ range: Range<Int>, lengths: ClosedRange<Int>) -> Bool {
        lengths.contains(range.count) && all(range, \.isICECharacter)
    }

    /// RFC 8866 section 9: proto = token *("/" token).
    func isProtocol(_ range: Range<Int>) -> Bool {
        guard !range.isEmpty, range.count <= Lengths.proto else { return false }
        var previous = UInt8(ascii: "/")
        for offset in range {
            let current = byte(offset)
            let isSlash = current == UInt8(ascii: "/")
            guard isSlash ? previous != UInt8(ascii: "/") : Characters.isToken(current) else { return false }
            previous = current
        }
        return previous != UInt8(ascii: "/")
    }

    /// A decimal number; nil if it is none, `.max` if it does not fit.
    func decimal(_ range: Range<Int>) -> UInt64? {
        guard !range.isEmpty, range.count <= 40, all(range, Characters.isDigit) else { return nil }
        var value: UInt64 = 0
        for offset in range {
            let (product, overflow) = value.multipliedReportingOverflow(by: 10)
            let (sum, carry) = product.addingReportingOverflow(UInt64(byte(offset) & 15))
            if overflow || carry { return .max }
            value = sum
        }
        return value
    }

    func port(_ range: Range<Int>) -> UInt16? { decimal(range).flatMap { UInt16(exactly: $0) } }

    func text(_ range: Range<Int>) -> String {
        guard let slice = slice(at: range.lowerBound, count: range.count) else { return "" }
        return unsafe slice.withUnsafeBytes { unsafe String(decoding: $0, as: UTF8.self) }
    }

    func equals(_ range: Range<Int>, _ literal: String) -> Bool {
        guard range.count == literal.utf8.count else { return false }
        var offset = range.lowerBound
        for wanted in literal.utf8 {
            if byte(offset) != wanted { return false }
            offset += 1
        }
        return true
    }
}

extension String {
    func isICE(lengths: ClosedRange<Int>) -> Bool {
        lengths.contains(utf8.count) && utf8.allSatisfy(\.isICECharacter)
    }

    func isToken(maximum: Int) -> Bool {
        !isEmpty && utf8.count <= maximum && utf8.allSatisfy(Characters.isToken)
    }

    /// Visible ASCII and inner spaces, as candidates are made of.
    func isPlainLine(maximum: Int) -> Bool {
        !isEmpty && utf8.count <= maximum && utf8.allSatisfy { $0 == 0x20 || Characters.isVisible($0) }
    }
}
