/// Tickets as files keep them; their members are those of docs/formats.md.
extension Ticket {
    init(kept json: borrowing JSON) throws(SignalingError) {
        guard json.kind == .object else { throw .notAnObject }
        let ufrag = try json.requiredString("ufrag", maximum: 200)
        guard ufrag.utf8.count >= 10, ufrag.utf8.allSatisfy(isICECharacter) else { throw .member("ufrag", .malformed) }
        let password = try json.requiredString("pwd", maximum: 256)
        guard password.utf8.count >= 22, password.utf8.allSatisfy(isICECharacter) else {
            throw .member("pwd", .malformed)
        }
        let fingerprint = try json.requiredString("fingerprint", maximum: 256)
        guard fingerprint.utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7F }) else { throw .member("fingerprint", .malformed) }
        let limit = try json.integer("maxMessageSize", 0...Int64(UInt32.max))
        self.init(
            ufrag: ufrag, password: password, fingerprint: fingerprint, candidates: try json.ticketCandidates(),
            sctpPort: UInt16(clamping: try json.integer("sctpPort", 1...65535)), maxMessageSize: UInt64(clamping: limit),
            expires: try json.timestamp("expires"), derivesInit: try json.keptBoolean("derivedInit") ?? false)
    }

    func keptJSON() throws(SignalingError) -> JSON {
        let json = try JSON.makeObject()
        try json.set("ufrag", ufrag)
        try json.set("pwd", password)
        try json.set("fingerprint", fingerprint)
        let lines = try JSON.makeArray()
        for line in candidates { try lines.append(line) }
        try json.set("candidates", lines)
        try json.set("sctpPort", Int64(sctpPort))
        try json.set("maxMessageSize", Int64(clamping: maxMessageSize))
        try json.set("expires", expires)
        if derivesInit { try json.set("derivedInit", true) }
        return json
    }
}

extension JSON {
    fileprivate func integer(_ name: String, _ range: ClosedRange<Int64>) throws(SignalingError) -> Int64 {
        guard let member = member(name) else { throw .member(name, .missing) }
        guard let value = member.integer else { throw .member(name, .wrongType) }
        guard range.contains(value) else { throw .member(name, .outOfRange) }
        return value
    }

    fileprivate func ticketCandidates() throws(SignalingError) -> [String] {
        guard let array = member("candidates") else { throw .member("candidates", .missing) }
        guard array.kind == .array else { throw .member("candidates", .wrongType) }
        guard array.elementCount > 0 else { throw .member("candidates", .empty) }
        guard array.elementCount <= CacheEntry.maximumCandidates else { throw .member("candidates", .tooMany) }
        var lines: [String] = []
        for index in 0..<array.elementCount {
            let path = "candidates[\(index)]"
            guard let line = array.element(index), line.kind == .string else { throw .member(path, .wrongType) }
            guard line.stringCount <= CandidateLine.maximumBytes else { throw .member(path, .tooLong) }
            guard let text = line.string, CandidateLine(parsing: text) != nil else { throw .member(path, .malformed) }
            lines.append(text)
        }
        return lines
    }
}
