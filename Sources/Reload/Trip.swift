public import Wire

/// Switches fast reload off when it does more harm than good, and on again.
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
}
