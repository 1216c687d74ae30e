// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The names are those of the header.

public import CReconnect
import Engine
import Wire

@implementation @_cdecl("reconnect_channel_open")
public func reconnect_channel_open(
    _ peer: reconnect_peer_t, _ config: UnsafePointer<reconnect_channel_config_t>!,
    _ channel: UnsafeMutablePointer<reconnect_channel_t>!
) -> reconnect_status_t {
    answering { () throws(Failure) in
        let found = try ReconnectABI.peer(peer)
        let output = try unsafe required(channel, "channel")
        let handle = try unsafe found.openChannel(ChannelConfiguration(config))
        unsafe output.pointee = reconnect_channel_t(id: handle)
    }
}

@implementation @_cdecl("reconnect_send")
public func reconnect_send(
    _ channel: reconnect_channel_t, _ kind: UInt32, _ data: UnsafeRawPointer!, _ size: Int
) -> reconnect_status_t {
    answering { () throws(Failure) in
        let found = try ReconnectABI.channel(channel)
        guard kind == 1 || kind == 2 else { throw Failure(.invalidArgument) }
        let message = try unsafe bytes(data, size, "data")
        // A text that is not UTF-8 would fail in the other side's decoder, far from its cause.
        if kind == 1, size > 0 {
            let span = unsafe Span<UInt8>(_unsafeElements: message.assumingMemoryBound(to: UInt8.self))
            guard (try? UTF8Span(validating: span)) != nil else { throw Failure(.invalidArgument) }
        }
        let status = unsafe found.send(isText: kind == 1, message.bytes)
        if status != .ok { throw Failure(status) }
    }
}

@implementation @_cdecl("reconnect_channel_buffered")
public func reconnect_channel_buffered(_ channel: reconnect_channel_t, _ bytes: UnsafeMutablePointer<UInt64>!)
    -> reconnect_status_t
{
    answering { () throws(Failure) in
        let found = try ReconnectABI.channel(channel)
        unsafe try required(bytes, "bytes").pointee = UInt64(clamping: found.buffered)
    }
}

@implementation @_cdecl("reconnect_channel_set_low_water")
public func reconnect_channel_set_low_water(_ channel: reconnect_channel_t, _ bytes: UInt64) -> reconnect_status_t {
    answering { () throws(Failure) in try ReconnectABI.channel(channel).setLowWater(Int(clamping: bytes)) }
}

@implementation @_cdecl("reconnect_channel_close")
public func reconnect_channel_close(_ channel: reconnect_channel_t) -> reconnect_status_t {
    answering { () throws(Failure) in
        let status = try ReconnectABI.channel(channel).close()
        if status != .ok { throw Failure(status) }
    }
}
