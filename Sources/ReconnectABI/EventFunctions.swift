// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The names are those of the header.

public import CReconnect
import Engine
import Wire

/// What `data` and `extra` point to when there is nothing: they are never NULL. Nobody writes to it.
nonisolated(unsafe) private let nothing = Payload.allocate(capacity: 1)

extension reconnect_event_t {
    /// The payloads' memory stays where it is until the engine releases the batch.
    init(_ event: borrowing Event, batch: UInt64) {
        self.init()
        let data = event.data ?? nothing
        let extra = event.extra ?? nothing
        type = event.kind.rawValue
        status = event.status.rawValue
        tag = event.tag
        peer = reconnect_peer_t(id: event.peer)
        channel = reconnect_channel_t(id: event.channel)
        unsafe self.data = data.address
        size = data.count
        unsafe self.extra = extra.address
        extra_size = extra.count
        number = event.number
        duration_ns = event.duration.nanoseconds
        kind = event.detailKind
        flags = event.flags
        self.batch = batch
        connector = reconnect_connector_t(id: event.connector)
    }
}

@implementation @_cdecl("reconnect_event_fd")
public func reconnect_event_fd(_ engine: reconnect_engine_t, _ fd: UnsafeMutablePointer<Int32>!) -> reconnect_status_t {
    answering { () throws(Failure) in
        let found = try ReconnectABI.engine(engine)
        unsafe try required(fd, "fd").pointee = found.eventDescriptor
    }
}

@implementation @_cdecl("reconnect_poll")
public func reconnect_poll(
    _ engine: reconnect_engine_t, _ events: UnsafeMutablePointer<reconnect_event_t>!, _ max: Int, _ timeout_ms: Int32,
    _ count: UnsafeMutablePointer<Int>!
) -> reconnect_status_t {
    answering { () throws(Failure) in
        let found = try ReconnectABI.engine(engine)
        let output = try unsafe required(events, "events")
        let written = try unsafe required(count, "count")
        guard max > 0 else { throw Failure(.invalidArgument) }
        let (status, batch, taken) = found.poll(max: max, milliseconds: timeout_ms)
        guard status == .ok else { throw Failure(status) }
        for index in taken.indices { unsafe output[index] = reconnect_event_t(taken[index], batch: batch) }
        unsafe written.pointee = taken.count
    }
}

@implementation @_cdecl("reconnect_release")
public func reconnect_release(_ engine: reconnect_engine_t, _ batch: UInt64) -> reconnect_status_t {
    answering { () throws(Failure) in
        let status = try ReconnectABI.engine(engine).release(batch)
        if status != .ok { throw Failure(status) }
    }
}
