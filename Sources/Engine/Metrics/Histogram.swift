import Synchronization
import Wire

/// How often durations fell between fixed bounds. Observing takes two atomic additions, no lock.
final class Histogram: Sendable {
    /// Upper bounds, the last but for infinity. The targets of reconnecting (300 ms, 500 ms, 2 s) are among them.
    static let bounds: [Duration] = [
        5, 10, 25, 50, 100, 150, 200, 300, 500, 1000, 2000, 5000, 10_000, 30_000,
    ].map { .milliseconds($0) }

    /// One for each bound, and one for what is above all of them.
    private let buckets: [Counter] = (0...bounds.count).map { _ in Counter() }
    private let sum = Counter()

    func observe(_ duration: Duration) {
        let duration = max(duration, .zero)
        let index = Histogram.bounds.firstIndex { duration <= $0 } ?? Histogram.bounds.count
        buckets[index].count()
        sum.count(UInt64(duration.nanoseconds))
    }

    struct Reading {
        /// How many were at most as long as each bound; the last is how many there were.
        var cumulative: [UInt64]
        var sum: Duration
        var count: UInt64 { cumulative.last ?? 0 }
    }

    /// The count comes from the buckets, so that it fits them even while others observe.
    var reading: Reading {
        var total: UInt64 = 0
        let cumulative = buckets.map { bucket in
            total &+= bucket.reading
            return total
        }
        return Reading(cumulative: cumulative, sum: .nanoseconds(Int64(clamping: sum.reading)))
    }
}
