import SCTP
public import Wire

extension ChannelSet {
    /// The next thing that happened, or nil.
    public func pollEvent(now: Instant) -> Event? {
        while true {
            if let event = events.next() { return event }
            guard let event = association?.pollEvent() else { return nil }
            // The one that comes in great numbers does not pass through the queue.
            if case .message(let message) = event, let delivered = delivery(of: message) { return delivered }
            handle(event, now: now)
        }
    }

    private func handle(_ event: Association.Event, now: Instant) {
        switch event {
        case .connected(let features):
            events.append(.association(event))
            connected(features, now: now)
        case .message(let message):
            receive(message, now: now)
        case .streamsReset(let streams):
            for stream in streams.isEmpty ? allStreams : streams { incomingReset(stream, now: now) }
        case .resetDone(let streams):
            for stream in streams { outgoingReset(stream, now: now) }
        case .resetDenied(let streams, _):
            for stream in streams { outgoingResetDenied(stream) }
        case .bufferedAmountLow(let stream):
            if let channel = byStream[stream], channel.lowThreshold != nil {
                events.append(.bufferedAmountLow(channel.id))
            }
        case .sendBufferAvailable:
            owesBufferAvailable = true
            flush(now: now)
        case .restarted(let features):
            finishAll()
            limitStreams(features)
            events.append(.association(event))
        case .aborted, .closed:
            isOver = true
            isConnected = false
            finishAll()
            events.append(.association(event))
        }
    }

    func connected(_ features: Association.Features, now: Instant) {
        guard !isConnected else { return }
        isConnected = true
        limitStreams(features)
        for channel in channels.values.sorted(by: { $0.id.number < $1.id.number }) {
            if let stream = channel.stream, Int(stream) >= streamLimit {
                finish(channel, .streamUnavailable)
            } else {
                announce(channel)
            }
        }
        flush(now: now)
    }

    private func limitStreams(_ features: Association.Features) {
        streamLimit = min(Int(features.outboundStreams), Int(features.inboundStreams), ChannelSet.maximumStreams)
    }

    // MARK: Messages

    /// The event of a message of a channel that is open; nil for everything else.
    private func delivery(of message: Association.Message) -> Event? {
        guard let identifier = ProtocolIdentifier(rawValue: message.protocolIdentifier), identifier != .control,
            let channel = byStream[message.stream], channel.state == .open
        else { return nil }
        channel.isConfirmed = true
        switch identifier {
        case .text, .partialText: return .message(channel.id, .text, message.payload)
        case .binary, .partialBinary: return .message(channel.id, .binary, message.payload)
        case .emptyText: return .message(channel.id, .text, Payload.allocate(capacity: 0))
        case .emptyBinary: return .message(channel.id, .binary, Payload.allocate(capacity: 0))
        case .control: return nil
        }
    }

    private func receive(_ message: Association.Message, now: Instant) {
        if let event = delivery(of: message) {
            events.append(event)
        } else if ProtocolIdentifier(rawValue: message.protocolIdentifier) == nil {
            counters.droppedMessages &+= 1
        } else if let progress = resetProgress(message.stream) {
            // The peer uses the stream anew: it has seen both resets, and the answer to ours is still on its way.
            if progress.contains(.incoming) { hold(message, now: now) } else { counters.droppedMessages &+= 1 }
        } else if message.protocolIdentifier == ProtocolIdentifier.control.rawValue {
            receiveControl(message, now: now)
        } else {
            hold(message, now: now)
        }
    }

    /// RFC 8832 section 6: user data on an unused stream is an error, and its channel has to be closed. It may
    /// also be a negotiated channel that our side opens a little later, so it is closed only when there is no
    /// more room to wait.
    private func hold(_ message: Association.Message, now: Instant) {
        if early.append(message, limit: configuration.maximumEarlyBytes) { return }
        counters.droppedMessages &+= 1
        if byStream[message.stream] == nil { refuse(message.stream, now: now) }
    }

    func deliverEarly(_ stream: UInt16, now: Instant) {
        guard !early.isEmpty else { return }
        for message in early.take(stream) { receive(message, now: now) }
    }

    private func receiveControl(_ message: Association.Message, now: Instant) {
        let parsed: Result<ControlMessage, ControlMessage.ParseError> = message.payload.withBytes { bytes in
            do throws(ControlMessage.ParseError) {
                return .success(try ControlMessage(parsing: bytes))
            } catch {
                return .failure(error)
            }
        }
        switch parsed {
        case .success(.open(let parameters)):
            receiveOpen(parameters, stream: message.stream, now: now)
        case .success(.acknowledge):
            guard let channel = byStream[message.stream], !channel.isRemote, !channel.isNegotiated else {
                counters.ignoredControlMessages &+= 1
                return
            }
            channel.isConfirmed = true
        case .failure(.unknownMessageType):
            counters.ignoredControlMessages &+= 1
        case .failure:
            refuseOpen(message.stream, now: now)
        }
    }

    /// RFC 8832 section 6: an OPEN is acknowledged if its stream is unused, has the parity of the peer's role, and all
    /// parameters are valid; otherwise the channel is closed, without an acknowledgement.
    private func receiveOpen(_ parameters: ChannelParameters, stream: UInt16, now: Instant) {
        guard isFree(stream), let parity, !parity.holds(stream), channels.count < configuration.maximumChannels else {
            refuseOpen(stream, now: now)
            return
        }
        let channel = add(parameters, isRemote: true, isNegotiated: false)
        channel.stream = stream
        channel.state = .open
        byStream[stream] = channel
        acknowledge(channel, now: now)
        announce(channel)
        deliverEarly(stream, now: now)
    }

    private func refuseOpen(_ stream: UInt16, now: Instant) {
        counters.refusedOpens &+= 1
        if let channel = byStream[stream] {
            beginClosing(channel, reset: [], .protocolViolation, now: now)
        } else {
            refuse(stream, now: now)
        }
    }

    private func refuse(_ stream: UInt16, now: Instant) {
        _ = early.take(stream)
        guard halfReset[stream] == nil, !deadStreams.contains(stream), Int(stream) < streamLimit else { return }
        halfReset[stream] = []
        association?.resetStreams([stream], now: now)
    }

    // MARK: Resets

    private var allStreams: [UInt16] { (Array(byStream.keys) + Array(halfReset.keys)).sorted() }

    /// RFC 8831 section 6.7: when the peer has reset its direction of a channel, we reset ours.
    private func incomingReset(_ stream: UInt16, now: Instant) {
        if let channel = byStream[stream] {
            beginClosing(channel, reset: .incoming, .remote, now: now)
        } else {
            _ = early.take(stream)
            advanceReset(stream, .incoming, now: now)
        }
    }

    private func outgoingReset(_ stream: UInt16, now: Instant) {
        if let channel = byStream[stream], case .closing = channel.state {
            beginClosing(channel, reset: .outgoing, .local, now: now)
        } else {
            advanceReset(stream, .outgoing, now: now)
        }
    }

    /// How far the stream has got on its way to be used again; nil if it is not on it.
    private func resetProgress(_ stream: UInt16) -> ResetProgress? {
        if let channel = byStream[stream], case .closing(let progress, _) = channel.state { return progress }
        return halfReset[stream]
    }

    private func advanceReset(_ stream: UInt16, _ progress: ResetProgress, now: Instant) {
        guard let reached = halfReset[stream]?.union(progress) else { return }
        halfReset[stream] = reached == .both ? nil : reached
        if reached == .both { deliverEarly(stream, now: now) }
    }

    /// The peer cannot reset streams, or will not: the channel ends here, and nobody uses its stream again.
    private func outgoingResetDenied(_ stream: UInt16) {
        deadStreams.insert(stream)
        halfReset[stream] = nil
        if let channel = byStream[stream], case .closing(_, let reason) = channel.state { finish(channel, reason) }
    }
}
