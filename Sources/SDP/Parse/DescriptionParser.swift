import Wire

/// Takes a description apart line by line and hands attributes to ``SessionDescription``.
struct DescriptionParser {
    let limits: Limits
    var description: SessionDescription?
    var seen: Set<UInt8> = []
    var candidateCount = 0
    var mids: Set<String> = []

    static func parse(_ bytes: RawSpan, limits: Limits) throws(ParseError) -> SessionDescription {
        guard bytes.byteCount <= limits.bytes else { throw ParseError(line: 1, reason: .tooLarge) }
        var parser = DescriptionParser(limits: limits)
        var end = bytes.byteCount
        // Blank lines after the last one are common when people paste; inside they are errors.
        while end > 0, bytes.byte(end - 1) == 0x0A || bytes.byte(end - 1) == 0x0D { end -= 1 }
        var position = 0
        var number = 0
        while position < end {
            number += 1
            guard number <= limits.lines else { throw ParseError(line: number, reason: .tooManyLines) }
            var lineEnd = min(bytes.firstOffset(of: 0x0A, from: position) ?? end, end)
            let next = lineEnd + 1
            // RFC 8866 section 5: CRLF ends a record, and parsers should take a single newline too.
            if lineEnd < end, lineEnd > position, bytes.byte(lineEnd - 1) == 0x0D { lineEnd -= 1 }
            guard let line = bytes.slice(at: position, count: lineEnd - position) else { break }
            do throws(ParseError.Reason) {
                try parser.take(line, number: number)
            } catch {
                throw ParseError(line: number, reason: error)
            }
            position = next
        }
        return try parser.finish(line: number + 1)
    }

    private func finish(line: Int) throws(ParseError) -> SessionDescription {
        guard seen.contains(UInt8(ascii: "v")) else { throw ParseError(line: line, reason: .missing(.version)) }
        guard let description else { throw ParseError(line: line, reason: .missing(.origin)) }
        guard seen.contains(UInt8(ascii: "s")) else { throw ParseError(line: line, reason: .missing(.sessionName)) }
        guard seen.contains(UInt8(ascii: "t")) else { throw ParseError(line: line, reason: .missing(.timing)) }
        return description
    }

    private mutating func take(_ line: RawSpan, number: Int) throws(ParseError.Reason) {
        guard line.byteCount <= limits.lineBytes else { throw .lineTooLong }
        for offset in 0..<line.byteCount where line.byte(offset) == 0 || line.byte(offset) == 0x0D {
            throw .forbiddenByte
        }
        guard line.byteCount >= 2, line.byte(1) == UInt8(ascii: "="),
            let value = line.slice(at: 2, count: line.byteCount - 2)
        else { throw .malformedLine }
        let type = line.byte(0)
        guard number > 1 || type == UInt8(ascii: "v") else { throw .missing(.version) }

        switch type {
        case UInt8(ascii: "v"):
            try once(type, .version)
            guard value.equals(value.whole, "0") else { throw .invalid(.version) }
        case UInt8(ascii: "o"):
            try once(type, .origin)
            description = try Self.origin(value)
        case UInt8(ascii: "s"):
            try once(type, .sessionName)
        case UInt8(ascii: "t"):
            // More than one time description is allowed (RFC 8866 section 5.9); none of them matters here.
            guard description?.media.isEmpty ?? true else { throw .duplicate(.timing) }
            seen.insert(type)
        case UInt8(ascii: "m"):
            try media(value, number: number)
        case UInt8(ascii: "a"):
            try attribute(value)
        case UInt8(ascii: "i"), UInt8(ascii: "u"), UInt8(ascii: "e"), UInt8(ascii: "p"), UInt8(ascii: "c"),
            UInt8(ascii: "b"), UInt8(ascii: "r"), UInt8(ascii: "z"), UInt8(ascii: "k"):
            break
        default:
            // RFC 8866 section 5: the set of type letters is not extensible; a parser rejects others.
            guard type >= 0x61, type <= 0x7A else { throw .malformedLine }
            throw .unknownType
        }
    }

    private mutating func once(_ type: UInt8, _ item: Item) throws(ParseError.Reason) {
        guard seen.insert(type).inserted else { throw .duplicate(item) }
    }

    /// RFC 8866 section 5.2: o=<username> <sess-id> <sess-version> <nettype> <addrtype> <unicast-address>
    private static func origin(_ value: RawSpan) throws(ParseError.Reason) -> SessionDescription {
        var position = 0
        var texts: [String] = []
        while let field = value.field(from: &position) {
            guard texts.count < 6 else { throw .invalid(.origin) }
            // The session id and version are kept; the user name and the address are of no use.
            let isKept = texts.count == 1 || texts.count == 2
            if isKept {
                guard field.count <= Lengths.originField, value.all(field, Characters.isVisible) else {
                    throw .invalid(.origin)
                }
            }
            texts.append(isKept ? value.text(field) : "")
        }
        guard texts.count == 6 else { throw .invalid(.origin) }
        return SessionDescription(sessionID: texts[1], sessionVersion: texts[2])
    }

    /// RFC 8866 section 5.14: m=<media> <port>[/<number of ports>] <proto> <fmt> ...
    private mutating func media(_ value: RawSpan, number: Int) throws(ParseError.Reason) {
        guard description != nil else { throw .missing(.origin) }
        guard (description?.media.count ?? 0) < limits.mediaSections else { throw .tooMany(.media) }
        var position = 0
        guard let kind = value.field(from: &position), value.isToken(kind, maximum: Lengths.kind),
            let ports = value.field(from: &position),
            let proto = value.field(from: &position), value.isProtocol(proto)
        else { throw .invalid(.media) }
        let slash = value.firstOffset(of: UInt8(ascii: "/"), from: ports.lowerBound) ?? value.byteCount
        guard let port = value.port(ports.lowerBound..<min(slash, ports.upperBound)) else { throw .invalid(.media) }
        if slash < ports.upperBound {
            guard value.decimal(slash + 1..<ports.upperBound) != nil else { throw .invalid(.media) }
        }
        var formats: [String] = []
        while let format = value.field(from: &position) {
            guard formats.count < Lengths.formats else { throw .tooMany(.format) }
            guard value.isToken(format, maximum: Lengths.format) else { throw .invalid(.format) }
            formats.append(value.text(format))
        }
        guard !formats.isEmpty else { throw .missing(.format) }
        description?.media.append(
            MediaSection(
                line: number, kind: value.text(kind), port: port, protocol: value.text(proto), formats: formats))
    }
}
