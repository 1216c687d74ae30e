import ICE
import Wire

/// Where this engine is reached, now: the machine's addresses as its interfaces come and go, what the shared port is
/// outside, and what was configured. Asked of once for all peers, never for one.
///
/// Belongs to the loop: watch ``descriptors``, keep ``nextTimeout``, offer it STUN answers that no peer claims, and
/// after it was made and after each of these calls take ``pollTransmit(into:now:)`` and ``pollChange()`` until both are
/// nil. To be made and called on threads of one network namespace.
final class Network {
    /// What is another since it was last asked.
    struct Change: OptionSet {
        let rawValue: UInt8
        /// ``candidates``: from now on answers and tickets carry the new ones.
        static let candidates = Change(rawValue: 1)
        /// The machine's own addresses, offered or not: ``hosts`` may be the same.
        static let addresses = Change(rawValue: 2)
        /// The way out: another interface or gateway, or there is one now, or none.
        static let route = Change(rawValue: 4)
        /// ``isOnline``.
        static let online = Change(rawValue: 8)
    }

    private let bound: IPAddress?
    private let isIPv4: Bool
    private let port: UInt16
    private var offered = OfferedAddresses()
    private var fixed: [IPAddress]?
    private let monitor: NetworkMonitor
    private let resolver: Resolver
    private let mapping: MappedAddresses
    private var pending: Change = []
    private var isClosed = false
    /// As they were when they were last told.
    private var wasOnline: Bool
    private var routes: (ipv4: NetworkSnapshot.Route?, ipv6: NetworkSnapshot.Route?)

    /// `port`: the engine's own. Lists the machine's addresses at once, so that ``candidates`` are good from the start;
    /// servers are asked from then on. `random` must not be guessable.
    convenience init(_ configuration: Configuration, port: Port, random: any RandomNumberGenerator, now: Instant) {
        self.init(
            configuration, port: port.number, isIPv4: port.isIPv4,
            monitor: NetworkMonitor(configuration.interfaces, lists: InterfaceLists(configuration), now: now),
            resolver: Resolver(configuration.icePolicy == .relay ? [] : configuration.stunServers, now: now),
            random: random, now: now)
    }

    init(
        _ configuration: Configuration, port: UInt16, isIPv4: Bool, monitor: NetworkMonitor, resolver: Resolver,
        mapping: MappedAddresses.Configuration = MappedAddresses.Configuration(), random: any RandomNumberGenerator,
        now: Instant
    ) {
        bound = configuration.bindAddress.flatMap { $0 == .anyIPv6 ? nil : $0 }
        self.isIPv4 = isIPv4
        self.port = port
        self.monitor = monitor
        self.resolver = resolver
        self.mapping = MappedAddresses(mapping, random: random)
        fixed = configuration.addresses
        candidates = []
        wasOnline = monitor.isOnline
        routes = (monitor.snapshot.routeIPv4, monitor.snapshot.routeIPv6)
        offered.configured = configuration.publicAddresses
        offered.hosts = hostAddresses()
        candidates = offered.candidates(sharedPort: port)
        self.mapping.setLocalAddresses(localAddresses(), now: now)
        self.mapping.setServers(resolver.servers, now: now)
    }

    /// What answers and tickets offer for the shared port, best first.
    private(set) var candidates: [Candidate]
    /// Counts up with each change of ``candidates``.
    private(set) var generation: UInt64 = 1
    var counts: OfferedAddresses.Counts { OfferedAddresses.counts(candidates) }
    /// The machine's own addresses that are offered, in order of preference.
    var hosts: [IPAddress] { offered.hosts }
    /// What the shared port is outside, as servers see it.
    var mapped: [MappedAddresses.Mapped] { offered.mapped }
    /// Whether the machine has an address that others might reach.
    var isOnline: Bool { monitor.isOnline }
    /// Whether there is a way to the rest of the world.
    var hasRoute: (ipv4: Bool, ipv6: Bool) {
        (monitor.snapshot.routeIPv4 != nil, monitor.snapshot.routeIPv6 != nil)
    }

    /// What there is, for people.
    var sentence: String {
        guard isOnline else { return "no address that others might reach" }
        return "addresses \(hosts.map(\.description).joined(separator: " "))"
    }

    /// The interface through which packets from a local address leave; 0: as the system has it.
    func exit(from local: IPAddress) -> UInt32 { monitor.exits.isEmpty ? 0 : monitor.exits[local] ?? 0 }

    /// One address of each way out that is not the system's own choice.
    var otherExits: [IPAddress] {
        var seen = Set([monitor.snapshot.routeIPv4?.interface].compactMap { $0 })
        return hosts.filter { host in monitor.exits[host].map { seen.insert($0).inserted } ?? false }
    }

    /// Where neighbours may be asked for names.
    var multicastLinks: [MulticastLink] { monitor.snapshot.multicastLinks }

    /// What a peer with a port of its own offers.
    func candidates(ownPort: UInt16, mapped: [MappedAddresses.Mapped] = []) -> [Candidate] {
        offered.candidates(ownPort: ownPort, mapped: mapped)
    }

    /// STUN servers, each with the addresses that are known of it.
    var stunServers: [[SocketAddress]] { resolver.servers }
    /// Counts up with each change of ``stunServers``.
    private(set) var serverChanges: UInt64 = 0
    /// The last move of the ways out.
    private(set) var moved: (ipv4: Bool, ipv6: Bool) = (false, false)

    /// To be watched for reading; they stay the same until ``close()``, after which they are closed with this object.
    var descriptors: [Int32] { [monitor.descriptor, resolver.descriptor].compactMap { $0 } }

    func readable(_ descriptor: Int32, now: Instant) {
        guard !isClosed else { return }
        if descriptor == monitor.descriptor, monitor.readable(now: now) { look(now) }
        if descriptor == resolver.descriptor, resolver.readable(now: now) {
            serverChanges &+= 1
            mapping.setServers(resolver.servers, now: now)
            takeMapped()
        }
    }

    var nextTimeout: Instant? {
        guard !isClosed else { return nil }
        let far = Instant.distantFuture
        let next = min(monitor.nextTimeout ?? far, min(resolver.nextTimeout ?? far, mapping.nextTimeout ?? far))
        return next == far ? nil : next
    }

    func handleTimeout(now: Instant) {
        guard !isClosed else { return }
        if monitor.handleTimeout(now: now) { look(now) }
        resolver.handleTimeout(now: now)
        mapping.handleTimeout(now: now)
        takeMapped()
    }

    /// True if the datagram was an answer to one of our own requests. `to`: where it arrived, unspecified if that is not
    /// known.
    func handle(_ datagram: RawSpan, from: SocketAddress, to: SocketAddress, now: Instant) -> Bool {
        guard !isClosed, mapping.handle(datagram: datagram, from: from, to: to, now: now) else { return false }
        takeMapped()
        return true
    }

    /// Writes the next packet for the shared port; where to, or nil if there is none.
    func pollTransmit(into output: inout OutputRawSpan, now: Instant) -> SocketAddress? {
        isClosed ? nil : mapping.pollTransmit(into: &output, now: now)
    }

    /// What changed since the last call; nil: nothing.
    func pollChange() -> Change? {
        guard !pending.isEmpty else { return nil }
        defer { pending = [] }
        return pending
    }

    /// What the host wants to be offered as its own addresses, in that order within each family; nil: the machine's.
    func setAddresses(_ addresses: [IPAddress]?, now: Instant) {
        fixed = addresses
        if addresses == nil, monitor.refresh(now: now) { look(now) }
        update()
    }

    /// Ends all work at once; a name server that does not answer is left to itself.
    func close() { isClosed = true }

    // MARK: Putting together

    /// The machine's network is another.
    private func look(_ now: Instant) {
        pending.insert(.addresses)
        let found = (ipv4: monitor.snapshot.routeIPv4, ipv6: monitor.snapshot.routeIPv6)
        let moved = (ipv4: found.ipv4 != routes.ipv4, ipv6: found.ipv6 != routes.ipv6)
        routes = found
        self.moved = moved
        mapping.setLocalAddresses(localAddresses(), now: now)
        if moved.ipv4 || moved.ipv6 {
            pending.insert(.route)
            mapping.networkChanged(ipv4: moved.ipv4, ipv6: moved.ipv6, now: now)
        }
        if wasOnline != monitor.isOnline {
            wasOnline = monitor.isOnline
            pending.insert(.online)
        }
        resolver.refresh(now: now)
        takeMapped()
        update()
    }

    private func takeMapped() {
        while mapping.pollEvent() != nil {}
        guard offered.mapped != mapping.mapped else { return }
        offered.mapped = mapping.mapped
        update()
    }

    private func update() {
        offered.hosts = hostAddresses()
        let made = offered.candidates(sharedPort: port)
        guard made != candidates else { return }
        candidates = made
        generation &+= 1
        pending.insert(.candidates)
    }

    /// What the host gave is offered as it is; of the machine's own, those that the port is bound to.
    private func hostAddresses() -> [IPAddress] {
        if let fixed { return AddressBook.ordered(fixed) }
        guard let bound, bound != .anyIPv4 else {
            return isIPv4 || bound != nil ? monitor.offered.filter(\.isIPv4) : monitor.offered
        }
        let isThere = bound.isLoopback && !monitor.isRestricted || monitor.snapshot.usable.contains { $0.ip == bound }
        return isThere ? [bound] : []
    }

    /// All that datagrams of the port can be sent from.
    func localAddresses() -> [IPAddress] {
        let all = monitor.snapshot.usable.map(\.ip)
        guard let bound else { return isIPv4 ? all.filter(\.isIPv4) : all }
        if bound == .anyIPv4 { return all.filter(\.isIPv4) }
        return monitor.isRestricted && !all.contains(bound) ? [] : [bound]
    }
}
