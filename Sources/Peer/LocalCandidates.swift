public import ICE
public import Wire

/// Candidates of ours that come and go (RFC 8838).
extension Peer {
    /// A candidate of ours that is new: checked, and told to the other side. After the end of them was told too: like
    /// browsers, which gather as long as they live.
    public func addLocalCandidate(_ candidate: Candidate, now: Instant) {
        guard !isClosed, isAllowed(candidate), candidates.count < Peer.maximumLocalCandidates,
            !candidates.contains(where: { $0.isSameAddress(as: candidate) })
        else { return }
        candidates.append(candidate)
        agent.addLocalCandidate(candidate, now: now)
        tell(text(of: candidate))
        drainAgent(now: now)
    }

    static let maximumLocalCandidates = 64

    /// Candidates of ours that are gone.
    public func removeLocalCandidates(where gone: (Candidate) -> Bool, now: Instant) {
        guard !isClosed, candidates.contains(where: gone) else { return }
        let path = agent.selectedPath
        let loses = candidates.contains { gone($0) && isBase($0, of: path) }
        candidates.removeAll(where: gone)
        agent.removeLocalCandidates(where: gone, now: now)
        // The next valid pair takes over at once, where there is one.
        isOrphaned = (isOrphaned || loses) && agent.selectedPath == path
        drainAgent(now: now)
    }

    private func isBase(_ candidate: Candidate, of path: Path?) -> Bool {
        guard let path else { return false }
        let base = candidate.base ?? candidate.address
        return path.transport == candidate.transport && path.local.port == base.port
            && (path.local.ip == base.ip || path.local.ip.isUnspecified)
    }

    /// All candidates of ours are there, as far as is known. The other side is told once per generation.
    public func localCandidatesComplete(now: Instant) {
        guard !isClosed, !candidatesAreComplete else { return }
        candidatesAreComplete = true
        agent.localCandidatesComplete()
        drainAgent(now: now)
        guard let ufrag = described else { return }
        emit(.signal(.candidate(line: nil, mid: signaling.layout.mid ?? "", ufrag: ufrag)))
    }

    /// RFC 8839 section 5.1: policy "relay" is for hiding addresses, and the one a relay sees is one of them.
    func text(of candidate: Candidate) -> String {
        guard configuration.relayOnly, let related = candidate.relatedAddress else { return candidate.text }
        var hidden = candidate
        let anywhere = IPAddress(related.ip.isIPv4 ? "0.0.0.0" : "::") ?? related.ip
        hidden.relatedAddress = SocketAddress(ip: anywhere, port: 9)
        return hidden.text
    }

    func isAllowed(_ candidate: Candidate) -> Bool { !configuration.relayOnly || candidate.kind == .relayed }

    /// The other side is about to learn of these credentials, and of all candidates so far.
    func noteDescribed(_ own: Credentials) { described = own.ufrag }

    private func tell(_ line: String) {
        guard configuration.style != .manual, let ufrag = described else { return }
        // RFC 8839 section 5.1 leaves room for extensions; browsers name the generation in this one.
        emit(.signal(.candidate(line: line + " ufrag \(ufrag)", mid: signaling.layout.mid ?? "", ufrag: ufrag)))
    }
}

extension Candidate {
    fileprivate func isSameAddress(as other: Candidate) -> Bool {
        address == other.address && base == other.base && kind == other.kind && tcpType == other.tcpType
    }
}

/// What a candidate line says behind its address.
enum CandidateExtension {
    static func ufrag(of line: String) -> String? {
        let fields = line.utf8.split(separator: UInt8(ascii: " "), maxSplits: 64)
        guard fields.count > 8 else { return nil }
        var index = 8
        while index + 1 < fields.count {
            if fields[index].elementsEqual("ufrag".utf8) { return String(Substring(fields[index + 1])) }
            index += 2
        }
        return nil
    }
}
