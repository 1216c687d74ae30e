public import Wire

extension Association {
    /// How hard the association tries to deliver a message (RFC 3758; RFC 8831 section 6.6).
    public enum Reliability: Hashable, Sendable {
        case reliable
        /// Abandoned when it would have to be sent again more often than this.
        case retransmits(UInt32)
        /// Abandoned when not acknowledged this long after `send`.
        case lifetime(Duration)
    }

    /// Why ``Association/send(stream:protocolIdentifier:payload:ordered:reliability:now:)`` refused a message.
    public enum SendError: Error, Hashable, Sendable {
        /// Shutting down, aborted or closed.
        case notOpen
        /// The send buffer is full; ``Event/sendBufferAvailable`` says when to go on.
        case bufferFull
        /// Larger than the whole send buffer: it will never fit.
        case tooLarge
        /// SCTP has no empty messages (RFC 8831 section 6.6 has identifiers for them).
        case empty
        /// Not below the number of outbound streams.
        case invalidStream
        /// A reset of this stream is under way.
        case streamResetting
    }

    /// What both ends agreed on.
    public struct Features: Hashable, Sendable {
        public var outboundStreams: UInt16 = 0
        public var inboundStreams: UInt16 = 0
        /// RFC 3758: limited reliability works. Without it every message is reliable.
        public var partialReliability = false
        /// RFC 6525: streams can be reset.
        public var streamReset = false
        /// RFC 9653: packets go out without checksum.
        public var zeroChecksumSend = false
        /// RFC 9653: packets without checksum are taken.
        public var zeroChecksumReceive = false

        public init() {}
    }

    /// A whole message from the peer. The payload is not written to any more, so it may change threads.
    public struct Message: @unchecked Sendable {
        public var stream: UInt16
        public var ordered: Bool
        public var protocolIdentifier: UInt32
        public var payload: Payload
    }

    /// Why an association ended without a shutdown.
    public enum AbortReason: Hashable, Sendable {
        /// ``Association/abort(now:)`` was called.
        case local
        /// The peer sent ABORT; the first error cause's code, if it gave one (RFC 9260 section 3.3.10).
        case peer(cause: UInt16?)
        /// The peer did not answer the handshake.
        case handshakeTimeout
        /// The peer stopped answering.
        case timeout
        /// The peer broke the protocol; the cause that was sent to it.
        case protocolError(cause: UInt16)
    }

    /// Why the peer did not reset a stream (RFC 6525 section 4.4; `unsupported` if it never could).
    public enum ResetRefusal: Hashable, Sendable {
        case unsupported
        case result(UInt32)
    }

    /// What happened, in order.
    public enum Event: Sendable {
        case connected(Features)
        case message(Message)
        /// The peer reset these streams of its own; their next message starts anew. Empty: all of them.
        case streamsReset([UInt16])
        /// The streams named in ``Association/resetStreams(_:now:)`` are reset and can be used again.
        case resetDone([UInt16])
        case resetDenied([UInt16], ResetRefusal)
        /// The bytes of a stream that wait to be sent fell to its threshold.
        case bufferedAmountLow(stream: UInt16)
        /// After ``SendError/bufferFull``: half of the send buffer is free again.
        case sendBufferAvailable
        /// The peer lost its state and started the association anew (RFC 9260 section 5.2.4 A).
        /// Everything not delivered is gone, in both directions.
        case restarted(Features)
        case aborted(AbortReason)
        /// Shut down in agreement with the peer.
        case closed
    }
}
