public import Replay
public import Wire

/// What a host may choose about its replay buffer. Zero and nil have been replaced by the defaults.
public struct Settings: Sendable {
    public enum Durability: UInt32, Sendable {
        case durable = 0
        case relaxed = 1
    }

    public var rooms = Replay.Configuration()
    /// nil: memory. "sqlite:PATH", "redis://...", "rediss://...", "redis+unix:PATH".
    public var store: String?
    public var prefix = "webrtc:reconnect:"
    public var storeTimeout = Duration.milliseconds(50)
    /// How long one operation may wait for a store that answers others.
    var longestWait: Duration { max(min(storeTimeout * 100, .seconds(5)), storeTimeout) }
    public var durability = Durability.durable
    public var breaker = CircuitBreaker.Configuration()
    /// nil: a random one.
    public var secret: [UInt8]?
    /// Operations handed in whose outcomes were not taken.
    public var maximumPending = 100_000
    /// Messages are kept compressed where that saves a tenth.
    public var compresses = false

    public static let maximumMessageSize = 16 << 20
    public static let maximumWindow = 1 << 16
    public static let maximumBatchBytes = 1 << 30

    public init() {}
}
