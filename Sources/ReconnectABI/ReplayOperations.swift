// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The names are those of the header.

public import CReconnect
import Engine
import Replay
import ReplayHost
import Wire

/// An optional member: NULL, or of no size, is absent.
private func part(_ pointer: UnsafeRawPointer?, _ size: Int, _ name: StaticString) throws(Failure)
    -> UnsafeRawBufferPointer
{
    guard let pointer = unsafe pointer, size != 0 else { return unsafe UnsafeRawBufferPointer(start: nil, count: 0) }
    guard size > 0 else { throw Failure(.invalidArgument, "the size of \(name) is out of range") }
    return unsafe UnsafeRawBufferPointer(start: pointer, count: size)
}

extension Core {
    fileprivate func perform(_ given: reconnect_replay_operation_t) throws(Failure) {
        try admit()
        let room = try unsafe part(given.room, given.room_size, "room")
        let user = try unsafe part(given.user, given.user_size, "user")
        switch ReplayEvent.Kind(rawValue: given.type) {
        case .publish:
            let to = try unsafe part(given.to, given.to_size, "to")
            let key = try unsafe part(given.key, given.key_size, "key")
            guard unsafe given.data != nil || given.size == 0 else { throw Failure(.invalidArgument, "data is NULL") }
            let data = try unsafe part(given.data, given.size, "data")
            var options = PublishOptions()
            options.flags = given.flags
            options.format = given.format
            options.kind = given.kind
            options.lifetimeMilliseconds = given.lifetime_ms
            options.negotiation = given.negotiation
            try unsafe publish(
                room: room.bytes, user: user.bytes, to: to.bytes, data: data.bytes, key: key.bytes, options,
                tag: given.tag)
        case .join:
            let position = try unsafe part(given.position, given.position_size, "position")
            let token = try unsafe part(given.token, given.token_size, "token")
            try unsafe join(
                room: room.bytes, user: user.bytes, position: position.bytes, token: token.bytes, flags: given.flags,
                tag: given.tag)
        case .recover:
            let position = try unsafe part(given.position, given.position_size, "position")
            try unsafe recover(
                room: room.bytes, user: user.bytes, generation: given.generation, position: position.bytes,
                tag: given.tag)
        case .acknowledge:
            let position = try unsafe part(given.position, given.position_size, "position")
            try unsafe acknowledge(
                room: room.bytes, user: user.bytes, generation: given.generation, position: position.bytes,
                tag: given.tag)
        case .drop:
            try unsafe drop(room: room.bytes, user: user.bytes, generation: given.generation, tag: given.tag)
        case .leave:
            try unsafe leave(room: room.bytes, user: user.bytes, generation: given.generation, tag: given.tag)
        case .state:
            try unsafe state(room: room.bytes, user: user.bytes, tag: given.tag)
        case .quality:
            try unsafe quality(
                room: room.bytes, user: user.bytes, latency: given.latency_ms, loss: given.loss_percent,
                jitter: given.jitter_ms, bandwidth: given.bandwidth_kbps, tag: given.tag)
        case .subscribe:
            try unsafe subscribe(room: room.bytes, tag: given.tag)
        case .unsubscribe:
            try unsafe unsubscribe(room: room.bytes, tag: given.tag)
        default:
            throw Failure(.invalidArgument, "type is \(given.type)")
        }
    }
}

private let knownSize = MemoryLayout<reconnect_replay_operation_t>.size

/// One operation of `size` bytes: members beyond are zero, and those that this version does not know must be.
private func load(_ pointer: UnsafeRawPointer, _ size: Int) throws(Failure) -> reconnect_replay_operation_t {
    var operation = reconnect_replay_operation_t()
    unsafe withUnsafeMutableBytes(of: &operation) { target in
        unsafe target.copyMemory(from: UnsafeRawBufferPointer(start: pointer, count: min(size, knownSize)))
    }
    if size > knownSize {
        for offset in knownSize..<size where unsafe pointer.load(fromByteOffset: offset, as: UInt8.self) != 0 {
            throw Failure(
                .invalidArgument, "the operation uses a member that this version of the library does not know")
        }
    }
    let reserved = unsafe operation.reserved
    let words = reserved.0 | reserved.1 | reserved.2 | reserved.3 | reserved.4 | reserved.5 | reserved.6 | reserved.7
    guard words == 0, unsafe operation.reserved0 == 0 else {
        throw Failure(.invalidArgument, "a reserved member of the operation is not zero")
    }
    return unsafe operation
}

@implementation @_cdecl("reconnect_replay_submit")
public func reconnect_replay_submit(
    _ replay: reconnect_replay_t, _ operations: UnsafePointer<reconnect_replay_operation_t>!, _ operation_size: Int,
    _ count: Int, _ taken: UnsafeMutablePointer<Int>!, _ detail: UnsafeMutablePointer<CChar>!, _ detail_capacity: Int
) -> reconnect_status_t {
    var done = 0
    let status = unsafe answering(detail, detail_capacity) { () throws(Failure) in
        let found = try ReconnectABI.replay(replay)
        guard operation_size >= 16, operation_size <= 4096 else {
            throw Failure(.invalidArgument, "operation_size is \(operation_size)")
        }
        guard count >= 0, !count.multipliedReportingOverflow(by: operation_size).overflow else {
            throw Failure(.invalidArgument, "count is out of range")
        }
        guard let operations = unsafe operations else {
            if count == 0 { return }
            throw Failure(.invalidArgument, "operations is NULL")
        }
        try found.submit { core throws(Failure) in
            let first = unsafe UnsafeRawPointer(operations)
            while done < count {
                try unsafe core.perform(load(first + done &* operation_size, operation_size))
                done &+= 1
            }
        }
    }
    if let taken = unsafe taken { unsafe taken.pointee = done }
    return status
}
