import STUN
import Wire

/// A check of ours that may still be answered. Everything its bytes depend on is here, so that a
/// retransmission repeats them.
struct Transaction {
    let id: TransactionID
    let pair: Pair.ID
    let generation: UInt32
    let role: Role
    let usesCandidate: Bool
    /// RFC 7675 section 5.1: consent checks are not retransmitted; the next one is a new transaction.
    let isConsent: Bool
    /// RFC 8489 section 6.2.2: a request over TCP is sent once.
    let isStream: Bool
    /// The number of a renomination; 0: none.
    let nomination: UInt32
    let sentAt: Instant
    var transmissions = 1
    var interval: Duration
    /// When to send again or, after the last transmission, when to give up.
    var deadline: Instant
    /// RFC 8445 section 7.3.1.4: replaced by a triggered check. Not sent again, still listened for.
    var isCancelled = false

    func maySendAgain(_ limit: Int) -> Bool { !isConsent && !isStream && !isCancelled && transmissions < limit }
}

/// A response to a request that was verified, to be written when the caller asks for it.
struct Response {
    enum Kind {
        case success
        case roleConflict
        case unknownAttributes(UnknownAttributes)
    }

    let id: TransactionID
    let kind: Kind
    let algorithm: IntegrityAlgorithm
    let key: IntegrityKey
    let path: Path
}

/// The last requests' transactions and where they came from. The same transaction from another
/// address is a replay: it must not show where the other side is.
struct RecentRequests {
    enum Verdict {
        case new
        case retransmission
        case replay
    }

    private static let size = 32
    private var entries: [(id: TransactionID, from: SocketAddress)] = []
    private var oldest = 0

    mutating func note(_ id: TransactionID, from: SocketAddress) -> Verdict {
        for entry in entries where entry.id == id { return entry.from == from ? .retransmission : .replay }
        if entries.count < RecentRequests.size {
            entries.append((id, from))
        } else {
            entries[oldest] = (id, from)
            oldest = (oldest + 1) % RecentRequests.size
        }
        return .new
    }
}
