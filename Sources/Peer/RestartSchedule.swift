import Wire

/// When the next attempt to restart ICE begins, and when the last one has failed. It makes no attempts itself: it says
/// when, and is told how they went.
///
/// The first one begins at once, the next ones after a pause drawn from the whole range ("full jitter": the two sides,
/// and the many peers of a server that lost its network, must not all come back at the same instants). Without a network
/// attempts would fail for no reason: they wait for it, and begin when it is back.
struct RestartSchedule {
    struct Settings: Equatable {
        /// An attempt that has no path by then has failed.
        var timeout = Duration.seconds(5)
        /// In a row.
        var attempts = 10
        var pause: ClosedRange<Duration> = .milliseconds(250) ... .seconds(3)
    }

    enum Phase: Equatable {
        case idle
        /// An attempt, of this side or the other one, that has failed then.
        case underway(Instant)
        case pausing(until: Instant)
        /// Waits for the network.
        case offline
        /// As many attempts as there may be have failed.
        case exhausted
    }

    enum Action: Equatable {
        /// The attempt is to be begun.
        case begin
        /// The attempt has no path; ``attemptFailed(now:using:)`` is to be called when it was taken back.
        case timedOut
        case paused
        case giveUp
    }

    var settings: Settings
    private(set) var phase = Phase.idle
    /// The number of the latest attempt, from 1; 0: there was none since the last success.
    private(set) var attempt: UInt32 = 0
    private(set) var isOnline = true
    /// There is a reason to go on if this attempt fails.
    private(set) var isNeeded = false
    /// The host asked for it: a path that answers again is no reason to stop.
    private(set) var isAsked = false
    /// When the first attempt began.
    private var first: Instant?

    init(_ settings: Settings) { self.settings = settings }

    var isActive: Bool {
        switch phase {
        case .underway, .pausing, .offline: true
        case .idle, .exhausted: false
        }
    }

    var isUnderway: Bool {
        if case .underway = phase { true } else { false }
    }

    var nextTimeout: Instant? {
        switch phase {
        case .underway(let due), .pausing(let due): due
        case .idle, .offline, .exhausted: nil
        }
    }

    /// Since the first attempt began.
    func duration(now: Instant) -> Duration { first.map { now - $0 } ?? .zero }

    /// The path is bad.
    mutating func need(now: Instant) -> Action? {
        isNeeded = true
        guard phase == .idle else { return nil }
        guard settings.attempts > 0 else {
            phase = .exhausted
            return nil
        }
        return begin(now)
    }

    /// The host wants it: at once, whatever was before.
    mutating func ask(now: Instant) -> Action? {
        isNeeded = true
        isAsked = true
        if isUnderway { return nil }
        forget()
        return begin(now)
    }

    private mutating func begin(_ now: Instant) -> Action {
        if first == nil { first = now }
        guard isOnline else {
            phase = .offline
            return .paused
        }
        count(now)
        return .begin
    }

    private mutating func count(_ now: Instant) {
        if first == nil { first = now }
        attempt &+= 1
        phase = .underway(now + settings.timeout)
    }

    /// The other side has begun one, or has met ours with its own. It counts as one of this side's.
    mutating func otherSideBegan(now: Instant) {
        if isUnderway {
            phase = .underway(now + settings.timeout)
            return
        }
        if phase == .exhausted { forget() }
        count(now)
    }

    /// The attempt was taken back, or the other side refused it.
    mutating func attemptFailed(now: Instant, using random: inout some RandomNumberGenerator) -> Action? {
        guard isUnderway else { return nil }
        guard isNeeded else {
            reset()
            return nil
        }
        guard isOnline else {
            phase = .offline
            return .paused
        }
        guard attempt < UInt32(clamping: max(settings.attempts, 1)) else {
            phase = .exhausted
            isAsked = false
            return .giveUp
        }
        let span = (settings.pause.upperBound - settings.pause.lowerBound).nanoseconds
        let extra = span > 0 ? Int64.random(in: 0...span, using: &random) : 0
        phase = .pausing(until: now + settings.pause.lowerBound + .nanoseconds(extra))
        return nil
    }

    /// There is a path of the new generation.
    mutating func succeeded() { reset() }

    /// The path in use answers after all. An attempt that is under way goes on.
    mutating func relieve() {
        guard !isAsked else { return }
        isNeeded = false
        if !isUnderway { reset() }
    }

    mutating func setOnline(_ isOnline: Bool, now: Instant) -> Action? {
        guard self.isOnline != isOnline else { return nil }
        self.isOnline = isOnline
        guard isOnline else {
            guard case .pausing = phase else { return nil }
            phase = .offline
            return .paused
        }
        switch phase {
        case .idle: return nil
        // What failed without a network says nothing about this one.
        case .offline, .pausing, .exhausted, .underway:
            guard isNeeded, settings.attempts > 0 || isAsked else { return nil }
            attempt = 0
            return begin(now)
        }
    }

    mutating func handleTimeout(now: Instant) -> Action? {
        guard let due = nextTimeout, due <= now else { return nil }
        if isUnderway { return .timedOut }
        return begin(now)
    }

    private mutating func forget() {
        phase = .idle
        attempt = 0
        first = nil
    }

    private mutating func reset() {
        forget()
        isNeeded = false
        isAsked = false
    }
}
