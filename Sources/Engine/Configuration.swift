public import Reload
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
    public var fastReload = FastReloadSetting.on

    /// Nil: in memory.
    public var sessionStore: String?
    public var sessionPrefix = "webrtc:reconnect:"
    public var storeTimeout = Duration.milliseconds(100)
    public var givesTickets = true
    public var ticketSecret: [UInt8]?
    public var oldTicketSecret: [UInt8]?
    /// How peers are made that come back with a ticket.
    public var returningPeer = PeerConfiguration()
    public var stunServers: [ServerAddress] = []
    public var publicAddresses: [PublicAddress] = []
    public var interfaces: InterfacePolicy = []
    /// Nil: for ever.
    public var certificateLifetime: Duration? = .seconds(30 * 86_400)
    /// A fast answer that has not connected by then counts as failed.
    public var fastTimeout = Duration.seconds(2)
    public var trip = Trip.Configuration()

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

/// The kill switch of fast reload, `RECONNECT_FAST_RELOAD_...`.
public enum FastReloadSetting: UInt32, Sendable {
    case off = 0
    case on = 1
    case partial = 2
}

/// Addresses offered beyond the usual ones, `RECONNECT_INTERFACES_...`.
public struct InterfacePolicy: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    public static let temporary = InterfacePolicy(rawValue: 1)
    public static let deprecated = InterfacePolicy(rawValue: 2)
    public static let bridges = InterfacePolicy(rawValue: 4)
    public static let loopback = InterfacePolicy(rawValue: 8)
}

/// A server by name or address.
public struct ServerAddress: Hashable, Sendable {
    public var host: String
    public var port: UInt16

    public init(host: String, port: UInt16) {
        self.host = host
        self.port = port
    }

    /// "stun:HOST:PORT", "HOST:PORT", "[IPv6]:PORT"; the port may be missing: 3478 (RFC 7064).
    public static func parse(_ text: String) throws(Failure) -> ServerAddress {
        var rest = Substring(text)
        if rest.hasPrefix("stun:") { rest = rest.dropFirst(5) }
        guard let (host, port) = splitPort(rest), !host.isEmpty, host.utf8.count <= 255,
            host.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != 0x2F && $0 != 0x3F }),
            !host.utf8.contains(0x3A) || IPAddress(host) != nil
        else {
            throw Failure(.invalidArgument, "\"\(text.prefix(64))\" is not a STUN server as stun:HOST:PORT")
        }
        return ServerAddress(host: host, port: port ?? 3478)
    }
}

/// An address that reaches the engine from outside, by configuration.
public struct PublicAddress: Hashable, Sendable {
    public var ip: IPAddress
    /// Nil: the engine's own port.
    public var port: UInt16?

    public init(ip: IPAddress, port: UInt16? = nil) {
        self.ip = ip
        self.port = port
    }

    public static func parse(_ text: String) throws(Failure) -> PublicAddress {
        guard let (host, port) = splitPort(Substring(text)), let ip = IPAddress(host), !ip.isUnspecified,
            !ip.isMulticast
        else {
            throw Failure(.noAddress, "\"\(text.prefix(64))\" is not an IP address, or one with a port")
        }
        return PublicAddress(ip: ip, port: port)
    }
}

/// "host", "host:port", "[v6]", "[v6]:port", or an IPv6 address alone; nil if it is none of them.
private func splitPort(_ text: Substring) -> (host: String, port: UInt16?)? {
    if text.hasPrefix("[") {
        guard let end = text.firstIndex(of: "]") else { return nil }
        let host = String(text[text.index(after: text.startIndex)..<end])
        let rest = text[text.index(after: end)...]
        if rest.isEmpty { return (host, nil) }
        guard rest.hasPrefix(":"), let port = UInt16(rest.dropFirst()), port > 0 else { return nil }
        return (host, port)
    }
    let colons = text.utf8.count { $0 == 0x3A }
    guard colons == 1, let colon = text.firstIndex(of: ":") else { return (String(text), nil) }
    guard let port = UInt16(text[text.index(after: colon)...]), port > 0 else { return nil }
    return (String(text[..<colon]), port)
}

/// How a connector is to be made; `reconnect_connector_config_t`.
public struct ConnectorConfiguration: Sendable {
    public enum Policy: UInt32, Sendable {
        case race = 0
        case fallback = 1
    }

    public var policy = Policy.race
    public var key = "default"
    public var cachePath: String?
    public var fastTimeout = Duration.seconds(2)
    public var normalTimeout = Duration.seconds(20)
    public var maximumCacheAge = Duration.seconds(300)
    public var usesTickets = true
    public var peer = PeerConfiguration()
    public var tag: UInt64 = 0

    public init() {}
}
