public import Wire

/// What a message is to a WebRTC negotiation.
public enum MessageKind: UInt8, Hashable, Sendable, CaseIterable {
    case other = 0
    case offer = 1
    case answer = 2
    case candidate = 3
}

/// A publish with the same key by the same user in the same room is the same message.
public struct IdempotencyKey: Hashable, Sendable {
    public let high: UInt64
    public let low: UInt64

    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// From a key of any length, by SHA-256.
    public init(hashing key: [UInt8]) { (high, low) = SHA256.hash(key) }
}

/// What is known of a message beside its bytes, sender and recipient.
public struct MessageProperties: Hashable, Sendable {
    public var kind = MessageKind.other
    public var isText = true
    /// Kept beside the window when messages are trimmed by count, as the latest offers and answers are.
    public var isPriority = false
    /// Names the peer connection that the message is about, where two users have several: the same for all its
    /// offers, answers and candidates. A newer offer replaces the sender's older offer of the same negotiation to the
    /// same recipient, and the candidates that belonged to it.
    public var negotiation: UInt64 = 0
    /// After this time the message is worth nothing to anybody, says its sender.
    public var lifetime = Duration.forever
    public var key: IdempotencyKey?

    public init() {}

    public init(
        _ kind: MessageKind, isText: Bool = true, isPriority: Bool = false, negotiation: UInt64 = 0,
        lifetime: Duration = .forever, key: IdempotencyKey? = nil
    ) {
        self.kind = kind
        self.isText = isText
        self.isPriority = isPriority
        self.negotiation = negotiation
        self.lifetime = lifetime
        self.key = key
    }
}

/// Messages to hand to a client, in order, their bytes in one piece. Reusable: what is in it is replaced.
public struct Batch: Sendable {
    public struct Record: Hashable, Sendable {
        public let sequence: UInt64
        public let offset: Int
        public let count: Int
        public let kind: MessageKind
        public let isText: Bool
        public let negotiation: UInt64
    }

    public private(set) var records: [Record] = []
    public private(set) var bytes: [UInt8] = []

    public init() {}

    public var count: Int { records.count }
    public var isEmpty: Bool { records.isEmpty }

    public mutating func removeAll() {
        records.removeAll(keepingCapacity: true)
        bytes.removeAll(keepingCapacity: true)
    }

    /// A copy of the bytes of one message.
    public func payload(_ index: Int) -> [UInt8] {
        guard records.indices.contains(index) else { return [] }
        let record = records[index]
        return bytes.span.bytes.slice(at: record.offset, count: record.count)?.copied() ?? []
    }

    public mutating func append(sequence: UInt64, _ properties: MessageProperties, payload: RawSpan) {
        records.append(
            Record(
                sequence: sequence, offset: bytes.count, count: payload.byteCount, kind: properties.kind,
                isText: properties.isText, negotiation: properties.negotiation))
        unsafe payload.withUnsafeBytes { unsafe bytes.append(contentsOf: $0) }
    }

    /// Records whose bytes follow with one ``fill(_:)``.
    @inline(__always)
    mutating func append(_ record: Record) { records.append(record) }

    mutating func fill(_ write: (inout [UInt8]) -> Void) { write(&bytes) }
}
