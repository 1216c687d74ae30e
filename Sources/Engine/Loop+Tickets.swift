import CSystem
import DTLS
import ICE
import Peer
import Reload
import SCTP
import STUN
import Signaling
import Synchronization
import Wire

/// What the loop needs to give out tickets and to take them back.
final class TicketOffice {
    let keys: TicketKeys
    let limiter: SourceLimiter
    let replays: ReplayFilter
    /// Peers made from tickets, by the whole USERNAME of their checks: one ticket may come back more than once.
    var byUsername: [[UInt8]: Connection] = [:]
    /// Those of a client that are not authenticated yet.
    var unproven: [ClientID: [Connection]] = [:]
    /// Whose tickets are worth nothing any more, until the last of them has expired.
    private var revoked = Revocations(capacity: 100_000)
    private let lifetime: Duration

    /// `lifetime`: no ticket lives longer.
    init(secrets: [[UInt8]], lifetime: Duration, using random: inout some RandomNumberGenerator) {
        self.lifetime = lifetime
        var settings = TicketKeys.Configuration()
        settings.maximumLifetime = max(settings.maximumLifetime, lifetime.milliseconds / 1000 + 1)
        keys = TicketKeys(secrets: secrets, configuration: settings)
        limiter = SourceLimiter(using: &random)
        replays = ReplayFilter(lifetime: lifetime, using: &random)
    }

    func revoke(_ client: ClientID, now: Instant) { revoked.insert(client, until: now + lifetime, now: now) }

    func isRevoked(_ client: ClientID, now: Instant) -> Bool { revoked.contains(client, now: now) }

    /// The first seals, all open: the host's, or what the certificates give, replaced ones included.
    static func secrets(_ configuration: Configuration, _ certificates: CertificateSet) -> [[UInt8]] {
        let given = [configuration.ticketSecret, configuration.oldTicketSecret].compactMap(\.self)
        guard configuration.ticketSecret == nil else { return given }
        return certificates.all.compactMap { try? $0.certificate.deriveTicketSecret() } + given
    }
}

/// Clients that come without signaling (zero-signaling): their first packet is a check, its name is a ticket.
extension Loop {
    // MARK: Giving out

    /// A ticket outlives the connection by the session's life, whenever the connection ends between two refreshes.
    var ticketRefreshInterval: Duration { max(configuration.sessionLifetime / 4, .milliseconds(100)) }
    private var ticketLifetime: Duration { configuration.sessionLifetime + ticketRefreshInterval }

    func makeTicket(for client: ClientID, _ fingerprint: ClientFingerprint, _ connection: Connection) -> Ticket? {
        guard let tickets, effectiveFastReload == .on else { return nil }
        let own = certificates.current.certificate.fingerprint(.sha256)
        let expires = cs_unix_ns() / 1_000_000 + ticketLifetime.milliseconds
        let contents = TicketContents(
            clientID: client, fingerprint: fingerprint, expires: expires / 1000,
            certificate: certificates.current.certificate.identifier,
            // RFC 8841 section 6.1: zero takes any size.
            maximumMessageSize: UInt32(clamping: connection.peer.remoteMessageLimit.map { $0 == .max ? 0 : $0 } ?? 0),
            derivesInit: connection.derivesInit)
        guard let sealed = tickets.keys.seal(contents, wallClock: Engine.wallClock, using: &random) else { return nil }
        metrics.ticket(.issued)
        return Ticket(
            ufrag: sealed.ufrag, password: sealed.password, fingerprint: own.description,
            candidates: network.candidates.map(\.text),
            maxMessageSize: UInt64(configuration.maximumMessageSize), expires: expires,
            derivesInit: connection.derivesInit)
    }

    // MARK: Taking back

    /// The connection that a check with a ticket for a name is for. One that nobody knows yet is made, once the check has shown
    /// that its sender has the ticket's password: until then nothing is allocated and nothing is answered.
    func returning(_ datagram: RawSpan, username: RawSpan, from remote: SocketAddress, to local: SocketAddress)
        -> Connection?
    {
        guard let tickets else { return nil }
        let name = username.copied()
        if let known = tickets.byUsername[name] { return known }
        guard tickets.limiter.admits(remote.ip, now: now) else { return dropped() }
        guard let message = try? Message(datagram), message.messageClass == .request,
            message.method == MessageType.binding, let ufrag = message.receiverUfrag,
            let clientUfrag = message.senderUfrag,
            let password = tickets.keys.password(for: ufrag, wallClock: Engine.wallClock),
            message.isAuthentic(IntegrityKey(password: password))
        else { return dropped() }
        let contents: TicketContents
        switch tickets.keys.open(ufrag, wallClock: Engine.wallClock) {
        case .contents(let opened): contents = opened
        case .expired: return refuse(message, 438, password, from: local, to: remote, .expired)
        case .unknownVersion: return refuse(message, 400, password, from: local, to: remote, .unsupported)
        case .forged: return dropped()
        }
        guard effectiveFastReload == .on else {
            return refuse(message, 403, password, from: local, to: remote, .disabled)
        }
        guard let provider = certificates.context(identifiedBy: contents.certificate) else {
            return refuse(message, 438, password, from: local, to: remote, .otherCertificate)
        }
        guard !tickets.isRevoked(contents.clientID, now: now) else {
            return refuse(message, 403, password, from: local, to: remote, .revoked)
        }
        // Asked before the filter: a client that finds no room may try again.
        guard engine.hasRoom else { return dropped() }
        // A client's fragment is new for each connection: a name whose peer is gone was copied from the wire, or comes late.
        guard !tickets.replays.isReplay(UInt64(bitPattern: Int64(name.hashValue)), 0, now: now) else {
            return dropped()
        }
        let client = Peer.ReturningClient(
            credentials: contents, ticket: String(decoding: ufrag.copied(), as: UTF8.self),
            password: String(decoding: password, as: UTF8.self),
            clientUfrag: String(decoding: clientUfrag.copied(), as: UTF8.self))
        guard let client, let connection = makeReturning(client, contents, provider, name) else {
            return dropped()
        }
        tickets.limiter.refund(remote.ip, now: now)
        return connection
    }

    private func makeReturning(
        _ client: Peer.ReturningClient, _ contents: TicketContents, _ provider: any SecureTransportProvider,
        _ name: [UInt8]
    ) -> Connection? {
        guard let tickets else { return nil }
        let request = configuration.returningPeer
        guard let entry = try? engine.makeEntry(request) else { return nil }
        let connection: Connection
        do throws(Failure) {
            connection = try makeConnection(entry, role: .answerer, request, provider: provider, returning: client)
        } catch {
            abandon(entry, error)
            return nil
        }
        connection.username = name
        connection.wantsTicket = true
        connection.derivesInit = contents.derivesInit
        // A store elsewhere has the round trips of the handshake, two or three, to say what it knows.
        sessions.prefetch(contents.clientID)
        connection.session = sessions.resume(contents.clientID, fingerprint: contents.fingerprint, now: now)
        connection.claimedClient = contents.clientID
        attempted(connection)
        openControl(connection)
        tickets.byUsername[name] = connection
        var others = tickets.unproven[contents.clientID] ?? []
        // Whoever has the ticket and not its client's key can keep two peers busy, not more.
        if others.count >= 2 {
            let oldest = others.removeFirst()
            oldest.peer.close(now: now)
            markDirty(oldest)
        }
        others.append(connection)
        tickets.unproven[contents.clientID] = others
        metrics.ticket(.accepted)
        metrics.answered(mode: .zeroSignaling)
        for channel in connection.channels.values { setLimit(of: channel.entry, connection) }
        return connection
    }

    /// The client has shown its key, or the peer is gone.
    func forgetUnproven(_ connection: Connection) {
        guard let client = connection.claimedClient else { return }
        connection.claimedClient = nil
        tickets?.unproven[client]?.removeAll { $0 === connection }
        if tickets?.unproven[client]?.isEmpty ?? false { tickets?.unproven[client] = nil }
    }

    // MARK: Refusing

    func revoke(_ client: ClientID) {
        tickets?.revoke(client, now: now)
        lateWelcomes.removeAll { $0.claimedClient == client }
        let live = connections.values.filter { $0.client == client || $0.claimedClient == client }
        for connection in live {
            connection.peer.close(now: now)
            markDirty(connection)
        }
        sessions.forget(client)
        engine.counters.sessions.store(sessions.count, ordering: .relaxed)
    }

    /// Without a word: to whoever has not shown the ticket's password, or is not heard at all.
    private func dropped() -> Connection? {
        metrics.ticket(.dropped)
        return nil
    }

    /// To the holder of the ticket's password, and only to it: so that its agent need not wait for a timeout.
    private func refuse(
        _ message: borrowing Message, _ code: Int, _ password: [UInt8], from local: SocketAddress,
        to remote: SocketAddress, _ reason: TicketRefusal
    ) -> Connection? {
        let key = IntegrityKey(password: password)
        send { output in
            writeErrorResponse(code: code, to: message, key: key, into: &output)
            return (remote, local)
        }
        metrics.ticket(.refused(reason))
        return nil
    }
}

extension Peer.ReturningClient {
    init?(credentials contents: TicketContents, ticket: String, password: String, clientUfrag: String) {
        guard let credentials = Credentials(ufrag: ticket, password: password),
            let fingerprint = Fingerprint(algorithm: .sha256, bytes: contents.fingerprint.digest)
        else { return nil }
        self.init(
            credentials: credentials, clientUfrag: clientUfrag, fingerprint: fingerprint,
            maximumMessageSize: UInt64(contents.maximumMessageSize),
            derivedInits: contents.derivesInit
                ? Peer.DerivedInits(password: password, clientUfrag: clientUfrag, isClient: false) : nil)
    }
}

extension Peer.DerivedInits {
    /// Both ends know the ticket's password and the client's ufrag, and the latter is new for each connection.
    init?(password: String, clientUfrag: String, isClient: Bool) {
        guard let seeds = InitDerivation.seeds(password: password, clientUfrag: clientUfrag) else { return nil }
        let client = DerivedInit(seed: seeds.client)
        let server = DerivedInit(seed: seeds.server)
        self.init(local: isClient ? client : server, remote: isClient ? server : client)
    }
}

extension DerivedInit {
    fileprivate init(seed: [UInt8]) {
        let bytes = seed.span.bytes
        self.init(tag: bytes.load(bigEndianAt: 0) ?? 0, initialTSN: bytes.load(bigEndianAt: 4) ?? 0)
    }
}
