public import Wire

/// Says how many unknown checks from where are looked at, before any cryptography: a token bucket for each source and
/// one for all together, in fixed memory.
///
/// A source is an IPv4 address or an IPv6 /64, what one customer has. The table has sets of four buckets; the set is
/// chosen by a keyed hash, so nobody can aim at a neighbour, and a bucket belongs to one source alone, so nobody draws
/// from another's. A new source takes the place of the fullest bucket of its set, the one that says least; it begins
/// with a full one. What is left to an attacker with very many (or forged) addresses: more than its share, up
/// to the bucket for all; while that one is empty, real clients without signaling are refused in proportion, and
/// connect with it.
public final class SourceLimiter {
    public struct Configuration: Sendable {
        /// Rounded up to a power of two.
        public var buckets = 8192
        /// Checks a second from one source, and how many at once.
        public var rate = 50
        public var burst = 100
        /// The same from all sources together.
        public var totalRate = 20_000
        public var totalBurst = 20_000

        public init() {}
    }

    private struct Bucket {
        /// 0: nobody's.
        var source: UInt64 = 0
        /// When the bucket will be full, as it goes on filling: one number says all.
        var full = Instant(nanoseconds: .min)
    }

    private let interval: Duration
    private let depth: Duration
    private let totalInterval: Duration
    private let totalDepth: Duration
    private let hash: SipHash
    private var buckets: [Bucket]
    private var totalFull = Instant(nanoseconds: .min)
    /// Checks that were refused because of their source, and because of all.
    public private(set) var refusedBySource = 0
    public private(set) var refusedByTotal = 0

    private static let ways = 4

    public init(configuration: Configuration = Configuration(), using random: inout some RandomNumberGenerator) {
        var size = Self.ways
        while size < min(configuration.buckets, 1 << 24) { size <<= 1 }
        buckets = Array(repeating: Bucket(), count: size)
        hash = SipHash(using: &random)
        interval = Duration.seconds(1) / Int64(max(configuration.rate, 1))
        depth = interval * Int64(max(configuration.burst, 1))
        totalInterval = Duration.seconds(1) / Int64(max(configuration.totalRate, 1))
        totalDepth = totalInterval * Int64(max(configuration.totalBurst, 1))
    }

    /// True if a check from there may be looked at; it is counted.
    public func admits(_ ip: IPAddress, now: Instant) -> Bool {
        let index = bucket(of: ip, now)
        guard Self.takes(&buckets[index].full, interval, depth, now) else {
            refusedBySource &+= 1
            return false
        }
        guard Self.takes(&totalFull, totalInterval, totalDepth, now) else {
            refusedByTotal &+= 1
            return false
        }
        return true
    }

    /// The check was what it said: it does not count against its source. So a network behind one address may come
    /// back as a whole, while what it can be made to waste stays bounded.
    public func refund(_ ip: IPAddress, now: Instant) {
        let index = bucket(of: ip, now)
        buckets[index].full = buckets[index].full - interval
        totalFull = totalFull - totalInterval
    }

    /// Takes one token of a bucket that will be full at `full`: it has a token if that is at most the depth less
    /// one interval away.
    private static func takes(_ full: inout Instant, _ interval: Duration, _ depth: Duration, _ now: Instant) -> Bool {
        let next = max(full, now) + interval
        guard next - now <= depth else { return false }
        full = next
        return true
    }

    private func bucket(of ip: IPAddress, _ now: Instant) -> Int {
        let source = max(ip.isIPv4 ? hash.hash([ip.high, ip.low]) : hash.hash([ip.high]), 1)
        let first = Int(truncatingIfNeeded: source) & (buckets.count - Self.ways)
        var fullest = first
        for index in first..<first + Self.ways {
            if buckets[index].source == source { return index }
            if buckets[index].full < buckets[fullest].full { fullest = index }
        }
        buckets[fullest] = Bucket(source: source)
        return fullest
    }
}
