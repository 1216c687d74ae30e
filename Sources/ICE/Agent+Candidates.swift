public import Wire

/// Candidates that come and go (RFC 8838).
extension Agent {
    /// A local candidate that was gathered later, or appeared with an interface. It is paired with all of the
    /// other side's that are known.
    public func addLocalCandidate(_ candidate: Candidate, now: Instant) {
        guard phase != .closed else { return }
        guard !localCandidates.contains(where: { $0.isSame(as: candidate) }) else { return }
        guard localCandidates.count < configuration.maximumLocalCandidates else {
            statistics.candidatesRefused &+= 1
            return
        }
        localCandidates.append(candidate)
        guard !configuration.isLite, isAllowed(candidate) else { return }
        for remote in generation.remoteCandidates where canPair(candidate, remote) { form(candidate, remote) }
    }

    /// Local candidates that are gone, as with an interface or a relay. Their pairs end; if the path in use is
    /// among them, the best of the other valid pairs takes over at once, and without one it is suspected.
    public func removeLocalCandidates(where gone: (Candidate) -> Bool, now: Instant) {
        let removed = localCandidates.filter(gone)
        guard phase != .closed, !removed.isEmpty else { return }
        localCandidates.removeAll(where: gone)
        func isOn(_ candidate: Candidate, _ pair: Pair) -> Bool {
            candidate.transport == pair.transport && (candidate.base ?? candidate.address).isSameSource(as: pair.local)
        }
        for index in pairs.indices.reversed() {
            let pair = pairs[index]
            guard removed.contains(where: { isOn($0, pair) }), !localCandidates.contains(where: { isOn($0, pair) })
            else { continue }
            if pair.id == selected || pair.id == provisional { pairs[index].isGone = true } else { remove(index) }
        }
        mayHaveWaiting = true
        if let index = activePair, pairs[index].isGone { lose(index, now) }
        despair()
    }

    /// There will be no more local candidates in this generation: failure may be found out.
    public func localCandidatesComplete() {
        localIsComplete = true
        despair()
    }

    /// Our and the other side's candidate that `path` goes between; one that only checks showed is made up.
    public func candidates(of path: Path) -> (local: Candidate, remote: Candidate)? {
        guard let index = pairIndex(on: path) else { return nil }
        let pair = pairs[index]
        return (localCandidate(of: pair), remoteCandidate(of: pair))
    }

    private func localCandidate(of pair: Pair) -> Candidate {
        let own = localCandidates.filter { $0.transport == pair.transport }
        let onBase = own.filter { ($0.base ?? $0.address).isSameSource(as: pair.local) }
        // RFC 8445 section 7.2.5.3.2: the valid pair's local candidate is what the other side sees.
        if let mapped = pair.mapped, pair.transport == .udp {
            if let seen = own.first(where: { $0.address == mapped }) { return seen }
            if let relayed = onBase.first(where: { $0.kind == .relayed }) { return relayed }
            return Candidate(
                kind: .peerReflexive, address: mapped, priority: pair.localPriority, base: pair.local,
                relatedAddress: pair.local)
        }
        let best = onBase.max { $0.priority < $1.priority }
        return best ?? Candidate(kind: .host, address: pair.local, priority: pair.localPriority)
    }

    private func remoteCandidate(of pair: Pair) -> Candidate {
        let remote = generation(pair.generation)?.remoteCandidates ?? []
        return remote.first { $0.address == pair.remote && $0.transport == pair.transport }
            ?? Candidate(
                kind: .peerReflexive, address: pair.remote, priority: pair.remotePriority,
                tcpType: pair.transport == .udp ? nil : pair.local.port == Candidate.discardPort ? .passive : .active)
    }

    /// Whether the policy lets this local candidate be used.
    func isAllowed(_ candidate: Candidate) -> Bool { !configuration.relayOnly || candidate.kind == .relayed }

    /// Whether the policy lets anything be answered there.
    func isAllowed(local: SocketAddress, _ transport: Transport) -> Bool {
        guard configuration.relayOnly else { return true }
        return localCandidates.contains {
            $0.kind == .relayed && $0.transport == transport && ($0.base ?? $0.address) == local
        }
    }

    // MARK: Of descriptions before and after

    func isCurrent(ufrag: String) -> Bool { generation.remote?.ufrag.elementsEqual(ufrag.utf8) ?? false }

    /// A candidate of another description than the current one.
    func keep(_ candidate: Candidate, _ ufrag: [UInt8]) {
        if previous?.remote?.ufrag == ufrag || retiredUfrags.contains(ufrag) {
            statistics.candidatesStale &+= 1
            return
        }
        guard early.count < configuration.maximumEarlyCandidates, ufrag.count <= 256 else {
            statistics.candidatesRefused &+= 1
            return
        }
        early.append((ufrag, candidate))
    }

    /// The description has come: its candidates are taken, others go on waiting.
    func takeEarlyCandidates() {
        guard let ufrag = generation.remote?.ufrag, !early.isEmpty else { return }
        let taken = early.filter { $0.ufrag == ufrag }
        early.removeAll { $0.ufrag == ufrag }
        for entry in taken { learn(entry.candidate) }
    }

    func retire(_ ufrag: [UInt8]) {
        guard !retiredUfrags.contains(ufrag) else { return }
        if retiredUfrags.count >= 8 { retiredUfrags.removeFirst() }
        retiredUfrags.append(ufrag)
    }
}

extension Candidate {
    func isSame(as other: Candidate) -> Bool {
        address == other.address && tcpType == other.tcpType && (base ?? address) == (other.base ?? other.address)
    }
}
