/// What is kept of a connection that worked, to come back to the same server (docs/formats.md).
public struct CacheEntry: Hashable, Sendable {
    /// The lists in the order in which their candidates are tried.
    public enum List: String, CaseIterable, Sendable {
        case ipv6Host = "ipv6HostCandidates"
        case ipv6ServerReflexive = "ipv6SrflxCandidates"
        case ipv4Host = "ipv4HostCandidates"
        case ipv4ServerReflexive = "ipv4SrflxCandidates"
        case ipv6Relay = "ipv6RelayCandidates"
        case ipv4Relay = "ipv4RelayCandidates"

        /// May be missing when read: other writers do not know it.
        var isOptional: Bool { self == .ipv4Host || self == .ipv6Relay }

        /// The list of a candidate; nil for those that are learned from checks only.
        public init?(_ line: CandidateLine) {
            switch (line.kind, line.address.ip.isIPv6) {
            case (.host, true): self = .ipv6Host
            case (.host, false): self = .ipv4Host
            case (.serverReflexive, true): self = .ipv6ServerReflexive
            case (.serverReflexive, false): self = .ipv4ServerReflexive
            case (.relay, true): self = .ipv6Relay
            case (.relay, false): self = .ipv4Relay
            case (.peerReflexive, _): return nil
            }
        }

        public var isIPv6: Bool { self == .ipv6Host || self == .ipv6ServerReflexive || self == .ipv6Relay }
    }

    public enum Family: String, Sendable {
        case ipv6
        case ipv4
        case both
    }

    public private(set) var lists: [List: [CandidateInit]] = [:]
    public var lastSuccessfulProtocol: Family
    /// Unix time in milliseconds.
    public var timestamp: Int64
    /// The server's session token.
    public var sessionID: String
    public var lastConnectedIPv6: Bool?

    public init(
        lastSuccessfulProtocol: Family, timestamp: Int64, sessionID: String, lastConnectedIPv6: Bool? = nil
    ) {
        self.lastSuccessfulProtocol = lastSuccessfulProtocol
        self.timestamp = timestamp
        self.sessionID = sessionID
        self.lastConnectedIPv6 = lastConnectedIPv6
    }

    public subscript(_ list: List) -> [CandidateInit] {
        get { lists[list] ?? [] }
        set { lists[list] = newValue.isEmpty ? nil : newValue }
    }

    public static let maximumCandidates = 32
    /// Of an entry's JSON.
    public static let maximumBytes = 65_536
    /// The end of the year 9999.
    static let latestTimestamp: Int64 = 253_402_300_799_999
    static let maximumSessionIDBytes = 256
    static let maximumMidBytes = 64

    /// What a token may be: a name without spaces, as a header or a log line can carry it.
    public static func isSessionID(_ text: String) -> Bool {
        (1...maximumSessionIDBytes).contains(text.utf8.count)
            && text.utf8.allSatisfy { character in
                switch character {
                case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
                default: "-_.~+/=:".utf8.contains(character)
                }
            }
    }
}
