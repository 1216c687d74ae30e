import Wire

extension DescriptionParser {
    /// One `a=` line. Attributes that no branch names are skipped (RFC 8866 section 5.13: unknown
    /// attributes must be ignored).
    mutating func attribute(_ line: RawSpan) throws(ParseError.Reason) {
        guard description != nil else { throw .missing(.origin) }
        let colon = line.firstOffset(of: UInt8(ascii: ":")) ?? line.byteCount
        let name = 0..<colon
        let start = min(colon + 1, line.byteCount)
        guard let value = line.slice(at: start, count: line.byteCount - start) else { return }
        if line.equals(name, "candidate") {
            try candidate(line)
        } else if line.equals(name, "end-of-candidates") {
            endOfCandidates()
        } else if try transport(line, name, value) {
            return
        } else if description?.media.isEmpty ?? true {
            try sessionAttribute(line, name, value)
        } else {
            try mediaAttribute(line, name, value)
        }
    }

    private func sectionIndex() -> Int? {
        guard let count = description?.media.count, count > 0 else { return nil }
        return count - 1
    }

    /// Attributes that stand at either level. True if this was one.
    private mutating func transport(
        _ line: RawSpan, _ name: Range<Int>, _ value: RawSpan
    ) throws(ParseError.Reason) -> Bool {
        guard var description else { return false }
        self.description = nil
        defer { self.description = description }
        let index = description.media.count - 1
        if index >= 0 {
            return try description.media[index].transport.take(line, name, value, limits)
        }
        return try description.transport.take(line, name, value, limits)
    }

    private mutating func sessionAttribute(
        _ line: RawSpan, _ name: Range<Int>, _ value: RawSpan
    ) throws(ParseError.Reason) {
        if line.equals(name, "ice-lite") {
            // RFC 8839 section 5.3: session level only.
            description?.isLite = true
        } else if line.equals(name, "group") {
            try group(value)
        }
    }

    /// RFC 5888 section 5, RFC 9143 section 7: a=group:BUNDLE <mid> ...
    private mutating func group(_ value: RawSpan) throws(ParseError.Reason) {
        var position = 0
        guard let semantics = value.field(from: &position) else { throw .invalid(.group) }
        guard value.equals(semantics, "BUNDLE") else { return }
        guard (description?.bundles.count ?? 0) < Lengths.groups else { throw .tooMany(.group) }
        var mids: [String] = []
        while let field = value.field(from: &position) {
            guard mids.count < limits.mediaSections else { throw .tooMany(.group) }
            guard value.isToken(field, maximum: Lengths.mid) else { throw .invalid(.group) }
            mids.append(value.text(field))
        }
        description?.bundles.append(mids)
    }

    private mutating func mediaAttribute(
        _ line: RawSpan, _ name: Range<Int>, _ value: RawSpan
    ) throws(ParseError.Reason) {
        guard let index = sectionIndex() else { return }
        if line.equals(name, "mid") {
            try mid(value, index)
        } else if line.equals(name, "bundle-only") {
            description?.media[index].isBundleOnly = true
        } else if line.equals(name, "sctp-port") {
            guard description?.media[index].sctpPort == nil else { throw .duplicate(.sctpPort) }
            // RFC 8841 section 5.1: 1*5DIGIT; zero names no port.
            guard let port = value.port(value.whole), port > 0 else { throw .invalid(.sctpPort) }
            description?.media[index].sctpPort = port
        } else if line.equals(name, "sctpmap") {
            try sctpmap(value, index)
        } else if line.equals(name, "max-message-size") {
            guard description?.media[index].maxMessageSize == nil else { throw .duplicate(.maxMessageSize) }
            guard let size = value.decimal(value.whole) else { throw .invalid(.maxMessageSize) }
            description?.media[index].maxMessageSize = size
        } else if line.equals(name, "sctp-init") {
            guard description?.media[index].sctpInit == nil else { throw .duplicate(.sctpInit) }
            guard value.byteCount <= Lengths.sctpInit, value.all(value.whole, Characters.isBase64), value.byteCount > 0
            else { throw .invalid(.sctpInit) }
            description?.media[index].sctpInit = value.text(value.whole)
        }
    }

    private mutating func mid(_ value: RawSpan, _ index: Int) throws(ParseError.Reason) {
        guard description?.media[index].mid == nil else { throw .duplicate(.mid) }
        guard value.isToken(value.whole, maximum: Lengths.mid) else { throw .invalid(.mid) }
        let mid = value.text(value.whole)
        // RFC 5888 section 4: the identification tag must be unique within a description.
        guard mids.insert(mid).inserted else { throw .duplicate(.mid) }
        description?.media[index].mid = mid
    }

    /// draft-ietf-mmusic-sctp-sdp-07 and earlier: a=sctpmap:<port> <app> [<streams>]
    private mutating func sctpmap(_ value: RawSpan, _ index: Int) throws(ParseError.Reason) {
        var position = 0
        guard let number = value.field(from: &position), let port = value.port(number), port > 0,
            let application = value.field(from: &position)
        else { throw .invalid(.sctpmap) }
        guard value.equals(application, "webrtc-datachannel") else { return }
        guard description?.media[index].sctpmapPort == nil else { throw .duplicate(.sctpmap) }
        description?.media[index].sctpmapPort = port
    }

    /// RFC 8839 section 5.1: candidates stand in media sections only.
    private mutating func candidate(_ line: RawSpan) throws(ParseError.Reason) {
        guard let index = sectionIndex() else { return }
        guard candidateCount < limits.candidates else { throw .tooMany(.candidate) }
        guard line.byteCount > 10, line.byteCount <= Lengths.candidate,
            line.all(line.whole, { $0 == 0x20 || Characters.isVisible($0) })
        else { throw .invalid(.candidate) }
        candidateCount += 1
        description?.media[index].candidates.append(line.text(line.whole))
    }

    /// RFC 8840 section 8.2: at either level.
    private mutating func endOfCandidates() {
        if let index = sectionIndex() {
            description?.media[index].hasEndOfCandidates = true
        } else {
            description?.hasEndOfCandidates = true
        }
    }
}

extension TransportAttributes {
    mutating func take(
        _ line: RawSpan, _ name: Range<Int>, _ value: RawSpan, _ limits: Limits
    ) throws(ParseError.Reason) -> Bool {
        if line.equals(name, "ice-ufrag") {
            guard iceUfrag == nil else { throw .duplicate(.iceUfrag) }
            guard value.isICE(value.whole, lengths: Lengths.ufrag) else { throw .invalid(.iceUfrag) }
            iceUfrag = value.text(value.whole)
        } else if line.equals(name, "ice-pwd") {
            guard icePwd == nil else { throw .duplicate(.icePwd) }
            guard value.isICE(value.whole, lengths: Lengths.password) else { throw .invalid(.icePwd) }
            icePwd = value.text(value.whole)
        } else if line.equals(name, "ice-options") {
            try takeOptions(value)
        } else if line.equals(name, "fingerprint") {
            try takeFingerprint(value, limits)
        } else if line.equals(name, "setup") {
            guard setup == nil else { throw .duplicate(.setup) }
            guard let role = SetupRole(rawValue: value.text(value.whole)) else { throw .invalid(.setup) }
            setup = role
        } else {
            return false
        }
        return true
    }

    private mutating func takeOptions(_ value: RawSpan) throws(ParseError.Reason) {
        var position = 0
        // RFC 8839 section 5.6 separates options by spaces; libdatachannel writes commas.
        while let field = value.field(from: &position, separator: { $0 == 0x20 || $0 == UInt8(ascii: ",") }) {
            guard iceOptions.count < Lengths.options else { throw .tooMany(.iceOptions) }
            // The same section wants ICE characters, but options with "-" and "." exist.
            guard field.count <= Lengths.option, value.all(field, Characters.isVisible) else {
                throw .invalid(.iceOptions)
            }
            iceOptions.append(value.text(field))
        }
    }

    private mutating func takeFingerprint(_ value: RawSpan, _ limits: Limits) throws(ParseError.Reason) {
        switch Fingerprint.parse(value) {
        case .fingerprint(let fingerprint):
            guard fingerprints.count < limits.fingerprints else { throw .tooMany(.fingerprint) }
            fingerprints.append(fingerprint)
        case .unknownHash: break
        case .malformed: throw .invalid(.fingerprint)
        }
    }
}
