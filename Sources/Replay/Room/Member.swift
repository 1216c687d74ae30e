import Wire

/// Names a room of one store until the room is gone. A stale one names nothing.
public struct RoomID: Hashable, Sendable {
    let raw: UInt64
    /// For handing through other languages.
    public var value: UInt64 { raw }
    public init(value: UInt64) { raw = value }
    init(slot: Int, incarnation: UInt32) { raw = UInt64(incarnation) << 32 | UInt64(UInt32(truncatingIfNeeded: slot)) }
    var slot: Int { Int(UInt32(truncatingIfNeeded: raw)) }
}

/// Names one membership of a user until the user leaves, is forgotten, or joins without proof of being the same.
public struct MemberID: Hashable, Sendable {
    let raw: UInt64
    public var value: UInt64 { raw }
    public init(value: UInt64) { raw = value }
    init(slot: Int, incarnation: UInt32) { raw = UInt64(incarnation) << 32 | UInt64(UInt32(truncatingIfNeeded: slot)) }
    var slot: Int { Int(UInt32(truncatingIfNeeded: raw)) }
}

/// A user's state in a room.
struct Member {
    var id: MemberID
    let room: Int
    let name: [UInt8]
    let nameHash: UInt64
    /// What messages carry as sender and recipient: new for each membership, so that nobody inherits a name's mail.
    var serial: UInt32
    var token: ResumeToken
    var generation: UInt64
    var isConnected = true
    var lastSeen: Int64
    var acknowledged: UInt64?
    var lastSequence: UInt64
    var quality = Quality.unknown
    var connections = 1

    /// A slot that nobody has: its id names nothing.
    static let vacant = Member(
        id: MemberID(value: 0), room: -1, name: [], nameHash: 0, serial: 0, token: ResumeToken(high: 0, low: 0),
        generation: 0, isConnected: false, lastSeen: 0, lastSequence: 0)

    // Members of the same room.
    var nextInRoom = Room.none
    var previousInRoom = Room.none
    // Users who dropped out, by time.
    var olderDropped = Room.none
    var newerDropped = Room.none
    var isDropped = false
}
