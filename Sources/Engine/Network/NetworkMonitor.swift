import CSystem
import Wire

/// Watches the machine's interfaces, addresses and ways out.
///
/// Several messages about one change are taken together: what is new counts a moment later, what is gone at once. Where
/// the system lets nobody watch, it looks by itself every few seconds.
final class NetworkMonitor {
    /// The changes of one event (a network card that comes up, a lease) follow each other within this time.
    static let settling = Duration.milliseconds(50)
    static let polling = Duration.seconds(3)
    static let retry = Duration.seconds(1)

    /// To be watched for reading; nil where only looking helps.
    let descriptor: Int32?
    /// Without what ``InterfaceLists`` forbids.
    private(set) var snapshot = NetworkSnapshot()
    /// What ``InterfacePolicy`` leaves of the machine's addresses, best first.
    private(set) var offered: [IPAddress] = []
    /// See ``NetworkSnapshot/exits``.
    private(set) var exits: [IPAddress: UInt32] = [:]
    private let policy: InterfacePolicy
    private let lists: InterfaceLists
    private let read: () -> NetworkSnapshot.Reading
    private var lookAt: Instant?
    private var lastLook: Instant

    /// `watch` and `read`: for tests.
    init(
        _ policy: InterfacePolicy, lists: InterfaceLists = InterfaceLists(), now: Instant,
        watch: () -> Int32 = { cs_netlink_watch() },
        read: @escaping () -> NetworkSnapshot.Reading = { NetworkSnapshot.read() }
    ) {
        self.policy = policy
        self.lists = lists
        self.read = read
        let watching = watch()
        descriptor = watching >= 0 ? watching : nil
        lastLook = now
        refresh(now: now)
    }

    deinit { if let descriptor { cs_close(descriptor) } }

    /// Whether some interfaces may not be used.
    var isRestricted: Bool { !lists.isEmpty }

    /// Whether there is any address that others might reach.
    var isOnline: Bool { offered.contains { !$0.isLoopback } }

    /// Looks now. True if something a peer could notice is another: an address, offered or not, or a way out.
    @discardableResult
    func refresh(now: Instant) -> Bool {
        lastLook = now
        lookAt = descriptor == nil ? now + NetworkMonitor.polling : nil
        let found: NetworkSnapshot
        switch read() {
        case .complete(let snapshot), .partial(let snapshot): found = snapshot.restricted(to: lists)
        case .failed:
            lookAt = now + NetworkMonitor.retry
            return false
        }
        let before = (snapshot.usable.map(\.ip), snapshot.routeIPv4, snapshot.routeIPv6, offered, exits)
        snapshot = found
        offered = found.offered(policy)
        exits = found.exits
        return before != (found.usable.map(\.ip), found.routeIPv4, found.routeIPv6, offered, exits)
    }

    /// The descriptor is readable. True as ``refresh(now:)``.
    func readable(now: Instant) -> Bool {
        guard let descriptor else { return false }
        let isUrgent = withUnsafeTemporaryAllocation(of: cs_network_change.self, capacity: 256) { changes in
            let count = unsafe cs_netlink_changes(descriptor, changes.baseAddress, 256)
            return unsafe note(changes.prefix(max(0, Int(count))), now: now)
        }
        return isUrgent && refresh(now: now)
    }

    /// Sets the time to look; true if that is now.
    private func note(_ changes: Slice<UnsafeMutableBufferPointer<cs_network_change>>, now: Instant) -> Bool {
        var isUrgent = false
        for change in unsafe changes {
            guard matters(change) else { continue }
            lookAt = min(lookAt ?? .distantFuture, now + NetworkMonitor.settling)
            switch Int(change.what) {
            case CS_CHANGE_ADDRESS where change.is_gone != 0:
                isUrgent = isUrgent || offered.contains(IPAddress(change.address))
            case CS_CHANGE_LINK where change.is_gone != 0:
                let isOffered = snapshot.addresses.contains {
                    $0.interface == change.interface && offered.contains($0.ip)
                }
                isUrgent = isUrgent || isOffered
            // Messages were lost. Where they come faster than they can be read, not each time.
            case CS_CHANGE_UNKNOWN: isUrgent = isUrgent || now - lastLook >= NetworkMonitor.settling
            default: break
            }
        }
        return isUrgent
    }

    /// On a machine full of containers interfaces come and go all the time, with nothing but link-local addresses, and a
    /// look takes milliseconds there. An address that one is given is a change of its own.
    private func matters(_ change: cs_network_change) -> Bool {
        switch Int(change.what) {
        case CS_CHANGE_ADDRESS: return !IPAddress(change.address).isLinkLocal
        case CS_CHANGE_LINK:
            let leadsOut =
                snapshot.routeIPv4?.interface == change.interface || snapshot.routeIPv6?.interface == change.interface
            return leadsOut
                || snapshot.addresses.contains { $0.interface == change.interface && !$0.ip.isLinkLocal }
        default: return true
        }
    }

    var nextTimeout: Instant? { lookAt }

    /// True as ``refresh(now:)``.
    func handleTimeout(now: Instant) -> Bool {
        guard let lookAt, lookAt <= now else { return false }
        return refresh(now: now)
    }
}
