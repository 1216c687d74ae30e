import CSystem
import ICE
import STUN
import TURN
import Wire

/// All relays that are reached from one UDP port: the engine's, or one peer's. Begins as soon as its environment has
/// servers. Belongs to the loop: after it was made and after each call (and when ``onActivity`` says so) take
/// ``pollTransmit(into:now:)`` and then ``pollEvent()`` until both are nil, and keep ``nextTimeout``.
///
/// Over UDP every server has one allocation for the port, whatever peers there are (RFC 8656 section 3.2: the 5-tuple
/// names it); over TCP and TLS each has a connection of its own, which is read and written here.
///
/// At most ``RelayEnvironment/Settings/maximumAllocations`` servers are used: the first that answer, of those that are
/// asked in the order of what was measured before; one that does not answer delays no other.
final class RelayGroup {
    let environment: RelayEnvironment
    let port: UInt16
    let isIPv4: Bool
    let maximumAllocations: Int

    /// A connection, a name or the environment gave this group something to send or to tell. To be noted only, not
    /// acted on at once.
    var onActivity: () -> Void = {}
    /// Gets peers' datagrams that come over TCP and TLS: peer, relayed address, bytes.
    var deliver: (SocketAddress, SocketAddress, RawSpan) -> Void = { _, _, _ in }

    var legs: [RelayLeg] = []
    /// Legs over UDP, by the server's address: one for each 5-tuple.
    var legByServer: [SocketAddress: RelayLeg] = [:]
    var legByRelayed: [SocketAddress: RelayLeg] = [:]
    var outbox = RelayOutbox()
    var events = Queue<RelayEvent>()
    var hasChanged = false
    var race: Race?
    /// Servers' names without address that were told of.
    var unnamed = Set<RelayServer>()
    /// Whose credentials were asked for, and until when the old ones are good.
    var toldCredentials: [RelayServer: Instant] = [:]
    var needsArranging = true
    /// What could not be sent because there was no relay for it.
    var dropped: UInt64 = 0
    private(set) var isClosing = false
    var random: any RandomNumberGenerator

    /// Who was heard of so lately need not be asked.
    private static let recently = Duration.milliseconds(100)

    /// Some servers are being asked.
    struct Race {
        let begun: Instant
        var started = 0
        /// When the next one may begin.
        var next: Instant
        /// When to look again; nil: nothing to wait for.
        var due: Instant?
    }

    /// - Parameter maximumAllocations: fewer than the environment's, for one peer's port.
    convenience init(_ environment: RelayEnvironment, port: Port, maximumAllocations: Int? = nil, now: Instant) {
        self.init(
            environment, port: port.number, isIPv4: port.isIPv4, maximumAllocations: maximumAllocations, now: now)
    }

    init(
        _ environment: RelayEnvironment, port: UInt16, isIPv4: Bool, maximumAllocations: Int? = nil, now: Instant
    ) {
        self.environment = environment
        self.maximumAllocations = max(1, maximumAllocations ?? environment.settings.maximumAllocations)
        self.port = port
        self.isIPv4 = isIPv4
        random = environment.random()
        environment.add(self)
        settle(now)
    }

    // MARK: What there is

    /// Relayed addresses, the best first; their base is nil, the related address is the port as the server sees it.
    /// Priorities of those that stay are the same.
    var candidates: [Candidate] {
        let offered = legs.filter { $0.isHeld && !$0.relayed.isEmpty }.sorted { $0.preference > $1.preference }
        return offered.flatMap { leg in
            leg.relayed.enumerated().map { index, address in
                let priority = Candidate.priority(.relayed, localPreference: leg.preference &- UInt16(index))
                return Candidate(
                    kind: .relayed, address: address, priority: priority,
                    relatedAddress: leg.mapped ?? SocketAddress(ip: .anyIPv4, port: 0))
            }
        }
    }

    /// The UDP port as servers see it, each address once.
    var reflexive: [SocketAddress] {
        var seen = Set<SocketAddress>()
        return legs.compactMap { $0.isHeld && !$0.isStream ? $0.mapped : nil }
            .filter { seen.insert($0).inserted }
    }

    /// True while a server may yet give a relay: it is being asked, or its name looked up.
    var isGathering: Bool {
        guard !isClosing, !legs.contains(where: \.isHeld) else { return false }
        return legs.contains(where: \.isAttempt)
            || environment.servers.contains { environment.isBeingResolved(RelayServer($0)) }
    }

    /// A relayed address of ours.
    func owns(_ local: SocketAddress) -> Bool { legByRelayed[local] != nil }

    func transport(of local: SocketAddress) -> (RelayTransport, server: SocketAddress)? {
        legByRelayed[local].map { ($0.endpoint.server.transport, $0.client.server) }
    }

    func pollEvent() -> RelayEvent? {
        if hasChanged {
            hasChanged = false
            return .candidatesChanged
        }
        return events.popFirst()
    }

    // MARK: Datagrams

    /// Takes a datagram that came on the UDP port, if it is a server's and TURN. `deliver` gets a peer's datagram in
    /// it: peer, relayed address, bytes.
    func handle(
        _ datagram: RawSpan, from source: SocketAddress, now: Instant,
        deliver: (SocketAddress, SocketAddress, RawSpan) -> Void
    ) -> Bool {
        guard let leg = legByServer[source] else { return false }
        // The same server may be asked by STUN for the port's own address, and answers that from here too.
        guard datagram.byte(0) >> 6 == 1 || STUN.isMessage(datagram) && !RelayGroup.isBinding(datagram) else {
            return false
        }
        let disposition = leg.client.handle(datagram: datagram, from: source, now: now) { peer, data in
            if let relayed = leg.relayed(for: peer.ip) { deliver(peer, relayed, data) }
        }
        if case .ignored = disposition { return true }
        heard(leg, now)
        if case .consumed = disposition { settle(now) }
        return true
    }

    /// RFC 8489 section 5: method 1, of any class.
    private static func isBinding(_ datagram: RawSpan) -> Bool {
        (datagram.load(bigEndianAt: 0, as: UInt16.self) ?? 0) & 0x3EEF == 1
    }

    /// Queues a datagram for a peer: through `relayed`, to `peer`. The permission is asked for with the first one, and a
    /// channel after some.
    ///
    /// - Returns: false if it was dropped; it is counted then.
    @discardableResult
    func send(_ datagram: RawSpan, from relayed: SocketAddress, to peer: SocketAddress, now: Instant) -> Bool {
        guard let leg = legByRelayed[relayed] else {
            dropped &+= 1
            return false
        }
        guard relayed.ip.isIPv4 == peer.ip.isIPv4, peer.port != 0,
            leg.peers.use(peer, of: leg.client, threshold: environment.settings.channelThreshold, now: now),
            leg.isStream ? write(datagram, to: peer, over: leg, now) : outbox.append(datagram, leg, peer)
        else {
            leg.dropped &+= 1
            return false
        }
        return true
    }

    /// Bytes that a datagram to this peer gets on its way to the server.
    func overhead(from relayed: SocketAddress, to peer: SocketAddress, now: Instant) -> Int {
        legByRelayed[relayed]?.client.overhead(to: peer, now: now) ?? 0
    }

    /// This path is going to be used: a channel for it at once.
    func prefer(from relayed: SocketAddress, to peer: SocketAddress, now: Instant) {
        guard let leg = legByRelayed[relayed], relayed.ip.isIPv4 == peer.ip.isIPv4 else { return }
        guard leg.peers.use(peer, of: leg.client, threshold: .max, now: now) else { return }
        leg.peers.bind(peer, of: leg.client, now: now)
    }

    /// Writes the next datagram for the UDP port; where to send it, or nil if there is none. Connections are written
    /// too.
    func pollTransmit(into output: inout OutputRawSpan, now: Instant) -> SocketAddress? {
        while true {
            for leg in legs where !leg.isStream {
                if let to = leg.client.pollTransmit(into: &output, now: now) { return to }
            }
            guard let entry = outbox.first else { break }
            let leg = entry.leg
            let outcome =
                outbox.withBytes(of: entry) { leg.client.send($0, to: entry.peer, into: &output, now: now) } ?? .noRoom
            outbox.removeFirst()
            switch outcome {
            case .written: return leg.client.server
            // The client asks for the permission first.
            case .waiting: break
            case .noAllocation, .notPermitted, .noRoom: leg.dropped &+= 1
            }
        }
        writeConnections(now)
        // What was sent may have come to nothing at once.
        settle(now)
        return nil
    }

    // MARK: Time

    var nextTimeout: Instant? {
        var next = race?.due ?? .distantFuture
        for leg in legs { next = min(next, timeout(of: leg)) }
        return next == .distantFuture ? nil : next
    }

    func handleTimeout(now: Instant) {
        for leg in Array(legs) {
            if let due = leg.client.nextTimeout, due <= now { leg.client.handleTimeout(now: now) }
            fire(leg, now)
        }
        if let due = race?.due, due <= now { needsArranging = true }
        settle(now)
    }

    /// A peer suspects a path over this address: asks the server at once whether it is there.
    func doubt(relayed: SocketAddress, now: Instant) {
        guard let leg = legByRelayed[relayed], leg.lastHeard + RelayGroup.recently <= now else { return }
        ask(leg, now)
    }

    // MARK: Life

    /// Gives everything back; what there is to send is sent with the next ``pollTransmit(into:now:)`` calls, and
    /// answers are waited for while ``nextTimeout`` is not nil.
    func close(now: Instant) {
        guard !isClosing else { return }
        isClosing = true
        race = nil
        outbox.removeAll()
        for leg in Array(legs) { giveBack(leg, now) }
        settle(now)
    }

    var isClosed: Bool { isClosing && legs.isEmpty }

    /// Does what has become due, until nothing is left to do.
    func settle(_ now: Instant) {
        for leg in Array(legs) { drain(leg, now) }
        var turns = 0
        while needsArranging, turns < 256 {
            needsArranging = false
            turns += 1
            arrange(now)
            for leg in Array(legs) { drain(leg, now) }
        }
    }
}
