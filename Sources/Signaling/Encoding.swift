/// Writes one message as compact JSON in UTF-8.
public func encode(_ message: SignalingMessage) throws(SignalingError) -> [UInt8] {
    let json = try JSON.makeObject()
    switch message {
    case .offer(let offer):
        try json.set("type", "offer")
        try json.set("sdp", offer.sdp)
        if let token = offer.sessionToken { try json.set("sessionToken", token) }
        if offer.iceRestart { try json.set("iceRestart", true) }
        if offer.wantsTicket { try json.set("ticket", true) }
        if offer.derivesInit { try json.set("derivedInit", true) }
        if let generation = offer.generation { try json.set("generation", Int64(generation)) }
    case .answer(let answer):
        try json.set("type", "answer")
        try json.set("sdp", answer.sdp)
        try json.set("connectionMode", answer.connectionMode.rawValue)
        if let token = answer.sessionToken { try json.set("sessionToken", token) }
        if let ticket = answer.ticket { try json.set("ticket", try ticket.json()) }
        if let generation = answer.generation { try json.set("generation", Int64(generation)) }
    case .candidate(nil):
        try json.setNull("candidate")
    case .candidate(let candidate?):
        try json.set("candidate", try candidate.json())
    }
    return try json.bytes()
}

/// Writes an RTCIceCandidateInit that stands alone.
public func encode(_ candidate: CandidateInit) throws(SignalingError) -> [UInt8] {
    try candidate.json().bytes()
}

extension CandidateInit {
    func json() throws(SignalingError) -> JSON {
        let json = try JSON.makeObject()
        try json.set("candidate", candidate)
        if let sdpMid { try json.set("sdpMid", sdpMid) }
        if let sdpMLineIndex { try json.set("sdpMLineIndex", Int64(sdpMLineIndex)) }
        if let usernameFragment { try json.set("usernameFragment", usernameFragment) }
        return json
    }
}
