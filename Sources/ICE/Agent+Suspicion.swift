public import Wire

/// What was sent on the path in use since something was received on it.
struct Silence {
    var first = Instant.distantFuture
    var second = Instant.distantFuture
    /// When the path was asked, without anybody being told.
    var askedAt: Instant?
}

/// A path in use that is doubtful.
struct Suspicion {
    let since: Instant
    /// Rounds of checks so far.
    var rounds = 0
    /// Whether an event said so, and another must say how it ends.
    var isAnnounced: Bool
}

/// Finding out quickly that the path in use is dead, and taking another one.
extension Agent {
    /// A data packet that the other side will acknowledge was sent on the path in use. Cheap: for every packet.
    public func noteSent(now: Instant) {
        guard silence.second == .distantFuture else { return }
        if silence.first == .distantFuture { silence.first = now } else { silence.second = now }
        if timers[.doubt] == nil, selected != nil, !configuration.isLite, let index = activePair {
            timers[.doubt] = silence.first + tolerance(index)
        }
    }

    /// The network has changed, and every path is doubtful: the one in use and the one that is kept warm are asked at
    /// once.
    public func networkChanged(now: Instant) {
        ask(now)
        if let standby, canCheckActive, !probes.contains(standby) { probes.append(standby) }
    }

    /// The connection of a path over TCP is gone.
    public func connectionFailed(_ path: Path, now: Instant) {
        guard phase != .closed, path.transport == .tcp else { return }
        for index in pairs.indices.reversed() where pairs[index].isOn(path) {
            pairs[index].state = .failed
            pairs[index].nominatesNext = false
            let id = pairs[index].id
            transactions.removeAll { $0.pair == id }
            // Only the other side can open it again.
            if !pairs[index].canBeOpened, id != selected, id != provisional { remove(index) }
        }
        mayHaveWaiting = true
        if let index = activePair, pairs[index].isOn(path) { lose(index, now) }
        despair()
    }

    /// How long silence is nothing special: late answers, lost packets.
    private func tolerance(_ index: Int) -> Duration {
        // TCP repeats a lost segment after 200 ms at the earliest, and holds back all that came behind it.
        let least = max(durations.suspicion, pairs[index].transport == .tcp ? .milliseconds(500) : .zero)
        guard let roundTrip = pairs[index].roundTrip else {
            let longest = pairs[index].longestRoundTrip ?? .milliseconds(225)
            return max(least, longest * 2 + .milliseconds(50))
        }
        return max(least, max(roundTrip.smoothed, roundTrip.latest) * 2 + .milliseconds(50))
    }

    /// A check on the path in use now; it is suspected unless it answers in time.
    private func ask(_ now: Instant) {
        guard canCheckActive, let index = activePair else { return }
        probe(now: now)
        probeOthers()
        silence.askedAt = now
        timers[.doubt] = now + tolerance(index)
    }

    /// The protocol above may hold back its acknowledgement of one packet, SCTP's for 200 ms, but not of two (RFC 9260
    /// section 6.2). So two unanswered packets are a reason for suspicion, and one is a reason to ask.
    func lookForSilence(_ now: Instant) {
        guard suspicion == nil, selected != nil, canCheckActive, let index = activePair else { return }
        let tolerance = tolerance(index)
        var next = silence.second + tolerance
        if let askedAt = silence.askedAt { next = min(next, askedAt + tolerance) }
        if next <= now { return suspect(now) }
        let first = silence.first + tolerance
        if silence.askedAt == nil, first <= now {
            ask(now)
            next = min(next, now + tolerance)
        } else if silence.askedAt == nil {
            next = min(next, first)
        }
        timers[.doubt] = next == .distantFuture ? nil : next
    }

    /// The path in use is doubtful: it is asked, and so are the others that worked.
    func suspect(_ now: Instant) {
        guard suspicion == nil, selected != nil, canCheckActive else { return }
        // The question before counts: both this path and the others have had the time since.
        let since = isDisconnected ? now : min(now, silence.askedAt ?? now)
        suspicion = Suspicion(since: since, isAnnounced: !isDisconnected)
        statistics.suspicions &+= 1
        timers[.doubt] = nil
        if !isDisconnected { events.append(.suspected) }
        consentDue = now
        consentCheckAt = now
        probeOthers()
    }

    /// Until the next round of checks: about a round trip at first, then longer and longer.
    func nextRound() -> Duration {
        guard let index = activePair else { return .seconds(1) }
        let rounds = suspicion?.rounds ?? 0
        suspicion?.rounds += 1
        var pause = max(pairs[index].roundTrip?.smoothed ?? .milliseconds(100), .milliseconds(20))
        for _ in 0..<min(rounds, 16) where pause < .seconds(1) { pause = pause + pause / 2 }
        return min(pause, .seconds(1))
    }

    /// One check, not repeated by itself, for each of the best other valid pairs.
    func probeOthers() {
        guard let active = activePair else { return }
        let others = pairs.indices.filter {
            $0 != active && pairs[$0].state == .succeeded && pairs[$0].generation == pairs[active].generation
        }
        let best = others.sorted { standbyRank(pairs[$0], pairs[active]) > standbyRank(pairs[$1], pairs[active]) }
        for index in best.prefix(4) where !probes.contains(pairs[index].id) { probes.append(pairs[index].id) }
    }

    /// The path in use answered, or brought data.
    func trust() {
        guard let ended = suspicion else { return }
        suspicion = nil
        timers[.failover] = nil
        if ended.isAnnounced { events.append(.trusted) }
    }

    /// Another pair answered while the path in use is doubtful. That one has about one round trip more.
    func considerFailover(_ now: Instant) {
        guard let suspicion, let active = activePair, let other = bestAnswered(since: suspicion.since, active) else {
            return
        }
        let roundTrip = pairs[active].roundTrip?.smoothed ?? .milliseconds(100)
        let due = suspicion.since + roundTrip + max(roundTrip / 4, .milliseconds(10))
        if due <= now { failOver(to: other, now) } else { timers[.failover] = due }
    }

    private func bestAnswered(since: Instant, _ active: Int) -> Int? {
        best(but: active) { $0.lastResponse.map { $0 >= since } ?? false }
    }

    private func best(but active: Int, where condition: (Pair) -> Bool) -> Int? {
        var best: Int?
        for index in pairs.indices
        where index != active && pairs[index].state == .succeeded
            && pairs[index].generation == pairs[active].generation && condition(pairs[index])
        {
            if best.map({ pairs[index].priority(role) > pairs[$0].priority(role) }) ?? true { best = index }
        }
        return best
    }

    /// Takes another path without asking anybody. The controlling side nominates it; the controlled one sends there, and
    /// the other side follows its data or has noticed too.
    private func failOver(to index: Int, _ now: Instant) {
        if let active = activePair { pairs[active].isDoubted = true }
        let id = pairs[index].id
        if role == .controlling { pairs[index].nomination = takeNomination(pairs[index].generation) }
        select(index, now, .failover)
        if let index = self.index(of: id) { trigger(index) }
    }

    /// The path in use is gone for certain: its address or its connection.
    func lose(_ index: Int, _ now: Instant) {
        guard selected != nil else {
            remove(index)
            provisional = nil
            let best = pairs.indices.filter { pairs[$0].isVerified || pairs[$0].state == .succeeded }
                .max { pairs[$0].priority(role) < pairs[$1].priority(role) }
            if let best { provide(best, now) }
            return
        }
        let consent = now - durations.failedAfter
        let isFit = { (pair: Pair) in !pair.isDoubted && pair.lastResponse.map { $0 > consent } ?? false }
        if let other = best(but: index, where: { isFit($0) && $0.misses == 0 }) ?? best(but: index, where: isFit) {
            return failOver(to: other, now)
        }
        suspect(now)
        recheck(now)
    }

    // MARK: A second path

    /// What makes a pair a good second one: it shares little with the one in use.
    private func standbyRank(_ pair: Pair, _ active: Pair) -> (Int, UInt64) {
        var rank = 0
        if pair.local.ip != active.local.ip { rank += 4 }
        if pair.remote.ip != active.remote.ip { rank += 2 }
        if (pair.relays > 0) != (active.relays > 0) { rank += 1 }
        if pair.isDoubted { rank -= 16 }
        return (rank, pair.priority(role))
    }

    /// Checks the second path, so that it stays open and consented to, and now and then one that did not work.
    func keepStandby(_ now: Instant) {
        guard let interval = durations.standbyInterval, selected != nil, canCheckActive, let active = activePair else {
            standby = nil
            return
        }
        standbyEpoch = now
        timers[.standby] = now + max(interval, .milliseconds(20))
        if let index = index(of: standby), pairs[index].misses >= 2 {
            pairs[index].state = .failed
            pairs[index].streak = 0
        }
        chooseStandby(active)
        if let standby { probe(standby) }
        standbyTicks &+= 1
        guard standby == nil || standbyTicks % 4 == 0, let other = nextToExplore(active) else { return }
        lastExplored = other
        probe(other)
    }

    private func probe(_ id: Pair.ID) {
        guard let index = index(of: id), !probes.contains(id) else { return }
        pairs[index].misses = min(pairs[index].misses &+ 1, 100)
        if pairs[index].misses > 1 { pairs[index].streak = 0 }
        probes.append(id)
    }

    func chooseStandby(_ active: Int) {
        guard durations.standbyInterval != nil else { return }
        var best: Int?
        for index in pairs.indices
        where index != active && pairs[index].state == .succeeded && !pairs[index].isDoubted
            && pairs[index].generation == pairs[active].generation
        {
            let rank = standbyRank(pairs[index], pairs[active])
            if best.map({ rank > standbyRank(pairs[$0], pairs[active]) }) ?? true { best = index }
        }
        standby = best.map { pairs[$0].id }
    }

    /// Pairs that did not work, in turn.
    private func nextToExplore(_ active: Int) -> Pair.ID? {
        var first: Pair.ID?
        var next: Pair.ID?
        for index in pairs.indices where index != active && pairs[index].generation == pairs[active].generation {
            let pair = pairs[index]
            guard pair.state != .inProgress, pair.state != .succeeded || pair.isDoubted, pair.transport == .udp else {
                continue
            }
            if first.map({ pair.id < $0 }) ?? true { first = pair.id }
            if pair.id > lastExplored, next.map({ pair.id < $0 }) ?? true { next = pair.id }
        }
        return next ?? first
    }

    /// A more direct path than the one in use has answered for a while: the controlling side moves there.
    func considerUpgrade(_ index: Int) {
        guard role == .controlling, suspicion == nil, isCurrent(selected), let active = activePair, index != active,
            pairs[index].generation == generation.number, pairs[index].streak >= 3,
            directness(pairs[index]) > directness(pairs[active]), !pairs.contains(where: { $0.nominatesNext })
        else { return }
        nominate(index)
    }

    private func directness(_ pair: Pair) -> Int { -2 * pair.relays - (pair.transport == .tcp ? 1 : 0) }
}
