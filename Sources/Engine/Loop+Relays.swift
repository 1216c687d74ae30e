import ICE
import TURN
import Wire

/// Relays: those of the shared port, and those of peers on ports of their own.
extension Loop {
    func setTURNServers(_ servers: [TURNServer]) {
        if relays == nil, !servers.isEmpty { relays = makeRelays(port) }
        relayEnvironment.setServers(servers, now: now)
        areRelaysDirty = true
        for connection in connections.values {
            guard let gathering = connection.gathering else { continue }
            if gathering.relays == nil { gathering.relays = makeRelays(connection.port, of: connection) }
            markDirty(connection)
        }
    }

    func isRelayOnly(_ policy: ICEPolicy?) -> Bool { (policy ?? configuration.icePolicy) == .relay }

    func relays(of connection: Connection) -> RelayGroup? {
        connection.isOnSharedPort ? relays : connection.gathering?.relays
    }

    /// A peer has a port of its own: what leads there.
    func gather(_ connection: Connection) {
        let hasServers = !relayEnvironment.servers.isEmpty
        let gathering = Gathering(asksSTUN: !isRelayOnly(connection.policy), random: random)
        gathering.relays = hasServers ? makeRelays(connection.port, of: connection) : nil
        gathering.follow(network, hasMoved: false, now: now)
        connection.gathering = gathering
    }

    private func makeRelays(_ port: Port, of connection: Connection? = nil) -> RelayGroup {
        let group = RelayGroup(relayEnvironment, port: port, now: now)
        group.onActivity = { [weak self, weak connection] in
            if let connection { self?.markDirty(connection) } else { self?.areRelaysDirty = true }
        }
        group.deliver = { [weak self, weak connection] peer, relayed, bytes in
            self?.deliver(bytes, Path(local: relayed, remote: peer), owner: connection)
        }
        return group
    }

    func fireRelays() {
        if relays != nil, let due = relayEnvironment.nextTimeout, due <= now {
            relayEnvironment.handleTimeout(now: now)
        }
        guard let relays, let due = relays.nextTimeout, due <= now else { return }
        relays.handleTimeout(now: now)
        areRelaysDirty = true
    }

    func drainRelays() {
        guard areRelaysDirty, let relays else { return }
        areRelaysDirty = false
        pump(through: port) { relays.pollTransmit(into: &$0, now: now) }
        var (haveChanged, hasHappened) = (false, false)
        while let event = relays.pollEvent() {
            hasHappened = true
            if event == .candidatesChanged { haveChanged = true } else { tell(event) }
        }
        if haveChanged { logCandidates() }
        // Not for each datagram: there may be ten thousand of them.
        if hasHappened {
            for connection in connections.values where connection.isOnSharedPort {
                if haveChanged { refreshCandidates(connection) }
                if !connection.isGathered { finishGathering(connection) }
            }
        }
        serviceDirty()
    }

    func closeRelays() {
        guard let relays else { return }
        relays.close(now: now)
        pump(through: port) { relays.pollTransmit(into: &$0, now: now) }
        flush()
        relayEnvironment.close()
    }

    /// Of the shared port only: those of others say the same of the same servers.
    private func tell(_ happened: RelayEvent) {
        var event = Event(.turn)
        switch happened {
        case .candidatesChanged, .lost: return
        case .allocated(let url, let addresses, let duration):
            event.number = 1
            event.data = .text(url)
            event.extra = .text(addresses.map(\.description).joined(separator: " "))
            event.duration = duration
            metrics.relayAllocations.count()
            log(.info, LogLine.relay(url: url, addresses: addresses.count, duration: duration))
        case .failed(let url, let status, let sentence):
            event.number = 2
            event.status = status
            event.data = .text(url)
            event.extra = .text(sentence)
            metrics.relayFailures.count()
            log(.warning, LogLine.relay(url: url, failure: status))
        case .credentialsNeeded(let url, let end):
            event.number = 3
            event.data = .text(url)
            event.extra = .text("the credentials end soon, or were refused: give others")
            event.duration = max(.zero, end - now)
        }
        events.append(event)
    }
}
