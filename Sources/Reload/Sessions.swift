import Wire

/// The sessions of an answerer: who may come back fast, and who came back.
///
/// **A token's life.** Every answer carries a new token. Of a client that is new, nothing is stored until
/// its connection is up: an offer alone costs no memory. A client that comes with token T of a session
/// gets T' in the answer; T' is valid at once, and T stays valid until a connection made with an answer
/// to T (or to a later token) is up. So a lost answer, a failed attempt or a reload in between costs
/// nothing: whichever of the two tokens the client has kept leads to its session. When the connection
/// comes up, the client has proved that it got the answer, and T and all before it are dead: replaying
/// one later finds nothing. Replaying T before that yields a token and an answer, but no connection
/// without the key of the client's certificate, and moves nothing: only a connection changes a session.
/// At most four unproved tokens exist per session.
///
/// **Lifetime.** A session lives while it has a connection, and for the lifetime after the last one ended.
///
/// **Take-over.** A connection takes over from an earlier one of its session if the client knew that
/// one's token when it made its offer, or if that one was up when the offer was answered: it is then a
/// zombie. Attempts of one page that overlap (a race of two) leave each other alone.
public final class Sessions {
    public struct Configuration: Sendable {
        public var lifetime = Duration.seconds(300)
        public var fastReload = FastReload.on
        /// How long an answer waits for a store that has to ask elsewhere.
        public var lookupTimeout = Duration.milliseconds(100)
        /// Look-ups that may wait at once.
        public var maximumLookups = 1024

        public init() {}
    }

    public var configuration: Configuration
    public private(set) var counters = SessionCounters()
    private let store: any SessionStore
    private var random: any RandomNumberGenerator
    private var waiting: [Waiting] = []

    private struct Waiting {
        let id: LookupID
        let token: SessionToken
        let fingerprints: [ClientFingerprint]
        let deadline: Instant
    }

    /// `random` must be cryptographically strong: it makes the tokens.
    public init(
        configuration: Configuration = Configuration(), store: any SessionStore, random: any RandomNumberGenerator
    ) {
        self.configuration = configuration
        self.store = store
        self.random = random
    }

    public var count: Int { store.count }

    public func session(_ client: ClientID) -> Session? { store.session(client) }

    // MARK: Answering

    /// How to answer an offer with this token (nil if it had none) and these `a=fingerprint`s.
    public func decide(token text: String?, fingerprints: [ClientFingerprint], now: Instant) -> Verdict {
        guard configuration.fastReload != .off else { return .decided(newSession(.disabled, now: now)) }
        guard let text, !text.isEmpty else { return .decided(newSession(.noToken, now: now)) }
        guard let token = SessionToken(parsing: text) else { return .decided(missed(.unknown, now: now)) }
        let answer = store.find(token, now: now)
        guard case .pending(let id) = answer else {
            return .decided(conclude(answer, token, fingerprints, now: now))
        }
        guard waiting.count < configuration.maximumLookups else {
            return .decided(missed(.storeUnavailable, now: now))
        }
        waiting.append(
            Waiting(id: id, token: token, fingerprints: fingerprints, deadline: now + configuration.lookupTimeout))
        return .pending(id)
    }

    /// Decisions that had to wait for the store.
    public func pollDecision(now: Instant) -> (LookupID, Decision)? {
        while let (id, answer) = store.pollCompletion() {
            // What comes after its deadline is nobody's any more.
            guard let index = waiting.firstIndex(where: { $0.id == id }) else { continue }
            let asked = waiting.remove(at: index)
            return (id, conclude(answer, asked.token, asked.fingerprints, now: now))
        }
        guard let index = waiting.firstIndex(where: { $0.deadline <= now }) else { return nil }
        return (waiting.remove(at: index).id, missed(.storeUnavailable, now: now))
    }

    private func conclude(
        _ answer: StoreAnswer, _ token: SessionToken, _ fingerprints: [ClientFingerprint], now: Instant
    ) -> Decision {
        guard case .session(let session) = answer else {
            if case .absent = answer { return missed(.unknown, now: now) }
            return missed(.storeUnavailable, now: now)
        }
        // A store elsewhere may lag behind: the token must be the session's by its own list.
        let digest = TokenDigest(token)
        guard let presented = session.tokens.first(where: { $0.digest == digest }) else {
            return missed(.unknown, now: now)
        }
        if let expires = session.expires, expires <= now {
            store.remove(session.clientID)
            counters.expired += 1
            return missed(.expired, now: now)
        }
        // The session stays as it is: whoever came has not shown to be its client.
        guard fingerprints.contains(session.clientFingerprint) else { return missed(.otherFingerprint, now: now) }
        counters.hits += 1
        return continued(session, presented: presented, now: now)
    }

    private func continued(_ session: Session, presented: IssuedToken, now: Instant) -> Decision {
        var session = session
        let token = SessionToken(using: &random)
        let issued = IssuedToken(token, generation: session.nextGeneration)
        session.nextGeneration &+= 1
        session.tokens.append(issued)
        // The first is that of the newest connection and stays; of the others the oldest goes.
        if session.tokens.count > Session.maximumPendingTokens + 1 { session.tokens.remove(at: 1) }
        _ = store.save(session, now: now)
        let grant = Grant(
            clientID: session.clientID, token: token, continuesSession: true, generation: issued.generation,
            presentedGeneration: presented.generation, issued: now, presented: presented.digest)
        guard configuration.fastReload == .on else {
            counters.normal[.disabled, default: 0] += 1
            return Decision(mode: .normal, reason: .disabled, grant: grant, session: session)
        }
        counters.fast += 1
        return Decision(mode: .fast, reason: nil, grant: grant, session: session)
    }

    /// A client came with a ticket, which says whose it is and which certificate it must show. The ticket is
    /// proof enough: a session that this store does not have, after a restart or on another server, begins anew under its name.
    public func resume(_ client: ClientID, fingerprint: ClientFingerprint, now: Instant) -> Decision {
        var known = store.session(client)
        if let session = known, session.expires.map({ $0 <= now }) ?? false {
            store.remove(client)
            counters.expired += 1
            known = nil
        }
        // A name that another client has by now: the ticket's client is a new one.
        let isOthers = known.map { $0.clientFingerprint != fingerprint } ?? false
        let session = isOthers ? nil : known
        counters.resumed += 1
        let grant = Grant(
            clientID: isOthers ? ClientID(random.next()) : client, token: SessionToken(using: &random),
            continuesSession: session != nil, generation: session?.nextGeneration ?? 1,
            // The ticket says nothing about the tokens: those that were given out stay.
            presentedGeneration: 0, issued: now)
        return Decision(mode: .zeroSignaling, reason: nil, grant: grant, session: session)
    }

    private func missed(_ reason: NormalReason, now: Instant) -> Decision {
        counters.misses += 1
        return newSession(reason, now: now)
    }

    private func newSession(_ reason: NormalReason, now: Instant) -> Decision {
        counters.normal[reason, default: 0] += 1
        let grant = Grant(
            clientID: ClientID(random.next()), token: SessionToken(using: &random), continuesSession: false,
            generation: 1, presentedGeneration: 0, issued: now)
        return Decision(mode: .normal, reason: reason, grant: grant, session: nil)
    }

    /// A client has shown that it is this one (by a ticket), and may soon be connected: a store that is elsewhere
    /// fetches its session.
    public func prefetch(_ client: ClientID) { store.prefetch(client) }

    // MARK: Connections

    /// The connection that `grant` was made for is up: DTLS is finished, and `fingerprint` is of the
    /// certificate that the client proved to have.
    public func connected(
        _ grant: Grant, peer: UInt64, fingerprint: ClientFingerprint, address: SocketAddress,
        candidateType: CandidateType, candidates: [String] = [], now: Instant
    ) -> Arrival {
        let visit = Visit(
            peer: peer, fingerprint: fingerprint, address: address, candidateType: candidateType,
            candidates: Self.bounded(candidates), now: now)
        guard var session = store.session(grant.clientID) else { return first(grant, grant.clientID, visit) }
        guard session.clientFingerprint == fingerprint else {
            // An offer may name several certificates: the session's to be answered fast, and another one.
            let digest = TokenDigest(grant.token)
            session.tokens.removeAll { $0.digest == digest }
            _ = store.save(session, now: now)
            return first(grant, ClientID(random.next()), visit)
        }
        return returned(&session, grant, visit)
    }

    private struct Visit {
        let peer: UInt64
        let fingerprint: ClientFingerprint
        let address: SocketAddress
        let candidateType: CandidateType
        let candidates: [String]
        let now: Instant
    }

    private func first(_ grant: Grant, _ client: ClientID, _ visit: Visit) -> Arrival {
        let session = Session(
            clientID: client, created: visit.now, clientFingerprint: visit.fingerprint, lastConnected: visit.now,
            lastSeen: visit.now, lastAddress: visit.address, preferredCandidateType: visit.candidateType,
            lastCandidates: visit.candidates, connectionCount: 1,
            live: [LivePeer(peer: visit.peer, generation: grant.generation, connected: visit.now)], expires: nil,
            tokens: [IssuedToken(grant.token, generation: grant.generation)],
            nextGeneration: grant.generation &+ 1)
        let isStored = store.save(session, now: visit.now)
        counters.firstConnections += 1
        if !isStored { counters.notStored += 1 }
        return Arrival(kind: .first, clientID: client, replaced: [], isStored: isStored)
    }

    private func returned(_ session: inout Session, _ grant: Grant, _ visit: Visit) -> Arrival {
        let absence = max(visit.now - session.lastSeen, .zero)
        session.lastSeen = max(session.lastSeen, visit.now)
        session.lastAddress = visit.address
        session.preferredCandidateType = visit.candidateType
        if !visit.candidates.isEmpty { session.lastCandidates = visit.candidates }
        if session.live.contains(where: { $0.peer == visit.peer }) {
            _ = store.save(session, now: visit.now)
            return Arrival(kind: .repeated, clientID: session.clientID, replaced: [], isStored: true)
        }
        session.lastConnected = visit.now
        session.connectionCount &+= 1
        session.expires = nil
        prove(grant, &session)
        let replaced = takeOver(grant, visit, &session)
        _ = store.save(session, now: visit.now)
        counters.returns += 1
        counters.takeovers += replaced.count
        return Arrival(
            kind: .returned(after: absence, count: session.connectionCount), clientID: session.clientID,
            replaced: replaced, isStored: true)
    }

    /// The client has the grant's token: the one it came with, and all before that, are dead.
    private func prove(_ grant: Grant, _ session: inout Session) {
        let presented = session.tokens.first { $0.digest == grant.presented }?.generation ?? grant.presentedGeneration
        session.deadThrough = max(session.deadThrough, presented)
        // A grant made before the session was known here counts from one: its token is a new one all the same.
        let isCounted = grant.generation > session.deadThrough
        let proved = IssuedToken(grant.token, generation: isCounted ? grant.generation : session.nextGeneration)
        session.tokens.removeAll { $0.generation <= presented || $0.digest == proved.digest }
        session.tokens.insert(proved, at: 0)
        if session.tokens.count > Session.maximumPendingTokens + 1 { session.tokens.remove(at: 1) }
        session.nextGeneration = max(session.nextGeneration, proved.generation &+ 1)
    }

    private func takeOver(_ grant: Grant, _ visit: Visit, _ session: inout Session) -> [UInt64] {
        func isZombie(_ other: LivePeer) -> Bool {
            other.generation <= grant.presentedGeneration || other.connected <= grant.issued
        }
        var replaced = session.live.filter(isZombie).map(\.peer)
        session.live.removeAll(where: isZombie)
        if session.live.count >= Session.maximumLivePeers { replaced.append(session.live.removeFirst().peer) }
        session.live.append(LivePeer(peer: visit.peer, generation: grant.generation, connected: visit.now))
        return replaced
    }

    /// The connection of `peer` has ended, `lastHeard` (now, if nil) being when it was last heard from.
    /// One that was taken over, or never up, changes nothing.
    public func disconnected(_ client: ClientID, peer: UInt64, lastHeard: Instant? = nil, now: Instant) {
        guard var session = store.session(client),
            let index = session.live.firstIndex(where: { $0.peer == peer })
        else { return }
        session.live.remove(at: index)
        session.lastSeen = max(session.lastSeen, min(lastHeard ?? now, now))
        if session.live.isEmpty { session.expires = now + configuration.lifetime }
        _ = store.save(session, now: now)
    }

    /// Something came from the client. Worth calling before a take-over and now and then, not per packet:
    /// it makes the absence in ``Arrival`` exact.
    public func heard(from client: ClientID, now: Instant) {
        guard var session = store.session(client), session.lastSeen < now else { return }
        session.lastSeen = now
        _ = store.save(session, now: now)
    }

    /// Forgets a session and its tokens; its connections stay.
    public func forget(_ client: ClientID) { store.remove(client) }

    private static func bounded(_ candidates: [String]) -> [String] {
        Array(
            candidates.lazy.filter { $0.utf8.count <= Session.maximumCandidateBytes }.prefix(Session.maximumCandidates))
    }

    // MARK: Time

    public var nextTimeout: Instant? {
        let lookup = waiting.lazy.map(\.deadline).min()
        guard let sweep = store.nextTimeout else { return lookup }
        return lookup.map { min($0, sweep) } ?? sweep
    }

    /// Sweeps. Afterwards drain ``pollDecision(now:)``.
    public func handleTimeout(now: Instant) {
        guard let due = store.nextTimeout, due <= now else { return }
        counters.expired += store.sweep(now: now)
    }
}
