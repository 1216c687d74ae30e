/// Bytes of an ``EventChunk``.
public struct Extent: Sendable {
    public var offset: UInt32 = 0
    public var count: UInt32 = 0

    public init() {}

    init(offset: Int, count: Int) {
        self.offset = UInt32(truncatingIfNeeded: offset)
        self.count = UInt32(truncatingIfNeeded: count)
    }
}

/// One outcome or event; the members are those of `reconnect_replay_event_t`, with places in an ``EventChunk`` instead of
/// pointers.
public struct ReplayEvent: Sendable {
    public enum Kind: UInt32, Sendable {
        case publish = 1
        case join = 2
        case recover = 3
        case acknowledge = 4
        case drop = 5
        case leave = 6
        case state = 7
        case quality = 8
        case subscribe = 9
        case unsubscribe = 10
        case message = 32
        case gap = 33
        case store = 34
        case returned = 35
        case log = 36
    }

    public var kind: Kind
    public var status: Int32 = 0
    public var tag: UInt64 = 0
    public var sequence: UInt64 = 0
    public var generation: UInt64 = 0
    public var replaced: UInt64 = 0
    public var flags: UInt32 = 0
    public var verdict: UInt8 = 0
    public var reason: UInt8 = 0
    public var problem: UInt8 = 0
    public var format: UInt8 = 0
    public var messageKind: UInt8 = 0
    public var quality: UInt8 = 0
    public var retryAfter: UInt32 = 0
    /// Of the chunk's messages.
    public var firstMessage: UInt32 = 0
    public var messageCount: UInt32 = 0
    public var skipped: UInt64 = 0
    public var position = Extent()
    public var token = Extent()
    public var data = Extent()
    public var room = Extent()
    public var user = Extent()
    public var to = Extent()
    /// Which of the chunk's states, from one; 0: none.
    public var state: UInt32 = 0
    public var disconnectMilliseconds: Int64 = 0
    public var negotiation: UInt64 = 0
    public var number: Int64 = 0

    init(_ kind: Kind, tag: UInt64 = 0) {
        self.kind = kind
        self.tag = tag
    }
}

/// ``ReplayEvent/flags``, and those of operations.
public enum Flag {
    public static let resume: UInt32 = 1
    public static let priority: UInt32 = 2
    public static let duplicate: UInt32 = 4
    public static let reconnection: UInt32 = 8
    public static let connected: UInt32 = 16
    public static let degraded: UInt32 = 32
}

/// One message of a replay.
public struct ReplayedMessage: Sendable {
    public let sequence: UInt64
    public let negotiation: UInt64
    public let data: Extent
    public let isText: Bool
    public let kind: UInt8
}

public struct StateRecord: Sendable {
    public var lastSequence: UInt64
    public var lastSeenMilliseconds: Int64
    public var disconnectMilliseconds: Int64
    public var isConnected: Bool
    public var quality: UInt8
    public var connections: UInt32
}
