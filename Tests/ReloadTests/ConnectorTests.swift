import Signaling
import Testing
import Wire

@testable import Reload

extension CacheEntry {
    static func sample(token: String = "session-a", at timestamp: Int64) -> CacheEntry {
        var entry = CacheEntry(lastSuccessfulProtocol: .ipv6, timestamp: timestamp, sessionID: token)
        entry.add(CandidateInit(candidate: "candidate:1 1 udp 2130706431 2001:db8::1 5000 typ host", sdpMid: "0"))
        entry.add(CandidateInit(candidate: "candidate:2 1 udp 2130706175 192.0.2.1 5000 typ host", sdpMid: "0"))
        return entry
    }
}

extension Ticket {
    static func sample(_ name: String = "lrc1/aaaa", expires: Int64) -> Ticket {
        Ticket(
            ufrag: name, password: String(repeating: "p", count: 24), fingerprint: "sha-256 00",
            candidates: ["candidate:1 1 udp 2130706431 2001:db8::1 5000 typ host"], maxMessageSize: 65536,
            expires: expires)
    }
}

/// A connector, its clock, and all it wanted.
final class Desk {
    var connector: Connector
    var now = Instant.at(1000)
    var wall: Int64 = 1_700_000_000_000
    var actions: [Connector.Action] = []
    var kept: CacheEntry?
    var ticket: Ticket?
    var network: UInt64 = 1

    init(_ policy: Connector.Policy = .race, usesTickets: Bool = true) {
        var configuration = Connector.Configuration()
        configuration.policy = policy
        configuration.usesTickets = usesTickets
        connector = Connector(configuration)
    }

    func remember(_ token: String = "session-a", ticket: Bool = true) {
        kept = .sample(token: token, at: wall - 1000)
        if ticket { self.ticket = .sample(expires: wall + 100_000) }
    }

    func connect(isFastReloadOn: Bool = true) -> Bool {
        let isBegun = connector.connect(
            Connector.Conditions(
                entry: kept, ticket: ticket, wallClock: wall, network: network, isFastReloadOn: isFastReloadOn),
            now: now)
        drain()
        return isBegun
    }

    func pass(_ duration: Duration) {
        now = now + duration
        wall += duration.milliseconds
        connector.handleTimeout(now: now)
        drain()
    }

    func answer(
        _ exchange: Int64, _ mode: ConnectionMode, token: String? = "session-b", ticket: Ticket? = nil
    ) {
        connector.answered(
            exchange,
            Connector.Answer(
                mode: mode, token: token, ticket: ticket,
                candidates: [CandidateInit(candidate: "candidate:9 1 udp 77 2001:db8::9 9 typ host")]), now: now)
        drain()
    }

    func open(_ attempt: Int, isIPv6: Bool = true) {
        connector.opened(attempt, isIPv6: isIPv6, wallClock: wall, now: now)
        drain()
    }

    func end(_ attempt: Int, _ reason: Connector.Reason = .peer(-42, "no path")) {
        connector.ended(attempt, reason, wallClock: wall, now: now)
        drain()
    }

    func drain() {
        while let action = connector.pollAction() {
            actions.append(action)
            switch action {
            case .store(let entry): kept = entry
            case .drop(let token): if kept?.sessionID == token { kept = nil }
            case .storeTicket(let new): ticket = new
            case .dropTicket(let old): if ticket == old { ticket = nil }
            default: break
            }
        }
    }

    func taken() -> [Connector.Action] {
        defer { actions = [] }
        return actions
    }

    /// What the host is told, shortened.
    func story() -> [String] {
        taken().compactMap { action in
            switch action {
            case .report(let report):
                "\(report.mode) \(report.outcome)" + (report.reason.map { " \($0)" } ?? "")
            case .connected(_, let mode, let replacing, _):
                "connected \(mode)" + (replacing.map { " replacing \($0)" } ?? "")
            case .failed(let reason, _): "failed \(reason)"
            case .lost(_, let mode, let reason): "lost \(mode) \(reason)"
            default: nil
            }
        }
    }
}

@Suite struct ConnectorPolicy {
    @Test func connectsNormallyTheFirstTime() {
        let desk = Desk()
        #expect(desk.connect())
        #expect(!desk.connect())
        #expect(
            desk.story() == ["zeroSignaling skipped notCached", "fast skipped notCached", "normal started"])
        desk.answer(1, .normal, ticket: .sample(expires: desk.wall + 9999))
        #expect(desk.kept == nil && desk.ticket == nil)
        desk.open(1)
        #expect(desk.story() == ["normal won", "connected normal"])
        #expect(desk.kept?.sessionID == "session-b" && desk.kept?.timestamp == desk.wall)
        #expect(desk.kept?[.ipv6Host].count == 1 && desk.kept?.lastConnectedIPv6 == true)
        #expect(desk.ticket != nil && desk.connector.nextTimeout == nil)
    }

    @Test func racesTheTicketAgainstSignaling() {
        let desk = Desk()
        desk.remember()
        #expect(desk.connect())
        #expect(desk.story() == ["zeroSignaling started", "fast started"])
        desk.open(1)
        #expect(desk.story() == ["zeroSignaling won", "fast stopped overtaken", "connected zeroSignaling"])
        // The token is still the one to come back with, until the server gives a new one on the connection.
        #expect(desk.kept?.sessionID == "session-a" && desk.kept?.timestamp == desk.wall)
        desk.answer(1, .fast)
        desk.open(2)
        desk.end(2)
        #expect(desk.story() == [])
        desk.connector.received(
            1, ticket: .sample("lrc1/bbbb", expires: desk.wall + 1), token: "session-c", wallClock: desk.wall)
        desk.drain()
        #expect(desk.kept?.sessionID == "session-c" && desk.ticket?.ufrag == "lrc1/bbbb")
    }

    @Test func fallsBackOneAfterTheOther() {
        let desk = Desk(.fallback)
        desk.remember()
        #expect(desk.connect())
        #expect(desk.story() == ["zeroSignaling started"])
        desk.pass(.milliseconds(1999))
        #expect(desk.story() == [])
        desk.pass(.milliseconds(1))
        #expect(desk.story() == ["zeroSignaling failed timedOut", "fast started"])
        #expect(desk.ticket == nil && desk.kept != nil)
        // Until its answer it has as long as any exchange; from then on the fast timeout.
        desk.pass(.seconds(5))
        desk.answer(1, .fast)
        desk.pass(.seconds(2))
        #expect(desk.story() == ["fast failed timedOut", "normal started"])
        #expect(desk.kept == nil)
        desk.answer(2, .normal)
        desk.end(3)
        #expect(
            desk.story() == [
                "normal failed peer(-42, \"no path\")", "failed peer(-42, \"no path\")",
            ])
        #expect(desk.kept == nil && desk.ticket == nil && desk.connector.nextTimeout == nil)
        // And it may be tried again.
        #expect(desk.connect())
    }

    @Test func makesOneNormalAttemptAfterARaceIsLost() {
        let desk = Desk()
        desk.remember()
        _ = desk.connect()
        desk.answer(1, .fast)
        _ = desk.story()
        desk.pass(.seconds(2))
        #expect(
            desk.story() == [
                "zeroSignaling failed timedOut", "fast failed timedOut", "normal started",
            ])
        desk.pass(.seconds(20))
        #expect(desk.story() == ["normal failed noAnswer", "failed noAnswer"])
    }

    @Test func goesOnNormallyWhenTheSessionIsUnknown() {
        let desk = Desk()
        desk.remember(ticket: false)
        _ = desk.connect()
        _ = desk.story()
        desk.answer(1, .normal)
        #expect(desk.story() == ["fast failed sessionUnknown", "normal started"])
        #expect(desk.kept == nil)
        // The exchange is not made again: its peer fails, and so does the connect.
        desk.end(1, .timedOut)
        #expect(desk.story() == ["normal failed timedOut", "failed timedOut"])
    }

    @Test func skipsWhatIsOldForeignOrSwitchedOff() {
        var desk = Desk()
        desk.remember()
        desk.kept?.timestamp = desk.wall - 300_001
        _ = desk.connect()
        #expect(
            desk.story() == ["zeroSignaling skipped cacheStale", "fast skipped cacheStale", "normal started"])
        #expect(desk.kept == nil && desk.ticket == nil)

        desk = Desk()
        desk.remember()
        // The clock was set back, or somebody else wrote it.
        desk.kept?.timestamp = desk.wall + 1
        _ = desk.connect()
        #expect(desk.story().contains("fast skipped cacheStale"))

        desk = Desk()
        desk.remember()
        desk.ticket?.expires = desk.wall
        _ = desk.connect()
        #expect(desk.story() == ["zeroSignaling skipped cacheStale", "fast started"])
        #expect(desk.ticket == nil && desk.kept != nil)

        desk = Desk()
        desk.remember()
        _ = desk.connect(isFastReloadOn: false)
        #expect(
            desk.story() == ["zeroSignaling skipped fastDisabled", "fast skipped fastDisabled", "normal started"])
        #expect(desk.kept != nil && desk.ticket != nil)

        desk = Desk(usesTickets: false)
        desk.remember()
        _ = desk.connect()
        #expect(desk.story() == ["fast started"])
    }

    @Test func connectsNormallyAfterTheNetworkChanged() {
        let desk = Desk()
        _ = desk.connect()
        desk.answer(1, .normal, ticket: .sample(expires: desk.wall + 100_000))
        desk.open(1)
        desk.end(1)
        #expect(desk.story().last == "lost normal peer(-42, \"no path\")")
        desk.network = 2
        _ = desk.connect()
        #expect(
            desk.story() == [
                "zeroSignaling skipped networkChanged", "fast skipped networkChanged", "normal started",
            ])
        #expect(desk.kept == nil && desk.ticket == nil)
    }

    @Test func canBeComeBackToFromTheEndOfTheConnectionOn() {
        let desk = Desk(usesTickets: false)
        _ = desk.connect()
        desk.answer(1, .normal)
        desk.open(1)
        desk.pass(.seconds(3600))
        desk.end(1)
        desk.pass(.seconds(300))
        _ = desk.story()
        _ = desk.connect()
        #expect(desk.story() == ["fast started"])
    }

    @Test func keepsTheOldConnectionUntilItsSuccessorIsOpen() {
        let desk = Desk()
        _ = desk.connect()
        desk.answer(1, .normal)
        desk.open(1)
        _ = desk.story()
        #expect(desk.connect())
        #expect(desk.connector.connected == 1)
        desk.answer(2, .fast)
        desk.open(2)
        #expect(
            desk.story() == [
                "zeroSignaling skipped notCached", "fast started", "fast won", "connected fast replacing 1",
            ])
        // One that fails leaves it alone.
        _ = desk.connect()
        desk.connector.signalingFailed(3, now: desk.now)
        desk.drain()
        desk.connector.signalingFailed(4, now: desk.now)
        desk.drain()
        #expect(desk.story().last == "failed signalingFailed" && desk.connector.connected == 2)
        // Nobody's fault: the token was not even tried.
        #expect(desk.kept != nil)
        desk.end(2)
        #expect(desk.story() == ["lost fast peer(-42, \"no path\")"])
    }

    @Test func keepsNothingAfterItWasToldToForget() {
        let desk = Desk()
        _ = desk.connect()
        desk.answer(1, .normal, ticket: .sample(expires: desk.wall + 100_000))
        desk.open(1)
        desk.connector.forget()
        (desk.kept, desk.ticket) = (nil, nil)
        desk.connector.received(1, ticket: .sample(expires: desk.wall + 1), token: "session-c", wallClock: desk.wall)
        desk.end(1)
        #expect(desk.kept == nil && desk.ticket == nil)
    }

    @Test func dropsWhatAServerWithoutSessionsMadeWorthless() {
        let desk = Desk()
        desk.remember(ticket: true)
        _ = desk.connect()
        desk.answer(1, .normal, token: nil)
        desk.open(2)
        #expect(desk.kept == nil && desk.ticket == nil)
        desk.end(2)
        #expect(desk.kept == nil)
    }

    @Test func stopsEverythingWhenItIsClosed() {
        let desk = Desk()
        desk.remember()
        _ = desk.connect()
        _ = desk.story()
        desk.connector.close(wallClock: desk.wall, now: desk.now)
        desk.drain()
        #expect(desk.story() == ["zeroSignaling stopped closed", "fast stopped closed"])
        #expect(!desk.connect() && desk.connector.nextTimeout == nil && desk.kept != nil)
    }
}
