import Foundation
import Reload
import Testing
import Wire

@testable import Engine

/// What outlives a server: its certificate, its sessions, and with them the tickets it gave out.
@Suite struct Restarting {
    private let directory = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)

    init() throws { try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true) }

    private func server(port: UInt16 = 0, _ configure: (inout Configuration) -> Void = { _ in }) throws -> Host {
        try Trip.server {
            $0.port = port
            $0.certificatePath = directory.appendingPathComponent("certificate.pem").path
            $0.sessionStore = "sqlite:" + directory.appendingPathComponent("sessions.db").path
            configure(&$0)
        }
    }

    @Test(arguments: [false, true])
    func aClientComesBackToTheNewProcess(byTicket: Bool) throws {
        defer { try? FileManager.default.removeItem(at: directory) }
        let client = try Host()
        let first = try server()
        let before = try Trip(client, first) { $0.usesTickets = byTicket }
        _ = try before.connect(.normal)
        let (port, fingerprint) = (first.engine.portNumber, first.engine.fingerprint(.sha256))
        #expect(first.engine.destroy() == .ok)
        _ = try before.state(.lost)

        let second = try server(port: port)
        #expect(second.engine.fingerprint(.sha256) == fingerprint)
        let after = Trip(client, second, connector: before.connector)
        _ = try after.connect(byTicket ? .zeroSignaling : .fast)
        let session = try second.next(.session)
        #expect(session.number == 2 && session.flags & Event.returned != 0, "the session is the same one")
        #expect(session.detailKind == (byTicket ? Mode.zeroSignaling : Mode.fast).number)
    }

    @Test func aTicketOutlivesARotation() throws {
        defer { try? FileManager.default.removeItem(at: directory) }
        let trip = try Trip(try Host(), try server())
        let fingerprint = trip.server.engine.fingerprint(.sha256)
        _ = try trip.connect(.normal)
        // The client goes before it could hear of the new certificate.
        let ticket = try #require(try trip.reference.entry.cache.tickets[trip.reference.entry.key])
        try trip.server.engine.rotateCertificate()
        #expect(try trip.server.next(.certificate).text == trip.server.engine.fingerprint(.sha256))
        #expect(trip.server.engine.fingerprint(.sha256) != fingerprint)
        try trip.reference.entry.cache.tickets.set(trip.reference.entry.key, ticket)
        _ = try trip.connect(.zeroSignaling)
        // What it gets now names the new one.
        let deadline = Date(timeIntervalSinceNow: 30)
        func kept() throws -> String? {
            try trip.reference.entry.cache.tickets[trip.reference.entry.key]?.fingerprint
        }
        while try kept() != trip.server.engine.fingerprint(.sha256), deadline.timeIntervalSinceNow > 0 {
            try trip.client.take(milliseconds: 5)
            try trip.server.take(milliseconds: 5)
        }
        #expect(try kept() == trip.server.engine.fingerprint(.sha256))
    }

    @Test func aRevokedSessionDoesNotComeBack() throws {
        defer { try? FileManager.default.removeItem(at: directory) }
        let trip = try Trip(try Host(), try server())
        _ = try trip.connect(.normal)
        let client = try trip.server.next(.session).text
        #expect(throws: Failure.self) { try trip.server.engine.revoke("no client id") }
        try trip.server.engine.revoke(client)
        _ = try trip.state(.lost)
        // Neither by its ticket nor by its token.
        try trip.reference.connect()
        #expect(try trip.attempt(.failed, .zeroSignaling).status == .ticketRefused)
        try trip.exchange()
        #expect(try trip.state(.connected).detailKind == Connector.Mode.normal.rawValue)
        let session = try trip.server.next(.session)
        #expect(session.text != client && session.flags & Event.returned == 0)
    }

    /// Two servers that share secret and certificate take each other's tickets.
    @Test func anotherServerTakesTheTicket() throws {
        defer { try? FileManager.default.removeItem(at: directory) }
        let secret = [UInt8](repeating: 3, count: 32)
        let client = try Host()
        let first = try server { $0.ticketSecret = secret }
        let before = try Trip(client, first)
        _ = try before.connect(.normal)
        let port = first.engine.portNumber
        #expect(first.engine.destroy() == .ok)
        _ = try before.state(.lost)
        let second = try server(port: port) {
            $0.ticketSecret = [UInt8](repeating: 4, count: 32)
            $0.oldTicketSecret = secret
        }
        _ = try Trip(client, second, connector: before.connector).connect(.zeroSignaling)
    }
}

extension Trip {
    init(_ client: Host, _ server: Host, connector: UInt64) {
        self.client = client
        self.server = server
        self.connector = connector
    }
}
