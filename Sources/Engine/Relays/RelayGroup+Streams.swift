import TURN
import Wire

/// Connections to servers over TCP and TLS.
extension RelayGroup {
    /// So much is written before the socket gets it.
    private static let batch = 16_384
    /// What a request may need.
    private static let requestRoom = 8192

    /// Opens one, instead of another perhaps; what it opens for goes on when it is there.
    func connect(_ leg: RelayLeg, to server: SocketAddress, name: String, _ now: Instant) {
        leg.stream?.close()
        leg.stream = nil
        leg.state = .connecting
        leg.target = server
        do throws(Failure) {
            guard let watch = environment.watch else { throw Failure(.noDescriptors, "nobody watches connections") }
            var security: Stream.Security?
            if leg.endpoint.server.transport == .tls {
                security = Stream.Security(trust: try environment.trust(), host: name)
            }
            leg.stream = try Stream.connect(
                to: server, from: environment.settings.bindAddress, security: security, watch: watch, owner: self,
                now: now)
        } catch {
            end(leg, .stream(error), now)
        }
    }

    func disconnect(_ leg: RelayLeg) {
        leg.stream?.close()
        leg.stream = nil
    }

    /// A peer's datagram. False: there is no room.
    func write(_ datagram: RawSpan, to peer: SocketAddress, over leg: RelayLeg, _ now: Instant) -> Bool {
        guard let stream = leg.stream, stream.isOpen else { return false }
        writeRequests(leg, stream, now)
        var outcome = RelayClient.Outcome.noRoom
        let isThere = environment.scratch.fill { output in
            outcome = leg.client.send(datagram, to: peer, into: &output, now: now)
            return outcome == .written
        }
        guard isThere else { return outcome == .waiting }
        guard environment.scratch.withBytes({ stream.write($0) }) else { return false }
        if stream.waiting >= RelayGroup.batch { stream.flush(now: now) }
        return true
    }

    /// Whatever clients have to say, and what was written before.
    func writeConnections(_ now: Instant) {
        for leg in Array(legs) {
            guard let stream = leg.stream, stream.isOpen else { continue }
            writeRequests(leg, stream, now)
            stream.flush(now: now)
        }
    }

    private func writeRequests(_ leg: RelayLeg, _ stream: Stream, _ now: Instant) {
        while stream.waiting <= Stream.writeLimit - RelayGroup.requestRoom {
            let isThere = environment.scratch.fill { leg.client.pollTransmit(into: &$0, now: now) != nil }
            guard isThere else { return }
            _ = environment.scratch.withBytes { stream.write($0) }
        }
    }

    private func leg(of stream: Stream) -> RelayLeg? { legs.first { $0.stream === stream } }
}

extension RelayGroup: StreamOwner {
    func streamOpened(_ stream: Stream, now: Instant) {
        guard let leg = leg(of: stream), leg.state == .connecting else { return }
        leg.state = .allocating
        if leg.hasStarted {
            leg.client.connectionChanged(server: leg.target, now: now)
        } else {
            leg.hasStarted = true
            leg.client.start(now: now)
        }
        settle(now)
        onActivity()
    }

    func stream(_ stream: Stream, received bytes: RawSpan, now: Instant) {
        guard let leg = leg(of: stream) else { return }
        let before = leg.heard
        leg.client.handle(stream: bytes, now: now) { peer, data in
            if let relayed = leg.relayed(for: peer.ip) { deliver(peer, relayed, data) }
        }
        if leg.heard != before { heard(leg, now) }
        settle(now)
        onActivity()
    }

    func streamClosed(_ stream: Stream, now: Instant) {
        guard let leg = leg(of: stream) else { return }
        switch leg.state {
        case .connecting:
            end(leg, .stream(stream.failure ?? Failure(.turnUnreachable, "it closed the connection")), now)
        case .closing: remove(leg)
        case .allocating, .held, .withdrawn: leg.client.connectionClosed(now: now)
        }
        settle(now)
        onActivity()
    }
}
