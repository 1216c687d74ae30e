import ICE
import Peer
import SDP
import Wire

/// Peers that negotiate by themselves, and what happens to the paths of all.
extension Loop {
    // MARK: From the host

    func take(_ signal: PeerSignal, _ entry: PeerEntry) {
        guard let connection = connections[entry.handle] else { return }
        let peer = connection.peer
        do throws(Peer.DescriptionError) {
            switch signal {
            case .offer(let description, let generation, let isRestart):
                try peer.receive(offer: description, generation: generation, isRestart: isRestart, now: now)
            case .answer(let description, let generation):
                try peer.receive(answer: description, generation: generation, now: now)
            case .candidate(let line, let ufrag): try peer.receive(candidate: line, ufrag: ufrag, now: now)
            }
            for channel in connection.channels.values { setLimit(of: channel.entry, connection) }
        } catch {
            tell(connection, Failure(describing: error))
        }
        markDirty(connection)
    }

    func restart(_ entry: PeerEntry) {
        guard let connection = connections[entry.handle] else { return }
        do throws(Peer.DescriptionError) {
            try connection.peer.restart(now: now, reason: "asked for by the host")
        } catch {
            tell(connection, Failure(describing: error))
        }
        markDirty(connection)
    }

    /// A channel was opened: a peer that negotiates by itself does so now (W3C WebRTC section 4.7, negotiation needed).
    func begin(_ entry: PeerEntry) {
        guard entry.negotiation != .manual, let connection = connections[entry.handle], !connection.hasBegun,
            connection.peer.remoteMessageLimit == nil
        else { return }
        connection.hasBegun = true
        try? connection.peer.negotiate(now: now)
        markDirty(connection)
    }

    /// What was handed in cannot be done, which only shows here.
    private func tell(_ connection: Connection, _ failure: Failure) {
        var event = event(.result, connection)
        event.fail(failure)
        events.append(event)
    }

    func setTimers(_ timers: Timers) {
        self.timers = timers
        for connection in connections.values {
            connection.peer.setTimers(peerTimers, now: now)
            markDirty(connection)
        }
    }

    /// What is not set is as the engine was configured.
    var peerTimers: Peer.Timers {
        var result = Peer.Timers()
        result.checkInterval = timers.checkInterval
        result.consentInterval = timers.consentInterval
        result.heartbeat = timers.heartbeat
        result.suspicion = timers.suspicion
        result.standbyInterval = timers.standbyInterval
        result.patience = timers.patience
        result.connect = timers.connectTimeout ?? configuration.connectTimeout
        result.disconnect = timers.disconnectTimeout ?? configuration.disconnectTimeout
        result.failed = timers.failedTimeout ?? configuration.failedTimeout
        result.restart = timers.restartTimeout
        result.restartAttempts = timers.restartAttempts
        result.restartPause = timers.restartPause
        return result
    }

    // MARK: To the host

    private func event(_ kind: Event.Kind, _ connection: Connection) -> Event {
        var event = Event(kind)
        event.peer = connection.entry.handle
        event.tag = connection.entry.tag
        return event
    }

    func tell(_ connection: Connection, _ signal: Peer.Signal) {
        var event = event(.peerSignal, connection)
        do throws(Failure) {
            event.data = try Describing.json(signal, index: connection.peer.dataSectionIndex)
        } catch {
            return tell(connection, error)
        }
        events.append(event)
    }

    func tell(_ connection: Connection, _ report: Peer.PathReport) {
        var event = event(.path, connection)
        event.data = .text(report.local)
        event.extra = .text(report.remote)
        event.detailKind = report.reason.number
        event.number = Int64(report.count)
        event.duration = report.roundTrip ?? .zero
        events.append(event)
        metrics.path(PathChange(report.reason))
        log(.info, LogLine.path(report))
        // Much is going to be sent over it.
        if report.path.transport == .udp, let group = relays(of: connection), group.owns(report.path.local) {
            group.prefer(from: report.path.local, to: report.path.remote, now: now)
        }
    }

    func tell(_ connection: Connection, _ report: Peer.RestartReport) {
        var event = event(.restart, connection)
        event.number = report.stage.number
        event.detailKind = report.attempt
        switch report.stage {
        case .failed: event.status = .timeout
        case .givenUp: event.status = .iceFailed
        case .started, .recovered, .paused: break
        }
        event.data = .text(report.sentence)
        event.duration = report.duration
        events.append(event)
        metrics.restart(RestartStage(report.stage))
        // The relay itself may be what is gone; a new one is a candidate of the new generation.
        if report.stage == .started, let group = relays(of: connection) {
            for candidate in connection.candidates where candidate.kind == .relayed {
                group.doubt(relayed: candidate.address, now: now)
            }
            areRelaysDirty = true
        }
        log(.info, LogLine.restart(report))
    }

    // MARK: Our candidates

    /// What peers on the shared port offer now.
    var sharedCandidates: [Candidate] { network.candidates + (relays?.candidates ?? []) + streamCandidates }

    /// What a peer offers now.
    func candidates(of connection: Connection) -> [Candidate] {
        guard let gathering = connection.gathering else { return sharedCandidates }
        return gathering.candidates(network, port: connection.port.number) + streamCandidates
    }

    /// The network is another, or a relay has come or gone: peers get the candidates that are new and lose those that
    /// are gone.
    func refreshCandidates(_ connection: Connection) {
        let current = candidates(of: connection)
        guard current != connection.candidates else { return }
        let (earlier, known) = (connection.candidates, Set(current))
        connection.candidates = current
        connection.peer.removeLocalCandidates(where: { !known.contains($0) }, now: now)
        for candidate in current where !earlier.contains(candidate) {
            connection.peer.addLocalCandidate(candidate, now: now)
        }
        markDirty(connection)
    }

    func finishGathering(_ connection: Connection) {
        let isUnderWay = connection.gathering?.isUnderWay ?? relays?.isGathering ?? false
        guard !isUnderWay else { return }
        connection.isGathered = true
        connection.peer.localCandidatesComplete(now: now)
    }

    /// What leads to a peer's own port is asked for again.
    private func follow(_ connection: Connection, hasMoved: Bool) {
        guard let gathering = connection.gathering else { return }
        gathering.follow(network, hasMoved: hasMoved, now: now)
        connection.isGathered = false
        markDirty(connection)
    }

    /// Names of STUN servers have been looked up.
    func tellServers() {
        guard network.serverChanges != serverChanges else { return }
        serverChanges = network.serverChanges
        for connection in connections.values { follow(connection, hasMoved: false) }
    }

    func tellNetwork(_ change: Network.Change) {
        // What a STUN server says changes candidates, and is no reason to doubt what works.
        let moves = change.subtracting(.candidates)
        if !moves.isEmpty {
            if relays != nil { relayEnvironment.networkChanged(now: now) }
            areRelaysDirty = true
            names.networkChanged(now: now)
        }
        for connection in connections.values {
            if !moves.isEmpty { follow(connection, hasMoved: change.contains(.route)) }
            refreshCandidates(connection)
            if !moves.isEmpty { connection.peer.networkChanged(isOnline: network.isOnline, now: now) }
            markDirty(connection)
        }
        guard !moves.isEmpty else { return }
        var event = Event(.network)
        event.detailKind =
            (change.contains(.addresses) ? 1 : 0) | (change.contains(.route) ? 2 : 0)
            | (change.contains(.online) ? 4 : 0)
        event.number = network.isOnline ? 1 : 0
        event.data = .text(network.sentence)
        events.append(event)
        log(.info, LogLine.network(isOnline: network.isOnline, addresses: network.hosts.count))
    }

    // MARK: Names

    func resolve(_ name: String, for connection: Connection) {
        switch names.resolve(name, now: now) {
        case .known(let addresses): tell(connection, name, addresses)
        case .asked: askers[name.lowercased(), default: []].append((connection.entry.handle, name))
        case .refused, .tooMany: tell(connection, name, [])
        }
    }

    func startNames() {
        names.resolved = { [weak self] name, addresses, _ in
            guard let self else { return }
            for (handle, asked) in self.askers.removeValue(forKey: name) ?? [] {
                if let connection = self.connections[handle] { self.tell(connection, asked, addresses) }
            }
        }
    }

    /// A page has one address of each family behind a name, and IPv4 is what it has on every link.
    private func tell(_ connection: Connection, _ name: String, _ addresses: [IPAddress]) {
        let ip = addresses.first { $0.isIPv4 } ?? addresses.first
        connection.peer.resolved(name: name, ip: ip, now: now)
        markDirty(connection)
    }
}

extension Peer.PathReason {
    /// `RECONNECT_PATH_...`
    var number: UInt32 {
        switch self {
        case .first: 1
        case .better: 2
        case .failover: 3
        case .restarted: 4
        case .moved: 5
        }
    }
}

extension Peer.RestartReport.Stage {
    /// `RECONNECT_RESTART_...`
    var number: Int64 {
        switch self {
        case .started: 1
        case .recovered: 2
        case .failed: 3
        case .paused: 4
        case .givenUp: 5
        }
    }
}

extension PathChange {
    init(_ reason: Peer.PathReason) {
        self =
            switch reason {
            case .first: .first
            case .better: .better
            case .failover: .failover
            case .restarted: .restarted
            case .moved: .moved
            }
    }
}

extension RestartStage {
    init(_ stage: Peer.RestartReport.Stage) {
        self =
            switch stage {
            case .started: .started
            case .recovered: .recovered
            case .failed: .failed
            case .paused: .paused
            case .givenUp: .givenUp
            }
    }
}

extension Peer.Style {
    init(_ style: NegotiationStyle) {
        self =
            switch style {
            case .manual: .manual
            case .polite: .polite
            case .impolite: .impolite
            }
    }
}
