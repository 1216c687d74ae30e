import Wire

@testable import Reload

/// A database that several servers may share, on virtual time.
final class SimulatedDatabase {
    struct Record {
        var version: UInt64
        var bytes: [UInt8]
        var keys: [String]
        var expires: Instant
    }

    private(set) var records: [ClientID: Record] = [:]
    private(set) var tokens: [String: ClientID] = [:]
    private(set) var saves = 0

    func flush() {
        records = [:]
        tokens = [:]
    }

    func carryOut(_ operation: BackendRequest.Operation, now: Instant) -> BackendAnswer {
        for (client, record) in records where record.expires <= now { remove(client) }
        switch operation {
        case .load(let key): return answer(tokens[key], now)
        case .loadClient(let client): return answer(client, now)
        case .remove(let client):
            remove(client)
            return .removed
        case .save(let save):
            if let known = records[save.client], known.version != save.basedOn, let record = record(save.client, now) {
                return .conflict(record)
            }
            remove(save.client)
            saves += 1
            records[save.client] = Record(
                version: save.basedOn + 1, bytes: save.record, keys: save.keys, expires: now + save.lifetime)
            for key in save.keys { tokens[key] = save.client }
            return .saved(version: save.basedOn + 1)
        }
    }

    private func remove(_ client: ClientID) {
        for key in records[client]?.keys ?? [] where tokens[key] == client { tokens[key] = nil }
        records[client] = nil
    }

    private func answer(_ client: ClientID?, _ now: Instant) -> BackendAnswer {
        client.flatMap { record($0, now) }.map { .record($0) } ?? .absent
    }

    private func record(_ client: ClientID, _ now: Instant) -> BackendRecord? {
        records[client].map {
            BackendRecord(client: client, version: $0.version, bytes: $0.bytes, remaining: $0.expires - now)
        }
    }
}

/// A server with its sessions, on the same virtual time as all others; its own clock may differ from theirs.
final class SimulatedServer {
    let sessions: Sessions
    let store: any SessionStore
    let caching: CachingStore?
    private let database: SimulatedDatabase?
    /// From here to the database and, again, back.
    var delay: Duration
    /// Requests that reach the database, of which the answers do not come back in time.
    var isLosingAnswers = false
    private var underWay: [(due: Instant, id: LookupID, operation: BackendRequest.Operation)] = []
    private var answers: [(due: Instant, id: LookupID, answer: BackendAnswer)] = []
    private(set) var now: Instant
    private var nextPeer: UInt64 = 1

    /// In memory only.
    init(seed: UInt64, configuration: Sessions.Configuration = .init()) {
        var random = SeededGenerator(seed: seed)
        let memory = MemoryStore(using: &random)
        store = memory
        caching = nil
        database = nil
        delay = .zero
        now = .at(0)
        sessions = Sessions(configuration: configuration, store: memory, random: random)
    }

    init(
        _ database: SimulatedDatabase, seed: UInt64, delay: Duration = .zero, at start: Instant = .at(0),
        unixOffset: Duration = .seconds(1_700_000_000), _ change: (inout CachingStore.Configuration) -> Void = { _ in }
    ) {
        var random = SeededGenerator(seed: seed)
        var configuration = CachingStore.Configuration()
        change(&configuration)
        let caching = CachingStore(configuration: configuration, unixOffset: unixOffset, using: &random)
        caching.isAvailable = true
        store = caching
        self.caching = caching
        self.database = database
        self.delay = delay
        now = start
        var settings = Sessions.Configuration()
        settings.lifetime = configuration.lifetime
        sessions = Sessions(configuration: settings, store: caching, random: random)
    }

    // MARK: Time

    /// Lets time pass, with everything that is due meanwhile.
    func run(until end: Instant) {
        settle()
        while let next = nextEvent, next <= end {
            now = max(now, next)
            sessions.handleTimeout(now: now)
            settle()
        }
        now = max(now, end)
        settle()
    }

    private var nextEvent: Instant? {
        [underWay.map(\.due).min(), answers.map(\.due).min(), sessions.nextTimeout.map { max($0, now) }]
            .compactMap { $0 }.min()
    }

    private func settle() {
        guard let caching, let database else { return }
        var isMoving = true
        while isMoving {
            isMoving = false
            while let request = caching.pollRequest(now: now) {
                underWay.append((now + delay, request.id, request.operation))
            }
            while let index = underWay.firstIndex(where: { $0.due <= now }) {
                let request = underWay.remove(at: index)
                let answer = database.carryOut(request.operation, now: now)
                answers.append((now + delay, request.id, isLosingAnswers ? .unavailable : answer))
                isMoving = true
            }
            while let index = answers.firstIndex(where: { $0.due <= now }) {
                let answer = answers.remove(at: index)
                caching.complete(answer.id, with: answer.answer, now: now)
                isMoving = true
            }
        }
    }

    /// The connection to the database breaks: what is under way may or may not have reached it.
    func disconnect() {
        let lost = underWay.map(\.id) + answers.map(\.id)
        underWay = []
        answers = []
        caching?.isAvailable = false
        for id in lost { caching?.complete(id, with: .unavailable, now: now) }
    }

    func reconnect() {
        caching?.isAvailable = true
        settle()
    }

    // MARK: Clients

    func decide(text: String?, client: Int = 1) -> Decision {
        var settled: Decision?
        switch sessions.decide(token: text, fingerprints: [.of(client)], now: now) {
        case .decided(let decision): settled = decision
        case .pending(let id):
            while settled == nil {
                settle()
                if let (decided, decision) = sessions.pollDecision(now: now) {
                    if decided == id { settled = decision }
                    continue
                }
                guard let next = nextEvent else { fatalError("nothing will decide") }
                now = max(now, next)
                sessions.handleTimeout(now: now)
            }
        }
        settle()
        return settled!
    }

    func decide(_ token: SessionToken?, client: Int = 1) -> Decision { decide(text: token?.text, client: client) }

    @discardableResult
    func connect(_ grant: Grant, client: Int = 1, type: CandidateType = .host) -> (arrival: Arrival, peer: UInt64) {
        let peer = nextPeer
        nextPeer += 1
        let arrival = sessions.connected(
            grant, peer: peer, fingerprint: .of(client),
            address: SocketAddress(ip: IPAddress(v4: 0xC000_0201), port: UInt16(truncatingIfNeeded: peer)),
            candidateType: type, candidates: ["candidate:1 1 udp 1 192.0.2.1 9 typ host"], now: now)
        settle()
        return (arrival, peer)
    }

    func end(_ visit: (arrival: Arrival, peer: UInt64)) {
        sessions.disconnected(visit.arrival.clientID, peer: visit.peer, now: now)
        settle()
    }

    /// A first visit that is over.
    func pastVisit(client: Int = 1) -> (token: SessionToken, id: ClientID) {
        let decision = decide(nil, client: client)
        let visit = connect(decision.grant, client: client)
        end(visit)
        return (decision.grant.token, visit.arrival.clientID)
    }
}
