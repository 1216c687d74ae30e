public import Wire

/// Settings of an engine; the members are those of `reconnect_engine_config_t`, with the defaults filled in.
public struct Configuration: Sendable {
    public var isLite = false
    /// Where to bind; nil: everywhere.
    public var bindAddress: IPAddress?
    /// What to offer; nil: the machine's own addresses.
    public var addresses: [IPAddress]?
    public var certificatePath: String?
    public var port: UInt16 = 0
    /// nil: no log events.
    public var logLevel: LogLevel? = .info
    public var maximumPeers = 10_000
    public var maximumChannels = 1024
    public var maximumMessageSize = 262_144
    public var sendHighWater = 4 << 20
    public var receiveWindow = 2 << 20
    public var connectTimeout = Duration.seconds(30)
    /// Nil: 5 s, and 8 s with ICE Lite.
    public var disconnectTimeout: Duration?
    public var failedTimeout = Duration.seconds(30)
    public var sessionLifetime = Duration.seconds(300)
    public var maximumSessions = 100_000
    public var isFastReloadEnabled = true

    public init() {}

    /// The largest message size that can be configured.
    public static let messageSizeLimit = 16 << 20
}

/// Levels of log lines, the gravest first.
public enum LogLevel: UInt32, Sendable, Comparable {
    case error = 1
    case warning = 2
    case info = 3
    case debug = 4

    public static func < (left: LogLevel, right: LogLevel) -> Bool { left.rawValue < right.rawValue }
}

/// How a peer is to be made; `reconnect_peer_config_t`.
public struct PeerConfiguration: Sendable {
    public var prefersActive = false
    public var tag: UInt64 = 0
    public var channels: [ChannelConfiguration] = []

    public init() {}
}

/// How a channel is to be opened; `reconnect_channel_config_t`.
public struct ChannelConfiguration: Sendable {
    public enum Reliability: Sendable {
        case reliable
        case retransmits(UInt32)
        case lifetime(Duration)
    }

    public var label = ""
    public var subprotocol = ""
    public var isOrdered = true
    public var reliability = Reliability.reliable
    /// The stream id both sides agreed on; nil: opened in-band.
    public var negotiatedID: UInt16?
    public var lowWater: Int?
    public var tag: UInt64 = 0

    public init() {}
}
