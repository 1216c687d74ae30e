public import Reload
public import TURN
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

    public var turnServers: [TURNServer] = []
    /// PEM; nil: the system's authorities.
    public var turnAuthorityPath: String?
    public var allowedInterfaces: [InterfacePattern] = []
    public var deniedInterfaces: [InterfacePattern] = []
    /// For peers that do not say otherwise.
    public var icePolicy = ICEPolicy.all
    public var opensTCP = false
    public var listensOnTCP = false
    /// 0: the UDP port's number, or any free one.
    public var tcpPort: UInt16 = 0
    public var resolvesMulticastNames = true
    public var timers = Timers()

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
    /// Nil: the engine's.
    public var icePolicy: ICEPolicy?
    public var negotiation = NegotiationStyle.manual

    public init() {}
}

/// What may be used as a path, `RECONNECT_ICE_POLICY_...`.
public enum ICEPolicy: UInt32, Sendable {
    case all = 1
    case relay = 2
}

/// Who exchanges descriptions, `RECONNECT_NEGOTIATION_...`.
public enum NegotiationStyle: UInt32, Sendable {
    case manual = 0
    case polite = 1
    case impolite = 2
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

/// When what is done; `reconnect_timers_t`, with the defaults filled in.
public struct Timers: Hashable, Sendable {
    public var checkInterval = Duration.milliseconds(20)
    public var consentInterval = Duration.seconds(5)
    /// Nil: half of the disconnect timeout.
    public var heartbeat: Duration?
    public var suspicion = Duration.milliseconds(150)
    /// Nil: those of the engine's configuration.
    public var disconnectTimeout: Duration?
    public var failedTimeout: Duration?
    public var connectTimeout: Duration?
    /// Nil: no second path is kept warm.
    public var standbyInterval: Duration? = .milliseconds(2500)
    public var restartTimeout = Duration.seconds(5)
    public var restartAttempts = 10
    public var restartPause: ClosedRange<Duration> = .milliseconds(250) ... .seconds(3)
    public var patience = Duration.milliseconds(39_500)

    public init() {}
}

/// A TURN server and how to be let in; `reconnect_turn_server_t`.
public struct TURNServer: Hashable, Sendable {
    public enum Credentials: Hashable, Sendable {
        /// Good until then, on the clock of ``Instant``; nil: for ever.
        case password(username: String, password: String, expires: Instant?)
        /// coturn's use-auth-secret: made here when they are needed.
        case secret(user: String, secret: String)
    }

    /// As the host gave it; names the server in events.
    public var url: String
    public var host: String
    public var port: UInt16
    public var transport: RelayTransport
    /// Nil: a server that asks for none.
    public var credentials: Credentials?

    /// RFC 7065: "turn:HOST[:PORT][?transport=udp|tcp]" or "turns:HOST[:PORT][?transport=tcp]".
    public init(url: String, credentials: Credentials?) throws(Failure) {
        var rest = Substring(url)
        let isSecure = rest.hasPrefix("turns:")
        guard isSecure || rest.hasPrefix("turn:") else { throw TURNServer.malformed(url) }
        rest = rest.dropFirst(isSecure ? 6 : 5)
        var query: Substring?
        if let mark = rest.firstIndex(of: "?") {
            query = rest[rest.index(after: mark)...]
            rest = rest[..<mark]
        }
        switch (query, isSecure) {
        case (nil, true), ("transport=tcp", true): transport = .tls
        case (nil, false), ("transport=udp", false): transport = .udp
        case ("transport=tcp", false): transport = .tcp
        default: throw TURNServer.malformed(url)
        }
        guard let server = ServerAddress(rest, defaultPort: isSecure ? 5349 : 3478) else {
            throw TURNServer.malformed(url)
        }
        self.url = url
        host = server.host
        port = server.port
        self.credentials = credentials
    }

    private static func malformed(_ url: String) -> Failure {
        Failure(
            .invalidArgument,
            "\"\(url.prefix(64))\" is not a TURN server as turn:HOST:PORT?transport=udp or turns:HOST:PORT")
    }
}

/// Interfaces by name, by the beginning of their names, or addresses by network.
public enum InterfacePattern: Hashable, Sendable {
    case name(String)
    case prefix(String)
    case network(IPAddress, bits: UInt8)
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
        guard let server = ServerAddress(rest, defaultPort: 3478) else {
            throw Failure(.invalidArgument, "\"\(text.prefix(64))\" is not a STUN server as stun:HOST:PORT")
        }
        return server
    }

    /// "HOST", "HOST:PORT", "[IPv6]:PORT".
    init?(_ text: Substring, defaultPort: UInt16) {
        guard let (host, port) = splitPort(text), !host.isEmpty, host.utf8.count <= 255,
            host.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != 0x2F && $0 != 0x3F }),
            !host.utf8.contains(0x3A) || IPAddress(host) != nil
        else { return nil }
        self.init(host: host, port: port ?? defaultPort)
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
