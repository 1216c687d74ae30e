public import Wire

/// Consent, silence and giving up.
extension Agent {
    /// Authenticated traffic of another protocol came on `path`: the other side lives, and sends there.
    /// Only for what cannot be replayed, as DTLS records that passed its replay check.
    public func noteTraffic(_ path: Path, now: Instant) {
        if let index = activePair, pairs[index].isOn(path) {
            pairs[index].lastPreferred = now
            return noteReceivedInUse(index, now, proves: true)
        }
        guard phase != .closed, let index = pairIndex(on: path) else { return }
        pairs[index].lastPreferred = now
        let silentSince = activePair.flatMap { pairs[$0].lastReceived }
        noteReceived(index, now)
        guard selected != nil, pairs[index].state == .succeeded, !pairs[index].isDoubted, let active = activePair,
            pairs[index].generation == pairs[active].generation
        else { return }
        // The other side may have left the path in use because it is dead for one of us.
        let pause = max(pairs[active].roundTrip?.smoothed ?? .zero, .milliseconds(50))
        let isSilent = silentSince.map { $0 + pause < now } ?? true
        switch role {
        case .controlled where pairs[index].isNominated || (isSilent && !configuration.isLite): select(index, now)
        case .controlling where isSilent: suspect(now)
        default: break
        }
    }

    /// A check on the path in use now, not when the next one is due: for a caller that has reason to
    /// doubt it. Full agents only.
    public func probe(now: Instant) {
        guard activePair != nil, canCheckActive else { return }
        consentDue = now
        consentCheckAt = now
    }

    /// `proves`: it shows that what this side sends arrives, as answers and data do and requests do not.
    func noteReceived(_ index: Int, _ now: Instant, proves: Bool = true) {
        if index == activePair {
            noteReceivedInUse(index, now, proves: proves)
        } else {
            pairs[index].lastReceived = now
        }
    }

    private func noteReceivedInUse(_ index: Int, _ now: Instant, proves: Bool) {
        pairs[index].lastReceived = now
        if proves {
            silence = Silence()
            if suspicion != nil { trust() }
        }
        // Called per packet: timers that are due too early look again when they are due.
        guard isDisconnected || timers[.expiry] == nil else { return }
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
    /// The durations have changed.
    func reviseTimers() {
        guard let index = activePair, let heard = pairs[index].lastReceived else { return }
        observe(heard)
        guard let due = consentCheckAt else { return }
        consentDue = min(consentDue, heard + durations.consentInterval)
        consentCheckAt = min(due, consentDue, quietDeadline(pairs[index], heard))
    }

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
        (pair.lastReceived ?? now) + min(durations.heartbeat ?? .forever, silenceLimit / 2)
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
        if suspicion == nil, unanswered > 0, (pairs[index].lastReceived ?? askedAt) <= askedAt {
            // The latest check went unanswered, and nothing else came.
            suspect(now)
        }
        doubt(index, now)
        unanswered &+= 1
        askedAt = now
        if let suspicion {
            if suspicion.rounds < 8 || suspicion.rounds % 4 == 0 { probeOthers() }
            consentCheckAt = now + nextRound()
            return index
        }
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

    /// The path in use does not answer: look whether another one does. Two lost checks and half a second are a
    /// reason if nothing else came either, four are one in any case.
    private func doubt(_ index: Int, _ now: Instant) {
        let isSilent = (pairs[index].lastReceived ?? now) + .milliseconds(500) <= now
        guard unanswered >= (isSilent ? 2 : suspicion == nil ? 4 : 8) else { return }
        recheck(now)
    }

    /// All pairs once more, those that failed and, once per suspicion, those that worked before.
    func recheck(_ now: Instant) {
        guard isCurrent(selected) else { return }
        for index in pairs.indices where pairs[index].id != selected && pairs[index].generation == generation.number {
            switch pairs[index].state {
            case .failed, .frozen: if pairs[index].canBeOpened { pairs[index].state = .waiting }
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
            case .doubt: lookForSilence(now)
            case .failover: considerFailover(now)
            case .standby: keepStandby(now)
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
        suspicion?.isAnnounced = false
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
        guard due <= now else {
            timers[.expiry] = due
            return
        }
        guard isRestarting, pairs[index].generation != generation.number else { return fail(.consentExpired) }
        // RFC 7675 section 5.1: nothing may be sent there any more. The restart goes on without it.
        if !isDisconnected { events.append(.disconnected) }
        isDisconnected = true
        selected = nil
        provisional = nil
        suspicion = nil
        standby = nil
        consentCheckAt = nil
        for index in pairs.indices.reversed() where pairs[index].generation != generation.number { remove(index) }
        let verified = pairs.indices.filter { pairs[$0].isVerified || pairs[$0].state == .succeeded }
        for index in verified { provide(index, now) }
        despair()
    }

    /// RFC 8445 section 8.1.2 and RFC 8863 section 4: without a valid pair, with all candidates here,
    /// all pairs failed and the patience over, there is no path.
    func despair() {
        guard phase == .running, !configuration.isLite, timers[.patience] == nil, activePair == nil,
            generation.remoteIsComplete, localIsComplete,
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
