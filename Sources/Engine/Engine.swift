import CSystem
import DTLS
import Reload
import SDP
import Signaling
import Storage
import Synchronization
public import Wire

/// One UDP port, one certificate, one loop thread, and the peers on them. Every method may be called from every thread.
public final class Engine: Sendable {
    public let handle: UInt64
    let configuration: Configuration
    let inbox: Inbox
    let events: EventQueue
    let counters = Counters()
    public let portNumber: UInt16
    let series = Metrics()
    let caches = CacheFiles()
    let certificates: CertificateStore
    private let logLevel: Atomic<UInt32>
    private let isStopped = Atomic<Bool>(false)
    private let thread = Guarded<Worker?>(nil)
    /// Replaces the certificate; the last one that did.
    private let keeper = Guarded<Worker?>(nil)
    private let isKeeping = Atomic<Bool>(false)

    private init(
        handle: UInt64, configuration: Configuration, inbox: Inbox, events: EventQueue, portNumber: UInt16,
        certificates: CertificateStore
    ) {
        self.handle = handle
        self.configuration = configuration
        self.inbox = inbox
        self.events = events
        self.portNumber = portNumber
        self.certificates = certificates
        series.setSwitch(configuration.fastReload)
        logLevel = Atomic(configuration.logLevel?.rawValue ?? 0)
    }

    // MARK: Life

    public static func create(_ configuration: Configuration) throws(Failure) -> Engine {
        cs_fork_watch()
        guard cs_forked() == 0 else { throw Failure(.forked) }
        try checkOfferable(configuration.addresses, configuration.interfaces)
        let port = try Port.open(SocketAddress(ip: configuration.bindAddress ?? .anyIPv6, port: configuration.port))
        let policy = CertificateStore.Policy(
            lifetime: configuration.certificateLifetime, overlap: configuration.sessionLifetime * 2 + .seconds(3600))
        let (certificates, notes) = try CertificateStore.open(
            path: configuration.certificatePath, policy: policy, wallClock: wallClock)
        guard let inbox = Inbox(), let events = EventQueue() else {
            throw Failure(.noDescriptors, "cannot make an event descriptor: the limit of open files is reached")
        }
        let made = HandleTable.shared.insert { handle in
            let engine = Engine(
                handle: handle, configuration: configuration, inbox: inbox, events: events, portNumber: port.number,
                certificates: certificates)
            return (engine, .engine(engine))
        }
        guard let engine = made else { throw Failure(.limit, "too many handles are in use") }
        do throws(Failure) {
            let loop = try Loop(engine: engine, port: port)
            loop.start(notes: notes)
            do throws(Failure) {
                try loop.watch()
                try engine.start(loop)
            } catch {
                loop.closeSurroundings()
                throw error
            }
        } catch {
            HandleTable.shared.remove(engine.handle)
            throw error
        }
        return engine
    }

    private static func checkOfferable(_ given: [IPAddress]?, _ policy: InterfacePolicy) throws(Failure) {
        let isEmpty: Bool
        if let given { isEmpty = given.isEmpty } else { isEmpty = try AddressBook.interfaces(policy).isEmpty }
        guard !isEmpty else { throw Failure(.noAddress, "the machine has no address to offer") }
    }

    private func start(_ loop: Loop) throws(Failure) {
        let started = try startThread { loop.run() }
        thread.withLock { $0 = started }
    }

    /// Closes everything and waits for the loop to end.
    public func destroy() -> Status {
        guard !isStopped.exchange(true, ordering: .sequentiallyConsistent) else { return .invalidHandle }
        HandleTable.shared.remove(handle)
        inbox.push(.stop)
        let running = thread.withLock { $0.take() }
        running?.join()
        caches.stop()
        let keeping = keeper.withLock { $0.take() }
        keeping?.join()
        for command in inbox.close() { command.abandon() }
        events.close()
        return .ok
    }

    // MARK: Facts

    public func fingerprint(_ algorithm: HashAlgorithm) -> String {
        certificates.set.current.certificate.fingerprint(algorithm).description
    }

    public func statistics() -> EngineStatistics {
        var reading = counters.reading()
        reading.eventsQueued = events.count
        let certificate = certificates.set.current.certificate
        reading.certificateAgeSeconds = certificate.age(at: Engine.wallClock).nanoseconds / 1_000_000_000
        return reading
    }

    public func setLogLevel(_ level: LogLevel?) { logLevel.store(level?.rawValue ?? 0, ordering: .relaxed) }

    func logs(_ level: LogLevel) -> Bool { level.rawValue <= logLevel.load(ordering: .relaxed) }

    public func setAddresses(_ addresses: [IPAddress]?) throws(Failure) {
        try Engine.checkOfferable(addresses, configuration.interfaces)
        inbox.push(.setAddresses(addresses))
    }

    public func setTURNServers(_ servers: [TURNServer]) { inbox.push(.setTURNServers(servers)) }

    public func setTimers(_ timers: Timers) throws(Failure) {
        try timers.check(in: configuration)
        inbox.push(.setTimers(timers))
    }

    /// Forgets the session with this client id for good.
    public func revoke(_ client: String) throws(Failure) {
        guard let client = ClientID(parsing: client) else { throw Failure(.invalidArgument, "not a client id") }
        inbox.push(.revoke(client))
    }

    public func setFastReload(_ setting: FastReloadSetting) { inbox.push(.setFastReload(setting)) }

    /// Replaces the certificate now. Blocks for the file and the key.
    public func rotateCertificate() throws(Failure) {
        guard !isStopped.load(ordering: .relaxed) else { throw Failure(.invalidHandle, "the engine is gone") }
        do throws(Failure) {
            try certificates.rotate(wallClock: Engine.wallClock) { inbox.push(.certificates($0)) }
            series.rotated(succeeded: true)
        } catch {
            series.rotated(succeeded: false)
            throw error
        }
    }

    /// Replaces the certificate if it is time, on a thread of its own. Called by the loop.
    func maintainCertificates() {
        guard !isKeeping.exchange(true, ordering: .acquiringAndReleasing) else { return }
        keeper.withLock({ $0.take() })?.join()
        let started = try? startThread { [self] in
            certificates.maintain(wallClock: Engine.wallClock) { change in
                if change.isRotation || change.isFailure { series.rotated(succeeded: change.isRotation) }
                inbox.push(.certificates(change))
            }
            isKeeping.store(false, ordering: .releasing)
        }
        if started == nil { isKeeping.store(false, ordering: .releasing) }
        keeper.withLock { $0 = started }
    }

    /// Seconds since 1970.
    static var wallClock: Int64 { cs_unix_ns() / 1_000_000_000 }

    /// All metrics as Prometheus' text, format 0.0.4.
    public func metrics() throws(Failure) -> String { series.text(statistics()) }

    // MARK: Events

    public var eventDescriptor: Int32 { events.descriptor }

    /// Up to `max` events. Waits for the first: not at all with 0, without limit with a negative
    /// number of milliseconds.
    public func poll(max: Int, milliseconds: Int32) -> (status: Status, batch: UInt64, events: [Event]) {
        let deadline = cs_monotonic_ns() + Int64(milliseconds) * 1_000_000
        while true {
            switch events.take(max: max) {
            case .closed: return (.invalidHandle, 0, [])
            case .batch(let batch, let events): return (.ok, batch, events)
            case .nothing: break
            }
            guard milliseconds != 0 else { return (.ok, 0, []) }
            var wait = milliseconds
            if milliseconds > 0 {
                let left = deadline - cs_monotonic_ns()
                guard left > 0 else { return (.ok, 0, []) }
                wait = Int32(clamping: (left + 999_999) / 1_000_000)
            }
            guard cs_forked() == 0 else { return (.forked, 0, []) }
            _ = cs_wait_readable(events.descriptor, wait)
        }
    }

    public func release(_ batch: UInt64) -> Status {
        guard let released = events.release(batch) else { return .invalidArgument }
        for index in released.indices {
            guard let entry = released[index].budget else { continue }
            let left = entry.undelivered.wrappingSubtract(released[index].cost, ordering: .sequentiallyConsistent)
                .newValue
            if left <= configuration.receiveWindow / 2,
                entry.isStalled.exchange(false, ordering: .sequentiallyConsistent)
            {
                inbox.push(.resume(entry))
            }
        }
        return .ok
    }

    // MARK: Peers

    /// Answers an offer in JSON. The answer comes as an event with `tag`.
    public func answer(_ offer: RawSpan, configuration peer: PeerConfiguration, tag: UInt64) throws(Failure) -> UInt64 {
        let received = cs_monotonic_ns()
        let message = try Describing.offer(offer)
        let description = try Describing.description(message.sdp)
        let entry = try makeEntry(peer)
        let request = AnswerRequest(
            description: description, token: message.sessionToken, wantsTicket: message.wantsTicket,
            derivesInit: message.derivesInit, configuration: peer, tag: tag,
            received: Instant(nanoseconds: received))
        try entry.ask(.answer(entry, request))
        return entry.handle
    }

    /// Makes a peer that will offer.
    public func createPeer(_ peer: PeerConfiguration) throws(Failure) -> UInt64 {
        let entry = try makeEntry(peer)
        try entry.ask(.create(entry, peer))
        return entry.handle
    }

    var hasRoom: Bool { counters.peers.load(ordering: .relaxed) < configuration.maximumPeers }

    func makeEntry(_ peer: PeerConfiguration) throws(Failure) -> PeerEntry {
        guard !isStopped.load(ordering: .relaxed) else { throw Failure(.invalidHandle) }
        guard counters.peers.wrappingAdd(1, ordering: .relaxed).newValue <= configuration.maximumPeers else {
            counters.peers.wrappingSubtract(1, ordering: .relaxed)
            throw Failure(.limit, "there are as many peers as max_peers allows: \(configuration.maximumPeers)")
        }
        guard peer.channels.count <= configuration.maximumChannels else {
            counters.peers.wrappingSubtract(1, ordering: .relaxed)
            throw Failure(.limit, "more channels than max_channels allows: \(configuration.maximumChannels)")
        }
        let made = HandleTable.shared.insert { number in
            let entry = PeerEntry(handle: number, tag: peer.tag, negotiation: peer.negotiation, engine: self)
            return (entry, .peer(entry))
        }
        guard let made else {
            counters.peers.wrappingSubtract(1, ordering: .relaxed)
            throw Failure(.limit, "too many handles are in use")
        }
        return made
    }
}

// MARK: - What handles stand for

extension Engine {
    /// The engine with this handle.
    public static func find(_ handle: UInt64) -> Engine? {
        guard case .engine(let engine) = HandleTable.shared.find(handle) else { return nil }
        return engine
    }

    /// True in a child process of the one that made an engine: nothing works there.
    public static var isForked: Bool { cs_forked() != 0 }
}

/// A peer as host threads address it.
public struct PeerReference {
    let entry: PeerEntry

    public init?(_ handle: UInt64) {
        guard case .peer(let entry) = HandleTable.shared.find(handle), !entry.isClosed.load(ordering: .relaxed) else {
            return nil
        }
        self.entry = entry
    }

    public func offer(tag: UInt64) throws(Failure) {
        try requireManual()
        try entry.ask(.offer(entry, tag))
    }

    public func accept(_ answer: RawSpan, tag: UInt64) throws(Failure) {
        try requireManual()
        let description = try Describing.description(try Describing.answer(answer))
        try entry.ask(.accept(entry, description, tag))
    }

    public func addCandidate(_ candidate: RawSpan) throws(Failure) {
        try entry.ask(.candidate(entry, try Describing.candidate(candidate)))
    }

    /// Takes a message of the other side; what it leads to comes as ``Event/Kind/peerSignal``.
    public func signal(_ message: RawSpan) throws(Failure) {
        try requireNegotiating()
        try entry.ask(.signal(entry, try Describing.signal(message)))
    }

    /// Restarts ICE; begins with a peer that has not connected yet.
    public func restart() throws(Failure) {
        try requireNegotiating()
        try entry.ask(.restart(entry))
    }

    private func requireManual() throws(Failure) {
        guard entry.negotiation == .manual else {
            throw Failure(.wrongState, "the peer negotiates by itself: its messages go to reconnect_peer_signal()")
        }
    }

    private func requireNegotiating() throws(Failure) {
        guard entry.negotiation != .manual else {
            throw Failure(.wrongState, "the peer's negotiation is manual: it takes one offer or one answer")
        }
    }

    public func close() throws(Failure) { try entry.ask(.closePeer(entry)) }

    public func queryStatistics(tag: UInt64) throws(Failure) { try entry.ask(.statistics(entry, tag)) }

    public func openChannel(_ configuration: ChannelConfiguration) throws(Failure) -> UInt64 {
        let channel = try ChannelEntry.make(configuration, peer: entry)
        try entry.ask(.openChannel(channel, configuration))
        return channel.handle
    }
}

/// A channel as host threads address it.
public struct ChannelReference {
    let entry: ChannelEntry

    public init?(_ handle: UInt64) {
        guard case .channel(let entry) = HandleTable.shared.find(handle) else { return nil }
        self.entry = entry
    }

    public func send(isText: Bool, _ bytes: RawSpan) -> Status {
        guard !entry.isClosing.load(ordering: .relaxed) else { return .closed }
        guard bytes.byteCount <= entry.messageLimit.load(ordering: .relaxed) else { return .tooLarge }
        guard entry.reserve(bytes.byteCount) else { return .wouldBlock }
        return entry.peer.inbox.push(.send(entry, isText: isText, Payload.copying(bytes))) ? .ok : .invalidHandle
    }

    public var buffered: Int { entry.buffered }

    public func setLowWater(_ bytes: Int) {
        entry.lowWater.store(bytes, ordering: .relaxed)
        entry.announcesLowWater.store(true, ordering: .relaxed)
        entry.peer.inbox.push(.checkLowWater(entry))
    }

    public func close() -> Status {
        guard !entry.isClosing.exchange(true, ordering: .relaxed) else { return .closed }
        return entry.peer.inbox.push(.closeChannel(entry)) ? .ok : .invalidHandle
    }
}

extension PeerEntry {
    func ask(_ command: Command) throws(Failure) {
        guard inbox.push(command) else {
            command.abandon()
            throw Failure(.invalidHandle, "the engine is gone")
        }
    }
}

extension ChannelEntry {
    /// Until the other side's description is known: what RFC 8841 section 6.1 lets every receiver take.
    static let unknownMessageLimit = 65536

    static func make(_ configuration: ChannelConfiguration, peer: PeerEntry) throws(Failure) -> ChannelEntry {
        let limit = peer.maximumChannels
        guard peer.channelCount.wrappingAdd(1, ordering: .relaxed).newValue <= limit else {
            peer.channelCount.wrappingSubtract(1, ordering: .relaxed)
            throw Failure(.limit, "the peer has as many channels as max_channels allows: \(limit)")
        }
        let made = HandleTable.shared.insert { handle in
            let entry = ChannelEntry(
                handle: handle, tag: configuration.tag, peer: peer, highWater: peer.sendHighWater,
                lowWater: configuration.lowWater, messageLimit: unknownMessageLimit)
            return (entry, .channel(entry))
        }
        guard let made else {
            peer.channelCount.wrappingSubtract(1, ordering: .relaxed)
            throw Failure(.limit, "too many handles are in use")
        }
        return made
    }
}
