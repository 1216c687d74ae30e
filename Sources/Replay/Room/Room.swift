import Wire

/// A room's numbers, what is left of its messages, and who is in it.
final class Room {
    static let none: Int32 = -1

    let id: RoomID
    let name: [UInt8]
    let nameHash: UInt64

    var epoch: UInt64
    /// The last number given out.
    var top: UInt64 = 0
    /// The epoch before this one and why it ended, for clients that come back with it.
    var endedEpoch: UInt64?
    var endReason = LossReason.epoch

    /// The highest number of a message that was dropped although somebody may have needed it. Whoever is at this
    /// number or after it has missed nothing that is not here; replaced messages do not count, since what replaced them
    /// came later and is here, or has itself moved the floor.
    private(set) var floor: UInt64 = 0
    private(set) var floorReason = LossReason.trimmed

    var ring = Ring()
    /// Offers, answers and priority messages that fell out of the window; all older than the ring's.
    var kept: [(sequence: UInt64, entry: Entry)] = []
    var keptBytes = 0
    /// Messages in the ring that are not superseded, and those of them that a newer one may replace.
    var live = 0
    var liveNegotiation = 0
    /// Bytes of all messages here.
    var bytes = 0
    /// Memory of all messages here (``Arena/cost(_:)``).
    var cost = 0

    var window: Int
    /// How much clients miss, at most; fades.
    var gap: UInt64 = 0

    var keys: [RememberedKey] = []
    var oldestKey = 0

    var firstMember = Room.none
    var memberCount = 0
    var nextSerial: UInt32 = 1

    // The list of rooms with messages, by last use.
    var olderRoom = Room.none
    var newerRoom = Room.none
    var isListed = false
    var lastUse: Int64 = 0

    init(id: RoomID, name: [UInt8], nameHash: UInt64, epoch: UInt64, window: Int) {
        self.id = id
        self.name = name
        self.nameHash = nameHash
        self.epoch = epoch
        self.window = window
    }

    var position: Position { Position(epoch: epoch, sequence: top) }

    var isEmpty: Bool { ring.count == 0 && kept.isEmpty }

    func raiseFloor(_ sequence: UInt64, _ reason: LossReason) {
        guard sequence > floor else { return }
        floor = sequence
        floorReason = reason
    }

    /// All numbers up to the last one are gone.
    func beginEpoch(_ epoch: UInt64, because reason: LossReason) {
        // An epoch in which nothing was said is not worth remembering in place of one in which something was: a store
        // may be told again because it could not say that it had done it.
        if top > 0 || endedEpoch == nil { endedEpoch = self.epoch }
        endReason = reason
        self.epoch = epoch
        top = 0
        floor = 0
        keys = []
        oldestKey = 0
    }
}

struct RememberedKey {
    let sender: UInt64
    let key: IdempotencyKey
    let sequence: UInt64
    let expires: Int64
}
