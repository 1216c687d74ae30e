import TURN
import Wire

/// One server of a group, at one of its addresses, from being asked to the end of its allocation.
final class RelayLeg {
    enum State: Equatable {
        /// The connection is not open yet.
        case connecting
        case allocating
        /// There is an allocation.
        case held
        /// There was one, and nothing is heard of the server; until then it may come back.
        case withdrawn(until: Instant)
        /// It is being given back.
        case closing
    }

    let endpoint: RelayEndpoint
    let client: RelayClient
    var state: State
    var begun: Instant
    /// What is offered of it, IPv6 first.
    var relayed: [SocketAddress] = []
    /// The port as the server sees it.
    var mapped: SocketAddress?
    /// Local preference of the first of them; stays the same.
    var preference: UInt16 = 0
    var peers = RelayPeers()
    /// The network has changed since anything was heard of the server.
    var isOutdated = false
    /// The server was asked whether it is there: until when, and how much had been heard of it.
    var probe: (until: Instant, before: Heard)?
    var lastHeard: Instant
    /// Over TCP and TLS, and where it leads.
    var stream: Stream?
    var target: SocketAddress?
    /// The client was started: over another connection it goes on.
    var hasStarted = false
    /// What the system sends from to get there.
    var source: IPAddress?
    /// When these were made by ourselves because the server refused others.
    var lastRenewal: Instant?
    /// Datagrams for peers that could not be sent.
    var dropped: UInt64 = 0

    init(_ endpoint: RelayEndpoint, _ client: RelayClient, _ state: State, source: IPAddress?, now: Instant) {
        self.endpoint = endpoint
        self.client = client
        self.state = state
        self.source = source
        begun = now
        lastHeard = now
    }

    var isStream: Bool { endpoint.server.transport.isStream }
    var isHeld: Bool { state == .held }
    var isAttempt: Bool { state == .connecting || state == .allocating }

    /// Counts what shows that the server is there, and among that what shows that it holds the allocation.
    struct Heard: Equatable {
        var anything: UInt64 = 0
        var proof: UInt64 = 0
    }

    var heard: Heard {
        let proof = client.statistics.responsesReceived &+ client.statistics.received
        return Heard(anything: proof &+ client.statistics.errorsReceived, proof: proof)
    }

    /// The one that a peer of this family sees.
    func relayed(for peer: IPAddress) -> SocketAddress? { relayed.first { $0.ip.isIPv4 == peer.isIPv4 } }
}
