import CSystem
import STUN
import TURN
import Wire

/// What becomes of the servers that are asked.
extension RelayGroup {
    /// Takes what a client has to tell.
    func drain(_ leg: RelayLeg, _ now: Instant) {
        while let event = leg.client.pollEvent() {
            switch event {
            case .allocated(let allocation): allocated(leg, allocation, now)
            case .permitted: break
            case .denied(let ip, _): leg.peers.deny(ip, leg.client, now: now)
            case .channelBound: break
            case .channelRefused(let peer, _): leg.peers.channelRefused(peer)
            case .credentialsNeeded(let end): credentialsNeeded(leg, by: end, now)
            case .redirected(let other): redirected(leg, to: other, now)
            case .connectionNeeded(let reason): connectionNeeded(leg, reason, now)
            case .moved: heard(leg, now)
            case .failed(let failure): failed(leg, failure, now)
            case .closed: remove(leg)
            }
        }
    }

    private func allocated(_ leg: RelayLeg, _ allocation: RelayClient.Allocation, _ now: Instant) {
        guard leg.state != .closing else { return }
        let usable = allocation.relayed.filter { isUsable($0, of: leg) }
        guard !usable.isEmpty else { return end(leg, .turn(.malformedAnswer), now) }
        environment.allocated(leg.endpoint, leg.client)
        offer(leg, allocation, usable, now)
    }

    private func offer(
        _ leg: RelayLeg, _ allocation: RelayClient.Allocation, _ usable: [SocketAddress], _ now: Instant
    ) {
        let wasOffered = leg.isHeld
        withdraw(leg, except: usable)
        if !wasOffered { leg.preference = freePreference(leg.endpoint.server.transport) }
        for address in usable { legByRelayed[address] = leg }
        leg.relayed = ranked(usable)
        leg.mapped = allocation.mapped
        leg.state = .held
        leg.isOutdated = false
        leg.probe = nil
        leg.lastHeard = now
        leg.source = environment.source(leg.client.server)
        hasChanged = true
        needsArranging = true
        guard let server = environment.server(leg.endpoint.server) else { return }
        events.append(.allocated(url: server.url, addresses: usable, duration: now - leg.begun))
    }

    /// IPv6 first only where this machine has it: to others without it, such an address leads through a second relay.
    private func ranked(_ relayed: [SocketAddress]) -> [SocketAddress] {
        let world = SocketAddress(ip: IPAddress(high: 0x2001_0503_BA3E_0000, low: 0x0000_0000_0002_0030), port: 53)
        guard !isIPv4, environment.source(world) != nil else {
            return relayed.filter(\.ip.isIPv4) + relayed.filter { !$0.ip.isIPv4 }
        }
        return relayed
    }

    /// A server must not take over what is another's, or our own: what is sent from there would go to it.
    private func isUsable(_ relayed: SocketAddress, of leg: RelayLeg) -> Bool {
        if let other = legByRelayed[relayed], other !== leg { return false }
        return !(relayed.port == port && environment.source(relayed) == relayed.ip)
    }

    /// RFC 8445 section 5.1.2.1: local preferences are unique. UDP before TCP before TLS, then the first to answer.
    private func freePreference(_ transport: RelayTransport) -> UInt16 {
        let taken = Set(legs.filter(\.isHeld).map(\.preference))
        var preference: UInt16 =
            switch transport {
            case .udp: 65_535
            case .tcp: 49_151
            case .tls: 32_767
            }
        while taken.contains(preference) { preference &-= 2 }
        return preference
    }

    /// Not offered any more, except these.
    func withdraw(_ leg: RelayLeg, except kept: [SocketAddress] = []) {
        for address in leg.relayed where !kept.contains(address) {
            if leg.isHeld { events.append(.lost(relayed: address)) }
            legByRelayed[address] = nil
            hasChanged = true
        }
        leg.relayed.removeAll { !kept.contains($0) }
    }

    private func credentialsNeeded(_ leg: RelayLeg, by end: Instant, _ now: Instant) {
        guard let server = environment.server(leg.endpoint.server) else { return }
        guard environment.renewsCredentials(of: leg.endpoint.server) else {
            guard toldCredentials.updateValue(end, forKey: leg.endpoint.server) != end else { return }
            return events.append(.credentialsNeeded(url: server.url, by: end))
        }
        let pause = min(.seconds(30), environment.settings.secretLifetime / 4)
        if let last = leg.lastRenewal, now - last < pause { return }
        leg.lastRenewal = now
        if let made = environment.credentials(of: leg.endpoint.server, unlike: leg.client.username, now: now) {
            leg.client.setCredentials(made, now: now)
        }
    }

    private func redirected(_ leg: RelayLeg, to other: SocketAddress, _ now: Instant) {
        // One allocation for a 5-tuple.
        guard legByServer[other] == nil, reaches(other.ip) else {
            return end(leg, .turn(.badRedirection), now)
        }
        legByServer[other] = leg
        leg.source = environment.source(other)
    }

    private func connectionNeeded(_ leg: RelayLeg, _ reason: RelayClient.ConnectionReason, _ now: Instant) {
        switch reason {
        // The port is shared, and there is no other: what an earlier run left there is given back.
        case .mismatch where !leg.isStream:
            leg.client.reclaim(now: now)
            drain(leg, now)
        case .mismatch: connect(leg, to: leg.client.server, name: leg.endpoint.server.host, now)
        case .redirected(let other, let domain):
            connect(leg, to: other, name: domain ?? leg.endpoint.server.host, now)
        }
    }

    private func failed(_ leg: RelayLeg, _ failure: RelayClient.Failure, _ now: Instant) {
        guard leg.state != .closing else { return remove(leg) }
        switch failure {
        case .allocationLost where !leg.isAttempt && !leg.isStream: startAgain(leg, failure, now)
        // The server may hold an allocation to its first user; the next one is another's.
        case .wrongCredentials where !leg.isAttempt: startAgain(leg, failure, now)
        default: end(leg, .turn(failure), now)
        }
    }

    /// The 5-tuple is good, only the allocation is gone.
    private func startAgain(_ leg: RelayLeg, _ failure: RelayClient.Failure, _ now: Instant) {
        withdraw(leg)
        if !leg.isAttempt { tellOf(leg, .turn(failure)) }
        leg.state = .allocating
        leg.begun = now
        leg.probe = nil
        needsArranging = true
        if let credentials = environment.credentials(of: leg.endpoint.server, now: now) {
            leg.client.setCredentials(credentials, now: now)
        }
        leg.client.start(now: now)
    }

    // MARK: Ends

    /// It failed: the server is left alone for a while.
    func end(_ leg: RelayLeg, _ failure: RelayFailure, _ now: Instant) {
        guard leg.state != .closing else { return remove(leg) }
        let (wasHeld, isAttempt) = (leg.isHeld, leg.isAttempt)
        environment.failed(leg.endpoint, failure, after: isAttempt ? nil : now - leg.begun, now: now)
        giveBack(leg, now)
        guard !isClosing else { return }
        // Another of its addresses may do.
        let hasHope =
            legs.contains { $0.endpoint.server == leg.endpoint.server && ($0.isAttempt || $0.isHeld) }
            || environment.endpoints(leg.endpoint.server).contains {
                environment.choice.pausedUntil($0, now: now) == nil
                    && (leg.isStream || reaches($0.address.ip))
            }
        // Of one that is withdrawn that was told before.
        if wasHeld || isAttempt && !hasHope { tellOf(leg, failure) }
    }

    private func tellOf(_ leg: RelayLeg, _ failure: RelayFailure) { tell(failure, of: leg.endpoint.server) }

    func tell(_ failure: RelayFailure, of key: RelayServer) {
        guard let server = environment.server(key) else { return }
        let (status, sentence) = failure.describe(server)
        events.append(.failed(url: server.url, status, sentence))
    }

    /// It is not wanted any more, or no use.
    func giveBack(_ leg: RelayLeg, _ now: Instant) {
        guard leg.state != .closing else { return }
        withdraw(leg)
        needsArranging = true
        let hasConnection = leg.state != .connecting
        leg.state = .closing
        leg.probe = nil
        leg.client.close(now: now)
        if hasConnection { drain(leg, now) } else { remove(leg) }
    }

    func remove(_ leg: RelayLeg) {
        withdraw(leg)
        disconnect(leg)
        for (address, known) in legByServer where known === leg { legByServer[address] = nil }
        guard let index = legs.firstIndex(where: { $0 === leg }) else { return }
        legs.remove(at: index)
        environment.retire(leg)
        needsArranging = true
    }

    // MARK: Whether a server is there

    /// Something came from it.
    func heard(_ leg: RelayLeg, _ now: Instant) {
        leg.lastHeard = now
        // An error may say that the allocation is gone, and that comes from the client.
        guard let probe = leg.probe ?? (leg.isOutdated ? (now, RelayLeg.Heard()) : nil),
            leg.heard.proof != probe.before.proof
        else { return }
        leg.probe = nil
        environment.measured(leg.endpoint, leg.client)
        if leg.isOutdated {
            leg.isOutdated = false
            needsArranging = true
        }
        guard case .withdrawn = leg.state, let allocation = leg.client.allocation else { return }
        let usable = allocation.relayed.filter { isUsable($0, of: leg) }
        guard !usable.isEmpty else { return end(leg, .turn(.malformedAnswer), now) }
        leg.begun = now
        offer(leg, allocation, usable, now)
    }

    /// Asks it whether it is there.
    func ask(_ leg: RelayLeg, _ now: Instant) {
        guard leg.isHeld else { return leg.client.probe(now: now) }
        guard leg.probe == nil else { return }
        let roundTrips = (leg.client.roundTrip ?? .zero) * 4
        // What is lost on a connection comes late.
        let least = environment.settings.probeTimeout * (leg.isStream ? 2 : 1)
        leg.probe = (now + max(least, roundTrips), leg.heard)
        leg.client.probe(now: now)
    }

    /// What is due of this leg.
    func fire(_ leg: RelayLeg, _ now: Instant) {
        leg.peers.handleTimeout(leg.client, now: now)
        switch leg.state {
        case .held:
            if let probe = leg.probe, probe.until <= now {
                leg.probe = nil
                if leg.heard == probe.before { silent(leg, now) }
            } else if leg.probe == nil, leg.lastHeard + environment.settings.idleProbe <= now {
                ask(leg, now)
            }
        case .withdrawn(let until) where until <= now: end(leg, .silent, now)
        case .connecting, .allocating, .withdrawn, .closing: break
        }
        // The last: it may end the leg.
        leg.stream?.handleTimeout(now: now)
    }

    /// No answer: others are asked now, and it may come back.
    private func silent(_ leg: RelayLeg, _ now: Instant) {
        for address in leg.relayed {
            events.append(.lost(relayed: address))
            legByRelayed[address] = nil
        }
        hasChanged = true
        leg.relayed = []
        leg.state = .withdrawn(until: now + environment.settings.giveUp)
        leg.probe = (.distantFuture, leg.heard)
        needsArranging = true
        tellOf(leg, .silent)
    }

    func timeout(of leg: RelayLeg) -> Instant {
        var next = leg.client.nextTimeout ?? .distantFuture
        if let due = leg.peers.sweepDue { next = min(next, due) }
        switch leg.state {
        case .held: next = min(next, leg.probe?.until ?? leg.lastHeard + environment.settings.idleProbe)
        case .withdrawn(let until): next = min(next, until)
        case .connecting, .allocating, .closing: break
        }
        if let due = leg.stream?.nextTimeout { next = min(next, due) }
        return next
    }

    // MARK: Another network

    /// The machine's addresses or ways are others. Called by the environment, for all groups.
    func networkChanged(now: Instant) {
        guard !isClosing else { return }
        for leg in Array(legs) where leg.state != .closing {
            let source = environment.source(leg.client.server)
            let isElsewhere = source != leg.source
            leg.source = source
            switch leg.state {
            case .connecting, .allocating:
                // Not its fault. Datagrams find their way.
                if isElsewhere, leg.isStream { giveBack(leg, now) }
            case .held, .withdrawn:
                leg.isOutdated = true
                if isElsewhere, source != nil, !leg.isStream {
                    move(leg, now)
                } else if source == nil, leg.isHeld {
                    // There is no way to it; it may come back.
                    silent(leg, now)
                    ask(leg, now)
                } else {
                    if leg.isHeld { leg.probe = nil }
                    ask(leg, now)
                }
            case .closing: break
            }
        }
        race = nil
        needsArranging = true
        settle(now)
        onActivity()
    }

    /// For the server it is another 5-tuple: the allocation is taken along where it has that, or another one asked for.
    private func move(_ leg: RelayLeg, _ now: Instant) {
        let hasTicket = leg.client.allocation?.isMobile == true
        if !hasTicket {
            withdraw(leg)
            leg.state = .allocating
            leg.begun = now
            leg.isOutdated = false
        } else {
            let timeout = max(environment.settings.probeTimeout, (leg.client.roundTrip ?? .zero) * 4)
            leg.probe = (now + timeout, leg.heard)
        }
        leg.client.connectionChanged(now: now)
    }
}
