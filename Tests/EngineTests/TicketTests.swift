import DTLS
import Foundation
import Reload
import STUN
import Testing
import Wire

@testable import Engine

/// A host with a secret that the test shares, so that it can seal tickets of its own.
private struct Issuer {
    static let secret = [UInt8](repeating: 7, count: 32)
    let host: Host
    let keys = TicketKeys(secrets: [secret])
    let client: ClientID

    init(_ configure: (inout Configuration) -> Void = { _ in }) throws {
        host = try Host {
            $0.ticketSecret = Issuer.secret
            configure(&$0)
        }
        client = ClientID(UInt64.random(in: .min ... .max))
    }

    /// Sealed `age` seconds ago for as long as tickets live here.
    func ticket(age: Int64 = 0, certificate: UInt8? = nil) throws -> (ufrag: String, password: String) {
        let fingerprint = try #require(ClientFingerprint(digest: [UInt8](repeating: 1, count: 32)))
        let issued = Int64(Date().timeIntervalSince1970) - age
        var random = SystemRandomNumberGenerator()
        let contents = TicketContents(
            clientID: client, fingerprint: fingerprint, expires: issued + 300, certificate: certificate ?? own,
            maximumMessageSize: 0, derivesInit: false)
        return try #require(keys.seal(contents, wallClock: issued, using: &random))
    }

    var own: UInt8 {
        let text = host.engine.fingerprint(.sha256).dropFirst("sha-256 ".count).prefix(2)
        return UInt8(text, radix: 16) ?? 0
    }

    func metric(_ line: String) throws -> Int {
        let text = try host.engine.metrics()
        let found = text.split(separator: "\n").filter { $0.hasPrefix(line) }
        return found.compactMap { $0.split(separator: " ").last.flatMap { Double($0) } }.reduce(0) { $0 + Int($1) }
    }

    /// Waits until this many datagrams were looked at.
    func settled(_ datagrams: UInt64) throws {
        let deadline = Date(timeIntervalSinceNow: 30)
        while host.engine.statistics().datagramsReceived < datagrams {
            guard deadline.timeIntervalSinceNow > 0 else { throw Missing(description: "the datagrams did not arrive") }
            try host.take(milliseconds: 1)
        }
    }
}

/// A check as a client's agent sends it.
private func check(
    _ ticket: (ufrag: String, password: String), client: String = "clie", id: UInt64 = .random(in: .min ... .max)
)
    -> [UInt8]
{
    let room = UnsafeMutableRawBufferPointer.allocate(byteCount: 1024, alignment: 8)
    defer { room.deallocate() }
    var output = OutputRawSpan(buffer: room, initializedCount: 0)
    var writer = MessageWriter(.request, id: TransactionID(high: 1, low: id), to: &output)
    writer.append(.username, Array("\(ticket.ufrag):\(client)".utf8).span.bytes, to: &output)
    writer.append(.priority, 1 as UInt32, to: &output)
    writer.append(.iceControlling, 1 as UInt64, to: &output)
    writer.finish(IntegrityKey(password: ticket.password), to: &output)
    let count = output.finalize(for: room)
    return Array(room.prefix(count))
}

extension UDP {
    /// The next datagram, waited for.
    fileprivate func awaited(seconds: Double = 10) throws -> [UInt8] {
        var watched = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&watched, 1, Int32(seconds * 1000)) == 1, let bytes = receive() else {
            throw Missing(description: "no answer")
        }
        return bytes
    }
}

private func errorCode(_ bytes: [UInt8], signedWith password: String) throws -> Int? {
    let message = try Message(bytes.span.bytes)
    guard message.isAuthentic(IntegrityKey(password: password)) else { return nil }
    return message.messageClass == .error ? message.errorCode : 0
}

@Suite struct Tickets {
    @Test func theFirstVerifiedCheckMakesThePeer() throws {
        let issuer = try Issuer { $0.returningPeer.tag = 77 }
        let (socket, ticket) = (try UDP(), try issuer.ticket())
        socket.send(check(ticket), to: issuer.host.engine.portNumber)
        #expect(try errorCode(try socket.awaited(), signedWith: ticket.password) == 0)
        let event = try issuer.host.next(.peerState)
        #expect(event.number == PeerState.connecting.rawValue && event.flags & Event.ticket != 0 && event.tag == 77)
        // Further checks of the same client are the same peer's.
        for _ in 0..<5 { socket.send(check(ticket), to: issuer.host.engine.portNumber) }
        try issuer.settled(6)
        #expect(issuer.host.engine.statistics().peers == 1)
        #expect(try issuer.metric("reconnect_tickets_accepted_total") == 1)
    }

    @Test func tenThousandForgedTicketsAllocateNothing() throws {
        let issuer = try Issuer()
        let (stranger, port) = (try UDP(), issuer.host.engine.portNumber)
        let real = try issuer.ticket()
        var sent: UInt64 = 0
        for number in 0..<10_000 {
            var forged = real
            switch number % 4 {
            // A made-up password for a real ticket, a damaged ticket, another server's, one that was cut.
            case 0: forged.password = "0123456789012345678901234567890123456789012"
            case 1: forged.ufrag = String(real.ufrag.dropLast(9)) + "AAAAAAAAA"
            case 2:
                var random = SystemRandomNumberGenerator()
                let others = TicketKeys(secrets: [[UInt8](repeating: 9, count: 32)])
                let contents = TicketContents(
                    clientID: issuer.client, fingerprint: ClientFingerprint(digest: [UInt8](repeating: 1, count: 32))!,
                    expires: Int64(Date().timeIntervalSince1970) + 300, certificate: issuer.own, maximumMessageSize: 0,
                    derivesInit: false)
                forged = try #require(others.seal(contents, wallClock: contents.expires - 300, using: &random))
            default: forged.ufrag = String(real.ufrag.prefix(5 + number % 80))
            }
            stranger.send(check(forged, client: "c\(number)"), to: port)
            sent += 1
            // Not faster than the kernel's buffer takes them.
            if number % 64 == 63 { try issuer.settled(sent) }
        }
        try issuer.settled(sent)
        #expect(issuer.host.engine.statistics().peers == 0)
        #expect(stranger.receive() == nil, "nothing is answered")
        #expect(try issuer.host.drained().isEmpty, "nothing is told")
        #expect(issuer.host.engine.statistics().datagramsDropped == 10_000)
    }

    @Test func liveAsLongAsSessionsDo() throws {
        let trip = try Trip(try Host(), try Trip.server { $0.sessionLifetime = .seconds(40 * 86_400) })
        _ = try trip.connect(.normal)
        _ = try trip.connect(.zeroSignaling)
    }

    @Test func whatCannotBeUsedIsRefusedToItsHolder() throws {
        let issuer = try Issuer()
        let (socket, port) = (try UDP(), issuer.host.engine.portNumber)
        let expired = try issuer.ticket(age: 301)
        socket.send(check(expired), to: port)
        #expect(try errorCode(try socket.awaited(), signedWith: expired.password) == 438)
        let other = try issuer.ticket(certificate: issuer.own &+ 1)
        socket.send(check(other), to: port)
        #expect(try errorCode(try socket.awaited(), signedWith: other.password) == 438)
        issuer.host.engine.setFastReload(.off)
        _ = try issuer.host.next(.fastReload)
        let right = try issuer.ticket()
        socket.send(check(right), to: port)
        #expect(try errorCode(try socket.awaited(), signedWith: right.password) == 403)
        issuer.host.engine.setFastReload(.partial)
        _ = try issuer.host.next(.fastReload)
        socket.send(check(right), to: port)
        #expect(try errorCode(try socket.awaited(), signedWith: right.password) == 403)
        #expect(issuer.host.engine.statistics().peers == 0)
        issuer.host.engine.setFastReload(.on)
        #expect(try issuer.host.next(.fastReload).number == 1)
        socket.send(check(right), to: port)
        #expect(try errorCode(try socket.awaited(), signedWith: right.password) == 0)
        #expect(try issuer.metric("reconnect_tickets_refused_total") == 4)
    }

    /// Who copied a check from the wire cannot use it again when its peer is gone.
    @Test func aCopiedCheckMakesNoSecondPeer() throws {
        let issuer = try Issuer()
        let (socket, thief) = (try UDP(), try UDP())
        let (ticket, port) = (try issuer.ticket(), issuer.host.engine.portNumber)
        let packet = check(ticket)
        socket.send(packet, to: port)
        _ = try socket.awaited()
        let peer = try issuer.host.next(.peerState).peer
        try PeerReference(peer)?.close()
        _ = try issuer.host.state(.closed, of: peer)
        while issuer.host.engine.statistics().peers != 0 { try issuer.host.take(milliseconds: 1) }
        thief.send(packet, to: port)
        thief.send(check(ticket), to: port)
        try issuer.settled(3)
        #expect(issuer.host.engine.statistics().peers == 0)
        #expect(thief.receive() == nil)
        // The client itself comes with a new fragment.
        socket.send(check(ticket, client: "other"), to: port)
        #expect(try errorCode(try socket.awaited(), signedWith: ticket.password) == 0)
    }

    /// A stolen ticket is worth two peers that wait for a handshake, however often it is shown.
    @Test func aStolenTicketKeepsTwoPeersBusyAtMost() throws {
        let issuer = try Issuer()
        let (socket, ticket, port) = (try UDP(), try issuer.ticket(), issuer.host.engine.portNumber)
        for number in 0..<20 {
            socket.send(check(ticket, client: "thief\(number)"), to: port)
            #expect(try errorCode(try socket.awaited(), signedWith: ticket.password) == 0)
        }
        for _ in 0..<18 { _ = try issuer.host.next(.peerState) { $0.number == PeerState.closed.rawValue } }
        while issuer.host.engine.statistics().peers > 2 { try issuer.host.take(milliseconds: 1) }
        #expect(issuer.host.engine.statistics().peers == 2)
        #expect(issuer.host.engine.statistics().sessions == 0)
    }

    @Test func withoutTicketsChecksWithThemAreStrangers() throws {
        let issuer = try Issuer { $0.givesTickets = false }
        let (socket, ticket) = (try UDP(), try issuer.ticket())
        socket.send(check(ticket), to: issuer.host.engine.portNumber)
        try issuer.settled(1)
        #expect(issuer.host.engine.statistics().peers == 0 && socket.receive() == nil)
    }
}
