import CSystem
import Storage

extension Configuration {
    /// Fills in from the environment what the host left at its default: `ENABLE_FAST_RELOAD`, `STUN_URLS`, `REDIS_URL`,
    /// `ICE_MODE`, `TURN_URLS`.
    ///
    /// - Parameter keepsPolicy: the host chose ``icePolicy``, be it the default one.
    public mutating func readEnvironment(keepsPolicy: Bool) throws(Failure) {
        try readEnvironment(keepsPolicy: keepsPolicy) { name throws(Failure) in try systemEnvironment(name) }
    }

    /// As ``readEnvironment(keepsPolicy:)``, from `variable`, which answers nil for a name that is not set. An empty value counts as
    /// not set.
    mutating func readEnvironment(
        keepsPolicy: Bool = false, _ variable: (_ name: StaticString) throws(Failure) -> String?
    ) throws(Failure) {
        if fastReload == .on, let value = trimmed(try variable("ENABLE_FAST_RELOAD")) {
            fastReload = try FastReloadSetting(environment: value)
        }
        if stunServers.isEmpty, let value = trimmed(try variable("STUN_URLS")) {
            stunServers = try stunServerList(value)
        }
        if sessionStore == nil { sessionStore = try redisURL(variable("REDIS_URL")) }
        if !keepsPolicy, let value = trimmed(try variable("ICE_MODE")) {
            icePolicy = try ICEPolicy(environment: value)
        }
        if turnServers.isEmpty, let value = trimmed(try variable("TURN_URLS")) {
            let credentials = try TURNServer.credentials(
                username: nonempty(variable("TURN_USERNAME")), password: nonempty(variable("TURN_PASSWORD")),
                secret: nonempty(variable("TURN_SECRET")), lifetime: nil,
                names: TURNServer.Names(username: "TURN_USERNAME", password: "TURN_PASSWORD", secret: "TURN_SECRET"))
            turnServers = try turnServerList(value, credentials)
        }
    }
}

extension ICEPolicy {
    fileprivate init(environment value: Substring) throws(Failure) {
        switch value.lowercased() {
        case "turn-only", "relay": self = .relay
        case "all": self = .all
        default:
            throw Failure(.invalidArgument, "ICE_MODE is \"\(printable(value))\"; it may be turn-only, relay or all")
        }
    }
}

private func turnServerList(_ value: Substring, _ credentials: TURNServer.Credentials?) throws(Failure) -> [TURNServer]
{
    var servers: [TURNServer] = []
    for part in value.split(separator: ",") {
        guard let text = trimmed(part) else { continue }
        guard text.utf8.count <= TURNServer.urlLimit,
            let server = try? TURNServer(url: String(text), credentials: credentials)
        else {
            throw Failure(
                .invalidArgument,
                "TURN_URLS: \"\(printable(text))\" is not a TURN server as turn:HOST:PORT?transport=udp or "
                    + "turns:HOST:PORT")
        }
        guard servers.count < TURNServer.limit else {
            throw Failure(.invalidArgument, "TURN_URLS names more than \(TURNServer.limit) servers")
        }
        if !servers.contains(server) { servers.append(server) }
    }
    return servers
}

/// `REDIS_URL`; nil if it is not set.
package func redisURLFromEnvironment() throws(Failure) -> String? { try redisURL(systemEnvironment("REDIS_URL")) }

private func redisURL(_ value: String?) throws(Failure) -> String? {
    guard let value = trimmed(value) else { return nil }
    guard isRedisURL(value) else {
        // Never the value: there may be a password in it.
        throw Failure(
            .invalidArgument,
            """
            REDIS_URL is not redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], rediss://..., \
            redis+sentinel://...HOST[:PORT][,HOST[:PORT]...]/MASTER[/DATABASE] or redis+unix:PATH
            """)
    }
    return String(value)
}

extension FastReloadSetting {
    fileprivate init(environment value: Substring) throws(Failure) {
        switch value.lowercased() {
        case "false", "0", "no", "off": self = .off
        case "true", "1", "yes", "on": self = .on
        case "partial": self = .partial
        default:
            throw Failure(
                .invalidArgument, "ENABLE_FAST_RELOAD is \"\(printable(value))\"; it may be true, false or partial")
        }
    }
}

/// As many servers as `reconnect_engine_config_t.stun_servers` may have.
private let stunServerLimit = 32

private func stunServerList(_ value: Substring) throws(Failure) -> [ServerAddress] {
    var servers: [ServerAddress] = []
    for part in value.split(separator: ",") {
        guard let text = trimmed(part) else { continue }
        guard let server = try? ServerAddress.parse(String(text)) else {
            throw Failure(.invalidArgument, "STUN_URLS: \"\(printable(text))\" is not a STUN server as stun:HOST:PORT")
        }
        guard servers.count < stunServerLimit else {
            throw Failure(.invalidArgument, "STUN_URLS names more than \(stunServerLimit) servers")
        }
        if !servers.contains(server) { servers.append(server) }
    }
    return servers
}

/// Whether the text has the form that `session_store` takes for Redis.
private func isRedisURL(_ text: Substring) -> Bool {
    guard text.utf8.count <= 2048, text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else { return false }
    return (try? RedisAddress(parsing: String(text))) != nil
}

/// As it is, for what may begin or end with white space; nil if it is not set.
private func nonempty(_ text: String?) -> String? { text?.isEmpty == true ? nil : text }

/// Without white space around it; nil if nothing is left.
private func trimmed(_ text: (some StringProtocol)?) -> Substring? {
    guard let text else { return nil }
    var rest = Substring(text)
    while rest.first?.isWhitespace == true { rest.removeFirst() }
    while rest.last?.isWhitespace == true { rest.removeLast() }
    return rest.isEmpty ? nil : rest
}

/// The beginning of a value, fit for a sentence.
private func printable(_ text: Substring) -> String {
    String(
        String.UnicodeScalarView(text.unicodeScalars.prefix(64).map { $0.value < 0x20 || $0.value == 0x7F ? "?" : $0 }))
}

func systemEnvironment(_ name: StaticString) throws(Failure) -> String? {
    let value = unsafe name.utf8Start.withMemoryRebound(to: CChar.self, capacity: name.utf8CodeUnitCount + 1) {
        unsafe cs_environment($0)
    }
    guard let value = unsafe value else { return nil }
    guard let text = unsafe String(validatingCString: value) else {
        throw Failure(.invalidArgument, "\(name) is not valid UTF-8")
    }
    return text
}
