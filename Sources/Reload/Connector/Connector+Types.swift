public import Signaling
public import Wire

extension Connector {
    public enum Policy: Sendable {
        /// The signaling exchange starts with the ticket attempt; whichever is open first wins.
        case race
        /// One attempt at a time.
        case fallback
    }

    public struct Configuration: Sendable {
        public var policy = Policy.race
        /// For an attempt with a ticket, and for one that was answered fast, from its answer.
        public var fastTimeout = Duration.seconds(2)
        /// For one in normal mode, the answer included; and for every answer.
        public var normalTimeout = Duration.seconds(20)
        public var maximumCacheAge = Duration.seconds(300)
        public var usesTickets = true

        public init() {}
    }

    /// The numbers are those of `RECONNECT_MODE_...`.
    public enum Mode: UInt32, Hashable, Sendable {
        case normal = 0
        case fast = 1
        case zeroSignaling = 2
    }

    /// What there is to go by when a connect begins.
    public struct Conditions: Sendable {
        public var entry: CacheEntry?
        public var ticket: Ticket?
        /// Unix time in milliseconds.
        public var wallClock: Int64
        /// Names the network the machine is in: another number, another network.
        public var network: UInt64
        public var isFastReloadOn: Bool

        public init(
            entry: CacheEntry?, ticket: Ticket?, wallClock: Int64, network: UInt64 = 0, isFastReloadOn: Bool = true
        ) {
            self.entry = entry
            self.ticket = ticket
            self.wallClock = wallClock
            self.network = network
            self.isFastReloadOn = isFastReloadOn
        }
    }

    /// What the other side's answer said.
    public struct Answer: Sendable {
        public var mode: ConnectionMode
        public var token: String?
        public var ticket: Ticket?
        public var candidates: [CandidateInit]

        public init(mode: ConnectionMode, token: String?, ticket: Ticket?, candidates: [CandidateInit]) {
            self.mode = mode
            self.token = token
            self.ticket = ticket
            self.candidates = candidates
        }
    }

    /// Why something was not tried, did not work or ended.
    public enum Reason: Hashable, Sendable {
        case notCached
        case cacheStale
        case networkChanged
        case fastDisabled
        case sessionUnknown
        case overtaken
        /// The host said so.
        case signalingFailed
        case noAnswer
        case timedOut
        /// The host closed the connector.
        case closed
        /// It could not even be begun; a status and a sentence of the caller's.
        case unable(Int32, String)
        /// Its peer ended; a status and a sentence of the caller's.
        case peer(Int32, String)

        /// True if it says something about the ticket or the token that was used, and not about the way of the messages
        /// or this machine.
        var spoilsCache: Bool {
            switch self {
            case .sessionUnknown, .timedOut, .peer: true
            case .notCached, .cacheStale, .networkChanged, .fastDisabled, .overtaken, .signalingFailed, .noAnswer,
                .closed, .unable:
                false
            }
        }
    }

    /// What became of an attempt, for the host.
    public struct Report: Hashable, Sendable {
        /// The numbers are those of `RECONNECT_ATTEMPT_...`.
        public enum Outcome: Int64, Sendable {
            case skipped = 0
            case started = 1
            case won = 2
            case failed = 3
            case stopped = 4
        }

        /// Zero for one that was skipped.
        public var attempt: Int
        public var mode: Mode
        public var outcome: Outcome
        public var reason: Reason?
        /// Since the connect began.
        public var after: Duration
    }

    /// What the caller has to do, in this order.
    public enum Action: Sendable {
        case report(Report)
        /// Make a peer that connects with the ticket.
        case startWithTicket(attempt: Int, Ticket)
        /// Make a peer that offers.
        case startSignaling(attempt: Int, exchange: Int64, token: String?)
        /// Close the attempt's peer, if it is there.
        case stop(attempt: Int)
        /// The attempt's peer is the connection now. Close the one that it replaces.
        case connected(attempt: Int, mode: Mode, replacing: Int?, after: Duration)
        case failed(Reason, after: Duration)
        case lost(attempt: Int, mode: Mode, Reason)
        case store(CacheEntry)
        /// If what is kept still has this token.
        case drop(token: String)
        case storeTicket(Ticket)
        case dropTicket(Ticket)
    }
}
