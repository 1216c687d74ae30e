import Wire

/// Reads one text message of the control channel. Members that the format does not name are ignored.
public func decodeControl(
    _ bytes: RawSpan, limits: SignalingLimits = SignalingLimits()
) throws(SignalingError) -> ControlMessage {
    guard bytes.byteCount <= limits.control else { throw .tooLarge }
    let json = try JSON.parse(bytes)
    guard json.kind == .object else { throw .notAnObject }
    switch try json.optionalString("type", "type", maximum: 64) {
    case "ticket":
        guard let ticket = try json.optionalTicket(limits) else { throw .member("ticket", .missing) }
        return .ticket(ticket, sessionToken: try json.sessionToken(limits))
    case "ping": return .ping(try json.integer("id", "id"))
    case "pong": return .pong(try json.integer("id", "id"))
    case nil: throw .member("type", .missing)
    default: throw .member("type", .unknownValue)
    }
}

/// Writes one message of the control channel.
public func encode(_ message: ControlMessage) throws(SignalingError) -> [UInt8] {
    let json = try JSON.makeObject()
    switch message {
    case .ticket(let ticket, let token):
        try json.set("type", "ticket")
        try json.set("ticket", try ticket.json())
        if let token { try json.set("sessionToken", token) }
    case .ping(let id):
        try json.set("type", "ping")
        try json.set("id", id)
    case .pong(let id):
        try json.set("type", "pong")
        try json.set("id", id)
    }
    return try json.bytes()
}
