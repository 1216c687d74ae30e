import CSystem
import DataChannel
import Reload
import Signaling
import Wire

/// The control channel: tickets to clients that take them, and heartbeats. Hosts do not see it.
extension Loop {
    static let controlParameters = ChannelParameters(label: "reconnect")

    func openControl(_ connection: Connection) {
        guard connection.control == nil else { return }
        connection.control = try? connection.peer.openChannel(
            Loop.controlParameters, negotiatedStream: Signaling.ControlMessage.stream, now: now)
    }

    /// A server's side is open: a client that came with a ticket has no token yet, another one has both.
    func controlOpened(_ connection: Connection) {
        connection.isControlOpen = true
        guard connection.peer.role == .answerer else { return }
        let isNew = connection.session?.mode == .zeroSignaling || !connection.hasTicket
        connection.ticketDue = isNew ? now : now + ticketRefreshInterval
    }

    func controlMessage(_ connection: Connection, isText: Bool, _ payload: Payload) {
        guard isText, connection.controlBudget.take(now: now),
            let message = try? decodeControl(payload.copied().span.bytes)
        else { return engine.counters.controlDropped.count() }
        switch message {
        case .ping(let id): sendControl(connection, .pong(id))
        case .pong: break
        case .ticket(let ticket, let token):
            guard connection.peer.role == .offerer else { return engine.counters.controlDropped.count() }
            controlReceived(ticket: ticket, token: token, connection)
        }
    }

    func sendControl(_ connection: Connection, _ message: Signaling.ControlMessage) {
        guard let control = connection.control, !connection.peer.isClosed, let bytes = try? encode(message) else {
            return
        }
        // A client that does not acknowledge loses a refresh, and gets the next one.
        guard connection.peer.bufferedAmount(control) < 16 << 10 else { return }
        try? connection.peer.send(control, isText: true, Payload.copying(bytes.span.bytes), now: now)
        markDirty(connection)
    }

    /// Gives a connected client a new ticket, well before the old one expires.
    func refreshTicket(_ connection: Connection) {
        connection.ticketDue = now + ticketRefreshInterval
        guard connection.isControlOpen, let client = connection.client,
            let fingerprint = connection.peer.provenFingerprint.flatMap({ ClientFingerprint(digest: $0.bytes) }),
            let ticket = makeTicket(for: client, fingerprint, connection)
        else { return }
        let isFirst = !connection.hasTicket
        connection.hasTicket = true
        let token = isFirst && connection.session?.mode == .zeroSignaling ? connection.session?.grant.token.text : nil
        sendControl(connection, .ticket(ticket, sessionToken: token))
    }

    /// The addresses that tickets and answers name have changed: clients are told, one after the other.
    func refreshAllTickets() {
        for connection in connections.values where connection.isControlOpen && connection.peer.role == .answerer {
            let delay = Duration.milliseconds(Int64.random(in: 0...500, using: &random))
            connection.ticketDue = min(connection.ticketDue, now + delay)
            markDirty(connection)
        }
    }
}

/// How many control messages are listened to: twenty at once, five in a second.
struct ControlBudget {
    private var tokens = 20.0
    private var filled = Instant(nanoseconds: 0)

    mutating func take(now: Instant) -> Bool {
        let seconds = Double(max(0, (now - filled).nanoseconds)) / 1e9
        tokens = min(20, tokens + min(seconds, 60) * 5)
        filled = now
        guard tokens >= 1 else { return false }
        tokens -= 1
        return true
    }
}
