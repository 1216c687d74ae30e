import CSystem
import DTLS
import ICE
import Peer
import Reload
import SDP
import Signaling
import Wire

/// The making of peers, and what becomes of them.
extension Loop {
    // MARK: Making

    /// - Parameters:
    ///   - provider: with the certificate to use; nil: the current one.
    ///   - returning: the client with a ticket that the peer is for.
    func makeConnection(
        _ entry: PeerEntry, role: Peer.Role, _ request: PeerConfiguration,
        provider: (any SecureTransportProvider)? = nil, returning: Peer.ReturningClient? = nil
    ) throws(Failure) -> Connection {
        let isShared = role == .answerer
        let own = isShared ? port : try Port.open(SocketAddress(ip: configuration.bindAddress ?? .anyIPv6, port: 0))
        var settings = Peer.Configuration()
        settings.isLite = configuration.isLite
        settings.prefersActive = request.prefersActive
        settings.maximumMessageSize = configuration.maximumMessageSize
        settings.receiveBuffer = max(configuration.receiveWindow, configuration.maximumMessageSize)
        // One more: the control channel is not the host's.
        settings.maximumChannels = configuration.maximumChannels + 1
        settings.timers = peerTimers
        settings.style = Peer.Style(request.negotiation)
        settings.relayOnly = isRelayOnly(request.icePolicy)
        settings.resolvesNames = configuration.resolvesMulticastNames && !settings.relayOnly
        let candidates = isShared ? sharedCandidates : network.candidates(ownPort: own.number) + streamCandidates
        let peer = Peer(
            role: role, configuration: settings, candidates: candidates,
            provider: provider ?? certificates.current, packets: packets, random: random, returning: returning, now: now
        )
        let connection = Connection(entry: entry, peer: peer, port: own, isOnSharedPort: isShared)
        connection.candidates = candidates
        connection.policy = request.icePolicy
        if !isShared { gather(connection) }
        try add(connection)
        for channel in request.channels { openConfigured(channel, entry) }
        return connection
    }

    private func openConfigured(_ channel: ChannelConfiguration, _ entry: PeerEntry) {
        guard let made = try? ChannelEntry.make(channel, peer: entry) else { return }
        openChannel(made, channel)
    }

    func answer(_ entry: PeerEntry, _ request: AnswerRequest) {
        do throws(Failure) {
            let connection = try makeConnection(entry, role: .answerer, request.configuration)
            connection.wantsTicket = request.wantsTicket && tickets != nil
            connection.derivesInit = connection.wantsTicket && request.derivesInit
            if connection.wantsTicket { openControl(connection) }
            markDirty(connection)
            let sdp = try describe(connection) { peer throws(Peer.DescriptionError) in
                try peer.answer(request.description, now: self.now)
            }
            let pending = PendingAnswer(request: request, sdp: sdp)
            let fingerprints = connection.peer.announcedFingerprints.compactMap { ClientFingerprint(digest: $0.bytes) }
            switch sessions.decide(token: request.token, fingerprints: fingerprints, now: now) {
            case .decided(let decision): try finish(pending, connection, decision)
            case .pending(let id):
                connection.pendingAnswer = pending
                waitingAnswers[id] = connection
            }
        } catch {
            refuse(entry, request, error)
        }
    }

    /// Who comes is known: the answer can be given.
    private func finish(_ pending: PendingAnswer, _ connection: Connection, _ decision: Decision) throws(Failure) {
        engine.counters.sessions.store(sessions.count, ordering: .relaxed)
        connection.session = decision
        // The offer may name more certificates than the session's; here only that one counts.
        connection.peer.requiredDigest = decision.requiredFingerprint?.digest
        let isFast = decision.mode == .fast
        var event = Event(.answer)
        event.tag = pending.request.tag
        event.peer = connection.entry.handle
        event.data = try Describing.json(
            answer: pending.sdp, isFast: isFast, token: decision.grant.token.text,
            ticket: answeredTicket(connection, decision))
        event.number = isFast ? 1 : 0
        event.duration = Instant(nanoseconds: cs_monotonic_ns()) - pending.request.received
        if isFast { engine.counters.answersFast.count() } else { engine.counters.answersNormal.count() }
        metrics.answered(mode: ConnectionMode(decision.mode), reason: decision.reason)
        if decision.reason == .storeUnavailable {
            metrics.lookupUnavailable()
        } else if decision.reason != .noToken, decision.reason != .disabled {
            metrics.lookup(hit: decision.session != nil)
        }
        if isFast { attempted(connection) }
        for channel in connection.channels.values { setLimit(of: channel.entry, connection) }
        events.append(event)
    }

    /// The ticket that goes with an answer, if it is clear whose it would be.
    private func answeredTicket(_ connection: Connection, _ decision: Decision) -> Ticket? {
        let announced = connection.peer.announcedFingerprints
        guard connection.wantsTicket, announced.count == 1,
            let fingerprint = ClientFingerprint(digest: announced[0].bytes),
            let ticket = makeTicket(for: decision.grant.clientID, fingerprint, connection)
        else { return nil }
        connection.hasTicket = true
        return ticket
    }

    private func refuse(_ entry: PeerEntry, _ request: AnswerRequest, _ failure: Failure) {
        var event = Event(.answer)
        event.tag = request.tag
        event.peer = entry.handle
        event.status = failure.status
        event.data = .text(failure.detail)
        event.duration = Instant(nanoseconds: cs_monotonic_ns()) - request.received
        events.append(event)
        abandon(entry, failure)
    }

    /// Decisions that had to wait for the session store.
    func drainDecisions() {
        guard !waitingAnswers.isEmpty else { return }
        while let (id, decision) = sessions.pollDecision(now: now) {
            guard let connection = waitingAnswers.removeValue(forKey: id),
                let pending = connection.pendingAnswer.take()
            else { continue }
            do throws(Failure) {
                try finish(pending, connection, decision)
                markDirty(connection)
            } catch {
                refuse(connection.entry, pending.request, error)
            }
        }
    }

    func create(_ entry: PeerEntry, _ request: PeerConfiguration) {
        do throws(Failure) {
            _ = try makeConnection(entry, role: .offerer, request)
        } catch {
            abandon(entry, error)
        }
    }

    func offer(_ entry: PeerEntry, tag: UInt64) {
        var event = Event(.offer)
        event.tag = tag
        event.peer = entry.handle
        do throws(Failure) {
            let connection = try connection(of: entry)
            let sdp = try describe(connection) { peer throws(Peer.DescriptionError) in try peer.makeOffer() }
            event.data = try Describing.json(offer: sdp)
            markDirty(connection)
        } catch {
            event.fail(error)
        }
        events.append(event)
    }

    func accept(_ entry: PeerEntry, _ description: SessionDescription, tag: UInt64) {
        var event = Event(.result)
        event.tag = tag
        event.peer = entry.handle
        do throws(Failure) {
            let connection = try connection(of: entry)
            _ = try describe(connection) { peer throws(Peer.DescriptionError) in
                try peer.accept(description, now: self.now)
                return ""
            }
            for channel in connection.channels.values { setLimit(of: channel.entry, connection) }
            markDirty(connection)
        } catch {
            event.fail(error)
        }
        events.append(event)
    }

    func addCandidate(_ entry: PeerEntry, _ text: String?) {
        guard let connection = connections[entry.handle] else { return }
        do throws(Peer.DescriptionError) {
            try connection.peer.addRemoteCandidate(text)
            markDirty(connection)
        } catch {
            log(.warning, "[ICE] Candidate not taken: \(error)")
        }
    }

    private func connection(of entry: PeerEntry) throws(Failure) -> Connection {
        guard let connection = connections[entry.handle] else { throw Failure(.closed, "the peer is closed") }
        return connection
    }

    private func describe(
        _ connection: Connection, _ body: (Peer) throws(Peer.DescriptionError) -> String
    ) throws(Failure) -> String {
        do throws(Peer.DescriptionError) { return try body(connection.peer) } catch { throw Failure(describing: error) }
    }

    /// Ends a peer that never came into being, as every peer ends: with its last event.
    func abandon(_ entry: PeerEntry, _ failure: Failure) {
        if let connection = connections[entry.handle] {
            connection.failure = failure
            connection.peer.close(now: now)
            return markDirty(connection)
        }
        var event = Event(.peerState)
        event.peer = entry.handle
        event.tag = entry.tag
        event.number = PeerState.closed.rawValue
        event.status = failure.status
        event.data = .text(failure.detail)
        events.append(event)
        engine.counters.peersFailed.count()
        engine.counters.peers.wrappingSubtract(1, ordering: .relaxed)
        entry.isClosed.store(true, ordering: .relaxed)
        HandleTable.shared.remove(entry.handle)
    }

    // MARK: What happens to them

    func drainEvents(_ connection: Connection) {
        while let happened = connection.peer.pollEvent() {
            switch happened {
            case .connecting: tell(connection, .connecting)
            case .connected:
                engine.counters.peersConnected.count()
                tell(connection, .connected)
                welcome(connection)
            case .disconnected: tell(connection, .disconnected)
            case .reconnected: tell(connection, .connected)
            case .signal(let signal): tell(connection, signal)
            case .path(let report): tell(connection, report)
            case .restart(let report): tell(connection, report)
            case .resolve(let name): resolve(name, for: connection)
            case .ufragsChanged: register(connection)
            case .closed(let reason):
                // What arrived before the end is still the host's.
                drainChannelEvents(connection, isLast: true)
                hurryWelcome(connection)
                goodbye(connection, reason)
                return
            }
        }
        drainChannelEvents(connection)
    }

    private func tell(_ connection: Connection, _ state: PeerState, status: Status = .ok, detail: String = "") {
        var event = Event(.peerState)
        event.peer = connection.entry.handle
        event.tag = connection.entry.tag
        event.number = state.rawValue
        event.status = status
        event.data = .text(detail)
        event.duration = now - connection.peer.created
        if connection.username != nil { event.flags |= Event.ticket }
        events.append(event)
    }

    /// The other side is authenticated. A client with a ticket may be, before the store has said what it knows of it.
    private func welcome(_ connection: Connection) {
        if let client = connection.claimedClient, backend?.store.isPrefetching(client) == true {
            lateWelcomes.append(connection)
        } else {
            settle(welcome: connection)
        }
    }

    /// Every look-up is answered, if only with "unavailable".
    func drainWelcomes() {
        guard !lateWelcomes.isEmpty else { return }
        let waiting = lateWelcomes
        lateWelcomes = []
        for connection in waiting where !connection.peer.isClosed { welcome(connection) }
    }

    /// The peer ends while the store is still asked: its client has been here all the same, and what the store knows of it
    /// is put together with that later.
    private func hurryWelcome(_ connection: Connection) {
        guard let index = lateWelcomes.firstIndex(where: { $0 === connection }) else { return }
        lateWelcomes.remove(at: index)
        settle(welcome: connection)
    }

    /// Its session is now this peer's, and whoever had it before goes.
    private func settle(welcome connection: Connection) {
        guard let decision = connection.session, let path = connection.peer.selectedPath,
            let fingerprint = connection.peer.provenFingerprint.flatMap({ ClientFingerprint(digest: $0.bytes) })
        else { return }
        // Until just now the earlier connection may have been alive: then the client was hardly away.
        for earlier in sessions.session(decision.grant.clientID)?.live ?? [] {
            guard let zombie = connections[earlier.peer] else { continue }
            sessions.heard(from: decision.grant.clientID, now: zombie.peer.lastHeard)
        }
        let type = CandidateType(rawValue: connection.peer.candidateKind(of: path).rawValue) ?? .host
        let arrival = sessions.connected(
            decision.grant, peer: connection.entry.handle, fingerprint: fingerprint, address: path.remote,
            candidateType: type,
            candidates: connection.peer.remoteCandidateTexts, now: now)
        connection.client = arrival.clientID
        forgetUnproven(connection)
        attemptSucceeded(connection)
        if connection.isControlOpen, !connection.hasTicket {
            connection.ticketDue = now
            markDirty(connection)
        }
        engine.counters.sessions.store(sessions.count, ordering: .relaxed)
        for handle in arrival.replaced { replace(handle) }
        tellSession(connection, decision, arrival)
        metrics.connected(
            mode: ConnectionMode(decision.mode), isIPv6: path.remote.ip.isIPv6,
            candidateType: type, isRelayed: type == .relay || connection.peer.statistics.localKind == .relayed,
            duration: now - connection.peer.created)
        logConnect(connection, decision, path: path, result: .success)
    }

    private func replace(_ handle: UInt64) {
        guard let zombie = connections[handle] else { return }
        zombie.isReplaced = true
        zombie.peer.close(now: now)
        markDirty(zombie)
    }

    private func tellSession(_ connection: Connection, _ decision: Decision, _ arrival: Arrival) {
        var event = Event(.session)
        event.peer = connection.entry.handle
        event.tag = connection.entry.tag
        event.data = .text(arrival.clientID.description)
        event.extra = .text(decision.grant.token.displayPrefix)
        event.number = 1
        event.detailKind = decision.mode.number
        if case .returned(let away, let count) = arrival.kind {
            event.number = Int64(count)
            event.flags |= Event.returned
            event.duration = away
            engine.counters.sessionsReturned.count()
            metrics.returned()
        }
        events.append(event)
    }

    private func logConnect(_ connection: Connection, _ decision: Decision, path: Path?, result: LogLine.ConnectResult)
    {
        log(
            .info,
            LogLine.connect(
                session: decision.grant.token.displayPrefix, mode: ConnectionMode(decision.mode),
                isIPv6: path?.remote.ip.isIPv6, duration: now - connection.peer.created, result: result))
    }

    private func goodbye(_ connection: Connection, _ reason: Peer.CloseReason) {
        var (status, detail) = connection.isReplaced ? (Status.replaced, "the session came back") : describe(reason)
        if let failure = connection.failure { (status, detail) = (failure.status, failure.detail) }
        countEnd(connection, status)
        if let pending = connection.pendingAnswer.take() {
            // Closed while the session store was asked: there will be no answer.
            var event = Event(.answer)
            event.tag = pending.request.tag
            event.peer = connection.entry.handle
            event.status = status == .ok ? .closed : status
            event.data = .text(detail)
            events.append(event)
        }
        attemptClosed(connection, status)
        if let client = connection.client {
            sessions.disconnected(client, peer: connection.entry.handle, lastHeard: connection.peer.lastHeard, now: now)
        } else if let decision = connection.session, status != .ok {
            logConnect(connection, decision, path: connection.peer.selectedPath, result: .failure)
        }
        closeChannels(connection, status: status == .ok ? .peerGone : status)
        tell(connection, .closed, status: status, detail: detail)
        connection.entry.isClosed.store(true, ordering: .relaxed)
        HandleTable.shared.remove(connection.entry.handle)
    }

    private func countEnd(_ connection: Connection, _ status: Status) {
        let isUnproven = connection.peer.milestones.authenticated == nil
        guard isUnproven || status != .ok && status != .peerGone && status != .replaced else { return }
        // The slower one of two ways is no failure.
        guard !isUnproven || !isOvertaken(connection) else { return }
        engine.counters.peersFailed.count()
        guard isUnproven, let mode = connection.session?.mode else { return }
        metrics.failed(mode: ConnectionMode(mode), iceFailure: status == .iceFailed || status == .timeout)
        // A stolen ticket: its password was right.
        if mode == .zeroSignaling, status == .fingerprintMismatch { metrics.ticket(.refused(.otherFingerprint)) }
    }

    private func describe(_ reason: Peer.CloseReason) -> (Status, String) {
        switch reason {
        case .local: (.ok, "")
        case .remote: (.peerGone, "the other side closed the connection")
        case .noPath(let detail): (.iceFailed, detail)
        case .consentExpired:
            (.consentExpired, "nothing authentic arrived for \(configuration.failedTimeout.milliseconds) ms")
        case .timeout(let detail): (.timeout, detail)
        case .handshakeFailed(let detail): (.dtlsFailed, detail)
        case .fingerprintMismatch:
            (.fingerprintMismatch, "the other side's certificate is not the one its description announced")
        case .associationFailed(let detail): (.sctpFailed, detail)
        }
    }
}
