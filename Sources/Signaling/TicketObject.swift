import Wire

/// Reads a ticket that stands alone, as a client stores it.
public func decodeTicket(
    _ bytes: RawSpan, limits: SignalingLimits = SignalingLimits()
) throws(SignalingError) -> Ticket {
    guard bytes.byteCount <= limits.control else { throw .tooLarge }
    return try JSON.parse(bytes).ticket(limits)
}

/// Writes a ticket that stands alone.
public func encode(_ ticket: Ticket) throws(SignalingError) -> [UInt8] {
    try ticket.json().bytes()
}

/// A printed ticket shows only what a log may show: neither the user fragment nor the password.
extension Ticket: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    public var description: String { "ticket with \(candidates.count) candidates, expires \(expires)" }
    public var debugDescription: String { description }
    public var customMirror: Mirror { Mirror(self, children: []) }
}

extension Ticket {
    /// As the format has them; all that a client puts into a session description is free of line ends with them.
    static let ufragLengths = 10...200
    static let passwordLengths = 22...256
    /// Up to the end of the year 9999.
    static let expiryTimes: ClosedRange<Int64> = 1...253_402_300_799_999
    /// What a JavaScript number carries exactly.
    static let messageSizes: ClosedRange<UInt64> = 0...9_007_199_254_740_991

    /// Throws what is wrong with it: nothing is written that would not be read.
    func validate(_ limits: SignalingLimits) throws(SignalingError) {
        try Self.check(ufrag, "ufrag", Self.ufragLengths)
        try Self.check(password, "pwd", Self.passwordLengths)
        guard isFingerprint(fingerprint.utf8.span.bytes) else { throw .member("ticket.fingerprint", .unknownValue) }
        guard !candidates.isEmpty else { throw .member("ticket.candidates", .empty) }
        guard candidates.count <= limits.ticketCandidates else { throw .member("ticket.candidates", .tooLong) }
        for candidate in candidates {
            guard candidate.utf8.count <= limits.ticketCandidate else { throw .member("ticket.candidates", .tooLong) }
            guard candidate.utf8.allSatisfy({ (0x20..<0x7F).contains($0) }) else {
                throw .member("ticket.candidates", .forbiddenCharacter)
            }
            guard candidate.utf8.starts(with: "candidate:".utf8) else {
                throw .member("ticket.candidates", .unknownValue)
            }
        }
        // RFC 8841 section 5: a port of zero stands for a closed association.
        guard sctpPort != 0 else { throw .member("ticket.sctpPort", .outOfRange) }
        guard Self.messageSizes.contains(maxMessageSize) else { throw .member("ticket.maxMessageSize", .outOfRange) }
        guard Self.expiryTimes.contains(expires) else { throw .member("ticket.expires", .outOfRange) }
    }

    /// RFC 8839 section 5.4: of ice-chars.
    private static func check(_ text: String, _ name: String, _ lengths: ClosedRange<Int>) throws(SignalingError) {
        guard text.utf8.count >= lengths.lowerBound else { throw .member("ticket.\(name)", .outOfRange) }
        guard text.utf8.count <= lengths.upperBound else { throw .member("ticket.\(name)", .tooLong) }
        guard text.utf8.allSatisfy(\.isICECharacter) else { throw .member("ticket.\(name)", .forbiddenCharacter) }
    }

    func json() throws(SignalingError) -> JSON {
        try validate(SignalingLimits())
        let json = try JSON.makeObject()
        try json.set("ufrag", ufrag)
        try json.set("pwd", password)
        try json.set("fingerprint", fingerprint)
        let lines = try JSON.makeArray()
        for candidate in candidates { try lines.append(candidate) }
        try json.set("candidates", lines)
        try json.set("sctpPort", Int64(sctpPort))
        try json.set("maxMessageSize", Int64(clamping: maxMessageSize))
        try json.set("expires", expires)
        if derivesInit { try json.set("derivedInit", true) }
        return json
    }
}

extension JSON {
    /// The member "ticket", if there is one.
    func optionalTicket(_ limits: SignalingLimits) throws(SignalingError) -> Ticket? {
        guard let member = present("ticket") else { return nil }
        return try member.ticket(limits)
    }

    func ticket(_ limits: SignalingLimits) throws(SignalingError) -> Ticket {
        guard kind == .object else { throw .member("ticket", .wrongType) }
        let port = try integer("sctpPort", "ticket.sctpPort")
        guard let port = UInt16(exactly: port) else { throw .member("ticket.sctpPort", .outOfRange) }
        let size = try integer("maxMessageSize", "ticket.maxMessageSize")
        guard let size = UInt64(exactly: size) else { throw .member("ticket.maxMessageSize", .outOfRange) }
        let ticket = Ticket(
            ufrag: try requiredString("ufrag", maximum: Ticket.ufragLengths.upperBound),
            password: try requiredString("pwd", maximum: Ticket.passwordLengths.upperBound),
            fingerprint: try requiredString("fingerprint", maximum: 256),
            candidates: try candidateLines(limits), sctpPort: port, maxMessageSize: size,
            expires: try integer("expires", "ticket.expires"),
            derivesInit: try optionalBoolean("derivedInit", "ticket.derivedInit") ?? false)
        try ticket.validate(limits)
        return ticket
    }

    func integer(_ name: String, _ path: String) throws(SignalingError) -> Int64 {
        guard let member = member(name) else { throw .member(path, .missing) }
        guard let value = member.integer else { throw .member(path, .wrongType) }
        return value
    }

    private func requiredString(_ name: String, maximum: Int) throws(SignalingError) -> String {
        guard let member = member(name) else { throw .member("ticket.\(name)", .missing) }
        guard member.kind == .string else { throw .member("ticket.\(name)", .wrongType) }
        guard member.stringCount <= maximum else { throw .member("ticket.\(name)", .tooLong) }
        return member.string ?? ""
    }

    /// Counts before it copies.
    private func candidateLines(_ limits: SignalingLimits) throws(SignalingError) -> [String] {
        guard let array = member("candidates") else { throw .member("ticket.candidates", .missing) }
        guard array.kind == .array else { throw .member("ticket.candidates", .wrongType) }
        let count = array.count
        guard count <= limits.ticketCandidates else { throw .member("ticket.candidates", .tooLong) }
        var lines: [String] = []
        for index in 0..<count {
            guard let element = array.element(index), element.kind == .string, let line = element.string else {
                throw .member("ticket.candidates", .wrongType)
            }
            lines.append(line)
        }
        return lines
    }
}

/// RFC 8122 section 5: the hash function's name (compared without regard to case), a space, and as many pairs of
/// hexadecimal digits, with colons between, as the hash has bytes. SHA-256, 384 and 512 are accepted.
private func isFingerprint(_ text: RawSpan) -> Bool {
    let count = text.byteCount
    guard count > 8 else { return false }
    let name: [UInt8] = (0..<8).map { text.byte($0) | (text.byte($0) >= 0x41 && text.byte($0) <= 0x5A ? 0x20 : 0) }
    let size: Int
    switch name {
    case Array("sha-256 ".utf8): size = 32
    case Array("sha-384 ".utf8): size = 48
    case Array("sha-512 ".utf8): size = 64
    default: return false
    }
    guard count == 8 + 3 * size - 1 else { return false }
    for offset in 8..<count {
        let character = text.byte(offset)
        let isAllowed =
            switch (offset - 8) % 3 {
            case 2: character == UInt8(ascii: ":")
            default: character.hexadecimalValue != nil
            }
        guard isAllowed else { return false }
    }
    return true
}
