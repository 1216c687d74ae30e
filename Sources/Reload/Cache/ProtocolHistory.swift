public import Wire

/// How well connecting worked over IPv6 and over IPv4, and how long it took.
public struct ProtocolHistory: Hashable, Sendable {
    public struct Record: Hashable, Sendable {
        public var attempts = 0
        public var successes = 0
        /// Exponentially weighted; nil before the first success.
        public var time: Duration?

        /// Between 0 and 1; nil before the first attempt.
        public var successRate: Double? { attempts > 0 ? Double(successes) / Double(attempts) : nil }

        public init() {}

        mutating func succeeded(after duration: Duration) {
            attempts += 1
            successes += 1
            // A quarter of the newest: four connects later the past hardly counts.
            time = time.map { $0 + (duration - $0) / 4 } ?? duration
        }
    }

    public var ipv6 = Record()
    public var ipv4 = Record()

    public init() {}

    public mutating func succeeded(isIPv6: Bool, after duration: Duration) {
        if isIPv6 { ipv6.succeeded(after: duration) } else { ipv4.succeeded(after: duration) }
    }

    public mutating func failed(isIPv6: Bool) {
        if isIPv6 { ipv6.attempts += 1 } else { ipv4.attempts += 1 }
    }
}
