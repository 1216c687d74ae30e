import STUN
public import Wire

extension Agent {
    /// What a caller's buffer must have room for.
    public static let maximumDatagram = 1200

    /// Writes the next datagram to send behind what `output` holds, and answers where it goes; nil if
    /// there is none for now. Needs room for ``maximumDatagram`` bytes: what does not fit is dropped.
    public func pollTransmit(into output: inout OutputRawSpan, now: Instant) -> Transmit? {
        while !responses.isEmpty {
            let response = responses.removeFirst()
            if write(response, into: &output) { return Transmit(response.path) }
            statistics.transmitsDropped &+= 1
        }
        guard phase == .running, !configuration.isLite else { return nil }
        while let check = nextCheck(now) {
            if write(check, into: &output), let index = index(of: check.pair) {
                return Transmit(pairs[index].path)
            }
            statistics.transmitsDropped &+= 1
        }
        return nil
    }

    private func write(_ response: Response, into output: inout OutputRawSpan) -> Bool {
        let key = response.key
        switch response.kind {
        case .success:
            statistics.responsesSent &+= 1
            var writer = MessageWriter(.success, id: response.id, to: &output)
            writer.append(.xorMappedAddress, response.path.remote, to: &output)
            return writer.finish(key, response.algorithm, to: &output)
        case .roleConflict:
            statistics.errorsSent &+= 1
            var writer = MessageWriter(.error, id: response.id, to: &output)
            writer.append(errorCode: 487, to: &output)
            return writer.finish(key, response.algorithm, to: &output)
        case .unknownAttributes(let types):
            statistics.errorsSent &+= 1
            var writer = MessageWriter(.error, id: response.id, to: &output)
            writer.append(errorCode: 420, to: &output)
            writer.append(unknown: types, to: &output)
            return writer.finish(key, response.algorithm, to: &output)
        }
    }

    /// A check (RFC 8445 section 7.2.4). The same transaction always gives the same bytes.
    private func write(_ check: Transaction, into output: inout OutputRawSpan) -> Bool {
        guard let index = index(of: check.pair), let remote = remote(of: check.generation), let key = remote.key else {
            return false
        }
        var writer = MessageWriter(.request, id: check.id, to: &output)
        writer.append(.username, remote.username.span.bytes, to: &output)
        // RFC 8445 section 7.1.1: the priority a reflexive candidate learned from this check would have.
        let type = pairs[index].transport == .udp ? Candidate.Kind.peerReflexive.preference : 80
        let priority = type << 24 | pairs[index].localPriority & 0xFF_FFFF
        writer.append(.priority, priority, to: &output)
        writer.append(check.role == .controlling ? .iceControlling : .iceControlled, tieBreaker, to: &output)
        if check.usesCandidate { writer.append(.useCandidate, to: &output) }
        if check.nomination > 0 { writer.append(.nomination, check.nomination, to: &output) }
        return writer.finish(key, to: &output)
    }

    /// The next check that is due: triggered, again, on the path in use, ordinary.
    private func nextCheck(_ now: Instant) -> Transaction? {
        if let index = nextTriggered() { return begin(index, isConsent: false, now) }
        if let again = retransmission(now) { return again }
        if let index = takeConsentCheck(now) { return begin(index, isConsent: true, now) }
        while !probes.isEmpty {
            guard let index = index(of: probes.removeFirst()), remote(of: pairs[index].generation)?.key != nil else {
                continue
            }
            return begin(index, isConsent: true, now)
        }
        guard mayHaveWaiting, canCheck, nextCheckAt <= now, let index = nextWaiting() else { return nil }
        nextCheckAt = now + max(durations.checkInterval, .milliseconds(1))
        lastFamilyWasIPv4 = pairs[index].remote.ip.isIPv4
        return begin(index, isConsent: false, now)
    }

    /// The first triggered check that can be made: those of a generation whose description has not come wait.
    private func nextTriggered() -> Int? {
        var position = 0
        while position < triggered.count {
            guard let index = index(of: triggered[position]) else {
                triggered.remove(at: position)
                continue
            }
            if remote(of: pairs[index].generation)?.key != nil {
                triggered.remove(at: position)
                return index
            }
            position += 1
        }
        return nil
    }

    private func begin(_ index: Int, isConsent: Bool, _ now: Instant) -> Transaction {
        // A nomination that was lost for good, or a Lite agent that forgot, hears it again with every
        // check on the selected path.
        let usesCandidate = role == .controlling && (pairs[index].nominatesNext || pairs[index].id == selected)
        let isStream = pairs[index].transport == .tcp
        let interval = isStream ? durations.streamTimeout : durations.retransmission
        if !isConsent, pairs[index].state != .succeeded { pairs[index].state = .inProgress }
        let transaction = Transaction(
            id: TransactionID(using: &random), pair: pairs[index].id, generation: pairs[index].generation, role: role,
            usesCandidate: usesCandidate, isConsent: isConsent, isStream: isStream,
            nomination: usesCandidate ? pairs[index].nomination : 0, sentAt: now, interval: interval,
            deadline: now + (isConsent ? durations.consentInterval : interval))
        makeRoomForTransaction()
        transactions.append(transaction)
        if !isConsent {
            statistics.checksSent &+= 1
        } else if index == activePair {
            statistics.consentChecksSent &+= 1
        } else {
            statistics.standbyChecksSent &+= 1
        }
        return transaction
    }

    private func makeRoomForTransaction() {
        guard transactions.count >= Agent.maximumTransactions else { return }
        transactions.remove(at: transactions.firstIndex { $0.isCancelled || $0.isConsent } ?? 0)
    }

    static let maximumTransactions = 256

    /// RFC 8489 section 6.2.1: again after RTO, then after twice that, and so on.
    private func retransmission(_ now: Instant) -> Transaction? {
        let limit = configuration.maximumTransmissions
        guard let position = transactions.firstIndex(where: { $0.deadline <= now && $0.maySendAgain(limit) }) else {
            return nil
        }
        transactions[position].transmissions &+= 1
        let interval = min(transactions[position].interval * 2, durations.maximumRetransmission)
        transactions[position].interval = interval
        transactions[position].deadline = now + interval
        statistics.checksRetransmitted &+= 1
        return transactions[position]
    }
}
