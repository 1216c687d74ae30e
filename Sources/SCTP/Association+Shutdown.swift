public import Wire

extension Association {
    /// Ends the association after everything queued has been delivered (RFC 9260 section 9.2).
    public func shutdown(now: Instant) {
        switch state {
        case .idle:
            close(.closed)
        case .cookieWait, .cookieEchoed:
            shutdownRequested = true
        case .established:
            shutdownRequested = true
            state = .shutdownPending
            progressShutdown(now)
        default:
            break
        }
    }

    /// Ends the association at once; an ABORT goes out with the next `pollTransmit`.
    public func abort(now: Instant) {
        if peerTag != 0, state != .closed {
            reply(tag: peerTag, chunk: ChunkType.abort) { $0.parameter(ErrorCause.userAbort) }
        }
        close(.aborted(.local))
    }

    /// The peer broke the protocol.
    func abort(_ cause: UInt16, _ body: (inout PacketBuilder) -> Void = { _ in }) {
        guard state != .closed else { return }
        if peerTag != 0 {
            // Room for it, whatever else waits to be answered.
            if replies.count >= 4 { replies.removeLast() }
            reply(tag: peerTag, chunk: ChunkType.abort) { $0.parameter(cause, body) }
        }
        close(.aborted(.protocolError(cause: cause)))
    }

    /// T5: the peer never finished the shutdown.
    func shutdownGuardExpired() {
        reply(tag: peerTag, chunk: ChunkType.abort)
        close(.aborted(.timeout))
    }

    /// Goes on with a shutdown once there is nothing left to be acknowledged.
    func progressShutdown(_ now: Instant) {
        guard state == .shutdownPending || state == .shutdownReceived, outstanding.isEmpty, queue.isEmpty else {
            return
        }
        if state == .shutdownPending {
            state = .shutdownSent
            control.insert(.shutdown)
            // "T5-shutdown-guard: 5 times RTO.Max" (section 9.2).
            timers[.shutdownGuard] = now + timeout.maximum * 5
        } else {
            state = .shutdownAckSent
            control.insert(.shutdownAck)
        }
        timers[.heartbeat] = nil
        timers[.reconfiguration] = nil
        timers[.shutdown] = now + timeout.value
    }

    func shutdownTimedOut(_ now: Instant) {
        guard state == .shutdownSent || state == .shutdownAckSent else { return }
        errorCount += 1
        guard errorCount <= configuration.maximumRetransmissions else { return close(.aborted(.timeout)) }
        timeout.backOff()
        control.insert(state == .shutdownSent ? .shutdown : .shutdownAck)
        timers[.shutdown] = now + timeout.value
    }

    func handleShutdown(_ body: RawSpan, _ now: Instant) {
        guard let value: UInt32 = body.load(bigEndianAt: 0) else {
            counters.droppedMalformed &+= 1
            return
        }
        switch state {
        case .established, .shutdownPending, .shutdownReceived:
            receiveShutdown(TSN(value), now)
        case .shutdownSent:
            // Both ends shut down: "it MUST respond with a SHUTDOWN ACK".
            state = .shutdownAckSent
            timers[.shutdown] = now + timeout.value
            control.remove(.shutdown)
            control.insert(.shutdownAck)
        case .shutdownAckSent:
            control.insert(.shutdownAck)
        case .idle, .cookieWait, .cookieEchoed, .closed:
            counters.droppedUnexpected &+= 1
        }
    }

    private func receiveShutdown(_ cumulative: TSN, _ now: Instant) {
        state = .shutdownReceived
        acknowledgeShutdown(cumulative, now)
        progressShutdown(now)
    }

    /// The SHUTDOWN's cumulative TSN works like a SACK's without gap blocks.
    private func acknowledgeShutdown(_ cumulative: TSN, _ now: Instant) {
        let distance = Int(cumulative.distance(from: outstanding.cumulative))
        guard distance > 0, distance <= outstanding.count else { return }
        for _ in 0..<distance {
            let (chunk, _) = outstanding.removeFirst()
            queue.acknowledgedChunk(of: Int(chunk.message))
        }
        errorCount = 0
        timers[.retransmission] = outstanding.isEmpty ? nil : now + timeout.value
    }

    func handleShutdownAck() {
        switch state {
        case .shutdownSent, .shutdownAckSent:
            let tag = peerTag
            close(.closed)
            reply(tag: tag, chunk: ChunkType.shutdownComplete)
        default:
            counters.droppedUnexpected &+= 1
        }
    }

    func handleShutdownComplete() {
        // "If in any other state, the chunk is discarded."
        guard state == .shutdownAckSent else {
            counters.droppedUnexpected &+= 1
            return
        }
        close(.closed)
    }

    // MARK: ERROR

    func handleError(_ body: RawSpan, _ now: Instant) {
        var causes = ParameterReader(body)
        while let (code, range, _) = causes.next() {
            if code == ErrorCause.staleCookie {
                handleStaleCookie(body.extracting(range).load(bigEndianAt: 0) ?? 0, now)
            }
        }
    }
}
