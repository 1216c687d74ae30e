import Testing
import Wire

@testable import Reload

enum StoreKind: CaseIterable, CustomStringConvertible {
    case memory
    case database
    case slowDatabase

    var description: String {
        switch self {
        case .memory: "memory"
        case .database: "database"
        case .slowDatabase: "slow database"
        }
    }

    func server(seed: UInt64 = 1) -> SimulatedServer {
        switch self {
        case .memory: SimulatedServer(seed: seed)
        case .database: SimulatedServer(SimulatedDatabase(), seed: seed)
        case .slowDatabase: SimulatedServer(SimulatedDatabase(), seed: seed, delay: .milliseconds(20))
        }
    }
}

/// What a client sees does not depend on where the sessions are.
@Suite struct EveryStore {
    @Test(arguments: StoreKind.allCases)
    func knowsWhoComesBack(_ kind: StoreKind) {
        let server = kind.server()
        let (token, id) = server.pastVisit()
        server.run(until: .at(60))
        let decision = server.decide(token)
        #expect(decision.mode == .fast)
        #expect(decision.grant.clientID == id)
        #expect(decision.requiredFingerprint == .of(1))
        let visit = server.connect(decision.grant, type: .relay)
        guard case .returned(let absence, 2) = visit.arrival.kind else {
            Issue.record("\(visit.arrival.kind)")
            return
        }
        #expect(absence >= .seconds(60) && absence < .seconds(61))
        #expect(server.sessions.session(id)?.preferredCandidateType == .relay)
        #expect(server.sessions.session(id)?.lastCandidates.count == 1)
    }

    @Test(arguments: StoreKind.allCases)
    func forgetsAfterTheLifetime(_ kind: StoreKind) {
        let server = kind.server()
        let (token, _) = server.pastVisit()
        server.run(until: .at(299))
        #expect(server.decide(token).mode == .fast)
        server.run(until: .at(301))
        let late = server.decide(token)
        #expect(late.reason == .expired || late.reason == .unknown)
    }

    @Test(arguments: StoreKind.allCases)
    func refusesReplacedTokens(_ kind: StoreKind) {
        let server = kind.server()
        let (token, _) = server.pastVisit()
        let first = server.decide(token)
        let second = server.decide(token)
        #expect(first.mode == .fast && second.mode == .fast)
        server.connect(first.grant)
        #expect(server.decide(token).reason == .unknown)
        #expect(server.decide(first.grant.token).mode == .fast)
        #expect(server.decide(second.grant.token).mode == .fast)
    }

    @Test(arguments: StoreKind.allCases)
    func refusesOtherFingerprints(_ kind: StoreKind) {
        let server = kind.server()
        let (token, _) = server.pastVisit()
        let stolen = server.decide(token, client: 2)
        #expect(stolen.reason == .otherFingerprint)
        #expect(stolen.session == nil)
        #expect(server.decide(token).mode == .fast)
    }

    @Test(arguments: StoreKind.allCases)
    func refusesUnknownTokens(_ kind: StoreKind) {
        let server = kind.server()
        _ = server.pastVisit()
        #expect(server.decide(text: "session-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").reason == .unknown)
        #expect(server.decide(text: "nonsense").reason == .unknown)
        #expect(server.decide(text: nil).reason == .noToken)
    }

    @Test(arguments: StoreKind.allCases)
    func takesOverFromZombies(_ kind: StoreKind) {
        let server = kind.server()
        let first = server.decide(nil)
        let zombie = server.connect(first.grant)
        server.run(until: .at(3600))
        let decision = server.decide(first.grant.token)
        #expect(decision.mode == .fast)
        #expect(server.connect(decision.grant).arrival.replaced == [zombie.peer])
        server.end(zombie)
        #expect(server.sessions.session(zombie.arrival.clientID)?.live.count == 1)
    }

    @Test(arguments: StoreKind.allCases)
    func takesATokenAtOnce(_ kind: StoreKind) {
        let server = kind.server()
        var token = server.decide(nil).grant.token
        var grant = server.decide(nil).grant
        // Each with the token of the answer before: none of them waits until it has been written.
        server.connect(grant)
        for _ in 0..<10 {
            token = grant.token
            let decision = server.decide(token)
            #expect(decision.mode == .fast)
            grant = decision.grant
            server.connect(grant)
        }
    }

    @Test(arguments: StoreKind.allCases)
    func forgetsWhatItIsTold(_ kind: StoreKind) {
        let server = kind.server()
        let (token, id) = server.pastVisit()
        server.sessions.forget(id)
        server.run(until: .at(1))
        #expect(server.decide(token).reason == .unknown)
    }
}

@Suite struct Databases {
    @Test func thatAreAwayMeanNormalMode() {
        let database = SimulatedDatabase()
        let server = SimulatedServer(database, seed: 1, delay: .milliseconds(5))
        let (token, _) = server.pastVisit()
        server.run(until: .at(1))
        server.disconnect()
        #expect(server.decide(token).reason == .storeUnavailable)
        // Life goes on, and is written when the database is back.
        let (other, _) = server.pastVisit(client: 2)
        server.run(until: .at(10))
        #expect(database.records.count == 1)
        server.reconnect()
        server.run(until: .at(11))
        #expect(database.records.count == 2)
        #expect(server.decide(token).mode == .fast)
        #expect(SimulatedServer(database, seed: 2, at: .at(11)).decide(other, client: 2).mode == .fast)
    }

    @Test func thatBreakDuringALookupAnswerItAtOnce() throws {
        let server = SimulatedServer(SimulatedDatabase(), seed: 1, delay: .milliseconds(50))
        let (token, _) = server.pastVisit()
        server.run(until: .at(1))
        guard case .pending(let id) = server.sessions.decide(token: token.text, fingerprints: [.of(1)], now: .at(1))
        else { return }
        server.disconnect()
        let (decided, decision) = try #require(server.sessions.pollDecision(now: .at(1)))
        #expect(decided == id)
        #expect(decision.reason == .storeUnavailable)
        #expect(server.sessions.pollDecision(now: .at(9)) == nil)
    }

    @Test func thatAnswerTooLateAreNotWaitedFor() throws {
        let server = SimulatedServer(SimulatedDatabase(), seed: 1, delay: .milliseconds(200))
        let (token, _) = server.pastVisit()
        server.run(until: .at(2))
        let decision = server.decide(token)
        #expect(decision.reason == .storeUnavailable)
        #expect(server.now == .at(2.1))
        // The late answer decides nothing; it only leaves the session in memory.
        server.run(until: .at(3))
        #expect(server.sessions.pollDecision(now: .at(3)) == nil)
        #expect(server.sessions.counters.fast == 0)
    }

    @Test func thatAreTooSlowAreAskedNoMoreForAWhile() {
        let server = SimulatedServer(SimulatedDatabase(), seed: 1)
        let (token, _) = server.pastVisit()
        server.run(until: .at(1))
        server.delay = .milliseconds(80)
        for _ in 0..<30 { #expect(server.decide(token).reason == .storeUnavailable) }
        // From the twentieth late answer on nobody waits.
        #expect(server.now < .at(3.3))
        let before = server.now
        #expect(server.decide(token).reason == .storeUnavailable)
        #expect(server.now == before)
        // One question a second finds out.
        let asked = server.caching?.counters.lookups ?? 0
        for step in 1...100 {
            server.run(until: before + .milliseconds(Int64(step) * 100))
            _ = server.decide(token)
        }
        let more = (server.caching?.counters.lookups ?? 0) - asked
        #expect(more >= 7 && more <= 10)
        server.delay = .milliseconds(1)
        server.run(until: server.now + .seconds(2))
        #expect(server.decide(token).mode == .fast)
        #expect(server.decide(token).mode == .fast)
    }

    @Test func bringSessionsBackAfterARestart() {
        let database = SimulatedDatabase()
        let before = SimulatedServer(database, seed: 1, delay: .milliseconds(3))
        let decision = before.decide(nil)
        // Killed while connected: the end of the connection is never written.
        let visit = before.connect(decision.grant, type: .serverReflexive)
        before.run(until: .at(1000))
        let after = SimulatedServer(database, seed: 2, at: .at(1200))
        let back = after.decide(decision.grant.token)
        #expect(back.mode == .fast)
        #expect(back.session?.clientID == visit.arrival.clientID)
        #expect(back.session?.preferredCandidateType == .serverReflexive)
        #expect(back.session?.live == [])
        #expect(back.session?.connectionCount == 1)
        #expect(back.session?.lastAddress == SocketAddress(ip: IPAddress(v4: 0xC000_0201), port: 1))
        guard case .returned(let absence, 2) = after.connect(back.grant).arrival.kind else {
            Issue.record("not returned")
            return
        }
        #expect(absence >= .seconds(200) && absence < .seconds(1201))
        // And one that nobody came back to is gone when its time is over.
        let third = SimulatedServer(database, seed: 3, at: .at(1501))
        #expect(third.decide(decision.grant.token).reason == .unknown)
    }

    @Test func areWrittenSeldomWhileNothingHappens() {
        let database = SimulatedDatabase()
        let server = SimulatedServer(database, seed: 1)
        let visit = server.connect(server.decide(nil).grant)
        for second in 1...3000 {
            server.run(until: .at(Double(second)))
            server.sessions.heard(from: visit.arrival.clientID, now: server.now)
        }
        #expect(database.saves == 1 + 3000 / 75)
        #expect(server.decide(nil).mode == .normal)
    }

    @Test func thatAreFlushedAreFilledAgain() {
        let database = SimulatedDatabase()
        let server = SimulatedServer(database, seed: 1)
        let (gone, _) = server.pastVisit(client: 2)
        let first = server.decide(nil)
        server.connect(first.grant)
        server.run(until: .at(100))
        database.flush()
        // What the database has known and lost is lost: it may have been killed elsewhere.
        #expect(server.decide(gone, client: 2).reason == .unknown)
        #expect(server.decide(first.grant.token).reason == .unknown)
        server.run(until: .at(176))
        #expect(server.decide(first.grant.token).mode == .fast)
    }

    @Test func keepNoTokens() {
        let database = SimulatedDatabase()
        let server = SimulatedServer(database, seed: 1)
        let (token, _) = server.pastVisit()
        let text = Array(token.text.utf8.dropFirst(8))
        let raw = [token.words.0, token.words.1, token.words.2].flatMap { word in
            stride(from: 56, through: 0, by: -8).map { UInt8(truncatingIfNeeded: word >> UInt64($0)) }
        }
        #expect(database.records.count == 1 && database.tokens.count == 1)
        for record in database.records.values {
            for secret in [text, raw, Array(raw.prefix(8)), Array(raw.suffix(8))] {
                let isInside = record.bytes.indices.contains { record.bytes[$0...].starts(with: secret) }
                #expect(!isInside)
            }
        }
        #expect(database.tokens.keys.allSatisfy { $0.utf8.count == 43 && !$0.contains(token.displayPrefix) })
    }

    @Test func ofAnotherClockAreUnderstood() {
        for skew in [-86_400, -3600, 3600, 86_400] {
            let database = SimulatedDatabase()
            let server = SimulatedServer(database, seed: 1)
            let (token, _) = server.pastVisit()
            let other = SimulatedServer(
                database, seed: 2, at: .at(200), unixOffset: .seconds(1_700_000_000 + Int64(skew)))
            let decision = other.decide(token)
            #expect(decision.mode == .fast)
            #expect(decision.session?.expires == .at(300))
            #expect((decision.session?.lastSeen).map { $0 <= .at(200) } == true)
        }
    }

    @Test func fetchSessionsForClientsThatShowATicket() {
        let database = SimulatedDatabase()
        let server = SimulatedServer(database, seed: 1)
        let (token, id) = server.pastVisit()
        let other = SimulatedServer(database, seed: 2, delay: .milliseconds(1), at: .at(10))
        #expect(other.sessions.session(id) == nil)
        other.sessions.prefetch(id)
        other.sessions.prefetch(ClientID(99))
        other.run(until: .at(11))
        #expect(other.sessions.session(id)?.isNewest(token) == true)
        #expect(other.sessions.session(ClientID(99)) == nil)
        #expect(other.sessions.count == 1)
        // Known here already: what happened elsewhere since is fetched too.
        server.run(until: .at(12))
        server.connect(server.decide(token).grant, type: .relay)
        #expect(other.sessions.session(id)?.preferredCandidateType == .host)
        other.sessions.prefetch(id)
        other.run(until: .at(13))
        #expect(other.sessions.session(id)?.preferredCandidateType == .relay)
        #expect(other.sessions.session(id)?.connectionCount == 2)
    }

    @Test func holdNoMoreInMemoryThanTheyMay() {
        let database = SimulatedDatabase()
        let server = SimulatedServer(database, seed: 1) { $0.capacity = 10 }
        server.disconnect()
        for client in 0..<5000 { _ = server.pastVisit(client: client) }
        #expect(server.sessions.count == 10)
        server.reconnect()
        server.run(until: .at(1))
        #expect(database.records.count == 10)
        #expect(server.decide(server.pastVisit(client: 7).token, client: 7).mode == .fast)
    }

    @Test func areNotAskedTooMuchAtOnce() {
        let server = SimulatedServer(SimulatedDatabase(), seed: 1, delay: .seconds(1)) { $0.maximumLookups = 5 }
        var random = SeededGenerator(seed: 4)
        let answers = (0..<8).map { _ in server.store.find(SessionToken(using: &random), now: .at(0)) }
        let refused = answers.count { if case .unavailable = $0 { true } else { false } }
        #expect(refused == 3)
        for number in 0..<10 { server.sessions.prefetch(ClientID(UInt64(number))) }
        server.run(until: .at(5))
        if case .pending = server.store.find(SessionToken(using: &random), now: .at(5)) { return }
        Issue.record("still full")
    }

    /// A write whose answer was lost has been carried out all the same.
    @Test func writtenWithoutAnAnswerAreWrittenAgain() {
        let database = SimulatedDatabase()
        let server = SimulatedServer(database, seed: 1)
        server.isLosingAnswers = true
        let (token, _) = server.pastVisit()
        server.run(until: .at(0.5))
        server.isLosingAnswers = false
        server.run(until: .at(3))
        #expect(server.decide(token).mode == .fast)
        #expect(SimulatedServer(database, seed: 2, at: .at(3)).decide(token).mode == .fast)
        #expect((server.caching?.counters.failedSaves ?? 0) > 0)
    }

    @Test func withUnreadableRecordsMeanNormalMode() {
        let database = SimulatedDatabase()
        let server = SimulatedServer(database, seed: 1)
        let (token, id) = server.pastVisit()
        let digest = TokenDigest(token)
        for bytes in [[], [1], [2] + [UInt8](repeating: 0, count: 200), [UInt8](repeating: 255, count: 20_000)] {
            _ = database.carryOut(.remove(id), now: .at(0))
            _ = database.carryOut(
                .save(.init(client: id, record: bytes, keys: [digest.key], basedOn: 50, lifetime: .seconds(100))),
                now: .at(0))
            let other = SimulatedServer(database, seed: 2)
            #expect(other.decide(token).reason == .unknown)
            #expect(other.caching?.counters.unreadable == 1)
        }
    }
}

@Suite struct TwoServers {
    @Test func knowEachOthersClients() {
        let database = SimulatedDatabase()
        let one = SimulatedServer(database, seed: 1, delay: .milliseconds(2))
        let two = SimulatedServer(database, seed: 2, delay: .milliseconds(2))
        let first = one.decide(nil)
        let zombie = one.connect(first.grant)
        one.run(until: .at(10))
        two.run(until: .at(10))
        let decision = two.decide(first.grant.token)
        #expect(decision.mode == .fast)
        let visit = two.connect(decision.grant)
        guard case .returned(_, 2) = visit.arrival.kind else {
            Issue.record("\(visit.arrival.kind)")
            return
        }
        two.run(until: .at(20))
        // The first server notices late that its connection is dead. That undoes nothing.
        one.run(until: .at(40))
        one.end(zombie)
        one.run(until: .at(41))
        two.run(until: .at(41))
        #expect((one.caching?.counters.conflicts ?? 0) > 0)
        for server in [one, two] {
            #expect(server.decide(first.grant.token).reason == .unknown)
            #expect(server.decide(decision.grant.token).mode == .fast)
        }
        #expect(one.sessions.session(visit.arrival.clientID)?.connectionCount == 2)
    }

    /// A server that has not heard of it must not bring a dead token back.
    @Test func agreeThatATokenIsDead() {
        let database = SimulatedDatabase()
        let one = SimulatedServer(database, seed: 1)
        let two = SimulatedServer(database, seed: 2)
        let first = one.decide(nil)
        one.connect(first.grant)
        let decision = two.decide(first.grant.token)
        two.connect(decision.grant)
        #expect(one.decide(first.grant.token).reason == .unknown)
        // Nor by writing the old session again.
        one.run(until: .at(80))
        #expect(one.decide(first.grant.token).reason == .unknown)
        #expect(two.decide(first.grant.token).reason == .unknown)
        #expect(one.decide(decision.grant.token).mode == .fast)
    }

    /// One server has not heard of a client for longer than the lifetime; the other has it connected.
    @Test func doNotForgetEachOthersClients() {
        let database = SimulatedDatabase()
        let one = SimulatedServer(database, seed: 1)
        let two = SimulatedServer(database, seed: 2)
        let (token, id) = one.pastVisit()
        let decision = two.decide(token)
        two.connect(decision.grant)
        two.run(until: .at(310))
        one.run(until: .at(299))
        one.run(until: .at(301))
        one.sessions.forget(id)
        one.run(until: .at(310))
        #expect(one.decide(decision.grant.token).mode == .fast)
        // Told to forget a session that has not expired, it does.
        one.sessions.forget(id)
        one.run(until: .at(311))
        #expect(one.decide(decision.grant.token).reason == .unknown)
    }

    /// A ticket makes a grant before anything is known of its session; what is known comes sooner or later, or when the
    /// new one is written.
    @Test(arguments: [0, 5, 50, nil] as [Int64?])
    func continueTheSessionOfATicket(delay: Int64?) {
        let database = SimulatedDatabase()
        let one = SimulatedServer(database, seed: 1)
        var (token, id) = one.pastVisit()
        for _ in 0..<5 {
            let decision = one.decide(token)
            one.end(one.connect(decision.grant))
            token = decision.grant.token
        }
        #expect((one.sessions.session(id)?.deadThrough ?? 0) > 1)
        one.run(until: .at(1))

        let two = SimulatedServer(database, seed: 2, delay: .milliseconds(delay ?? 1), at: .at(1))
        var random = SeededGenerator(seed: 3)
        let grant = Grant(
            clientID: id, token: SessionToken(using: &random), continuesSession: false, generation: 1,
            presentedGeneration: 0, issued: .at(1))
        if delay != nil { two.sessions.prefetch(id) }
        two.run(until: .at(1.02))
        let visit = two.connect(grant, type: .relay)
        #expect(visit.arrival.clientID == id)
        two.run(until: .at(3))
        one.run(until: .at(3))
        #expect(two.sessions.session(id)?.connectionCount == 7)
        #expect(two.sessions.session(id)?.isNewest(grant.token) == true)
        for server in [one, two] {
            let back = server.decide(grant.token)
            #expect(back.mode == .fast)
            #expect(back.session?.preferredCandidateType == .relay)
            // What was given out before stays good until a newer one is used.
            #expect(server.decide(token).mode == .fast)
        }
        let next = two.decide(grant.token)
        #expect(two.connect(next.grant).arrival.replaced == [visit.peer])
        two.run(until: .at(4))
        for server in [one, two] {
            #expect(server.decide(grant.token).mode == .normal)
            #expect(server.decide(token).mode == .normal)
            #expect(server.decide(next.grant.token).mode == .fast)
        }
    }

    @Test func thatAnswerOneClientAtOnceLoseNeitherToken() {
        let database = SimulatedDatabase()
        let one = SimulatedServer(database, seed: 1, delay: .milliseconds(10))
        let two = SimulatedServer(database, seed: 2, delay: .milliseconds(10))
        let (token, _) = one.pastVisit()
        one.run(until: .at(1))
        two.run(until: .at(1))
        // Both look it up before either has written.
        let answers = [one.decide(token), two.decide(token)]
        one.run(until: .at(2))
        two.run(until: .at(2))
        one.run(until: .at(3))
        #expect(one.decide(answers[1].grant.token).mode == .fast)
        #expect(two.decide(answers[0].grant.token).mode == .fast)
    }

    /// Clients that move between servers at random, over databases that are slow, away and losing answers.
    @Test(arguments: 1...100)
    func agreeInTheEnd(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let database = SimulatedDatabase()
        let servers = (0..<3).map {
            SimulatedServer(database, seed: seed * 10 + UInt64($0), delay: .milliseconds(Int64($0) * 7))
        }
        struct Client {
            var token: SessionToken?
            var dead: [SessionToken] = []
            var visit: (server: Int, arrival: Arrival, peer: UInt64)?
        }
        var clients = [Client](repeating: Client(), count: 4)
        var now = Instant.at(0)
        for _ in 0..<150 {
            now = now + .milliseconds(Int64.random(in: 0...400, using: &random))
            for server in servers { server.run(until: now) }
            let number = Int.random(in: 0..<servers.count, using: &random)
            let server = servers[number]
            let who = Int.random(in: 0..<clients.count, using: &random)
            switch Int.random(in: 0..<12, using: &random) {
            case 0:
                if seed % 2 == 1 { server.run(until: server.now + .milliseconds(50)) }
                server.disconnect()
            case 1...2: server.reconnect()
            case 3: if seed % 2 == 0 { server.isLosingAnswers.toggle() }
            case 4:
                guard let visit = clients[who].visit else { continue }
                servers[visit.server].end((visit.arrival, visit.peer))
                clients[who].visit = nil
            case 5:
                // With a ticket: no token is shown, and none dies.
                guard let id = clients[who].visit?.arrival.clientID else { continue }
                let known = server.sessions.session(id)
                let grant = Grant(
                    clientID: id, token: SessionToken(using: &random), continuesSession: known != nil,
                    generation: known?.nextGeneration ?? 1, presentedGeneration: 0, issued: server.now)
                server.sessions.prefetch(id)
                server.run(until: now + .milliseconds(Int64.random(in: 0...40, using: &random)))
                let visit = server.connect(grant, client: who)
                clients[who].token = grant.token
                clients[who].visit = (number, visit.arrival, visit.peer)
            default:
                let decision = server.decide(clients[who].token, client: who)
                // Some answers and some connections are lost.
                guard Int.random(in: 0..<4, using: &random) != 0 else { continue }
                let visit = server.connect(decision.grant, client: who)
                if decision.mode == .fast, let old = clients[who].token { clients[who].dead.append(old) }
                if decision.mode == .normal { clients[who].dead = [] }
                clients[who].token = decision.grant.token
                clients[who].visit = (number, visit.arrival, visit.peer)
            }
        }
        // Everything works again, and some time passes.
        for _ in 0..<8 {
            now = now + .seconds(2)
            for server in servers {
                server.isLosingAnswers = false
                server.reconnect()
                server.run(until: now)
            }
        }
        for (who, client) in clients.enumerated() {
            guard let token = client.token else { continue }
            for server in servers {
                // Where it is not known what was written, a token may be lost. None comes back.
                let back = server.decide(token, client: who)
                #expect(back.mode == .fast || seed % 2 == 0, "seed \(seed), client \(who)")
                for old in client.dead {
                    #expect(server.decide(old, client: who).mode == .normal, "seed \(seed), client \(who)")
                }
            }
        }
    }
}

@Suite struct Records {
    private func session(_ random: inout SeededGenerator) -> Session {
        var session = Session(
            clientID: ClientID(random.next()), created: .at(10),
            clientFingerprint: ClientFingerprint(
                digest: (0..<[32, 48, 64].randomElement(using: &random)!).map { UInt8($0) })!,
            lastConnected: .at(20), lastSeen: .at(30),
            lastAddress: SocketAddress(
                ip: IPAddress(high: random.next(), low: random.next()), port: 4000, scope: 3),
            preferredCandidateType: [.host, .serverReflexive, .peerReflexive, .relay].randomElement(using: &random)!,
            lastCandidates: (0..<Int.random(in: 0...16, using: &random)).map { "candidate:\($0) ünï" },
            connectionCount: Int.random(in: 0...100_000, using: &random), live: [], expires: .at(99), tokens: [],
            nextGeneration: random.next(), deadThrough: random.next())
        for _ in 0..<Int.random(in: 0...5, using: &random) {
            session.tokens.append(IssuedToken(SessionToken(using: &random), generation: random.next()))
        }
        return session
    }

    @Test func comeBackAsTheyWere() throws {
        var random = SeededGenerator(seed: 3)
        for _ in 0..<200 {
            let session = session(&random)
            let bytes = SessionRecord.encode(session, unixOffset: .seconds(1000))
            // Another process: its clock began 500 s later.
            let back = try #require(
                SessionRecord.decode(bytes, unixOffset: .seconds(1500), now: .at(50), expires: .at(60)))
            #expect(back.clientID == session.clientID)
            #expect(back.created == .at(-490) && back.lastConnected == .at(-480) && back.lastSeen == .at(-470))
            #expect(back.clientFingerprint == session.clientFingerprint)
            #expect(back.lastAddress == session.lastAddress)
            #expect(back.preferredCandidateType == session.preferredCandidateType)
            #expect(back.lastCandidates == session.lastCandidates)
            #expect(back.connectionCount == session.connectionCount)
            #expect(back.tokens == session.tokens)
            #expect(back.nextGeneration == session.nextGeneration && back.deadThrough == session.deadThrough)
            #expect(back.expires == .at(60))
        }
    }

    @Test func ofAnyOtherKindAreRefusedOrReadWithoutHarm() {
        var random = SeededGenerator(seed: 4)
        for _ in 0..<50 {
            let bytes = SessionRecord.encode(session(&random), unixOffset: .zero)
            for length in bytes.indices {
                let part = Array(bytes.prefix(length))
                #expect(SessionRecord.decode(part, unixOffset: .zero, now: .at(50), expires: .at(60)) == nil)
            }
            #expect(SessionRecord.decode(bytes + [0], unixOffset: .zero, now: .at(50), expires: .at(60)) == nil)
            for _ in 0..<200 {
                var changed = bytes
                changed[Int.random(in: 0..<bytes.count, using: &random)] = UInt8(truncatingIfNeeded: random.next())
                let read = SessionRecord.decode(changed, unixOffset: .forever, now: .at(50), expires: .at(60))
                #expect((read?.lastSeen).map { $0 <= .at(50) } ?? true)
            }
        }
    }

    @Test func theLargestFits() {
        var random = SeededGenerator(seed: 5)
        var session = session(&random)
        session.lastCandidates = Array(repeating: String(repeating: "x", count: 512), count: 16)
        let bytes = SessionRecord.encode(session, unixOffset: .zero)
        #expect(bytes.count <= SessionRecord.maximumSize)
        #expect(SessionRecord.decode(bytes, unixOffset: .zero, now: .at(50), expires: .at(60)) != nil)
    }

    @Test(arguments: 1...20)
    func mergeAlikeInAnyOrder(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let base = session(&random)
        func other(_ random: inout SeededGenerator) -> Session {
            var other = base
            other.deadThrough = UInt64.random(in: 0...3, using: &random)
            other.nextGeneration = UInt64.random(in: 4...9, using: &random)
            other.lastConnected = .at(Double(Int.random(in: 0...1000, using: &random)))
            other.connectionCount = Int.random(in: 1...9, using: &random)
            other.tokens = (0..<2).map { _ in
                IssuedToken(SessionToken(using: &random), generation: UInt64.random(in: 1...9, using: &random))
            }
            return other
        }
        let (one, two) = (other(&random), other(&random))
        let merged = [
            one.merged(with: two, privateFrom: 50), two.merged(with: one, privateFrom: 50),
            one.merged(with: two, privateFrom: 50).merged(with: two, privateFrom: 50),
        ]
        for session in merged {
            #expect(session.deadThrough == max(one.deadThrough, two.deadThrough))
            #expect(session.tokens.allSatisfy { $0.generation > session.deadThrough })
            #expect(
                Set(session.tokens.map(\.digest.key)) == Set(merged[0].tokens.map(\.digest.key)), "seed \(seed)")
            #expect(session.nextGeneration == max(one.nextGeneration, two.nextGeneration))
            #expect(session.connectionCount == max(one.connectionCount, two.connectionCount))
        }
    }
}
