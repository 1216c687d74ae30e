/// Our end of a connection, as it goes into a description.
public struct LocalTransport: Sendable {
    public var iceUfrag: String
    public var icePwd: String
    public var fingerprints: [Fingerprint]
    public var isLite = false
    public var iceOptions = ["ice2", "trickle"]
    /// Text from "candidate:" on, in the order they shall stand: IPv6 first.
    public var candidates: [String] = []
    public var hasEndOfCandidates = false
    public var sctpPort: UInt16 = 5000
    public var maxMessageSize: UInt64 = 262_144
    /// `a=sctp-init`, base64.
    public var sctpInit: String?

    public init(iceUfrag: String, icePwd: String, fingerprints: [Fingerprint]) {
        self.iceUfrag = iceUfrag
        self.icePwd = icePwd
        self.fingerprints = fingerprints
    }

    /// Everything that becomes part of a line is checked, so that no value can add a line.
    func validate() throws(NegotiationError) {
        guard iceUfrag.isICE(lengths: Lengths.ufrag) else { throw .invalidLocal(.iceUfrag) }
        guard icePwd.isICE(lengths: Lengths.password) else { throw .invalidLocal(.icePwd) }
        guard !fingerprints.isEmpty else { throw .invalidLocal(.fingerprint) }
        for option in iceOptions where !option.isToken(maximum: Lengths.option) { throw .invalidLocal(.iceOptions) }
        for candidate in candidates
        where !candidate.isPlainLine(maximum: Lengths.candidate) || !candidate.hasPrefix("candidate:") {
            throw .invalidLocal(.candidate)
        }
        guard sctpPort > 0 else { throw .invalidLocal(.sctpPort) }
        if let sctpInit {
            guard !sctpInit.isEmpty, sctpInit.utf8.count <= Lengths.sctpInit,
                sctpInit.utf8.allSatisfy(Characters.isBase64)
            else { throw .invalidLocal(.sctpInit) }
        }
    }
}

/// The numbers of `o=`: the id stays for the life of a peer connection, the version grows by one
/// with every description that differs (RFC 8829 section 5.2.2).
public struct Origin: Hashable, Sendable {
    public private(set) var id: UInt64
    public private(set) var version: UInt64

    /// RFC 8829 section 5.2.1: the id is a random number of 63 bits.
    public init(id: UInt64, version: UInt64 = 1) {
        self.id = id & 0x7FFF_FFFF_FFFF_FFFF
        self.version = version & 0x7FFF_FFFF_FFFF_FFFF
    }

    public mutating func advance() { version = (version &+ 1) & 0x7FFF_FFFF_FFFF_FFFF }
}
