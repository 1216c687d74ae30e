import SCTP
import Wire

/// One data channel. Its stream is in use from `assign` until both directions are reset.
final class Channel {
    enum State: Equatable {
        /// No stream yet: the DTLS role is not known.
        case waiting
        case open
        /// RFC 8831 section 6.7: both directions have to be reset before the stream can be used again.
        case closing(ResetProgress, ChannelCloseReason)
    }

    let id: ChannelID
    let parameters: ChannelParameters
    let isRemote: Bool
    let isNegotiated: Bool
    var state = State.waiting
    var stream: UInt16?
    var lowThreshold: Int?
    /// The host has been told that it is open.
    var isAnnounced = false
    /// RFC 8832 section 6: until the acknowledgement or any other message has come, messages of an unordered
    /// channel are sent ordered, too.
    var isConfirmed: Bool
    /// Bytes in the set's backlog.
    var pendingBytes = 0

    init(id: ChannelID, parameters: ChannelParameters, isRemote: Bool, isNegotiated: Bool) {
        self.id = id
        self.parameters = parameters
        self.isRemote = isRemote
        self.isNegotiated = isNegotiated
        isConfirmed = isRemote || isNegotiated
    }

    var sendsOrdered: Bool { parameters.ordered || !isConfirmed }
}

/// Which directions of a stream have been reset.
struct ResetProgress: OptionSet, Equatable {
    let rawValue: UInt8

    static let outgoing = ResetProgress(rawValue: 1)
    static let incoming = ResetProgress(rawValue: 2)
    static let both: ResetProgress = [.outgoing, .incoming]
}
