import Wire

extension Association {
    /// Chunks newly acknowledged by one SACK.
    private struct Progress {
        var bytes = 0
        var highest: TSN?
    }

    // MARK: SACK

    func handleSack(_ body: RawSpan, _ now: Instant) {
        guard let value: UInt32 = body.load(bigEndianAt: 0), let window: UInt32 = body.load(bigEndianAt: 4),
            let blocks: UInt16 = body.load(bigEndianAt: 8), let duplicates: UInt16 = body.load(bigEndianAt: 10),
            body.byteCount >= 12 &+ 4 &* (Int(blocks) &+ Int(duplicates))
        else {
            counters.droppedMalformed &+= 1
            return
        }
        switch state {
        case .established, .shutdownPending, .shutdownReceived, .shutdownSent: break
        default:
            counters.droppedUnexpected &+= 1
            return
        }
        // "If Cumulative TSN Ack is less than the Cumulative TSN Ack Point, then drop the SACK chunk":
        // it was overtaken (section 6.2.1, D i). One beyond all that was sent is made up.
        let cumulative = TSN(value)
        let before = outstanding.cumulative
        let distance = Int(cumulative.distance(from: before))
        guard distance <= outstanding.count else {
            counters.droppedUnexpected &+= 1
            return
        }
        let flightBefore = outstanding.bytesInFlight
        var progress = Progress()
        if distance > 0 { acknowledgeCumulatively(distance, &progress, now) }
        var highestReported: TSN?
        if blocks > 0 {
            highestReported = acknowledgeBlocks(Int(blocks), body, &progress, now)
        }
        undoReneged()

        // Section 8.1: an acknowledgement of data clears the error count. Section 6.1 A: so does any
        // answer while the peer's window is closed.
        if progress.bytes > 0 || distance > 0 || window == 0 { errorCount = 0 }
        if let exit = recoveryExit, exit.precedesOrEquals(cumulative) { recoveryExit = nil }
        let limited = windowLimitedUpTo.map { before.precedes($0) } ?? false
        if !limited { windowLimitedUpTo = nil }
        congestion.acknowledged(
            bytes: progress.bytes, cumulative: distance > 0, windowLimited: limited, recovering: recoveryExit != nil,
            remaining: outstanding.bytesInFlight)
        if let highestReported { reportMissing(progress.highest, highestReported, cumulativeMoved: distance > 0) }
        if distance > 0 || advancedAckPoint != cumulative { advanceAckPoint(now, force: false) }
        if outstanding.markedCount == 0 { retransmitsAtOnce = false }
        if peerIsClosed, window > 0 { windowReopened(now) }
        peerIsClosed = window == 0
        peerWindow = max(0, Int(window) &- outstanding.bytesInFlight)
        burstLimit = max(flightBefore, outstanding.bytesInFlight) &+ burstBytes

        // Section 6.3.2, R2 and R3.
        if outstanding.isEmpty {
            timers[.retransmission] = nil
            outstanding.trim()
        } else if distance > 0 || !timers.isSet(.retransmission) {
            timers[.retransmission] = now + timeout.value
        }
        if distance > 0 { released(now) }
    }

    /// Memory and streams may have become free.
    func released(_ now: Instant) {
        if bufferWasFull, queue.retained <= configuration.sendBuffer / 2 {
            bufferWasFull = false
            events.append(.sendBufferAvailable)
        }
        if queue.resetMayBeReady { startReset(now) }
        progressShutdown(now)
    }

    /// The peer takes data again. What was sent a round trip ago and is still not acknowledged was
    /// dropped at the closed window, and the intervals between the probes say nothing about the path.
    private func windowReopened(_ now: Instant) {
        timeout.restore()
        let roundTrip = timeout.smoothed ?? timeout.value
        var tsn = outstanding.first
        while let next = outstanding.find(.inFlight, from: tsn, before: outstanding.next) {
            tsn = next.next
            if now - outstanding[next].sentAt >= roundTrip { lose(next) }
        }
        if outstanding.markedCount > 0 { timers[.retransmission] = now + timeout.value }
    }

    private func acknowledgeCumulatively(_ count: Int, _ progress: inout Progress, _ now: Instant) {
        var last = OutstandingChunk()
        var lastIsNew = false
        for _ in 0..<count {
            let (chunk, newly) = outstanding.removeFirst()
            queue.acknowledgedChunk(of: Int(chunk.message))
            if newly { progress.bytes &+= Int(chunk.length) }
            last = chunk
            lastIsNew = newly
        }
        if lastIsNew { measure(last, outstanding.cumulative, now) }
    }

    /// Section 6.3.1: one measurement for each round trip, and never with a chunk sent twice (C5, Karn).
    private func measure(_ chunk: OutstandingChunk, _ tsn: TSN, _ now: Instant) {
        guard chunk.transmissions == 1, roundTripMark.precedesOrEquals(tsn) else { return }
        timeout.measured(now - chunk.sentAt)
        roundTripMark = outstanding.next
    }

    /// Answers the highest TSN the peer reports as received.
    private func acknowledgeBlocks(_ blocks: Int, _ body: RawSpan, _ progress: inout Progress, _ now: Instant) -> TSN? {
        let cumulative = outstanding.cumulative
        var highest: TSN?
        var reached = 0
        for block in 0..<blocks {
            guard let startOffset: UInt16 = body.load(bigEndianAt: 12 &+ 4 &* block),
                let endOffset: UInt16 = body.load(bigEndianAt: 14 &+ 4 &* block)
            else { break }
            let start = Int(startOffset)
            let end = Int(endOffset)
            // Blocks ascend, and do not reach beyond what was sent.
            guard start > reached, end >= start, end <= outstanding.count else { continue }
            let gap = cumulative.advanced(by: UInt32(truncatingIfNeeded: reached &+ 1))
            let first = cumulative.advanced(by: UInt32(truncatingIfNeeded: start))
            if outstanding.acknowledgedCount > 0 { renege(from: gap, before: first) }
            let (bytes, newest) = outstanding.acknowledge(from: first, count: end &- start &+ 1)
            progress.bytes &+= bytes
            if let newest { progress.highest = newest }
            highest = cumulative.advanced(by: UInt32(truncatingIfNeeded: end))
            reached = end
        }
        if let newest = progress.highest { measure(outstanding[newest], newest, now) }
        return highest
    }

    private func renege(from start: TSN, before end: TSN) {
        var tsn = start
        while let next = outstanding.find(.acknowledged, from: tsn, before: end) {
            outstanding.renege(next)
            tsn = next.next
        }
    }

    /// The TSN behind the cumulative one cannot have arrived, whatever an earlier gap block said: the
    /// peer dropped it (section 6.2.1, D iv).
    private func undoReneged() {
        while !outstanding.isEmpty, outstanding.acknowledgedCount > 0, outstanding.isAcknowledged(outstanding.first) {
            var tsn = outstanding.first
            while outstanding.contains(tsn), outstanding.isAcknowledged(tsn) {
                outstanding.renege(tsn)
                tsn = tsn.next
            }
        }
    }

    // MARK: Fast retransmit (section 7.2.4)

    private func reportMissing(_ newest: TSN?, _ highestReported: TSN, cumulativeMoved: Bool) {
        // HTNA: only TSNs below the highest newly acknowledged one count as missing. In fast recovery,
        // when the cumulative TSN moves, all that the SACK reports missing do.
        let all = recoveryExit != nil && cumulativeMoved
        guard let limit = all ? highestReported : newest else { return }
        var tsn = outstanding.first
        var lost = false
        while let missing = outstanding.find(.inFlight, from: tsn, before: limit) {
            tsn = missing.next
            guard outstanding[missing].reportableFrom.precedesOrEquals(limit) else { continue }
            outstanding[missing].missingReports &+= 1
            guard outstanding[missing].missingReports >= 3 else { continue }
            lost = true
            counters.fastRetransmits &+= 1
            lose(missing)
        }
        guard lost else { return }
        if recoveryExit == nil {
            congestion.lost()
            recoveryExit = outstanding.next.previous
        }
        // Step 3: one packet of them regardless of the congestion window.
        retransmitsAtOnce = outstanding.markedCount > 0
    }

    /// A chunk in flight is lost: sent again, or its message given up.
    private func lose(_ tsn: TSN) {
        let index = Int(outstanding[tsn].message)
        if features.partialReliability,
            UInt32(outstanding[tsn].transmissions) > queue[index].maximumRetransmits
        {
            abandon(index)
        } else {
            outstanding.mark(tsn)
        }
    }

    // MARK: T3-rtx (section 6.3.3)

    func retransmissionTimedOut(_ now: Instant) {
        guard state != .cookieEchoed, state != .cookieWait else { return }
        guard !outstanding.isEmpty else {
            // Section 6.1 A: the peer's window has been closed for an RTO.
            probesWindow = true
            return
        }
        counters.retransmissionTimeouts &+= 1
        errorCount += 1
        guard errorCount <= configuration.maximumRetransmissions else { return close(.aborted(.timeout)) }
        // A probe that a closed window swallowed is no sign of congestion.
        if !peerIsClosed { congestion.timedOut() }
        timeout.backOff()
        recoveryExit = nil
        retransmitsAtOnce = false
        // E3: everything in flight counts as lost.
        var tsn = outstanding.first
        while let next = outstanding.find(.inFlight, from: tsn, before: outstanding.next) {
            tsn = next.next
            let index = Int(outstanding[next].message)
            if features.partialReliability, queue[index].expiry <= now { abandon(index) } else { lose(next) }
        }
        burstLimit = burstBytes
        advanceAckPoint(now, force: true)
        timers[.retransmission] = now + timeout.value
    }
}
