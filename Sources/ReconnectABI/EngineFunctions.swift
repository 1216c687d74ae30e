// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The names are those of the header.

public import CReconnect
import DTLS
import Engine
import Wire

extension Configuration {
    init(_ config: reconnect_engine_config_t) throws(Failure) {
        self.init()
        guard config.ice_mode <= 1 else { throw Failure(.invalidArgument, "ice_mode is \(config.ice_mode)") }
        guard config.log_level <= 5 else { throw Failure(.invalidArgument, "log_level is \(config.log_level)") }
        guard config.max_message_size <= Configuration.messageSizeLimit else {
            throw Failure(.invalidArgument, "max_message_size is larger than \(Configuration.messageSizeLimit)")
        }
        isLite = config.ice_mode == 1
        if let text = try unsafe text(config.bind_address, limit: 64, "bind_address") {
            guard let ip = IPAddress(text) else { throw Failure(.noAddress, "bind_address is not an IP address") }
            bindAddress = ip
        }
        addresses = try unsafe ReconnectABI.addresses(config.addresses, config.address_count, "addresses")
        certificatePath = try unsafe text(config.certificate_path, limit: 4096, "certificate_path")
        if certificatePath?.isEmpty == true { throw Failure(.invalidArgument, "certificate_path is empty") }
        port = config.port
        logLevel = config.log_level == 5 ? nil : LogLevel(rawValue: config.log_level == 0 ? 3 : config.log_level)
        func set<Value: BinaryInteger>(_ target: inout Int, _ value: Value, limit: Int) {
            if value != 0 { target = min(Int(clamping: value), limit) }
        }
        set(&maximumPeers, config.max_peers, limit: 1_000_000)
        set(&maximumChannels, config.max_channels, limit: 65535)
        set(&maximumMessageSize, config.max_message_size, limit: Configuration.messageSizeLimit)
        set(&sendHighWater, config.send_high_water, limit: 1 << 30)
        set(&receiveWindow, config.receive_window, limit: 1 << 30)
        receiveWindow = max(receiveWindow, maximumMessageSize)
        set(&maximumSessions, config.max_sessions, limit: 10_000_000)
        func set(_ target: inout Duration, _ milliseconds: UInt32) {
            if milliseconds != 0 { target = .milliseconds(Int64(milliseconds)) }
        }
        set(&connectTimeout, config.connect_timeout_ms)
        if config.disconnect_timeout_ms != 0 { disconnectTimeout = .milliseconds(Int64(config.disconnect_timeout_ms)) }
        set(&failedTimeout, config.failed_timeout_ms)
        set(&sessionLifetime, config.session_ttl_ms)
        if config.disable_fast_reload != 0 { fastReload = .off }
        try readReload(config)
        try readNetwork(config)
        try readTrip(config)
        try readConnectivity(config)
    }

    private mutating func readReload(_ config: reconnect_engine_config_t) throws(Failure) {
        sessionStore = try unsafe text(config.session_store, limit: 4096, "session_store")
        if let prefix = try unsafe text(config.session_prefix, limit: 256, "session_prefix") { sessionPrefix = prefix }
        if config.store_timeout_ms != 0 { storeTimeout = .milliseconds(Int64(config.store_timeout_ms)) }
        givesTickets = config.disable_tickets == 0
        ticketSecret = try unsafe secret(config.ticket_secret, config.ticket_secret_size, "ticket_secret")
        oldTicketSecret = try unsafe secret(
            config.old_ticket_secret, config.old_ticket_secret_size, "old_ticket_secret")
        returningPeer = try unsafe PeerConfiguration(exchanged: config.returning_peer)
        if config.certificate_days == .max {
            certificateLifetime = nil
        } else if config.certificate_days != 0 {
            certificateLifetime = .seconds(86_400) * Int64(config.certificate_days)
        }
    }

    private mutating func readNetwork(_ config: reconnect_engine_config_t) throws(Failure) {
        guard config.interfaces < 16 else {
            throw Failure(.invalidArgument, "interfaces has bits that this version of the library does not know")
        }
        interfaces = InterfacePolicy(rawValue: config.interfaces)
        stunServers = try unsafe texts(config.stun_servers, config.stun_server_count, limit: 32, "stun_servers")
            .map { text throws(Failure) in try ServerAddress.parse(text) }
        publicAddresses = try unsafe texts(
            config.public_addresses, config.public_address_count, limit: 32, "public_addresses"
        ).map { text throws(Failure) in try PublicAddress.parse(text) }
    }

    private mutating func readTrip(_ config: reconnect_engine_config_t) throws(Failure) {
        func set(_ target: inout Duration, _ milliseconds: UInt32) {
            if milliseconds != 0 { target = .milliseconds(Int64(milliseconds)) }
        }
        set(&fastTimeout, config.fast_timeout_ms)
        set(&trip.window, config.trip_window_ms)
        set(&trip.rearmAfter, config.trip_rearm_ms)
        guard config.trip_failure_percent <= 100, config.trip_unstable_percent <= 100 else {
            throw Failure(.invalidArgument, "trip_failure_percent and trip_unstable_percent are at most 100")
        }
        if config.trip_failure_percent != 0 { trip.failurePercent = Int(config.trip_failure_percent) }
        if config.trip_unstable_percent != 0 { trip.unstablePercent = Int(config.trip_unstable_percent) }
        if config.trip_min_attempts != 0 { trip.minimumAttempts = Int(clamping: config.trip_min_attempts) }
        trip.isEnabled = config.disable_trip == 0
    }
}

/// Bytes that keys are derived from; nil for NULL.
private func secret(_ pointer: UnsafeRawPointer?, _ size: Int, _ name: StaticString) throws(Failure) -> [UInt8]? {
    guard let pointer = unsafe pointer else {
        guard size == 0 else { throw Failure(.invalidArgument, "\(name) is NULL") }
        return nil
    }
    guard size >= 32, size <= 256 else { throw Failure(.invalidArgument, "\(name) must have 32 to 256 bytes") }
    return unsafe Array(UnsafeRawBufferPointer(start: pointer, count: size))
}

/// Reads the configuration and makes the engine; with the environment where the host asks for it.
private func create(
    _ config: UnsafePointer<reconnect_engine_config_t>?, _ engine: UnsafeMutablePointer<reconnect_engine_t>?,
    readsEnvironment: Bool
) throws(Failure) {
    let output = try unsafe required(engine, "engine")
    var configuration = Configuration()
    var choosesPolicy = false
    if let config = unsafe config {
        let given = try unsafe readStruct(config, zero: reconnect_engine_config_t(), minimum: 8, "config")
        configuration = try Configuration(given)
        choosesPolicy = given.ice_policy != 0
    }
    if readsEnvironment { try configuration.readEnvironment(keepsPolicy: choosesPolicy) }
    let created = try Engine.create(configuration)
    unsafe output.pointee = reconnect_engine_t(id: created.handle)
}

@implementation @_cdecl("reconnect_engine_create")
public func reconnect_engine_create(
    _ config: UnsafePointer<reconnect_engine_config_t>!, _ engine: UnsafeMutablePointer<reconnect_engine_t>!,
    _ detail: UnsafeMutablePointer<CChar>!, _ detail_capacity: Int
) -> reconnect_status_t {
    unsafe answering(detail, detail_capacity) { () throws(Failure) in
        try unsafe create(config, engine, readsEnvironment: false)
    }
}

@implementation @_cdecl("reconnect_engine_create_from_env")
public func reconnect_engine_create_from_env(
    _ config: UnsafePointer<reconnect_engine_config_t>!, _ engine: UnsafeMutablePointer<reconnect_engine_t>!,
    _ detail: UnsafeMutablePointer<CChar>!, _ detail_capacity: Int
) -> reconnect_status_t {
    unsafe answering(detail, detail_capacity) { () throws(Failure) in
        try unsafe create(config, engine, readsEnvironment: true)
    }
}

@implementation @_cdecl("reconnect_engine_destroy")
public func reconnect_engine_destroy(_ engine: reconnect_engine_t) -> reconnect_status_t {
    answering { () throws(Failure) in
        let status = try ReconnectABI.engine(engine).destroy()
        if status != .ok { throw Failure(status) }
    }
}

@implementation @_cdecl("reconnect_engine_port")
public func reconnect_engine_port(_ engine: reconnect_engine_t, _ port: UnsafeMutablePointer<UInt16>!)
    -> reconnect_status_t
{
    answering { () throws(Failure) in
        let found = try ReconnectABI.engine(engine)
        unsafe try required(port, "port").pointee = found.portNumber
    }
}

@implementation @_cdecl("reconnect_engine_fingerprint")
public func reconnect_engine_fingerprint(
    _ engine: reconnect_engine_t, _ hash: UInt32, _ buffer: UnsafeMutablePointer<CChar>!, _ capacity: Int,
    _ length: UnsafeMutablePointer<Int>!
) -> reconnect_status_t {
    answering { () throws(Failure) in
        let found = try ReconnectABI.engine(engine)
        guard let algorithm = HashAlgorithm(rawValue: Int(hash)) else { throw Failure(.invalidArgument) }
        try unsafe writeText(found.fingerprint(algorithm), to: buffer, capacity, length)
    }
}

@implementation @_cdecl("reconnect_engine_set_addresses")
public func reconnect_engine_set_addresses(
    _ engine: reconnect_engine_t, _ addresses: UnsafePointer<UnsafePointer<CChar>?>!, _ count: Int
) -> reconnect_status_t {
    answering { () throws(Failure) in
        let found = try ReconnectABI.engine(engine)
        try found.setAddresses(try unsafe ReconnectABI.addresses(addresses, count, "addresses"))
    }
}

@implementation @_cdecl("reconnect_engine_set_fast_reload")
public func reconnect_engine_set_fast_reload(_ engine: reconnect_engine_t, _ setting: UInt32) -> reconnect_status_t {
    answering { () throws(Failure) in
        let found = try ReconnectABI.engine(engine)
        guard let setting = FastReloadSetting(rawValue: setting) else { throw Failure(.invalidArgument) }
        found.setFastReload(setting)
    }
}

@implementation @_cdecl("reconnect_engine_rotate_certificate")
public func reconnect_engine_rotate_certificate(
    _ engine: reconnect_engine_t, _ detail: UnsafeMutablePointer<CChar>!, _ detail_capacity: Int
) -> reconnect_status_t {
    unsafe answering(detail, detail_capacity) { () throws(Failure) in
        try ReconnectABI.engine(engine).rotateCertificate()
    }
}

@implementation @_cdecl("reconnect_engine_revoke")
public func reconnect_engine_revoke(_ engine: reconnect_engine_t, _ client_id: UnsafePointer<CChar>!)
    -> reconnect_status_t
{
    answering { () throws(Failure) in
        let found = try ReconnectABI.engine(engine)
        guard let text = try unsafe text(client_id, limit: 64, "client_id") else {
            throw Failure(.invalidArgument, "client_id is NULL")
        }
        try found.revoke(text)
    }
}

@implementation @_cdecl("reconnect_engine_metrics")
public func reconnect_engine_metrics(
    _ engine: reconnect_engine_t, _ buffer: UnsafeMutablePointer<CChar>!, _ capacity: Int,
    _ length: UnsafeMutablePointer<Int>!
) -> reconnect_status_t {
    answering { () throws(Failure) in
        let found = try ReconnectABI.engine(engine)
        // The figures may have grown by the time the host comes back with more room.
        try unsafe writeText(found.metrics(), to: buffer, capacity, length, spare: 4096)
    }
}

@implementation @_cdecl("reconnect_engine_set_log_level")
public func reconnect_engine_set_log_level(_ engine: reconnect_engine_t, _ level: UInt32) -> reconnect_status_t {
    answering { () throws(Failure) in
        let found = try ReconnectABI.engine(engine)
        guard level <= 5 else { throw Failure(.invalidArgument) }
        found.setLogLevel(level == 5 ? nil : LogLevel(rawValue: level == 0 ? 3 : level))
    }
}

@implementation @_cdecl("reconnect_engine_statistics")
public func reconnect_engine_statistics(
    _ engine: reconnect_engine_t, _ statistics: UnsafeMutablePointer<reconnect_engine_statistics_t>!
) -> reconnect_status_t {
    answering { () throws(Failure) in
        let found = try ReconnectABI.engine(engine)
        let output = try unsafe required(statistics, "statistics")
        let reading = found.statistics()
        var result = reconnect_engine_statistics_t()
        result.peers = UInt32(clamping: reading.peers)
        result.sessions = UInt64(clamping: reading.sessions)
        result.answers_fast = reading.answersFast
        result.answers_normal = reading.answersNormal
        result.peers_connected = reading.peersConnected
        result.peers_failed = reading.peersFailed
        result.sessions_returned = reading.sessionsReturned
        result.datagrams_received = reading.datagramsReceived
        result.datagrams_sent = reading.datagramsSent
        result.bytes_received = reading.bytesReceived
        result.bytes_sent = reading.bytesSent
        result.datagrams_dropped = reading.datagramsDropped
        result.send_errors = reading.sendErrors
        result.certificate_age_seconds = UInt64(clamping: reading.certificateAgeSeconds)
        result.events_queued = UInt64(clamping: reading.eventsQueued)
        try unsafe writeStruct(result, to: output, "statistics")
    }
}
