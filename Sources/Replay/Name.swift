import Wire

/// Why a name is not one.
public enum NameError: Error, Hashable, Sendable {
    case empty
    /// More than 256 bytes.
    case tooLong
    case notUTF8
    case controlCharacter
    /// `{` or `}` in the name of a room. Keys of shared stores have the room's name in braces, which decide where in
    /// a cluster they live: braces inside would tear a room apart.
    case brace
}

/// Rules for names of rooms and users: 1 to 256 bytes of UTF-8 without control characters.
public enum NameRules {
    public static let maximumLength = 256

    public static func check(room: RawSpan) throws(NameError) { try check(room, allowsBraces: false) }

    public static func check(user: RawSpan) throws(NameError) { try check(user, allowsBraces: true) }

    private static func check(_ name: RawSpan, allowsBraces: Bool) throws(NameError) {
        guard name.byteCount > 0 else { throw .empty }
        guard name.byteCount <= maximumLength else { throw .tooLong }
        var isASCII = true
        for offset in 0..<name.byteCount {
            guard let byte: UInt8 = name.load(bigEndianAt: offset) else { continue }
            if byte < 0x20 || byte == 0x7F { throw .controlCharacter }
            if !allowsBraces, byte == 0x7B || byte == 0x7D { throw .brace }
            if byte >= 0x80 { isASCII = false }
        }
        if !isASCII { try checkText(name) }
    }

    private static func checkText(_ name: RawSpan) throws(NameError) {
        guard let text = String(validating: name.copied(), as: UTF8.self) else { throw .notUTF8 }
        // U+0080 to U+009F control terminals as well as the others do.
        for scalar in text.unicodeScalars where (0x80...0x9F).contains(scalar.value) { throw .controlCharacter }
    }
}

/// The name of a room, checked.
public struct RoomName: Hashable, Sendable {
    public let bytes: [UInt8]

    public init(_ bytes: [UInt8]) throws(NameError) {
        try NameRules.check(room: bytes.span.bytes)
        self.bytes = bytes
    }

    public init(_ text: String) throws(NameError) { try self.init(Array(text.utf8)) }

    /// For one that was checked before.
    init(checked bytes: [UInt8]) { self.bytes = bytes }

    public var text: String { String(decoding: bytes, as: UTF8.self) }
}

/// The name of a user, checked.
public struct UserName: Hashable, Sendable {
    public let bytes: [UInt8]

    public init(_ bytes: [UInt8]) throws(NameError) {
        try NameRules.check(user: bytes.span.bytes)
        self.bytes = bytes
    }

    public init(_ text: String) throws(NameError) { try self.init(Array(text.utf8)) }

    /// For one that was checked before.
    init(checked bytes: [UInt8]) { self.bytes = bytes }

    public var text: String { String(decoding: bytes, as: UTF8.self) }
}
