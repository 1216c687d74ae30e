import Replay
import Storage
import Wire

/// What the scripts answer. nil, or `unavailable`, if it is nothing of ours.
enum RedisReplayReply {
    /// A word in place of a result says why there is none.
    static func refusal(_ reply: RedisReply) -> Outcome {
        guard let word = reply.bytesValue else { return .refused(.unavailable) }
        switch String(decoding: word, as: UTF8.self) {
        case "unknownRoom": return .refused(.unknownRoom)
        case "unknownUser": return .refused(.unknownUser)
        case "unknownRecipient": return .refused(.unknownRecipient)
        case "stale": return .refused(.stale)
        case "tooManyRooms": return .refused(.tooManyRooms)
        case "tooManyMembers": return .refused(.tooManyMembers)
        default: return .refused(.unavailable)
        }
    }

    static func done(_ reply: RedisReply) -> Outcome? {
        reply.bytesValue == Array("done".utf8) ? .done : nil
    }

    private static func parts(_ reply: RedisReply, _ mark: String, count: Int) -> [RedisReply]? {
        guard let parts = reply.arrayValue, parts.count == count, parts[0].bytesValue == Array(mark.utf8) else {
            return nil
        }
        return parts
    }

    private static func word(_ reply: RedisReply) -> UInt64? { reply.bytesValue.flatMap { Hexadecimal.value($0) } }

    private static func count(_ reply: RedisReply) -> UInt64? { reply.integerValue.flatMap { UInt64(exactly: $0) } }

    static func published(_ reply: RedisReply) -> Outcome? {
        guard let parts = parts(reply, "p", count: 4), let epoch = word(parts[1]), let sequence = count(parts[2]) else {
            return nil
        }
        return .published(
            Published(
                position: Position(epoch: epoch, sequence: sequence), isDuplicate: parts[3].integerValue != 0))
    }

    static func state(_ reply: RedisReply, now: Instant) -> Outcome? {
        guard let parts = parts(reply, "s", count: 6), let isConnected = parts[1].integerValue,
            let age = parts[2].integerValue, let last = count(parts[3]), let raw = parts[4].integerValue,
            let quality = UInt8(exactly: raw).flatMap(Quality.init(rawValue:)), let connections = parts[5].integerValue
        else { return nil }
        let gone = Duration.microseconds(max(age, 0))
        return .state(
            UserState(
                isConnected: isConnected != 0, lastSeen: now - gone, lastSequence: last, quality: quality,
                disconnectDuration: isConnected != 0 ? nil : gone, connections: Int(clamping: connections)))
    }

    static func quality(_ reply: RedisReply, _ reports: [QualityReport?]) -> Outcome? {
        guard let parts = parts(reply, "q", count: 2), let before = parts[1].integerValue,
            let index = Int(exactly: before), reports.indices.contains(index), let report = reports[index]
        else { return nil }
        return .quality(report)
    }

    // MARK: Replays

    static func joined(_ reply: RedisReply, _ resume: Resume?) -> Outcome? {
        guard let parts = parts(reply, "j", count: 8), let generation = word(parts[2]),
            let token = parts[3].bytesValue, token.count == 32, let high = Hexadecimal.value(token.prefix(16)),
            let low = Hexadecimal.value(token.suffix(16)), let isReconnection = parts[4].integerValue,
            let wasConnected = parts[5].integerValue, let age = parts[6].integerValue,
            let (recovery, batch) = replay(parts[1], resume?.position, isResuming: resume != nil)
        else { return nil }
        var joined = Joined(
            generation: generation, token: ResumeToken(high: high, low: low), isReconnection: isReconnection != 0,
            disconnectDuration: nil, replaced: nil, recovery: recovery)
        if joined.isReconnection {
            joined.disconnectDuration = wasConnected != 0 ? .zero : .microseconds(max(age, 0))
            if wasConnected != 0 { joined.replaced = word(parts[7]) }
        }
        return .joined(joined, batch)
    }

    static func recovered(_ reply: RedisReply, _ presented: Presented) -> Outcome? {
        guard let parts = parts(reply, "r", count: 2),
            let (recovery, batch) = replay(parts[1], presented, isResuming: true)
        else { return nil }
        return .recovered(recovery, batch)
    }

    private static func standing(_ reply: RedisReply) -> Standing? {
        guard let parts = reply.arrayValue, parts.count == 6, let epoch = word(parts[0]), let top = count(parts[1]),
            let floor = count(parts[2]), let floorReason = reason(parts[3]), let ended = parts[4].bytesValue,
            let endReason = reason(parts[5])
        else { return nil }
        return Standing(
            epoch: epoch, top: top, floor: floor, floorReason: floorReason, endedEpoch: Hexadecimal.value(ended),
            endReason: endReason)
    }

    private static func reason(_ reply: RedisReply) -> LossReason? {
        reply.integerValue.flatMap { UInt8(exactly: $0) }.flatMap(LossReason.init(rawValue:))
    }

    /// How far the script went; the verdict is ``Standing``'s, as everywhere.
    private enum Extent: Int64 {
        case nothing = 0
        case complete = 1
        case tooMuch = 2
        case unproven = 3
    }

    private static func replay(_ reply: RedisReply, _ presented: Presented?, isResuming: Bool) -> (Recovery, Batch)? {
        guard let parts = reply.arrayValue, parts.count == 7, let standing = standing(parts[0]),
            let epoch = word(parts[1]), let top = count(parts[2]), let acknowledged = parts[3].integerValue,
            let extent = parts[4].integerValue.flatMap(Extent.init(rawValue:)), let skipped = parts[5].integerValue,
            let items = parts[6].arrayValue, let batch = batch(items)
        else { return nil }
        var recovery = Recovery(verdict: .fresh, position: Position(epoch: epoch, sequence: top))
        guard isResuming else { return (recovery, Batch()) }
        let presented = presented ?? .nothing
        let judgement =
            extent == .unproven
            ? standing.judgeUnproven(presented)
            : standing.judge(presented, acknowledged: UInt64(exactly: acknowledged))
        switch (judgement, extent) {
        case (.fresh, _):
            return (recovery, Batch())
        case (.lost(let reason, let problem), _):
            recovery.verdict = .lost(reason)
            recovery.problem = problem
        case (.since, .complete):
            recovery.verdict = batch.isEmpty ? .recoveredEmpty : .recovered
            recovery.skipped = Int(clamping: max(skipped, 0))
        case (.since, .tooMuch):
            recovery.verdict = .lost(.limit)
        case (.since, _):
            // The script did not look: nothing is proven.
            recovery.verdict = .lost(.store)
        }
        return (recovery, batch)
    }

    private static func batch(_ items: [RedisReply]) -> Batch? {
        var batch = Batch()
        for item in items {
            guard case .bytes(let message) = item, let header = RedisReplayHeader(message),
                let payload = message.span.bytes.slice(
                    at: RedisReplayHeader.length, count: message.count - RedisReplayHeader.length)
            else { return nil }
            let properties = MessageProperties(
                header.kind, flags: header.flags, negotiation: header.negotiation)
            batch.append(sequence: header.sequence, properties, payload: payload)
        }
        return batch
    }
}

/// What is stored before a message's bytes, as Lua's struct writes it: big-endian doubles (sequence, published, expires,
/// bytes of the epoch so far, serials of sender and recipient), kind, flags, and the negotiation in 16 digits.
struct RedisReplayHeader {
    static let length = 66

    let sequence: UInt64
    let kind: MessageKind
    let flags: UInt8
    let negotiation: UInt64

    init?(_ bytes: [UInt8]) {
        guard bytes.count >= Self.length else { return nil }
        let span = bytes.span.bytes
        guard let word: UInt64 = span.load(bigEndianAt: 0),
            let sequence = UInt64(exactly: Double(bitPattern: word)), let kind = MessageKind(rawValue: bytes[48]),
            let negotiation = Hexadecimal.value(bytes[50..<Self.length])
        else { return nil }
        self.sequence = sequence
        self.kind = kind
        flags = bytes[49]
        self.negotiation = negotiation
    }
}
