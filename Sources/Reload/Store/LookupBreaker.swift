import Wire

/// Stops asking a database whose answers mostly fail or come too late: clients are answered at once instead of after a
/// wait in vain. Now and then a single question finds out whether it is better.
///
/// A circuit breaker for look-ups alone: it judges by answers in time, whichever question they belong to, and its pause
/// is always the same. (Replay's `CircuitBreaker` is for every operation of a store: it ties results to the calls that
/// it let through, and stays away longer each time.)
struct LookupBreaker: Sendable {
    private struct Count {
        var answers = 0
        var failures = 0
    }

    static let minimumAnswers = 20
    /// Half a window; what is older than two of them does not count.
    static let period = Duration.seconds(5)
    static let pause = Duration.seconds(1)

    private var current = Count()
    private var previous = Count()
    private var started = Instant(nanoseconds: 0)
    private var openUntil: Instant?
    private var isTrying = false

    /// Answers "no" while it is open, but for one question after each pause.
    mutating func mayAsk(_ now: Instant) -> Bool {
        guard let until = openUntil else { return true }
        guard until <= now, !isTrying else { return false }
        isTrying = true
        return true
    }

    mutating func answered(inTime: Bool, now: Instant) {
        guard openUntil == nil else {
            if inTime { self = LookupBreaker() } else { open(now) }
            return
        }
        if now - started >= Self.period {
            previous = now - started < Self.period * 2 ? current : Count()
            current = Count()
            started = now
        }
        current.answers += 1
        if !inTime { current.failures += 1 }
        let answers = current.answers + previous.answers
        if answers >= Self.minimumAnswers, (current.failures + previous.failures) * 2 >= answers { open(now) }
    }

    private mutating func open(_ now: Instant) {
        openUntil = now + Self.pause
        isTrying = false
    }
}
