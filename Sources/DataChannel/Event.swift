public import SCTP
public import Wire

/// Why a call on a channel was refused.
public enum ChannelError: Error, Hashable, Sendable {
    /// No such channel, or it is gone.
    case unknownChannel
    /// The channel is closing, or the association is over.
    case closed
    /// Larger than the peer takes (`a=max-message-size`) or than the send buffer.
    case tooLarge
    /// Nothing was taken; ``ChannelSet/Event/sendBufferAvailable`` says when to go on.
    case bufferFull
    /// As many channels as the configuration allows.
    case tooManyChannels
    /// The stream identifier is in use, or beyond what both ends agreed on; or there is none left.
    case streamUnavailable
    /// The label or the protocol is longer than 65535 bytes.
    case parameterTooLong
}

/// Why a channel is gone.
public enum ChannelCloseReason: Hashable, Sendable {
    /// ``ChannelSet/close(_:now:)``
    case local
    /// The peer closed it; or it refused to open it, which looks the same.
    case remote
    /// The peer broke RFC 8832, for example with a second OPEN on its stream.
    case protocolViolation
    /// Its stream is not among those that the association got.
    case streamUnavailable
    /// The association ended or the peer started it anew.
    case associationEnded
}

extension ChannelSet {
    /// What happened, in order.
    public enum Event: @unchecked Sendable {
        /// The channel can be used. A local one is open as soon as the association is: the peer's
        /// acknowledgement is not waited for (RFC 8832 section 6).
        case opened(ChannelID, ChannelParameters, stream: UInt16, isRemote: Bool)
        case message(ChannelID, MessageKind, Payload)
        /// The bytes that wait to be sent fell to the channel's threshold.
        case bufferedAmountLow(ChannelID)
        /// After ``ChannelError/bufferFull``.
        case sendBufferAvailable
        /// The last event of a channel.
        case closed(ChannelID, ChannelCloseReason)
        /// The association's own: `connected`, `restarted`, `aborted` or `closed`.
        case association(Association.Event)
    }

    public struct Configuration: Sendable {
        /// Open and closing channels together.
        public var maximumChannels = 1024
        /// Bytes of messages kept while there is no association yet, and, each for itself, of messages
        /// on streams that nobody has opened yet.
        public var maximumPendingBytes = 1 << 20
        public var maximumEarlyBytes = 1 << 18

        public init() {}
    }

    /// What the peer did wrong or in vain. Only grows.
    public struct Counters: Hashable, Sendable {
        /// OPEN messages that were malformed, on a stream in use or of ours, or one channel too many.
        public var refusedOpens: UInt64 = 0
        /// Messages of unknown types, unexpected acknowledgements.
        public var ignoredControlMessages: UInt64 = 0
        /// Messages on closing channels, on streams that nobody opened, with unknown identifiers.
        public var droppedMessages: UInt64 = 0

        public init() {}
    }
}
