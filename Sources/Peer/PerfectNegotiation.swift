import ICE
public import SDP
public import Wire

/// Negotiation by the peer itself (W3C WebRTC section 10.7, "perfect negotiation"): its messages come as
/// ``Event/signal(_:)``. Whatever happens to messages on their way, lost, doubled, late, in another order, the two sides
/// come to agree, and the connection there is stays as it is until they do.
extension Peer {
    // MARK: Calls

    /// Begins, or negotiates again, unless something is under way that does the same.
    public func negotiate(now: Instant) throws(DescriptionError) {
        try checkStyle()
        signaling.wantsExchange = true
        signaling.tries = 0
        proceed(now: now)
    }

    /// Restarts ICE (RFC 8445 section 9): a path of a new generation is looked for, and the one in use stays until there
    /// is one. Before there is a connection, begins.
    public func restart(now: Instant, reason: String) throws(DescriptionError) {
        try checkStyle()
        guard signaling.agreed != nil else { return try negotiate(now: now) }
        recover(restarts.ask(now: now), reason, now: now)
    }

    /// Takes an offer. `generation` and `isRestart` are those of the message, if it has them. Refused offers change
    /// nothing; duplicates, replays, and the offer of the side that gives way are no errors.
    public func receive(
        offer: SessionDescription, generation: UInt32?, isRestart: Bool, now: Instant
    ) throws(DescriptionError) {
        try checkStyle()
        switch signaling.age(of: offer) {
        case .older: return
        case .same:
            if let answered = answerAgain(now: now) { return answered ? () : ignore(now: now) }
        case .newer, .unknown: break
        }
        let remote: DataTransport
        do throws(NegotiationError) { remote = try offer.dataTransport() } catch { throw .unacceptable("\(error)") }
        try check(remote)
        // RFC 3264 section 4, glare: one side does not answer, the other one takes its own offer back and does.
        guard signaling.open == nil || configuration.style == .polite else { return ignore(now: now) }
        let plan = plan(for: remote, generation)
        let answer = try makeAnswer(to: offer, plan.credentials)
        guard transport == nil || answer.isDTLSClient == (transportRole == .client) else {
            throw .unacceptable("another role in DTLS: a new DTLS association is not supported")
        }
        rollBack(now: now)
        take(offer, answer, plan, now: now)
    }

    /// Takes an answer. One to an offer that is no longer there is no error, and changes nothing.
    public func receive(answer: SessionDescription, generation: UInt32?, now: Instant) throws(DescriptionError) {
        try checkStyle()
        guard let open = signaling.open, generation == nil || generation == open.generation else { return }
        switch signaling.age(of: answer) {
        case .older: return
        // One of ours has another version each time; of others nothing is known.
        case .same where generation != nil: return
        case .same, .newer, .unknown: break
        }
        let accepted = try accept(answer, to: open)
        try check(accepted.remote)
        guard transport == nil || accepted.isDTLSClient == (transportRole == .client) else {
            throw .unacceptable("another role in DTLS: a new DTLS association is not supported")
        }
        if let agreed = signaling.agreed, accepted.remote.restartsICE(since: agreed.remote) != open.isRestart {
            // RFC 8839 section 4.4.1.1.1: both sides change their credentials, or none. This one answers an earlier
            // offer, or comes from a side that has given up what we hold: only new credentials bring us together.
            if !open.isRestart { signaling.needsNewGeneration = true }
            return
        }
        signaling.open = nil
        signaling.isIgnoring = false
        signaling.wantsExchange = false
        signaling.retry = .distantFuture
        signaling.note(answer)
        if open.isRestart {
            signaling.wantsRestart = false
            signaling.needsNewGeneration = false
        }
        adopt(
            accepted.remote, generation: open.generation, open.credentials, isDTLSClient: accepted.isDTLSClient,
            now: now
        )
        noteUfrags()
        afterAgreement(now: now)
        proceed(now: now)
    }

    /// Takes a candidate; nil or empty: there are no more. `ufrag`: RTCIceCandidateInit's usernameFragment. Candidates
    /// that come before their description wait for it; those of an earlier generation are ignored.
    public func receive(candidate line: String?, ufrag: String?, now: Instant) throws(DescriptionError) {
        try checkStyle()
        let line = line.flatMap { $0.isEmpty ? nil : $0 }
        guard line.map({ $0.utf8.count <= 1024 }) ?? true, ufrag.map({ $0.utf8.count <= 256 }) ?? true else {
            malformedCandidates &+= 1
            return
        }
        let ufrag = ufrag ?? line.flatMap { CandidateExtension.ufrag(of: $0) }
        let isBetween = signaling.open.map { $0.isRestart || signaling.agreed == nil } ?? (signaling.agreed == nil)
        guard let ufrag else {
            // W3C WebRTC section 10.7: candidates of an offer that was ignored are no error.
            if signaling.isIgnoring { return }
            return isBetween ? signaling.keep(line, ufrag: nil) : takeCandidate(line)
        }
        if signaling.formerUfrags.contains(ufrag) { return }
        guard ufrag == signaling.agreed?.remote.iceUfrag else { return signaling.keep(line, ufrag: ufrag) }
        // Of the generation that a restart of ours is about to leave.
        if !isBetween { takeCandidate(line) }
    }

    private func checkStyle() throws(DescriptionError) {
        guard configuration.style != .manual else { throw .wrongState("this peer's host exchanges its descriptions") }
        guard !isClosed else { throw .wrongState("this peer is closed") }
    }

    // MARK: Offers of the other side

    /// What taking an offer means.
    struct Plan {
        var generation: UInt32
        var credentials: Credentials
        var isRestart: Bool
        /// The offer goes back to the generation of the path in use.
        var abandons: Bool
    }

    private func plan(for remote: DataTransport, _ generation: UInt32?) -> Plan {
        guard let agreed = signaling.agreed else {
            return Plan(generation: generation ?? 0, credentials: credentials, isRestart: false, abandons: false)
        }
        guard remote.restartsICE(since: agreed.remote) else {
            return Plan(
                generation: generation ?? agreed.generation, credentials: agreed.local, isRestart: false,
                abandons: false)
        }
        if let settled = signaling.settled, settled.local != agreed.local, !remote.restartsICE(since: settled.remote) {
            return Plan(
                generation: generation ?? settled.generation, credentials: settled.local, isRestart: false,
                abandons: true)
        }
        return Plan(
            generation: generation ?? signaling.highestGeneration &+ 1, credentials: newCredentials(), isRestart: true,
            abandons: false)
    }

    private func take(_ offer: SessionDescription, _ answer: SDP.Answer, _ plan: Plan, now: Instant) {
        let isFirst = signaling.agreed == nil
        if isFirst { begin(as: .controlled) }
        if plan.abandons { returnToSettled(now: now) }
        if plan.isRestart { agent.restart(plan.credentials, now: now) }
        signaling.layout = Layout(offer, data: answer.remote)
        signaling.isIgnoring = false
        signaling.wantsExchange = false
        signaling.retry = .distantFuture
        signaling.note(offer)
        if plan.isRestart {
            signaling.wantsRestart = false
            signaling.needsNewGeneration = false
        }
        adopt(
            answer.remote, generation: plan.generation, plan.credentials, isDTLSClient: answer.isDTLSClient, now: now)
        signaling.lastAnswer = signaling.remoteOrigin.map {
            SignalingState.LastAnswer(
                version: $0.version, text: answer.text, generation: plan.generation, ufrag: plan.credentials.ufrag)
        }
        noteUfrags()
        noteDescribed(plan.credentials)
        emit(.signal(.answer(sdp: answer.text, generation: plan.generation)))
        if plan.isRestart { otherSideRestarts(now: now) }
        afterAgreement(now: now)
        proceed(now: now)
    }

    /// A copy of the offer answered last gets the same answer, if that still holds. Nil: it is no such copy; false: it
    /// meets an offer of ours that stays.
    private func answerAgain(now: Instant) -> Bool? {
        guard let last = signaling.lastAnswer, last.version == signaling.remoteOrigin?.version,
            last.ufrag == signaling.agreed?.local.ufrag
        else { return nil }
        guard signaling.open == nil || configuration.style == .polite else { return false }
        emit(.signal(.answer(sdp: last.text, generation: last.generation)))
        // Our own offer waits on: this may be a late copy. If it is not, then ours was ignored.
        offerOnceMore(now: now)
        return true
    }

    /// W3C WebRTC section 10.7: this side's offer is the one that counts.
    private func ignore(now: Instant) {
        signaling.isIgnoring = true
        offerOnceMore(now: now)
    }

    /// The other side had not taken our offer when it sent what has come. If ours has been on its way for a while, it is
    /// lost. A copy too many does no harm.
    private func offerOnceMore(now: Instant) {
        guard let open = signaling.open, open.sent + .milliseconds(200) <= now else { return }
        signaling.open?.sent = now
        emit(.signal(.offer(sdp: open.offer.text, generation: open.generation, isRestart: open.isRestart)))
    }

    /// RFC 8829 section 4.1.10.2: as if our offer had not been made. What it was made for is still wanted.
    func rollBack(now: Instant) {
        guard let open = signaling.open else { return }
        signaling.open = nil
        signaling.retry = .distantFuture
        if open.isRestart {
            returnToSettled(now: now)
            signaling.wantsRestart = true
        } else {
            signaling.wantsExchange = true
        }
    }

    /// The generation of the path in use is the current one again. What was agreed on since, and has no path, is over:
    /// the agent has forgotten it.
    func returnToSettled(now: Instant) {
        agent.abandonRestart(now: now)
        guard let settled = signaling.settled, let agreed = signaling.agreed, settled.local != agreed.local else {
            return
        }
        if agreed.remote.iceUfrag != settled.remote.iceUfrag { signaling.forget(ufrag: agreed.remote.iceUfrag) }
        signaling.remember(ufrag: settled.remote.iceUfrag)
        signaling.agreed = settled
        signaling.needsNewGeneration = true
    }

    // MARK: Offers of ours

    /// Does what is wanted, if nothing is under way.
    func proceed(now: Instant) {
        guard configuration.style != .manual, !isClosed, signaling.open == nil else { return }
        if signaling.agreed != nil, signaling.wantsRestart { return offer(isRestart: true, now: now) }
        // A restart is looking for its path: the exchange that it came with may not have reached the other side.
        guard signaling.wantsExchange, !(signaling.agreed != nil && restarts.isUnderway) else { return }
        offerAgain(now: now)
    }

    private func offerAgain(now: Instant) {
        guard signaling.agreed != nil, signaling.needsNewGeneration else { return offer(isRestart: false, now: now) }
        recover(restarts.ask(now: now), "the two sides may not agree on a generation", now: now)
    }

    /// Makes an offer, in place of the one that is open.
    func offer(isRestart: Bool, now: Instant) {
        let isRestart = isRestart && signaling.agreed != nil
        if signaling.agreed == nil { begin(as: .controlling) }
        let own = isRestart ? newCredentials() : signaling.agreed?.local ?? credentials
        // Only a malformed certificate could be a reason, and then there is no first description either.
        guard let made = try? makeOffer(own) else { return }
        let generation =
            isRestart ? signaling.highestGeneration &+ 1 : signaling.agreed?.generation ?? signaling.highestGeneration
        signaling.highestGeneration = max(signaling.highestGeneration, generation)
        if isRestart {
            agent.restart(own, now: now)
            signaling.retry = .distantFuture
        } else {
            signaling.retry = now + restarts.settings.timeout
        }
        signaling.open = OpenOffer(
            offer: made, generation: generation, credentials: own, isRestart: isRestart, sent: now)
        signaling.isIgnoring = false
        noteUfrags()
        noteDescribed(own)
        emit(.signal(.offer(sdp: made.text, generation: generation, isRestart: isRestart)))
    }

    /// The answer has not come. An offer that restarts ICE is the restart schedule's.
    func retryOffer(now: Instant) {
        signaling.retry = .distantFuture
        guard let open = signaling.open, !open.isRestart else { return }
        signaling.tries += 1
        guard signaling.tries < max(configuration.timers.restartAttempts, 1) else {
            // Open for offers of the other side.
            signaling.open = nil
            signaling.wantsExchange = false
            return
        }
        offerAgain(now: now)
    }

    /// RFC 8445 section 6.1.1: the side whose offer is answered controls. Roles stay in all later exchanges (section 9).
    private func begin(as iceRole: ICE.Role) {
        guard agent.role != iceRole, !isLite, case .waiting = phase else { return }
        agent = makeAgent(iceRole)
        if candidatesAreComplete { agent.localCandidatesComplete() }
    }

    func newCredentials() -> Credentials {
        var generator = random
        defer { random = generator }
        return Credentials(using: &generator)
    }

    /// Checks may name these from now on.
    func noteUfrags() {
        guard configuration.style != .manual else { return }
        let current = localUfrags
        guard current != announcedUfrags else { return }
        announcedUfrags = current
        emit(.ufragsChanged)
    }

    /// All user fragments that checks for this peer may name.
    public var localUfrags: [String] {
        var ufrags: [String] = []
        for own in [signaling.open?.credentials, signaling.agreed?.local, signaling.settled?.local] {
            if let own, !ufrags.contains(own.ufrag) { ufrags.append(own.ufrag) }
        }
        return ufrags.isEmpty ? [credentials.ufrag] : ufrags
    }

    /// Which section of our descriptions is for data, for RTCIceCandidateInit.
    public var dataSectionIndex: UInt16 { UInt16(clamping: signaling.layout.mediaIndex) }
}
