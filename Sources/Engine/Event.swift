public import Wire

/// One event on its way to the host; the members are those of `reconnect_event_t`. Its payloads are complete and only
/// read from here on, which the compiler cannot see.
public struct Event: @unchecked Sendable {
    public enum Kind: UInt32, Sendable {
        case log = 1
        case answer = 2
        case offer = 3
        case result = 4
        case peerState = 5
        case session = 6
        case channelOpen = 7
        case message = 8
        case bufferedLow = 9
        case channelClosed = 10
        case statistics = 11
        case addresses = 12
        case signal = 13
        case attempt = 14
        case connector = 15
        case fastReload = 16
        case certificate = 17
        case store = 18
        case peerSignal = 19
        case network = 20
        case turn = 21
        case path = 22
        case restart = 23
    }

    public var kind: Kind
    public var status: Status = .ok
    public var tag: UInt64 = 0
    public var peer: UInt64 = 0
    public var channel: UInt64 = 0
    public var connector: UInt64 = 0
    public var data: Payload?
    public var extra: Payload?
    public var number: Int64 = 0
    public var duration: Duration = .zero
    public var detailKind: UInt32 = 0
    public var flags: UInt32 = 0
    /// Whose receive budget the event counts against until the host gives it back.
    private(set) var budget: PeerEntry?

    init(_ kind: Kind) { self.kind = kind }

    /// What an event costs beside its payload, so that empty messages are not free.
    static let overhead = 128
    var cost: Int { (data?.count ?? 0) + (extra?.count ?? 0) + Event.overhead }

    /// For events that the other side can cause in any number. The event is complete.
    mutating func charge(_ entry: PeerEntry) {
        budget = entry
        entry.undelivered.wrappingAdd(cost, ordering: .sequentiallyConsistent)
    }
}

extension Payload {
    static func text(_ text: String) -> Payload {
        var text = text
        return text.withUTF8 { Payload.copying(unsafe $0.span.bytes) }
    }
}

extension Event {
    mutating func fail(_ failure: Failure) {
        status = failure.status
        data = .text(failure.detail)
    }

    static let returned: UInt32 = 1
    static let remote: UInt32 = 2
    static let unordered: UInt32 = 4
    static let partial: UInt32 = 8
    static let ticket: UInt32 = 16
}

/// States of a peer as the host sees them.
public enum PeerState: Int64, Sendable {
    case connecting = 1
    case connected = 2
    case disconnected = 3
    case closed = 4
}
