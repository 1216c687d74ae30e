public import Wire

/// One transport address that may reach an agent (RFC 8445 section 5.1), component 1.
public struct Candidate: Hashable, Sendable {
    public enum Kind: String, Hashable, Sendable, CaseIterable {
        case host
        case serverReflexive = "srflx"
        case peerReflexive = "prflx"
        case relayed = "relay"

        /// RFC 8445 section 5.1.2.2: recommended type preferences.
        public var preference: UInt32 {
            switch self {
            case .host: 126
            case .peerReflexive: 110
            case .serverReflexive: 100
            case .relayed: 0
            }
        }
    }

    /// Who opens the connection of a candidate over TCP (RFC 6544 section 4.5).
    public enum TCPType: String, Hashable, Sendable, CaseIterable {
        case active
        case passive
        case simultaneousOpen = "so"
    }

    public var kind: Kind
    /// Nil: UDP.
    public var tcpType: TCPType?
    /// Where the other side sends to.
    public var address: SocketAddress
    /// Where datagrams are sent from to use this candidate (RFC 8445 section 4); nil means ``address``.
    /// A machine behind a one-to-one NAT offers its public address with the private one here. An
    /// unspecified address leaves the choice to the routing table.
    public var base: SocketAddress?
    public var priority: UInt32
    public var foundation: String
    /// What the address was learned through, for diagnosis only (RFC 8839 section 5.1).
    public var relatedAddress: SocketAddress?

    public init(
        kind: Kind, address: SocketAddress, priority: UInt32, foundation: String? = nil, base: SocketAddress? = nil,
        relatedAddress: SocketAddress? = nil, tcpType: TCPType? = nil
    ) {
        self.kind = kind
        self.tcpType = tcpType
        self.address = address
        self.base = base
        self.priority = priority
        self.relatedAddress = relatedAddress
        self.foundation = foundation ?? Candidate.foundation(kind, (base ?? address).ip, isTCP: tcpType != nil)
    }

    public var transport: Transport { tcpType == nil ? .udp : .tcp }

    /// RFC 8445 section 5.1.2.1: type preference, local preference, component.
    public static func priority(_ kind: Kind, localPreference: UInt16, component: UInt8 = 1) -> UInt32 {
        kind.preference << 24 | UInt32(localPreference) << 8 | (256 &- UInt32(component))
    }

    /// The port of candidates from which connections are opened (RFC 6544 section 4.5).
    public static let discardPort: UInt16 = 9

    /// The priority of a candidate over TCP (RFC 6544 section 4.2): behind UDP's of the same kind and those of
    /// reflexive kinds, before relays. `otherPreference`: 0 to 8191.
    public static func priority(_ kind: Kind, _ tcpType: TCPType, otherPreference: UInt16) -> UInt32 {
        let type: UInt32 =
            switch kind {
            case .host: 90
            case .peerReflexive: 80
            case .serverReflexive: 75
            case .relayed: 0
            }
        // The direction that is more likely to get through is preferred.
        let direction: UInt32 =
            switch (tcpType, kind) {
            case (.active, .host), (.active, .relayed), (.simultaneousOpen, .peerReflexive),
                (.simultaneousOpen, .serverReflexive):
                6
            case (.passive, .host), (.passive, .relayed), (.active, _): 4
            default: 2
            }
        return type << 24 | (direction << 13 | UInt32(min(otherPreference, 8191))) << 8 | 255
    }

    /// Host candidates over TCP. Those that open connections say port 9, whatever port is given.
    public static func host(_ addresses: [SocketAddress], _ tcpType: TCPType) -> [Candidate] {
        host(addresses).enumerated().map { index, candidate in
            var address = candidate.address
            if tcpType == .active { address.port = discardPort }
            return Candidate(
                kind: .host, address: address,
                priority: priority(.host, tcpType, otherPreference: UInt16(clamping: 8191 - index)), tcpType: tcpType)
        }
    }

    /// Host candidates for `addresses`, IPv6 before IPv4 and otherwise in the given order (RFC 8421
    /// section 4: the order of preference is the order of local preferences). Link-local ones come last.
    public static func host(_ addresses: [SocketAddress]) -> [Candidate] {
        let ranked = addresses.enumerated().sorted { left, right in
            (rank(left.element.ip), left.offset) < (rank(right.element.ip), right.offset)
        }
        return ranked.enumerated().map { index, entry in
            let preference = UInt16(clamping: 65535 - index)
            return Candidate(
                kind: .host, address: entry.element, priority: priority(.host, localPreference: preference))
        }
    }

    private static func rank(_ ip: IPAddress) -> Int { ip.isLinkLocal ? 2 : ip.isIPv6 ? 0 : 1 }

    /// RFC 8445 section 5.1.1.3: equal for candidates of the same type, base address, server and transport, and
    /// different otherwise. A hash does it, printed in decimal.
    static func foundation(_ kind: Kind, _ ip: IPAddress, isTCP: Bool = false) -> String {
        var hash = FNV()
        for word in [UInt64(kind.preference), ip.high, ip.low] {
            for shift in stride(from: UInt64(0), to: 64, by: 8) { hash.add(UInt8(truncatingIfNeeded: word >> shift)) }
        }
        if isTCP { hash.add(6) }
        return String(UInt32(truncatingIfNeeded: hash.value ^ hash.value >> 32))
    }

    var foundationHash: UInt64 {
        var hash = FNV()
        for byte in foundation.utf8 { hash.add(byte) }
        return hash.value
    }
}

/// FNV-1a: the same in every process, unlike the standard library's hash.
private struct FNV {
    private(set) var value: UInt64 = 0xCBF2_9CE4_8422_2325

    mutating func add(_ byte: UInt8) { value = (value ^ UInt64(byte)) &* 0x100_0000_01B3 }
}
