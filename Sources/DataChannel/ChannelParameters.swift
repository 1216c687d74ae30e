public import SCTP

/// What a data channel is made with (RFC 8832 section 5.1).
public struct ChannelParameters: Hashable, Sendable {
    public var label: String
    /// A subprotocol of the application's, possibly empty.
    public var subprotocol: String
    /// False: messages may overtake each other.
    public var ordered: Bool
    public var reliability: Association.Reliability
    /// Only told to the peer (RFC 8831 section 6.4: 128, 256, 512 and 1024 from low to extra high).
    public var priority: UInt16

    public init(
        label: String = "", subprotocol: String = "", ordered: Bool = true,
        reliability: Association.Reliability = .reliable, priority: UInt16 = 256
    ) {
        self.label = label
        self.subprotocol = subprotocol
        self.ordered = ordered
        self.reliability = reliability
        self.priority = priority
    }
}

/// A channel of a ``ChannelSet``, given out once and never again by the same set.
public struct ChannelID: Hashable, Sendable {
    public let number: UInt32

    public init(number: UInt32) { self.number = number }
}

/// Which streams we number our channels by. RFC 8832 section 6: the DTLS client uses even stream
/// identifiers, the DTLS server odd ones.
public enum StreamParity: UInt16, Sendable {
    /// The DTLS client's.
    case even = 0
    /// The DTLS server's.
    case odd = 1

    func holds(_ stream: UInt16) -> Bool { stream & 1 == rawValue }
}

public enum MessageKind: Hashable, Sendable {
    /// UTF-8; see ``Wire/RawSpan/isValidUTF8``. What the peer sent is handed on as it came.
    case text
    case binary
}
