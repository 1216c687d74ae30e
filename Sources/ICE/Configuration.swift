public import Wire

extension Agent {
    /// When what is done. May be changed at run time with ``Agent/setTimers(_:)``.
    public struct Timers: Hashable, Sendable {
        /// RFC 8445 section 14.2 (Ta): at most one new check begins per interval. Triggered checks
        /// do not wait for it: they go where a verified check came from.
        public var checkInterval: Duration = .milliseconds(20)
        /// First retransmission of a check; doubles up to ``maximumRetransmission``. RFC 8445 section
        /// 14.3 begins at 500 ms; browsers check a new pair every 50 ms or so until it works.
        public var retransmission: Duration = .milliseconds(250)
        public var maximumRetransmission: Duration = .seconds(2)
        /// RFC 8489 section 6.2.2 (Ti): over TCP a check is sent once, and given up after this time.
        public var streamTimeout: Duration = .milliseconds(39_500)
        /// How long a controlling agent that has a valid pair waits for a better one.
        public var settleTime: Duration = .milliseconds(100)

        /// RFC 7675 section 5.1: a consent check every 5 s, each interval times 0.8 to 1.2.
        public var consentInterval: Duration = .seconds(5)
        /// An idle path is asked for a sign of life this often; nil, or more than half of what
        /// ``disconnectedAfter`` says: that half.
        public var heartbeat: Duration?
        /// While traffic flows, a path that is silent this long is suspected; longer where the path's
        /// round trip asks for it: two of them and 50 ms.
        public var suspicion: Duration = .milliseconds(150)
        /// How often a second path is checked, so that it can take over at once; nil: none is kept.
        public var standbyInterval: Duration? = .milliseconds(2500)
        /// Silence on the path in use after which ``Event/disconnected`` is reported. Nil: 5 s, and 8 s
        /// for a Lite agent, which has no way to ask and lives on checks that may come every 6 s.
        public var disconnectedAfter: Duration?
        /// RFC 7675 section 5.1: consent expires 30 s after the last valid response. For a Lite agent,
        /// after the last authenticated datagram.
        public var failedAfter: Duration = .seconds(30)
        /// How long the path in use must have been silent before a nomination of a path that is not
        /// better moves there: peers that move are followed, late and replayed checks are not.
        public var moveConfirmation: Duration = .milliseconds(300)
        /// RFC 8863 section 4: pairs may still turn up in this time, so failure is not declared earlier.
        public var patience: Duration = .milliseconds(39_500)
        /// Give up if nothing is verified this long after the start; nil leaves that to the caller.
        public var establishTimeout: Duration?

        public init() {}
    }

    @dynamicMemberLookup
    public struct Configuration: Sendable {
        /// The role to begin with. RFC 8445 section 6.1.1: the offerer controls, unless only the other
        /// side is full. Role conflicts are repaired.
        public var role: Role
        /// RFC 8445 section 2.5: a Lite agent answers checks and makes none.
        public var isLite: Bool
        public var credentials: Credentials
        /// Decides role conflicts; nil draws one.
        public var tieBreaker: UInt64?
        /// Nothing but relayed local candidates is paired, answered on or selected.
        public var relayOnly = false
        /// Local candidates will follow until ``Agent/localCandidatesComplete()``; before that no
        /// failure is found out. An agent that begins without any waits in any case.
        public var tricklesCandidates = false
        public var timers = Timers()

        /// Times a check is sent before its pair has failed (RFC 8489 section 6.2.1: Rc is 7).
        public var maximumTransmissions = 7
        public var maximumLocalCandidates = 32
        public var maximumRemoteCandidates = 32
        /// Candidates of a description that has not come yet.
        public var maximumEarlyCandidates = 32
        public var maximumPairs = 100
        /// Addresses learned from checks, of all generations that are still in use.
        public var maximumPeerReflexive = 16

        public init(role: Role, isLite: Bool = false, credentials: Credentials, tieBreaker: UInt64? = nil) {
            self.role = role
            self.isLite = isLite
            self.credentials = credentials
            self.tieBreaker = tieBreaker
        }

        /// The durations of ``timers`` by their own names.
        public subscript<Value>(dynamicMember member: WritableKeyPath<Timers, Value>) -> Value {
            get { timers[keyPath: member] }
            set { timers[keyPath: member] = newValue }
        }
    }
}
