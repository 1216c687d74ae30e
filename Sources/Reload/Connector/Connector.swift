public import Signaling
public import Wire

/// Makes and remakes one connection by the fastest way that works: what is tried, in which order, for how long, and what is
/// kept of it. It touches no network: its caller makes the peers, carries the messages and says what became of them.
///
/// A connect tries each mode at most once, so it ends. Only what won is kept; what failed is dropped.
public struct Connector: Sendable {
    public let configuration: Configuration
    private var connect: Connect?
    private var winner: Winner?
    private var isClosed = false
    private var lastAttempt = 0
    private var lastExchange: Int64 = 0
    /// Where the machine was when something was kept last; nil if that was before this connector.
    private var keptNetwork: UInt64?
    private var actions: [Action] = []
    private var nextAction = 0

    private struct Attempt {
        let id: Int
        var mode: Mode
        let exchange: Int64?
        let ticket: Ticket?
        let began: Instant
        var deadline: Instant
        var answer: Answer?
    }

    /// One connect under way.
    private struct Connect {
        let began: Instant
        let conditions: Conditions
        var attempts: [Attempt] = []
        /// Modes not tried yet, the next one first.
        var remaining: [Mode]
        /// Of the last resort: every connect that fails comes to it.
        var failure = Reason.timedOut
        var isForgotten = false
    }

    private struct Winner {
        let id: Int
        let mode: Mode
        var token: String?
        /// With the candidates; its token and time are filled in when it is kept.
        var entry: CacheEntry
        var isForgotten = false
    }

    public init(_ configuration: Configuration = Configuration()) { self.configuration = configuration }

    public var isConnecting: Bool { connect != nil }
    /// The attempt whose peer is the connection.
    public var connected: Int? { winner?.id }
    /// The token to come back with to the connection that is up.
    public var connectedToken: String? { winner?.token }

    // MARK: Connecting

    /// False while a connect is under way, or after the end.
    public mutating func connect(_ conditions: Conditions, now: Instant) -> Bool {
        guard connect == nil, !isClosed else { return false }
        var connect = Connect(began: now, conditions: conditions, remaining: [])
        if configuration.usesTickets { consider(.zeroSignaling, &connect) }
        consider(.fast, &connect)
        connect.remaining.append(.normal)
        self.connect = connect
        proceed(now: now)
        return true
    }

    /// Plans a mode, or says why it is not tried.
    private mutating func consider(_ mode: Mode, _ connect: inout Connect) {
        guard let obstacle = obstacle(to: mode, connect.conditions) else { return connect.remaining.append(mode) }
        report(0, mode, .skipped, obstacle, after: .zero)
        guard obstacle == .cacheStale || obstacle == .networkChanged else { return }
        if mode == .zeroSignaling {
            if let ticket = connect.conditions.ticket { actions.append(.dropTicket(ticket)) }
        } else if let entry = connect.conditions.entry {
            actions.append(.drop(token: entry.sessionID))
        }
    }

    private func obstacle(to mode: Mode, _ conditions: Conditions) -> Reason? {
        // What is kept stays while the switch is off, unused.
        guard conditions.isFastReloadOn else { return .fastDisabled }
        guard mode == .zeroSignaling ? conditions.ticket != nil : conditions.entry != nil else { return .notCached }
        if let keptNetwork, keptNetwork != conditions.network { return .networkChanged }
        if let entry = conditions.entry,
            !entry.validity(wallClock: conditions.wallClock, maximumAge: configuration.maximumCacheAge).isFresh
        {
            return .cacheStale
        }
        if mode == .zeroSignaling, let ticket = conditions.ticket, ticket.expires <= conditions.wallClock {
            return .cacheStale
        }
        return nil
    }

    /// Starts what may start now; ends the connect if nothing is left.
    private mutating func proceed(now: Instant) {
        while let connect, let mode = connect.remaining.first {
            let isBusy: Bool =
                switch configuration.policy {
                // Signaling does not wait for the ticket, but there is one exchange at a time.
                case .race: connect.attempts.contains { $0.exchange != nil }
                case .fallback: !connect.attempts.isEmpty
                }
            guard !isBusy else { return }
            self.connect?.remaining.removeFirst()
            start(mode, connect.conditions, now: now)
        }
        guard let connect, connect.attempts.isEmpty else { return }
        self.connect = nil
        actions.append(.failed(connect.failure, after: now - connect.began))
    }

    private mutating func start(_ mode: Mode, _ conditions: Conditions, now: Instant) {
        lastAttempt += 1
        let ticket = mode == .zeroSignaling ? conditions.ticket : nil
        if mode != .zeroSignaling { lastExchange += 1 }
        let attempt = Attempt(
            id: lastAttempt, mode: mode, exchange: mode == .zeroSignaling ? nil : lastExchange, ticket: ticket,
            began: now,
            // Fast begins with its answer; until then it has as long as any exchange.
            deadline: now + (mode == .zeroSignaling ? configuration.fastTimeout : configuration.normalTimeout))
        connect?.attempts.append(attempt)
        report(attempt.id, mode, .started, nil, after: since(now))
        if let ticket {
            actions.append(.startWithTicket(attempt: attempt.id, ticket))
        } else {
            let token = mode == .fast ? conditions.entry?.sessionID : nil
            actions.append(.startSignaling(attempt: attempt.id, exchange: lastExchange, token: token))
        }
    }

    // MARK: What becomes of the attempts

    /// The attempt that waits for messages of this exchange, or is connecting by it.
    public func attempt(ofExchange exchange: Int64) -> Int? {
        connect?.attempts.first { $0.exchange == exchange }?.id
    }

    /// True if an answer to this exchange is still waited for.
    public func awaitsAnswer(_ exchange: Int64) -> Bool {
        connect?.attempts.contains { $0.exchange == exchange && $0.answer == nil } ?? false
    }

    public mutating func answered(_ exchange: Int64, _ answer: Answer, now: Instant) {
        guard let index = connect?.attempts.firstIndex(where: { $0.exchange == exchange && $0.answer == nil }) else {
            return
        }
        connect?.attempts[index].answer = answer
        guard let attempt = connect?.attempts[index], attempt.mode == .fast else { return }
        if answer.mode == .fast {
            connect?.attempts[index].deadline = now + configuration.fastTimeout
        } else {
            // The exchange is made: it goes on in the mode of its answer, and that was the one normal attempt.
            report(attempt.id, .fast, .failed, .sessionUnknown, after: since(now))
            spoil(attempt, .sessionUnknown)
            connect?.attempts[index].mode = .normal
            connect?.remaining.removeAll { $0 == .normal }
            report(attempt.id, .normal, .started, nil, after: since(now))
        }
    }

    /// A candidate that came after its answer, to be kept if the attempt wins.
    public mutating func learned(_ exchange: Int64, _ candidate: CandidateInit) {
        guard let index = connect?.attempts.firstIndex(where: { $0.exchange == exchange && $0.answer != nil }),
            connect?.attempts[index].answer?.candidates.count ?? .max < 128
        else { return }
        connect?.attempts[index].answer?.candidates.append(candidate)
    }

    /// The host could not carry the exchange's messages.
    public mutating func signalingFailed(_ exchange: Int64, now: Instant) {
        guard let attempt = connect?.attempts.first(where: { $0.exchange == exchange && $0.answer == nil }) else {
            return
        }
        fail(attempt.id, .signalingFailed, now: now)
    }

    /// The attempt's peer has its channels open. False if it does not count any more.
    @discardableResult
    public mutating func opened(_ id: Int, isIPv6: Bool, wallClock: Int64, now: Instant) -> Bool {
        guard let connect, let attempt = connect.attempts.first(where: { $0.id == id }) else { return false }
        self.connect = nil
        let after = now - connect.began
        report(id, attempt.mode, .won, nil, after: after)
        for other in connect.attempts where other.id != id {
            report(other.id, other.mode, .stopped, .overtaken, after: after)
            actions.append(.stop(attempt: other.id))
        }
        actions.append(.connected(attempt: id, mode: attempt.mode, replacing: winner?.id, after: after))
        keep(attempt, connect, isIPv6: isIPv6, wallClock: wallClock)
        return true
    }

    /// The peer of an attempt, or of the connection, has ended.
    public mutating func ended(_ id: Int, _ reason: Reason, wallClock: Int64, now: Instant) {
        if let winner, winner.id == id {
            refresh(wallClock: wallClock)
            self.winner = nil
            // While its successor is being made, that one's end is told instead.
            if connect == nil { actions.append(.lost(attempt: id, mode: winner.mode, reason)) }
        } else {
            fail(id, reason, now: now)
        }
    }

    private mutating func fail(_ id: Int, _ reason: Reason, now: Instant) {
        guard let index = connect?.attempts.firstIndex(where: { $0.id == id }),
            let attempt = connect?.attempts.remove(at: index)
        else { return }
        if attempt.mode == .normal { connect?.failure = reason }
        report(id, attempt.mode, .failed, reason, after: since(now))
        actions.append(.stop(attempt: id))
        spoil(attempt, reason)
        proceed(now: now)
    }

    // MARK: Time

    public var nextTimeout: Instant? { connect?.attempts.map(\.deadline).min() }

    public mutating func handleTimeout(now: Instant) {
        while let due = connect?.attempts.first(where: { $0.deadline <= now }) {
            let isAnswered = due.exchange == nil || due.answer != nil
            fail(due.id, isAnswered ? .timedOut : .noAnswer, now: now)
        }
    }

    // MARK: What is kept

    /// The server gave out a new ticket, and perhaps a new token, on the connection itself.
    public mutating func received(_ id: Int, ticket: Ticket, token: String?, wallClock: Int64) {
        if winner?.id == id {
            if let token { winner?.token = token }
            for line in ticket.candidates { winner?.entry.add(CandidateInit(candidate: line, sdpMid: "0")) }
            if winner?.isForgotten == false { actions.append(.storeTicket(ticket)) }
            refresh(wallClock: wallClock)
        } else if let index = connect?.attempts.firstIndex(where: { $0.id == id }) {
            // Not before it has won.
            let candidates = ticket.candidates.map { CandidateInit(candidate: $0, sdpMid: "0") }
            var answer =
                connect?.attempts[index].answer ?? Answer(mode: .fast, token: nil, ticket: nil, candidates: candidates)
            answer.ticket = ticket
            answer.token = token ?? answer.token
            connect?.attempts[index].answer = answer
        }
    }

    private mutating func keep(_ attempt: Attempt, _ connect: Connect, isIPv6: Bool, wallClock: Int64) {
        let conditions = connect.conditions
        let used = attempt.mode == .normal ? nil : conditions.entry
        var entry = CacheEntry(
            lastSuccessfulProtocol: isIPv6 ? .ipv6 : .ipv4, timestamp: wallClock, sessionID: "",
            lastConnectedIPv6: isIPv6)
        for line in attempt.ticket?.candidates ?? [] { entry.add(CandidateInit(candidate: line, sdpMid: "0")) }
        for candidate in attempt.answer?.candidates ?? [] { entry.add(candidate) }
        winner = Winner(
            id: attempt.id, mode: attempt.mode, token: attempt.answer?.token ?? used?.sessionID, entry: entry,
            isForgotten: connect.isForgotten)
        guard !connect.isForgotten else { return }
        keptNetwork = conditions.network
        if let ticket = attempt.answer?.ticket {
            actions.append(.storeTicket(ticket))
        } else if attempt.ticket == nil, let ticket = conditions.ticket {
            // A server that gave none this time takes none.
            actions.append(.dropTicket(ticket))
        }
        if winner?.token == nil, let old = conditions.entry { actions.append(.drop(token: old.sessionID)) }
        refresh(wallClock: wallClock)
    }

    /// Keeps what is known of the connection as of now: it can be come back to from its end on, not from its beginning.
    private mutating func refresh(wallClock: Int64) {
        guard let winner, !winner.isForgotten, let token = winner.token, CacheEntry.isSessionID(token) else { return }
        var entry = winner.entry
        entry.sessionID = token
        entry.timestamp = wallClock
        actions.append(.store(entry))
    }

    /// Drops what a failed attempt has used.
    private mutating func spoil(_ attempt: Attempt, _ reason: Reason) {
        guard reason.spoilsCache else { return }
        switch attempt.mode {
        case .zeroSignaling: if let ticket = attempt.ticket { actions.append(.dropTicket(ticket)) }
        case .fast: if let entry = connect?.conditions.entry { actions.append(.drop(token: entry.sessionID)) }
        case .normal: break
        }
    }

    /// The host dropped what was kept. A connection that is up, or being made, goes on, but nothing of it is kept.
    public mutating func forget() {
        winner?.isForgotten = true
        connect?.isForgotten = true
    }

    // MARK: The end

    /// Stops attempts under way. The connected peer is the caller's to close.
    public mutating func close(wallClock: Int64, now: Instant) {
        guard !isClosed else { return }
        isClosed = true
        for attempt in connect?.attempts ?? [] {
            report(attempt.id, attempt.mode, .stopped, .closed, after: since(now))
            actions.append(.stop(attempt: attempt.id))
        }
        connect = nil
        refresh(wallClock: wallClock)
        if let winner { actions.append(.stop(attempt: winner.id)) }
        winner = nil
    }

    // MARK: Draining

    public mutating func pollAction() -> Action? {
        guard nextAction < actions.count else { return nil }
        defer {
            nextAction += 1
            if nextAction == actions.count {
                actions.removeAll(keepingCapacity: true)
                nextAction = 0
            }
        }
        return actions[nextAction]
    }

    private func since(_ now: Instant) -> Duration { connect.map { now - $0.began } ?? .zero }

    private mutating func report(
        _ id: Int, _ mode: Mode, _ outcome: Report.Outcome, _ reason: Reason?, after: Duration
    ) {
        actions.append(.report(Report(attempt: id, mode: mode, outcome: outcome, reason: reason, after: after)))
    }
}
