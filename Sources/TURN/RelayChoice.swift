public import Wire

/// Which of several servers to try, and in which order: by measured round trip, with those that failed behind until
/// their time has come. Pure: it asks nobody, and is told what came of it.
public struct RelayChoice<Server: Hashable & Sendable>: Sendable {
    public struct Configuration: Sendable {
        /// What counts for a server that was never measured: they are tried before slow ones.
        public var unknownRoundTrip = Duration.milliseconds(100)
        /// What each failure in a row adds to a server's score.
        public var failurePenalty = Duration.milliseconds(500)
        /// How long after the one before the next server of a race begins.
        public var stagger = Duration.milliseconds(50)
        /// Pauses after failures double up to this.
        public var maximumPause = Duration.seconds(600)
        public var maximumServers = 32

        public init() {}
    }

    /// One start in a race.
    public struct Start: Hashable, Sendable {
        public var server: Server
        /// After the race's beginning.
        public var after: Duration
    }

    private struct Record: Sendable {
        let server: Server
        /// What is added for its kind: UDP before TCP before TLS.
        let handicap: Duration
        var roundTrip: Duration?
        var failures: Int64 = 0
        var notBefore: Instant?
    }

    private let configuration: Configuration
    private var records: [Record] = []

    public init(_ configuration: Configuration = Configuration()) { self.configuration = configuration }

    public var servers: [Server] { records.map(\.server) }

    /// The servers there are, in the host's order, which decides between equals. What is known of those that were there
    /// before stays.
    public mutating func setServers(_ servers: [(server: Server, handicap: Duration)]) {
        var known: [Server: Record] = [:]
        for record in records { known[record.server] = record }
        var seen = Set<Server>()
        records = []
        for (server, handicap) in servers where records.count < configuration.maximumServers {
            guard seen.insert(server).inserted else { continue }
            let before = known[server]
            records.append(
                Record(
                    server: server, handicap: handicap, roundTrip: before?.roundTrip, failures: before?.failures ?? 0,
                    notBefore: before?.notBefore))
        }
    }

    /// It gave an allocation.
    public mutating func succeeded(_ server: Server, roundTrip: Duration?) {
        guard let index = records.firstIndex(where: { $0.server == server }) else { return }
        records[index].failures = 0
        records[index].notBefore = nil
        if let roundTrip { measured(server, roundTrip: roundTrip) }
    }

    /// A round trip seen while it was in use.
    public mutating func measured(_ server: Server, roundTrip: Duration) {
        guard roundTrip > .zero, let index = records.firstIndex(where: { $0.server == server }) else { return }
        // Half of each: servers are heard of rarely, and networks change between.
        records[index].roundTrip = records[index].roundTrip.map { $0 / 2 + roundTrip / 2 } ?? roundTrip
    }

    /// It gave none, or lost it. Not tried again before the failure's time has come, as long as there are others.
    public mutating func failed(_ server: Server, _ failure: RelayClient.Failure, now: Instant) {
        guard let index = records.firstIndex(where: { $0.server == server }) else { return }
        records[index].failures = min(records[index].failures + 1, 16)
        let pause = failure.advice.sameServerAfter ?? configuration.maximumPause
        let doubled = pause * (1 << min(records[index].failures - 1, 10))
        records[index].notBefore = now + min(doubled, max(configuration.maximumPause, pause))
    }

    /// The same, with a pause of the caller's choice: it doubles with each failure in a row, up to `limit`.
    public mutating func failed(_ server: Server, pause: Duration, limit: Duration, now: Instant) {
        guard let index = records.firstIndex(where: { $0.server == server }) else { return }
        records[index].failures = min(records[index].failures + 1, 16)
        records[index].notBefore = now + min(pause * (1 << min(records[index].failures - 1, 10)), limit)
    }

    /// Until when a server is paused; nil: it may be tried now.
    public func pausedUntil(_ server: Server, now: Instant) -> Instant? {
        guard let record = records.first(where: { $0.server == server }), let end = record.notBefore, end > now else {
            return nil
        }
        return end
    }

    /// Nil if it was never measured.
    public func roundTrip(_ server: Server) -> Duration? { records.first { $0.server == server }?.roundTrip }

    /// What kept it out is mended: other credentials, say. What was measured stays.
    public mutating func forgive(_ server: Server) {
        guard let index = records.firstIndex(where: { $0.server == server }) else { return }
        records[index].failures = 0
        records[index].notBefore = nil
    }

    /// Another network: what was measured does not hold there, and who was silent may answer.
    public mutating func networkChanged() {
        for index in records.indices {
            records[index].roundTrip = nil
            records[index].failures = 0
            records[index].notBefore = nil
        }
    }

    /// All servers, the best first. Those that are paused come last, the soonest of them first: better than none.
    public func order(now: Instant) -> [Server] {
        let ranked = records.indices.sorted { left, right in
            let (leftWait, rightWait) = (wait(left, now), wait(right, now))
            if leftWait != rightWait { return leftWait < rightWait }
            let (leftScore, rightScore) = (score(left), score(right))
            return leftScore == rightScore ? left < right : leftScore < rightScore
        }
        return ranked.map { records[$0].server }
    }

    /// The one to try after these.
    public func next(excluding tried: Set<Server>, now: Instant) -> Server? {
        order(now: now).first { !tried.contains($0) }
    }

    /// Up to `count` servers to ask at once, the best a little before the others; the first that gives an allocation
    /// wins, and the others are closed. Paused ones take part only if there is nobody else.
    public func race(_ count: Int, now: Instant) -> [Start] {
        let ready = records.indices.filter { wait($0, now) == .zero }.count
        let starters = order(now: now).prefix(max(0, min(count, max(1, ready))))
        return starters.enumerated().map { Start(server: $1, after: configuration.stagger * Int64($0)) }
    }

    /// What a server is ranked by; lower is better. Nil if it is none of these.
    public func score(_ server: Server) -> Duration? { records.firstIndex { $0.server == server }.map(score) }

    private func score(_ index: Int) -> Duration {
        let record = records[index]
        return (record.roundTrip ?? configuration.unknownRoundTrip) + record.handicap
            + configuration.failurePenalty * record.failures
    }

    private func wait(_ index: Int, _ now: Instant) -> Duration {
        guard let notBefore = records[index].notBefore, notBefore > now else { return .zero }
        return notBefore - now
    }
}
