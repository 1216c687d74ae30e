public import Wire

/// One SCTP association over DTLS (RFC 9260, RFC 8261), without I/O: packets, time and random
/// numbers come in through its calls; packets and events are drained. After every call that is not
/// a query: ``pollTransmit(into:now:)`` until it answers false, ``pollEvent()`` until it answers nil
/// (or until the host has enough: messages left inside close the receiver window), then sleep until
/// ``nextTimeout``.
public final class Association {
    public init(configuration: Configuration, random: any RandomNumberGenerator) {
        self.maximumPacketSize = configuration.maximumPacketSize
    }

    /// Bytes of one packet. May be changed at any time; chunks sent before keep their size, so the
    /// buffer given to `pollTransmit` must hold the largest value ever set.
    public var maximumPacketSize: Int

    /// True between the handshake and the beginning of the end.
    public var isEstablished: Bool { false }
    /// True after `.aborted` or `.closed`.
    public var isClosed: Bool { false }
    public private(set) var features = Features()

    // MARK: Feeding

    /// Starts the handshake. Both ends may call it, which is the normal case in WebRTC.
    public func connect(now: Instant) {}

    /// Takes one packet as it came out of DTLS.
    public func handle(packet: RawSpan, now: Instant) {}

    /// To be called when ``nextTimeout`` has passed.
    public func handleTimeout(now: Instant) {}

    /// Queues a message without copying it. Works from the start: what is queued before the handshake
    /// has ended goes out with its last packet.
    public func send(
        stream: UInt16, protocolIdentifier: UInt32, payload: Payload, ordered: Bool = true,
        reliability: Reliability = .reliable, now: Instant
    ) throws(SendError) {}

    /// Resets outgoing streams (RFC 6525) when what is queued on them has been sent and
    /// acknowledged. `.resetDone` or `.resetDenied` follows; until then the streams take no messages.
    public func resetStreams(_ streams: [UInt16], now: Instant) {}

    /// Ends the association after everything queued has been delivered.
    public func shutdown(now: Instant) {}

    /// Ends the association at once; an ABORT goes out with the next `pollTransmit`.
    public func abort(now: Instant) {}

    // MARK: Draining

    /// When to call ``handleTimeout(now:)``; nil if nothing is waited for.
    public var nextTimeout: Instant? { nil }

    /// Appends one packet to `output`; false if there is none to send now.
    public func pollTransmit(into output: inout OutputRawSpan, now: Instant) -> Bool { false }

    public func pollEvent() -> Event? { nil }

    // MARK: Asking

    /// Bytes queued on `stream` and not sent for the first time yet.
    public func bufferedAmount(stream: UInt16) -> Int { 0 }
    /// The same over all streams.
    public var bufferedAmount: Int { 0 }

    /// `.bufferedAmountLow` comes when the buffered amount of `stream` falls from above `bytes` to
    /// `bytes` or below. Without a threshold set, it is zero and no event comes; nil switches it off.
    public func setBufferedAmountLowThreshold(stream: UInt16, bytes: Int?) {}

    public var statistics: Statistics { Statistics() }

    // MARK: SNAP (draft-hancke-tsvwg-snap): the two INIT chunks exchanged by signaling

    /// The INIT chunk this association would send, the same bytes each time.
    public var initChunk: [UInt8] { [] }

    /// Establishes the association from the peer's INIT chunk, without a handshake. False, and
    /// nothing changed, if the chunk is not valid or the association has already gone on.
    public func establish(remoteInit: RawSpan, now: Instant) -> Bool { false }
}
