import DataChannel
import ICE
import Peer
import Reload
import Wire

/// The loop's side of a peer.
final class Connection: Scheduled {
    let entry: PeerEntry
    let peer: Peer
    let port: Port
    /// Answering peers share the engine's port; offering ones have their own.
    let isOnSharedPort: Bool
    /// By the peer's numbers for its channels.
    var channels: [ChannelID: ChannelQueue] = [:]
    /// Channels with messages that are not all on their way.
    var active: [ChannelQueue] = []
    /// Nil: the engine's.
    var policy: ICEPolicy?
    /// Of its own port; nil on the shared one.
    var gathering: Gathering?
    /// Its negotiation, because of a channel.
    var hasBegun = false
    /// Its peer knows that there are no more candidates than these.
    var isGathered = false
    /// What its peer knows as its candidates.
    var candidates: [Candidate] = []
    /// By which checks on the shared port find it.
    var ufragKeys: [UInt64] = []
    /// Remote addresses in the loop's table that lead here.
    var remotes: [SocketAddress] = []
    /// Which of the active channels is first next time.
    var turn = 0
    var isDirty = false
    /// Its deadline and its place among them; the heap's own.
    var due = Instant.distantFuture
    var heapIndex: Int?
    var session: Decision?
    /// The session it belongs to since it connected.
    var client: ClientID?
    /// An answer that waits for the session store.
    var pendingAnswer: PendingAnswer?
    /// When a fast connect counts as failed; nil once that is settled.
    var fastDeadline: Instant?
    /// It counts among the fast attempts, with what became of it so far.
    var attempt = Attempt.none
    /// Why it could not be made.
    var failure: Failure?
    /// Its session came back with another peer.
    var isReplaced = false
    /// What it is to a connector, if one made it.
    var contender: Contender?

    // Tickets.
    /// The other side takes them.
    var wantsTicket = false
    /// It can do without the SCTP handshake.
    var derivesInit = false
    /// It has one of this connection's.
    var hasTicket = false
    var ticketDue = Instant.distantFuture
    var control: ChannelID?
    var isControlOpen = false
    var controlBudget = ControlBudget()
    /// Made from a ticket: the USERNAME of its checks, and whose ticket it was until that is proved.
    var username: [UInt8]?
    var claimedClient: ClientID?

    enum Attempt {
        /// Not a fast one, or judged already.
        case none
        case running
        /// Connected at this time, and not yet for long.
        case young(Instant)
    }

    init(entry: PeerEntry, peer: Peer, port: Port, isOnSharedPort: Bool) {
        self.entry = entry
        self.peer = peer
        self.port = port
        self.isOnSharedPort = isOnSharedPort
    }
}

/// The loop's side of a channel: messages that wait for the association.
final class ChannelQueue {
    let entry: ChannelEntry
    let id: ChannelID
    /// Waiting messages; text or binary.
    var waiting = Queue<(isText: Bool, payload: Payload)>()
    var isActive = false
    /// Close once nothing waits any more.
    var wantsClose = false

    init(entry: ChannelEntry, id: ChannelID) {
        self.entry = entry
        self.id = id
    }
}

/// What an answer still lacks: who comes.
struct PendingAnswer {
    var request: AnswerRequest
    var sdp: String
}
