// A host of the C interface that hands in operations with any contents, of any size, and takes their outcomes in batches
// of any size. What operations point to is in memory of exactly its size; what events point to is read to its end.
// The first byte chooses limits; then operations of 24 bytes, whose texts are parts of the input.

import CReconnect
import ReconnectABI

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzReplaySubmission(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    guard let data, size > 1 else { return 0 }
    var host = Host(unsafe Array(UnsafeBufferPointer(start: data, count: min(size, 4_096))))
    host.run()
    return 0
}

private struct Host {
    private let input: [UInt8]
    private var offset = 1
    private var replay = reconnect_replay_t()
    private var memory: [UnsafeMutableRawPointer] = []
    private var batches: [UInt64] = []
    private var generations: [UInt64] = [0]
    private var texts: [[UInt8]] = []
    private var sum = 0

    init(_ input: [UInt8]) { self.input = input }

    private mutating func byte() -> UInt8 {
        guard offset < input.count else { return 0 }
        offset += 1
        return input[offset - 1]
    }

    private mutating func number() -> UInt64 { (0..<8).reduce(0) { result, _ in result << 8 | UInt64(byte()) } }

    mutating func run() {
        var config = unsafe reconnect_replay_config_t()
        unsafe config.struct_size = UInt32(MemoryLayout<reconnect_replay_config_t>.size)
        unsafe config.window = UInt32(input[0] & 7)
        unsafe config.max_batch = UInt32(input[0] >> 3 & 3)
        unsafe config.max_pending = input[0] & 32 != 0 ? 6 : 0
        unsafe config.max_bytes = input[0] & 64 != 0 ? 20_000 : 0
        unsafe config.trust_users = UInt32(input[0] >> 7)
        guard unsafe reconnect_replay_create(&config, &replay, nil, 0) == 0 else { return }
        while offset < input.count {
            submit()
            if byte() & 3 != 0 { poll() }
        }
        poll()
        if reconnect_replay_destroy(replay) != 0 { fatalError("destroy") }
    }

    // MARK: In

    private mutating func submit() {
        let count = Int(byte() & 3) + 1
        let known = MemoryLayout<reconnect_replay_operation_t>.size
        let sizes = [known, known, known, known + 8, 16, 64, 200, known]
        let size = sizes[Int(byte() & 7)]
        let array = unsafe UnsafeMutableRawPointer.allocate(byteCount: count * size, alignment: 8)
        defer {
            unsafe array.deallocate()
            for pointer in unsafe memory { unsafe pointer.deallocate() }
            unsafe memory = []
        }
        for index in 0..<count {
            let made = unsafe operation()
            unsafe withUnsafeBytes(of: made) { bytes in
                let place = unsafe array + index * size
                unsafe place.copyMemory(from: bytes.baseAddress!, byteCount: min(size, known))
                if size > known { unsafe (place + known).storeBytes(of: 0, as: UInt64.self) }
            }
        }
        var taken = -1
        var detail = [CChar](repeating: 0x7F, count: 40)
        let operations = unsafe array.assumingMemoryBound(to: reconnect_replay_operation_t.self)
        let status = unsafe reconnect_replay_submit(replay, operations, size, count, &taken, &detail, detail.count)
        guard taken >= 0, taken <= count, (status == 0) == (taken == count) else {
            fatalError("\(taken) of \(count): \(status)")
        }
        if status != 0, !detail.contains(0) { fatalError("no detail") }
    }

    private mutating func operation() -> reconnect_replay_operation_t {
        var made = unsafe reconnect_replay_operation_t()
        let type = byte()
        unsafe made.type = type < 240 ? UInt32(type % 11) : UInt32(truncatingIfNeeded: number())
        let flags = byte()
        unsafe made.flags = flags < 240 ? UInt32(flags & 3) : UInt32(flags) << 24
        unsafe made.tag = number()
        unsafe set(&made.room, &made.room_size)
        unsafe set(&made.user, &made.user_size)
        unsafe set(&made.to, &made.to_size)
        unsafe set(&made.position, &made.position_size)
        unsafe set(&made.token, &made.token_size)
        var text: UnsafePointer<CChar>?
        unsafe set(&text, &made.size)
        unsafe made.data = UnsafeRawPointer(text)
        unsafe set(&text, &made.key_size)
        unsafe made.key = UnsafeRawPointer(text)
        let word = byte()
        unsafe made.generation = generations[Int(word) % generations.count]
        unsafe made.negotiation = UInt64(word & 1)
        unsafe made.format = UInt32(word >> 1 & 3)
        unsafe made.kind = UInt32(word >> 3 & 7)
        unsafe made.lifetime_ms = UInt32(word >> 6)
        unsafe made.latency_ms = Double(bitPattern: UInt64(word) << 56)
        return unsafe made
    }

    /// Absent, a name, a part of the input, something that an event said, or a size without anything.
    private mutating func set(_ pointer: inout UnsafePointer<CChar>?, _ size: inout Int) {
        let word = byte()
        var bytes: [UInt8] = []
        switch word >> 5 {
        case 0:
            unsafe pointer = nil
            size = Int(word & 31) == 31 ? -1 : 0
            return
        case 1...4: bytes = [0x61 + (word & 3)]
        case 5, 6: if !texts.isEmpty { bytes = texts[Int(word & 31) % texts.count] }
        default:
            let start = min(offset, input.count)
            bytes = Array(input[start..<min(input.count, start + Int(word & 31) * 20)])
        }
        let copy = unsafe UnsafeMutableRawPointer.allocate(byteCount: max(bytes.count, 1), alignment: 1)
        unsafe copy.copyMemory(from: bytes, byteCount: bytes.count)
        unsafe memory.append(copy)
        unsafe pointer = UnsafePointer(copy.assumingMemoryBound(to: CChar.self))
        size = bytes.count
    }

    // MARK: Out

    private mutating func poll() {
        let room = Int(byte() & 7) + 1
        let events = unsafe UnsafeMutablePointer<reconnect_replay_event_t>.allocate(capacity: room)
        defer { unsafe events.deallocate() }
        var count = 0
        let size = MemoryLayout<reconnect_replay_event_t>.size
        let status = unsafe reconnect_replay_poll(replay, events, size, room, 0, &count)
        guard status == 0, count <= room else { fatalError("poll: \(status), \(count)") }
        for index in 0..<count { unsafe look(at: events[index]) }
        if count > 0 { unsafe batches.append(events[0].batch) }
        // Some are kept until the end.
        guard byte() & 1 != 0, let batch = batches.popLast() else { return }
        if reconnect_replay_release(replay, batch) != 0 { fatalError("release") }
    }

    private mutating func look(at event: reconnect_replay_event_t) {
        guard let messages = unsafe event.messages, let position = unsafe event.position, let data = unsafe event.data,
            let token = unsafe event.token, let room = unsafe event.room, let user = unsafe event.user,
            let to = unsafe event.to
        else { fatalError("NULL in an event") }
        unsafe read(UnsafeRawPointer(room), event.room_size)
        unsafe read(UnsafeRawPointer(user), event.user_size)
        unsafe read(UnsafeRawPointer(to), event.to_size)
        unsafe read(data, event.size)
        for index in unsafe 0..<event.message_count {
            unsafe read(messages[index].data, messages[index].size)
            if index > 0, unsafe messages[index].sequence <= messages[index - 1].sequence { fatalError("out of order") }
        }
        if texts.count < 32 {
            unsafe keep(UnsafeRawPointer(position), event.position_size)
            unsafe keep(UnsafeRawPointer(token), event.token_size)
        }
        if unsafe event.generation != 0, generations.count < 32 { unsafe generations.append(event.generation) }
        guard unsafe event.type != 0 && event.type <= 10 || event.type == 32 || event.type == 33 else {
            fatalError("an event of type \(unsafe event.type)")
        }
    }

    private mutating func read(_ pointer: UnsafeRawPointer, _ size: Int) {
        for byte in unsafe UnsafeRawBufferPointer(start: pointer, count: size) { sum &+= Int(byte) }
    }

    private mutating func keep(_ pointer: UnsafeRawPointer, _ size: Int) {
        if size > 0 { unsafe texts.append(Array(UnsafeRawBufferPointer(start: pointer, count: size))) }
    }
}
