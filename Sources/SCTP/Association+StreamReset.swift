public import Wire

/// RFC 6525: outgoing resets of this end, and answers to the peer's.
struct StreamReset {
    struct Request {
        var sequence: UInt32
        var lastTSN: TSN
        var streams: [UInt16]
    }

    /// Streams to be reset when nothing of them is left to be acknowledged.
    var requested: [UInt16] = []
    /// The request that waits for its response. "At most one request is outstanding" (section 5.1.1).
    var underway: Request?
    var transmits = false
    /// Re-configuration Request Sequence Number of the next request; both start at the initial TSNs.
    var nextSequence: UInt32 = 0
    var expectedSequence: UInt32 = 0
    /// The answer to the peer's last request, for its repetition.
    var lastResult: UInt32 = ResetResult.nothingToDo
    var responses: [(sequence: UInt32, result: UInt32)] = []
    /// A request of the peer that waits for data sent before it.
    var deferred: Request?
    /// The timer's interval, doubled with every repetition.
    var interval = Duration.zero
}

extension Association {
    /// Resets outgoing streams when what is queued on them has been sent and acknowledged.
    /// `.resetDone` or `.resetDenied` follows; until then the streams take no messages.
    public func resetStreams(_ streams: [UInt16], now: Instant) {
        guard state != .closed else { return }
        let limit = state.rawValue >= State.established.rawValue ? features.outboundStreams : localInit.outboundStreams
        for stream in streams where stream < limit {
            let slot = queue.slot(of: stream)
            guard queue.streams[slot].reset == .none else { continue }
            queue.streams[slot].reset = .requested
            reset.requested.append(stream)
            if queue.streams[slot].messages == 0 { queue.resetMayBeReady = true }
        }
        startReset(now)
    }

    private var mayReconfigure: Bool {
        switch state {
        case .established, .shutdownPending, .shutdownReceived: true
        default: false
        }
    }

    /// Sends a request for the streams that are ready, if none is under way.
    func startReset(_ now: Instant) {
        guard mayReconfigure, !reset.requested.isEmpty, reset.underway == nil else { return }
        guard features.streamReset else {
            let streams = reset.requested
            reset.requested = []
            return finishReset(streams, .resetDenied(streams, .unsupported))
        }
        queue.resetMayBeReady = false
        let most = max((maximumPacketSize - commonHeaderSize - 4 - 16 - 24) / 2, 1)
        var ready: [UInt16] = []
        var waiting: [UInt16] = []
        for stream in reset.requested {
            // "All outstanding TSNs of the streams have been acknowledged" (section 5.1.2, A).
            let slot = queue.slot(of: stream)
            if ready.count < most, queue.streams[slot].messages == 0 {
                ready.append(stream)
                queue.streams[slot].reset = .underway
            } else {
                waiting.append(stream)
            }
        }
        guard !ready.isEmpty else { return }
        reset.requested = waiting
        reset.underway = StreamReset.Request(
            sequence: reset.nextSequence, lastTSN: outstanding.next.previous, streams: ready)
        reset.nextSequence &+= 1
        reset.interval = timeout.value
        transmitReset(now)
    }

    private func transmitReset(_ now: Instant) {
        reset.transmits = true
        control.insert(.reconfiguration)
        timers[.reconfiguration] = now + reset.interval
    }

    func reconfigurationTimedOut(_ now: Instant) {
        guard reset.underway != nil, mayReconfigure else { return }
        errorCount += 1
        guard errorCount <= configuration.maximumRetransmissions else { return close(.aborted(.timeout)) }
        reset.interval = min(reset.interval * 2, timeout.maximum)
        transmitReset(now)
    }

    private func finishReset(_ streams: [UInt16], _ event: Event) {
        for stream in streams {
            let slot = queue.slot(of: stream)
            queue.streams[slot].reset = .none
            if case .resetDone = event { queue.streams[slot].nextSequence = 0 }
        }
        events.append(event)
    }

    // MARK: RE-CONFIG from the peer

    func handleReconfiguration(_ body: RawSpan, _ now: Instant) {
        guard mayReconfigure || state == .shutdownSent, features.streamReset else {
            counters.droppedUnexpected &+= 1
            return
        }
        var parameters = ParameterReader(body)
        while let (type, range, _) = parameters.next() {
            let value = body.extracting(range)
            switch type {
            case ParameterType.outgoingReset: handleOutgoingReset(value)
            case ParameterType.reconfigResponse: handleResetResponse(value, now)
            case ParameterType.incomingReset, ParameterType.associationReset, ParameterType.addOutgoingStreams,
                ParameterType.addIncomingStreams:
                // Nothing that data channels need (RFC 8831 section 6.2): an endpoint may deny them.
                if let sequence: UInt32 = value.load(bigEndianAt: 0) { answer(sequence) { ResetResult.denied } }
            default:
                counters.droppedUnexpected &+= 1
            }
        }
        if parameters.isMalformed { counters.droppedMalformed &+= 1 }
    }

    /// Section 5.2.1: the expected number is answered anew, the one before as it was, others are wrong.
    private func answer(_ sequence: UInt32, _ perform: () -> UInt32) {
        let result: UInt32
        if sequence == reset.expectedSequence {
            result = perform()
            if result != ResetResult.inProgress {
                reset.expectedSequence &+= 1
                reset.lastResult = result
            }
        } else if sequence == reset.expectedSequence &- 1 {
            result = reset.lastResult
        } else {
            result = ResetResult.badSequenceNumber
        }
        guard reset.responses.count < 2 else { return }
        reset.responses.append((sequence, result))
        control.insert(.reconfiguration)
    }

    /// Outgoing SSN Reset Request (section 4.1): request number, response number, last TSN, streams.
    private func handleOutgoingReset(_ value: RawSpan) {
        guard let sequence: UInt32 = value.load(bigEndianAt: 0), let last: UInt32 = value.load(bigEndianAt: 8) else {
            counters.droppedMalformed &+= 1
            return
        }
        var streams: [UInt16] = []
        var offset = 12
        while let stream: UInt16 = value.load(bigEndianAt: offset) {
            streams.append(stream)
            offset += 2
        }
        let request = StreamReset.Request(sequence: sequence, lastTSN: TSN(last), streams: streams)
        answer(sequence) { perform(request) }
    }

    /// Section 5.2.2. Data sent before the request comes first: until it has, the answer is "in progress".
    private func perform(_ request: StreamReset.Request) -> UInt32 {
        guard request.streams.allSatisfy({ $0 < features.inboundStreams }) else { return ResetResult.denied }
        guard request.lastTSN.precedesOrEquals(received.cumulative), events.heldBytes <= receiveLimit else {
            reset.deferred = request
            return ResetResult.inProgress
        }
        reset.deferred = nil
        reassembly.reset(request.streams)
        events.append(streamsReset: request.streams)
        return ResetResult.performed
    }

    /// The cumulative TSN moved: a deferred request may be due, and then the peer need not ask again.
    func retryDeferredReset(_ now: Instant) {
        guard let request = reset.deferred, request.lastTSN.precedesOrEquals(received.cumulative) else { return }
        reset.deferred = nil
        answer(request.sequence) { perform(request) }
    }

    /// Re-configuration Response (section 4.4).
    private func handleResetResponse(_ value: RawSpan, _ now: Instant) {
        guard let sequence: UInt32 = value.load(bigEndianAt: 0), let result: UInt32 = value.load(bigEndianAt: 4) else {
            counters.droppedMalformed &+= 1
            return
        }
        guard let request = reset.underway, request.sequence == sequence else { return }
        errorCount = 0
        guard result != ResetResult.inProgress else {
            // "The request is to be sent again" after the timer; the peer is alive.
            reset.interval = timeout.value
            timers[.reconfiguration] = now + reset.interval
            return
        }
        reset.underway = nil
        reset.transmits = false
        timers[.reconfiguration] = nil
        switch result {
        case ResetResult.performed, ResetResult.nothingToDo:
            finishReset(request.streams, .resetDone(request.streams))
        default:
            finishReset(request.streams, .resetDenied(request.streams, .result(result)))
        }
        startReset(now)
    }

    // MARK: Writing

    func writeReconfiguration(_ output: inout OutputRawSpan, end: Int) {
        control.remove(.reconfiguration)
        var chunk = PacketBuilder()
        chunk.chunk(ChunkType.reconfig) { chunk in
            if reset.transmits, let request = reset.underway {
                chunk.parameter(ParameterType.outgoingReset) { parameter in
                    parameter.write(request.sequence)
                    parameter.write(reset.expectedSequence &- 1)
                    parameter.write(request.lastTSN.value)
                    for stream in request.streams { parameter.write(stream) }
                }
            }
            for response in reset.responses {
                chunk.parameter(ParameterType.reconfigResponse) { parameter in
                    parameter.write(response.sequence)
                    parameter.write(response.result)
                }
            }
        }
        guard output.byteCount + chunk.bytes.count <= end else {
            control.insert(.reconfiguration)
            return
        }
        reset.transmits = false
        reset.responses = []
        if chunk.bytes.count > 4 { output.write(chunk.bytes) }
    }
}
