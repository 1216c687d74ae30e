public import Wire

/// A `candidate:` line with every field checked (RFC 8839 section 5.1; RFC 6544 section 4.5 for TCP). Host names, as
/// pages hide their addresses behind, are refused: what is kept must lead somewhere later.
public struct CandidateLine: Hashable, Sendable {
    public enum Kind: String, Sendable {
        case host
        case serverReflexive = "srflx"
        case peerReflexive = "prflx"
        case relay
    }

    public enum Transport: Hashable, Sendable {
        case udp
        case tcp(TCPType)
    }

    public enum TCPType: String, Sendable {
        case active
        case passive
        case simultaneousOpen = "so"
    }

    public var foundation: String
    public var component: UInt16
    public var transport: Transport
    public var priority: UInt32
    public var address: SocketAddress
    public var kind: Kind
    public var related: SocketAddress?

    public static let maximumBytes = 512
    static let maximumExtensions = 16

    /// Takes the line with or without "a="; nil unless all of it is right.
    public init?(parsing text: String) {
        guard text.utf8.count <= CandidateLine.maximumBytes,
            text.utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7F })
        else { return nil }
        var text = Substring(text)
        if text.hasPrefix("a=") { text = text.dropFirst(2) }
        guard text.hasPrefix("candidate:") else { return nil }
        // One space between fields, none at the ends: an empty field fails its own check.
        let fields = text.dropFirst("candidate:".count).split(separator: " ", omittingEmptySubsequences: false)
        guard fields.count >= 8, fields.count <= 8 + 4 + 2 * CandidateLine.maximumExtensions, fields[6] == "typ",
            (1...32).contains(fields[0].utf8.count), fields[0].utf8.allSatisfy(\.isICECharacter),
            let component = decimal(fields[1], 1...256), let priority = decimal(fields[3], 1...0x7FFF_FFFF),
            let ip = IPAddress(String(fields[4])), let port = decimal(fields[5], 1...65535),
            let kind = Kind(rawValue: String(fields[7]))
        else { return nil }
        guard !ip.isUnspecified, !ip.isMulticast, !(ip.isIPv4 && ip.v4Bits == .max) else { return nil }
        foundation = String(fields[0])
        self.component = UInt16(component)
        self.priority = UInt32(priority)
        address = SocketAddress(ip: ip, port: UInt16(port))
        self.kind = kind
        guard let rest = Extensions(fields[8...]) else { return nil }
        related = rest.related
        switch (fields[2].lowercased(), rest.tcpType) {
        case ("udp", nil): transport = .udp
        case ("tcp", let type?): transport = .tcp(type)
        default: return nil
        }
    }
}

/// What follows the type: `raddr` and `rport` first, then pairs of a name and a value.
private struct Extensions {
    var related: SocketAddress?
    var tcpType: CandidateLine.TCPType?

    init?(_ fields: ArraySlice<Substring>) {
        var fields = fields
        if fields.first == "raddr" {
            // The address may be hidden as the unspecified one (RFC 8839 section 5.1).
            guard fields.count >= 4, fields[fields.startIndex + 2] == "rport",
                let ip = IPAddress(String(fields[fields.startIndex + 1])),
                let port = decimal(fields[fields.startIndex + 3], 0...65535)
            else { return nil }
            related = SocketAddress(ip: ip, port: UInt16(port))
            fields = fields.dropFirst(4)
        }
        guard fields.count % 2 == 0, fields.count / 2 <= CandidateLine.maximumExtensions else { return nil }
        while let name = fields.popFirst(), let value = fields.popFirst() {
            guard (1...32).contains(name.utf8.count), (1...256).contains(value.utf8.count), name != "raddr",
                name != "rport"
            else { return nil }
            guard name == "tcptype" else { continue }
            guard tcpType == nil, let type = CandidateLine.TCPType(rawValue: String(value)) else { return nil }
            tcpType = type
        }
    }
}

/// Digits only, no leading zeros.
private func decimal(_ text: Substring, _ range: ClosedRange<Int>) -> Int? {
    guard (1...10).contains(text.utf8.count), text.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }),
        text == "0" || text.utf8.first != 0x30, let value = Int(text), range.contains(value)
    else { return nil }
    return value
}
