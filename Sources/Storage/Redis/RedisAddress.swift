/// Where a Redis server is and how to log in:
/// `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`, the same with `rediss:` for TLS, `redis+unix:PATH`, or
/// `redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]/MASTER[/DATABASE]`: the hosts are sentinels, which are
/// asked for the address of the master of that name at each connect.
///
/// USER and PASSWORD are percent-encoded. `rediss:` takes `?ca=PATH` (a file of certificates to trust in place of the
/// system's), `&cert=PATH&key=PATH` (a client certificate). `redis+unix:` takes `?db=DATABASE`, `&user=`, `&password=`.
/// `redis+sentinel:` takes `?sentinel_user=`, `&sentinel_password=` for the sentinels themselves.
public struct RedisAddress: Equatable, Sendable {
    public enum Endpoint: Equatable, Sendable {
        case host(String, port: UInt16)
        case path(String)
        case sentinels(Sentinels)
    }

    public struct Host: Equatable, Sendable {
        public var name: String
        public var port: UInt16

        public init(name: String, port: UInt16) {
            self.name = name
            self.port = port
        }
    }

    public struct Sentinels: Equatable, Sendable {
        public var hosts: [Host]
        /// The name under which they watch the server.
        public var master: String
        /// For the sentinels themselves.
        public var user: String?
        public var password: String?

        public init(hosts: [Host], master: String, user: String? = nil, password: String? = nil) {
            self.hosts = hosts
            self.master = master
            self.user = user
            self.password = password
        }
    }

    public struct TLS: Equatable, Sendable {
        public var authorities: String?
        public var certificate: String?
        public var key: String?

        public init(authorities: String? = nil, certificate: String? = nil, key: String? = nil) {
            self.authorities = authorities
            self.certificate = certificate
            self.key = key
        }
    }

    public var endpoint: Endpoint
    public var tls: TLS?
    public var user: String?
    public var password: String?
    public var database: Int

    public static let defaultPort: UInt16 = 6379
    public static let defaultSentinelPort: UInt16 = 26379

    public init(
        endpoint: Endpoint, tls: TLS? = nil, user: String? = nil, password: String? = nil, database: Int = 0
    ) {
        self.endpoint = endpoint
        self.tls = tls
        self.user = user
        self.password = password
        self.database = database
    }

    /// What is wrong with an address. Tells the part, never the text: there may be a password in it.
    public enum ParseError: Error, Equatable, Sendable, CustomStringConvertible {
        case scheme
        case credentials
        case host
        case port
        case database
        case path
        case query
        case master

        public var description: String {
            switch self {
            case .scheme: "not redis://, rediss://, redis+sentinel:// or redis+unix:"
            case .credentials: "user or password are not percent-encoded UTF-8"
            case .host: "no usable host"
            case .port: "the port is not a number from 1 to 65535"
            case .database: "the database is not a number"
            case .path: "no usable path of a socket"
            case .master: "no name of a master after the sentinels"
            case .query: "an unknown or repeated setting after the question mark"
            }
        }
    }

    public init(parsing text: String) throws(ParseError) {
        guard !text.utf8.contains(0), text.utf8.count <= 4096 else { throw .scheme }
        if let rest = Self.rest(of: text, after: "redis+unix:") {
            try self.init(socket: rest)
        } else if let rest = Self.rest(of: text, after: "redis+sentinel://") {
            try self.init(sentinels: rest)
        } else if let rest = Self.rest(of: text, after: "redis://") {
            try self.init(server: rest, tls: nil)
        } else if let rest = Self.rest(of: text, after: "rediss://") {
            try self.init(server: rest, tls: TLS())
        } else {
            throw .scheme
        }
    }

    private static func rest(of text: String, after scheme: String) -> Substring? {
        let prefix = text.prefix(scheme.count)
        return prefix.lowercased() == scheme ? text.dropFirst(scheme.count) : nil
    }

    private init(socket text: Substring) throws(ParseError) {
        let (path, settings) = try Self.settings(text)
        guard let decoded = Self.decoded(path), !decoded.isEmpty, decoded.utf8.count <= 107 else { throw .path }
        self.init(endpoint: .path(decoded))
        for (name, value) in settings {
            switch name {
            case "db": database = try Self.database(value)
            case "user": user = value
            case "password": password = value
            default: throw .query
            }
        }
    }

    private init(sentinels text: Substring) throws(ParseError) {
        let (head, settings) = try Self.settings(text)
        var authority = head
        var credentials: (user: String?, password: String?)
        if let at = head.lastIndex(of: "@") {
            credentials = try Self.credentials(head[..<at])
            authority = head[head.index(after: at)...]
        }
        let parts = authority.split(separator: "/", omittingEmptySubsequences: false)
        guard let list = parts.first, (2...3).contains(parts.count), let master = Self.decoded(parts[1]),
            !master.isEmpty, master.utf8.count <= 255
        else { throw .master }
        var hosts: [Host] = []
        for part in list.split(separator: ",", omittingEmptySubsequences: false) {
            guard hosts.count < 16, case .host(let name, let port) = try Self.endpoint(part, Self.defaultSentinelPort)
            else { throw .host }
            hosts.append(Host(name: name, port: port))
        }
        var sentinels = Sentinels(hosts: hosts, master: master)
        for (name, value) in settings {
            switch name {
            case "sentinel_user": sentinels.user = value
            case "sentinel_password": sentinels.password = value
            default: throw .query
            }
        }
        var database = 0
        if parts.count == 3, !parts[2].isEmpty { database = try Self.database(String(parts[2])) }
        self.init(
            endpoint: .sentinels(sentinels), user: credentials.user, password: credentials.password, database: database)
    }

    private init(server text: Substring, tls: TLS?) throws(ParseError) {
        let (head, settings) = try Self.settings(text)
        var authority = head
        var database = 0
        if let slash = head.lastIndex(of: "/"), !head[slash...].contains("@") {
            authority = head[..<slash]
            let number = head[head.index(after: slash)...]
            if !number.isEmpty { database = try Self.database(String(number)) }
        }
        var credentials: (user: String?, password: String?)
        if let at = authority.lastIndex(of: "@") {
            credentials = try Self.credentials(authority[..<at])
            authority = authority[authority.index(after: at)...]
        }
        self.init(
            endpoint: try Self.endpoint(authority), tls: tls, user: credentials.user, password: credentials.password,
            database: database)
        for (name, value) in settings {
            switch name {
            case "ca" where tls != nil: self.tls?.authorities = value
            case "cert" where tls != nil: self.tls?.certificate = value
            case "key" where tls != nil: self.tls?.key = value
            default: throw .query
            }
        }
        guard (self.tls?.certificate == nil) == (self.tls?.key == nil) else { throw .query }
    }

    private static func credentials(_ text: Substring) throws(ParseError) -> (user: String?, password: String?) {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard let user = parts.first.flatMap({ decoded($0) }) else { throw .credentials }
        guard parts.count == 2 else { return (nil, user.isEmpty ? nil : user) }
        guard let password = decoded(parts[1]) else { throw .credentials }
        return (user.isEmpty ? nil : user, password)
    }

    private static func endpoint(_ text: Substring, _ defaultPort: UInt16 = defaultPort) throws(ParseError)
        -> Endpoint
    {
        var host = text
        var port = text[text.endIndex...]
        if text.first == "[" {
            guard let end = text.firstIndex(of: "]") else { throw .host }
            host = text[text.index(after: text.startIndex)..<end]
            port = text[text.index(after: end)...]
            guard port.isEmpty || port.first == ":" else { throw .host }
        } else if let colon = text.firstIndex(of: ":") {
            host = text[..<colon]
            port = text[colon...]
        }
        guard let name = decoded(host), !name.isEmpty, name.utf8.count <= 255,
            name.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7F })
        else { throw .host }
        guard !port.isEmpty else { return .host(name, port: defaultPort) }
        guard let number = UInt16(digits: port.dropFirst()), number > 0 else { throw .port }
        return .host(name, port: number)
    }

    private static func database(_ text: String) throws(ParseError) -> Int {
        guard let number = UInt16(digits: text[...]) else { throw .database }
        return Int(number)
    }

    private static func settings(_ text: Substring) throws(ParseError) -> (Substring, [(String, String)]) {
        guard let mark = text.firstIndex(of: "?") else { return (text, []) }
        var settings: [(String, String)] = []
        for part in text[text.index(after: mark)...].split(separator: "&") {
            guard let equals = part.firstIndex(of: "="), let value = decoded(part[part.index(after: equals)...]),
                !value.isEmpty
            else { throw .query }
            let name = String(part[..<equals])
            guard !settings.contains(where: { $0.0 == name }) else { throw .query }
            settings.append((name, value))
        }
        return (text[..<mark], settings)
    }

    /// RFC 3986 section 2.1. nil if it is not UTF-8 or hides a zero byte.
    private static func decoded(_ text: Substring) -> String? {
        var bytes: [UInt8] = []
        var rest = text.utf8
        while let byte = rest.popFirst() {
            guard byte == 0x25 else {
                bytes.append(byte)
                continue
            }
            guard let high = rest.popFirst()?.hexadecimalDigit, let low = rest.popFirst()?.hexadecimalDigit else {
                return nil
            }
            bytes.append(high << 4 | low)
        }
        guard !bytes.contains(0) else { return nil }
        return String(validating: bytes, as: UTF8.self)
    }
}

/// A printed address never shows the password.
extension RedisAddress: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    public var description: String {
        let secret = password == nil ? "" : (user ?? "") + ":***@"
        let suffix = database == 0 ? "" : "/\(database)"
        switch endpoint {
        case .host(let name, let port):
            let host = name.contains(":") ? "[\(name)]" : name
            return "\(tls == nil ? "redis" : "rediss")://\(secret)\(host):\(port)\(suffix)"
        case .sentinels(let sentinels):
            let hosts = sentinels.hosts.map { ($0.name.contains(":") ? "[\($0.name)]" : $0.name) + ":\($0.port)" }
            return "redis+sentinel://\(secret)\(hosts.joined(separator: ","))/\(sentinels.master)\(suffix)"
        case .path(let path):
            return "redis+unix:\(path)"
        }
    }

    public var debugDescription: String { description }
    public var customMirror: Mirror { Mirror(self, children: []) }
}

extension UInt16 {
    /// Decimal digits and nothing else: no sign.
    fileprivate init?(digits text: Substring) {
        guard !text.isEmpty, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let value = UInt16(text) else {
            return nil
        }
        self = value
    }
}

extension UInt8 {
    fileprivate var hexadecimalDigit: UInt8? {
        switch self {
        case 0x30...0x39: self - 0x30
        case 0x41...0x46: self - 0x41 + 10
        case 0x61...0x66: self - 0x61 + 10
        default: nil
        }
    }
}
