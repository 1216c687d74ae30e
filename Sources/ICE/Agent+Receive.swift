import STUN
public import Wire

extension Agent {
    /// Takes a datagram that came `from` the other side `to` a local address; the latter's IP may be
    /// unspecified if the socket does not tell.
    public func handle(
        datagram: RawSpan, from: SocketAddress, to local: SocketAddress, transport: Transport = .udp, now: Instant
    ) -> Disposition {
        let disposition = receive(datagram, Path(local: local, remote: from, transport: transport), now)
        if case .ignored(let reason) = disposition { statistics.count(reason) }
        return disposition
    }

    private func receive(_ datagram: RawSpan, _ path: Path, _ now: Instant) -> Disposition {
        guard phase != .closed else { return .ignored(.closed) }
        let message: Message
        do throws(Malformation) {
            message = try Message(datagram)
        } catch {
            return .ignored(error == .notSTUN ? .notSTUN : .malformed)
        }
        guard message.method == MessageType.binding else { return .ignored(.unexpected) }
        switch message.messageClass {
        case .request: return receiveRequest(message, path, now)
        case .success, .error: return receiveResponse(message, path, now)
        // RFC 8445 section 11: Binding Indications keep bindings alive and say nothing else.
        case .indication: return .ignored(.unexpected)
        }
    }

    // MARK: Requests

    private func receiveRequest(_ message: borrowing Message, _ path: Path, _ now: Instant) -> Disposition {
        guard let ufrag = message.receiverUfrag else { return .ignored(.otherUfrag) }
        // RFC 8445 section 7.3: the first half of USERNAME is ours.
        guard let (number, key) = receiver(ufrag) else { return .ignored(.otherUfrag) }
        guard isAllowed(local: path.local, path.transport) else { return .ignored(.forbidden) }
        guard message.isAuthentic(key) else { return .ignored(.badIntegrity) }
        // The other side has restarted and does not know our new generation yet. An answer by the old one would have it use
        // a path that our checks cannot confirm; without one it asks again when it knows.
        if isRestarting, number != generation.number, isFromNewGeneration(message) { return .ignored(.otherUfrag) }
        guard responses.count < Agent.maximumResponses else { return .ignored(.overloaded) }

        let verdict = recentRequests.note(message.transactionID, from: path.remote)
        guard verdict != .replay else { return .ignored(.replayed) }
        statistics.requestsReceived &+= 1

        // RFC 8489 section 6.3.1: what must be understood and is not makes the request unusable.
        guard message.unknownAttributes.isEmpty else {
            respond(.unknownAttributes(message.unknownAttributes), message, path, key)
            return .consumed
        }
        guard !refusesRole(of: message, now) else {
            statistics.roleConflicts &+= 1
            respond(.roleConflict, message, path, key)
            return .consumed
        }
        respond(.success, message, path, key)
        if verdict == .new, generation(number) != nil { learn(from: message, path, number, now) }
        return .consumed
    }

    private func isFromNewGeneration(_ message: borrowing Message) -> Bool {
        guard let sender = message.senderUfrag, let remote = generation.remote else { return false }
        let ufrag = remote.ufrag
        return sender.elementsEqual(ufrag.span.bytes)
    }

    /// The generation that a request is for. One that is over is answered for a moment, and nothing more.
    private func receiver(_ ufrag: RawSpan) -> (UInt32, IntegrityKey)? {
        // A copy: a span of a member of a class lives too short.
        if generation.isNamed(ufrag) { return (generation.number, generation.localKey) }
        if let previous, previous.isNamed(ufrag) { return (previous.number, previous.localKey) }
        if let retired, retired.isNamed(ufrag) { return (retired.number, retired.localKey) }
        return nil
    }

    static let maximumResponses = 64

    private func respond(_ kind: Response.Kind, _ message: borrowing Message, _ path: Path, _ key: IntegrityKey) {
        responses.append(
            Response(
                id: message.transactionID, kind: kind, algorithm: message.integrityAlgorithm ?? .sha1,
                key: key, path: path))
    }

    /// RFC 8445 section 7.3.1.1: both sides in one role. The larger tie-breaker controls; the agent
    /// that is right answers 487, the other changes its role. True: answer 487.
    private func refusesRole(of message: borrowing Message, _ now: Instant) -> Bool {
        guard !configuration.isLite, !generation.remoteIsLite else { return false }
        switch role {
        case .controlling:
            guard let theirs = message.iceControlling else { return false }
            guard tieBreaker < theirs else { return true }
            change(to: .controlled, now)
        case .controlled:
            guard let theirs = message.iceControlled else { return false }
            guard tieBreaker >= theirs else { return true }
            change(to: .controlling, now)
        }
        return false
    }

    func change(to role: Role, _ now: Instant) {
        guard self.role != role else { return }
        self.role = role
        statistics.roleConflicts &+= 1
        timers[.settle] = nil
        for index in pairs.indices {
            pairs[index].nominatesNext = false
            pairs[index].followsWhenValid = false
            pairs[index].nomination = 0
        }
        mayHaveWaiting = true
        if role == .controlling { considerNomination(now) }
    }

    /// What a verified request shows: that the other side is there, where, and what it prefers.
    private func learn(from message: borrowing Message, _ path: Path, _ number: UInt32, _ now: Instant) {
        if let remote = remote(of: number), let ufrag = message.senderUfrag,
            !ufrag.elementsEqual(remote.ufrag.span.bytes)
        {
            // Of another generation or another branch of a forked offer: answered, and no path of ours.
            return
        }
        guard let index = pairIndex(path, number) ?? newPair(message, path, number) else { return }
        noteReceived(index, now, proves: configuration.isLite)
        if pairs[index].local.ip.isUnspecified { pairs[index].local = path.local }
        pairs[index].isVerified = true
        if configuration.isLite {
            pairs[index].state = .succeeded
        } else if pairs[index].state != .succeeded || pairs[index].isDoubted {
            trigger(index)
        }
        if selected == nil || !isCurrent(selected) { provide(index, now) }
        guard role == .controlled else { return }
        let renomination = generation(number)?.usesRenomination == true ? message.nomination ?? 0 : 0
        guard message.usesCandidate || renomination > 0 else { return }
        pairs[index].isNominated = true
        pairs[index].lastPreferred = now
        pairs[index].nomination = max(pairs[index].nomination, renomination)
        // RFC 8445 section 7.3.1.5: a pair that is valid already is selected now, another one
        // when its triggered check succeeds.
        if pairs[index].state == .succeeded, !pairs[index].isDoubted {
            follow(index, now)
        } else {
            pairs[index].followsWhenValid = true
        }
    }

    /// A request came from where no candidate of the other side is (RFC 8445 section 7.3.1.3).
    private func newPair(_ message: borrowing Message, _ path: Path, _ number: UInt32) -> Int? {
        let priority = message.priority ?? Candidate.priority(.peerReflexive, localPreference: .max)
        let known = generation(number)?.remoteCandidates.first {
            $0.address == path.remote && $0.transport == path.transport
        }
        if known == nil {
            statistics.peerReflexiveRemote &+= 1
            forgetPeerReflexive()
        }
        guard makeRoomForPair() else {
            statistics.candidatesRefused &+= 1
            return nil
        }
        let local = localCandidate(for: path)
        pairs.append(
            Pair(
                id: takePairID(), generation: number, local: path.local, remote: path.remote,
                transport: path.transport,
                localPriority: local?.priority ?? Candidate.priority(.host, localPreference: 0),
                remotePriority: known?.priority ?? priority, localFoundation: local?.foundationHash ?? 0,
                // RFC 8445 section 7.3.1.3: a foundation different from all others.
                remoteFoundation: known?.foundationHash ?? UInt64(nextPairID),
                relays: (local?.kind == .relayed ? 1 : 0) + (known?.kind == .relayed ? 1 : 0),
                state: configuration.isLite ? .succeeded : .waiting))
        return pairs.count - 1
    }

    /// Our candidate that a local address belongs to, as far as that can be told.
    private func localCandidate(for path: Path) -> Candidate? {
        let family = localCandidates.filter {
            $0.transport == path.transport && $0.address.ip.isIPv4 == path.remote.ip.isIPv4 && isAllowed($0)
        }
        return family.first { ($0.base ?? $0.address) == path.local }
            ?? family.first { ($0.base ?? $0.address).ip == path.local.ip } ?? family.max { $0.priority < $1.priority }
    }

    /// Learned addresses have a limit: beyond it the one that was silent longest is forgotten.
    private func forgetPeerReflexive() {
        let learned = pairs.indices.filter { index in
            let pair = pairs[index]
            return !(generation(pair.generation)?.remoteCandidates ?? []).contains {
                $0.address == pair.remote && $0.transport == pair.transport
            }
        }
        guard learned.count >= configuration.maximumPeerReflexive else { return }
        let silent = learned.filter { pairs[$0].id != selected && pairs[$0].id != provisional }
            .min { lastSign(pairs[$0]) < lastSign(pairs[$1]) }
        if let silent { remove(silent) }
    }

    private func lastSign(_ pair: Pair) -> Instant { pair.lastReceived ?? Instant(nanoseconds: .min) }

    // MARK: Responses

    private func receiveResponse(_ message: borrowing Message, _ path: Path, _ now: Instant) -> Disposition {
        let id = message.transactionID
        guard let position = transactions.firstIndex(where: { $0.id == id }) else { return .ignored(.unmatched) }
        let transaction = transactions[position]
        let signer = remote(of: transaction.generation)
        // RFC 8489 section 9.1.4: a response that cannot be verified is as if it never came.
        guard let key = signer?.key, message.isAuthentic(key) else { return .ignored(.badIntegrity) }
        transactions.remove(at: position)
        guard let index = index(of: transaction.pair) else { return .ignored(.unmatched) }
        // RFC 8445 section 7.2.5.2.1: the response must come back the way the request went.
        guard pairs[index].isOn(path) else {
            if !transaction.isConsent { failCheck(index, now) }
            return .ignored(.unexpected)
        }
        if message.messageClass == .error {
            receiveError(message, transaction, index, now)
            return .consumed
        }
        guard message.unknownAttributes.isEmpty, let mapped = message.xorMappedAddress else {
            if !transaction.isConsent { failCheck(index, now) }
            return .ignored(.malformed)
        }
        statistics.responsesReceived &+= 1
        succeed(index, transaction, mapped, now)
        return .consumed
    }

    private func receiveError(_ message: borrowing Message, _ transaction: Transaction, _ index: Int, _ now: Instant) {
        statistics.errorsReceived &+= 1
        noteReceived(index, now)
        guard message.errorCode == 487 else {
            if !transaction.isConsent { failCheck(index, now) }
            return
        }
        // RFC 8445 section 7.2.5.1: change the role the request claimed, and ask again.
        change(to: transaction.role.opposite, now)
        trigger(index)
    }

    /// RFC 8445 section 7.2.5.3.
    private func succeed(_ index: Int, _ transaction: Transaction, _ mapped: SocketAddress, _ now: Instant) {
        noteReceived(index, now)
        pairs[index].lastResponse = now
        // Which transmission was answered is known only if there was one (RFC 6298 section 3).
        if transaction.transmissions == 1 {
            sample(index, now - transaction.sentAt)
        } else {
            pairs[index].longestRoundTrip = max(now - transaction.sentAt, .zero)
        }
        pairs[index].mapped = mapped
        if pairs[index].transport == .udp, pairs[index].reflexive != mapped,
            !localCandidates.contains(where: { $0.address == mapped })
        {
            // RFC 8445 section 7.2.5.3.1: a NAT in between; the base stays what is sent from.
            statistics.peerReflexiveLocal &+= 1
            pairs[index].reflexive = mapped
        }
        let wasDoubted = pairs[index].isDoubted
        pairs[index].isDoubted = false
        pairs[index].isLate = false
        pairs[index].misses = 0
        pairs[index].streak = min(pairs[index].streak &+ 1, 100)
        if index == activePair { answered(now) }

        let wasValid = pairs[index].state == .succeeded
        pairs[index].state = .succeeded
        for position in transactions.indices
        where transactions[position].pair == transaction.pair && !transactions[position].usesCandidate {
            transactions[position].isCancelled = true
        }
        if !wasValid { unfreeze(like: pairs[index]) }
        if selected == nil || !isCurrent(selected) { provide(index, now) }
        if suspicion != nil, index != activePair, !transaction.usesCandidate { considerFailover(now) }
        guard let index = self.index(of: transaction.pair) else { return }
        if wasDoubted || !wasValid, standby == nil, selected != nil, let active = activePair { chooseStandby(active) }
        switch role {
        case .controlling where transaction.usesCandidate && transaction.role == .controlling:
            pairs[index].isNominated = true
            pairs[index].nominatesNext = false
            select(index, now)
        case .controlling:
            considerNomination(now)
            considerUpgrade(index)
        case .controlled where pairs[index].followsWhenValid: follow(index, now)
        case .controlled: break
        }
    }

    private func sample(_ index: Int, _ sample: Duration) {
        guard sample >= .zero else { return }
        if pairs[index].roundTrip == nil {
            pairs[index].roundTrip = RoundTrip(sample)
        } else {
            pairs[index].roundTrip?.add(sample)
        }
    }

    /// No answer, or one that says the pair does not work.
    func failCheck(_ index: Int, _ now: Instant) {
        let pair = pairs[index]
        pairs[index].nominatesNext = false
        pairs[index].state = .failed
        pairs[index].isLate = false
        pairs[index].streak = 0
        mayHaveWaiting = true
        guard role == .controlling, selected != pair.id else { return }
        considerNomination(now)
    }
}
