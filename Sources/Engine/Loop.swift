import CSystem
import DTLS
import ICE
import Peer
import Reload
import STUN
import Synchronization
import Wire

/// The engine's thread: takes commands, datagrams and timeouts, lets the peers work, sends what they have to send and
/// hands events to the host. Nothing in here is touched by another thread after `run` began.
final class Loop: @unchecked Sendable {
    let engine: Engine
    let configuration: Configuration
    let port: Port
    var certificates: CertificateSet
    /// When to see whether the certificate is to be replaced.
    var certificateCheck: Instant
    let packets = PacketBuffer(capacity: 1 << 17)
    let network: Network
    /// The network may have something to send or to tell.
    var isNetworkDirty = true
    var random = SystemRandomNumberGenerator()
    var now: Instant
    var timers: Timers

    /// Peers by the handle's number.
    var connections: [UInt64: Connection] = [:]
    private var byAddress: [SocketAddress: Connection] = [:]
    private var byUfrag: [UInt64: Connection] = [:]
    /// Peers on their own ports, by the port's descriptor.
    private var byDescriptor: [Int32: Connection] = [:]
    /// Others that wait for their descriptors.
    let descriptors: DescriptorTable
    /// Datagrams over TCP; nil: not configured.
    let streams: StreamPort?
    /// TURN servers, and the relays of the shared port; nil while there are no servers.
    lazy var relayEnvironment = RelayEnvironment(RelayEnvironment.Settings(configuration), watch: descriptors)
    var relays: RelayGroup?
    /// Names on the local link, and who waits for which.
    lazy var names = MulticastResolver(
        watch: descriptors, links: { [weak network] in network?.multicastLinks ?? [] })
    /// As of the network's names, when peers were told last.
    var serverChanges: UInt64 = 0
    var askers: [String: [(peer: UInt64, name: String)]] = [:]
    var areRelaysDirty = false
    private var dirty: [Connection] = []
    private var deadlines = Deadlines<Connection>()
    let sessions: Sessions
    var connectors = Connectors()
    /// Where sessions are kept outside this process, if they are.
    let backend: (database: SessionBackend, store: CachingStore)?
    /// Nil: no tickets.
    let tickets: TicketOffice?
    var setting: FastReloadSetting
    var trip: Trip
    /// Answers that wait for the session store.
    var waitingAnswers: [LookupID: Connection] = [:]
    /// Peers from tickets that were faster than the session store.
    var lateWelcomes: [Connection] = []

    var events: [Event] = []
    private var commands: [Command?] = []
    private let epoll: Int32
    private let receiver: OpaquePointer
    private let sender: OpaquePointer
    private var isRunning = true

    init(engine: Engine, port: Port) throws(Failure) {
        self.engine = engine
        self.port = port
        configuration = engine.configuration
        timers = engine.configuration.timers
        now = Instant(nanoseconds: cs_monotonic_ns())
        certificates = engine.certificates.set
        certificateCheck = now + engine.certificates.nextCheck(wallClock: Engine.wallClock)
        guard let receiver = unsafe cs_receiver_create(), let sender = unsafe cs_sender_create() else {
            throw Failure(.noMemory, "no memory for the packet buffers")
        }
        // From here on nothing fails: what has a thread of its own would go on without an owner.
        let database = try engine.configuration.sessionStore.map { place throws(Failure) in
            try Loop.openBackend(place, engine)
        }
        network = Network(engine.configuration, port: port, random: random, now: now)
        unsafe self.receiver = receiver
        unsafe self.sender = sender
        epoll = cs_epoll_create()
        descriptors = DescriptorTable(epoll: epoll)
        streams = try Loop.openStreams(engine.configuration, descriptors, preferring: port.number)
        var settings = Sessions.Configuration()
        settings.lifetime = engine.configuration.sessionLifetime
        settings.fastReload = FastReload(engine.configuration.fastReload)
        settings.lookupTimeout = engine.configuration.storeTimeout
        if let database {
            let store = Loop.cachingStore(engine.configuration, now: now, using: &random)
            // Until it says otherwise: a file is opened before it is asked the first time.
            store.isAvailable = true
            backend = (database, store)
            sessions = Sessions(configuration: settings, store: store, random: random)
        } else {
            backend = nil
            let store = MemoryStore(capacity: engine.configuration.maximumSessions, using: &random)
            sessions = Sessions(configuration: settings, store: store, random: random)
        }
        setting = engine.configuration.fastReload
        trip = Trip(configuration: engine.configuration.trip)
        tickets =
            engine.configuration.givesTickets
            ? TicketOffice(
                secrets: TicketOffice.secrets(engine.configuration, certificates),
                lifetime: engine.configuration.sessionLifetime * 2, using: &random) : nil
    }

    /// Begins to listen, before it runs. After a failure there is only ``closeSurroundings()`` left to call.
    func watch() throws(Failure) {
        let descriptors = [port.descriptor, engine.inbox.descriptor] + network.descriptors
        guard epoll >= 0, descriptors.allSatisfy({ cs_epoll_add(epoll, $0, UInt64($0)) == 0 }) else {
            throw Failure(.noDescriptors, "cannot watch the port: the limit of open files is reached")
        }
    }

    /// Ends what has threads of its own.
    func closeSurroundings() {
        backend?.database.close()
        network.close()
        streams?.close()
        names.close()
    }

    deinit {
        cs_close(epoll)
        unsafe cs_receiver_destroy(receiver)
        unsafe cs_sender_destroy(sender)
    }

    /// What was noted before there was a loop to log it.
    func start(notes: [(LogLevel, String)]) {
        for (level, line) in notes { log(level, line) }
        startStreams()
        startNames()
        if !configuration.turnServers.isEmpty { setTURNServers(configuration.turnServers) }
        logCandidates()
        publish()
    }

    // MARK: Running

    func run() {
        var tokens = [UInt64](repeating: 0, count: 64)
        while isRunning {
            now = Instant(nanoseconds: cs_monotonic_ns())
            takeCommands()
            fireTimers()
            serviceDirty()
            drainNetwork()
            drainRelays()
            drainStreams()
            pumpSessions()
            drainTrip()  // before it waits: nothing else may happen until it is tried again
            publish()
            guard isRunning, engine.inbox.mayWait() else { continue }
            let count = wait(&tokens)
            engine.inbox.woke()
            now = Instant(nanoseconds: cs_monotonic_ns())
            for token in tokens.prefix(max(0, count)) { readable(token) }
        }
        closeEverything()
    }

    private func wait(_ tokens: inout [UInt64]) -> Int {
        var nanoseconds: Int64 = -1
        let due = nextTimeout
        if due < .distantFuture {
            nanoseconds = max(0, (due - Instant(nanoseconds: cs_monotonic_ns())).nanoseconds)
        }
        return tokens.withUnsafeMutableBufferPointer {
            Int(unsafe cs_epoll_wait(epoll, $0.baseAddress, Int32($0.count), nanoseconds))
        }
    }

    private var nextTimeout: Instant {
        var earliest = certificateCheck
        let others = [
            deadlines.earliest, sessions.nextTimeout, trip.nextTimeout, network.nextTimeout, connectorTimeout,
            streams?.nextTimeout, names.nextTimeout, relays?.nextTimeout,
            relays == nil ? nil : relayEnvironment.nextTimeout,
        ]
        for due in others {
            if let due { earliest = min(earliest, due) }
        }
        return earliest
    }

    private func readable(_ token: UInt64) {
        let descriptor = Int32(truncatingIfNeeded: token)
        if descriptor == engine.inbox.descriptor { return engine.inbox.clearWake() }
        if descriptor == port.descriptor { return receive(port, owner: nil) }
        if let connection = byDescriptor[descriptor] { return receive(connection.port, owner: connection) }
        if descriptors.ready(descriptor, now: now) { return }
        network.readable(descriptor, now: now)
        isNetworkDirty = true
    }

    private func closeEverything() {
        closeConnectors()
        for connection in Array(connections.values) {
            connection.peer.close(now: now)
            markDirty(connection)
        }
        serviceDirty()
        closeRelays()
        pumpSessions()
        closeSurroundings()
        publish()
    }

    // MARK: Receiving

    /// A few rounds, so that one busy port does not keep commands and timers waiting.
    private func receive(_ port: Port, owner: Connection?) {
        for _ in 0..<4 {
            var datagrams: UnsafePointer<cs_datagram>?
            let count = unsafe cs_receive(receiver, port.descriptor, &datagrams)
            guard count > 0, let datagrams = unsafe datagrams else { return }
            for index in 0..<Int(count) { unsafe take(datagrams[index], port: port, owner: owner) }
            serviceDirty()
            guard count >= 16 else { return }
        }
    }

    private func take(_ datagram: cs_datagram, port: Port, owner: Connection?) {
        let remote = SocketAddress(datagram.from)
        let local = SocketAddress(ip: IPAddress(datagram.to), port: port.number, scope: datagram.to.scope)
        let size = Int(datagram.size)
        engine.counters.bytesReceived.count(UInt64(size))
        var offset = 0
        // One turn for each datagram the kernel put together.
        repeat {
            let length = min(Int(max(datagram.segment, 1)), size - offset)
            let bytes = unsafe UnsafeRawBufferPointer(start: datagram.data + offset, count: max(length, 0))
            engine.counters.datagramsReceived.count()
            unsafe route(bytes.bytes, from: remote, to: local, owner: owner)
            offset += max(length, 1)
        } while offset < size
    }

    private func route(_ datagram: RawSpan, from remote: SocketAddress, to local: SocketAddress, owner: Connection?) {
        if let group = owner == nil ? relays : owner?.gathering?.relays {
            let isRelayed = group.handle(datagram, from: remote, now: now) { peer, relayed, bytes in
                deliver(bytes, Path(local: relayed, remote: peer), owner: owner)
            }
            if isRelayed {
                if let owner { markDirty(owner) } else { areRelaysDirty = true }
                return
            }
        }
        deliver(datagram, Path(local: local, remote: remote), owner: owner)
    }

    /// A datagram for a peer, however it came.
    func deliver(_ datagram: RawSpan, _ path: Path, owner: Connection?) {
        guard let connection = owner ?? receiver(of: datagram, path) else {
            // Perhaps a STUN server's answer about the port itself.
            guard network.handle(datagram, from: path.remote, to: path.local, now: now) else {
                return engine.counters.datagramsDropped.count()
            }
            isNetworkDirty = true
            return
        }
        let isTaken = connection.peer.handle(
            datagram: datagram, from: path.remote, to: path.local, transport: path.transport, now: now)
        guard isTaken else {
            guard connection.gathering?.handle(datagram, path, now: now) == true else {
                return engine.counters.datagramsDropped.count()
            }
            return markDirty(connection)
        }
        // The datagram was authentic: from now on this address is this peer's, whoever had it before.
        if path.transport == .tcp {
            streams?.trust(path, for: connection.entry.handle)
        } else if owner == nil {
            claim(path.remote, for: connection)
        }
        markDirty(connection)
    }

    /// A check names its receiver; everything else is told apart by where it comes from.
    private func receiver(of datagram: RawSpan, _ path: Path) -> Connection? {
        guard STUN.isMessage(datagram), let username = STUN.peekWholeUsername(datagram),
            let ufrag = STUN.ufragBeforeColon(username)
        else { return path.transport == .udp ? byAddress[path.remote] : nil }
        if let key = Loop.key(ufrag) {
            // Those with a UDP port of their own are reached there; the TCP port is everybody's.
            return byUfrag[key].flatMap { $0.isOnSharedPort || path.transport == .tcp ? $0 : nil }
        }
        guard TicketKeys.isTicket(ufrag) else {
            return path.transport == .udp ? byAddress[path.remote] : nil
        }
        return returning(datagram, username: username, from: path.remote, to: path.local)
    }

    /// Our own user fragments have eight characters: one machine word.
    private static func key(_ ufrag: RawSpan) -> UInt64? {
        ufrag.byteCount == 8 ? ufrag.load(bigEndianAt: 0, as: UInt64.self) : nil
    }

    private func claim(_ remote: SocketAddress, for connection: Connection) {
        guard byAddress[remote] !== connection else { return }
        if let previous = byAddress[remote] { previous.remotes.removeAll { $0 == remote } }
        if connection.remotes.count >= 32, let oldest = connection.remotes.first {
            connection.remotes.removeFirst()
            byAddress[oldest] = nil
        }
        connection.remotes.append(remote)
        byAddress[remote] = connection
    }

    // MARK: Timers

    private func fireTimers() {
        if let due = sessions.nextTimeout, due <= now {
            sessions.handleTimeout(now: now)
            engine.counters.sessions.store(sessions.count, ordering: .relaxed)
        }
        if certificateCheck <= now { checkCertificate() }
        fireConnectors()
        drainDecisions()
        if let due = network.nextTimeout, due <= now {
            network.handleTimeout(now: now)
            isNetworkDirty = true
        }
        fireRelays()
        if let due = names.nextTimeout, due <= now { names.handleTimeout(now: now) }
        if let streams, let due = streams.nextTimeout, due <= now { streams.handleTimeout(now: now) }
        if let due = trip.nextTimeout, due <= now { trip.handleTimeout(now) }
        drainTrip()
        while let connection = deadlines.popDue(at: now) {
            if connection.ticketDue <= now { refreshTicket(connection) }
            if let due = connection.fastDeadline, due <= now { attemptEnded(connection, isFailure: true) }
            connection.peer.handleTimeout(now: now)
            connection.gathering?.handleTimeout(now: now)
            markDirty(connection)
        }
    }

    // MARK: Working

    func markDirty(_ connection: Connection) {
        guard !connection.isDirty else { return }
        connection.isDirty = true
        dirty.append(connection)
    }

    func serviceDirty() {
        while let connection = dirty.popLast() {
            connection.isDirty = false
            service(connection)
        }
        flush()
    }

    private func service(_ connection: Connection) {
        let first = events.count
        if let gathering = connection.gathering {
            gatherMore(connection, gathering)
            if gathering.pollChange() { refreshCandidates(connection) }
        }
        if !connection.isGathered { finishGathering(connection) }
        drainEvents(connection)
        feed(connection)
        transmit(connection)
        settle(connection)
        // What sending has shown, the end above all.
        drainEvents(connection)
        observe(connection, from: first)
        if connection.peer.isClosed { return remove(connection) }
        deadlines.set(connection, nextTimeout(of: connection))
    }

    private func nextTimeout(of connection: Connection) -> Instant? {
        var earliest = min(connection.peer.nextTimeout ?? .distantFuture, connection.ticketDue)
        if let due = connection.fastDeadline { earliest = min(earliest, due) }
        if let due = connection.gathering?.nextTimeout { earliest = min(earliest, due) }
        return earliest == .distantFuture ? nil : earliest
    }

    private func transmit(_ connection: Connection) {
        var isDetoured = false
        defer {
            if isDetoured, let relays = connection.gathering?.relays {
                pump(through: connection.port) { relays.pollTransmit(into: &$0, now: now) }
            }
        }
        while true {
            guard let room = unsafe cs_sender_next(sender) else {
                flush()
                continue
            }
            let buffer = unsafe UnsafeMutableRawBufferPointer(start: room, count: CS_PACKET_ROOM)
            var output = unsafe OutputRawSpan(buffer: buffer, initializedCount: 0)
            let transmit = connection.peer.pollTransmit(into: &output, now: now)
            let size = unsafe output.finalize(for: buffer)
            guard let transmit else { return }
            if connection.isOnSharedPort, transmit.transport == .udp, byAddress[transmit.to] == nil {
                claim(transmit.to, for: connection)
            }
            engine.counters.bytesSent.count(UInt64(size))
            if transmit.transport == .tcp {
                unsafe send(UnsafeRawBufferPointer(start: room, count: size).bytes, transmit, connection)
                continue
            }
            if let group = relays(of: connection), group.owns(transmit.from) {
                unsafe group.send(
                    UnsafeRawBufferPointer(start: room, count: size).bytes, from: transmit.from, to: transmit.to,
                    now: now)
                areRelaysDirty = areRelaysDirty || connection.isOnSharedPort
                isDetoured = true
                continue
            }
            var to = transmit.to.system
            var from = transmit.from.system
            if from.scope == 0 { from.scope = network.exit(from: transmit.from.ip) }
            unsafe cs_sender_commit(
                sender, connection.port.descriptor, connection.port.isIPv4 ? 1 : 0, UInt32(size), &to, &from)
        }
    }

    private func gatherMore(_ connection: Connection, _ gathering: Gathering) {
        var isMore = true
        while isMore {
            isMore = false
            send(through: connection.port) { output in
                guard let next = gathering.pollTransmit(into: &output, now: now) else { return nil }
                isMore = true
                var from = SocketAddress(ip: next.from ?? .anyIPv6, port: connection.port.number)
                if let exit = next.from { from.scope = network.exit(from: exit) }
                return (next.to, from)
            }
        }
    }

    /// Sends all that `body` writes, through a port.
    func pump(through port: Port, _ body: (inout OutputRawSpan) -> SocketAddress?) {
        var isMore = true
        while isMore {
            isMore = false
            send(through: port) { output in
                let remote = body(&output)
                isMore = remote != nil
                return remote.map { ($0, SocketAddress(ip: .anyIPv6, port: port.number)) }
            }
        }
    }

    /// One datagram from a port that belongs to no peer; `body` writes it and says where it goes and from which address.
    /// Nil: the shared port.
    func send(
        through port: Port? = nil, _ body: (inout OutputRawSpan) -> (to: SocketAddress, from: SocketAddress)?
    ) {
        let port = port ?? self.port
        var room = unsafe cs_sender_next(sender)
        if unsafe room == nil {
            flush()
            unsafe room = cs_sender_next(sender)
        }
        guard let room = unsafe room else { return }
        let buffer = unsafe UnsafeMutableRawBufferPointer(start: room, count: CS_PACKET_ROOM)
        var output = unsafe OutputRawSpan(buffer: buffer, initializedCount: 0)
        let way = body(&output)
        let size = unsafe output.finalize(for: buffer)
        guard let way, size > 0 else { return }
        var to = way.to.system
        var from = way.from.system
        unsafe cs_sender_commit(sender, port.descriptor, port.isIPv4 ? 1 : 0, UInt32(size), &to, &from)
        engine.counters.bytesSent.count(UInt64(size))
    }

    func flush() {
        guard unsafe cs_sender_queued(sender) > 0 else { return }
        var sent: UInt64 = 0
        var refused: UInt64 = 0
        unsafe cs_sender_flush(sender, &sent, &refused)
        engine.counters.datagramsSent.count(sent)
        if refused > 0 { engine.counters.sendErrors.count(refused) }
    }

    // MARK: Peers

    func add(_ connection: Connection) throws(Failure) {
        register(connection)
        if !connection.isOnSharedPort {
            let descriptor = connection.port.descriptor
            guard cs_epoll_add(epoll, descriptor, UInt64(descriptor)) == 0 else {
                throw Failure(.noDescriptors, "cannot watch the peer's port")
            }
            byDescriptor[descriptor] = connection
        }
        connections[connection.entry.handle] = connection
    }

    /// Checks on the shared port find the peer by each of its user fragments.
    func register(_ connection: Connection) {
        guard connection.isOnSharedPort || streams?.port != nil else { return }
        unregister(connection)
        connection.ufragKeys = connection.peer.localUfrags.compactMap { Loop.key($0.utf8.span.bytes) }
        for key in connection.ufragKeys { byUfrag[key] = connection }
    }

    private func unregister(_ connection: Connection) {
        for key in connection.ufragKeys where byUfrag[key] === connection { byUfrag[key] = nil }
        connection.ufragKeys = []
    }

    private func remove(_ connection: Connection) {
        deadlines.set(connection, nil)
        guard connections.removeValue(forKey: connection.entry.handle) != nil else { return }
        for remote in connection.remotes where byAddress[remote] === connection { byAddress[remote] = nil }
        if let relays = connection.gathering?.relays {
            relays.close(now: now)
            pump(through: connection.port) { relays.pollTransmit(into: &$0, now: now) }
        }
        connection.remotes = []
        if let username = connection.username, tickets?.byUsername[username] === connection {
            tickets?.byUsername[username] = nil
        }
        forgetUnproven(connection)
        unregister(connection)
        streams?.release(peer: connection.entry.handle)
        if !connection.isOnSharedPort {
            flush()
            _ = cs_epoll_remove(epoll, connection.port.descriptor)
            byDescriptor[connection.port.descriptor] = nil
        }
        engine.counters.peers.wrappingSubtract(1, ordering: .relaxed)
    }

    // MARK: Commands

    private func takeCommands() {
        engine.inbox.take(&commands)
        for index in commands.indices {
            guard let command = commands[index].take() else { continue }
            // After the engine's end nothing is begun any more.
            if isRunning { perform(command) } else { command.abandon() }
        }
        commands.removeAll(keepingCapacity: commands.count < 4096)
    }

    private func perform(_ command: Command) {
        switch command {
        case .send(let channel, let isText, let payload): send(channel, isText: isText, payload)
        case .answer(let entry, let request): answer(entry, request)
        case .create(let entry, let peer): create(entry, peer)
        case .offer(let entry, let tag): offer(entry, tag: tag)
        case .accept(let entry, let description, let tag): accept(entry, description, tag: tag)
        case .candidate(let entry, let text): addCandidate(entry, text)
        case .signal(let entry, let signal): take(signal, entry)
        case .restart(let entry): restart(entry)
        case .setTURNServers(let servers): setTURNServers(servers)
        case .setTimers(let timers): setTimers(timers)
        case .closePeer(let entry):
            guard let connection = connections[entry.handle] else { return }
            connection.peer.close(now: now)
            markDirty(connection)
        case .statistics(let entry, let tag): reportStatistics(entry, tag: tag)
        case .openChannel(let channel, let configuration):
            openChannel(channel, configuration)
            begin(channel.peer)
        case .checkLowWater(let channel):
            if channel.fellToLowWater() { tellLowWater(channel) }
        case .closeChannel(let channel): closeChannel(channel)
        case .resume(let entry):
            if let connection = connections[entry.handle] { markDirty(connection) }
        case .setAddresses(let addresses):
            network.setAddresses(addresses, now: now)
            isNetworkDirty = true
        case .storeAnswered(let answered):
            backend?.store.complete(answered.id, with: answered.answer, now: now)
            drainDecisions()
            drainWelcomes()
        case .storeChanged(let state): storeChanged(state)
        case .setFastReload(let setting): setFastReload(setting)
        case .revoke(let client): revoke(client)
        case .certificates(let change): adopt(change)
        case .connector(let entry, let command): perform(command, entry)
        case .stop: isRunning = false
        }
    }

    // MARK: Events

    private func publish() { engine.events.append(&events) }

    func log(_ level: LogLevel, _ line: @autoclosure () -> String) {
        guard engine.logs(level), engine.events.count < 10_000 else { return }
        var event = Event(.log)
        event.number = Int64(level.rawValue)
        event.data = .text(line())
        events.append(event)
    }

    func logCandidates() {
        let offered = sharedCandidates
        let counts = OfferedAddresses.counts(offered)
        log(
            .info,
            LogLine.candidates(
                ipv6Host: counts.hostIPv6, ipv6Reflexive: counts.reflexiveIPv6, ipv4Reflexive: counts.reflexiveIPv4,
                ipv4Relay: counts.relayedIPv4))
        for candidate in offered {
            log(
                .debug,
                LogLine.candidate(
                    type: candidate.kind.rawValue, transport: "\(candidate.transport)", address: candidate.address))
        }
    }
}

extension FastReload {
    init(_ setting: FastReloadSetting) {
        self =
            switch setting {
            case .off: .off
            case .on: .on
            case .partial: .sessionsOnly
            }
    }
}
