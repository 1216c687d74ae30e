public import Wire

/// ICE restarts (RFC 8445 section 9), make before break.
extension Agent {
    /// Begins a new generation with new local credentials, and with other candidates if there are any. The path in
    /// use carries data, keeps its consent and may still fail over, until the new generation, for which
    /// ``setRemote(_:isLite:renomination:)`` and candidates must come, has a path of its own: ``Event/restarted(_:)``.
    public func restart(_ credentials: Credentials, localCandidates candidates: [Candidate]? = nil, now: Instant) {
        statistics.restarts &+= 1
        if isRestarting { statistics.restartsAbandoned &+= 1 }
        let active = activePair.map { pairs[$0].id }
        if let active, isCurrent(active) {
            previous = generation
        } else {
            // A generation that never had a path of its own is replaced.
            if active == nil { previous = nil }
            if let ufrag = generation.remote?.ufrag { retire(ufrag) }
        }
        if let candidates {
            localCandidates = Array(candidates.prefix(configuration.maximumLocalCandidates))
            localIsComplete = !configuration.tricklesCandidates && !candidates.isEmpty
        }
        generationCount &+= 1
        generation = Generation(generationCount, credentials)
        generation.remoteIsLite = previous?.remoteIsLite ?? false
        keepPairs(of: previous?.number)
        isRestarting = true
        timers[.settle] = nil
        timers[.move] = nil
        timers[.establish] = nil
        phase = .new
        start(now: now)
    }

    /// Gives up the restart under way, because it was rolled back or took too long: the generation of the path in use
    /// is the current one again.
    public func abandonRestart(now: Instant) {
        guard isRestarting, let old = previous, phase != .closed else { return }
        statistics.restartsAbandoned &+= 1
        if let ufrag = generation.remote?.ufrag, ufrag != old.remote?.ufrag { retire(ufrag) }
        isRestarting = false
        retire(generation, now)
        generation = old
        previous = nil
        keepPairs(of: old.number)
        timers[.settle] = nil
        timers[.patience] = nil
        timers[.establish] = nil
        mayHaveWaiting = true
        if activePair == nil { fail(.consentExpired) }
    }

    /// The number of the newest generation that was not abandoned, 0 before the first restart.
    public var generationNumber: UInt32 { generation.number }

    /// Removes what belongs to other generations.
    private func keepPairs(of number: UInt32?) {
        for index in pairs.indices.reversed() where pairs[index].generation != number { remove(index) }
        if index(of: selected) == nil { selected = nil }
        if index(of: provisional) == nil { provisional = nil }
    }

    /// The new generation has a path: what was kept of the old one is done with, but for its credentials, because the
    /// other side may need a moment more.
    func leavePrevious(_ now: Instant) {
        guard let old = previous else { return }
        if let ufrag = old.remote?.ufrag, ufrag != generation.remote?.ufrag { retire(ufrag) }
        retire(old, now)
        previous = nil
        for index in pairs.indices.reversed() where pairs[index].generation != generation.number { remove(index) }
    }

    /// Its checks are answered for as long as consent lasts: the other side may not know yet, or never learn.
    private func retire(_ generation: Generation, _ now: Instant) {
        retired = generation
        timers[.retire] = now + durations.failedAfter
    }

    func generation(_ number: UInt32) -> Generation? {
        number == generation.number ? generation : previous?.number == number ? previous : nil
    }
}
