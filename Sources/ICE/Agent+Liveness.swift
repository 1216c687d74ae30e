public import Wire

/// Consent, silence and giving up.
extension Agent {
    /// Authenticated traffic of another protocol came on `path`: the other side lives, and sends there.
    /// Only for what cannot be replayed, as DTLS records that passed its replay check.
    public func noteTraffic(_ path: Path, now: Instant) {
        guard phase != .closed else { return }
        guard let index = pairIndex(on: path) else { return }
        noteReceived(index, now)
        pairs[index].lastPreferred = now
        if role == .controlled, pairs[index].id != selected, pairs[index].isNominated,
            pairs[index].state == .succeeded, selected != nil
        {
            select(index, now)
        }
    }

    /// A check on the path in use now, not when the next one is due: for a caller that has reason to
    /// doubt it. Full agents only.
    public func probe(now: Instant) {
        guard activePair != nil, canCheck else { return }
        consentDue = now
        consentCheckAt = now
    }

    func noteReceived(_ index: Int, _ now: Instant) {
        pairs[index].lastReceived = now
        // Called per packet: timers that are due too early look again when they are due.
        guard isDisconnected || timers[.expiry] == nil, index == activePair else { return }
        reconnect()
        observe(now)
    }

    func reconnect() {
        guard isDisconnected else { return }
        isDisconnected = false
        events.append(.reconnected)
    }

    /// A check on the path in use was answered.
    func answered(_ now: Instant) {
        unanswered = 0
        isSuspect = false
        scheduleConsent(now)
    }

    /// Sets the timers of the path in use anew.
    func observe(_ now: Instant) {
        guard let index = activePair else { return }
        let pair = pairs[index]
        timers[.silence] = isDisconnected ? nil : (pair.lastReceived ?? now) + silenceLimit
        timers[.expiry] = lastConsent(pair, now) + durations.failedAfter
        if consentCheckAt == nil { scheduleConsent(now) }
    }

    /// RFC 7675 section 5.1: only valid responses renew consent. A Lite agent gets none.
    var silenceLimit: Duration { durations.disconnectedAfter ?? (configuration.isLite ? .seconds(8) : .seconds(5)) }

    private func lastConsent(_ pair: Pair, _ now: Instant) -> Instant {
        (configuration.isLite ? pair.lastReceived : pair.lastResponse ?? pair.lastReceived) ?? now
    }

    private func scheduleConsent(_ now: Instant) {
        guard !configuration.isLite, let index = activePair else { return }
        // RFC 7675 section 5.1: each interval is randomised by 0.8 to 1.2.
        let factor = 800 + Int64(truncatingIfNeeded: UInt64(truncatingIfNeeded: random.next()) % 401)
        consentDue = now + durations.consentInterval * factor / 1000
        consentCheckAt = min(consentDue, max(quietDeadline(pairs[index], now), now + .milliseconds(20)))
    }

    /// When to ask because nothing was heard: early enough that an idle path is not taken for dead.
    private func quietDeadline(_ pair: Pair, _ now: Instant) -> Instant {
        (pair.lastReceived ?? now) + silenceLimit / 2
    }

    /// Whether a check on the path in use is due, and when the next one will be.
    func takeConsentCheck(_ now: Instant) -> Int? {
        guard let due = consentCheckAt, due <= now, canCheckActive, let index = activePair else { return nil }
        let quiet = quietDeadline(pairs[index], now)
        if unanswered == 0, consentDue > now, quiet > now {
            // Traffic flows, and consent is not due.
            consentCheckAt = min(consentDue, quiet)
            return nil
        }
        suspect(index, now)
        unanswered &+= 1
        // Until an answer comes: once a second, or earlier if it is overdue earlier.
        let patience = (pairs[index].roundTrip?.smoothed ?? .milliseconds(250)) * 3
        consentCheckAt = now + patience.clamped(.milliseconds(500), .seconds(1))
        return index
    }

    /// Whether the generation of the path in use has what checks need.
    var canCheckActive: Bool {
        guard phase == .running, !configuration.isLite, let index = activePair else { return false }
        return remote(of: pairs[index].generation)?.key != nil
    }

    func remote(of number: UInt32) -> Generation.Remote? {
        number == generation.number ? generation.remote : previous?.number == number ? previous?.remote : nil
    }

    /// The path in use does not answer: look whether another one does. Two lost checks are a reason if
    /// nothing else came either, four are one in any case.
    private func suspect(_ index: Int, _ now: Instant) {
        guard isCurrent(selected) else { return }
        let isSilent = (pairs[index].lastReceived ?? now) + .seconds(1) <= now
        guard unanswered >= (isSilent ? 2 : 4) else { return }
        for index in pairs.indices where pairs[index].id != selected && pairs[index].generation == generation.number {
            switch pairs[index].state {
            case .failed, .frozen: pairs[index].state = .waiting
            // What worked before may not work now: once per suspicion.
            case .succeeded: if !isSuspect { pairs[index].state = .waiting }
            case .waiting, .inProgress: break
            }
        }
        isSuspect = true
        mayHaveWaiting = true
        considerNomination(now)
    }

    /// Call when ``nextTimeout`` has come; then drain as after every call.
    public func handleTimeout(now: Instant) {
        expireTransactions(now)
        while let timer = timers.expired(at: now) {
            switch timer {
            case .silence: fallSilent(now)
            case .expiry: expire(now)
            case .settle: nominateAfterSettling(now)
            case .move: confirmMove(now)
            case .patience: despair()
            case .establish: if !generation.reportedVerified, activePair == nil { fail(.timeout) }
            case .doubt, .failover, .standby: break
            case .retire: retired = nil
            }
        }
    }

    private func expireTransactions(_ now: Instant) {
        var position = 0
        while position < transactions.count {
            let transaction = transactions[position]
            guard transaction.deadline <= now, !transaction.maySendAgain(configuration.maximumTransmissions) else {
                position += 1
                continue
            }
            transactions.remove(at: position)
            if !transaction.isConsent, !transaction.isCancelled, let index = index(of: transaction.pair) {
                failCheck(index, now)
            }
        }
        despair()
    }

    private func fallSilent(_ now: Instant) {
        guard !isDisconnected, let index = activePair else { return }
        let due = (pairs[index].lastReceived ?? now) + silenceLimit
        guard due <= now else {
            timers[.silence] = due
            return
        }
        isDisconnected = true
        events.append(.disconnected)
        // The other side may be heard on another path all the while.
        if role == .controlled, selected == pairs[index].id { followLatest(index, now) }
    }

    private func followLatest(_ silent: Int, _ now: Instant) {
        let since = pairs[silent].lastReceived ?? Instant(nanoseconds: .min)
        var latest: Int?
        for index in pairs.indices
        where pairs[index].state == .succeeded && (pairs[index].lastReceived ?? since) > since {
            if latest.map({ pairs[index].lastReceived ?? since > pairs[$0].lastReceived ?? since }) ?? true {
                latest = index
            }
        }
        if let latest { select(latest, now) }
    }

    private func expire(_ now: Instant) {
        guard let index = activePair else { return }
        let due = lastConsent(pairs[index], now) + durations.failedAfter
        if due <= now { fail(.consentExpired) } else { timers[.expiry] = due }
    }

    /// RFC 8445 section 8.1.2 and RFC 8863 section 4: without a valid pair, with all candidates here,
    /// all pairs failed and the patience over, there is no path.
    func despair() {
        guard phase == .running, !configuration.isLite, timers[.patience] == nil, activePair == nil,
            generation.remoteIsComplete,
            triggered.isEmpty
        else { return }
        if !pairs.contains(where: { $0.generation == generation.number && $0.state != .failed }) { fail(.noPath) }
    }

    func fail(_ failure: Failure) {
        guard phase != .closed else { return }
        close()
        events.append(.failed(failure))
    }
}
