import SCTP
import SDP
public import Wire

/// The peer's number for a channel; never used twice in one peer.
public struct ChannelID: Hashable, Comparable, RawRepresentable, Sendable {
    public let rawValue: UInt32

    public init(rawValue: UInt32) { self.rawValue = rawValue }

    public static func < (left: ChannelID, right: ChannelID) -> Bool { left.rawValue < right.rawValue }
}

/// How a channel is to be opened.
public struct ChannelSettings: Sendable {
    public enum Reliability: Hashable, Sendable {
        case reliable
        case retransmits(UInt32)
        case lifetime(Duration)
    }

    public var label: String
    public var subprotocol: String
    public var isOrdered = true
    public var reliability = Reliability.reliable
    /// The stream id both sides agreed on; nil: opened in-band (RFC 8832).
    public var negotiatedID: UInt16?

    public init(label: String, subprotocol: String) {
        self.label = label
        self.subprotocol = subprotocol
    }
}

/// A channel that is open.
public struct ChannelOpened: Sendable {
    public var id: ChannelID
    public var label: String
    public var subprotocol: String
    public var streamID: UInt16
    public var isRemote: Bool
    public var isOrdered: Bool
    public var reliability: ChannelSettings.Reliability
}

/// What happened to channels, in order.
public enum ChannelEvent {
    case opened(ChannelOpened)
    case message(ChannelID, isText: Bool, Payload)
    case closed(ChannelID, isRefused: Bool)
}

public enum ChannelError: Error, Hashable, Sendable {
    /// The channel, or the peer, is closed or closing.
    case closed
    /// There is no room; ``Peer/hasRoom`` tells when there is.
    case full
    /// Larger than the other side takes.
    case tooLarge
    /// As many channels as the configuration allows, or no stream id is left.
    case limit
    /// The negotiated id is in use.
    case idInUse
}

/// The association and the channels on it.
final class DataPlane {
    let association: Association
    private(set) var failure: Peer.CloseReason?
    init(configuration: Peer.Configuration, random: any RandomNumberGenerator) {
        association = Association(configuration: .init(), random: random)
    }
    func describe(remote: DataTransport, isClient: Bool) {}
    func start(isClient: Bool, packetSize: Int, roundTrip: Duration, now: Instant) {}
    func handle(packet: RawSpan, now: Instant) {}
    func handleTimeout(now: Instant) {}
    var nextTimeout: Instant? { nil }
    func pollTransmit(into output: inout OutputRawSpan, now: Instant) -> Bool { false }
    func abort(now: Instant) {}
    var roundTrip: Duration? { nil }
    var statistics: Peer.Statistics { Peer.Statistics() }
}

extension Peer {
    public func openChannel(_ settings: ChannelSettings, now: Instant) throws(ChannelError) -> ChannelID { throw .limit }
    public func send(_ id: ChannelID, isText: Bool, _ payload: Payload, now: Instant) throws(ChannelError) {}
    public var hasRoom: Bool { false }
    public func bufferedAmount(_ id: ChannelID) -> Int { 0 }
    public func closeChannel(_ id: ChannelID, now: Instant) {}
    public func pollChannelEvent() -> ChannelEvent? { nil }
}
