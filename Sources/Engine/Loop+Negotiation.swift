import Peer
import Wire

/// Peers that negotiate by themselves.
extension Loop {
    func take(_ signal: PeerSignal, _ entry: PeerEntry) {}

    func restart(_ entry: PeerEntry) {}

    func setTURNServers(_ servers: [TURNServer]) {}

    func setTimers(_ timers: Timers) {}
}
