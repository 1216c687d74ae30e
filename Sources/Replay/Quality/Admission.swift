public import Wire

/// Admits so many per second, evenly, with bursts (the generic cell rate algorithm, ITU-T I.371): who comes too early
/// is told when to come again, each a little differently, so that a herd does not come back as a herd.
public struct Admission: Sendable {
    private let interval: Int64
    private let tolerance: Int64
    /// When the next one is due if all come at their time.
    private var theoretical = Int64.min
    /// The time that the last one who came too early was told.
    private var promised = Int64.min
    private var jitter: SeededGenerator

    static let longestWait = Duration.seconds(60)

    /// `perSecond` 0 or less: everybody is admitted. `seed` only spreads the returns.
    public init(perSecond: Int, burst: Int, seed: UInt64) {
        interval = perSecond > 0 ? max(1_000_000_000 / Int64(perSecond), 1) : 0
        let extra = Int64(clamping: max(burst, 1) &- 1)
        let (product, overflow) = interval.multipliedReportingOverflow(by: extra)
        tolerance = overflow ? Int64.max / 4 : min(product, Int64.max / 4)
        jitter = SeededGenerator(seed: seed)
    }

    /// nil: admitted. Otherwise when to come again.
    public mutating func admit(now: Instant) -> Duration? {
        guard interval > 0 else { return nil }
        let due = Instant(nanoseconds: max(theoretical, now.nanoseconds))
        guard (due - now).nanoseconds > tolerance else {
            theoretical = (due + Duration(nanoseconds: interval)).nanoseconds
            return nil
        }
        // Each is told a time one interval after the one before: they come back as fast as they can be admitted.
        let earliest = due - Duration(nanoseconds: tolerance)
        let next = max(Instant(nanoseconds: promised) + Duration(nanoseconds: interval), earliest)
        promised = min(next, now + Self.longestWait).nanoseconds
        let wait = max((Instant(nanoseconds: promised) - now).nanoseconds, 1)
        return Duration(nanoseconds: wait) + Duration(nanoseconds: Int64.random(in: 0...wait / 8 &+ 1, using: &jitter))
    }
}
