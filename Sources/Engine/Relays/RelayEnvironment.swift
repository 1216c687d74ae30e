import CSystem
import TURN
import Wire

/// What all groups of an engine share: the servers, their addresses and credentials, and what is known of them. Belongs
/// to the loop, like the groups: keep ``nextTimeout``.
final class RelayEnvironment {
    struct Settings: Sendable {
        var families = RelayClient.Families.both
        /// PEM; nil: the system's authorities.
        var authorityPath: String?
        /// The address that connections are made from; nil: the system chooses.
        var bindAddress: IPAddress?
        /// Allocations of a group, each at another server.
        var maximumAllocations = 2
        /// Servers asked at once at a race's beginning; each further one begins ``stagger`` after the one before.
        var starters = 2
        var stagger = Duration.milliseconds(50)
        /// How long servers over UDP are preferred before connections are opened to others, as long as nothing was
        /// measured; then three round trips.
        var streamDelay = Duration.milliseconds(300)
        /// A server that holds an allocation and says nothing for so long is asked.
        var idleProbe = Duration.seconds(25)
        /// How long its answer is waited for before the relay counts as lost, at least; and until it is given up.
        var probeTimeout = Duration.seconds(1)
        var giveUp = Duration.seconds(10)
        /// Names and passwords made of a shared secret are good for so long.
        var secretLifetime = Duration.seconds(3600)
        /// Datagrams to a peer after which a channel is bound for it.
        var channelThreshold = 8
        var client: RelayClient.Configuration = {
            var client = RelayClient.Configuration()
            client.transmissions = 5
            client.streamTimeout = .seconds(10)
            client.maximumPermissions = 2048
            client.maximumChannels = 1024
            client.maximumRequests = 16
            client.maximumWaiting = 256
            client.maximumWaitingBytes = 262_144
            return client
        }()

        init() {}

        init(_ configuration: Configuration) {
            authorityPath = configuration.turnAuthorityPath
            bindAddress = configuration.bindAddress
        }
    }

    static let maximumServers = 32
    private static let addressesPerServer = 8

    let settings: Settings
    weak let watch: (any DescriptorWatch)?
    /// In the host's order, each once.
    private(set) var servers: [TURNServer] = []
    var choice: RelayChoice<RelayEndpoint>

    /// Servers that gave an allocation without a ticket: asking for one again costs a round trip.
    private(set) var lacksMobility = Set<RelayServer>()
    /// Where messages for connections are written first.
    let scratch = PacketBuffer(capacity: 70_000)

    private var knownTrust: TLSTrust?
    private let lookUp: @Sendable (String) -> [IPAddress]
    private let unixSeconds: () -> Int64
    private let makeRandom: () -> any RandomNumberGenerator
    private var resolver: Resolver?
    private var names: [ServerAddress] = []
    private var addresses: [String: [IPAddress]] = [:]
    private var credentials: [RelayServer: RelayCredentials] = [:]
    private var totals: [RelayServer: RelayStatistics] = [:]
    private var groups: [WeakGroup] = []
    private var isClosed = false

    private struct WeakGroup {
        weak var group: RelayGroup?
    }

    /// - Parameters:
    ///   - trust: whose certificates are accepted; nil: read from the settings' file when it is needed first, which takes
    ///     milliseconds.
    ///   - watch: tells of names found and of connections; must live as long as this.
    ///   - random: makes generators that must not be guessable.
    ///   - unixSeconds: the time of day, for credentials made of a secret.
    init(
        _ settings: Settings, trust: TLSTrust? = nil, watch: any DescriptorWatch,
        random: @escaping () -> any RandomNumberGenerator = { SystemRandomNumberGenerator() },
        unixSeconds: @escaping () -> Int64 = { cs_unix_ns() / 1_000_000_000 },
        source: @escaping (SocketAddress) -> IPAddress? = { RelayEnvironment.systemSource($0) },
        lookUp: @escaping @Sendable (String) -> [IPAddress] = { Resolver.system($0) }
    ) {
        self.settings = settings
        knownTrust = trust
        self.watch = watch
        makeRandom = random
        self.unixSeconds = unixSeconds
        self.source = source
        self.lookUp = lookUp
        var choice = RelayChoice<RelayEndpoint>.Configuration()
        choice.maximumServers = RelayEnvironment.maximumServers * RelayEnvironment.addressesPerServer
        self.choice = RelayChoice(choice)
    }

    deinit { close() }

    // MARK: Servers

    /// Replaces them. Allocations of those that stay are kept, with new credentials from the next request on; those of
    /// others are given back.
    func setServers(_ servers: [TURNServer], now: Instant) {
        guard !isClosed else { return }
        var seen = Set<RelayServer>()
        let before = Dictionary(self.servers.map { (RelayServer($0), $0) }) { first, _ in first }
        self.servers = Array(
            servers.filter { seen.insert(RelayServer($0)).inserted }.prefix(RelayEnvironment.maximumServers))
        var renewed: [RelayServer] = []
        for server in self.servers {
            let key = RelayServer(server)
            guard before[key]?.credentials != server.credentials || before[key] == nil else { continue }
            credentials[key] = nil
            renewed.append(key)
        }
        lacksMobility.formIntersection(seen)
        credentials = credentials.filter { seen.contains($0.key) }
        totals = totals.filter { seen.contains($0.key) }
        resolve(now)
        update()
        for server in renewed { for endpoint in endpoints(server) { choice.forgive(endpoint) } }
        for group in allGroups { group.serversChanged(renewed: renewed, now: now) }
    }

    func server(_ key: RelayServer) -> TURNServer? { servers.first { RelayServer($0) == key } }

    /// What requests to this server are made with now; those of a secret are made anew when they are about to end, or
    /// were refused to this user.
    func credentials(of key: RelayServer, unlike refused: String? = nil, now: Instant) -> RelayCredentials? {
        if let known = credentials[key] {
            guard case .secret? = server(key)?.credentials, let end = known.expires,
                end - settings.client.credentialMargin <= now || known.username == refused
            else { return known }
        }
        let made: RelayCredentials
        switch server(key)?.credentials {
        case nil: return nil
        case .password(let username, let password, let expires):
            made = RelayCredentials(username: username, password: password, expires: expires)
        case .secret(let user, let secret):
            let seconds = settings.secretLifetime.milliseconds / 1000
            made = RelayCredentials(
                secret: Array(secret.utf8), user: user, expiry: unixSeconds() &+ seconds,
                expires: now + settings.secretLifetime)
        }
        credentials[key] = made
        return made
    }

    /// Whether they are made here.
    func renewsCredentials(of key: RelayServer) -> Bool {
        if case .secret? = server(key)?.credentials { true } else { false }
    }

    /// What the system sends from to get there; nil: there is no way.
    let source: (SocketAddress) -> IPAddress?

    /// Whose certificates are accepted; read when it is needed first.
    func trust() throws(Failure) -> TLSTrust {
        if let knownTrust { return knownTrust }
        let trust = try TLSTrust(authorityPath: settings.authorityPath)
        knownTrust = trust
        return trust
    }

    func random() -> any RandomNumberGenerator { makeRandom() }

    static func systemSource(_ address: SocketAddress) -> IPAddress? {
        var to = address.system
        var from = cs_address()
        guard unsafe cs_source_address(&to, &from) == 0 else { return nil }
        return IPAddress(from)
    }

    // MARK: Names

    private func resolve(_ now: Instant) {
        var seen = Set<String>()
        let wanted = servers.filter { seen.insert($0.host).inserted }.map { ServerAddress(host: $0.host, port: 0) }
        guard wanted != names || resolver == nil else { return }
        if let descriptor = resolver?.descriptor { watch?.unwatch(descriptor) }
        names = wanted
        let resolver = Resolver(wanted, now: now, lookUp: lookUp)
        self.resolver = resolver
        addresses = addresses.filter { seen.contains($0.key) }
        takeAddresses()
        if let descriptor = resolver.descriptor { _ = watch?.watch(descriptor, writable: false, by: self) }
    }

    private func takeAddresses() {
        guard let resolver else { return }
        for (name, found) in zip(names, resolver.servers) where !found.isEmpty {
            addresses[name.host] = Array(found.map(\.ip).prefix(RelayEnvironment.addressesPerServer))
        }
    }

    /// The addresses of a server, the families in turns (RFC 8305 section 4).
    func endpoints(_ server: RelayServer) -> [RelayEndpoint] {
        let known = addresses[server.host] ?? []
        let (ipv6, ipv4) = (known.filter(\.isIPv6), known.filter(\.isIPv4))
        return (0..<max(ipv6.count, ipv4.count)).flatMap { index in
            [ipv6, ipv4].compactMap { index < $0.count ? $0[index] : nil }
        }.map { RelayEndpoint(server: server, address: SocketAddress(ip: $0, port: server.port)) }
    }

    /// Its name is being looked up for the first time.
    func isBeingResolved(_ server: RelayServer) -> Bool {
        addresses[server.host] == nil && !hasNoAddress(server)
    }

    /// Its name was looked up, and has none.
    func hasNoAddress(_ server: RelayServer) -> Bool {
        guard let resolver, let index = names.firstIndex(where: { $0.host == server.host }) else { return true }
        return addresses[server.host] == nil && resolver.hasFailed(index)
    }

    private func update() {
        choice.setServers(
            servers.flatMap { server in
                endpoints(RelayServer(server)).map { ($0, RelayEnvironment.handicap(server.transport)) }
            })
    }

    /// UDP before TCP before TLS: a connection costs round trips, and holds back what comes after a loss.
    private static func handicap(_ transport: RelayTransport) -> Duration {
        switch transport {
        case .udp: .zero
        case .tcp: .milliseconds(300)
        case .tls: .milliseconds(400)
        }
    }

    // MARK: What is known of servers

    func allocated(_ endpoint: RelayEndpoint, _ client: RelayClient) {
        choice.succeeded(endpoint, roundTrip: client.roundTrip)
        if endpoint.server.transport == .udp, client.allocation?.isMobile == false {
            lacksMobility.insert(endpoint.server)
        }
        count(endpoint.server) { $0.allocations &+= 1 }
    }

    func measured(_ endpoint: RelayEndpoint, _ client: RelayClient) {
        if let roundTrip = client.roundTrip { choice.measured(endpoint, roundTrip: roundTrip) }
    }

    /// - Parameter life: how long it had held an allocation; nil: it had none.
    func failed(_ endpoint: RelayEndpoint, _ failure: RelayFailure, after life: Duration?, now: Instant) {
        count(endpoint.server) { $0.failures &+= 1 }
        // Several groups that hear the same of a server count once.
        guard choice.pausedUntil(endpoint, now: now) == nil else { return }
        let pause = failure.pause(after: life)
        choice.failed(endpoint, pause: pause.first, limit: pause.limit, now: now)
    }

    /// It is no more: what it did is kept.
    func retire(_ leg: RelayLeg) {
        count(leg.endpoint.server) { total in
            RelayEnvironment.add(leg.client.statistics, to: &total)
            total.dropped &+= leg.dropped
        }
    }

    private func count(_ key: RelayServer, _ body: (inout RelayStatistics) -> Void) {
        guard let server = server(key) else { return }
        body(&totals[key, default: RelayStatistics(url: server.url, transport: server.transport)])
    }

    private static func add(_ client: RelayClient.Statistics, to total: inout RelayStatistics) {
        total.sent &+= client.sent
        total.sentBytes &+= client.sentBytes
        total.received &+= client.received
        total.receivedBytes &+= client.receivedBytes
        let useless =
            client.notTURN &+ client.malformed &+ client.unexpected &+ client.unmatched &+ client.badIntegrity
            &+ client.unknownPeer &+ client.noAllocation
        total.dropped &+= useless &+ client.transmitsDropped &+ client.waitingDropped
    }

    /// What each server was used for, in the host's order.
    func statistics() -> [RelayStatistics] {
        var now = totals
        for group in allGroups {
            for leg in group.legs {
                guard let server = server(leg.endpoint.server) else { continue }
                var total = now[leg.endpoint.server] ?? RelayStatistics(url: server.url, transport: server.transport)
                RelayEnvironment.add(leg.client.statistics, to: &total)
                total.dropped &+= leg.dropped
                if leg.isHeld { total.held += 1 }
                if let known = leg.client.roundTrip { total.roundTrip = min(total.roundTrip ?? known, known) }
                now[leg.endpoint.server] = total
            }
        }
        return servers.map { server in
            var total = now[RelayServer(server)] ?? RelayStatistics(url: server.url, transport: server.transport)
            if total.roundTrip == nil {
                total.roundTrip = endpoints(RelayServer(server)).compactMap { choice.roundTrip($0) }.min()
            }
            return total
        }
    }

    // MARK: Groups

    func add(_ group: RelayGroup) {
        groups.removeAll { $0.group == nil }
        groups.append(WeakGroup(group: group))
    }

    private var allGroups: [RelayGroup] { groups.compactMap(\.group) }

    // MARK: Time

    var nextTimeout: Instant? { isClosed ? nil : resolver?.nextTimeout }

    func handleTimeout(now: Instant) {
        guard !isClosed else { return }
        resolver?.handleTimeout(now: now)
    }

    /// The machine's network is another: all groups look after their relays at once, and what was known of servers does
    /// not count any more.
    func networkChanged(now: Instant) {
        guard !isClosed else { return }
        choice.networkChanged()
        resolver?.refresh(now: now)
        for group in allGroups { group.networkChanged(now: now) }
    }

    /// Looks up no more names. The groups are closed by their owners.
    func close() {
        isClosed = true
        if let descriptor = resolver?.descriptor { watch?.unwatch(descriptor) }
    }
}

extension RelayEnvironment: DescriptorOwner {
    func ready(_ descriptor: Int32, now: Instant) {
        guard !isClosed, let resolver, descriptor == resolver.descriptor else { return }
        let changed = resolver.readable(now: now)
        if changed {
            takeAddresses()
            update()
        }
        for group in allGroups { group.addressesChanged(now: now) }
    }
}
