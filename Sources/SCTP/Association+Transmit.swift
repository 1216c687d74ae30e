public import Wire

extension Association {
    /// Appends one packet to `output`; false if there is none to send now.
    public func pollTransmit(into output: inout OutputRawSpan, now: Instant) -> Bool {
        if writePacket(&output, now) { return true }
        // Giving up messages that expired can leave nothing to send but a FORWARD TSN or a SHUTDOWN.
        return !control.isEmpty && writePacket(&output, now)
    }

    private func writePacket(_ output: inout OutputRawSpan, _ now: Instant) -> Bool {
        if !replies.isEmpty {
            let packet = replies.removeFirst()
            guard output.write(packet) else { return false }
            countPacket(packet.count)
            return true
        }
        switch state {
        case .idle, .closed: return false
        case .cookieWait: return writeInitiation(&output)
        case .cookieEchoed where !control.contains(.cookieEcho):
            // "Until the COOKIE ACK is returned the sender MUST NOT send any other packets" (section 5.1 C).
            return false
        default: break
        }
        let sendsData = hasDataToSend(now)
        guard sendsData || !control.isEmpty || acknowledgement == .immediate else { return false }

        let base = output.byteCount
        let end = base &+ min(maximumPacketSize, output.freeCapacity)
        guard end &- base >= commonHeaderSize &+ dataHeaderSize &+ 4 else { return false }
        writeCommonHeader(&output, tag: peerTag)
        let needsChecksum = !features.zeroChecksumSend || control.contains(.cookieEcho)
        if !control.isEmpty { writeLeadingControl(&output, end: base &+ output.freeCapacity &+ commonHeaderSize) }
        // Section 6.2: a delayed acknowledgement goes along with data.
        if acknowledgement != .none { writeSack(&output, end: end, dataFollows: sendsData) }
        if !control.isEmpty { writeControl(&output, end: end, now: now) }
        if sendsData { writeData(&output, base: base, end: end, now: now) }
        guard output.byteCount > base &+ commonHeaderSize else {
            output.removeLast(commonHeaderSize)
            return false
        }
        if needsChecksum {
            let checksum = packetChecksum(output.bytes.extracting(base..<output.byteCount))
            output.overwrite(at: base &+ 8, with: checksum)
        }
        countPacket(output.byteCount &- base)
        return true
    }

    @inline(__always)
    private func countPacket(_ bytes: Int) {
        counters.packetsSent &+= 1
        counters.bytesSent &+= UInt64(truncatingIfNeeded: bytes)
    }

    @inline(__always)
    private func writeCommonHeader(_ output: inout OutputRawSpan, tag: UInt32) {
        output.write(UInt32(configuration.localPort) << 16 | UInt32(configuration.remotePort))
        output.write(UInt64(tag) << 32)
    }

    // MARK: Control chunks

    private func writeInitiation(_ output: inout OutputRawSpan) -> Bool {
        guard control.contains(.initiation) else { return false }
        control.remove(.initiation)
        var chunk = currentInit
        let bytes = initiationPacket(chunk)
        if chunk.zeroChecksum {
            offeredZeroChecksum = true
            // pion's SCTP up to 1.8 drops an INIT that carries the parameter. One without it right behind costs
            // a small packet once, where waiting for the time-out cost a round trip and more.
            chunk.zeroChecksum = false
            replies.append(initiationPacket(chunk))
        }
        guard output.write(bytes) else { return false }
        countPacket(bytes.count)
        return true
    }

    /// "The Verification Tag of a packet that carries an INIT chunk MUST be 0" (section 8.5.1 A).
    private func initiationPacket(_ chunk: InitChunk) -> [UInt8] {
        var packet = PacketBuilder(localPort: configuration.localPort, remotePort: configuration.remotePort, tag: 0)
        chunk.write(to: &packet, type: ChunkType.initiation)
        return packet.finished()
    }

    /// COOKIE ECHO and COOKIE ACK come before everything else.
    private func writeLeadingControl(_ output: inout OutputRawSpan, end: Int) {
        if control.contains(.cookieEcho) {
            control.remove(.cookieEcho)
            guard let cookie = handshake?.cookie, output.byteCount &+ 4 &+ padded(cookie.count) <= end else { return }
            output.write(UInt32(ChunkType.cookieEcho) << 24 | UInt32(truncatingIfNeeded: cookie.count &+ 4))
            output.write(cookie)
            output.writeZeros(padded(cookie.count) &- cookie.count)
        }
        if control.contains(.cookieAck) {
            control.remove(.cookieAck)
            output.write(UInt32(ChunkType.cookieAck) << 24 | 4)
        }
    }

    private func writeControl(_ output: inout OutputRawSpan, end: Int, now: Instant) {
        if control.contains(.error) {
            control.remove(.error)
            writeErrors(&output, end: end)
        }
        if control.contains(.heartbeatAck) { writeHeartbeatAck(&output, end: end) }
        if control.contains(.heartbeat) {
            control.remove(.heartbeat)
            writeHeartbeat(&output, end: end, now: now)
        }
        if control.contains(.reconfiguration) { writeReconfiguration(&output, end: end) }
        if control.contains(.forwardTSN) {
            control.remove(.forwardTSN)
            writeForwardTSN(&output, end: end, now: now)
        }
        if control.contains(.shutdown), output.byteCount &+ 8 <= end {
            control.remove(.shutdown)
            output.write(UInt32(ChunkType.shutdown) << 24 | 8)
            output.write(received.cumulative.value)
        }
        if control.contains(.shutdownAck), output.byteCount &+ 4 <= end {
            control.remove(.shutdownAck)
            output.write(UInt32(ChunkType.shutdownAck) << 24 | 4)
        }
    }

    private func writeErrors(_ output: inout OutputRawSpan, end: Int) {
        var chunk = PacketBuilder()
        for cause in errorCauses { chunk.chunk(ChunkType.error) { $0.write(cause) } }
        errorCauses = []
        if output.byteCount &+ chunk.bytes.count <= end { output.write(chunk.bytes) }
    }

    private func writeHeartbeatAck(_ output: inout OutputRawSpan, end: Int) {
        // One for each packet; one that does not fit any more is not worth a packet.
        guard !heartbeatAcks.isEmpty else { return }
        let info = heartbeatAcks.removeFirst()
        if heartbeatAcks.isEmpty { control.remove(.heartbeatAck) }
        guard output.byteCount &+ 4 &+ padded(info.count) <= end else { return }
        output.write(UInt32(ChunkType.heartbeatAck) << 24 | UInt32(truncatingIfNeeded: info.count &+ 4))
        output.write(info)
        output.writeZeros(padded(info.count) &- info.count)
    }

    // MARK: DATA

    @inline(__always)
    private var maySendData: Bool {
        switch state {
        case .established, .shutdownPending, .shutdownReceived, .cookieEchoed: true
        default: false
        }
    }

    /// True if a DATA chunk can go out now by the congestion window and the peer's.
    private func hasDataToSend(_ now: Instant) -> Bool {
        guard maySendData, outstanding.markedCount > 0 || !queue.isEmpty else { return false }
        let flight = outstanding.bytesInFlight
        if outstanding.markedCount > 0 {
            if retransmitsAtOnce || flight == 0 || flight < congestion.window && !peerIsClosed { return true }
            windowLimitedUpTo = outstanding.next.previous
            return false
        }
        guard flight > 0 else {
            decayWindow(now)
            return peerWindow > 0 || mayProbe(now)
        }
        if flight >= congestion.window {
            windowLimitedUpTo = outstanding.next.previous
            return false
        }
        return flight < burstLimit && peerWindow > 0 && !outstanding.isFull
    }

    /// Section 6.1 A: "the sender SHOULD send the first zero window probe after 1 RTO".
    private func mayProbe(_ now: Instant) -> Bool {
        if probesWindow || !outstanding.isEmpty { return true }
        if !timers.isSet(.retransmission) { timers[.retransmission] = now + timeout.value }
        return false
    }

    /// Section 7.2.1: the window shrinks while nothing is sent.
    private func decayWindow(_ now: Instant) {
        guard counters.payloadBytesSent > 0, outstanding.isEmpty else { return }
        let periods = (now - lastDataSentAt).nanoseconds / max(timeout.value.nanoseconds, 1)
        guard periods > 0 else { return }
        congestion.idled(periods: Int(clamping: periods))
        lastDataSentAt = now
    }

    private func writeData(_ output: inout OutputRawSpan, base: Int, end: Int, now: Instant) {
        var lastChunk = -1
        if outstanding.markedCount > 0 { writeRetransmissions(&output, base: base, end: end, &lastChunk, now) }
        let abandonedBefore = counters.abandonedMessages
        if outstanding.markedCount == 0 { writeNewData(&output, end: end, &lastChunk, now) }
        if counters.abandonedMessages != abandonedBefore { released(now) }
        guard lastChunk >= 0 else { return }
        lastDataSentAt = now
        if !timers.isSet(.retransmission), state != .cookieEchoed { timers[.retransmission] = now + timeout.value }
        // RFC 7053: nothing follows that would make the peer acknowledge before its timer does.
        if queue.isEmpty && outstanding.markedCount == 0 || congestion.window < 4 &* chunkCapacity,
            let flags: UInt8 = output.bytes.load(bigEndianAt: lastChunk &+ 1)
        {
            output.overwrite(at: lastChunk &+ 1, with: flags | DataFlag.immediate)
        }
    }

    private func writeRetransmissions(
        _ output: inout OutputRawSpan, base: Int, end: Int, _ lastChunk: inout Int, _ now: Instant
    ) {
        var tsn = outstanding.first
        while let marked = outstanding.find(.marked, from: tsn, before: outstanding.next) {
            tsn = marked.next
            let chunk = outstanding[marked]
            let index = Int(chunk.message)
            if features.partialReliability, queue[index].expiry <= now {
                abandon(index)
                advanceAckPoint(now, force: false)
                continue
            }
            let length = Int(chunk.length)
            let flight = outstanding.bytesInFlight
            guard retransmitsAtOnce || flight == 0 || flight < congestion.window && !peerIsClosed else { break }
            // A chunk from before the packet size shrank goes out alone, as large as it is.
            let fits = output.byteCount &+ dataHeaderSize &+ padded(length) <= end
            let isAlone = output.byteCount == base &+ commonHeaderSize
            guard fits || isAlone && output.freeCapacity >= dataHeaderSize &+ padded(length) else { break }
            if marked == outstanding.first { timers[.retransmission] = now + timeout.value }
            outstanding.resend(marked, now: now)
            peerWindow = max(0, peerWindow &- length)
            counters.retransmittedChunks &+= 1
            lastChunk = output.byteCount
            writeChunk(&output, chunk, marked)
        }
        if lastChunk >= 0 { retransmitsAtOnce = false }
    }

    private func writeNewData(_ output: inout OutputRawSpan, end: Int, _ lastChunk: inout Int, _ now: Instant) {
        let window = min(congestion.window, burstLimit)
        let capacity = chunkCapacity
        while let index = queue.current, !outstanding.isFull {
            let flight = outstanding.bytesInFlight
            guard flight < window || flight == 0 else { break }
            let message = queue[index]
            if message.expiry <= now, features.partialReliability {
                abandon(index)
                advanceAckPoint(now, force: false)
                continue
            }
            let rest = Int(message.count &- message.sent)
            let room = end &- output.byteCount &- dataHeaderSize
            var length = rest
            if rest > room {
                // What fits into one packet is not split; a larger rest fills the packet up.
                guard rest > capacity, room >= min(capacity, 128) else { break }
                length = room & ~3
            }
            // Section 6.1 A: beyond the peer's window only one chunk at a time, to probe it.
            guard length <= peerWindow || flight == 0 && (peerWindow > 0 || mayProbe(now)) else { break }
            probesWindow = false
            lastChunk = output.byteCount
            sendChunk(&output, index, message, length, isLast: length == rest, now)
        }
    }

    @inline(__always)
    private func sendChunk(
        _ output: inout OutputRawSpan, _ index: Int, _ message: OutgoingMessage, _ length: Int, isLast: Bool,
        _ now: Instant
    ) {
        let tsn = outstanding.next
        var flags: UInt8 = message.ordered ? 0 : DataFlag.unordered
        if isLast { flags |= DataFlag.end }
        if message.sent == 0 {
            flags |= DataFlag.beginning
            queue[index].firstTSN = tsn
            if message.ordered {
                let slot = Int(message.slot)
                queue[index].sequence = queue.streams[slot].nextSequence
                queue.streams[slot].nextSequence &+= 1
            }
            counters.messagesSent &+= 1
        }
        queue[index].chunks &+= 1
        queue[index].unacknowledged &+= 1
        let chunk = OutstandingChunk(
            sentAt: now, message: UInt32(truncatingIfNeeded: index), offset: message.sent, reportableFrom: tsn,
            length: UInt16(truncatingIfNeeded: length), transmissions: 1, flags: flags)
        outstanding.append(chunk)
        peerWindow = max(0, peerWindow &- length)
        counters.payloadBytesSent &+= UInt64(truncatingIfNeeded: length)
        writeChunk(&output, chunk, tsn)
        if let low = queue.sent(length) { events.append(.bufferedAmountLow(stream: queue.streams[low].id)) }
    }

    @inline(__always)
    private func writeChunk(_ output: inout OutputRawSpan, _ chunk: OutstandingChunk, _ tsn: TSN) {
        let message = queue[Int(chunk.message)]
        let length = Int(chunk.length)
        let total = UInt64(truncatingIfNeeded: length &+ dataHeaderSize)
        output.write(UInt64(chunk.flags) << 48 | total << 32 | UInt64(tsn.value))
        let stream = UInt64(queue.streams[Int(message.slot)].id)
        output.write(stream << 48 | UInt64(message.sequence) << 32 | UInt64(message.protocolIdentifier))
        message.payload?.write(from: Int(chunk.offset), count: length, to: &output)
        output.writeZeros(padded(length) &- length)
    }
}
