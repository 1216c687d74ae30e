public import Wire

extension Association {
    /// Takes one packet as it came out of DTLS.
    public func handle(packet: RawSpan, now: Instant) {
        counters.packetsReceived &+= 1
        counters.bytesReceived &+= UInt64(truncatingIfNeeded: packet.byteCount)
        guard packet.byteCount >= commonHeaderSize &+ 4,
            let source: UInt16 = packet.load(bigEndianAt: 0), let destination: UInt16 = packet.load(bigEndianAt: 2),
            let tag: UInt32 = packet.load(bigEndianAt: 4), let checksum: UInt32 = packet.load(bigEndianAt: 8),
            let firstType: UInt8 = packet.load(bigEndianAt: commonHeaderSize)
        else {
            counters.droppedMalformed &+= 1
            return
        }
        guard source == configuration.remotePort, destination == configuration.localPort else {
            counters.droppedPort &+= 1
            return
        }
        // RFC 9653 section 5.3: who has announced it takes a zero for any packet; an INIT comes before
        // that announcement can have been seen.
        let mayBeZero = offeredZeroChecksum && firstType != ChunkType.initiation
        guard checksum == 0 && mayBeZero || checksum == packetChecksum(packet) else {
            counters.droppedChecksum &+= 1
            return
        }
        guard acceptsTag(tag, firstType, packet, now) else { return }
        handleChunks(packet, tag, now)
    }

    /// The rules of RFC 9260 section 8.5, and 8.4 for packets out of the blue. True: go on with the chunks.
    private func acceptsTag(_ tag: UInt32, _ firstType: UInt8, _ packet: RawSpan, _ now: Instant) -> Bool {
        switch firstType {
        case ChunkType.initiation:
            handleInitiation(packet, tag, now)
            return false
        case ChunkType.cookieEcho:
            return true
        case ChunkType.abort, ChunkType.shutdownComplete:
            // "MUST accept the packet if the Verification Tag matches its own tag and the T bit is not
            // set, or if it is set to its Peer's Tag and the T bit is set."
            let reflected = packet.load(bigEndianAt: commonHeaderSize &+ 1, as: UInt8.self).map {
                $0 & reflectedTagFlag != 0
            }
            if state != .idle, state != .closed, reflected == true ? tag == peerTag && peerTag != 0 : tag == localTag {
                return true
            }
        case ChunkType.shutdownAck where state == .cookieWait || state == .cookieEchoed || state == .closed:
            // Section 8.5.1 E: as if out of the blue.
            reply(tag: tag, chunk: ChunkType.shutdownComplete, flags: reflectedTagFlag)
            counters.droppedUnexpected &+= 1
            return false
        case ChunkType.cookieAck, ChunkType.error:
            if state != .idle, state != .closed, tag == localTag { return true }
        default:
            if state != .idle, state != .closed, tag == localTag { return true }
            // Section 8.4 (8). Before the handshake has begun there is nothing the peer could mean.
            if state == .closed { reply(tag: tag, chunk: ChunkType.abort, flags: reflectedTagFlag) }
        }
        counters.droppedVerificationTag &+= 1
        return false
    }

    private func handleChunks(_ packet: RawSpan, _ tag: UInt32, _ now: Instant) {
        var offset = commonHeaderSize
        var arrivals = Arrivals(hadGap: received.hasGap)
        while offset < packet.byteCount, state != .closed {
            guard let type: UInt8 = packet.load(bigEndianAt: offset),
                let flags: UInt8 = packet.load(bigEndianAt: offset &+ 1),
                let length: UInt16 = packet.load(bigEndianAt: offset &+ 2), length >= 4,
                let body = packet.slice(at: offset &+ 4, count: Int(length) &- 4)
            else {
                counters.droppedMalformed &+= 1
                break
            }
            if type == ChunkType.data {
                handleData(flags, body, &arrivals, now)
            } else {
                let goesOn = handleControl(type, flags, body, tag, packet, offset, &arrivals, now)
                if !goesOn { break }
            }
            offset &+= padded(Int(length))
        }
        if state != .closed { scheduleAcknowledgement(arrivals, now) }
    }

    /// False: the rest of the packet is not to be looked at.
    private func handleControl(
        _ type: UInt8, _ flags: UInt8, _ body: RawSpan, _ tag: UInt32, _ packet: RawSpan, _ offset: Int,
        _ arrivals: inout Arrivals, _ now: Instant
    ) -> Bool {
        switch type {
        case ChunkType.sack:
            handleSack(body, now)
        case ChunkType.cookieEcho:
            // "MUST be the first chunk in the packet" (section 5.1).
            guard offset == commonHeaderSize else { break }
            return handleCookieEcho(body, tag, now)
        case ChunkType.cookieAck:
            handleCookieAck(now)
        case ChunkType.initiationAck:
            // "An INIT ACK chunk MUST NOT be bundled with other chunks" (section 6.10).
            if offset == commonHeaderSize { handleInitiationAck(body, now) }
            return false
        case ChunkType.heartbeat:
            handleHeartbeat(body, now)
        case ChunkType.heartbeatAck:
            handleHeartbeatAck(body, now)
        case ChunkType.forwardTSN:
            handleForwardTSN(body, &arrivals, now)
        case ChunkType.reconfig:
            handleReconfiguration(body, now)
        case ChunkType.abort:
            // In SHUTDOWN-ACK-SENT everything is delivered in both directions: the peer has closed, its
            // SHUTDOWN COMPLETE was lost and a packet of ours came late.
            close(state == .shutdownAckSent ? .closed : .aborted(.peer(cause: body.load(bigEndianAt: 0))))
        case ChunkType.error:
            handleError(body, now)
        case ChunkType.shutdown:
            handleShutdown(body, now)
        case ChunkType.shutdownAck:
            handleShutdownAck()
        case ChunkType.shutdownComplete:
            handleShutdownComplete()
        case ChunkType.initiation:
            counters.droppedUnexpected &+= 1
            return false
        default:
            return handleUnrecognized(type, body)
        }
        return true
    }

    /// RFC 9260 section 3.2: the upper two bits of an unknown chunk type say whether to go on with the
    /// packet, and whether to report it.
    private func handleUnrecognized(_ type: UInt8, _ body: RawSpan) -> Bool {
        counters.droppedUnexpected &+= 1
        if type & 0x40 != 0 {
            // As much of the chunk as identifies it.
            let length = UInt16(truncatingIfNeeded: body.byteCount &+ 4)
            let start = body.slice(at: 0, count: min(body.byteCount, 64))?.copied() ?? []
            report(ErrorCause.unrecognizedChunk) { cause in
                cause.write(type)
                cause.write(0 as UInt8)
                cause.write(length)
                cause.write(start)
            }
        }
        return type & 0x80 != 0
    }

    // MARK: Answers

    /// Queues an error cause for an ERROR chunk.
    func report(_ code: UInt16, _ body: (inout PacketBuilder) -> Void) {
        guard errorCauses.count < 4 else { return }
        var cause = PacketBuilder()
        cause.parameter(code, body)
        errorCauses.append(cause.bytes)
        control.insert(.error)
    }

    /// Queues a packet of its own, with its own tag.
    func reply(tag: UInt32, chunk: UInt8, flags: UInt8 = 0, _ body: (inout PacketBuilder) -> Void = { _ in }) {
        var packet = PacketBuilder(localPort: configuration.localPort, remotePort: configuration.remotePort, tag: tag)
        packet.chunk(chunk, flags: flags, body)
        reply(packet)
    }

    func reply(_ packet: consuming PacketBuilder) {
        guard replies.count < 4 else { return }
        replies.append(packet.finished())
    }
}
