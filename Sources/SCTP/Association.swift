public import Wire

/// One SCTP association over DTLS (RFC 9260, RFC 8261), without I/O: packets, time and random
/// numbers come in through its calls; packets and events are drained. After every call that is not
/// a query: ``pollTransmit(into:now:)`` until it answers false, ``pollEvent()`` until it answers nil
/// (or until the host has enough: messages left inside close the receiver window), then sleep until
/// ``nextTimeout``, which taking events can bring forward.
public final class Association {
    enum State: UInt8 {
        case idle
        case cookieWait, cookieEchoed
        case established
        case shutdownPending, shutdownSent, shutdownReceived, shutdownAckSent
        case closed
    }

    enum Timer: Int, CaseIterable {
        /// T1-init, T1-cookie.
        case initiation
        /// T2-shutdown.
        case shutdown
        /// T3-rtx.
        case retransmission
        /// T5-shutdown-guard.
        case shutdownGuard
        case delayedAcknowledgement
        case heartbeat
        case reconfiguration
    }

    /// Chunks to go out with the next packet.
    struct Control: OptionSet {
        let rawValue: UInt16
        static let initiation = Control(rawValue: 1)
        static let cookieEcho = Control(rawValue: 2)
        static let cookieAck = Control(rawValue: 4)
        static let heartbeat = Control(rawValue: 8)
        static let heartbeatAck = Control(rawValue: 16)
        static let error = Control(rawValue: 32)
        static let reconfiguration = Control(rawValue: 64)
        static let forwardTSN = Control(rawValue: 128)
        static let shutdown = Control(rawValue: 256)
        static let shutdownAck = Control(rawValue: 512)
    }

    enum Acknowledgement { case none, delayed, immediate }

    let configuration: Configuration
    var random: any RandomNumberGenerator
    var state = State.idle
    var timers = TimerTable<Timer>()
    var control: Control = []
    var counters = Statistics()

    // Identity.
    let secret: SipHash
    var localInit: InitChunk
    var localTag: UInt32
    /// Zero until the peer has told it.
    var peerTag: UInt32 = 0
    var peerInitialTSN = TSN(0)
    var handshake: Handshake?
    var shutdownRequested = false
    public internal(set) var features = Features()
    /// An INIT or INIT ACK of this end said that packets without checksum are taken.
    var offeredZeroChecksum = false

    // Sending.
    var queue = SendQueue()
    var outstanding: Outstanding
    var peerWindow = 0
    var congestion: any CongestionController
    var timeout: RetransmissionTimeout
    /// In fast recovery: the highest TSN sent when it began (RFC 9260 section 7.2.4).
    var recoveryExit: TSN?
    /// The next packet of retransmissions may exceed the congestion window.
    var retransmitsAtOnce = false
    /// The last TSN sent when the congestion window kept more from being sent.
    var windowLimitedUpTo: TSN?
    /// The last SACK announced a window of zero.
    var peerIsClosed = false
    /// One chunk may go out although the peer's window is closed.
    var probesWindow = false
    /// Max.Burst: bytes in flight that must not be exceeded before the next acknowledgement.
    var burstLimit = 0
    /// A round trip is measured with a chunk from here on.
    var roundTripMark: TSN
    /// Consecutive losses of contact: Association.Max.Retrans counts against it.
    var errorCount = 0
    var lastDataSentAt = Instant(nanoseconds: 0)
    /// Advanced.Peer.Ack.Point (RFC 3758 section 3.5).
    var advancedAckPoint: TSN
    var forwardSentAt = Instant(nanoseconds: 0)
    var bufferWasFull = false
    var nextExpirySweep = Instant(nanoseconds: .min)

    // Receiving.
    var received: ReceivedTSNs
    var reassembly: Reassembly
    var events = EventQueue()
    let receiveLimit: Int
    var acknowledgement = Acknowledgement.none
    var packetsToAcknowledge = 0
    var advertisedWindow = 0

    // Rare chunks, in their finished form.
    /// Whole packets that do not belong to the current association, or end it.
    var replies: [[UInt8]] = []
    var heartbeatAcks: [[UInt8]] = []
    var errorCauses: [[UInt8]] = []
    var heartbeatNonce: UInt64?
    var reset = StreamReset()

    public init(configuration: Configuration, random: any RandomNumberGenerator) {
        var configuration = configuration
        configuration.maximumPacketSize = Self.usable(configuration.maximumPacketSize)
        configuration.maximumMessageSize = max(configuration.maximumMessageSize, 1)
        self.configuration = configuration
        packetSize = configuration.maximumPacketSize
        receiveLimit = max(
            configuration.receiveBuffer, configuration.maximumMessageSize &+ 2 &* configuration.maximumPacketSize, 1500)

        var generator = random
        secret = SipHash(using: &generator)
        localInit = InitChunk()
        localInit.tag = UInt32(truncatingIfNeeded: generator.next())
        if localInit.tag == 0 { localInit.tag = 1 }
        localInit.initialTSN = TSN(UInt32(truncatingIfNeeded: generator.next()))
        localInit.window = UInt32(clamping: receiveLimit)
        localInit.outboundStreams = max(configuration.outboundStreams, 1)
        localInit.inboundStreams = max(configuration.inboundStreams, 1)
        localInit.partialReliability = true
        localInit.streamReset = true
        localInit.zeroChecksum = configuration.zeroChecksum
        self.random = generator

        localTag = localInit.tag
        outstanding = Outstanding(first: localInit.initialTSN)
        roundTripMark = localInit.initialTSN
        advancedAckPoint = localInit.initialTSN.previous
        received = ReceivedTSNs(cumulative: TSN(0), reach: receiveLimit / 128)
        reassembly = Reassembly(maximumMessageSize: configuration.maximumMessageSize)
        timeout = Self.initialTimeout(configuration)
        congestion = Self.initialCongestion(configuration, configuration.maximumPacketSize)
    }

    /// Chooses the TSN and the stream sequence numbers to start with, before anything else is called.
    /// Both ends must agree on the latter.
    func start(at tsn: UInt32, sequence: UInt16) {
        localInit.initialTSN = TSN(tsn)
        outstanding = Outstanding(first: localInit.initialTSN)
        roundTripMark = localInit.initialTSN
        advancedAckPoint = localInit.initialTSN.previous
        queue.initialSequence = sequence
        reassembly.initialSequence = sequence
    }

    // MARK: Size of packets

    private var packetSize: Int

    /// Bytes of one packet. May be changed at any time; chunks sent before keep their size, so the
    /// buffer given to `pollTransmit` must hold the largest value ever set.
    public var maximumPacketSize: Int {
        get { packetSize }
        set {
            packetSize = Self.usable(newValue)
            congestion.packetCapacityChanged(chunkCapacity)
        }
    }

    private static func usable(_ size: Int) -> Int { min(max(size, 256), 65_532) & ~3 }

    /// User data in a packet that holds nothing but one DATA chunk.
    var chunkCapacity: Int { packetSize &- commonHeaderSize &- dataHeaderSize }

    static func initialTimeout(_ configuration: Configuration) -> RetransmissionTimeout {
        RetransmissionTimeout(
            initial: configuration.rtoInitial, minimum: configuration.rtoMinimum, maximum: configuration.rtoMaximum)
    }

    static func initialCongestion(_ configuration: Configuration, _ packetSize: Int) -> any CongestionController {
        NewReno(
            capacity: packetSize - commonHeaderSize - dataHeaderSize, initialPackets: configuration.initialWindowPackets
        )
    }

    // MARK: State

    /// True between the handshake and the beginning of the end.
    public var isEstablished: Bool { state == .established }
    /// True after `.aborted` or `.closed`.
    public var isClosed: Bool { state == .closed }
    /// Why it was aborted; nil while it was not.
    public private(set) var abortReason: AbortReason?

    // MARK: Feeding

    /// Queues a message without copying it. Works from the start: what is queued before the handshake
    /// has ended goes out with its last packet.
    public func send(
        stream: UInt16, protocolIdentifier: UInt32, payload: Payload, ordered: Bool = true,
        reliability: Reliability = .reliable, now: Instant
    ) throws(SendError) {
        switch state {
        case .idle, .cookieWait, .cookieEchoed, .established: if shutdownRequested { throw .notOpen }
        default: throw .notOpen
        }
        let count = payload.count
        guard count > 0 else { throw .empty }
        let streams = state == .established ? features.outboundStreams : localInit.outboundStreams
        guard stream < streams else { throw .invalidStream }
        let cost = count &+ SendQueue.messageOverhead
        guard cost <= configuration.sendBuffer, count <= Int(UInt32.max) else { throw .tooLarge }
        if queue.retained &+ cost > configuration.sendBuffer {
            sweepExpired(now: now)
            guard queue.retained &+ cost <= configuration.sendBuffer else {
                bufferWasFull = true
                throw .bufferFull
            }
        }
        let slot = queue.slot(of: stream)
        guard queue.streams[slot].reset == .none else { throw .streamResetting }
        var message = OutgoingMessage(
            payload: payload, count: UInt32(truncatingIfNeeded: count), protocolIdentifier: protocolIdentifier,
            ordered: ordered)
        switch reliability {
        case .reliable: break
        case .retransmits(let most): message.maximumRetransmits = most
        case .lifetime(let duration): message.expiry = now + duration
        }
        queue.append(message, to: slot)
        burstLimit = max(burstLimit, outstanding.bytesInFlight &+ burstBytes)
    }

    /// Most bytes sent in one go beyond what acknowledgements make room for.
    var burstBytes: Int { chunkCapacity &* max(configuration.initialWindowPackets, 4) }

    /// Looks for messages that expired in the queue, at most once in 10 ms.
    private func sweepExpired(now: Instant) {
        guard features.partialReliability, now >= nextExpirySweep else { return }
        nextExpirySweep = now + .milliseconds(10)
        queue.dropExpired(now: now, dropped: &counters.abandonedMessages) { stream in
            events.append(.bufferedAmountLow(stream: stream))
        }
    }

    // MARK: Draining

    /// When to call ``handleTimeout(now:)``; nil if nothing is waited for.
    public var nextTimeout: Instant? { timers.nextTimeout }

    /// The next thing that happened. Taking messages opens the receiver window again.
    public func pollEvent() -> Event? {
        guard let event = events.popFirst() else { return nil }
        updateWindow()
        return event
    }

    // MARK: Asking

    /// Bytes queued on `stream` and not sent for the first time yet.
    public func bufferedAmount(stream: UInt16) -> Int {
        queue.streams.find(stream).map { queue.streams[$0].buffered } ?? 0
    }

    /// The same over all streams.
    public var bufferedAmount: Int { queue.buffered }

    /// `.bufferedAmountLow` comes when the buffered amount of `stream` falls from above `bytes` to
    /// `bytes` or below. Nil, the default, means no event.
    public func setBufferedAmountLowThreshold(stream: UInt16, bytes: Int?) {
        guard stream < .max else { return }
        let slot = queue.slot(of: stream)
        queue.streams[slot].threshold = bytes.map { max($0, 0) } ?? -1
    }

    public var statistics: Statistics {
        var result = counters
        result.messagesReceived = events.messageCount
        result.smoothedRoundTrip = timeout.smoothed
        result.retransmissionTimeout = timeout.value
        result.congestionWindow = congestion.window
        result.bytesInFlight = outstanding.bytesInFlight
        result.peerWindow = peerWindow
        result.receiveBufferUsed = events.heldBytes &+ reassembly.heldBytes
        result.sendBufferUsed = queue.retained
        result.droppedOrphans = reassembly.orphans
        return result
    }

    // MARK: Transitions

    /// Ends the association: nothing is kept but what is still to be sent about the end.
    func close(_ event: Event) {
        guard state != .closed else { return }
        if case .aborted(let reason) = event { abortReason = reason }
        state = .closed
        timers.removeAll()
        control = []
        acknowledgement = .none
        handshake = nil
        queue.removeAll()
        outstanding = Outstanding(first: outstanding.next)
        reassembly = Reassembly(maximumMessageSize: configuration.maximumMessageSize)
        heartbeatAcks = []
        errorCauses = []
        reset = StreamReset()
        events.append(event)
    }
}
