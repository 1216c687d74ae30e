public import ICE
public import Wire

/// A path that fails, or may have failed: when ICE is restarted, and what comes of it.
extension Peer {
    // MARK: Reasons

    /// The machine's network is another one, or is gone, or is back. To be called after the candidates were changed.
    public func networkChanged(isOnline: Bool, now: Instant) {
        guard !isClosed else { return }
        let action = restarts.setOnline(isOnline, now: now)
        if isOnline { agent.networkChanged(now: now) }
        drainAgent(now: now)
        guard restartsByItself else { return }
        recover(action, action == .begin ? "the network is back" : "there is no network", now: now)
        let wasOrphaned = isOrphaned
        if isOnline { isOrphaned = false }
        if wasOrphaned, settledPath != nil { need("the address of the path in use is gone", now: now) }
    }

    /// What carried this path has ended: a TCP connection that closed, a relay that is gone.
    public func connectionFailed(_ path: Path, now: Instant) {
        guard !isClosed else { return }
        agent.connectionFailed(path, now: now)
        drainAgent(now: now)
    }

    public func setTimers(_ timers: Timers, now: Instant) {
        configuration.timers = timers
        restarts.settings = timers.restartSettings
        agent.setTimers(timers.agent)
    }

    /// Manual peers have nobody to carry an offer. A Lite agent has the other side for it (RFC 8445 section 2.5).
    var restartsByItself: Bool { configuration.style != .manual && signaling.agreed != nil }

    private var settledPath: Path? { signaling.settled == nil ? nil : agent.selectedPath }

    func need(_ reason: String, now: Instant) {
        guard restartsByItself, !isClosed else { return }
        lastNeed = reason
        recover(restarts.need(now: now), reason, now: now)
    }

    /// The path in use is silent while data flows. An answer to the probe takes a round trip.
    func suspect(now: Instant) {
        doubtSince = min(doubtSince, now)
        guard restartsByItself else { return }
        let patience = (agent.roundTrip ?? .milliseconds(100)) + .milliseconds(150)
        // In bad weather suspicion is frequent: not one restart after the other.
        suspicion = max(now + patience, lastRestart + configuration.timers.restartPause.upperBound)
    }

    func trust(now: Instant) {
        // What was lost in a silence of several round trips waits for a timer that has backed off.
        let isOver = doubtSince + max((agent.roundTrip ?? .zero) * 2, .milliseconds(300)) <= now
        if isOver { resumeData(now: now) }
        doubtSince = .distantFuture
        suspicion = .distantFuture
        restarts.relieve()
    }

    /// The path in use leads elsewhere. What was on its way on one that is dead is lost; on one that only gave way it
    /// still arrives.
    func moveData(isLost: Bool, now: Instant) {
        guard isConnected else { return }
        data.association?.pathChanged(roundTrip: agent.roundTrip, isLost: isLost, now: now)
        checkAssociation(now: now)
    }

    func resumeData(now: Instant) {
        guard isConnected else { return }
        data.association?.pathRecovered(now: now)
        checkAssociation(now: now)
    }

    // MARK: Attempts

    func recover(_ action: RestartSchedule.Action?, _ reason: String, now: Instant) {
        guard let action, !isClosed else { return }
        switch action {
        case .begin:
            lastRestart = now
            suspicion = .distantFuture
            report(.started, reason, now: now)
            signaling.wantsRestart = true
            offer(isRestart: true, now: now)
        case .timedOut: failAttempt(now: now)
        case .paused: report(.paused, "there is no network", now: now)
        case .giveUp:
            report(.givenUp, reason, now: now)
            if let failure { end(failure, now: now) }
        }
    }

    private func failAttempt(now: Instant) {
        var reason = "no path of the new generation answered in time"
        signaling.wantsRestart = false
        signaling.needsNewGeneration = true
        if signaling.open?.isRestart == true {
            // As if the offer had not been made (RFC 8829 section 4.1.10.2). The path in use stays.
            reason = "no answer came"
            signaling.open = nil
            returnToSettled(now: now)
            noteUfrags()
        }
        report(.failed, reason, now: now)
        var generator = random
        let next = restarts.attemptFailed(now: now, using: &generator)
        random = generator
        // Until the next attempt the path that was looked for may still be found; after the last one both sides return.
        if !restarts.isActive {
            returnToSettled(now: now)
            noteUfrags()
        }
        recover(next, reason, now: now)
        drainAgent(now: now)
        proceed(now: now)
    }

    func otherSideRestarts(now: Instant) {
        lastRestart = now
        restarts.otherSideBegan(now: now)
        report(.started, "the other side began it", now: now)
    }

    /// Authenticated bytes came on a path of the new generation.
    func restartSucceeded(now: Instant) {
        // Before the answer is here: what the other side says there comes first.
        guard signaling.open?.isRestart != true else { return }
        signaling.settled = signaling.agreed
        signaling.needsNewGeneration = false
        failure = nil
        noteUfrags()
        if restarts.attempt > 0 { report(.recovered, "", now: now) }
        restarts.succeeded()
        trust(now: now)
        proceed(now: now)
    }

    /// An exchange is complete: its path may have been proven before.
    func afterAgreement(now: Instant) {
        drainAgent(now: now)
        guard let settled = signaling.settled, let agreed = signaling.agreed, settled.local != agreed.local,
            !agent.isRestarting, agent.selectedPath != nil
        else { return }
        restartSucceeded(now: now)
    }

    private func report(_ stage: RestartReport.Stage, _ sentence: String, now: Instant) {
        emit(
            .restart(
                RestartReport(
                    stage: stage, attempt: max(restarts.attempt, 1), sentence: sentence,
                    duration: restarts.duration(now: now))))
    }

    // MARK: The end of a path

    /// Nothing may be sent any more (RFC 7675 section 5.1), and DTLS and SCTP live on while a restart may bring a path.
    func agentFailed(_ reason: CloseReason, now: Instant) {
        guard restartsByItself, signaling.settled != nil else { return end(reason, now: now) }
        failure = reason
        need("the path is gone", now: now)
        if restarts.isActive { return fallSilent(now: now) }
        end(reason, now: now)
    }

    func fallSilent(now: Instant) {
        doubtSince = min(doubtSince, now)
        guard isConnected, !isSilent else { return }
        isSilent = true
        emit(.disconnected)
    }

    func endSilence(now: Instant) {
        guard isSilent else { return }
        isSilent = false
        emit(.reconnected)
    }

    // MARK: Timers

    var recoveryTimeout: Instant {
        min(suspicion, signaling.retry, restarts.nextTimeout ?? .distantFuture)
    }

    func handleRecoveryTimeout(now: Instant) {
        if suspicion <= now {
            suspicion = .distantFuture
            if doubtSince != .distantFuture { need("the path in use does not answer", now: now) }
        }
        if let action = restarts.handleTimeout(now: now) { recover(action, lastNeed, now: now) }
        if signaling.retry <= now { retryOffer(now: now) }
    }

    // MARK: Paths

    func reportPath(_ path: Path, _ reason: PathReason) {
        pathCount &+= 1
        let ends = agent.candidates(of: path)
        emit(
            .path(
                PathReport(
                    path: path, local: ends.map { text(of: $0.local) } ?? "", remote: ends?.remote.text ?? "",
                    reason: reason, count: pathCount, roundTrip: agent.roundTrip)))
    }
}

extension Peer.Timers {
    var restartSettings: RestartSchedule.Settings {
        RestartSchedule.Settings(
            timeout: max(restart, .milliseconds(100)), attempts: restartAttempts, pause: restartPause)
    }

    var agent: Agent.Timers {
        var timers = Agent.Timers()
        if let checkInterval { timers.checkInterval = checkInterval }
        timers.consentInterval = consentInterval
        timers.heartbeat = heartbeat
        timers.suspicion = suspicion
        timers.standbyInterval = standbyInterval
        timers.disconnectedAfter = disconnect
        timers.failedAfter = failed
        timers.patience = patience
        return timers
    }
}

extension Peer.PathReason {
    init(_ change: PathChange) {
        switch change {
        case .first: self = .first
        case .better: self = .better
        case .failover: self = .failover
        case .restarted: self = .restarted
        case .moved: self = .moved
        }
    }
}
