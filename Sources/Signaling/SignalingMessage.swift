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

    public init(sdp: String, sessionToken: String? = nil, iceRestart: Bool = false) {
        self.sdp = sdp
        self.sessionToken = sessionToken
        self.iceRestart = iceRestart
    }
}

public struct AnswerMessage: Hashable, Sendable {
    public var sdp: String
    /// An answer that names no mode, from a server of another kind, is normal.
    public var connectionMode: ConnectionMode
    /// The token to come back with.
    public var sessionToken: String?

    public init(sdp: String, connectionMode: ConnectionMode = .normal, sessionToken: String? = nil) {
        self.sdp = sdp
        self.connectionMode = connectionMode
        self.sessionToken = sessionToken
    }
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
