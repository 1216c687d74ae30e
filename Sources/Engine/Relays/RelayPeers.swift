import TURN
import Wire

/// Whom a relay is used for: permissions and channels are asked for as datagrams are sent, and given up by those that
/// were not sent to for the longest time.
struct RelayPeers {
    private struct Use {
        var last: Instant
        /// Since a channel was thought of.
        var sent = 0
        var hasChannel = false
    }

    /// A permission that is not used for so long is not kept up.
    static let idle = Duration.seconds(180)
    static let sweep = Duration.seconds(60)
    /// A channel goes to another peer if it was not used for so long.
    private static let idleChannel = Duration.seconds(30)
    /// A refused address is not asked for again before.
    private static let denial = Duration.seconds(10)
    private static let maximumDenied = 256

    private var uses: [SocketAddress: Use] = [:]
    private var ips: [IPAddress: Int] = [:]
    private var denied: [IPAddress: Instant] = [:]
    private(set) var sweepDue: Instant?

    var count: Int { uses.count }
    var isEmpty: Bool { uses.isEmpty }

    func isUsed(since: Instant) -> Bool { uses.values.contains { $0.last > since } }

    /// Before each datagram. False: it cannot be sent there.
    mutating func use(_ peer: SocketAddress, of client: RelayClient, threshold: Int, now: Instant) -> Bool {
        guard var use = uses[peer] else { return add(peer, client, now) }
        use.last = now
        use.sent &+= 1
        let wantsChannel = !use.hasChannel && use.sent >= threshold
        if wantsChannel { use.sent = 0 }
        uses[peer] = use
        if wantsChannel { bind(peer, of: client, now: now) }
        return true
    }

    private mutating func add(_ peer: SocketAddress, _ client: RelayClient, _ now: Instant) -> Bool {
        if let end = denied[peer.ip] {
            guard end <= now else { return false }
            denied[peer.ip] = nil
        }
        while uses.count >= 2 * client.limits.permissions { removeOldest(client) }
        while true {
            switch client.permit(peer.ip, now: now) {
            case .accepted, .present:
                uses[peer] = Use(last: now, sent: 1)
                ips[peer.ip, default: 0] += 1
                if sweepDue == nil { sweepDue = now + RelayPeers.sweep }
                return true
            case .tooMany:
                guard !uses.isEmpty else { return false }
                removeOldest(client)
            case .unusable: return false
            }
        }
    }

    /// A channel for it at once.
    mutating func bind(_ peer: SocketAddress, of client: RelayClient, now: Instant) {
        guard uses[peer] != nil else { return }
        for _ in 0..<2 {
            switch client.bindChannel(peer, now: now) {
            case .accepted, .present:
                uses[peer]?.hasChannel = true
                return
            case .unusable: return
            case .tooMany:
                let idle = uses.filter { $0.value.hasChannel && $0.value.last + RelayPeers.idleChannel <= now }
                guard let oldest = idle.min(by: { $0.value.last < $1.value.last })?.key else { return }
                client.releaseChannel(oldest)
                uses[oldest]?.hasChannel = false
            }
        }
    }

    mutating func channelRefused(_ peer: SocketAddress) {
        // Not again: indications do.
        uses[peer]?.sent = .min
        uses[peer]?.hasChannel = false
    }

    mutating func deny(_ ip: IPAddress, _ client: RelayClient, now: Instant) {
        if denied.count >= RelayPeers.maximumDenied { denied = denied.filter { $0.value > now } }
        if denied.count < RelayPeers.maximumDenied { denied[ip] = now + RelayPeers.denial }
        for peer in uses.keys where peer.ip == ip { remove(peer, client) }
    }

    mutating func handleTimeout(_ client: RelayClient, now: Instant) {
        guard let due = sweepDue, due <= now else { return }
        for (peer, use) in uses where use.last + RelayPeers.idle <= now { remove(peer, client) }
        sweepDue = uses.isEmpty ? nil : now + RelayPeers.sweep
    }

    private mutating func removeOldest(_ client: RelayClient) {
        guard let oldest = uses.min(by: { $0.value.last < $1.value.last })?.key else { return }
        remove(oldest, client)
    }

    private mutating func remove(_ peer: SocketAddress, _ client: RelayClient) {
        guard let use = uses.removeValue(forKey: peer) else { return }
        if use.hasChannel { client.releaseChannel(peer) }
        let left = (ips[peer.ip] ?? 1) - 1
        if left > 0 {
            ips[peer.ip] = left
        } else {
            ips[peer.ip] = nil
            client.forbid(peer.ip)
        }
    }
}
