/// A span of time in nanoseconds. Arithmetic saturates instead of trapping, because spans are
/// computed from values that a peer or a host can choose.
@frozen
public struct Duration: Hashable, Comparable, Sendable {
    public var nanoseconds: Int64

    @inlinable
    public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

    public static let zero = Duration(nanoseconds: 0)
    public static let forever = Duration(nanoseconds: .max)

    @inlinable
    public static func nanoseconds(_ count: Int64) -> Duration { Duration(nanoseconds: count) }
    @inlinable
    public static func microseconds(_ count: Int64) -> Duration { scaled(count, by: 1_000) }
    @inlinable
    public static func milliseconds(_ count: Int64) -> Duration { scaled(count, by: 1_000_000) }
    @inlinable
    public static func seconds(_ count: Int64) -> Duration { scaled(count, by: 1_000_000_000) }

    /// Whole milliseconds, rounded towards zero.
    @inlinable public var milliseconds: Int64 { nanoseconds / 1_000_000 }
    /// Whole microseconds, rounded towards zero.
    @inlinable public var microseconds: Int64 { nanoseconds / 1_000 }
    /// Seconds as a floating-point number, for logs and metrics.
    @inlinable public var seconds: Double { Double(nanoseconds) / 1e9 }

    @inlinable
    static func scaled(_ count: Int64, by unit: Int64) -> Duration {
        let (product, overflow) = count.multipliedReportingOverflow(by: unit)
        return Duration(nanoseconds: overflow ? ((count < 0) != (unit < 0) ? .min : .max) : product)
    }

    @inlinable
    public static func < (left: Duration, right: Duration) -> Bool { left.nanoseconds < right.nanoseconds }

    @inlinable
    public static func + (left: Duration, right: Duration) -> Duration {
        let (sum, overflow) = left.nanoseconds.addingReportingOverflow(right.nanoseconds)
        return Duration(nanoseconds: overflow ? (right.nanoseconds < 0 ? .min : .max) : sum)
    }

    @inlinable
    public static func - (left: Duration, right: Duration) -> Duration {
        let (difference, overflow) = left.nanoseconds.subtractingReportingOverflow(right.nanoseconds)
        return Duration(nanoseconds: overflow ? (right.nanoseconds < 0 ? .max : .min) : difference)
    }

    @inlinable
    public static func * (left: Duration, right: Int64) -> Duration { scaled(left.nanoseconds, by: right) }

    /// Division by zero gives ``forever``.
    @inlinable
    public static func / (left: Duration, right: Int64) -> Duration {
        guard right != 0, !(right == -1 && left.nanoseconds == .min) else { return .forever }
        return Duration(nanoseconds: left.nanoseconds / right)
    }

    @inlinable
    public func clamped(_ low: Duration, _ high: Duration) -> Duration { min(max(self, low), high) }
}

/// A point on the caller's monotonic clock. Only differences mean anything.
@frozen
public struct Instant: Hashable, Comparable, Sendable {
    public var nanoseconds: Int64

    @inlinable
    public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

    /// Later than every other instant: a timer that is not set.
    public static let distantFuture = Instant(nanoseconds: .max)

    @inlinable
    public static func < (left: Instant, right: Instant) -> Bool { left.nanoseconds < right.nanoseconds }
    @inlinable
    public static func + (left: Instant, right: Duration) -> Instant {
        Instant(nanoseconds: (Duration(nanoseconds: left.nanoseconds) + right).nanoseconds)
    }
    @inlinable
    public static func - (left: Instant, right: Duration) -> Instant {
        Instant(nanoseconds: (Duration(nanoseconds: left.nanoseconds) - right).nanoseconds)
    }
    @inlinable
    public static func - (left: Instant, right: Instant) -> Duration {
        Duration(nanoseconds: left.nanoseconds) - Duration(nanoseconds: right.nanoseconds)
    }
}
