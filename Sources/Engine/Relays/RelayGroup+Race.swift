import TURN
import Wire

/// Which servers are asked, and when.
extension RelayGroup {
    /// The environment has other servers, or some have other credentials.
    func serversChanged(renewed: [RelayServer], now: Instant) {
        guard !isClosing else { return }
        for leg in Array(legs) {
            guard environment.server(leg.endpoint.server) != nil else {
                giveBack(leg, now)
                continue
            }
            guard renewed.contains(leg.endpoint.server), leg.state != .closing,
                let credentials = environment.credentials(of: leg.endpoint.server, now: now)
            else { continue }
            leg.client.setCredentials(credentials, now: now)
        }
        unnamed = []
        for server in renewed { toldCredentials[server] = nil }
        race = nil
        addressesChanged(now: now)
    }

    /// Names have been looked up.
    func addressesChanged(now: Instant) {
        guard !isClosing else { return }
        for server in environment.servers {
            let key = RelayServer(server)
            if !environment.hasNoAddress(key) {
                unnamed.remove(key)
            } else if unnamed.insert(key).inserted {
                tell(.unknownName, of: key)
            }
        }
        needsArranging = true
        settle(now)
        onActivity()
    }

    /// Begins what is wanted, ends what is not any more.
    func arrange(_ now: Instant) {
        guard !isClosing else { return }
        let limit = maximumAllocations
        // A connection to a server that is reached by datagrams as well, or by a newer one, makes room for a standby.
        for leg in legs where leg.isHeld && leg.isStream && !isInUse(leg, now) {
            let isDouble = legs.contains { other in
                other.isHeld && !other.isOutdated && isInstead(other, of: leg.endpoint)
                    && (!other.isStream || other.endpoint == leg.endpoint && other.begun > leg.begun)
            }
            if isDouble { giveBack(leg, now) }
        }
        while legs.count(where: \.isHeld) > limit, let last = worstHeld(now) { giveBack(last, now) }
        let proven = legs.filter { $0.isHeld && !$0.isOutdated }
        for leg in Array(legs) where leg.isAttempt {
            if proven.count >= limit || proven.contains(where: { isInstead($0, of: leg.endpoint) }) {
                giveBack(leg, now)
            }
        }
        guard proven.count < limit else {
            race = nil
            return
        }
        if race == nil { race = Race(begun: now, next: now) }
        while let endpoint = nextStarter(proven, now) { begin(endpoint, now) }
        let due = nextStart(proven, now)
        race?.due = due
    }

    /// Of too many, the one to give back: not one in use, not the better.
    private func worstHeld(_ now: Instant) -> RelayLeg? {
        let held = legs.filter(\.isHeld).sorted { $0.preference < $1.preference }
        return held.first { !isInUse($0, now) } ?? held.first
    }

    private func isInUse(_ leg: RelayLeg, _ now: Instant) -> Bool { leg.peers.isUsed(since: now - .seconds(30)) }

    /// Whether that server is no standby for this one: it is the same. But an allocation over UDP is better than one over
    /// a connection to the same server.
    private func isInstead(_ held: RelayLeg, of endpoint: RelayEndpoint) -> Bool {
        let there = held.endpoint.server
        guard isNear(held, endpoint) else { return false }
        // Two ports for the same are two servers of one machine.
        if there.transport == endpoint.server.transport, there.port != endpoint.server.port { return false }
        return there.transport == .udp || endpoint.server.transport != .udp
    }

    /// On the same machine.
    private func isNear(_ held: RelayLeg, _ endpoint: RelayEndpoint) -> Bool {
        held.endpoint.server.host == endpoint.server.host || held.endpoint.address.ip == endpoint.address.ip
    }

    /// Whether it could be asked, were it its turn.
    private func isEligible(_ endpoint: RelayEndpoint, _ proven: [RelayLeg]) -> Bool {
        guard endpoint.address.port != 0, !proven.contains(where: { isInstead($0, of: endpoint) }) else { return false }
        if endpoint.server.transport == .udp {
            return legByServer[endpoint.address] == nil && reaches(endpoint.address.ip)
        }
        // One that the network has left behind, or that is silent, does not stand in the way of its own successor.
        return !legs.contains { $0.endpoint == endpoint && ($0.isAttempt || $0.isHeld && !$0.isOutdated) }
    }

    /// Whether datagrams can be sent there from this port.
    func reaches(_ ip: IPAddress) -> Bool {
        if let bound = environment.settings.bindAddress, bound != .anyIPv6 { return bound.isIPv4 == ip.isIPv4 }
        return !isIPv4 || ip.isIPv4
    }

    /// When connections may be opened to servers: at once only if nothing is to be hoped for over UDP.
    private func streamStart(_ proven: [RelayLeg], _ now: Instant) -> Instant {
        guard let race else { return now }
        let hopes =
            legs.contains { $0.isAttempt && !$0.isStream }
            || environment.choice.servers.contains {
                $0.server.transport == .udp && environment.choice.pausedUntil($0, now: now) == nil
                    && isEligible($0, proven)
            }
            || environment.servers.contains {
                $0.transport == .udp && environment.isBeingResolved(RelayServer($0))
            }
        guard hopes else { return race.begun }
        let measured = environment.choice.servers.filter { $0.server.transport == .udp }
            .compactMap { environment.choice.roundTrip($0) }.min()
        let delay = measured.map { ($0 * 3).clamped(.milliseconds(100), .seconds(1)) }
        return race.begun + (delay ?? environment.settings.streamDelay)
    }

    /// As long as there is a relay, the search for a second one is no hurry: that many are asked at once.
    private func isCrowded(_ proven: [RelayLeg], _ now: Instant) -> Bool {
        let young = legs.count { $0.isAttempt && $0.begun + environment.settings.probeTimeout > now }
        return legs.count >= 64 || !proven.isEmpty && young >= environment.settings.starters
    }

    private func nextStarter(_ proven: [RelayLeg], _ now: Instant) -> RelayEndpoint? {
        guard let race, race.next <= now, !isCrowded(proven, now) else { return nil }
        let streams = streamStart(proven, now)
        var near: RelayEndpoint?
        for endpoint in environment.choice.order(now: now) where endpoint.server.transport == .udp || streams <= now {
            guard environment.choice.pausedUntil(endpoint, now: now) == nil, isEligible(endpoint, proven) else {
                continue
            }
            // A standby is better on another machine.
            guard proven.contains(where: { isNear($0, endpoint) }) else { return endpoint }
            near = near ?? endpoint
        }
        return near
    }

    /// When there may be somebody to ask; nil: nobody, until something happens.
    private func nextStart(_ proven: [RelayLeg], _ now: Instant) -> Instant? {
        guard let race else { return nil }
        let streams = streamStart(proven, now)
        var next = Instant.distantFuture
        for endpoint in environment.choice.servers where isEligible(endpoint, proven) {
            var start = max(race.next, environment.choice.pausedUntil(endpoint, now: now) ?? now)
            if endpoint.server.transport != .udp { start = max(start, streams) }
            next = min(next, start)
        }
        guard next < .distantFuture else { return nil }
        // Whoever is in the way is old enough then.
        return isCrowded(proven, now) ? max(next, now + environment.settings.stagger) : max(next, now)
    }

    private func begin(_ endpoint: RelayEndpoint, _ now: Instant) {
        race?.started += 1
        if let started = race?.started, started >= environment.settings.starters {
            race?.next = now + environment.settings.stagger
        }
        var configuration = environment.settings.client
        configuration.families = environment.settings.families
        // On a connection the ticket is no use: coturn 4.6.1 answers it with the end of a message.
        configuration.wantsMobility =
            endpoint.server.transport == .udp && !environment.lacksMobility.contains(endpoint.server)
        let client = RelayClient(
            configuration, server: endpoint.address, transport: endpoint.server.transport,
            credentials: environment.credentials(of: endpoint.server, now: now), random: environment.random())
        let leg = RelayLeg(
            endpoint, client, endpoint.server.transport.isStream ? .connecting : .allocating,
            source: environment.source(endpoint.address), now: now)
        legs.append(leg)
        guard leg.source != nil else {
            return end(leg, .stream(Failure(.turnUnreachable, "there is no route to \(endpoint.address.ip)")), now)
        }
        if leg.isStream {
            connect(leg, to: endpoint.address, name: endpoint.server.host, now)
        } else {
            legByServer[endpoint.address] = leg
            leg.hasStarted = true
            client.start(now: now)
        }
    }
}
