import Wire

@testable import Reload

extension Instant {
    static func at(_ seconds: Double) -> Instant { Instant(nanoseconds: Int64(seconds * 1e9)) }
}

extension ClientFingerprint {
    static func of(_ client: Int) -> ClientFingerprint {
        ClientFingerprint(digest: Array(repeating: UInt8(truncatingIfNeeded: client), count: 32))!
    }
}

/// A server with its sessions and a client that keeps what answers tell it.
struct Scene {
    let sessions: Sessions
    let store: MemoryStore
    var nextPeer: UInt64 = 1

    init(seed: UInt64 = 1, capacity: Int = 1000, configuration: Sessions.Configuration = .init()) {
        var random = SeededGenerator(seed: seed)
        store = MemoryStore(capacity: capacity, using: &random)
        sessions = Sessions(configuration: configuration, store: store, random: random)
    }

    func decide(_ token: SessionToken?, client: Int = 1, at now: Instant) -> Decision {
        decide(text: token?.text, client: client, at: now)
    }

    func decide(text: String?, client: Int = 1, at now: Instant) -> Decision {
        guard case .decided(let decision) = sessions.decide(token: text, fingerprints: [.of(client)], now: now) else {
            fatalError("the memory store answers at once")
        }
        return decision
    }

    @discardableResult
    mutating func connect(
        _ grant: Grant, client: Int = 1, peer: UInt64? = nil, type: CandidateType = .host, at now: Instant
    ) -> (arrival: Arrival, peer: UInt64) {
        let peer = peer ?? nextPeer
        nextPeer = max(nextPeer, peer) + 1
        let arrival = sessions.connected(
            grant, peer: peer, fingerprint: .of(client),
            address: SocketAddress(ip: IPAddress(v4: 0xC000_0201), port: UInt16(truncatingIfNeeded: peer)),
            candidateType: type, now: now)
        return (arrival, peer)
    }

    /// A first visit that is over: its token, the session and when it ended.
    mutating func pastVisit(client: Int = 1, at now: Instant, ended: Instant) -> (token: SessionToken, id: ClientID) {
        let decision = decide(nil, client: client, at: now)
        let visit = connect(decision.grant, client: client, at: now)
        sessions.disconnected(visit.arrival.clientID, peer: visit.peer, now: ended)
        return (decision.grant.token, visit.arrival.clientID)
    }
}
