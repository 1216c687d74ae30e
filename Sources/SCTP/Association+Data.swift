import Wire

/// What the DATA chunks of one packet mean for its acknowledgement.
struct Arrivals {
    var hadGap: Bool
    var hasData = false
    var atOnce = false
}

extension Association {
    // MARK: DATA

    func handleData(_ flags: UInt8, _ body: RawSpan, _ arrivals: inout Arrivals, _ now: Instant) {
        guard let tsn: UInt32 = body.load(bigEndianAt: 0), let ids: UInt32 = body.load(bigEndianAt: 4),
            let protocolIdentifier: UInt32 = body.load(bigEndianAt: 8),
            let data = body.slice(at: 12, count: body.byteCount &- 12)
        else {
            counters.droppedMalformed &+= 1
            return
        }
        switch state {
        case .established, .shutdownPending, .shutdownSent: break
        case .cookieEchoed where confirmEstablished(by: TSN(tsn), now): break
        default:
            // SHUTDOWN-RECEIVED and SHUTDOWN-ACK-SENT: the peer has promised to send no more data.
            counters.droppedUnexpected &+= 1
            return
        }
        guard data.byteCount > 0 else {
            // "If an endpoint receives a DATA chunk with no user data, it SHOULD send an ABORT with the
            // cause No User Data" (section 6.2).
            return abort(ErrorCause.noUserData) { $0.write(tsn) }
        }
        let header = DataHeader(
            tsn: TSN(tsn), stream: UInt16(truncatingIfNeeded: ids >> 16), sequence: UInt16(truncatingIfNeeded: ids),
            protocolIdentifier: protocolIdentifier, flags: flags)
        arrivals.hasData = true
        if flags & DataFlag.immediate != 0 { arrivals.atOnce = true }

        let arrival = received.classify(header.tsn)
        switch arrival {
        case .duplicate:
            counters.duplicateChunks &+= 1
            received.noteDuplicate(header.tsn)
            arrivals.atOnce = true
            return
        case .tooFar:
            counters.droppedWindow &+= 1
            arrivals.atOnce = true
            return
        case .next, .ahead:
            guard hasRoom(for: data.byteCount, arrival) else {
                counters.droppedWindow &+= 1
                arrivals.atOnce = true
                return
            }
        }
        counters.payloadBytesReceived &+= UInt64(truncatingIfNeeded: data.byteCount)
        guard header.stream < features.inboundStreams else { return refuseStream(header, arrival, now) }
        do throws(Reassembly.Violation) {
            if arrival == .next {
                let before = received.cumulative
                let moved = received.insertNext()
                try reassembly.receiveNext(header, data, &events)
                if moved > 1 { try reassembly.advanced(from: before.next, by: moved &- 1, &events) }
                if reset.deferred != nil { retryDeferredReset(now) }
            } else {
                let distance = Int(header.tsn.distance(from: received.cumulative))
                received.insertAhead(header.tsn)
                try reassembly.receiveAhead(header, data, distance: distance, &events)
            }
        } catch {
            abort(error == .tooLarge ? ErrorCause.outOfResource : ErrorCause.protocolViolation)
        }
    }

    /// The window that was advertised shrinks by the overhead of every message too, so a peer with
    /// small messages may send twice the limit in good faith. The chunk that closes the gap is taken
    /// beyond that, since what waits behind it could never be delivered otherwise; such chunks end
    /// with the message they belong to.
    @inline(__always)
    private func hasRoom(for count: Int, _ arrival: ReceivedTSNs.Arrival) -> Bool {
        let used = events.heldBytes &+ reassembly.heldBytes &+ count &+ Reassembly.overhead
        if used <= receiveLimit { return true }
        // A host that does not read: nothing more than was advertised.
        if events.heldBytes > receiveLimit &* 2 { return false }
        if used <= receiveLimit &* 2 { return true }
        return arrival == .next && reassembly.heldBytes > events.heldBytes
            && used <= receiveLimit &* 2 &+ configuration.maximumMessageSize
    }

    /// "It SHOULD acknowledge the reception of the DATA chunk following the normal procedure and
    /// immediately send an ERROR chunk with cause set to Invalid Stream Identifier" (section 6.5).
    private func refuseStream(_ header: DataHeader, _ arrival: ReceivedTSNs.Arrival, _ now: Instant) {
        counters.droppedUnexpected &+= 1
        report(ErrorCause.invalidStream) { cause in
            cause.write(header.stream)
            cause.write(0 as UInt16)
        }
        guard arrival == .next else { return received.insertAhead(header.tsn) }
        let before = received.cumulative
        let moved = received.insertNext()
        guard moved > 1 else { return }
        do throws(Reassembly.Violation) {
            try reassembly.advanced(from: before.next, by: moved &- 1, &events)
        } catch {
            abort(ErrorCause.protocolViolation)
        }
    }

    // MARK: When to acknowledge

    @inline(__always)
    func scheduleAcknowledgement(_ arrivals: Arrivals, _ now: Instant) {
        guard arrivals.hasData else { return }
        if state == .shutdownSent {
            // Section 9.2: answered with a SHUTDOWN at once, and T2 starts anew.
            acknowledgement = .immediate
            control.insert(.shutdown)
            timers[.shutdown] = now + timeout.value
            return
        }
        packetsToAcknowledge &+= 1
        // Section 6.2: at least every second packet; at once if there is a gap, if one was closed, or
        // if the peer asks for it.
        if packetsToAcknowledge >= 2 || arrivals.atOnce || arrivals.hadGap || received.hasGap {
            acknowledgement = .immediate
        } else if acknowledgement == .none {
            acknowledgement = .delayed
            timers[.delayedAcknowledgement] = now + configuration.delayedAcknowledgement
        }
    }

    /// a_rwnd. Less than a packet is as good as nothing (silly window avoidance).
    var receiveWindow: Int {
        let free = receiveLimit &- events.heldBytes &- reassembly.heldBytes
        return free < maximumPacketSize ? 0 : free
    }

    /// The host took something: tells the peer when a window opens that was as good as closed.
    func updateWindow() {
        let enough = min(receiveLimit / 4, 65_536)
        guard advertisedWindow < enough, acknowledgement != .immediate else { return }
        switch state {
        case .established, .shutdownPending, .shutdownSent: break
        default: return
        }
        let window = receiveWindow
        guard window >= enough, window > advertisedWindow else { return }
        acknowledgement = .immediate
        // Due at once, for a host that takes events without a packet or a time-out before.
        timers[.delayedAcknowledgement] = Instant(nanoseconds: .min)
    }

    // MARK: SACK

    /// Writes a SACK with as many gap blocks as fit before `end`, or into half of that if data follows.
    func writeSack(_ output: inout OutputRawSpan, end: Int, dataFollows: Bool) {
        let room = end &- output.byteCount &- 16
        guard room >= 0 else { return }
        let start = output.byteCount
        let window = receiveWindow
        advertisedWindow = window
        output.write(UInt32(ChunkType.sack) << 24)
        output.write(received.cumulative.value)
        output.write(UInt32(clamping: window))
        output.write(0 as UInt32)
        var left = dataFollows ? room / 8 : room / 4
        var blocks: UInt16 = 0
        var distance = 1
        while left > 0, received.hasGap, let block = received.gapBlock(from: distance) {
            output.write(UInt16(truncatingIfNeeded: block.start))
            output.write(UInt16(truncatingIfNeeded: block.end))
            blocks &+= 1
            left &-= 1
            distance = block.end &+ 1
        }
        var duplicates: UInt16 = 0
        for tsn in received.duplicates where left > 0 {
            output.write(tsn)
            duplicates &+= 1
            left &-= 1
        }
        received.clearDuplicates()
        output.overwrite(at: start &+ 2, with: UInt16(truncatingIfNeeded: output.byteCount &- start))
        output.overwrite(at: start &+ 12, with: blocks)
        output.overwrite(at: start &+ 14, with: duplicates)
        acknowledgement = .none
        packetsToAcknowledge = 0
        timers[.delayedAcknowledgement] = nil
    }

    // MARK: FORWARD TSN

    /// RFC 3758 section 3.6: the peer gave up everything up to a new cumulative TSN.
    func handleForwardTSN(_ body: RawSpan, _ arrivals: inout Arrivals, _ now: Instant) {
        switch state {
        case .established, .shutdownPending, .shutdownSent: break
        default:
            counters.droppedUnexpected &+= 1
            return
        }
        guard let value: UInt32 = body.load(bigEndianAt: 0) else {
            counters.droppedMalformed &+= 1
            return
        }
        // "If a FORWARD TSN is out of date, a SACK SHOULD be sent at once": the one before may be lost.
        arrivals.hasData = true
        arrivals.atOnce = true
        let target = TSN(value)
        guard target.follows(received.cumulative) else { return }
        let skipped = Int(target.distance(from: received.cumulative))
        reassembly.dropFragments(through: target, count: skipped)
        let moved = received.advance(over: skipped)
        var offset = 4
        while let stream: UInt16 = body.load(bigEndianAt: offset),
            let sequence: UInt16 = body.load(bigEndianAt: offset &+ 2)
        {
            if stream < features.inboundStreams {
                reassembly.skip(stream: stream, to: StreamSequence(sequence), &events)
            }
            offset &+= 4
        }
        if moved > skipped {
            do throws(Reassembly.Violation) {
                try reassembly.advanced(from: target, by: moved &- skipped, &events)
            } catch {
                return abort(error == .tooLarge ? ErrorCause.outOfResource : ErrorCause.protocolViolation)
            }
        }
        if reset.deferred != nil { retryDeferredReset(now) }
    }
}
