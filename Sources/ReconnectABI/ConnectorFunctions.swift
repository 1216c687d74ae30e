// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The names are those of the header.

public import CReconnect
import Engine
import Wire

extension ConnectorConfiguration {
    init(_ config: UnsafePointer<reconnect_connector_config_t>?) throws(Failure) {
        self.init()
        guard let config = unsafe config else { return }
        let given = try unsafe readStruct(config, zero: reconnect_connector_config_t(), minimum: 8, "config")
        guard let policy = Policy(rawValue: given.policy) else {
            throw Failure(.invalidArgument, "policy is \(given.policy)")
        }
        self.policy = policy
        if let text = try unsafe text(given.key, limit: 256, "key") {
            guard !text.isEmpty else { throw Failure(.invalidArgument, "key is empty") }
            key = text
        }
        cachePath = try unsafe text(given.cache_path, limit: 4096, "cache_path")
        if cachePath?.isEmpty == true { throw Failure(.invalidArgument, "cache_path is empty") }
        func set(_ target: inout Duration, _ milliseconds: UInt32) {
            if milliseconds != 0 { target = .milliseconds(Int64(milliseconds)) }
        }
        set(&fastTimeout, given.fast_timeout_ms)
        set(&normalTimeout, given.normal_timeout_ms)
        set(&maximumCacheAge, given.max_cache_age_ms)
        usesTickets = given.disable_tickets == 0
        peer = try unsafe PeerConfiguration(exchanged: given.peer)
        tag = given.tag
    }
}

@implementation @_cdecl("reconnect_connector_create")
public func reconnect_connector_create(
    _ engine: reconnect_engine_t, _ config: UnsafePointer<reconnect_connector_config_t>!,
    _ connector: UnsafeMutablePointer<reconnect_connector_t>!, _ detail: UnsafeMutablePointer<CChar>!,
    _ detail_capacity: Int
) -> reconnect_status_t {
    unsafe answering(detail, detail_capacity) { () throws(Failure) in
        let found = try ReconnectABI.engine(engine)
        let output = try unsafe required(connector, "connector")
        let made = try found.createConnector(try unsafe ConnectorConfiguration(config))
        unsafe output.pointee = reconnect_connector_t(id: made)
    }
}

@implementation @_cdecl("reconnect_connector_connect")
public func reconnect_connector_connect(_ connector: reconnect_connector_t) -> reconnect_status_t {
    answering { () throws(Failure) in try ReconnectABI.connector(connector).connect() }
}

@implementation @_cdecl("reconnect_connector_message")
public func reconnect_connector_message(
    _ connector: reconnect_connector_t, _ exchange: Int64, _ message: UnsafePointer<CChar>!, _ size: Int,
    _ detail: UnsafeMutablePointer<CChar>!, _ detail_capacity: Int
) -> reconnect_status_t {
    unsafe answering(detail, detail_capacity) { () throws(Failure) in
        let found = try ReconnectABI.connector(connector)
        let json = try unsafe bytes(message, size, "message")
        try found.message(unsafe json.bytes, exchange: exchange)
    }
}

@implementation @_cdecl("reconnect_connector_signaling_failed")
public func reconnect_connector_signaling_failed(_ connector: reconnect_connector_t, _ exchange: Int64)
    -> reconnect_status_t
{
    answering { () throws(Failure) in try ReconnectABI.connector(connector).signalingFailed(exchange: exchange) }
}

@implementation @_cdecl("reconnect_connector_cache")
public func reconnect_connector_cache(
    _ connector: reconnect_connector_t, _ buffer: UnsafeMutablePointer<CChar>!, _ capacity: Int,
    _ length: UnsafeMutablePointer<Int>!
) -> reconnect_status_t {
    answering { () throws(Failure) in
        let found = try ReconnectABI.connector(connector)
        try unsafe writeText(found.cacheEntry(), to: buffer, capacity, length, spare: 4096)
    }
}

@implementation @_cdecl("reconnect_connector_forget")
public func reconnect_connector_forget(_ connector: reconnect_connector_t) -> reconnect_status_t {
    answering { () throws(Failure) in try ReconnectABI.connector(connector).forget() }
}

@implementation @_cdecl("reconnect_connector_close")
public func reconnect_connector_close(_ connector: reconnect_connector_t) -> reconnect_status_t {
    answering { () throws(Failure) in try ReconnectABI.connector(connector).close() }
}
