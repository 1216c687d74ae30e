/// Which way an answer was made.
public enum ConnectionMode: String, Sendable {
    case fast
    case normal
}

public struct OfferMessage: Hashable, Sendable {
    public var sdp: String
    /// As sent: whether it is a token at all is for the session table to say.
    public var sessionToken: String?
    public var iceRestart: Bool
    /// The client takes tickets, and has the control channel.
    public var wantsTicket = false
    /// The client can do without the SCTP handshake where a ticket stands for it.
    public var derivesInit = false
    /// Of ICE, as the sender counts them. Pages do not send it.
    public var generation: UInt32?

    public init(sdp: String, sessionToken: String? = nil, iceRestart: Bool = false, generation: UInt32? = nil) {
        self.sdp = sdp
        self.sessionToken = sessionToken
        self.iceRestart = iceRestart
        self.generation = generation
    }
}

public struct AnswerMessage: Hashable, Sendable {
    public var sdp: String
    /// An answer that names no mode, from a server of another kind, is normal.
    public var connectionMode: ConnectionMode
    /// The token to come back with.
    public var sessionToken: String?
    public var ticket: Ticket?
    /// That of the offer, if the offer named one.
    public var generation: UInt32?

    public init(
        sdp: String, connectionMode: ConnectionMode = .normal, sessionToken: String? = nil, generation: UInt32? = nil
    ) {
        self.sdp = sdp
        self.connectionMode = connectionMode
        self.sessionToken = sessionToken
        self.generation = generation
    }
}

/// What a client comes back with without any signaling: the session description of a server that expects it.
public struct Ticket: Hashable, Sendable {
    /// "lrc1/..." and the password that goes with it.
    public var ufrag: String
    public var password: String
    /// Of the server, as in SDP without "a=fingerprint:".
    public var fingerprint: String
    /// Lines without "a=", the best first.
    public var candidates: [String]
    public var sctpPort: UInt16
    public var maxMessageSize: UInt64
    /// Unix time in milliseconds.
    public var expires: Int64
    /// Both sides derive the SCTP INITs from the ticket.
    public var derivesInit: Bool

    public init(
        ufrag: String, password: String, fingerprint: String, candidates: [String], sctpPort: UInt16 = 5000,
        maxMessageSize: UInt64, expires: Int64, derivesInit: Bool = false
    ) {
        self.ufrag = ufrag
        self.password = password
        self.fingerprint = fingerprint
        self.candidates = candidates
        self.sctpPort = sctpPort
        self.maxMessageSize = maxMessageSize
        self.expires = expires
        self.derivesInit = derivesInit
    }
}

/// One message of the control channel, between the library and a client that takes tickets.
public enum ControlMessage: Hashable, Sendable {
    /// Replaces what the client has. The token, if there is one, replaces the token too.
    case ticket(Ticket, sessionToken: String?)
    /// Are you there?
    case ping(Int64)
    case pong(Int64)

    /// The stream both sides open the channel on, labelled "reconnect".
    public static let stream: UInt16 = 255
}

/// RTCIceCandidateInit.
public struct CandidateInit: Hashable, Sendable {
    /// The line without `a=`; empty as the marker for the end of a section's candidates.
    public var candidate: String
    public var sdpMid: String?
    public var sdpMLineIndex: UInt16?
    public var usernameFragment: String?

    public init(
        candidate: String, sdpMid: String? = nil, sdpMLineIndex: UInt16? = nil, usernameFragment: String? = nil
    ) {
        self.candidate = candidate
        self.sdpMid = sdpMid
        self.sdpMLineIndex = sdpMLineIndex
        self.usernameFragment = usernameFragment
    }
}

/// One signaling message.
public enum SignalingMessage: Hashable, Sendable {
    case offer(OfferMessage)
    case answer(AnswerMessage)
    /// nil is the end of candidates.
    case candidate(CandidateInit?)

    /// True for both forms of the end of candidates: null and the empty candidate line.
    public var isEndOfCandidates: Bool {
        guard case .candidate(let candidate) = self else { return false }
        return candidate?.candidate.isEmpty ?? true
    }
}
