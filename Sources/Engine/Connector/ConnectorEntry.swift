import Reload
import SDP
import Signaling
import Synchronization
import Wire

/// What host threads and the loop share about a connector.
final class ConnectorEntry: Sendable {
    let handle: UInt64
    let tag: UInt64
    let configuration: ConnectorConfiguration
    /// Not the engine itself, as with peers.
    let inbox: Inbox
    private let kept: OpenCache
    let isConnecting = Atomic<Bool>(false)
    let isClosed = Atomic<Bool>(false)

    init(handle: UInt64, configuration: ConnectorConfiguration, cache: OpenCache, engine: Engine) {
        self.handle = handle
        tag = configuration.tag
        self.configuration = configuration
        inbox = engine.inbox
        kept = cache
    }

    var cache: Cache { kept.cache }
    var files: CacheFiles { kept.files }

    var key: String { configuration.key }

    func ask(_ command: ConnectorCommand) throws(Failure) {
        guard inbox.push(.connector(self, command)) else { throw Failure(.invalidHandle, "the engine is gone") }
    }
}

/// What host threads ask of a connector.
enum ConnectorCommand: Sendable {
    case create
    case connect
    case answer(Int64, ReceivedAnswer)
    /// Nil: there are no more candidates.
    case candidate(Int64, CandidateInit?)
    case signalingFailed(Int64)
    case forget
    case close
}

/// An answer, read on the host's own thread.
struct ReceivedAnswer: Sendable {
    var description: SessionDescription
    var contents: Connector.Answer
}
