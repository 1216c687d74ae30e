// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The names are those of the header.

public import CReconnect
import Engine
import ReplayHost
import Wire

/// What a batch has beside its chunks: the messages and states as the header has them.
private final class BatchMemory {
    let messages: UnsafeMutablePointer<reconnect_replay_message_t>
    let states: UnsafeMutablePointer<reconnect_replay_state_t>

    init(messages: Int, states: Int) {
        unsafe self.messages = .allocate(capacity: max(messages, 1))
        unsafe self.states = .allocate(capacity: max(states, 1))
    }

    deinit {
        unsafe messages.deallocate()
        unsafe states.deallocate()
    }
}

/// Writes the events of one batch.
private struct EventWriter {
    private let batch: EventBatch
    private let memory: BatchMemory
    private var messages = 0
    private var states = 0

    init(_ batch: EventBatch) {
        self.batch = batch
        var messages = 0
        var states = 0
        for part in batch.parts {
            for index in part.events {
                messages &+= Int(part.chunk.events[index].messageCount)
                states &+= part.chunk.events[index].state == 0 ? 0 : 1
            }
        }
        memory = BatchMemory(messages: messages, states: states)
        batch.attachment = memory
    }

    mutating func write(to output: UnsafeMutableRawPointer, _ size: Int) {
        let known = MemoryLayout<reconnect_replay_event_t>.size
        var place = unsafe output
        for part in batch.parts {
            for index in part.events {
                let event = unsafe converted(part.chunk.events[index], part.chunk)
                unsafe withUnsafeBytes(of: event) { source in
                    unsafe place.copyMemory(from: source.baseAddress!, byteCount: min(size, known))
                }
                if size > known {
                    unsafe (place + known).initializeMemory(as: UInt8.self, repeating: 0, count: size - known)
                }
                unsafe place += size
            }
        }
    }

    private mutating func converted(_ event: ReplayEvent, _ chunk: EventChunk) -> reconnect_replay_event_t {
        let base = unsafe chunk.bytes.address
        func text(_ extent: Extent) -> UnsafePointer<CChar> {
            unsafe (base + Int(extent.offset)).assumingMemoryBound(to: CChar.self)
        }
        var result = unsafe reconnect_replay_event_t()
        unsafe result.type = event.kind.rawValue
        unsafe result.status = event.status
        unsafe result.tag = event.tag
        unsafe result.batch = batch.number
        unsafe result.sequence = event.sequence
        unsafe result.generation = event.generation
        unsafe result.replaced = event.replaced
        unsafe result.flags = event.flags
        unsafe result.verdict = UInt32(event.verdict)
        unsafe result.reason = UInt32(event.reason)
        unsafe result.problem = UInt32(event.problem)
        unsafe result.messages = UnsafePointer(memory.messages + messages)
        unsafe result.message_count = Int(event.messageCount)
        unsafe result.skipped = event.skipped
        unsafe result.position = text(event.position)
        unsafe result.position_size = Int(event.position.count)
        unsafe result.token = text(event.token)
        unsafe result.token_size = Int(event.token.count)
        unsafe result.data = base + Int(event.data.offset)
        unsafe result.size = Int(event.data.count)
        unsafe result.room = text(event.room)
        unsafe result.room_size = Int(event.room.count)
        unsafe result.user = text(event.user)
        unsafe result.user_size = Int(event.user.count)
        unsafe result.to = text(event.to)
        unsafe result.to_size = Int(event.to.count)
        unsafe result.disconnect_ms = event.disconnectMilliseconds
        unsafe result.retry_after_ms = event.retryAfter
        unsafe result.format = UInt32(event.format)
        unsafe result.kind = UInt32(event.messageKind)
        unsafe result.quality = UInt32(event.quality)
        unsafe result.negotiation = event.negotiation
        unsafe result.number = event.number
        if event.messageCount > 0 { unsafe writeMessages(event, chunk, base) }
        if event.state > 0 { unsafe result.state = writeState(chunk.states[Int(event.state) - 1]) }
        return unsafe result
    }

    private mutating func writeMessages(_ event: ReplayEvent, _ chunk: EventChunk, _ base: UnsafeRawPointer) {
        let first = Int(event.firstMessage)
        for index in first..<first &+ Int(event.messageCount) {
            let message = chunk.messages[index]
            unsafe (memory.messages + messages).initialize(
                to: reconnect_replay_message_t(
                    sequence: message.sequence, data: base + Int(message.data.offset), size: Int(message.data.count),
                    negotiation: message.negotiation, format: message.isText ? 1 : 2, kind: UInt32(message.kind),
                    reserved: (0, 0, 0, 0, 0)))
            messages &+= 1
        }
    }

    private mutating func writeState(_ state: StateRecord) -> UnsafePointer<reconnect_replay_state_t> {
        let place = unsafe memory.states + states
        states &+= 1
        unsafe place.initialize(
            to: reconnect_replay_state_t(
                last_sequence: state.lastSequence, last_seen_ms: state.lastSeenMilliseconds,
                disconnect_ms: state.disconnectMilliseconds, connected: state.isConnected ? 1 : 0,
                quality: UInt32(state.quality), connections: state.connections, reserved: 0))
        return unsafe UnsafePointer(place)
    }
}

@implementation @_cdecl("reconnect_replay_poll")
public func reconnect_replay_poll(
    _ replay: reconnect_replay_t, _ events: UnsafeMutablePointer<reconnect_replay_event_t>!, _ event_size: Int,
    _ max: Int, _ timeout_ms: Int32, _ count: UnsafeMutablePointer<Int>!
) -> reconnect_status_t {
    answering { () throws(Failure) in
        let found = try ReconnectABI.replay(replay)
        let output = try unsafe required(events, "events")
        let written = try unsafe required(count, "count")
        guard max > 0, event_size >= 32, event_size <= 4096 else { throw Failure(.invalidArgument) }
        guard let batch = try found.poll(max: max, milliseconds: timeout_ms) else {
            unsafe written.pointee = 0
            return
        }
        var writer = EventWriter(batch)
        unsafe writer.write(to: UnsafeMutableRawPointer(output), event_size)
        unsafe written.pointee = batch.count
    }
}

@implementation @_cdecl("reconnect_replay_release")
public func reconnect_replay_release(_ replay: reconnect_replay_t, _ batch: UInt64) -> reconnect_status_t {
    answering { () throws(Failure) in
        let status = try ReconnectABI.replay(replay).release(batch)
        if status != .ok { throw Failure(status) }
    }
}
