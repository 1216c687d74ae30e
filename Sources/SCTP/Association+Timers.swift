public import Wire

extension Association {
    /// To be called when ``nextTimeout`` has passed.
    public func handleTimeout(now: Instant) {
        while state != .closed, let timer = timers.expired(at: now) {
            switch timer {
            case .initiation: initiationTimedOut(now)
            case .retransmission: retransmissionTimedOut(now)
            case .delayedAcknowledgement: if acknowledgement != .none { acknowledgement = .immediate }
            case .shutdown: shutdownTimedOut(now)
            case .shutdownGuard: shutdownGuardExpired()
            case .heartbeat: heartbeatDue(now)
            case .reconfiguration: reconfigurationTimedOut(now)
            }
        }
    }

    /// Whoever watches the path (ICE, RFC 7675) knows that it carries packets again after a silence: what waits for a
    /// timer that has backed off goes out now, and the silence does not count against the peer.
    public func pathRecovered(now: Instant) {
        guard state != .closed else { return }
        errorCount = 0
        timeout.restore()
        for timer in [Timer.initiation, .retransmission, .reconfiguration, .shutdown] where timers.isSet(timer) {
            timers[timer] = now
        }
        // Acknowledgements of what came until now were lost as well.
        if case .established = state { acknowledgement = .immediate }
        handleTimeout(now: now)
    }

    /// The packets take another path from now on, whose round trip may be known. What was learned of the old one, its
    /// congestion window above all, says nothing of it: it begins as the path of a new association does (RFC 9260 sections
    /// 6.3.1 and 7.2.1). `isLost`: the old path was dead, and what was in flight there goes out again at once.
    public func pathChanged(roundTrip: Duration?, isLost: Bool, now: Instant) {
        if isLost { pathRecovered(now: now) }
        guard state != .closed else { return }
        congestion = Self.initialCongestion(configuration, maximumPacketSize)
        recoveryExit = nil
        guard let roundTrip else { return }
        timeout = Self.initialTimeout(configuration)
        timeout.measured(roundTrip)
    }

    // MARK: HEARTBEAT (section 8.3)

    func scheduleHeartbeat(_ now: Instant) {
        guard configuration.heartbeatInterval > .zero else { return }
        // "HB.interval plus RTO with jittering of +/- 50 % of RTO".
        let jitter = timeout.value.nanoseconds / 2
        let extra = Duration(nanoseconds: Int64.random(in: 0...max(jitter * 2, 1), using: &random))
        timers[.heartbeat] = now + configuration.heartbeatInterval + timeout.value / 2 + extra
    }

    private func heartbeatDue(_ now: Instant) {
        switch state {
        case .established, .shutdownPending, .shutdownReceived: break
        default: return
        }
        if heartbeatNonce != nil {
            // The one before was not answered.
            errorCount += 1
            guard errorCount <= configuration.maximumRetransmissions else { return close(.aborted(.timeout)) }
            timeout.backOff()
        }
        heartbeatNonce = nil
        // Only an idle path is probed: data in flight is a probe itself.
        if outstanding.isEmpty {
            heartbeatNonce = random.next()
            control.insert(.heartbeat)
        }
        scheduleHeartbeat(now)
    }

    func handleHeartbeat(_ body: RawSpan, _ now: Instant) {
        guard state != .cookieWait, state != .cookieEchoed, heartbeatAcks.count < 4,
            body.byteCount <= maximumPacketSize - commonHeaderSize - 4
        else {
            counters.droppedUnexpected &+= 1
            return
        }
        heartbeatAcks.append(body.copied())
        control.insert(.heartbeatAck)
    }

    /// What was sent comes back: parameter header, time of sending, nonce.
    func handleHeartbeatAck(_ body: RawSpan, _ now: Instant) {
        guard body.load(bigEndianAt: 0) == ParameterType.heartbeatInfo, let sentAt: Int64 = body.load(bigEndianAt: 4),
            let nonce: UInt64 = body.load(bigEndianAt: 12), nonce == heartbeatNonce
        else {
            counters.droppedUnexpected &+= 1
            return
        }
        heartbeatNonce = nil
        errorCount = 0
        timeout.measured(now - Instant(nanoseconds: sentAt))
    }

    func writeHeartbeat(_ output: inout OutputRawSpan, end: Int, now: Instant) {
        guard let heartbeatNonce, output.byteCount + 24 <= end else { return }
        output.write(UInt32(ChunkType.heartbeat) << 24 | 24)
        output.write(UInt32(ParameterType.heartbeatInfo) << 16 | 20)
        output.write(now.nanoseconds)
        output.write(heartbeatNonce)
    }
}
