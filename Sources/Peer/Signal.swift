public import ICE
public import Wire

extension Peer {
    /// A message for the other side.
    public enum Signal: Hashable, Sendable {
        /// `generation` counts the ICE generations of the connection; both sides have the same one after an exchange.
        case offer(sdp: String, generation: UInt32, isRestart: Bool)
        case answer(sdp: String, generation: UInt32)
        /// Nil: there are no more of this generation.
        case candidate(line: String?, mid: String, ufrag: String)
    }

    /// Why a path came into use.
    public enum PathReason: Hashable, Sendable {
        case first
        /// It has a higher priority.
        case better
        /// The earlier one was silent.
        case failover
        /// Found by an ICE restart.
        case restarted
        /// The other side moved.
        case moved
    }

    /// The path in use and its two candidates, as RFC 8839 section 5.1 writes them.
    public struct PathReport: Hashable, Sendable {
        public var path: Path
        public var local: String
        public var remote: String
        public var reason: PathReason
        /// How many paths there were, this one included.
        public var count: UInt32
        /// Nil: not measured.
        public var roundTrip: Duration?
    }

    /// How it goes with an ICE restart.
    public struct RestartReport: Hashable, Sendable {
        public enum Stage: Hashable, Sendable {
            case started
            /// Authenticated bytes arrived on a path of the new generation.
            case recovered
            /// This attempt. The path there was, if there was one, is still used.
            case failed
            /// There is no network.
            case paused
            /// As many attempts as there may be have failed.
            case givenUp
        }

        public var stage: Stage
        /// From 1.
        public var attempt: UInt32
        /// Why it was begun or has failed.
        public var sentence: String
        /// Since the first attempt began.
        public var duration: Duration
    }
}
