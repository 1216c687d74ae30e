/// A message at the moment when it was numbered, on its way to those who are connected.
public struct LiveMessage: Equatable, Sendable {
    public var room: RoomName
    public var position: Position
    /// nil: the server itself.
    public var from: UserName?
    /// nil: everybody.
    public var to: UserName?
    public var kind: MessageKind
    public var isText: Bool
    public var isPriority: Bool
    /// See ``MessageProperties/isCompressed``.
    public var isCompressed: Bool
    public var negotiation: UInt64
    public var payload: [UInt8]

    public init(
        room: RoomName, position: Position, from: UserName?, to: UserName?, kind: MessageKind, isText: Bool,
        isPriority: Bool, isCompressed: Bool = false, negotiation: UInt64, payload: [UInt8]
    ) {
        self.room = room
        self.position = position
        self.from = from
        self.to = to
        self.kind = kind
        self.isText = isText
        self.isPriority = isPriority
        self.isCompressed = isCompressed
        self.negotiation = negotiation
        self.payload = payload
    }

    public init(
        room: RoomName, position: Position, from: UserName?, to: UserName?, _ properties: MessageProperties,
        payload: [UInt8]
    ) {
        self.init(
            room: room, position: position, from: from, to: to, kind: properties.kind, isText: properties.isText,
            isPriority: properties.isPriority, isCompressed: properties.isCompressed,
            negotiation: properties.negotiation, payload: payload)
    }
}

/// Why messages of a room may be missing.
public enum LiveInterruption: UInt8, Hashable, Sendable, CaseIterable {
    /// The connection to the store was lost. ``LiveEvent/subscribed(_:at:)`` follows when it is back.
    case connectionLost = 1
    /// More came than were taken.
    case overflow = 2
    /// The numbers tell that some did not come.
    case missing = 3
    /// The room has a new epoch.
    case epoch = 4
    /// This server goes on without the store, or does no more.
    case degraded = 5
}

/// What a subscription says. For each room: `subscribed`, then all messages after that position, in order and none
/// missing, until `interrupted`; then `subscribed` again.
///
/// A host with a ``Seam`` per connection calls ``Seam/hold()`` when the room is interrupted. When it is subscribed, at
/// another position than the seam's: recover from the seam's, hand the batch over, ``Seam/open(at:)``.
public enum LiveEvent: Equatable, Sendable {
    /// The room's position at this moment; nil: there is no such room yet, and its first message will have the number 1.
    case subscribed(RoomName, at: Position?)
    case message(LiveMessage)
    /// Nothing comes until the room is subscribed again, and something may be missing.
    case interrupted(RoomName, LiveInterruption)

    public var room: RoomName {
        switch self {
        case .subscribed(let room, _), .interrupted(let room, _): room
        case .message(let message): message.room
        }
    }
}

/// For metrics.
public struct LiveCounters: Equatable, Sendable {
    /// Messages handed on.
    public internal(set) var messages = 0
    /// Messages that were not, because too many waited. Each such loss is told as ``LiveInterruption/overflow``.
    public internal(set) var dropped = 0
    public internal(set) var interruptions = 0

    public init() {}
}
