public import DataChannel
import SCTP
import SDP
public import Wire

/// The association and the channels on it. The association is made when DTLS is finished, because only then are its
/// packet size and the path's round trip known; what the host does before waits in the channel set.
final class DataPlane {
    let channels: ChannelSet
    private(set) var association: Association?
    private let configuration: Peer.Configuration
    private var random: any RandomNumberGenerator
    private var remoteLimit = 65536
    private(set) var messagesSent: UInt64 = 0
    private(set) var messagesReceived: UInt64 = 0

    init(configuration: Peer.Configuration, random: any RandomNumberGenerator) {
        self.configuration = configuration
        self.random = random
        var settings = ChannelSet.Configuration()
        settings.maximumChannels = configuration.maximumChannels
        channels = ChannelSet(configuration: settings)
    }

    /// Room for the largest message that can be configured, 16 MiB, and for what its queue needs.
    private static let sendBuffer = (16 << 20) + (64 << 10)

    /// RFC 8841 section 6.1: zero takes any size.
    func describe(remote: DataTransport) { remoteLimit = Int(clamping: remote.maxMessageSize) }

    /// The INITs that both ends know beforehand, if they do.
    var derivedInits: Peer.DerivedInits?

    func start(isClient: Bool, packetSize: Int, roundTrip: Duration, now: Instant) {
        var settings = Association.Configuration()
        settings.maximumPacketSize = packetSize
        settings.receiveBuffer = configuration.receiveBuffer
        settings.maximumMessageSize = configuration.maximumMessageSize
        settings.sendBuffer = DataPlane.sendBuffer
        // Silence is for ICE to judge (RFC 7675), which knows when the path is back: the association outlasts it.
        settings.maximumRetransmissions = 30
        settings.maximumInitRetransmissions = 30
        settings.rtoInitial = (roundTrip * 3).clamped(.milliseconds(50), .seconds(1))
        let association = Association(configuration: settings, random: random)
        self.association = association
        channels.attach(
            association, parity: isClient ? .even : .odd, peerMaximumMessageSize: remoteLimit, now: now)
        if let derivedInits, association.establish(local: derivedInits.local, remote: derivedInits.remote, now: now) {
            return
        }
        association.connect(now: now)
    }

    /// Why there is no association any more.
    var failure: Peer.CloseReason? {
        guard let association, association.isClosed else { return nil }
        return endReason
    }

    private var endReason: Peer.CloseReason {
        switch association?.abortReason {
        case .peer, nil: .remote
        case .local: .local
        case .handshakeTimeout: .associationFailed("the other side did not answer the SCTP handshake")
        case .timeout: .associationFailed("the other side did not acknowledge any more")
        case .protocolError(let cause): .associationFailed("the other side broke SCTP (cause \(cause))")
        }
    }

    func send(_ id: ChannelID, isText: Bool, _ payload: Payload, now: Instant) throws(ChannelError) {
        try channels.send(id, isText ? .text : .binary, payload, now: now)
        messagesSent &+= 1
    }

    func pollEvent(now: Instant) -> ChannelEvent? {
        while let event = channels.pollEvent(now: now) {
            switch event {
            case .opened(let id, let parameters, let stream, let isRemote):
                return .opened(ChannelOpened(id: id, parameters: parameters, stream: stream, isRemote: isRemote))
            case .message(let id, let kind, let payload):
                messagesReceived &+= 1
                return .message(id, isText: kind == .text, payload)
            case .closed(let id, let reason): return .closed(id, reason)
            case .sendBufferAvailable, .bufferedAmountLow, .association: continue
            }
        }
        return nil
    }

    var statistics: Peer.Statistics {
        var figures = Peer.Statistics()
        figures.messagesSent = messagesSent
        figures.messagesReceived = messagesReceived
        if let reading = association?.statistics {
            figures.retransmissions = UInt64(clamping: reading.retransmittedChunks)
            figures.congestionWindow = reading.congestionWindow
        }
        return figures
    }
}

/// A channel that is open.
public struct ChannelOpened: Sendable {
    public var id: ChannelID
    public var parameters: ChannelParameters
    public var stream: UInt16
    public var isRemote: Bool
}

/// What happened to channels, in order.
public enum ChannelEvent {
    case opened(ChannelOpened)
    case message(ChannelID, isText: Bool, Payload)
    /// The last event of a channel.
    case closed(ChannelID, ChannelCloseReason)
}

// MARK: - What hosts do with channels

extension Peer {
    /// Opens a channel; messages may be sent at once. `negotiatedStream`: both sides open it with this id (RFC 8831
    /// section 6.4).
    public func openChannel(
        _ parameters: ChannelParameters, negotiatedStream: UInt16? = nil, now: Instant
    ) throws(ChannelError) -> ChannelID {
        guard !isClosed else { throw .closed }
        return try data.channels.open(parameters, negotiatedStream: negotiatedStream, now: now)
    }

    /// Takes the payload without copying it; it must not be written to any more. ``ChannelError/bufferFull``: nothing
    /// was taken; worth trying again when something has arrived.
    public func send(_ id: ChannelID, isText: Bool, _ payload: Payload, now: Instant) throws(ChannelError) {
        guard !isClosed else { throw .closed }
        try data.send(id, isText: isText, payload, now: now)
    }

    public func bufferedAmount(_ id: ChannelID) -> Int { data.channels.bufferedAmount(id) }

    /// Closes a channel once its queued messages are delivered.
    public func closeChannel(_ id: ChannelID, now: Instant) throws(ChannelError) {
        try data.channels.close(id, now: now)
    }

    /// What happened to channels. Messages that are not taken stay inside, bounded by the receive buffer, and make the
    /// other side wait.
    public func pollChannelEvent(now: Instant) -> ChannelEvent? { data.pollEvent(now: now) }
}
