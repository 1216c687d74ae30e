/// What a Redis server answered.
public enum RedisReply: Equatable, Sendable {
    case null
    case integer(Int64)
    /// "+OK" and the like.
    case status(String)
    case bytes([UInt8])
    case array([RedisReply])
    /// Only inside an array: a reply that is an error as a whole is a ``RedisFailure/server(_:)``.
    case error(RedisError)
}

extension RedisReply {
    public var integerValue: Int64? {
        guard case .integer(let value) = self else { return nil }
        return value
    }

    public var bytesValue: [UInt8]? {
        guard case .bytes(let value) = self else { return nil }
        return value
    }

    public var arrayValue: [RedisReply]? {
        guard case .array(let value) = self else { return nil }
        return value
    }

    public var isNull: Bool { self == .null }
}

/// An error reply: "NOSCRIPT No matching script." has the code NOSCRIPT.
public struct RedisError: Error, Equatable, Sendable, CustomStringConvertible {
    public let code: String
    public let message: String

    public init(code: String, message: String) {
        self.code = code
        self.message = message
    }

    init(line: String) {
        let parts = line.split(separator: " ", maxSplits: 1, omittingEmptySubsequences: false)
        self.init(code: parts.first.map(String.init) ?? "", message: parts.count > 1 ? String(parts[1]) : "")
    }

    public var description: String { "\(code) \(message)" }
}

/// Why a command has no reply.
public enum RedisFailure: Error, Equatable, Sendable {
    /// There is no connection, or the server does not answer: not sent.
    case unavailable
    /// As many commands or bytes as are allowed are under way: not sent.
    case overloaded
    /// Larger than a command may be: not sent.
    case tooLarge
    /// No answer in time. The command may have been carried out, or yet be.
    case deadline
    /// The connection broke before the answer. The command may have been carried out.
    case connectionLost
    case server(RedisError)
    case closed
}

/// Whether a ``RedisClient`` takes commands.
public enum RedisState: Equatable, Sendable {
    case up
    case down(RedisDownReason)
}

/// Why there is no usable connection. The texts never contain the password.
public enum RedisDownReason: Error, Equatable, Sendable, CustomStringConvertible {
    case notYetConnected
    case unknownHost(String)
    case cannotConnect(String)
    case tls(String)
    /// The code of the server's error: WRONGPASS, NOAUTH. Not its text, in which servers repeat what they did not take.
    case authentication(code: String)
    /// The server is there and refuses to serve: LOADING, an unknown database.
    case refused(code: String)
    /// Something that is not Redis, or a reply beyond the size limit.
    case protocolViolation(String)
    case lost(String)
    /// Connected, but it has not answered for the stall time.
    case silent
    case closed

    public var description: String {
        switch self {
        case .notYetConnected: "not connected yet"
        case .unknownHost(let text): "the server's name cannot be resolved: \(text)"
        case .cannotConnect(let text): "cannot connect: \(text)"
        case .tls(let text): "TLS: \(text)"
        case .authentication(let code): "the server does not accept the credentials: \(code)"
        case .refused(let code): "the server refuses to serve: \(code)"
        case .protocolViolation(let text): "the server does not speak Redis: \(text)"
        case .lost(let text): "the connection was lost: \(text)"
        case .silent: "the server does not answer"
        case .closed: "closed"
        }
    }
}
