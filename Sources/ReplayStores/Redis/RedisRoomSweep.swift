import Replay
import Storage
import Wire

/// Resets every room of a server, one after the other.
final class RedisRoomSweep: Sendable {
    private struct State: Sendable {
        var random: SeededGenerator
        var rooms: [[UInt8]] = []
        var cursor: [UInt8] = Array("0".utf8)
        var isLast = false
    }

    private let client: RedisClient
    private let script: RedisScript
    private let prefix: String
    private let timeout: Duration
    private let arguments: [RedisArgument]
    private let reason: LossReason
    private let completion: RedisClient.Completion
    private let state: Guarded<State>

    init(
        client: RedisClient, script: RedisScript, prefix: String, timeout: Duration, arguments: [RedisArgument],
        reason: LossReason, random: SeededGenerator, completion: @escaping RedisClient.Completion
    ) {
        self.client = client
        self.script = script
        self.prefix = prefix
        self.timeout = timeout
        self.arguments = arguments
        self.reason = reason
        self.completion = completion
        state = Guarded(State(random: random))
    }

    func begin() { scan() }

    /// The prefix, with what SCAN would take for a pattern made plain.
    private var pattern: [UInt8] {
        var pattern: [UInt8] = []
        for byte in (prefix + "seq:{").utf8 {
            if [0x2A, 0x3F, 0x5B, 0x5C].contains(byte) { pattern.append(0x5C) }
            pattern.append(byte)
        }
        return pattern + [0x2A]
    }

    private func scan() {
        let cursor = state.withLock { $0.cursor }
        client.submit(
            ["SCAN", .bytes(cursor), "MATCH", .bytes(pattern), "COUNT", 512], deadline: timeout
        ) { [self] result in
            guard case .success(let reply) = result else { return completion(result) }
            guard let parts = reply.arrayValue, parts.count == 2, let cursor = parts[0].bytesValue,
                let names = parts[1].arrayValue
            else { return completion(.failure(.unavailable)) }
            let head = prefix.utf8.count + "seq:".utf8.count
            state.withLock { state in
                state.cursor = cursor
                state.isLast = cursor == Array("0".utf8)
                state.rooms = names.compactMap { $0.bytesValue.map { Array($0.dropFirst(head)) } }
            }
            next()
        }
    }

    private func next() {
        let (room, isLast, epoch) = state.withLock { state in
            (state.rooms.popLast(), state.isLast, Hexadecimal.text(state.random.next() & ~1))
        }
        guard let room else { return isLast ? completion(.success(.bytes(Array("done".utf8)))) : scan() }
        let keys = ["buffer:", "state:", "seq:"].map { RedisArgument.bytes(Array((prefix + $0).utf8) + room) }
        client.run(
            script, keys: keys, arguments: arguments + [.text(epoch), .integer(Int64(reason.rawValue))],
            deadline: timeout
        ) { [self] result in
            if case .failure = result { completion(result) } else { next() }
        }
    }
}
