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
        if let current = self.index(of: provisional), !configuration.isLite,
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
        guard let current = self.index(of: selected), pairs[current].generation == generation.number else {
            return select(index, now)
        }
        guard current != index else { return }
        if pairs[index].priority(role) > pairs[current].priority(role) { return select(index, now) }
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

    func select(_ index: Int, _ now: Instant) {
        let id = pairs[index].id
        timers[.settle] = nil
        timers[.move] = nil
        guard selected != id else { return }
        if selected != nil { statistics.pathChanges &+= 1 }
        let wasActive = activePair.map { pairs[$0].id } == id
        selected = id
        provisional = nil
        let isRestart = isRestarting && isCurrent(id)
        if isCurrent(id) {
            isRestarting = false
            leavePrevious(now)
        }
        if let position = self.index(of: id) { events.append(.selected(pairs[position].path)) }
        if isRestart, let position = self.index(of: id) { events.append(.restarted(pairs[position].path)) }
        reconnect()
        if wasActive { observe(now) } else { enterPath(now) }
    }

    private func enterPath(_ now: Instant) {
        unanswered = 0
        isSuspect = false
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
        if isSettled || isDisconnected { return nominate(valid) }
        if timers[.settle] == nil { timers[.settle] = now + durations.settleTime }
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

    private func nominate(_ index: Int) {
        timers[.settle] = nil
        pairs[index].nominatesNext = true
        trigger(index)
    }
}
