import CSystem
import DataChannel
import Peer
import Reload
import SDP
import Signaling
import Synchronization
import Wire

/// The connectors of a loop.
struct Connectors {
    var byHandle: [UInt64: Reconnection] = [:]
    var deadlines = Deadlines<Reconnection>()
}

/// The work of connectors: their policy says what to do, this does it.
extension Loop {
    private var unixMilliseconds: Int64 { cs_unix_ns() / 1_000_000 }

    /// Another number, other addresses.
    private var networkName: UInt64 { UInt64(bitPattern: Int64(network.hosts.hashValue)) }

    private var hasIPv6: Bool { network.hosts.contains(where: \.isIPv6) }

    // MARK: From the host

    func perform(_ command: ConnectorCommand, _ entry: ConnectorEntry) {
        if case .create = command {
            connectors.byHandle[entry.handle] = Reconnection(entry: entry)
            return
        }
        guard let reconnection = connectors.byHandle[entry.handle] else { return }
        switch command {
        case .create: break
        case .connect: connect(reconnection)
        case .answer(let exchange, let answer): take(answer, exchange, reconnection)
        case .candidate(let exchange, let candidate): take(candidate, exchange, reconnection)
        case .signalingFailed(let exchange): reconnection.connector.signalingFailed(exchange, now: now)
        case .forget:
            reconnection.connector.forget()
            entry.drop()
        case .close: reconnection.connector.close(wallClock: unixMilliseconds, now: now)
        }
        drive(reconnection)
        if case .close = command { end(reconnection) }
    }

    private func connect(_ reconnection: Reconnection) {
        let entry = reconnection.entry
        let conditions = Connector.Conditions(
            entry: entry.cache.entries[entry.key], ticket: entry.cache.tickets[entry.key],
            wallClock: unixMilliseconds, network: networkName,
            isFastReloadOn: effectiveFastReload == .on)
        reconnection.obstacle = nil
        engine.series.client.ipv6Available(
            network.hosts.contains { $0.isIPv6 && !$0.isLoopback && !$0.isLinkLocal })
        noteCache(conditions, entry)
        // The host's flag has seen to it that none is under way.
        _ = reconnection.connector.connect(conditions, now: now)
    }

    private func noteCache(_ conditions: Connector.Conditions, _ entry: ConnectorEntry) {
        guard let kept = conditions.entry else {
            if conditions.ticket != nil { engine.series.client.cacheHit() } else { engine.series.client.cacheMiss() }
            return
        }
        let validity = kept.validity(
            wallClock: conditions.wallClock, maximumAge: entry.configuration.maximumCacheAge)
        if validity.isFresh { engine.series.client.cacheHit() } else { engine.series.client.cacheMiss() }
        log(
            .info,
            LogLine.cacheLoad(
                age: validity.age, isValid: validity.isFresh, ipv6: kept.count(isIPv6: true),
                ipv4: kept.count(isIPv6: false), lastProtocol: kept.lastSuccessfulProtocol.rawValue))
    }

    private func take(_ answer: ReceivedAnswer, _ exchange: Int64, _ reconnection: Reconnection) {
        guard reconnection.connector.awaitsAnswer(exchange),
            let attempt = reconnection.connector.attempt(ofExchange: exchange),
            let connection = reconnection.contenders[attempt], let contender = connection.contender
        else { return }
        do throws(Peer.DescriptionError) {
            try connection.peer.accept(answer.description, now: now)
        } catch {
            let failure = Failure(describing: error)
            return reconnection.connector.ended(
                attempt, .peer(failure.status.rawValue, failure.detail), wallClock: unixMilliseconds, now: now)
        }
        reconnection.connector.answered(exchange, answer.contents, now: now)
        for channel in connection.channels.values { setLimit(of: channel.entry, connection) }
        for candidate in contender.early {
            if let candidate { reconnection.connector.learned(exchange, candidate) }
            try? connection.peer.addRemoteCandidate(candidate?.candidate)
        }
        contender.early = []
        if answer.contents.mode == .fast { inject(answer, reconnection, connection) }
        markDirty(connection)
    }

    /// What worked last time is tried too, where the answer does not name it: IPv6 first.
    private func inject(_ answer: ReceivedAnswer, _ reconnection: Reconnection, _ connection: Connection) {
        let entry = reconnection.entry
        guard let kept = entry.cache.entries[entry.key] else { return }
        let named = Set(answer.contents.candidates.compactMap { CandidateLine(parsing: $0.candidate)?.address })
        for candidate in kept.injectionOrder(hasIPv6: hasIPv6) {
            guard let address = CandidateLine(parsing: candidate.candidate)?.address, !named.contains(address) else {
                continue
            }
            try? connection.peer.addRemoteCandidate(candidate.candidate)
        }
    }

    private func take(_ candidate: CandidateInit?, _ exchange: Int64, _ reconnection: Reconnection) {
        guard let attempt = reconnection.connector.attempt(ofExchange: exchange),
            let connection = reconnection.contenders[attempt], let contender = connection.contender
        else { return }
        if let candidate { reconnection.connector.learned(exchange, candidate) }
        if reconnection.connector.awaitsAnswer(exchange) {
            if contender.early.count < Contender.maximumEarly { contender.early.append(candidate) }
        } else {
            try? connection.peer.addRemoteCandidate(candidate?.candidate)
            markDirty(connection)
        }
    }

    // MARK: Time

    var connectorTimeout: Instant? { connectors.deadlines.earliest }

    func fireConnectors() {
        while let reconnection = connectors.deadlines.popDue(at: now) {
            reconnection.connector.handleTimeout(now: now)
            drive(reconnection)
        }
    }

    // MARK: What the policy wants

    private func drive(_ reconnection: Reconnection) {
        // What an action brings about is done by the call that is at it already.
        guard !reconnection.isDriving else { return }
        reconnection.isDriving = true
        while let action = reconnection.connector.pollAction() { perform(action, reconnection) }
        reconnection.isDriving = false
        connectors.deadlines.set(reconnection, reconnection.connector.nextTimeout)
    }

    private func perform(_ action: Connector.Action, _ reconnection: Reconnection) {
        let entry = reconnection.entry
        switch action {
        case .report(let report): tell(report, reconnection)
        case .startWithTicket(let attempt, let ticket):
            start(attempt, reconnection, isByTicket: true) { connection throws(Failure) in
                try self.resume(connection, ticket)
            }
        case .startSignaling(let attempt, let exchange, let token):
            start(attempt, reconnection) { connection throws(Failure) in
                try self.offer(connection, token: token, exchange: exchange, reconnection)
            }
        case .stop(let attempt): stop(attempt, reconnection)
        case .connected(let attempt, let mode, let replaced, let after):
            connected(attempt, mode, replacing: replaced, after: after, reconnection)
        case .failed(let reason, let after):
            entry.isConnecting.store(false, ordering: .sequentiallyConsistent)
            tell(.failed, reconnection, reason: reason, after: after)
        case .lost(let attempt, let mode, let reason):
            tell(.lost, reconnection, reason: reason, mode: mode, peer: reconnection.contenders[attempt])
        case .store(let kept): if entry.cache.entries.set(entry.key, kept) { entry.files.changed() }
        case .drop(let token):
            if entry.cache.entries.remove(entry.key, where: { $0.sessionID == token }) { entry.files.changed() }
        case .storeTicket(let ticket): if entry.cache.tickets.set(entry.key, ticket) { entry.files.changed() }
        case .dropTicket(let ticket):
            if entry.cache.tickets.remove(entry.key, where: { $0.ufrag == ticket.ufrag }) { entry.files.changed() }
        }
    }

    // MARK: Attempts

    private func start(
        _ attempt: Int, _ reconnection: Reconnection, isByTicket: Bool = false,
        _ begin: (Connection) throws(Failure) -> Void
    ) {
        let first = events.count
        var made: PeerEntry?
        do throws(Failure) {
            let request = reconnection.entry.configuration.peer
            let entry = try engine.makeEntry(request)
            made = entry
            let connection = try makeConnection(entry, role: .offerer, request)
            let contender = Contender(owner: reconnection, attempt: attempt, isByTicket: isByTicket)
            contender.closedChannels = Set(connection.channels.values.map(\.entry.handle))
            connection.contender = contender
            reconnection.contenders[attempt] = connection
            // A channel that could not be opened has said so.
            contender.held = takeEvents(of: connection, from: first)
            if reconnection.entry.configuration.usesTickets { openControl(connection) }
            try begin(connection)
            markDirty(connection)
        } catch {
            if let made, reconnection.contenders[attempt] == nil { discard(made) }
            reconnection.connector.ended(attempt, .init(unable: error), wallClock: unixMilliseconds, now: now)
        }
    }

    /// A peer that did not even come into being, and that nobody knows.
    private func discard(_ entry: PeerEntry) {
        engine.counters.peers.wrappingSubtract(1, ordering: .relaxed)
        entry.isClosed.store(true, ordering: .relaxed)
        HandleTable.shared.remove(entry.handle)
    }

    private func offer(
        _ connection: Connection, token: String?, exchange: Int64, _ reconnection: Reconnection
    ) throws(Failure) {
        var message: OfferMessage
        do throws(Peer.DescriptionError) {
            message = OfferMessage(sdp: try connection.peer.makeOffer(), sessionToken: token)
        } catch {
            throw Failure(describing: error)
        }
        message.wantsTicket = reconnection.entry.configuration.usesTickets
        message.derivesInit = message.wantsTicket
        var event = event(.signal, reconnection)
        event.number = exchange
        do throws(SignalingError) {
            let json = try encode(.offer(message))
            event.data = Payload.copying(json.span.bytes)
        } catch {
            throw Failure(.internalDefect, "cannot write the offer as JSON: \(error)")
        }
        events.append(event)
    }

    private func resume(_ connection: Connection, _ ticket: Ticket) throws(Failure) {
        let server = Peer.ExpectedServer(
            ufrag: ticket.ufrag, password: ticket.password, fingerprint: ticket.fingerprint,
            candidates: ticket.candidates, sctpPort: ticket.sctpPort, maximumMessageSize: ticket.maxMessageSize,
            derivedInits: ticket.derivesInit
                ? Peer.DerivedInits(
                    password: ticket.password, clientUfrag: connection.peer.localUfrag, isClient: true) : nil)
        do throws(Peer.DescriptionError) {
            try connection.peer.resume(server, now: now)
        } catch {
            throw Failure(describing: error)
        }
        for channel in connection.channels.values { setLimit(of: channel.entry, connection) }
    }

    private func stop(_ attempt: Int, _ reconnection: Reconnection) {
        guard let connection = reconnection.contenders[attempt], let contender = connection.contender else { return }
        if contender.stage == .racing {
            contender.stage = .lost
            contender.held = []
            reconnection.contenders[attempt] = nil
        }
        connection.peer.close(now: now)
        markDirty(connection)
    }

    private func connected(
        _ attempt: Int, _ mode: Connector.Mode, replacing replaced: Int?, after: Duration, _ reconnection: Reconnection
    ) {
        guard let connection = reconnection.contenders[attempt], let contender = connection.contender else { return }
        reconnection.entry.isConnecting.store(false, ordering: .sequentiallyConsistent)
        let isIPv6 = family(of: connection) ?? false
        let token = reconnection.connector.connectedToken
        engine.series.client.connected(mode: ConnectionMode(mode), isIPv6: isIPv6, duration: after)
        log(
            .info,
            LogLine.connect(
                session: token, mode: ConnectionMode(mode), isIPv6: isIPv6, duration: after, result: .success))
        // The peer is known from here on, and what happened to it until now is told: its channels are open before this
        // is, and what came after that comes after it.
        contender.stage = .won
        events.append(contentsOf: contender.held.prefix(contender.openedAfter))
        tell(.connected, reconnection, mode: mode, peer: connection, after: after)
        events.append(contentsOf: contender.held.dropFirst(contender.openedAfter))
        contender.held = []
        guard let replaced, let old = reconnection.contenders.removeValue(forKey: replaced) else { return }
        old.isReplaced = true
        old.peer.close(now: now)
        markDirty(old)
    }

    // MARK: What happens to their peers

    /// The events of one turn of a peer's begin at `first`. Those of an attempt are held back, or dropped if it has lost.
    func observe(_ connection: Connection, from first: Int) {
        guard let contender = connection.contender else { return }
        // One server has all the addresses of a ticket: its no is enough.
        if contender.stage == .racing, contender.isByTicket, connection.peer.isRefused {
            contender.owner.connector.ended(
                contender.attempt, .peer(Status.ticketRefused.rawValue, "the other side refused the ticket"),
                wallClock: unixMilliseconds, now: now)
            drive(contender.owner)
        }
        guard first < events.count else { return }
        var ending: Event?
        switch contender.stage {
        case .racing:
            for event in takeEvents(of: connection, from: first) {
                note(event, contender)
                if event.isEnd { ending = event }
            }
        case .lost: _ = takeEvents(of: connection, from: first)
        case .won:
            acceptReplacement(connection, contender, from: first)
            ending = events[first...].last { $0.isEnd && $0.peer == connection.entry.handle }
        }
        guard contender.stage != .lost else { return }
        let reconnection = contender.owner
        if let ending {
            let sentence = ending.data.map { String(decoding: $0.copied(), as: UTF8.self) } ?? ""
            reconnection.connector.ended(
                contender.attempt, .peer(ending.status.rawValue, sentence), wallClock: unixMilliseconds, now: now)
            drive(reconnection)
            if reconnection.contenders[contender.attempt] === connection {
                reconnection.contenders[contender.attempt] = nil
            }
            contender.held = []
        } else if contender.stage == .racing, contender.isOpen {
            reconnection.connector.opened(
                contender.attempt, isIPv6: family(of: connection) ?? false, wallClock: unixMilliseconds, now: now)
            drive(reconnection)
        }
    }

    private func note(_ event: Event, _ contender: Contender) {
        let wasOpen = contender.isOpen
        switch event.kind {
        case .peerState: if event.number == PeerState.connected.rawValue { contender.isConnected = true }
        case .channelOpen, .channelClosed: contender.closedChannels.remove(event.channel)
        default: break
        }
        contender.held.append(event)
        if !wasOpen, contender.isOpen { contender.openedAfter = contender.held.count }
    }

    /// Takes this peer's events out of the host's queue.
    private func takeEvents(of connection: Connection, from first: Int) -> [Event] {
        let handle = connection.entry.handle
        let turn = Array(events[first...])
        events.removeSubrange(first...)
        for event in turn where event.peer != handle { events.append(event) }
        return turn.filter { $0.peer == handle }
    }

    /// The other side closes a session's earlier connection as soon as the new one is authenticated, which is before this
    /// side has its channels open.
    private func acceptReplacement(_ connection: Connection, _ contender: Contender, from first: Int) {
        let isBeingReplaced = contender.owner.contenders.values.contains { other in
            other.contender?.stage == .racing && other.peer.milestones.verified != nil
        }
        guard isBeingReplaced else { return }
        for index in first..<events.count
        where events[index].peer == connection.entry.handle && events[index].status == .peerGone {
            events[index].status = .replaced
            if events[index].isEnd { events[index].data = .text("the session came back") }
        }
    }

    private func family(of connection: Connection) -> Bool? {
        connection.peer.selectedPath.map { $0.remote.ip.isIPv6 }
    }

    /// A server gave out a new ticket over the control channel.
    func controlReceived(ticket: Ticket, token: String?, _ connection: Connection) {
        guard let contender = connection.contender else { return }
        contender.owner.connector.received(
            contender.attempt, ticket: ticket, token: token, wallClock: unixMilliseconds)
        drive(contender.owner)
    }

    // MARK: What the host is told

    private func event(_ kind: Event.Kind, _ reconnection: Reconnection) -> Event {
        var event = Event(kind)
        event.connector = reconnection.entry.handle
        event.tag = reconnection.entry.tag
        return event
    }

    private func tell(
        _ state: ConnectorState, _ reconnection: Reconnection, reason: Connector.Reason? = nil,
        mode: Connector.Mode = .normal, peer: Connection? = nil, after: Duration = .zero
    ) {
        var event = event(.connector, reconnection)
        event.number = state.rawValue
        event.detailKind = mode.rawValue
        event.peer = peer?.entry.handle ?? 0
        event.status = reason?.status ?? .ok
        event.data = .text(reason?.sentence ?? "")
        event.duration = after
        events.append(event)
    }

    private func tell(_ report: Connector.Report, _ reconnection: Reconnection) {
        var event = event(.attempt, reconnection)
        event.number = report.outcome.rawValue
        event.detailKind = report.mode.rawValue
        event.status = report.reason?.status ?? .ok
        event.data = .text(report.reason?.sentence ?? "")
        event.duration = report.after
        events.append(event)
        count(report, reconnection)
    }

    private func count(_ report: Connector.Report, _ reconnection: Reconnection) {
        let client = engine.series.client
        let status = report.reason?.status ?? .ok
        switch (report.outcome, report.mode) {
        case (.skipped, _): reconnection.obstacle = (status, nil)
        case (.started, .normal):
            if let obstacle = reconnection.obstacle {
                client.fallback(isIPv6: obstacle.isIPv6, reason: obstacle.status)
            }
        case (.started, let mode): client.fastAttempt(isIPv6: firstFamily(mode, reconnection) ?? false)
        case (.failed, let mode):
            let isIPv6 =
                reconnection.contenders[report.attempt].flatMap(family) ?? firstFamily(mode, reconnection)
            if mode != .normal { reconnection.obstacle = (status, isIPv6) }
            log(
                .info,
                LogLine.connect(
                    session: reconnection.entry.cache.entries[reconnection.entry.key]?.sessionID,
                    mode: ConnectionMode(mode), isIPv6: isIPv6, duration: report.after,
                    result: mode == .normal ? .failure : .fallback))
        case (.won, _), (.stopped, _): break
        }
    }

    /// What the first candidate is that a mode tries.
    private func firstFamily(_ mode: Connector.Mode, _ reconnection: Reconnection) -> Bool? {
        let (cache, key) = (reconnection.entry.cache, reconnection.entry.key)
        let lines: [String]
        switch mode {
        case .normal: return nil
        case .fast: lines = cache.entries[key]?.injectionOrder(hasIPv6: hasIPv6).map(\.candidate) ?? []
        case .zeroSignaling: lines = cache.tickets[key]?.candidates ?? []
        }
        return lines.lazy.compactMap { CandidateLine(parsing: $0)?.address.ip.isIPv6 }.first
    }

    // MARK: The end

    private func end(_ reconnection: Reconnection) {
        tell(.closed, reconnection)
        forget(reconnection)
    }

    private func forget(_ reconnection: Reconnection) {
        connectors.deadlines.set(reconnection, nil)
        connectors.byHandle[reconnection.entry.handle] = nil
        reconnection.entry.isClosed.store(true, ordering: .relaxed)
        HandleTable.shared.remove(reconnection.entry.handle)
        engine.counters.connectors.wrappingSubtract(1, ordering: .relaxed)
    }

    /// The engine ends: what is known of connections that are up is kept as of now.
    func closeConnectors() {
        for reconnection in Array(connectors.byHandle.values) {
            reconnection.connector.close(wallClock: unixMilliseconds, now: now)
            drive(reconnection)
            forget(reconnection)
        }
    }
}

/// `RECONNECT_CONNECTOR_...`
enum ConnectorState: Int64 {
    case connected = 1
    case failed = 2
    case lost = 3
    case closed = 4
}

extension ConnectionMode {
    init(_ mode: Connector.Mode) {
        self =
            switch mode {
            case .normal: .normal
            case .fast: .fast
            case .zeroSignaling: .zeroSignaling
            }
    }
}

extension Event {
    /// The end of a peer.
    var isEnd: Bool { kind == .peerState && number == PeerState.closed.rawValue }
}

extension Failure {
    init(describing error: Peer.DescriptionError) {
        switch error {
        case .unacceptable(let reason): self.init(.unacceptable, reason)
        case .wrongState(let reason): self.init(.wrongState, reason)
        }
    }
}
