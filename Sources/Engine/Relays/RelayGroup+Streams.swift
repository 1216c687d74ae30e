import TURN
import Wire

/// Connections to servers over TCP and TLS.
extension RelayGroup {
    var opensConnections: Bool { false }

    func connect(_ leg: RelayLeg, to server: SocketAddress, name: String, _ now: Instant) {}

    func disconnect(_ leg: RelayLeg) {}

    func write(_ datagram: RawSpan, to peer: SocketAddress, over leg: RelayLeg, _ now: Instant) -> Bool { false }

    func writeConnections(_ now: Instant) {}
}
