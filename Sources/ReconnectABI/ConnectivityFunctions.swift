// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The names are those of the header.

public import CReconnect
import Engine
import Wire

/// How paths are found and kept: relays, TCP, policies, interfaces, timers.

extension ICEPolicy {
    /// Nil for `RECONNECT_ICE_POLICY_DEFAULT`.
    init?(_ number: UInt32) throws(Failure) {
        guard number != 0 else { return nil }
        guard let policy = ICEPolicy(rawValue: number) else {
            throw Failure(.invalidArgument, "ice_policy is \(number)")
        }
        self = policy
    }
}

extension Configuration {
    mutating func readConnectivity(_ config: reconnect_engine_config_t) throws(Failure) {
        turnServers = try unsafe ReconnectABI.turnServers(
            config.turn_servers, config.turn_server_count, "turn_servers")
        turnAuthorityPath = try unsafe text(config.turn_ca_path, limit: 4096, "turn_ca_path")
        if turnAuthorityPath?.isEmpty == true { throw Failure(.invalidArgument, "turn_ca_path is empty") }
        allowedInterfaces = try unsafe patterns(
            config.allowed_interfaces, config.allowed_interface_count, "allowed_interfaces")
        deniedInterfaces = try unsafe patterns(
            config.denied_interfaces, config.denied_interface_count, "denied_interfaces")
        icePolicy = try ICEPolicy(config.ice_policy) ?? .all
        guard config.tcp < 4 else {
            throw Failure(.invalidArgument, "tcp has bits that this version of the library does not know")
        }
        opensTCP = config.tcp & UInt32(RECONNECT_TCP_ACTIVE) != 0
        listensOnTCP = config.tcp & UInt32(RECONNECT_TCP_PASSIVE) != 0
        tcpPort = config.tcp_port
        resolvesMulticastNames = config.disable_mdns == 0
        timers = try unsafe Timers(config.timers, "timers")
        try timers.check(in: self)
    }
}

/// The servers of an array of structs as the host knows them.
private func turnServers(_ first: UnsafePointer<reconnect_turn_server_t>?, _ count: Int, _ name: StaticString)
    throws(Failure) -> [TURNServer]
{
    guard count != 0 else { return [] }
    guard count > 0, count <= TURNServer.limit else {
        throw Failure(.invalidArgument, "\(name): at most \(TURNServer.limit) can be given")
    }
    guard let first = unsafe first else { throw Failure(.invalidArgument, "\(name) is NULL") }
    // The first one's size is the distance from each to the next.
    let stride = unsafe Int(first.pointee.struct_size)
    guard stride >= 8, stride <= 4096, stride % 8 == 0 else {
        throw Failure(.invalidArgument, "\(name)[0].struct_size is \(stride)")
    }
    var servers: [TURNServer] = []
    for index in 0..<count {
        let element = unsafe UnsafeRawPointer(first).advanced(by: index * stride)
        do throws(Failure) {
            servers.append(
                try unsafe TURNServer(element.assumingMemoryBound(to: reconnect_turn_server_t.self), stride: stride))
        } catch {
            throw Failure(error.status, "\(name)[\(index)].\(error.detail)")
        }
    }
    return servers
}

extension TURNServer {
    /// What it throws begins with the member's name.
    fileprivate init(_ server: UnsafePointer<reconnect_turn_server_t>, stride: Int) throws(Failure) {
        let size = unsafe Int(server.pointee.struct_size)
        guard size == stride else { throw Failure(.invalidArgument, "struct_size is \(size), unlike the first one's") }
        let given = try unsafe readStruct(server, zero: reconnect_turn_server_t(), minimum: 8, "struct")
        guard let url = try unsafe text(given.url, limit: TURNServer.urlLimit, "url") else {
            throw Failure(.invalidArgument, "url is NULL")
        }
        let credentials = try unsafe TURNServer.credentials(
            username: text(given.username, limit: TURNServer.usernameLimit, "username"),
            password: text(given.password, limit: TURNServer.passwordLimit, "password"),
            secret: text(given.secret, limit: TURNServer.passwordLimit, "secret"),
            lifetime: given.lifetime_ms == 0 ? nil : .milliseconds(Int64(given.lifetime_ms)),
            names: Names(username: "username", password: "password", secret: "secret"))
        do throws(Failure) {
            self = try TURNServer(url: url, credentials: credentials)
        } catch {
            throw Failure(error.status, "url: \(error.detail)")
        }
    }
}

extension Timers {
    /// The defaults for NULL.
    init(_ timers: UnsafePointer<reconnect_timers_t>?, _ name: StaticString) throws(Failure) {
        self.init()
        guard let timers = unsafe timers else { return }
        let given = try unsafe readStruct(timers, zero: reconnect_timers_t(), minimum: 8, name)
        func duration(_ milliseconds: UInt32) -> Duration? {
            milliseconds == 0 ? nil : .milliseconds(Int64(milliseconds))
        }
        checkInterval = duration(given.check_interval_ms) ?? checkInterval
        consentInterval = duration(given.consent_interval_ms) ?? consentInterval
        heartbeat = duration(given.heartbeat_ms)
        suspicion = duration(given.suspect_ms) ?? suspicion
        disconnectTimeout = duration(given.disconnect_timeout_ms)
        failedTimeout = duration(given.failed_timeout_ms)
        connectTimeout = duration(given.connect_timeout_ms)
        standbyInterval =
            given.standby_interval_ms == .max ? nil : duration(given.standby_interval_ms) ?? standbyInterval
        restartTimeout = duration(given.restart_timeout_ms) ?? restartTimeout
        switch given.restart_attempts {
        case 0: break
        case .max: restartAttempts = 0
        default: restartAttempts = Int(given.restart_attempts)
        }
        let least = duration(given.restart_min_ms) ?? restartPause.lowerBound
        let most = duration(given.restart_max_ms) ?? restartPause.upperBound
        guard least <= most else {
            throw Failure(
                .invalidArgument,
                "restart_min_ms is \(least.nanoseconds / 1_000_000), more than the \(most.nanoseconds / 1_000_000) of "
                    + "restart_max_ms")
        }
        restartPause = least...most
        patience = duration(given.patience_ms) ?? patience
    }
}

private func patterns(_ pointer: UnsafePointer<UnsafePointer<CChar>?>?, _ count: Int, _ name: StaticString)
    throws(Failure) -> [InterfacePattern]
{
    try unsafe texts(pointer, count, limit: 32, name).map { text throws(Failure) in
        do throws(Failure) {
            return try InterfacePattern(parsing: text)
        } catch {
            throw Failure(error.status, "\(name): \(error.detail)")
        }
    }
}

@implementation @_cdecl("reconnect_engine_set_turn_servers")
public func reconnect_engine_set_turn_servers(
    _ engine: reconnect_engine_t, _ servers: UnsafePointer<reconnect_turn_server_t>!, _ count: Int,
    _ detail: UnsafeMutablePointer<CChar>!, _ detail_capacity: Int
) -> reconnect_status_t {
    unsafe answering(detail, detail_capacity) { () throws(Failure) in
        let found = try ReconnectABI.engine(engine)
        found.setTURNServers(try unsafe turnServers(servers, count, "servers"))
    }
}

@implementation @_cdecl("reconnect_engine_set_timers")
public func reconnect_engine_set_timers(
    _ engine: reconnect_engine_t, _ timers: UnsafePointer<reconnect_timers_t>!,
    _ detail: UnsafeMutablePointer<CChar>!, _ detail_capacity: Int
) -> reconnect_status_t {
    unsafe answering(detail, detail_capacity) { () throws(Failure) in
        let found = try ReconnectABI.engine(engine)
        try found.setTimers(try unsafe Timers(timers, "timers"))
    }
}

@implementation @_cdecl("reconnect_turn_credentials")
public func reconnect_turn_credentials(
    _ secret: UnsafePointer<CChar>!, _ user: UnsafePointer<CChar>!, _ lifetime_ms: UInt32,
    _ username: UnsafeMutablePointer<CChar>!, _ username_capacity: Int,
    _ password: UnsafeMutablePointer<CChar>!, _ password_capacity: Int
) -> reconnect_status_t {
    answering { () throws(Failure) in
        guard let secret = try unsafe text(secret, limit: TURNServer.passwordLimit, "secret") else {
            throw Failure(.invalidArgument, "secret is NULL")
        }
        let user = try unsafe text(user, limit: TURNServer.userLimit, "user") ?? ""
        let nameOutput = try unsafe required(username, "username")
        let passwordOutput = try unsafe required(password, "password")
        let day: UInt32 = 86_400_000
        let made = try TURNServer.timeLimitedCredentials(
            secret: secret, user: user, lifetime: .milliseconds(Int64(lifetime_ms == 0 ? day : lifetime_ms)))
        guard made.username.utf8.count < username_capacity, made.password.utf8.count < password_capacity else {
            throw Failure(.tooSmall)
        }
        unsafe write(made.username, to: nameOutput)
        unsafe write(made.password, to: passwordOutput)
    }
}

/// With a NUL; there is room for it.
private func write(_ text: String, to buffer: UnsafeMutablePointer<CChar>) {
    for (index, byte) in text.utf8.enumerated() { unsafe buffer[index] = CChar(bitPattern: byte) }
    unsafe buffer[text.utf8.count] = 0
}
