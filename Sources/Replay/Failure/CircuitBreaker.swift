public import Wire

/// Keeps calls away from what does not answer, and finds out when it does again.
///
/// Closed: all calls pass, and their results are counted over a window. Enough of them, and too many failed: open, no
/// call passes. After a while half-open: one call passes as a probe, and its result closes or opens again.
public struct CircuitBreaker: Sendable {
    public struct Configuration: Sendable {
        public var window = Duration.seconds(10)
        public var minimumCalls = 20
        /// Of the calls in the window: at this share it opens.
        public var failurePercent = 50
        /// How long it stays open; doubled at each failed probe, up to the longest.
        public var openFor = Duration.seconds(1)
        public var longestOpen = Duration.seconds(30)

        public init() {}
    }

    public enum State: Hashable, Sendable {
        case closed
        case open
        case halfOpen
    }

    /// Belongs to one call that passed.
    public struct Ticket: Hashable, Sendable {
        /// Results of calls from before the last change say nothing about now.
        fileprivate let era: UInt64
    }

    private static let bucketCount = 10
    private struct Bucket {
        var index: Int64 = .min
        var calls = 0
        var failures = 0
    }

    private enum Phase {
        case closed([Bucket])
        case open(until: Instant)
        case halfOpen(isProbing: Bool)
    }

    private let configuration: Configuration
    private let bucketLength: Int64
    private var phase = Phase.closed([Bucket](repeating: Bucket(), count: bucketCount))
    private var era: UInt64 = 0
    private var failedProbes = 0
    private var changes: [State] = []

    public init(_ configuration: Configuration = Configuration()) {
        self.configuration = configuration
        bucketLength = max(configuration.window.nanoseconds / Int64(Self.bucketCount), 1)
    }

    public var state: State {
        switch phase {
        case .closed: .closed
        case .open: .open
        case .halfOpen: .halfOpen
        }
    }

    /// When a probe may pass.
    public var nextTimeout: Instant? { if case .open(let until) = phase { until } else { nil } }

    /// nil: the call must not be made.
    public mutating func admit(now: Instant) -> Ticket? {
        switch phase {
        case .closed:
            return Ticket(era: era)
        case .open(let until):
            guard now >= until else { return nil }
            enter(.halfOpen(isProbing: true))
            return Ticket(era: era)
        case .halfOpen(let isProbing):
            guard !isProbing else { return nil }
            phase = .halfOpen(isProbing: true)
            return Ticket(era: era)
        }
    }

    public mutating func record(_ ticket: Ticket, isSuccess: Bool, now: Instant) {
        guard ticket.era == era else { return }
        switch phase {
        case .closed(var buckets):
            let index = now.nanoseconds / bucketLength
            let place = Int(UInt64(bitPattern: index) % UInt64(Self.bucketCount))
            if buckets[place].index != index { buckets[place] = Bucket(index: index) }
            buckets[place].calls &+= 1
            if !isSuccess { buckets[place].failures &+= 1 }
            phase = .closed(buckets)
            if !isSuccess, isBad(buckets, at: index) { open(now) }
        case .halfOpen:
            if isSuccess {
                failedProbes = 0
                enter(.closed([Bucket](repeating: Bucket(), count: Self.bucketCount)))
            } else {
                failedProbes = min(failedProbes &+ 1, 30)
                open(now)
            }
        case .open:
            break
        }
    }

    /// A change that happened, the oldest first: one log line each.
    public mutating func pollChange() -> State? { changes.isEmpty ? nil : changes.removeFirst() }

    private func isBad(_ buckets: [Bucket], at index: Int64) -> Bool {
        var calls = 0
        var failures = 0
        for bucket in buckets where bucket.index > index &- Int64(Self.bucketCount) && bucket.index <= index {
            calls &+= bucket.calls
            failures &+= bucket.failures
        }
        return calls >= configuration.minimumCalls && failures &* 100 >= calls &* configuration.failurePercent
    }

    private mutating func open(_ now: Instant) {
        let delay = min(configuration.openFor * (1 << Int64(failedProbes)), configuration.longestOpen)
        enter(.open(until: now + delay))
    }

    private mutating func enter(_ next: Phase) {
        phase = next
        era &+= 1
        if changes.count < 64 { changes.append(state) }
    }
}
