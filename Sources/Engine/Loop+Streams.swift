import ICE
import Wire

/// Datagrams over TCP (RFC 6544): one listening port for all peers, and connections that they open.
extension Loop {
    static func openStreams(
        _ configuration: Configuration, _ descriptors: DescriptorTable, preferring port: UInt16
    ) throws(Failure) -> StreamPort? {
        guard configuration.opensTCP || configuration.listensOnTCP else { return nil }
        let streams = StreamPort(watch: descriptors)
        if configuration.listensOnTCP {
            try streams.listen(on: configuration.bindAddress, port: configuration.tcpPort, preferring: port)
        }
        return streams
    }

    func startStreams() {
        streams?.deliver = { [weak self] datagram, path, peer, _ in
            guard let self else { return }
            let owner = peer == 0 ? nil : self.connections[peer]
            guard peer == 0 || owner != nil else { return self.engine.counters.datagramsDropped.count() }
            self.engine.counters.datagramsReceived.count()
            self.engine.counters.bytesReceived.count(UInt64(datagram.byteCount))
            self.deliver(datagram, path, owner: owner)
        }
    }

    func send(_ datagram: RawSpan, _ transmit: Transmit, _ connection: Connection) {
        let path = Path(local: transmit.from, remote: transmit.to, transport: .tcp)
        let isSent = streams?.send(
            datagram, over: path, peer: connection.entry.handle, opens: configuration.opensTCP, now: now)
        if isSent == true { engine.counters.datagramsSent.count() } else { engine.counters.sendErrors.count() }
    }

    func drainStreams() {
        guard let streams else { return }
        streams.flush(now: now)
        while let ended = streams.pollClosed() {
            guard let connection = connections[ended.peer] else { continue }
            connection.peer.connectionFailed(ended.path, now: now)
            markDirty(connection)
        }
        serviceDirty()
        streams.flush(now: now)
    }

    /// Our candidates over TCP.
    var streamCandidates: [Candidate] {
        guard let streams else { return [] }
        let hosts = network.hosts.map { SocketAddress(ip: $0, port: streams.port ?? 0) }
        return (streams.port == nil ? [] : Candidate.host(hosts, .passive))
            + (configuration.opensTCP ? Candidate.host(hosts, .active) : [])
    }
}
