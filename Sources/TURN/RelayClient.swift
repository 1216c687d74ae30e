import STUN
public import Wire

/// A client of one TURN server with one allocation (RFC 8656). It owns no socket and no clock: give it what arrives
/// from the server and the time, and after every call take what it has, ``pollTransmit(into:now:)`` and
/// ``pollEvent()`` until both are nil, and call ``handleTimeout(now:)`` when ``nextTimeout`` has come.
///
/// One client for a 5-tuple: a server has one allocation for each (RFC 8656 section 3.2), so clients of one server
/// need ports of their own. Over TCP and TLS somebody else owns the stream; see ``handle(stream:now:deliver:)``.
///
/// Bounded: transactions, permissions, channels, peers' datagrams that wait, challenges and redirections have limits.
public final class RelayClient {
    enum Timer: Int, CaseIterable, Sendable {
        case refresh
        case expiry
        case permissions
        case channels
        case keepalive
        case credentials
        case close
    }

    enum Phase {
        case idle
        case allocating
        /// The host was asked for another 5-tuple.
        case awaitingConnection
        case allocated(Held)
        /// On a new 5-tuple, with the ticket of the allocation.
        case moving(Held)
        case closing
        case closed
        case failed(Failure)
    }

    /// An allocation that the server holds.
    struct Held {
        var allocation: Allocation
        var expires: Instant
        var ticket: [UInt8]?
    }

    let configuration: Configuration
    public let transport: RelayTransport
    /// Where everything goes; another one after a redirection.
    public internal(set) var server: SocketAddress
    /// Counters, for metrics and for tests.
    public internal(set) var statistics = Statistics()
    /// Smoothed, of requests that were answered at their first transmission; nil until there is one.
    public internal(set) var roundTrip: Duration?

    var random: any RandomNumberGenerator
    var phase = Phase.idle
    var timers = TimerTable<Timer>()
    var transactions: [Transaction] = []
    var events = Queue<Event>()

    /// What requests are made with.
    var credentials: RelayCredentials?
    /// Given later. The allocation keeps those that it was made with until the server refuses them: RFC 8656 section 5
    /// ties it to the user's name.
    var newest: RelayCredentials?
    /// The server refused what there is, and the host was told.
    var isAwaitingCredentials = false
    var authentication: LongTermCredentials?

    var usesMobility: Bool
    var namesFamily = true
    var redirections = 0
    var mismatches = 0
    var visited: [(server: SocketAddress, at: Instant)] = []

    var permissions: [IPAddress: Permission] = [:]
    /// To be asked for, first come, first served; may name some that are gone.
    var wantedPermissions = Queue<IPAddress>()
    var channels: [SocketAddress: Channel] = [:]
    var channelPeers: [UInt16: SocketAddress] = [:]
    var wantedChannels = Queue<SocketAddress>()
    /// Those that are wanted, without those that only linger.
    var activeChannels = 0
    var nextChannel = firstChannel
    var waiting = Queue<Waiting>()
    var waitingBytes = 0

    var frames = Frames()
    /// Counts 5-tuples: what is left of the stream before is not read.
    var connection = 0
    /// False: surely no transaction waits to be sent.
    var hasToSend = false
    var lastSent = Instant(nanoseconds: .min)
    var isKeepaliveDue = false

    /// - Parameters:
    ///   - credentials: nil for a server that asks for none; an answer that is not signed counts only then.
    ///   - random: must not be guessable.
    public init(
        _ configuration: Configuration = Configuration(), server: SocketAddress, transport: RelayTransport,
        credentials: RelayCredentials?, random: any RandomNumberGenerator
    ) {
        self.configuration = configuration
        self.server = server
        self.transport = transport
        self.credentials = credentials
        self.random = random
        usesMobility = configuration.wantsMobility
    }

    /// What the server gave; nil while there is nothing to send through.
    public var allocation: Allocation? {
        if case .allocated(let held) = phase { held.allocation } else { nil }
    }

    /// Until when the allocation lives if nothing more is heard of the server.
    public var allocationExpires: Instant? { held?.expires }

    public var failure: Failure? { if case .failed(let failure) = phase { failure } else { nil } }

    /// What of the server's is used at once, at most.
    public var limits: (permissions: Int, channels: Int) {
        (configuration.maximumPermissions, configuration.maximumChannels)
    }

    /// The user that requests are made by.
    public var username: String? { credentials?.username }

    /// When ``handleTimeout(now:)`` must be called; nil if nothing is awaited.
    public var nextTimeout: Instant? {
        var next = timers.nextTimeout ?? .distantFuture
        for transaction in transactions { next = min(next, transaction.deadline) }
        return next == .distantFuture ? nil : next
    }

    public func pollEvent() -> Event? { events.popFirst() }

    // MARK: Life

    /// Asks for an allocation; on a stream when it is open (with TLS: when the handshake is done). Also after a failure,
    /// if the 5-tuple still is good: permissions and channels that were wanted are asked for again.
    public func start(now: Instant) {
        switch phase {
        case .idle, .failed: break
        default: return
        }
        redirections = 0
        mismatches = 0
        visited = []
        allocate(now: now)
    }

    /// Everything goes over another 5-tuple from now on: another local address or port, or another stream, which is
    /// open. The allocation is taken along if the server can do that, and asked for anew otherwise. Call it only after
    /// ``start(now:)``.
    ///
    /// - Parameter server: where it leads, if that is another server than before.
    public func connectionChanged(server other: SocketAddress? = nil, now: Instant) {
        switch phase {
        case .idle, .closing, .closed: return
        default: break
        }
        connection &+= 1
        frames.removeAll()
        removeTransactions()
        isKeepaliveDue = false
        if let other, other != server {
            server = other
            authentication = nil
        }
        let isElsewhere = other.map { $0 != held?.allocation.server } ?? false
        if let held, held.ticket != nil, held.expires > now, !isElsewhere {
            parked = nil
            phase = .moving(held)
            timers[.refresh] = nil
            timers[.expiry] = held.expires
            begin(.move, now)
        } else {
            allocate(now: now)
        }
    }

    /// Instead of ``connectionChanged(server:now:)`` after ``ConnectionReason/mismatch``, where there is no other 5-tuple:
    /// gives back what this user's allocation there is, left by an earlier run perhaps, and asks for another.
    public func reclaim(now: Instant) {
        guard case .awaitingConnection = phase else { return }
        phase = .allocating
        begin(.reclaim, now)
    }

    /// The stream ended. ``connectionChanged(server:now:)`` goes on with another one.
    public func connectionClosed(now: Instant) {
        guard transport.isStream else { return }
        switch phase {
        case .idle, .closed, .failed, .awaitingConnection: return
        case .closing: finish()
        case .allocated(let held) where held.ticket != nil:
            // The server keeps it until it expires; the next stream can have it.
            removeTransactions()
            timers.removeAll()
            dropWaiting()
            phase = .failed(.connectionClosed)
            parked = held
            events.append(.failed(.connectionClosed))
        default: fail(.connectionClosed)
        }
    }

    /// Gives the allocation back. Nothing is sent or received any more; ``Event/closed`` says when the server knows or
    /// when that has been waited for long enough.
    public func close(now: Instant) {
        switch phase {
        case .closing, .closed: return
        case .allocated, .moving, .allocating:
            let isKnown = authentication != nil || credentials == nil
            removeTransactions()
            timers.removeAll()
            forgetPeers()
            guard isKnown else { return finish() }
            phase = .closing
            timers[.close] = now + configuration.closeTimeout
            // RFC 8656 section 7.2: a lifetime of zero deletes the allocation.
            begin(.deallocate, now)
        case .idle, .failed, .awaitingConnection:
            removeTransactions()
            timers.removeAll()
            forgetPeers()
            finish()
        }
    }

    /// Asks at once whether the server still has the allocation, for whoever thinks that a path is dead.
    public func probe(now: Instant) {
        guard case .allocated = phase, !transactions.contains(where: { $0.request == .refresh }) else { return }
        begin(.refresh, now)
    }

    /// Others, before these end or after the server has refused them. An allocation that exists is not touched.
    public func setCredentials(_ credentials: RelayCredentials, now: Instant) {
        switch phase {
        case .allocated, .moving:
            newest = credentials
            if isAwaitingCredentials {
                takeNewest()
                begin(.refresh, now)
            }
            armCredentials(now)
        case .allocating:
            self.credentials = credentials
            authentication = nil
            removeTransactions()
            begin(.allocate, now)
            armCredentials(now)
        case .idle, .awaitingConnection, .failed, .closing, .closed:
            self.credentials = credentials
            newest = nil
            authentication = nil
        }
    }

    public func handleTimeout(now: Instant) {
        var index = 0
        while index < transactions.count {
            guard transactions[index].deadline <= now else {
                index += 1
                continue
            }
            if transactions[index].refusal == nil, !transport.isStream,
                transactions[index].transmissions < configuration.transmissions
            {
                sendAgain(index, now)
                index += 1
            } else {
                let transaction = transactions.remove(at: index)
                if let code = transaction.refusal { refused(transaction, code, now) } else { expired(transaction, now) }
                // Anything may have been added or removed.
                index = 0
            }
        }
        while let timer = timers.expired(at: now) { handle(timer, now) }
    }

    private func handle(_ timer: Timer, _ now: Instant) {
        switch timer {
        case .refresh:
            if case .allocated = phase, !isAwaitingCredentials { probe(now: now) }
        case .expiry: fail(isAwaitingCredentials ? .wrongCredentials : .allocationLost)
        case .permissions: refreshPermissions(now)
        case .channels: refreshChannels(now)
        case .keepalive: keepAlive(now)
        case .credentials:
            if let expires = (newest ?? credentials)?.expires { events.append(.credentialsNeeded(by: expires)) }
        case .close: finish()
        }
    }

    // MARK: States

    var held: Held? {
        switch phase {
        case .allocated(let held), .moving(let held): held
        default: parked
        }
    }

    /// The allocation of a stream that ended.
    var parked: Held?

    func removeTransactions() {
        for transaction in transactions { release(transaction.request) }
        transactions.removeAll()
        hasToSend = false
    }

    func finish() {
        removeTransactions()
        timers.removeAll()
        phase = .closed
        events.append(.closed)
    }

    func fail(_ failure: Failure) {
        parked = nil
        removeTransactions()
        timers.removeAll()
        dropWaiting()
        isAwaitingCredentials = false
        phase = .failed(failure)
        events.append(.failed(failure))
    }

    /// A new allocation: nothing of another one counts.
    func allocate(now: Instant) {
        if let newest { credentials = newest }
        if newest != nil || authentication?.username != credentials?.username { authentication = nil }
        newest = nil
        isAwaitingCredentials = false
        parked = nil
        timers.removeAll()
        removeTransactions()
        forgetGrants()
        phase = .allocating
        noteVisit(now)
        armCredentials(now)
        begin(.allocate, now)
    }

    /// When the host is to be told that the credentials end.
    func armCredentials(_ now: Instant) {
        timers[.credentials] = nil
        guard let expires = (newest ?? credentials)?.expires else { return }
        timers[.credentials] = max(now, expires - configuration.credentialMargin)
    }

    func jittered(_ duration: Duration) -> Duration {
        duration - duration / 1000 * Int64.random(in: 0...50, using: &random)
    }
}
