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
    /// The bytes are a compressed form of what was published; whoever hands them on restores them.
    public var isCompressed = false
    /// Names the peer connection that the message is about, where two users have several: the same for all its
    /// offers, answers and candidates. A newer offer replaces the sender's older offer of the same negotiation to the
    /// same recipient, and the candidates that belonged to it.
    public var negotiation: UInt64 = 0
    /// After this time the message is worth nothing to anybody, says its sender.
    public var lifetime = Duration.forever
    public var key: IdempotencyKey?

    public init() {}

    public init(
        _ kind: MessageKind, isText: Bool = true, isPriority: Bool = false, isCompressed: Bool = false,
        negotiation: UInt64 = 0, lifetime: Duration = .forever, key: IdempotencyKey? = nil
    ) {
        self.kind = kind
        self.isText = isText
        self.isPriority = isPriority
        self.isCompressed = isCompressed
        self.negotiation = negotiation
        self.lifetime = lifetime
        self.key = key
    }

    private static let text: UInt8 = 1
    private static let priority: UInt8 = 2
    // 4 is what a store's own entries use for messages that were replaced.
    private static let compressed: UInt8 = 8

    /// What is kept with the flags that a store wrote.
    public init(_ kind: MessageKind, flags: UInt8, negotiation: UInt64) {
        self.init(
            kind, isText: flags & Self.text != 0, isPriority: flags & Self.priority != 0,
            isCompressed: flags & Self.compressed != 0, negotiation: negotiation)
    }

    /// As stores write them; never 4.
    public var flags: UInt8 {
        (isText ? Self.text : 0) | (isPriority ? Self.priority : 0) | (isCompressed ? Self.compressed : 0)
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
        public let isCompressed: Bool
        public let negotiation: UInt64
    }

    public private(set) var records: [Record] = []
    public private(set) var bytes: [UInt8] = []
    /// Whether any message is.
    public private(set) var isCompressed = false

    public init() {}

    public var count: Int { records.count }
    public var isEmpty: Bool { records.isEmpty }

    public mutating func removeAll() {
        records.removeAll(keepingCapacity: true)
        bytes.removeAll(keepingCapacity: true)
        isCompressed = false
    }

    /// A copy of the bytes of one message.
    public func payload(_ index: Int) -> [UInt8] {
        guard records.indices.contains(index) else { return [] }
        let record = records[index]
        return bytes.span.bytes.slice(at: record.offset, count: record.count)?.copied() ?? []
    }

    public mutating func append(sequence: UInt64, _ properties: MessageProperties, payload: RawSpan) {
        append(
            Record(
                sequence: sequence, offset: bytes.count, count: payload.byteCount, kind: properties.kind,
                isText: properties.isText, isCompressed: properties.isCompressed, negotiation: properties.negotiation))
        unsafe payload.withUnsafeBytes { unsafe bytes.append(contentsOf: $0) }
    }

    /// Records whose bytes follow with one ``fill(_:)``.
    @inline(__always)
    mutating func append(_ record: Record) {
        if record.isCompressed { isCompressed = true }
        records.append(record)
    }

    mutating func fill(_ write: (inout [UInt8]) -> Void) { write(&bytes) }
}
