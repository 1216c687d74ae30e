/// A part of a description that an error can name. The raw value is its spelling in SDP.
public enum Item: String, Sendable, CaseIterable {
    case version = "v="
    case origin = "o="
    case sessionName = "s="
    case timing = "t="
    case media = "m="
    case format = "fmt"
    case mid
    case group
    case iceUfrag = "ice-ufrag"
    case icePwd = "ice-pwd"
    case iceOptions = "ice-options"
    case fingerprint
    case setup
    case sctpPort = "sctp-port"
    case sctpmap
    case maxMessageSize = "max-message-size"
    case candidate
    case sctpInit = "sctp-init"
}

/// Why a text is not a session description this library takes, and in which line (counted from 1;
/// one past the last line for something missing).
public struct ParseError: Error, Hashable, Sendable {
    public var line: Int
    public var reason: Reason

    public enum Reason: Error, Hashable {
        /// More bytes than ``Limits/bytes``.
        case tooLarge
        case tooManyLines
        case lineTooLong
        /// Not a lower-case letter, `=` and a value.
        case malformedLine
        /// NUL or a carriage return inside a line.
        case forbiddenByte
        /// A type letter that RFC 8866 does not define.
        case unknownType
        case missing(Item)
        case duplicate(Item)
        case invalid(Item)
        case tooMany(Item)
    }

    public init(line: Int, reason: Reason) {
        self.line = line
        self.reason = reason
    }
}

extension ParseError: CustomStringConvertible {
    public var description: String { "line \(line): \(reason)" }
}

extension ParseError.Reason: CustomStringConvertible {
    public var description: String {
        switch self {
        case .tooLarge: "description too large"
        case .tooManyLines: "too many lines"
        case .lineTooLong: "line too long"
        case .malformedLine: "not of the form type=value"
        case .forbiddenByte: "forbidden byte"
        case .unknownType: "unknown type letter"
        case .missing(let item): "missing \(item.rawValue)"
        case .duplicate(let item): "second \(item.rawValue)"
        case .invalid(let item): "invalid \(item.rawValue)"
        case .tooMany(let item): "too many of \(item.rawValue)"
        }
    }
}

/// Bounds on what a peer may send. The defaults take every browser's offer with dozens of sections.
public struct Limits: Sendable {
    public var bytes = 65_536
    public var lines = 4096
    public var lineBytes = 4096
    public var mediaSections = 64
    /// In the whole description.
    public var candidates = 256
    /// In one section, or at session level.
    public var fingerprints = 16

    public init() {}
}
