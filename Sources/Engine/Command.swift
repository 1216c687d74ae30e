import Reload
import SDP
import Wire

/// What host threads ask of the loop. A payload is complete when it is handed over, which the compiler cannot see.
enum Command: @unchecked Sendable {
    case answer(PeerEntry, AnswerRequest)
    case create(PeerEntry, PeerConfiguration)
    case offer(PeerEntry, UInt64)
    case accept(PeerEntry, SessionDescription, UInt64)
    /// Nil: there are no more candidates.
    case candidate(PeerEntry, String?)
    /// A message of the other side, for a peer that negotiates by itself.
    case signal(PeerEntry, PeerSignal)
    case restart(PeerEntry)
    case closePeer(PeerEntry)
    case statistics(PeerEntry, UInt64)
    case openChannel(ChannelEntry, ChannelConfiguration)
    case send(ChannelEntry, isText: Bool, Payload)
    case checkLowWater(ChannelEntry)
    case closeChannel(ChannelEntry)
    /// The host gave back enough events: messages of this peer may be taken again.
    case resume(PeerEntry)
    /// Nil: the machine's own.
    case setAddresses([IPAddress]?)
    case setTURNServers([TURNServer])
    case setTimers(Timers)
    case storeAnswered(SessionBackend.Completion)
    case storeChanged(SessionBackend.State)
    case setFastReload(FastReloadSetting)
    case revoke(ClientID)
    case certificates(CertificateChange)
    case connector(ConnectorEntry, ConnectorCommand)
    case stop

    /// Nobody will do it: what it would have brought to life has no handle any more.
    func abandon() {
        switch self {
        case .answer(let entry, _), .create(let entry, _):
            entry.isClosed.store(true, ordering: .relaxed)
            HandleTable.shared.remove(entry.handle)
        case .openChannel(let entry, _):
            entry.isClosing.store(true, ordering: .relaxed)
            HandleTable.shared.remove(entry.handle)
        case .connector(let entry, _):
            entry.isClosed.store(true, ordering: .relaxed)
            HandleTable.shared.remove(entry.handle)
        default: break
        }
    }
}

/// What ``Command/signal(_:_:)`` carries, parsed.
enum PeerSignal: Sendable {
    case offer(SessionDescription, generation: UInt32?, isRestart: Bool)
    case answer(SessionDescription, generation: UInt32?)
    /// Nil: there are no more candidates.
    case candidate(line: String?, ufrag: String?)
}

struct AnswerRequest: Sendable {
    var description: SessionDescription
    var token: String?
    var wantsTicket: Bool
    var derivesInit: Bool
    var configuration: PeerConfiguration
    var tag: UInt64
    var received: Instant
}
