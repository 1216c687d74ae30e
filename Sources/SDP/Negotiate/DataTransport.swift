/// Why two descriptions do not make a connection.
public enum NegotiationError: Error, Hashable, Sendable {
    /// No section for data channels, or only rejected ones.
    case noDataSection
    /// The peer's section whose `m=` stands in `line` lacks `item`, and no level above has it.
    case missing(Item, line: Int)
    /// The peer's `a=setup` gives no association: holdconn, or actpass in an answer.
    case setup(SetupRole)
    /// The answer does not match our offer in `item`.
    case mismatch(Item, line: Int)
    /// The answer rejects our section.
    case rejected
    /// What the caller wants to put into a description breaks the grammar there.
    case invalidLocal(Item)
}

extension NegotiationError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .noDataSection: "no section for data channels"
        case .missing(let item, let line): "section at line \(line) lacks \(item.rawValue)"
        case .setup(let role): "setup:\(role.rawValue) gives no association"
        case .mismatch(let item, let line): "line \(line): answer does not match the offer in \(item.rawValue)"
        case .rejected: "data channels were rejected"
        case .invalidLocal(let item): "local \(item.rawValue) is not valid"
        }
    }
}

/// What the peer says about its end of the data channels' transport, every level considered.
public struct DataTransport: Hashable, Sendable {
    /// Which section of the description it is, for RTCIceCandidateInit.sdpMLineIndex.
    public var mediaIndex: Int
    public var mid: String?
    public var iceUfrag: String
    public var icePwd: String
    public var iceOptions: [String]
    public var isLite: Bool
    /// At least one.
    public var fingerprints: [Fingerprint]
    /// nil if the peer said nothing.
    public var setup: SetupRole?
    public var sctpPort: UInt16
    /// RFC 8841 section 6.1: 65536 if the peer says nothing; zero means it takes any size.
    public var maxMessageSize: UInt64
    /// Text from "candidate:" on.
    public var candidates: [String]
    public var hasEndOfCandidates: Bool
    /// `a=sctp-init`, base64.
    public var sctpInit: String?

    /// For an end that is known without a description of its own.
    public init(
        mediaIndex: Int = 0, mid: String? = "0", iceUfrag: String, icePwd: String, iceOptions: [String] = [],
        isLite: Bool = false, fingerprints: [Fingerprint], setup: SetupRole?, sctpPort: UInt16 = 5000,
        maxMessageSize: UInt64 = 65_536, candidates: [String] = [], hasEndOfCandidates: Bool = false,
        sctpInit: String? = nil
    ) {
        self.mediaIndex = mediaIndex
        self.mid = mid
        self.iceUfrag = iceUfrag
        self.icePwd = icePwd
        self.iceOptions = iceOptions
        self.isLite = isLite
        self.fingerprints = fingerprints
        self.setup = setup
        self.sctpPort = sctpPort
        self.maxMessageSize = maxMessageSize
        self.candidates = candidates
        self.hasEndOfCandidates = hasEndOfCandidates
        self.sctpInit = sctpInit
    }

    public var supportsTrickle: Bool { iceOptions.contains("trickle") }

    /// RFC 8839 section 4.4.1.1.1: new credentials mean a restart.
    public func restartsICE(since previous: DataTransport) -> Bool {
        iceUfrag != previous.iceUfrag || icePwd != previous.icePwd
    }
}

extension SessionDescription {
    /// The first section that carries data channels and is not rejected.
    var dataSectionIndex: Int? {
        media.firstIndex { $0.isDataChannels && !$0.isRejected }
    }

    /// The BUNDLE group with `mid` in it.
    func bundle(with mid: String?) -> [String]? {
        guard let mid else { return nil }
        return bundles.first { $0.contains(mid) }
    }

    /// The peer's end, from its data section, the section its BUNDLE group takes the transport from,
    /// and the session level.
    public func dataTransport() throws(NegotiationError) -> DataTransport {
        guard let index = dataSectionIndex else { throw .noDataSection }
        let section = media[index]
        let shared = bundleTransport(for: section)
        let own = section.transport
        let candidates = section.candidates.isEmpty ? shared?.candidates ?? [] : section.candidates

        // The user fragment and the password belong together: both from one level.
        let levels = [own, shared?.transport, transport].compactMap { $0 }
        let withUfrag = levels.first { $0.iceUfrag != nil || $0.icePwd != nil }
        guard let ufrag = withUfrag?.iceUfrag else { throw .missing(.iceUfrag, line: section.line) }
        guard let password = withUfrag?.icePwd else { throw .missing(.icePwd, line: section.line) }
        // RFC 8122 section 5: media level replaces session level.
        guard let fingerprints = levels.first(where: { !$0.fingerprints.isEmpty })?.fingerprints else {
            throw .missing(.fingerprint, line: section.line)
        }
        return DataTransport(
            mediaIndex: index, mid: section.mid, iceUfrag: ufrag, icePwd: password,
            iceOptions: levels.first { !$0.iceOptions.isEmpty }?.iceOptions ?? [],
            isLite: isLite, fingerprints: fingerprints,
            setup: levels.lazy.compactMap(\.setup).first,
            sctpPort: section.sctpPort ?? section.sctpmapPort ?? 5000,
            maxMessageSize: section.maxMessageSize ?? 65_536,
            candidates: candidates,
            hasEndOfCandidates: section.hasEndOfCandidates || shared?.hasEndOfCandidates ?? false || hasEndOfCandidates,
            sctpInit: section.sctpInit)
    }

    /// A bundle-only data section is taken although the section it hangs on gets rejected. RFC 9143 would
    /// have it rejected too; Firefox goes along. (Chromium with the max-bundle policy, whose offer shows no
    /// sign of it, gives up the whole group with its first section and refuses any such answer.)
    ///
    /// RFC 9143 section 7.1.3: transport attributes of a bundled section may stand only in the section
    /// that is first in the group. Candidates of another set of credentials are left out.
    private func bundleTransport(for section: MediaSection) -> MediaSection? {
        guard let group = bundle(with: section.mid) else { return nil }
        for mid in group where mid != section.mid {
            guard let other = media.first(where: { $0.mid == mid }), !other.isRejected else { continue }
            guard other.transport.iceUfrag != nil else { continue }
            let differs = section.transport.iceUfrag != nil && section.transport.iceUfrag != other.transport.iceUfrag
            return differs ? nil : other
        }
        return nil
    }
}
