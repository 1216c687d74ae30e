import Wire

/// The check list (RFC 8445 section 6.1.2).
extension Agent {
    var canCheck: Bool { phase == .running && generation.remote?.key != nil }

    func index(of id: Pair.ID?) -> Int? {
        guard let id else { return nil }
        // Asked per packet, and nearly always for the same one.
        if lastIndex < pairs.count, pairs[lastIndex].id == id { return lastIndex }
        guard let index = pairs.firstIndex(where: { $0.id == id }) else { return nil }
        lastIndex = index
        return index
    }

    /// The pair in use.
    var activePair: Int? { index(of: selected) ?? index(of: provisional) }

    func pairIndex(_ path: Path, _ generation: UInt32) -> Int? {
        pairs.firstIndex { $0.generation == generation && $0.isOn(path) }
    }

    /// The pair on `path`: that in use before others, of the newest generation before older ones.
    func pairIndex(on path: Path) -> Int? {
        if let index = activePair, pairs[index].isOn(path) { return index }
        return pairIndex(path, generation.number) ?? previous.flatMap { pairIndex(path, $0.number) }
    }

    /// Takes a candidate of the other side and pairs it with ours.
    func learn(_ candidate: Candidate) {
        guard
            !generation.remoteCandidates.contains(where: {
                $0.address == candidate.address && $0.transport == candidate.transport
            })
        else { return }
        // RFC 6544 section 6.2: nothing is sent to an active candidate. What comes from there shows its own address.
        if candidate.tcpType == .active { return }
        // Opening from both ends at once is not done here.
        guard candidate.tcpType != .simultaneousOpen else {
            statistics.candidatesRefused &+= 1
            return
        }
        guard generation.remoteCandidates.count < configuration.maximumRemoteCandidates else {
            statistics.candidatesRefused &+= 1
            return
        }
        generation.remoteCandidates.append(candidate)
        for local in localCandidates where isAllowed(local) && canPair(local, candidate) { form(local, candidate) }
    }

    /// RFC 8445 section 6.1.2.2: the same address family, link-local with link-local. Loopback only
    /// with loopback, so that a description cannot aim checks at this machine's own services.
    func canPair(_ local: Candidate, _ remote: Candidate) -> Bool {
        // RFC 6544 section 6.2: over TCP, one opens and the other listens. Who listens waits for checks.
        if local.tcpType != nil || remote.tcpType != nil {
            guard local.tcpType == .active, remote.tcpType == .passive else { return false }
        }
        let (here, there) = (local.address.ip, remote.address.ip)
        return here.isIPv4 == there.isIPv4 && here.isLoopback == there.isLoopback
            && (here.isIPv4 || here.isLinkLocal == there.isLinkLocal)
    }

    func form(_ local: Candidate, _ candidate: Candidate) {
        let base = local.base ?? local.address
        var remote = candidate.address
        if remote.ip.isLinkLocal, remote.scope == 0 { remote.scope = base.scope }
        let relays = (local.kind == .relayed ? 1 : 0) + (candidate.kind == .relayed ? 1 : 0)
        // RFC 8445 section 6.1.2.4: pairs with the same base and remote candidate are redundant.
        if let same = pairIndex(
            Path(local: base, remote: remote, transport: candidate.transport), generation.number)
        {
            pairs[same].localPriority = max(pairs[same].localPriority, local.priority)
            // Checks may have shown the address before; from now on it is what its signaling says.
            pairs[same].remotePriority = candidate.priority
            pairs[same].remoteFoundation = candidate.foundationHash
            pairs[same].relays = relays
            pairs[same].isGone = false
            return
        }
        guard makeRoomForPair() else {
            statistics.candidatesRefused &+= 1
            return
        }
        var pair = Pair(
            id: takePairID(), generation: generation.number, local: base, remote: remote,
            transport: candidate.transport,
            localPriority: local.priority, remotePriority: candidate.priority, localFoundation: local.foundationHash,
            remoteFoundation: candidate.foundationHash,
            relays: relays, state: .frozen)
        pair.isLate = isCurrent(selected)
        pairs.append(pair)
        mayHaveWaiting = true
        // RFC 8445 section 6.1.2.6: the first pair of each foundation need not wait for another.
        if !pairs.contains(where: { $0.id != pair.id && $0.sharesFoundation(with: pair) && isUnderWay($0) }) {
            pairs[pairs.count - 1].state = .waiting
        }
    }

    private func isUnderWay(_ pair: Pair) -> Bool {
        pair.generation == generation.number && (pair.state == .waiting || pair.state == .inProgress)
    }

    func takePairID() -> Pair.ID {
        nextPairID &+= 1
        return nextPairID
    }

    /// RFC 8445 section 6.1.2.5: the number of pairs has a limit. Failed ones go first, then those of a generation
    /// that is nearly over.
    func makeRoomForPair() -> Bool {
        guard pairs.count >= configuration.maximumPairs else { return true }
        func first(where condition: (Pair) -> Bool) -> Int? {
            pairs.firstIndex { condition($0) && $0.id != selected && $0.id != provisional && $0.id != standby }
        }
        let number = generation.number
        let dispensable =
            first { $0.state == .failed } ?? first { $0.generation != number && $0.state != .succeeded }
            ?? first { $0.generation != number }
        guard let dispensable else { return false }
        remove(dispensable)
        return true
    }

    func remove(_ index: Int) {
        let id = pairs.remove(at: index).id
        triggered.removeAll { $0 == id }
        probes.removeAll { $0 == id }
        if standby == id { standby = nil }
        transactions.removeAll { $0.pair == id }
    }

    /// The next pair for an ordinary check (RFC 8445 section 6.1.4.2).
    func nextWaiting() -> Int? {
        // RFC 8421 section 4: families take turns, so that one that is dead costs the other one interval.
        if let family = lastFamilyWasIPv4,
            let other = best(where: { $0.state == .waiting && $0.remote.ip.isIPv4 != family })
        {
            return other
        }
        if let waiting = best(where: { $0.state == .waiting }) { return waiting }
        // Nothing is waiting: the best frozen pair of a foundation that nothing is under way for.
        let frozen = best { [self] pair in
            pair.state == .frozen && !pairs.contains { isUnderWay($0) && $0.sharesFoundation(with: pair) }
        }
        // Until a check's outcome or a new candidate changes that.
        if frozen == nil { mayHaveWaiting = false }
        return frozen
    }

    /// RFC 8445 section 8.1.2: after nomination only better pairs are still worth a check, and none at
    /// all for the side that nominated; unless the path in use no longer answers.
    func isWorthChecking(_ pair: Pair) -> Bool {
        guard pair.generation == generation.number else { return false }
        guard let selected = index(of: selected), pairs[selected].generation == generation.number, !isSuspect
        else { return true }
        // What came later is tried once: it may be the second path, or a more direct one.
        if pair.isLate { return true }
        return role == .controlled && pair.priority(role) > pairs[selected].priority(role)
    }

    private func best(where condition: (Pair) -> Bool) -> Int? {
        var best: Int?
        for index in pairs.indices where condition(pairs[index]) && isWorthChecking(pairs[index]) {
            if best.map({ pairs[index].priority(role) > pairs[$0].priority(role) }) ?? true { best = index }
        }
        return best
    }

    /// RFC 8445 section 7.2.5.3.3: what has the same foundation as a pair that works probably works too.
    func unfreeze(like pair: Pair) {
        for index in pairs.indices where pairs[index].state == .frozen && pairs[index].sharesFoundation(with: pair) {
            pairs[index].state = .waiting
            mayHaveWaiting = true
        }
    }

    /// RFC 8445 section 7.3.1.4: a check now, whatever the pair's state is.
    func trigger(_ index: Int) {
        let id = pairs[index].id
        for position in transactions.indices
        where transactions[position].pair == id && !transactions[position].usesCandidate {
            transactions[position].isCancelled = true
        }
        if pairs[index].state != .succeeded { pairs[index].state = .waiting }
        mayHaveWaiting = true
        if triggered.count >= Agent.maximumTransactions { return }
        if !triggered.contains(id) { triggered.append(id) }
    }
}
