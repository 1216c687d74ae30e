import Wire

/// Reads one message. Members that the format does not name are ignored; null counts as missing
/// where a member may be missing, because pages send what their storage gave them.
public func decode(
    _ bytes: RawSpan, limits: SignalingLimits = SignalingLimits()
) throws(SignalingError) -> SignalingMessage {
    guard bytes.byteCount <= limits.bytes else { throw .tooLarge }
    let json = try JSON.parse(bytes)
    guard json.kind == .object else { throw .notAnObject }
    switch try json.optionalString("type", "type", maximum: 64) {
    case "offer":
        var offer = OfferMessage(
            sdp: try json.sdp(limits),
            sessionToken: try json.sessionToken(limits),
            iceRestart: try json.optionalBoolean("iceRestart", "iceRestart") ?? false)
        offer.wantsTicket = try json.optionalBoolean("ticket", "ticket") ?? false
        offer.derivesInit = try json.optionalBoolean("derivedInit", "derivedInit") ?? false
        offer.generation = try json.generation()
        return .offer(offer)
    case "answer":
        var answer = AnswerMessage(
            sdp: try json.sdp(limits), connectionMode: try json.connectionMode(),
            sessionToken: try json.sessionToken(limits))
        answer.ticket = try json.optionalTicket(limits)
        answer.generation = try json.generation()
        return .answer(answer)
    case "candidate", nil:
        guard let candidate = json.member("candidate") else {
            // Without both members there is no telling what it should have been: the type comes first.
            throw .member(json.member("type") == nil ? "type" : "candidate", .missing)
        }
        return .candidate(try candidate.candidateInit(limits))
    default:
        throw .member("type", .unknownValue)
    }
}

/// Reads an RTCIceCandidateInit that stands alone.
public func decodeCandidate(
    _ bytes: RawSpan, limits: SignalingLimits = SignalingLimits()
) throws(SignalingError) -> CandidateInit? {
    guard bytes.byteCount <= limits.bytes else { throw .tooLarge }
    return try JSON.parse(bytes).candidateInit(limits)
}

extension JSON {
    /// The member `name`, unless it is missing or null.
    func present(_ name: String) -> JSON? {
        guard let member = member(name), member.kind != .null else { return nil }
        return member
    }

    func optionalString(_ name: String, _ path: String, maximum: Int) throws(SignalingError) -> String? {
        guard let member = present(name) else { return nil }
        guard member.kind == .string else { throw .member(path, .wrongType) }
        guard member.stringCount <= maximum else { throw .member(path, .tooLong) }
        return member.string
    }

    func optionalBoolean(_ name: String, _ path: String) throws(SignalingError) -> Bool? {
        guard let member = present(name) else { return nil }
        guard let value = member.boolean else { throw .member(path, .wrongType) }
        return value
    }

    func sessionToken(_ limits: SignalingLimits) throws(SignalingError) -> String? {
        try optionalString("sessionToken", "sessionToken", maximum: limits.sessionToken)
    }

    fileprivate func sdp(_ limits: SignalingLimits) throws(SignalingError) -> String {
        guard let member = member("sdp") else { throw .member("sdp", .missing) }
        guard member.kind == .string else { throw .member("sdp", .wrongType) }
        guard member.stringCount <= limits.sdp else { throw .member("sdp", .tooLong) }
        guard let text = member.string, !text.isEmpty else { throw .member("sdp", .empty) }
        return text
    }

    fileprivate func generation() throws(SignalingError) -> UInt32? {
        guard let member = present("generation") else { return nil }
        guard let value = member.integer else { throw .member("generation", .wrongType) }
        guard let generation = UInt32(exactly: value) else { throw .member("generation", .outOfRange) }
        return generation
    }

    fileprivate func connectionMode() throws(SignalingError) -> ConnectionMode {
        guard let text = try optionalString("connectionMode", "connectionMode", maximum: 64) else { return .normal }
        guard let mode = ConnectionMode(rawValue: text) else { throw .member("connectionMode", .unknownValue) }
        return mode
    }

    fileprivate func candidateInit(_ limits: SignalingLimits) throws(SignalingError) -> CandidateInit? {
        switch kind {
        case .null: return nil
        case .object: break
        default: throw .member("candidate", .wrongType)
        }
        // W3C webrtc: the dictionary's candidate has "" as its default, the end of candidates.
        let line = try optionalString("candidate", "candidate.candidate", maximum: limits.candidate) ?? ""
        guard line.utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7F }) else {
            throw .member("candidate.candidate", .forbiddenCharacter)
        }
        return CandidateInit(
            candidate: line,
            sdpMid: try optionalString("sdpMid", "candidate.sdpMid", maximum: limits.mid),
            sdpMLineIndex: try mLineIndex(),
            usernameFragment: try optionalString(
                "usernameFragment", "candidate.usernameFragment", maximum: limits.usernameFragment))
    }

    private func mLineIndex() throws(SignalingError) -> UInt16? {
        guard let member = member("sdpMLineIndex"), member.kind != .null else { return nil }
        guard let value = member.integer else { throw .member("candidate.sdpMLineIndex", .wrongType) }
        guard let index = UInt16(exactly: value) else { throw .member("candidate.sdpMLineIndex", .outOfRange) }
        return index
    }
}
