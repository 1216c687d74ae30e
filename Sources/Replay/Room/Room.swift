import Wire

/// A room's numbers, what is left of its messages, and who is in it.
final class Room {
    static let none: Int32 = -1

    let id: RoomID
    let name: [UInt8]
    let nameHash: UInt64

    var standing: Standing

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

    /// Somebody wants its messages as they come.
    var isLive = false

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
        standing = Standing(epoch: epoch)
        self.window = window
    }

    var isEmpty: Bool { ring.count == 0 && kept.isEmpty }

    func begin(_ epoch: UInt64, because reason: LossReason) {
        standing.begin(epoch, because: reason)
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
