import Reload
import Wire

/// Clients whose tickets are worth nothing any more, each until its last ticket has expired; as many as fit.
///
/// All of them last equally long, so they end in the order in which they came: a queue knows the next one, and nothing is
/// searched for.
struct Revocations {
    private var ends: [ClientID: Instant] = [:]
    /// A client that was revoked again has more than one place; only its last one counts.
    private var queue = Queue<(client: ClientID, end: Instant)>()
    private let capacity: Int

    init(capacity: Int) { self.capacity = max(capacity, 1) }

    var count: Int { ends.count }

    func contains(_ client: ClientID, now: Instant) -> Bool { ends[client].map { $0 > now } ?? false }

    /// `end` is never before that of an earlier call. Where there is no room the one that ends first is given up.
    mutating func insert(_ client: ClientID, until end: Instant, now: Instant) {
        while let next = queue.first, next.end <= now { removeFirst() }
        if ends[client] == nil {
            while ends.count >= capacity, !queue.isEmpty { removeFirst() }
        }
        ends[client] = end
        queue.append((client, end))
        tidy()
    }

    private mutating func removeFirst() {
        guard let (client, end) = queue.popFirst() else { return }
        if ends[client] == end { ends[client] = nil }
    }

    /// Each pass over the queue is paid for by the calls that have made it twice as long as it must be.
    private mutating func tidy() {
        guard queue.count >= 2 * max(ends.count, 16) else { return }
        queue = Queue(queue.filter { ends[$0.client] == $0.end })
    }
}
