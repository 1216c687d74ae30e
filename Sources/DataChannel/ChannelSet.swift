public import SCTP
public import Wire

/// The data channels of one peer (RFC 8831, RFC 8832), on top of an association, without I/O.
///
/// Channels can be opened and messages sent before there is an association; they go out with its
/// first packets. From ``attach(_:parity:peerMaximumMessageSize:now:)`` on, the set takes the
/// association's events: call ``pollEvent(now:)`` instead of the association's, after every call to
/// either. Packets and timers stay the association's. Messages not polled stay inside and close the
/// receiver window.
public final class ChannelSet {
    let configuration: Configuration
    public internal(set) var counters = Counters()
    var association: Association?
    var parity: StreamParity?
    var isConnected = false
    var isOver = false
    /// Streams that both ends have; ids from here on cannot be used.
    var streamLimit = ChannelSet.maximumStreams
    private var peerMaximumMessageSize = Int.max

    var channels: [ChannelID: Channel] = [:]
    var byStream: [UInt16: Channel] = [:]
    /// Streams without a channel that wait for the reset of one direction or both: after a channel's end,
    /// or because of what came on them.
    var halfReset: [UInt16: ResetProgress] = [:]
    /// Streams that the peer did not reset for us; they cannot be used again.
    var deadStreams: Set<UInt16> = []
    var events = EventQueue()
    var early = EarlyMessages()
    private var backlog = Backlog()
    private var lastID: UInt32 = 0
    private var streamCursor: UInt16 = 0
    var owesBufferAvailable = false

    /// RFC 8831 section 6.2: 65535 streams, since identifier 65535 is not used.
    static let maximumStreams = 65535

    public init(configuration: Configuration = Configuration()) {
        self.configuration = configuration
    }

    /// Channels that are open, opening or closing.
    public var count: Int { channels.count }

    /// Gives the set its association, once. Call it before the association connects, so that what waits goes
    /// out with the first packets.
    /// - Parameters:
    ///   - peerMaximumMessageSize: from the peer's `a=max-message-size`; 0: no limit (RFC 8841 section 6).
    public func attach(_ association: Association, parity: StreamParity, peerMaximumMessageSize: Int, now: Instant) {
        guard self.association == nil, !isOver else { return }
        self.association = association
        self.parity = parity
        self.peerMaximumMessageSize = peerMaximumMessageSize <= 0 ? .max : peerMaximumMessageSize
        for channel in channels.values.sorted(by: { $0.id.number < $1.id.number }) {
            guard let stream = channel.stream ?? unusedStream() else {
                finish(channel, .streamUnavailable)
                continue
            }
            start(channel, on: stream, at: backlog.firstIndex(of: channel))
        }
        flush(now: now)
        if association.isEstablished { connected(association.features, now: now) }
    }

    // MARK: Opening

    /// Opens a channel. ``Event/opened(_:_:stream:isRemote:)`` says when it is open; messages may be sent at once.
    /// - Parameter negotiatedStream: both ends open the channel with the same identifier, 0 to 65534, and the peer
    ///   is told nothing (RFC 8831 section 6.4).
    public func open(
        _ parameters: ChannelParameters, negotiatedStream: UInt16? = nil, now: Instant
    ) throws(ChannelError) -> ChannelID {
        guard !isOver else { throw .closed }
        guard channels.count < configuration.maximumChannels else { throw .tooManyChannels }
        guard parameters.label.utf8.count <= 65535, parameters.subprotocol.utf8.count <= 65535 else {
            throw .parameterTooLong
        }
        var stream = negotiatedStream
        if let stream {
            guard isFree(stream) else { throw .streamUnavailable }
        } else if association != nil {
            stream = unusedStream()
            guard stream != nil else { throw .streamUnavailable }
        }
        let channel = add(parameters, isRemote: false, isNegotiated: negotiatedStream != nil)
        if let stream {
            if association == nil {
                channel.stream = stream
                byStream[stream] = channel
            } else {
                start(channel, on: stream, at: nil)
                flush(now: now)
                announce(channel)
                deliverEarly(stream, now: now)
            }
        }
        return channel.id
    }

    func add(_ parameters: ChannelParameters, isRemote: Bool, isNegotiated: Bool) -> Channel {
        lastID &+= 1
        let channel = Channel(
            id: ChannelID(number: lastID), parameters: parameters, isRemote: isRemote, isNegotiated: isNegotiated)
        channels[channel.id] = channel
        return channel
    }

    /// Gives the channel its stream; the OPEN goes before the channel's messages that wait.
    private func start(_ channel: Channel, on stream: UInt16, at index: Int?) {
        channel.stream = stream
        channel.state = .open
        byStream[stream] = channel
        if let threshold = channel.lowThreshold {
            association?.setBufferedAmountLowThreshold(stream: stream, bytes: threshold)
        }
        guard !channel.isNegotiated, let open = ControlMessage.open(channel.parameters).encoded() else { return }
        backlog.insert(.init(channel: channel, identifier: .control, payload: open), at: index)
    }

    func isFree(_ stream: UInt16) -> Bool {
        Int(stream) < streamLimit && byStream[stream] == nil && halfReset[stream] == nil
            && !deadStreams.contains(stream)
    }

    /// The next free stream of our parity, round about.
    private func unusedStream() -> UInt16? {
        guard let parity else { return nil }
        var candidate = Int(streamCursor & ~1) + Int(parity.rawValue)
        for _ in 0...(streamLimit / 2) {
            if candidate >= streamLimit { candidate = Int(parity.rawValue) }
            guard candidate < streamLimit else { return nil }
            let stream = UInt16(truncatingIfNeeded: candidate)
            if isFree(stream) {
                streamCursor = stream &+ 2
                return stream
            }
            candidate += 2
        }
        return nil
    }

    func announce(_ channel: Channel) {
        guard isConnected, channel.state == .open, !channel.isAnnounced, let stream = channel.stream else { return }
        channel.isAnnounced = true
        events.append(.opened(channel.id, channel.parameters, stream: stream, isRemote: channel.isRemote))
    }

    // MARK: Sending

    /// Queues a message without copying it; `payload` must not be written to any more. Text must be
    /// UTF-8, which is the caller's to check.
    public func send(_ id: ChannelID, _ kind: MessageKind, _ payload: Payload, now: Instant) throws(ChannelError) {
        guard let channel = channels[id] else { throw .unknownChannel }
        if case .closing = channel.state { throw .closed }
        guard payload.count <= peerMaximumMessageSize else { throw .tooLarge }
        let isEmpty = payload.count == 0
        let message = Backlog.Message(
            channel: channel, identifier: ProtocolIdentifier(kind, isEmpty: isEmpty),
            // RFC 8831 section 6.6: an empty message is sent as one zero byte.
            payload: isEmpty ? Payload.copying([0].span.bytes) : payload)
        guard association != nil else {
            guard backlog.bytes < configuration.maximumPendingBytes else {
                owesBufferAvailable = true
                throw .bufferFull
            }
            backlog.append(message)
            return
        }
        // Only control messages wait here; the channel's OPEN must go first.
        if !backlog.isEmpty { flush(now: now) }
        guard backlog.isEmpty else {
            owesBufferAvailable = true
            throw .bufferFull
        }
        try hand(message, now: now)
    }

    private func hand(_ message: Backlog.Message, now: Instant) throws(ChannelError) {
        guard let association, let stream = message.channel.stream else { throw .closed }
        let isControl = message.identifier == .control
        do throws(Association.SendError) {
            try association.send(
                stream: stream, protocolIdentifier: message.identifier.rawValue, payload: message.payload,
                // RFC 8832 section 6: control messages are sent ordered and reliably.
                ordered: isControl || message.channel.sendsOrdered,
                reliability: isControl ? .reliable : message.channel.parameters.reliability, now: now)
        } catch {
            switch error {
            case .bufferFull: throw .bufferFull
            case .tooLarge: throw .tooLarge
            case .invalidStream: throw .streamUnavailable
            case .notOpen, .streamResetting, .empty: throw .closed
            }
        }
    }

    /// Hands over what waited for the association, or for room in it.
    func flush(now: Instant) {
        guard association != nil else { return }
        while let message = backlog.first {
            do throws(ChannelError) {
                try hand(message, now: now)
            } catch {
                // Nothing else will help the message; the channel's end is told by an event of its own.
                if error == .bufferFull { return }
            }
            backlog.removeFirst()
        }
        if owesBufferAvailable {
            owesBufferAvailable = false
            events.append(.sendBufferAvailable)
        }
    }

    func acknowledge(_ channel: Channel, now: Instant) {
        guard let payload = ControlMessage.acknowledge.encoded() else { return }
        backlog.append(.init(channel: channel, identifier: .control, payload: payload))
        flush(now: now)
    }

    /// Bytes queued and not sent yet; zero for a channel that is gone.
    public func bufferedAmount(_ id: ChannelID) -> Int {
        guard let channel = channels[id] else { return 0 }
        let queued = channel.stream.flatMap { association?.bufferedAmount(stream: $0) } ?? 0
        return queued + channel.pendingBytes
    }

    /// ``Event/bufferedAmountLow(_:)`` comes when the buffered amount falls from above `bytes` to it or
    /// below; nil switches it off, as it is at first.
    public func setBufferedAmountLowThreshold(_ id: ChannelID, bytes: Int?) throws(ChannelError) {
        guard let channel = channels[id] else { throw .unknownChannel }
        channel.lowThreshold = bytes
        if let stream = channel.stream { association?.setBufferedAmountLowThreshold(stream: stream, bytes: bytes) }
    }

    // MARK: Closing

    /// Closes a channel once its queued messages are delivered. Its messages that still come are dropped.
    public func close(_ id: ChannelID, now: Instant) throws(ChannelError) {
        guard let channel = channels[id] else { throw .unknownChannel }
        beginClosing(channel, reset: [], .local, now: now)
    }

    func beginClosing(_ channel: Channel, reset progress: ResetProgress, _ reason: ChannelCloseReason, now: Instant) {
        if case .closing(let before, let earlier) = channel.state {
            channel.state = .closing(before.union(progress), earlier)
            finishIfReset(channel, now: now)
            return
        }
        let isUnknownToPeer = channel.pendingBytes > 0 && !channel.isRemote && !channel.isNegotiated
        guard let association, let stream = channel.stream, !isOver, !isUnknownToPeer else {
            finish(channel, reason)
            return
        }
        backlog.removeAll(of: channel)
        channel.state = .closing(progress, reason)
        association.resetStreams([stream], now: now)
    }

    /// The channel ends when the peer has everything and the end of it. Its stream stays taken until the peer has
    /// reset the other direction, which a peer that never opened a negotiated channel does not.
    private func finishIfReset(_ channel: Channel, now: Instant) {
        guard case .closing(let progress, let reason) = channel.state, progress.contains(.outgoing),
            let stream = channel.stream
        else { return }
        finish(channel, reason)
        if progress == .both {
            deliverEarly(stream, now: now)
        } else {
            halfReset[stream] = progress
        }
    }

    func finish(_ channel: Channel, _ reason: ChannelCloseReason) {
        channels[channel.id] = nil
        backlog.removeAll(of: channel)
        if let stream = channel.stream, byStream[stream] === channel {
            byStream[stream] = nil
            if channel.lowThreshold != nil { association?.setBufferedAmountLowThreshold(stream: stream, bytes: nil) }
        }
        events.append(.closed(channel.id, reason))
    }

    /// All channels end with the association, or with its restart.
    func finishAll() {
        for channel in channels.values.sorted(by: { $0.id.number < $1.id.number }) {
            finish(channel, .associationEnded)
        }
        halfReset.removeAll()
        deadStreams.removeAll()
        early.removeAll()
    }
}
