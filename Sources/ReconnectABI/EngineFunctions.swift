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
        isFastReloadEnabled = config.disable_fast_reload == 0
    }
}

@implementation @_cdecl("reconnect_engine_create")
public func reconnect_engine_create(
    _ config: UnsafePointer<reconnect_engine_config_t>!, _ engine: UnsafeMutablePointer<reconnect_engine_t>!,
    _ detail: UnsafeMutablePointer<CChar>!, _ detail_capacity: Int
) -> reconnect_status_t {
    unsafe answering(detail, detail_capacity) { () throws(Failure) in
        let output = try unsafe required(engine, "engine")
        var configuration = Configuration()
        if let config = unsafe config {
            let given = try unsafe readStruct(
                config, zero: reconnect_engine_config_t(), minimum: 8, "config")
            configuration = try Configuration(given)
        }
        let created = try Engine.create(configuration)
        unsafe output.pointee = reconnect_engine_t(id: created.handle)
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
        let output = try unsafe required(length, "length")
        let text = Array(found.fingerprint(algorithm).utf8)
        guard let buffer = unsafe buffer, capacity > text.count else {
            unsafe output.pointee = text.count + 1
            throw Failure(.tooSmall)
        }
        for (index, byte) in text.enumerated() { unsafe buffer[index] = CChar(bitPattern: byte) }
        unsafe buffer[text.count] = 0
        unsafe output.pointee = text.count
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
public func reconnect_engine_set_fast_reload(_ engine: reconnect_engine_t, _ enabled: UInt32) -> reconnect_status_t {
    answering { () throws(Failure) in try ReconnectABI.engine(engine).setFastReload(enabled != 0) }
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
