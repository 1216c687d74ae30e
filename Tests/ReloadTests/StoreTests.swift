import Testing
import Wire

@testable import Reload

@Suite struct Memory {
    /// Structure, not time: whatever a token looks like, a look-up hashes once and compares as often, in full.
    @Test func everyLookupComparesAsOften() {
        var scene = Scene()
        let (token, _) = scene.pastVisit(at: .at(0), ended: .at(1))
        var candidates = [token]
        for word in 0..<3 {
            for bit in [0, 31, 63] {
                var words = token.words
                switch word {
                case 0: words.0 ^= 1 << UInt64(bit)
                case 1: words.1 ^= 1 << UInt64(bit)
                default: words.2 ^= 1 << UInt64(bit)
                }
                candidates.append(SessionToken(words: words))
            }
        }
        var counts: Set<Int> = []
        for candidate in candidates {
            let before = scene.store.comparisons
            _ = scene.store.find(candidate, now: .at(2))
            counts.insert(scene.store.comparisons - before)
        }
        for rotation in 0..<10 {
            _ = scene.decide(token, at: .at(3))
            let before = scene.store.comparisons
            _ = scene.store.find(token, now: .at(3))
            counts.insert(scene.store.comparisons - before)
            #expect(counts == [5], "rotation \(rotation)")
        }
    }

    @Test func theSecretDecidesWhereTokensLie() {
        var random = SeededGenerator(seed: 9)
        let token = SessionToken(using: &random)
        let hashes = Set((0..<100).map { _ in SipHash(using: &random).hash(TokenDigest(token)) })
        #expect(hashes.count == 100)
    }

    @Test func staysWithinItsBound() {
        var scene = Scene(capacity: 10_000)
        var tokens: [SessionToken] = []
        for number in 0..<110_000 {
            let now = Instant.at(Double(number) / 1000)
            tokens.append(scene.pastVisit(client: number, at: now, ended: now).token)
        }
        #expect(scene.sessions.count == 10_000)
        #expect(scene.store.tokenCount == 10_000)
        #expect(scene.store.evicted == 100_000)
        // The oldest made room, the newest are there.
        let now = Instant.at(110)
        #expect(scene.decide(tokens[99_000], client: 99_000, at: now).reason == .unknown)
        #expect(scene.decide(tokens[109_999], client: 109_999, at: now).mode == .fast)
        #expect(scene.decide(tokens[101_500], client: 101_500, at: now).mode == .fast)
    }

    @Test func holdsAHundredThousandAndLetsThemGo() {
        var scene = Scene(capacity: 200_000)
        for number in 0..<120_000 {
            _ = scene.pastVisit(client: number, at: .at(0), ended: .at(Double(number % 100)))
        }
        #expect(scene.sessions.count == 120_000)
        var now = Instant.at(100)
        var sweeps = 0
        while let next = scene.sessions.nextTimeout, sweeps < 10_000 {
            now = max(now, next)
            scene.sessions.handleTimeout(now: now)
            sweeps += 1
        }
        #expect(scene.sessions.count == 0)
        #expect(scene.store.tokenCount == 0)
        #expect(now < .at(500))
        #expect(scene.sessions.counters.expired == 120_000)
        // At most a batch at a time, and no more rounds than that needs and one a minute.
        #expect(sweeps <= 120_000 / MemoryStore.sweepBatch + 10)
    }

    @Test func sweepsOnceAMinute() {
        var scene = Scene()
        for second in 0..<600 {
            _ = scene.pastVisit(client: second, at: .at(Double(second)), ended: .at(Double(second)))
        }
        var sweeps: [Instant] = []
        while let next = scene.sessions.nextTimeout, sweeps.count < 100 {
            scene.sessions.handleTimeout(now: next)
            sweeps.append(next)
        }
        #expect(scene.sessions.count == 0)
        #expect(sweeps.count <= 12)
    }

    @Test func connectedSessionsAreNeverSweptNorEvicted() {
        var scene = Scene(capacity: 3)
        let stays = scene.connect(scene.decide(nil, at: .at(0)).grant, at: .at(0))
        for number in 2..<50 {
            _ = scene.pastVisit(client: number, at: .at(Double(number)), ended: .at(Double(number)))
        }
        scene.sessions.handleTimeout(now: .at(1_000_000))
        #expect(scene.sessions.session(stays.arrival.clientID) != nil)
        #expect(scene.sessions.count == 1)
    }

    @Test func fullOfConnectionsItTakesNoMore() {
        var scene = Scene(capacity: 3)
        for number in 0..<3 { scene.connect(scene.decide(nil, at: .at(0)).grant, client: number, at: .at(0)) }
        let late = scene.decide(nil, client: 9, at: .at(1))
        let visit = scene.connect(late.grant, client: 9, at: .at(1))
        #expect(visit.arrival.kind == .first)
        #expect(!visit.arrival.isStored)
        #expect(scene.sessions.count == 3)
        #expect(scene.sessions.counters.notStored == 1)
        // Its end is no trouble, and its token is simply unknown.
        scene.sessions.disconnected(visit.arrival.clientID, peer: visit.peer, now: .at(2))
        #expect(scene.decide(late.grant.token, client: 9, at: .at(3)).reason == .unknown)
    }
}

/// A store that asks elsewhere: look-ups wait until the test lets them through.
private final class SlowStore: SessionStore {
    let memory: MemoryStore
    var isDown = false
    private var asked: [(LookupID, SessionToken)] = []
    private var answers: [(LookupID, StoreAnswer)] = []
    private var lookups: UInt64 = 0

    init(_ random: inout SeededGenerator) { memory = MemoryStore(using: &random) }

    func letThrough(_ answer: StoreAnswer? = nil) {
        for (id, token) in asked { answers.append((id, answer ?? memory.find(token, now: .at(0)))) }
        asked = []
    }

    var count: Int { memory.count }
    func find(_ token: SessionToken, now: Instant) -> StoreAnswer {
        if isDown { return .unavailable }
        lookups += 1
        asked.append((LookupID(lookups), token))
        return .pending(LookupID(lookups))
    }
    func session(_ client: ClientID) -> Session? { memory.session(client) }
    func save(_ session: Session, now: Instant) -> Bool { memory.save(session, now: now) }
    func remove(_ client: ClientID) { memory.remove(client) }
    func sweep(now: Instant) -> Int { memory.sweep(now: now) }
    var nextTimeout: Instant? { memory.nextTimeout }
    func pollCompletion() -> (LookupID, StoreAnswer)? { answers.isEmpty ? nil : answers.removeFirst() }
}

@Suite struct StoresThatAskElsewhere {
    private static func visit(_ sessions: Sessions) -> SessionToken? {
        guard case .decided(let first) = sessions.decide(token: nil, fingerprints: [.of(1)], now: .at(0)) else {
            return nil
        }
        let arrival = sessions.connected(
            first.grant, peer: 1, fingerprint: .of(1), address: SocketAddress(ip: .anyIPv6, port: 1),
            candidateType: .host, now: .at(0))
        sessions.disconnected(arrival.clientID, peer: 1, now: .at(1))
        return first.grant.token
    }

    @Test func decideWhenTheAnswerComes() throws {
        var random = SeededGenerator(seed: 5)
        let store = SlowStore(&random)
        let sessions = Sessions(store: store, random: random)
        let token = try #require(Self.visit(sessions))
        guard case .pending(let id) = sessions.decide(token: token.text, fingerprints: [.of(1)], now: .at(2)) else {
            Issue.record("decided at once")
            return
        }
        #expect(sessions.pollDecision(now: .at(2)) == nil)
        #expect(sessions.nextTimeout == .at(2.1))
        store.letThrough()
        let (decided, decision) = try #require(sessions.pollDecision(now: .at(2.05)))
        #expect(decided == id)
        #expect(decision.mode == .fast)
        #expect(sessions.pollDecision(now: .at(9)) == nil)
    }

    @Test func decideNormallyWhenItDoesNotCome() throws {
        var random = SeededGenerator(seed: 6)
        let store = SlowStore(&random)
        let sessions = Sessions(store: store, random: random)
        let token = try #require(Self.visit(sessions))
        _ = sessions.decide(token: token.text, fingerprints: [.of(1)], now: .at(2))
        let (_, decision) = try #require(sessions.pollDecision(now: .at(2.1)))
        #expect(decision.mode == .normal)
        #expect(decision.reason == .storeUnavailable)
        // The answer that comes too late is dropped.
        store.letThrough()
        #expect(sessions.pollDecision(now: .at(2.2)) == nil)
        #expect(sessions.counters.fast == 0)
    }

    @Test func decideNormallyWhenTheStoreIsDown() {
        var random = SeededGenerator(seed: 7)
        let store = SlowStore(&random)
        store.isDown = true
        let sessions = Sessions(store: store, random: random)
        let text = SessionToken(using: &random).text
        guard case .decided(let decision) = sessions.decide(token: text, fingerprints: [], now: .at(0)) else {
            Issue.record("waiting")
            return
        }
        #expect(decision.reason == .storeUnavailable)
    }

    @Test func boundTheWaiting() {
        var random = SeededGenerator(seed: 8)
        let sessions = Sessions(store: SlowStore(&random), random: random)
        let text = SessionToken(using: &random).text
        var reasons: [NormalReason?] = []
        for _ in 0..<1030 {
            if case .decided(let decision) = sessions.decide(token: text, fingerprints: [], now: .at(0)) {
                reasons.append(decision.reason)
            }
        }
        #expect(reasons == Array(repeating: .storeUnavailable, count: 6))
    }

    /// A store behind the times may name a session that has since changed its tokens.
    @Test func trustTheSessionsOwnTokens() throws {
        var random = SeededGenerator(seed: 9)
        let store = SlowStore(&random)
        let sessions = Sessions(store: store, random: random)
        let token = try #require(Self.visit(sessions))
        let other = SessionToken(using: &random)
        _ = sessions.decide(token: other.text, fingerprints: [.of(1)], now: .at(2))
        store.letThrough(store.memory.find(token, now: .at(2)))
        let (_, decision) = try #require(sessions.pollDecision(now: .at(2)))
        #expect(decision.reason == .unknown)
    }
}
