import Wire

/// Reads one entry. Every field is checked; unknown members are ignored.
public func decodeCacheEntry(_ bytes: RawSpan) throws(SignalingError) -> CacheEntry {
    guard bytes.byteCount <= CacheEntry.maximumBytes else { throw .tooLarge }
    return try CacheEntry(try JSON.parse(bytes))
}

/// Writes one entry as compact JSON.
public func encode(_ entry: CacheEntry) throws(SignalingError) -> [UInt8] {
    let bytes = try entry.json().bytes()
    guard bytes.count <= CacheEntry.maximumBytes else { throw .tooLarge }
    return bytes
}

extension CacheEntry {
    init(_ json: borrowing JSON) throws(SignalingError) {
        guard json.kind == .object else { throw .notAnObject }
        guard let family = Family(rawValue: try json.filledString("lastSuccessfulProtocol", maximum: 16)) else {
            throw .member("lastSuccessfulProtocol", .unknownValue)
        }
        let session = try json.filledString("sessionId", maximum: CacheEntry.maximumSessionIDBytes)
        guard CacheEntry.isSessionID(session) else { throw .member("sessionId", .malformed) }
        self.init(lastSuccessfulProtocol: family, timestamp: try json.timestamp("timestamp"), sessionID: session)
        lastConnectedIPv6 = try json.optionalBoolean("lastConnectedIPv6", "lastConnectedIPv6")
        for list in List.allCases { self[list] = try json.candidates(list) }
    }

    func json() throws(SignalingError) -> JSON {
        let json = try JSON.makeObject()
        for list in List.allCases {
            let array = try JSON.makeArray()
            for candidate in self[list] { try array.append(try candidate.json()) }
            try json.set(list.rawValue, array)
        }
        try json.set("lastSuccessfulProtocol", lastSuccessfulProtocol.rawValue)
        try json.set("timestamp", timestamp)
        try json.set("sessionId", sessionID)
        if let lastConnectedIPv6 { try json.set("lastConnectedIPv6", lastConnectedIPv6) }
        return json
    }
}

extension JSON {
    func filledString(_ name: String, maximum: Int) throws(SignalingError) -> String {
        guard let member = member(name) else { throw .member(name, .missing) }
        guard member.kind == .string else { throw .member(name, .wrongType) }
        guard member.stringCount <= maximum else { throw .member(name, .tooLong) }
        guard let text = member.string, !text.isEmpty else { throw .member(name, .empty) }
        return text
    }

    /// Unix time in milliseconds. Pages may have computed it: a fraction is cut off.
    func timestamp(_ name: String) throws(SignalingError) -> Int64 {
        guard let member = member(name) else { throw .member(name, .missing) }
        guard let value = member.number else { throw .member(name, .wrongType) }
        guard value.isFinite, value >= 0, value <= Double(CacheEntry.latestTimestamp) else {
            throw .member(name, .outOfRange)
        }
        return Int64(value)
    }

    fileprivate func candidates(_ list: CacheEntry.List) throws(SignalingError) -> [CandidateInit] {
        guard let array = member(list.rawValue), array.kind != .null || !list.isOptional else {
            if list.isOptional { return [] }
            throw .member(list.rawValue, .missing)
        }
        guard array.kind == .array else { throw .member(list.rawValue, .wrongType) }
        guard array.count <= CacheEntry.maximumCandidates else { throw .member(list.rawValue, .tooMany) }
        var candidates: [CandidateInit] = []
        for index in 0..<array.count {
            let path = "\(list.rawValue)[\(index)]"
            guard let element = array.element(index), element.kind == .object else { throw .member(path, .wrongType) }
            candidates.append(try element.cachedCandidate(list, path))
        }
        return candidates
    }

    private func cachedCandidate(_ list: CacheEntry.List, _ path: String) throws(SignalingError) -> CandidateInit {
        guard let text = try string("candidate", path, maximum: CandidateLine.maximumBytes) else {
            throw .member(path + ".candidate", .missing)
        }
        guard let line = CandidateLine(parsing: text) else { throw .member(path + ".candidate", .malformed) }
        guard CacheEntry.List(line) == list else { throw .member(path + ".candidate", .misplaced) }
        let mid = try string("sdpMid", path, maximum: CacheEntry.maximumMidBytes)
        guard mid?.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) != false else {
            throw .member(path + ".sdpMid", .forbiddenCharacter)
        }
        let fragment = try string("usernameFragment", path, maximum: 256)
        guard fragment.map({ $0.utf8.count >= 4 && $0.utf8.allSatisfy(\.isICECharacter) }) != false else {
            throw .member(path + ".usernameFragment", .malformed)
        }
        return CandidateInit(
            candidate: text, sdpMid: mid, sdpMLineIndex: try lineIndex(path), usernameFragment: fragment)
    }

    private func string(_ name: String, _ path: String, maximum: Int) throws(SignalingError) -> String? {
        guard let member = member(name), member.kind != .null else { return nil }
        guard member.kind == .string else { throw .member(path + "." + name, .wrongType) }
        guard member.stringCount <= maximum else { throw .member(path + "." + name, .tooLong) }
        return member.string
    }

    private func lineIndex(_ path: String) throws(SignalingError) -> UInt16? {
        guard let member = member("sdpMLineIndex"), member.kind != .null else { return nil }
        guard let value = member.integer else { throw .member(path + ".sdpMLineIndex", .wrongType) }
        guard let index = UInt16(exactly: value) else { throw .member(path + ".sdpMLineIndex", .outOfRange) }
        return index
    }
}
