import Reload
import Signaling
import Wire

/// The loop's side of a connector.
final class Reconnection: Scheduled {
    let entry: ConnectorEntry
    var connector: Connector
    /// The peers of its attempts, and the one that won.
    var contenders: [Int: Connection] = [:]
    /// Why the connect under way is not fast, or not without signaling.
    var obstacle: (status: Status, isIPv6: Bool?)?
    var isDriving = false
    var due = Instant.distantFuture
    var heapIndex: Int?

    init(entry: ConnectorEntry) {
        self.entry = entry
        connector = Connector(Connector.Configuration(entry.configuration))
    }
}

/// What a peer is to a connector. Until it has won the host must not know of it.
final class Contender {
    enum Stage {
        /// Its events are held back.
        case racing
        case won
        /// Its events are nobody's.
        case lost
    }

    let owner: Reconnection
    let attempt: Int
    let isByTicket: Bool
    var stage = Stage.racing
    var held: [Event] = []
    /// Configured channels that are not open yet.
    var closedChannels: Set<UInt64> = []
    var isConnected = false
    /// How many of the events were held back when it was open.
    var openedAfter = 0
    /// Candidates that came before the answer; nil for the end of them.
    var early: [CandidateInit?] = []

    init(owner: Reconnection, attempt: Int, isByTicket: Bool) {
        self.owner = owner
        self.attempt = attempt
        self.isByTicket = isByTicket
    }

    static let maximumEarly = 64

    var isOpen: Bool { isConnected && closedChannels.isEmpty }
}

extension Connector.Configuration {
    init(_ configuration: ConnectorConfiguration) {
        self.init()
        policy = configuration.policy == .race ? .race : .fallback
        fastTimeout = configuration.fastTimeout
        normalTimeout = configuration.normalTimeout
        maximumCacheAge = configuration.maximumCacheAge
        usesTickets = configuration.usesTickets
    }
}

extension Connector.Reason {
    /// As the host sees it.
    var status: Status {
        switch self {
        case .notCached: .notCached
        case .cacheStale: .cacheStale
        case .networkChanged: .networkChanged
        case .fastDisabled: .fastDisabled
        case .sessionUnknown: .sessionUnknown
        case .overtaken: .overtaken
        case .signalingFailed, .noAnswer: .signalingFailed
        case .timedOut: .timeout
        case .closed: .closed
        case .unable(let number, _), .peer(let number, _): Status(rawValue: number) ?? .internalDefect
        }
    }

    var sentence: String {
        switch self {
        case .notCached: "nothing is known of an earlier connection"
        case .cacheStale: "what is known of the earlier connection is too old"
        case .networkChanged: "the machine's addresses have changed since"
        case .fastDisabled: "fast reload is switched off"
        case .sessionUnknown: "the other side does not know the session"
        case .overtaken: "another attempt was connected first"
        case .signalingFailed: "the host reported that the messages could not be exchanged"
        case .noAnswer: "no answer came in time"
        case .timedOut: "it was not connected in time"
        case .closed: "the connector was closed"
        case .unable(_, let sentence), .peer(_, let sentence): sentence
        }
    }

    init(unable failure: Failure) { self = .unable(failure.status.rawValue, failure.detail) }
}
