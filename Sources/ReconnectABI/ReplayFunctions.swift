// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The names are those of the header.

public import CReconnect
import Engine
import Replay
import ReplayHost
import Wire

func replay(_ handle: reconnect_replay_t) throws(Failure) -> ReplayBuffer {
    guard let buffer = ReplayBuffer.find(handle.id) else {
        throw Failure(.invalidHandle, "no replay buffer has this handle")
    }
    return buffer
}

private func create(
    _ config: UnsafePointer<reconnect_replay_config_t>?, _ replay: UnsafeMutablePointer<reconnect_replay_t>?,
    readsEnvironment: Bool
) throws(Failure) {
    let output = try unsafe required(replay, "replay")
    var settings = Settings()
    if let config = unsafe config {
        let given = try unsafe readStruct(config, zero: reconnect_replay_config_t(), minimum: 8, "config")
        settings = try Settings(given)
    }
    if readsEnvironment { try settings.readEnvironment() }
    let created = try ReplayBuffer.create(settings)
    unsafe output.pointee = reconnect_replay_t(id: created.handle)
}

@implementation @_cdecl("reconnect_replay_create")
public func reconnect_replay_create(
    _ config: UnsafePointer<reconnect_replay_config_t>!, _ replay: UnsafeMutablePointer<reconnect_replay_t>!,
    _ detail: UnsafeMutablePointer<CChar>!, _ detail_capacity: Int
) -> reconnect_status_t {
    unsafe answering(detail, detail_capacity) { () throws(Failure) in
        try unsafe create(config, replay, readsEnvironment: false)
    }
}

@implementation @_cdecl("reconnect_replay_create_from_env")
public func reconnect_replay_create_from_env(
    _ config: UnsafePointer<reconnect_replay_config_t>!, _ replay: UnsafeMutablePointer<reconnect_replay_t>!,
    _ detail: UnsafeMutablePointer<CChar>!, _ detail_capacity: Int
) -> reconnect_status_t {
    unsafe answering(detail, detail_capacity) { () throws(Failure) in
        try unsafe create(config, replay, readsEnvironment: true)
    }
}

@implementation @_cdecl("reconnect_replay_destroy")
public func reconnect_replay_destroy(_ replay: reconnect_replay_t) -> reconnect_status_t {
    answering { () throws(Failure) in
        let status = try ReconnectABI.replay(replay).destroy()
        if status != .ok { throw Failure(status) }
    }
}

@implementation @_cdecl("reconnect_replay_event_fd")
public func reconnect_replay_event_fd(_ replay: reconnect_replay_t, _ fd: UnsafeMutablePointer<Int32>!)
    -> reconnect_status_t
{
    answering { () throws(Failure) in
        let found = try ReconnectABI.replay(replay)
        unsafe try required(fd, "fd").pointee = found.descriptor
    }
}

@implementation @_cdecl("reconnect_replay_statistics")
public func reconnect_replay_statistics(
    _ replay: reconnect_replay_t, _ statistics: UnsafeMutablePointer<reconnect_replay_statistics_t>!
) -> reconnect_status_t {
    answering { () throws(Failure) in
        let found = try ReconnectABI.replay(replay)
        let output = try unsafe required(statistics, "statistics")
        let reading = found.reading()
        var result = reconnect_replay_statistics_t()
        result.store = reading.store
        result.rooms = UInt64(clamping: reading.rooms)
        result.members = UInt64(clamping: reading.members)
        result.bytes_held = UInt64(clamping: reading.bytesHeld)
        result.published = UInt64(clamping: reading.published)
        result.duplicates = UInt64(clamping: reading.duplicates)
        result.joins = UInt64(clamping: reading.joins)
        result.fresh = UInt64(clamping: reading.fresh)
        result.recovered = UInt64(clamping: reading.recovered)
        result.recovered_empty = UInt64(clamping: reading.recoveredEmpty)
        let lost = reading.lost.map { UInt64(clamping: $0) }
        result.lost = (lost[0], lost[1], lost[2], lost[3], lost[4], lost[5], lost[6])
        result.messages_replayed = UInt64(clamping: reading.replayed)
        result.messages_live = UInt64(clamping: reading.live)
        result.gaps = UInt64(clamping: reading.gaps)
        result.throttled = UInt64(clamping: reading.throttled)
        result.store_operations = UInt64(clamping: reading.storeOperations)
        result.store_failures = UInt64(clamping: reading.storeFailures)
        result.without_store = UInt64(clamping: reading.withoutStore)
        result.events_queued = UInt64(clamping: reading.eventsQueued)
        try unsafe writeStruct(result, to: output, "statistics")
    }
}

@implementation @_cdecl("reconnect_replay_metrics")
public func reconnect_replay_metrics(
    _ replay: reconnect_replay_t, _ buffer: UnsafeMutablePointer<CChar>!, _ capacity: Int,
    _ length: UnsafeMutablePointer<Int>!
) -> reconnect_status_t {
    answering { () throws(Failure) in
        let found = try ReconnectABI.replay(replay)
        // The figures may have grown by the time the host comes back with more room.
        try unsafe writeText(found.metrics(), to: buffer, capacity, length, spare: 4096)
    }
}
