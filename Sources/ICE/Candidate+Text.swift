import Wire

/// What a `candidate` attribute says.
public enum CandidateText: Hashable, Sendable {
    case candidate(Candidate)
    /// A host name in place of an address, as browsers hide their addresses behind mDNS names, and the
    /// candidate as it is but for its IP, which is unspecified: see ``Candidate/resolved(_:)``. The other
    /// side's checks reach us all the same and show where it is.
    case name(String, Candidate)
    /// Well-formed, and of no use here.
    case ignored(Reason)
    case malformed

    public enum Reason: Hashable, Sendable {
        /// RFC 8839 section 5.1: unknown transports are ignored. So is TCP without a type (RFC 6544
        /// section 4.5).
        case otherTransport
        /// RTCP's own, which multiplexed media and data do not have.
        case otherComponent
        /// RFC 8839 section 5.1: candidates of unknown types are ignored.
        case otherType
        /// Nothing can be sent to it: port 0, no address, many addresses.
        case unusableAddress
    }

    /// Parses the attribute's text (RFC 8839 section 5.1), with or without "a=" and "candidate:".
    public init(parsing text: String) {
        guard text.utf8.count <= 1024 else {
            self = .malformed
            return
        }
        var fields = text.utf8.split(separator: UInt8(ascii: " "), maxSplits: 64).map(Substring.init)
        if let last = fields.last { fields[fields.count - 1] = last.trimmingLineEnd() }
        guard fields.count >= 8, let foundation = fields[0].strippingCandidatePrefix() else {
            self = .malformed
            return
        }
        self = CandidateText.parse(foundation, fields) ?? .malformed
    }

    private static func parse(_ foundation: Substring, _ fields: [Substring]) -> CandidateText? {
        guard (1...32).contains(foundation.utf8.count), foundation.utf8.allSatisfy(\.isICECharacter),
            let component = UInt16(decimal: fields[1]), component >= 1, component <= 256,
            let priority = UInt32(decimal: fields[3]), priority > 0,
            let port = UInt16(decimal: fields[5]),
            fields[6] == "typ"
        else { return nil }
        guard let tcpType = transport(fields) else { return .ignored(.otherTransport) }
        guard component == 1 else { return .ignored(.otherComponent) }
        guard let kind = Candidate.Kind(rawValue: String(fields[7])) else { return .ignored(.otherType) }
        let ip = IPAddress(String(fields[4]))
        guard let hostName = ip == nil ? name(fields[4]) : "" else { return nil }
        var candidate = Candidate(
            kind: kind, address: SocketAddress(ip: ip ?? .anyIPv6, port: port), priority: priority,
            foundation: String(foundation), relatedAddress: related(fields[8...]), tcpType: tcpType)
        // RFC 6544 section 4.5: nobody sends to an active candidate; it says port 9, and some say 0.
        if tcpType == .active, port == 0 { candidate.address.port = Candidate.discardPort }
        guard ip == nil ? candidate.address.port != 0 : candidate.address.isReachable else {
            return .ignored(.unusableAddress)
        }
        return ip == nil ? .name(hostName, candidate) : .candidate(candidate)
    }

    /// Nil for unknown transports, else nil inside for UDP.
    private static func transport(_ fields: [Substring]) -> Candidate.TCPType?? {
        switch fields[2].lowercased() {
        case "udp": return .some(nil)
        case "tcp":
            var position = 8
            while position + 1 < fields.count {
                if fields[position] == "tcptype" {
                    return Candidate.TCPType(rawValue: fields[position + 1].lowercased()).map { .some($0) } ?? nil
                }
                position += 2
            }
            return nil
        default: return nil
        }
    }

    /// `raddr` and `rport`, then extensions in pairs of name and value.
    private static func related(_ fields: ArraySlice<Substring>) -> SocketAddress? {
        guard fields.count >= 4, fields[fields.startIndex] == "raddr", fields[fields.startIndex + 2] == "rport",
            let ip = IPAddress(String(fields[fields.startIndex + 1])),
            let port = UInt16(decimal: fields[fields.startIndex + 3])
        else { return nil }
        return SocketAddress(ip: ip, port: port)
    }

    /// A domain name, or nil if the text cannot be one.
    private static func name(_ text: Substring) -> String? {
        guard text.utf8.count <= 255, text.utf8.contains(UInt8(ascii: ".")) else { return nil }
        let fits = text.utf8.allSatisfy { character in
            switch character {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"): true
            default: false
            }
        }
        return fits ? String(text) : nil
    }
}

extension Candidate {
    /// The attribute's text (RFC 8839 section 5.1), "candidate:" included and "a=" not.
    public var text: String {
        let transport = tcpType == nil ? "udp" : "tcp"
        var text =
            "candidate:\(foundation) 1 \(transport) \(priority) \(address.ip) \(address.port) typ \(kind.rawValue)"
        if let related = relatedAddress { text += " raddr \(related.ip) rport \(related.port)" }
        // RFC 6544 section 4.5.
        if let tcpType { text += " tcptype \(tcpType.rawValue)" }
        return text
    }

    /// The candidate that a host name stood for, now that its address is known.
    public func resolved(_ ip: IPAddress) -> Candidate? {
        var candidate = self
        candidate.address.ip = ip
        return candidate.address.isReachable ? candidate : nil
    }
}

extension SocketAddress {
    /// Whether anything can be sent there at all: one host, one port.
    var isReachable: Bool {
        port != 0 && !ip.isUnspecified && !ip.isMulticast && !(ip.isIPv4 && ip.v4Bits == .max)
    }
}

extension Substring {
    fileprivate func trimmingLineEnd() -> Substring {
        var text = self
        while let last = text.utf8.last, last == 0x0D || last == 0x0A { text = Substring(text.utf8.dropLast()) }
        return text
    }

    /// The foundation behind "a=candidate:"; nil if another attribute's name is before it.
    fileprivate func strippingCandidatePrefix() -> Substring? {
        var text = self
        if text.utf8.starts(with: "a=".utf8) { text = Substring(text.utf8.dropFirst(2)) }
        guard let colon = text.utf8.firstIndex(of: UInt8(ascii: ":")) else { return text }
        guard text.utf8[..<colon].elementsEqual("candidate".utf8) else { return nil }
        return Substring(text.utf8[text.utf8.index(after: colon)...])
    }
}

extension FixedWidthInteger {
    /// Digits only: no sign, no spaces.
    fileprivate init?(decimal text: Substring) {
        guard (1...10).contains(text.utf8.count), text.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) else { return nil }
        self.init(text, radix: 10)
    }
}
