public import Wire

/// Limits and times of a store. Values out of range are brought into it.
public struct Configuration: Sendable {
    /// Messages kept for each room.
    public var window = 50
    /// A room whose clients stay away for longer than the window lasts gets a larger one, up to this many messages.
    /// Not above ``window``: windows do not adapt.
    public var maximumWindow = 0
    /// How long a message is kept.
    public var messageLifetime = Duration.seconds(300)
    /// How long a room and a user who dropped out are remembered after their last sign of life. At least ten times
    /// ``messageLifetime`` lets a client that missed nothing find that out.
    public var stateLifetime = Duration.seconds(3_000)
    /// Bytes of messages kept for each room.
    public var maximumRoomBytes = 1 << 20
    /// Memory for all messages of all rooms, overhead included.
    public var maximumBytes = 256 << 20
    public var maximumMessageSize = 64 << 10
    /// Offers, answers and priority messages kept for each room beside the window.
    public var maximumKept = 16
    /// What one replay may carry.
    public var maximumBatch = 1_000
    public var maximumBatchBytes = 4 << 20
    public var maximumRooms = 1 << 20
    public var maximumMembers = 1 << 20
    public var maximumMembersPerRoom = 10_000
    /// Idempotency keys remembered for each room, and for how long.
    public var maximumKeys = 64
    public var keyLifetime = Duration.seconds(300)
    /// Events of live messages that wait to be taken, of all rooms. What comes beyond is told as an interruption.
    public var maximumLiveEvents = 1 << 16
    public var maximumLiveBytes = 64 << 20
    /// Replays admitted per second, and at once; 0: as many as come.
    public var recoveriesPerSecond = 0
    public var recoveryBurst = 1_000
    /// Whether a replay needs the token. A host that authenticates its users itself may do without.
    public var needsToken = true
    /// With a verdict "lost", replay the latest offers, answers and priority messages all the same.
    public var replaysKeptOnLoss = false
    /// Numbers as a server does while its store is away (``Position/isDegraded``).
    public var isDegraded = false
    public var quality = QualityThresholds()

    public init() {}

    /// Memory for a message of so many bytes, overhead included: what ``maximumBytes`` bounds.
    public static func cost(ofMessage count: Int) -> Int { Arena.cost(count) }

    /// With every value in its range.
    public var bounded: Configuration {
        var bounded = self
        bounded.window = min(max(window, 1), 1 << 16)
        bounded.maximumWindow = min(max(maximumWindow, bounded.window), 1 << 16)
        bounded.messageLifetime = max(messageLifetime, .milliseconds(1))
        bounded.stateLifetime = max(stateLifetime, bounded.messageLifetime)
        bounded.maximumMessageSize = min(max(maximumMessageSize, 1), 16 << 20)
        bounded.maximumRoomBytes = max(maximumRoomBytes, bounded.maximumMessageSize)
        bounded.maximumBytes = max(maximumBytes, Arena.cost(bounded.maximumMessageSize))
        bounded.maximumKept = min(max(maximumKept, 0), 1 << 10)
        bounded.maximumBatch = max(maximumBatch, 1)
        bounded.maximumBatchBytes = max(maximumBatchBytes, 1)
        bounded.maximumRooms = min(max(maximumRooms, 1), 1 << 24)
        bounded.maximumMembers = min(max(maximumMembers, 1), 1 << 24)
        bounded.maximumMembersPerRoom = max(maximumMembersPerRoom, 1)
        bounded.maximumKeys = min(max(maximumKeys, 0), 1 << 10)
        return bounded
    }

    /// No message is kept that is this many numbers old, however few of those after it still count.
    static func span(window: Int) -> Int { window &* 4 }
}
