public import Wire

/// What exists only until the association is established.
struct Handshake {
    /// Nil in COOKIE-WAIT; in COOKIE-ECHOED what the peer's INIT ACK carried.
    var cookie: [UInt8]?
    /// Times that INIT or COOKIE ECHO was repeated, and that a stale cookie was refused.
    var repetitions = 0
    var staleCookies = 0
    var interval: Duration
    /// When the chunk that is waited for was sent, for the round trip; nil if it was sent more than once.
    var sentAt: Instant?
    var cookiePreservative: UInt32 = 0
}

extension Association {
    /// Starts the handshake. Both ends may call it, which is the normal case in WebRTC.
    public func connect(now: Instant) {
        guard state == .idle else { return }
        state = .cookieWait
        handshake = Handshake(interval: timeout.value, sentAt: now)
        control.insert(.initiation)
        timers[.initiation] = now + timeout.value
    }

    /// The INIT chunk this association would send, the same bytes each time.
    public var initChunk: [UInt8] {
        var builder = PacketBuilder()
        localInit.write(to: &builder, type: ChunkType.initiation)
        let bytes = builder.bytes
        // Without the padding behind the chunk.
        let length: UInt16 = bytes.span.bytes.load(bigEndianAt: 2) ?? 0
        return Array(bytes.prefix(Int(length)))
    }

    /// Establishes the association from the peer's INIT chunk as signaling brought it, without a
    /// handshake (SNAP, draft-hancke-tsvwg-snap). The peer must have got ``initChunk``. False, and
    /// nothing changed, if the chunk is not valid or the association has already gone on.
    public func establish(remoteInit: RawSpan, now: Instant) -> Bool {
        guard state == .idle, remoteInit.load(bigEndianAt: 0) == ChunkType.initiation,
            let length: UInt16 = remoteInit.load(bigEndianAt: 2), Int(length) <= remoteInit.byteCount,
            let body = remoteInit.slice(at: 4, count: Int(length) - 4), let remote = InitChunk(body: body),
            remote.tag != 0, remote.outboundStreams > 0, remote.inboundStreams > 0
        else { return false }
        offeredZeroChecksum = localInit.zeroChecksum
        adopt(remote)
        established(now: now)
        return true
    }

    /// Establishes the association from INITs that both ends derived from a secret they share: what has to differ
    /// from one association to the next is given, all else is as this library offers it, with a window that
    /// every receiver has; the first acknowledgement tells the real one. False if the association has already gone on.
    public func establish(local: DerivedInit, remote: DerivedInit, now: Instant) -> Bool {
        guard state == .idle, local.tag != 0, remote.tag != 0 else { return false }
        start(at: local.initialTSN, sequence: 0)
        localInit.tag = local.tag
        localTag = local.tag
        offeredZeroChecksum = localInit.zeroChecksum
        var theirs = InitChunk()
        theirs.tag = remote.tag
        theirs.initialTSN = TSN(remote.initialTSN)
        theirs.window = DerivedInit.window
        theirs.outboundStreams = .max
        theirs.inboundStreams = .max
        theirs.partialReliability = true
        theirs.streamReset = true
        theirs.zeroChecksum = true
        adopt(theirs)
        established(now: now)
        return true
    }

    // MARK: INIT

    func handleInitiation(_ packet: RawSpan, _ tag: UInt32, _ now: Instant) {
        // "An INIT chunk MUST NOT share a packet", and its verification tag is zero (section 8.5.1 A).
        guard tag == 0, let length: UInt16 = packet.load(bigEndianAt: commonHeaderSize + 2), length >= 4,
            packet.byteCount - commonHeaderSize - padded(Int(length)) <= 0,
            let body = packet.slice(at: commonHeaderSize + 4, count: Int(length) - 4),
            let remote = InitChunk(body: body)
        else {
            counters.droppedMalformed &+= 1
            return
        }
        // "If the value of the Initiate Tag is found to be 0, the receiver MUST silently discard the packet."
        guard remote.tag != 0 else {
            counters.droppedMalformed &+= 1
            return
        }
        guard remote.outboundStreams > 0, remote.inboundStreams > 0 else {
            return refuse(remote, ErrorCause.invalidParameter)
        }
        guard !remote.hasHostName else { return refuse(remote, ErrorCause.unresolvableAddress) }

        switch state {
        case .closed:
            refuse(remote, ErrorCause.outOfResource)
        case .shutdownAckSent:
            // Section 9.2: "it SHOULD discard the INIT chunk and retransmit the SHUTDOWN ACK chunk".
            control.insert(.shutdownAck)
        case .idle, .cookieWait:
            // Section 5.2.1: the same parameters as in the INIT sent, the tag included.
            answer(remote, tag: localTag, tsn: localInit.initialTSN, tieTags: (0, 0), now)
        case .cookieEchoed:
            answer(remote, tag: localTag, tsn: localInit.initialTSN, tieTags: (localTag, peerTag), now)
        case .established, .shutdownPending, .shutdownSent, .shutdownReceived:
            // The same instance of the peer, which has not seen that the handshake is over: its INIT is
            // late, or its cookie went stale. Section 5.2.2 has a new tag for it too, against strangers
            // who guess; DTLS keeps those out, and with a new tag such a peer would never get through,
            // because its COOKIE ECHO would match no row of the table in section 5.2.4.
            if remote.tag == peerTag, remote.initialTSN == peerInitialTSN {
                return answer(remote, tag: localTag, tsn: localInit.initialTSN, tieTags: (localTag, peerTag), now)
            }
            // Section 5.2.2: a new random tag; the existing association is not touched.
            var newTag = UInt32(truncatingIfNeeded: random.next())
            if newTag == 0 || newTag == localTag { newTag = localTag &+ 1 | 1 }
            let tsn = TSN(UInt32(truncatingIfNeeded: random.next()))
            answer(remote, tag: newTag, tsn: tsn, tieTags: (localTag, peerTag), now)
        }
    }

    private func refuse(_ remote: InitChunk, _ cause: UInt16) {
        counters.droppedMalformed &+= 1
        reply(tag: remote.tag, chunk: ChunkType.abort) { $0.parameter(cause) }
    }

    /// INIT ACK with a state cookie; nothing is remembered.
    private func answer(
        _ remote: InitChunk, tag: UInt32, tsn: TSN, tieTags: (local: UInt32, peer: UInt32), _ now: Instant
    ) {
        // Section 5.2.6: a peer may ask for a longer life; no more than is given anyway.
        let extra = Duration.milliseconds(Int64(remote.cookiePreservative)).clamped(.zero, configuration.cookieLifetime)
        let cookie = StateCookie(
            createdAt: now, lifetime: configuration.cookieLifetime + extra, localTag: tag, peerTag: remote.tag,
            localTieTag: tieTags.local, peerTieTag: tieTags.peer, localInitialTSN: tsn,
            peerInitialTSN: remote.initialTSN, peerWindow: remote.window,
            peerOutboundStreams: remote.outboundStreams, peerInboundStreams: remote.inboundStreams,
            partialReliability: remote.partialReliability, streamReset: remote.streamReset,
            zeroChecksum: remote.zeroChecksum)
        var local = localInit
        local.tag = tag
        local.initialTSN = tsn
        local.window = UInt32(clamping: receiveLimit)
        local.cookie = cookie.sealed(with: secret)
        local.unrecognized = remote.unrecognized
        local.zeroChecksum = configuration.zeroChecksum && remote.zeroChecksum
        if local.zeroChecksum { offeredZeroChecksum = true }
        var packet = PacketBuilder(
            localPort: configuration.localPort, remotePort: configuration.remotePort, tag: remote.tag)
        local.write(to: &packet, type: ChunkType.initiationAck)
        reply(packet)
    }

    // MARK: INIT ACK

    func handleInitiationAck(_ body: RawSpan, _ now: Instant) {
        // Section 5.2.3: in any other state it is discarded.
        guard state == .cookieWait, var handshake else {
            counters.droppedUnexpected &+= 1
            return
        }
        guard let remote = InitChunk(body: body), remote.tag != 0 else {
            counters.droppedMalformed &+= 1
            return
        }
        guard remote.outboundStreams > 0, remote.inboundStreams > 0 else {
            peerTag = remote.tag
            return abort(ErrorCause.invalidParameter)
        }
        guard let cookie = remote.cookie, !cookie.isEmpty else {
            peerTag = remote.tag
            // The cause names the parameter that is missing: the state cookie.
            return abort(ErrorCause.missingParameter) { cause in
                cause.write(1 as UInt32)
                cause.write(ParameterType.stateCookie)
            }
        }
        if let sentAt = handshake.sentAt { timeout.measured(now - sentAt) }
        adopt(remote)
        let unrecognized = remote.unrecognized
        if !unrecognized.isEmpty { report(ErrorCause.unrecognizedParameters) { $0.write(unrecognized) } }
        handshake.cookie = cookie
        handshake.sentAt = now
        handshake.repetitions = 0
        // A COOKIE ACK is never delayed, so the lower bound of the RTO has no reason here.
        if let roundTrip = timeout.smoothed {
            handshake.interval = (roundTrip * 3).clamped(min(.milliseconds(50), timeout.maximum), timeout.maximum)
        }
        self.handshake = handshake
        state = .cookieEchoed
        control.remove(.initiation)
        control.insert(.cookieEcho)
        timers[.initiation] = now + handshake.interval
        burstLimit = burstBytes
    }

    /// Takes over what the peer's INIT or INIT ACK says.
    private func adopt(_ remote: InitChunk) {
        peerTag = remote.tag
        peerInitialTSN = remote.initialTSN
        peerWindow = Int(remote.window)
        peerIsClosed = false
        received = ReceivedTSNs(cumulative: remote.initialTSN.previous, reach: receiveLimit / 128)
        reset.expectedSequence = remote.initialTSN.value
        reset.nextSequence = localInit.initialTSN.value
        features.outboundStreams = min(localInit.outboundStreams, remote.inboundStreams)
        features.inboundStreams = min(localInit.inboundStreams, remote.outboundStreams)
        features.partialReliability = remote.partialReliability && localInit.partialReliability
        features.streamReset = remote.streamReset && localInit.streamReset
        features.zeroChecksumSend = remote.zeroChecksum && configuration.zeroChecksum
        features.zeroChecksumReceive = offeredZeroChecksum
    }

    // MARK: COOKIE ECHO

    /// RFC 9260 sections 5.1.5 and 5.2.4. True: the association is up and the rest of the packet is for it.
    func handleCookieEcho(_ body: RawSpan, _ tag: UInt32, _ now: Instant) -> Bool {
        guard state != .closed, let cookie = StateCookie(body, secret: secret) else {
            counters.droppedCookie &+= 1
            return false
        }
        guard tag == cookie.localTag else {
            counters.droppedVerificationTag &+= 1
            return false
        }
        let localMatches = cookie.localTag == localTag && state != .idle
        let peerMatches = cookie.peerTag == peerTag && peerTag != 0
        let age = now - cookie.createdAt
        // "If the State Cookie has expired, but the tags match the existing association, it is not stale."
        if age > cookie.lifetime, !(localMatches && peerMatches) {
            refuseStale(cookie, by: age - cookie.lifetime)
            return false
        }
        if state == .idle {
            establish(cookie, now)
            return true
        }
        switch (localMatches, peerMatches) {
        case (true, true):
            // Action D: a duplicate, or the end of a collision.
            if state == .cookieWait || state == .cookieEchoed {
                establish(cookie, now)
            } else {
                control.insert(.cookieAck)
            }
            return true
        case (true, false) where state == .cookieWait || state == .cookieEchoed:
            // Action B: both ends started at about the same time; the peer's tag is the cookie's.
            establish(cookie, now)
            return true
        case (false, false) where cookie.localTieTag == localTag && cookie.peerTieTag == peerTag && peerTag != 0,
            (true, false):
            // Action A: the peer started anew.
            return restart(cookie, now)
        default:
            // Action C: a late cookie, "silently discarded".
            counters.droppedCookie &+= 1
            return false
        }
    }

    private func refuseStale(_ cookie: StateCookie, by staleness: Duration) {
        counters.droppedCookie &+= 1
        reply(tag: cookie.peerTag, chunk: ChunkType.error) { chunk in
            chunk.parameter(ErrorCause.staleCookie) { $0.write(UInt32(clamping: staleness.microseconds)) }
        }
    }

    private func establish(_ cookie: StateCookie, _ now: Instant) {
        adopt(cookie)
        control.insert(.cookieAck)
        established(now: now)
    }

    private func adopt(_ cookie: StateCookie) {
        var remote = InitChunk()
        remote.tag = cookie.peerTag
        remote.window = cookie.peerWindow
        remote.outboundStreams = cookie.peerOutboundStreams
        remote.inboundStreams = cookie.peerInboundStreams
        remote.initialTSN = cookie.peerInitialTSN
        remote.partialReliability = cookie.partialReliability
        remote.streamReset = cookie.streamReset
        remote.zeroChecksum = cookie.zeroChecksum
        adopt(remote)
        peerWindow = max(0, peerWindow &- outstanding.bytesInFlight)
    }

    /// Action A of section 5.2.4: everything of the old association goes.
    private func restart(_ cookie: StateCookie, _ now: Instant) -> Bool {
        guard state != .shutdownAckSent else {
            // "The endpoint MUST NOT set up a new association but instead resend the SHUTDOWN ACK".
            report(ErrorCause.cookieWhileShuttingDown) { _ in }
            control.insert(.shutdownAck)
            return false
        }
        localTag = cookie.localTag
        localInit.tag = cookie.localTag
        localInit.initialTSN = cookie.localInitialTSN
        timers.removeAll()
        control = [.cookieAck]
        acknowledgement = .none
        packetsToAcknowledge = 0
        queue.removeAll()
        outstanding = Outstanding(first: cookie.localInitialTSN)
        roundTripMark = cookie.localInitialTSN
        advancedAckPoint = cookie.localInitialTSN.previous
        reassembly = Reassembly(maximumMessageSize: configuration.maximumMessageSize)
        errorCauses = []
        heartbeatAcks = []
        heartbeatNonce = nil
        reset = StreamReset()
        recoveryExit = nil
        retransmitsAtOnce = false
        windowLimitedUpTo = nil
        errorCount = 0
        shutdownRequested = false
        timeout = Self.initialTimeout(configuration)
        congestion = Self.initialCongestion(configuration, maximumPacketSize)
        adopt(cookie)
        established(now: now, restarted: true)
        return true
    }

    // MARK: COOKIE ACK

    func handleCookieAck(_ now: Instant) {
        // Section 5.2.5: "at any state other than COOKIE-ECHOED, an endpoint SHOULD silently discard" it.
        guard state == .cookieEchoed else {
            counters.droppedUnexpected &+= 1
            return
        }
        if let sentAt = handshake?.sentAt { timeout.measured(now - sentAt) }
        established(now: now)
    }

    /// DATA under our tag that follows on the TSN of the peer's INIT ACK: the COOKIE ACK was lost or is
    /// late. Without that TSN nothing is sure: a peer that was established already answers a late INIT
    /// of ours with a tag and a TSN that never come true (section 5.2.2).
    func confirmEstablished(by tsn: TSN, _ now: Instant) -> Bool {
        switch received.classify(tsn) {
        case .next, .ahead: break
        case .duplicate, .tooFar: return false
        }
        established(now: now)
        return true
    }

    /// The one way into ESTABLISHED.
    private func established(now: Instant, restarted: Bool = false) {
        state = shutdownRequested ? .shutdownPending : .established
        handshake = nil
        control.remove([.initiation, .cookieEcho])
        timers[.initiation] = nil
        advertisedWindow = receiveLimit
        burstLimit = outstanding.bytesInFlight &+ burstBytes
        errorCount = 0
        features.zeroChecksumReceive = offeredZeroChecksum
        if !outstanding.isEmpty { timers[.retransmission] = now + timeout.value }
        scheduleHeartbeat(now)
        events.append(restarted ? .restarted(features) : .connected(features))
        dropInvalidStreams()
        startReset(now)
        progressShutdown(now)
    }

    /// Messages queued early, on streams the peer did not grant.
    private func dropInvalidStreams() {
        guard features.outboundStreams < localInit.outboundStreams else { return }
        counters.abandonedMessages &+= queue.dropQueued(from: features.outboundStreams)
    }

    // MARK: T1 and stale cookies

    func initiationTimedOut(_ now: Instant) {
        guard var handshake else { return }
        handshake.repetitions += 1
        guard handshake.repetitions <= configuration.maximumInitRetransmissions else {
            return close(.aborted(.handshakeTimeout))
        }
        handshake.sentAt = nil
        handshake.interval = min(handshake.interval * 2, timeout.maximum)
        timers[.initiation] = now + handshake.interval
        if state == .cookieEchoed {
            control.insert(.cookieEcho)
            // What was bundled with the COOKIE ECHO goes out with it again.
            var tsn = outstanding.first
            while let next = outstanding.find(.inFlight, from: tsn, before: outstanding.next) {
                outstanding.mark(next)
                tsn = next.next
            }
            retransmitsAtOnce = true
        } else {
            control.insert(.initiation)
        }
        self.handshake = handshake
    }

    /// RFC 9260 section 5.2.6: try again, and ask for a longer life of the cookie.
    func handleStaleCookie(_ staleness: UInt32, _ now: Instant) {
        guard state == .cookieEchoed, var handshake else { return }
        handshake.staleCookies += 1
        guard handshake.staleCookies <= 3 else { return close(.aborted(.handshakeTimeout)) }
        handshake.cookie = nil
        handshake.cookiePreservative = UInt32(clamping: UInt64(staleness) * 2 / 1000 + 1000)
        handshake.sentAt = nil
        self.handshake = handshake
        state = .cookieWait
        peerTag = 0
        control.remove(.cookieEcho)
        control.insert(.initiation)
        timers[.initiation] = now + handshake.interval
        var tsn = outstanding.first
        while let next = outstanding.find(.inFlight, from: tsn, before: outstanding.next) {
            outstanding.mark(next)
            tsn = next.next
        }
    }

    /// The INIT to send now. Only the first carries the zero checksum parameter: a peer that drops an
    /// INIT for it answers the second.
    var currentInit: InitChunk {
        var chunk = localInit
        if let handshake {
            chunk.zeroChecksum = localInit.zeroChecksum && handshake.repetitions == 0
            chunk.cookiePreservative = handshake.cookiePreservative
        }
        return chunk
    }
}

/// What an INIT says that no other association's may say.
public struct DerivedInit: Hashable, Sendable {
    public var tag: UInt32
    public var initialTSN: UInt32

    /// RFC 9260 section 3.3.2: the tag is not zero.
    public init(tag: UInt32, initialTSN: UInt32) {
        self.tag = tag == 0 ? 1 : tag
        self.initialTSN = initialTSN
    }

    static let window: UInt32 = 128 << 10
}
