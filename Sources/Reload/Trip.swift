public import Wire

/// Switches fast reload off when it does more harm than good, and on again.
///
/// Counted are outcomes within a sliding window, in twelve parts: fast connects that succeeded, that failed, and
/// connections that soon ended by an error (unstable). An attempt without an outcome counts nowhere.
///
/// - **armed**: fast reload is on. With at least `minimumAttempts` outcomes in the window it trips as soon as more than
///   `failurePercent` of them are failures, or more than `unstablePercent` of the successes were unstable.
/// - **tripped**: it is off for `rearmAfter`, doubled at each further trip up to sixteenfold. Outcomes of what was under
///   way are not counted.
/// - **probing**: it is on again, and distrusted. It trips at once, that is, as soon as the shares are exceeded even
///   if all outcomes still missing to `minimumAttempts` were good. It counts as armed again only when both shares are
///   below half of the limits, over at least `minimumAttempts` outcomes or a whole window since probing began. In
///   between it goes on probing: a rate at the limit makes it flap at most as often as the doubled pauses allow.
///
/// Pauses begin from `rearmAfter` again after a calm window: a whole one in the armed state.
public struct Trip: Sendable {
    public struct Configuration: Sendable {
        public var isEnabled = true
        public var window = Duration.seconds(60)
        /// Above these shares of fast connects that fail, or of fast connections that soon end by an error, it trips.
        public var failurePercent = 30
        public var unstablePercent = 20
        public var minimumAttempts = 20
        public var rearmAfter = Duration.seconds(60)

        public init() {}
    }

    public enum State: Hashable, Sendable {
        case armed
        /// Fast reload is off.
        case tripped(until: Instant)
        case probing
    }

    public enum Change: Hashable, Sendable {
        /// Off; the sentence says why, for logs and events.
        case tripped(String)
        /// On again, for now probing.
        case rearmed
    }

    public private(set) var state = State.armed
    /// How often it tripped, ever.
    public private(set) var trips = 0

    private let configuration: Configuration
    private var outcomes: OutcomeWindow
    /// Since when the state is what it is.
    private var since: Instant?
    /// Trips since the last calm window.
    private var series = 0
    private var change: Change?

    public init(configuration: Configuration = Configuration()) {
        self.configuration = configuration
        outcomes = OutcomeWindow(length: configuration.window)
    }

    /// False while fast reload is off.
    public var isOn: Bool {
        if case .tripped = state { false } else { true }
    }

    /// A fast connect began. Counted only when it ends; moves the state on if it is time to.
    public mutating func attempt(_ now: Instant) { handleTimeout(now) }

    /// A fast connect did not come to a connection: refused, or not in time.
    public mutating func failed(_ now: Instant) { count(\.failed, now) }

    /// A fast connect came to a connection.
    public mutating func succeeded(_ now: Instant) { count(\.succeeded, now) }

    /// A connection that ``succeeded(_:)`` was told of ended soon and by an error.
    public mutating func unstable(_ now: Instant) { count(\.unstable, now) }

    /// When the state may change by itself.
    public var nextTimeout: Instant? {
        switch state {
        case .armed: series > 0 ? since.map { $0 + configuration.window } : nil
        case .tripped(let until): until
        case .probing: since.map { max($0 + configuration.window, outcomes.nextSlide) }
        }
    }

    public mutating func handleTimeout(_ now: Instant) {
        outcomes.slide(now)
        switch state {
        case .armed:
            if series > 0, let since, now - since >= configuration.window { series = 0 }
        case .tripped(let until):
            guard now >= until else { return }
            outcomes.clear()
            enter(.probing, now)
            change = .rearmed
        case .probing:
            settle(now)
        }
    }

    /// The newest change that was not fetched yet.
    public mutating func pollChange() -> Change? {
        defer { change = nil }
        return change
    }

    /// The host switched fast reload on: as at the beginning. The host knows; it is no change.
    public mutating func reset(_ now: Instant) {
        outcomes.clear()
        series = 0
        change = nil
        enter(.armed, now)
    }
}

extension Trip {
    private mutating func count(_ outcome: WritableKeyPath<Outcomes, Int>, _ now: Instant) {
        guard configuration.isEnabled else { return }
        handleTimeout(now)
        guard isOn else { return }
        outcomes.count(outcome, now)
        judge(now)
        if case .probing = state { settle(now) }
    }

    private mutating func enter(_ state: State, _ now: Instant) {
        self.state = state
        since = now
    }

    /// Trips if there is reason to.
    private mutating func judge(_ now: Instant) {
        let sum = outcomes.sum
        let minimum = max(configuration.minimumAttempts, 1)
        // While probing, outcomes that are still missing count as good.
        let isProbing = state == .probing
        guard isProbing || sum.finished >= minimum else { return }
        let finished = isProbing ? max(sum.finished, minimum) : sum.finished
        let connected = isProbing ? max(sum.succeeded, minimum) : sum.succeeded
        if Self.exceeds(sum.failed, of: finished, configuration.failurePercent) {
            trip(now, Self.sentence(sum.failed, sum.finished, "fast connects failed", configuration.window))
        } else if Self.exceeds(sum.shaken, of: connected, configuration.unstablePercent) {
            trip(now, Self.sentence(sum.shaken, sum.succeeded, "fast connections were unstable", configuration.window))
        }
    }

    private mutating func trip(_ now: Instant, _ sentence: String) {
        let pause = configuration.rearmAfter * (1 << Int64(min(series, 4)))
        series = min(series + 1, 5)
        trips &+= 1
        outcomes.clear()
        enter(.tripped(until: now + pause), now)
        change = .tripped(sentence)
    }

    /// Ends probing if all is well.
    private mutating func settle(_ now: Instant) {
        let sum = outcomes.sum
        guard let since, sum.finished >= max(configuration.minimumAttempts, 1) || now - since >= configuration.window,
            Self.isBelowHalf(sum.failed, of: sum.finished, configuration.failurePercent),
            Self.isBelowHalf(sum.shaken, of: sum.succeeded, configuration.unstablePercent)
        else { return }
        enter(.armed, now)
    }

    private static func exceeds(_ part: Int, of whole: Int, _ percent: Int) -> Bool {
        part > 0 && part &* 100 > percent &* whole
    }

    private static func isBelowHalf(_ part: Int, of whole: Int, _ percent: Int) -> Bool {
        part == 0 || part &* 200 < percent &* whole
    }

    private static func sentence(_ part: Int, _ whole: Int, _ what: String, _ window: Duration) -> String {
        let seconds = window.milliseconds % 1000 == 0 ? "\(window.milliseconds / 1000) s" : "\(window.milliseconds) ms"
        return "\(part) of \(whole) \(what) within \(seconds)"
    }
}

struct Outcomes: Hashable, Sendable {
    var succeeded = 0
    var failed = 0
    var unstable = 0

    var finished: Int { succeeded + failed }
    /// A connection is unstable after it succeeded, perhaps when that is out of the window already.
    var shaken: Int { min(unstable, succeeded) }
}

/// Counts of the last `length`, give or take a twelfth.
struct OutcomeWindow: Sendable {
    private static let parts = 12

    private let width: Duration
    private var ring = [Outcomes](repeating: Outcomes(), count: OutcomeWindow.parts)
    /// Which part of all time is the newest in the ring.
    private var newest = Int64.min
    private(set) var sum = Outcomes()

    init(length: Duration) { width = max(length / Int64(Self.parts), .nanoseconds(1)) }

    /// When the next part goes out.
    var nextSlide: Instant { Instant(nanoseconds: (width * (newest &+ 1)).nanoseconds) }

    mutating func count(_ outcome: WritableKeyPath<Outcomes, Int>, _ now: Instant) {
        slide(now)
        ring[place(newest)][keyPath: outcome] += 1
        sum[keyPath: outcome] += 1
    }

    /// Forgets what is too old. A clock that went back counts in the newest part.
    mutating func slide(_ now: Instant) {
        let part = now.nanoseconds / width.nanoseconds - (now.nanoseconds % width.nanoseconds < 0 ? 1 : 0)
        guard part > newest else { return }
        let (passed, overflow) = part.subtractingReportingOverflow(newest)
        if overflow || passed >= Int64(Self.parts) {
            clear()
        } else {
            for gone in newest + 1...part {
                let old = ring[place(gone)]
                sum.succeeded -= old.succeeded
                sum.failed -= old.failed
                sum.unstable -= old.unstable
                ring[place(gone)] = Outcomes()
            }
        }
        newest = part
    }

    mutating func clear() {
        for index in ring.indices { ring[index] = Outcomes() }
        sum = Outcomes()
    }

    private func place(_ part: Int64) -> Int {
        let rest = Int(part % Int64(Self.parts))
        return rest < 0 ? rest + Self.parts : rest
    }
}
