/// Why bytes are not a signaling message. Nothing in it repeats what the peer sent, so it may be
/// logged and sent back.
public enum SignalingError: Error, Hashable, Sendable {
    /// More bytes than ``SignalingLimits/bytes``.
    case tooLarge
    /// Not JSON; line and column count from 1.
    case malformed(line: Int, column: Int, Malformation)
    /// JSON, but not an object.
    case notAnObject
    /// The member at fault, with a dot before a member of a member: "candidate.sdpMid".
    case member(String, MemberFault)
    /// No memory, or a text that JSON cannot carry.
    case encodingFailed

    public enum Malformation: String, Hashable, Sendable {
        case syntax = "syntax error"
        case endOfInput = "ends too early"
        case trailingBytes = "bytes after the end"
        case invalidUTF8 = "not UTF-8"
        case nulCharacter = "NUL character"
        case duplicateMember = "member twice in one object"
        case tooDeep = "nested too deeply"
        case numberOverflow = "number out of range"
        case outOfMemory = "out of memory"
    }

    public enum MemberFault: String, Hashable, Sendable {
        case missing = "missing"
        case wrongType = "wrong type"
        case unknownValue = "unknown value"
        case tooLong = "too long"
        case empty = "empty"
        case outOfRange = "out of range"
        case forbiddenCharacter = "forbidden character"
        case malformed = "malformed"
        case tooMany = "too many"
        /// A candidate in the list of another family or type.
        case misplaced = "in the wrong list"
    }
}

extension SignalingError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .tooLarge: "message too large"
        case .malformed(let line, let column, let fault): "line \(line), column \(column): \(fault.rawValue)"
        case .notAnObject: "not a JSON object"
        case .member(let name, let fault): "member \(name): \(fault.rawValue)"
        case .encodingFailed: "cannot be written as JSON"
        }
    }
}

/// Bounds on what a peer may send, in bytes.
public struct SignalingLimits: Sendable {
    public var bytes = 262_144
    public var sdp = 131_072
    public var sessionToken = 1024
    public var candidate = 1024
    public var mid = 256
    public var usernameFragment = 256
    /// Of a message of the control channel.
    public var control = 65_536
    /// Of one candidate line in a ticket, and how many there may be.
    public var ticketCandidate = 512
    public var ticketCandidates = 32

    public init() {}
}
