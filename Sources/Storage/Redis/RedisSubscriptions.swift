/// What a ``RedisClient`` hears on its channels, on one connection of its own.
public enum RedisPush: Equatable, Sendable {
    /// From now on messages come: the subscription with this token is in effect. Again after each reconnect.
    case subscribed(channel: [UInt8], token: UInt64)
    case message(channel: [UInt8], [UInt8])
    /// The server does not allow it.
    case refused(channel: [UInt8], token: UInt64, RedisError)
    /// The connection is gone: no channel is subscribed, until it is said again.
    case lost
}

/// The channels of a connection that only listens.
struct RedisSubscriptions {
    let handler: @Sendable (RedisPush) -> Void
    /// Wanted, with the token of who wanted it last.
    private(set) var channels: [[UInt8]: UInt64] = [:]

    init(_ handler: @escaping @Sendable (RedisPush) -> Void) { self.handler = handler }

    struct Change: Sendable {
        let channel: [UInt8]
        /// nil: not wanted any more.
        let token: UInt64?
    }

    /// The command that the server is to be told; nil if it need not be.
    mutating func apply(_ change: Change) -> [RedisArgument]? {
        if let token = change.token {
            channels[change.channel] = token
            return ["SUBSCRIBE", .bytes(change.channel)]
        }
        guard channels.removeValue(forKey: change.channel) != nil else { return nil }
        return ["UNSUBSCRIBE", .bytes(change.channel)]
    }

    enum Heard {
        case message(channel: [UInt8], [UInt8])
        /// Answers the oldest command without an answer.
        case answer
        case nonsense
    }

    static func hear(_ reply: RedisReply) -> Heard {
        guard let parts = reply.arrayValue else { return .answer }
        guard let word = parts.first?.bytesValue else { return .nonsense }
        switch String(decoding: word, as: UTF8.self) {
        case "message":
            guard parts.count == 3, let channel = parts[1].bytesValue, let bytes = parts[2].bytesValue else {
                return .nonsense
            }
            return .message(channel: channel, bytes)
        case "subscribe", "unsubscribe": return parts.count == 3 ? .answer : .nonsense
        case "pong": return .answer
        default: return .nonsense
        }
    }
}
