import Wire

/// Which path is used.
extension Agent {
    /// Whether the pair is of the current generation, not one kept across a restart.
    func isCurrent(_ id: Pair.ID?) -> Bool {
        index(of: id).map { pairs[$0].generation == generation.number } ?? false
    }

    /// Before nomination: the first verified pair is reported, the latest one used. A full agent
    /// prefers pairs that answered its own checks.
    func provide(_ index: Int, _ now: Instant) {
        let pair = pairs[index]
        guard pair.generation == generation.number else { return }
        if !generation.reportedVerified {
            generation.reportedVerified = true
            timers[.establish] = nil
            events.append(.verified(pair.path))
        }
        if selected != nil { return }
        if let current = self.index(of: provisional), !pairs[current].isGone, !configuration.isLite,
            pairs[current].generation == generation.number
        {
            let (old, new) = (pairs[current].state == .succeeded, pair.state == .succeeded)
            if old, !new { return }
            if old, new, pairs[current].priority(role) >= pair.priority(role) { return }
        }
        guard provisional != pair.id else { return }
        provisional = pair.id
        enterPath(now)
    }

    /// A valid pair was nominated by the other side. With several nominated (RFC 5245 section 8.1.1.2)
    /// the best one is used. A peer that moves nominates a pair that may be worse, on which it then
    /// sends; but a late or replayed check does that too. So a worse pair is taken when the path in use
    /// has been silent for a moment, or at once when the other side's data comes that way.
    func follow(_ index: Int, _ now: Instant) {
        pairs[index].followsWhenValid = false
        guard let current = self.index(of: selected) else { return select(index, now) }
        guard current != index else { return }
        let (old, new) = (pairs[current], pairs[index])
        // A pair of a generation that is over is no better than any of the new one.
        if old.generation != new.generation {
            if new.generation == generation.number { select(index, now) }
            return
        }
        // With renomination the highest number counts, whatever the pairs are.
        if old.nomination != new.nomination {
            if new.nomination > old.nomination { select(index, now) }
            return
        }
        if new.priority(role) > old.priority(role) { return select(index, now) }
        let confirmedAt = lastPreference(current) + durations.moveConfirmation
        if confirmedAt <= now { return select(index, now) }
        timers[.move] = min(timers[.move] ?? .distantFuture, confirmedAt)
    }

    private func lastPreference(_ index: Int) -> Instant {
        pairs[index].lastPreferred ?? Instant(nanoseconds: .min)
    }

    /// Looks again at the nominations that were not followed at once.
    func confirmMove(_ now: Instant) {
        guard let current = index(of: selected) else { return }
        let preferred = lastPreference(current)
        var newest: Int?
        for index in pairs.indices
        where index != current && pairs[index].isNominated && pairs[index].state == .succeeded
            && pairs[index].generation == generation.number && lastPreference(index) >= preferred
        {
            if newest.map({ lastPreference(index) > lastPreference($0) }) ?? true { newest = index }
        }
        if let newest { follow(newest, now) }
    }

    func select(_ index: Int, _ now: Instant, _ reason: PathChange? = nil) {
        let id = pairs[index].id
        timers[.settle] = nil
        timers[.move] = nil
        guard selected != id else { return }
        let old = self.index(of: selected).map { pairs[$0] }
        if old != nil { statistics.pathChanges &+= 1 }
        selectionReason = reason ?? self.reason(from: old, to: pairs[index])
        if selectionReason == .failover { statistics.failovers &+= 1 }
        let wasActive = activePair == index
        selected = id
        provisional = nil
        let isRestart = isRestarting && isCurrent(id)
        if isCurrent(id) {
            isRestarting = false
            leavePrevious(now)
        }
        for index in pairs.indices.reversed() where pairs[index].isGone && pairs[index].id != id { remove(index) }
        guard let position = self.index(of: id) else { return }
        events.append(.selected(pairs[position].path))
        if isRestart { events.append(.restarted(pairs[position].path)) }
        reconnect()
        if wasActive { observe(now) } else { enterPath(now) }
        guard let interval = durations.standbyInterval, !configuration.isLite else { return }
        // Checks that are under way may show more paths.
        timers[.standby] = min(timers[.standby] ?? .distantFuture, now + min(interval, .milliseconds(500)))
        chooseStandby(position)
    }

    private func reason(from old: Pair?, to new: Pair) -> PathChange {
        if isRestarting, new.generation == generation.number { return .restarted }
        guard let old else { return .first }
        if suspicion != nil || isSuspect || isDisconnected || old.isGone { return .failover }
        return new.priority(role) > old.priority(role) ? .better : .moved
    }

    private func enterPath(_ now: Instant) {
        unanswered = 0
        isSuspect = false
        suspicion = nil
        silence = Silence()
        timers[.failover] = nil
        timers[.doubt] = nil
        consentCheckAt = nil
        observe(now)
    }

    // MARK: Nomination by this side

    /// RFC 8445 section 8.1.1: the controlling agent nominates one valid pair. The best one that can
    /// still be had is nominated at once; another one waits a moment for a better.
    func considerNomination(_ now: Instant) {
        guard role == .controlling, !configuration.isLite, phase == .running else { return }
        guard selected == nil || !isCurrent(selected) || isSuspect else { return }
        guard !pairs.contains(where: { $0.nominatesNext }), let valid = bestValid() else { return }
        let isSettled = !pairs.contains { pair in
            pair.generation == generation.number && pair.priority(role) > pairs[valid].priority(role)
                && (pair.state == .waiting || pair.state == .inProgress || pair.state == .frozen)
        }
        if isSettled || isDisconnected || suspicion != nil { return nominate(valid) }
        guard timers[.settle] == nil else { return }
        // A relay costs its owner something for as long as it is used: a first check that another way loses, because a NAT
        // on it opens only with the other side's check, is worth being sent again before.
        let isRelayed = pairs[valid].relays > 0
        timers[.settle] = now + durations.settleTime + (isRelayed ? durations.retransmission * 2 : .zero)
    }

    /// The best pair that answered; when the path in use is silent, one that answered since.
    private func bestValid() -> Int? {
        let since = isCurrent(selected) ? index(of: selected).flatMap { pairs[$0].lastReceived } : nil
        var best: Int?
        for index in pairs.indices
        where pairs[index].state == .succeeded && pairs[index].generation == generation.number
            && pairs[index].id != selected
        {
            if let since, (pairs[index].lastResponse ?? Instant(nanoseconds: .min)) <= since { continue }
            if best.map({ pairs[index].priority(role) > pairs[$0].priority(role) }) ?? true { best = index }
        }
        return best
    }

    func nominateAfterSettling(_ now: Instant) {
        guard role == .controlling, selected == nil || !isCurrent(selected) || isSuspect,
            !pairs.contains(where: { $0.nominatesNext }), let valid = bestValid()
        else { return }
        nominate(valid)
    }

    func nominate(_ index: Int) {
        timers[.settle] = nil
        pairs[index].nomination = takeNomination(pairs[index].generation)
        pairs[index].nominatesNext = true
        trigger(index)
    }

    /// The number of the next nomination; 0 without renomination.
    func takeNomination(_ number: UInt32) -> UInt32 {
        func next(_ generation: inout Generation) -> UInt32 {
            guard generation.usesRenomination else { return 0 }
            generation.nomination = max((generation.nomination &+ 1) & 0xFF_FFFF, 1)
            return generation.nomination
        }
        if number == generation.number { return next(&generation) }
        guard var old = previous, old.number == number else { return 0 }
        defer { previous = old }
        return next(&old)
    }
}
