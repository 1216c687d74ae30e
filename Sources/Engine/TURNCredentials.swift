import CSystem
import TURN
public import Wire

extension TURNServer {
    /// As many servers as an engine takes.
    public static let limit = 32
    /// Bytes of a URL.
    public static let urlLimit = 512
    /// RFC 8489 section 14.3: a user name has less than 509 bytes.
    public static let usernameLimit = 508
    /// Bytes of a password or a shared secret.
    public static let passwordLimit = 512
    /// Of a user to whose name the time is added.
    public static let userLimit = usernameLimit - "000000000000:".utf8.count

    /// How the parts of credentials are called where they come from, for sentences.
    public struct Names: Sendable {
        public var username: String
        public var password: String
        public var secret: String

        public init(username: String, password: String, secret: String) {
            self.username = username
            self.password = password
            self.secret = secret
        }
    }

    /// What a host gave as credentials; nil if that is nothing. No sentence repeats any of it.
    ///
    /// - Parameter lifetime: how long a password is good from now on; nil: for ever.
    public static func credentials(
        username: String?, password: String?, secret: String?, lifetime: Duration?, names: Names
    ) throws(Failure) -> Credentials? {
        if let secret {
            guard password == nil else {
                throw Failure(.invalidArgument, "\(names.password) and \(names.secret) exclude each other")
            }
            try check(secret, 1...passwordLimit, names.secret)
            if let username { try check(username, 0...userLimit, names.username) }
            return .secret(user: username ?? "", secret: secret)
        }
        switch (username, password) {
        case (nil, nil): return nil
        case (nil, _): throw Failure(.invalidArgument, "\(names.password) is given, and \(names.username) is missing")
        case (_, nil):
            throw Failure(
                .invalidArgument,
                "\(names.username) is given, and neither \(names.password) nor \(names.secret)")
        case (let username?, let password?):
            try check(username, 1...usernameLimit, names.username)
            try check(password, 1...passwordLimit, names.password)
            return .password(username: username, password: password, expires: lifetime.map { Engine.now + $0 })
        }
    }

    /// Credentials for a server that shares a secret, good for `lifetime`.
    public static func timeLimitedCredentials(secret: String, user: String, lifetime: Duration) throws(Failure)
        -> (username: String, password: String)
    {
        try check(secret, 1...passwordLimit, "secret")
        try check(user, 0...userLimit, "user")
        let seconds = (lifetime.nanoseconds &+ 999_999_999) / 1_000_000_000
        let made = RelayCredentials(secret: Array(secret.utf8), user: user, expiry: Engine.wallClock &+ seconds)
        return (made.username, made.password)
    }

    private static func check(_ text: String, _ length: ClosedRange<Int>, _ name: String) throws(Failure) {
        let count = text.utf8.count
        guard count >= length.lowerBound else { throw Failure(.invalidArgument, "\(name) is empty") }
        guard count <= length.upperBound else {
            throw Failure(.invalidArgument, "\(name) is longer than \(length.upperBound) bytes")
        }
        guard text.unicodeScalars.allSatisfy({ $0.value >= 0x20 && !(0x7F...0x9F).contains($0.value) }) else {
            throw Failure(.invalidArgument, "\(name) has a control character")
        }
    }
}

extension Engine {
    /// The clock of everything that expires.
    static var now: Instant { Instant(nanoseconds: cs_monotonic_ns()) }
}
