import CReconnect
import Peer
import Wire

extension Loop {
    /// The answer to `reconnect_peer_query_statistics`: the contract's own struct as the event's payload.
    func reportStatistics(_ entry: PeerEntry, tag: UInt64) {
        var event = Event(.statistics)
        event.tag = tag
        event.peer = entry.handle
        if let connection = connections[entry.handle] {
            event.data = payload(of: reading(connection))
        } else {
            event.status = .closed
        }
        events.append(event)
    }

    private func reading(_ connection: Connection) -> reconnect_peer_statistics_t {
        let peer = connection.peer
        let figures = peer.statistics
        func since(_ milestone: Instant?) -> UInt64 {
            milestone.map { UInt64(clamping: max(1, ($0 - peer.created).nanoseconds)) } ?? 0
        }
        var result = reconnect_peer_statistics_t()
        result.struct_size = UInt32(MemoryLayout<reconnect_peer_statistics_t>.size)
        result.channels = UInt32(clamping: connection.channels.count)
        result.ice_ns = since(peer.milestones.verified)
        result.dtls_ns = since(peer.milestones.authenticated)
        result.sctp_ns = since(peer.milestones.associated)
        result.round_trip_ns = UInt64(clamping: peer.roundTrip?.nanoseconds ?? 0)
        result.bytes_sent = figures.bytesSent
        result.bytes_received = figures.bytesReceived
        result.messages_sent = figures.messagesSent
        result.messages_received = figures.messagesReceived
        result.retransmissions = figures.retransmissions
        result.congestion_window = UInt64(clamping: figures.congestionWindow)
        result.buffered = connection.channels.values.reduce(0) { $0 &+ UInt64(clamping: $1.entry.buffered) }
        if let path = peer.selectedPath {
            fill(&result.local_address, path.local.description)
            fill(&result.remote_address, path.remote.description)
            fill(&result.local_type, figures.localKind?.rawValue ?? "")
            fill(&result.remote_type, figures.remoteKind?.rawValue ?? "")
            fill(&result.transport, "\(path.transport)")
            if path.transport == .udp, let relay = relays(of: connection)?.transport(of: path.local) {
                fill(&result.relay_transport, "\(relay.0)")
                fill(&result.relay_address, relay.server.description)
            }
        }
        result.packets_sent = figures.packetsSent
        result.packets_received = figures.packetsReceived
        result.checks_sent = figures.checksSent
        result.checks_received = figures.checksReceived
        result.path_changes = figures.pathChanges
        result.restarts = figures.restarts
        result.generation = figures.generation
        result.standby = figures.hasStandby ? 1 : 0
        result.candidates_refused = figures.candidatesRefused
        return result
    }

    /// Into one of the struct's arrays of 64 characters, with a NUL.
    private func fill<Characters: BitwiseCopyable>(_ characters: inout Characters, _ text: String) {
        unsafe withUnsafeMutableBytes(of: &characters) { buffer in
            for (index, byte) in text.utf8.prefix(buffer.count - 1).enumerated() { unsafe buffer[index] = byte }
        }
    }

    private func payload<Value: BitwiseCopyable>(of value: Value) -> Payload {
        unsafe withUnsafeBytes(of: value) { unsafe Payload.copying($0.bytes) }
    }
}
