import DTLS
import Testing
import Wire

@testable import Engine

@Suite struct ReturningSessions {
    @Test func areAnsweredFastAndTakeOver() throws {
        let (client, server) = (try Host(), try Host())
        let first = try Link.connected(client, server)
        #expect(!first.isFast)
        let arrival = try server.next(.session)
        #expect(arrival.peer == first.answering && arrival.number == 1 && arrival.flags == 0 && arrival.detailKind == 0)
        #expect(arrival.extraText == String(first.token.dropFirst("session-".count).prefix(8)))
        // The client comes back while its earlier connection is still up.
        let second = try Link.connected(client, server, Link.Signaling(token: first.token))
        #expect(second.isFast && second.token != first.token)
        let returned = try server.next(.session)
        #expect(returned.peer == second.answering && returned.number == 2 && returned.flags == Event.returned)
        #expect(returned.text == arrival.text && returned.detailKind == 1)
        #expect(try server.state(.closed, of: first.answering).status == .replaced)
        #expect(try client.state(.closed, of: first.offering).status == .peerGone)
        #expect(try server.next(.channelClosed).status == .replaced)
        // And once more after it said goodbye.
        try second.close()
        let third = try Link.connected(client, server, Link.Signaling(token: second.token))
        #expect(third.isFast)
        #expect(try server.next(.session).number == 3)
        let figures = server.engine.statistics()
        #expect(figures.answersFast == 2 && figures.answersNormal == 1 && figures.sessionsReturned == 2)
        #expect(figures.sessions == 1 && figures.peers == 1 && figures.peersConnected == 3 && figures.peersFailed == 0)
        // A token that was used is dead.
        let fourth = try Link.connected(client, server, Link.Signaling(token: first.token))
        #expect(!fourth.isFast)
    }

    @Test func ofAnotherCertificateAreNew() throws {
        let (client, thief, server) = (try Host(), try Host(), try Host())
        let first = try Link.connected(client, server)
        let client1 = try server.next(.session).text
        let stolen = try Link.connected(thief, server, Link.Signaling(token: first.token))
        #expect(!stolen.isFast)
        let arrival = try server.next(.session)
        #expect(arrival.text != client1 && arrival.flags == 0 && arrival.number == 1)
        #expect(send(first.channel, [1]) == .ok)
        #expect(try server.next(.message) { $0.peer == first.answering }.bytes == [1])
    }

    /// An offer may name several certificates. One that names the client's beside its own is answered fast, but then only
    /// the client's counts: whoever has no key of it does not connect.
    @Test(arguments: [true, false])
    func cannotBeTakenByNamingTheirCertificate(namesItFirst: Bool) throws {
        let (client, thief, server) = (try Host(), try Host(), try Host())
        let first = try Link.connected(client, server)
        let victim = try server.next(.session).text
        let line = "a=fingerprint:" + client.engine.fingerprint(.sha256) + "\\r\\n"
        var signaling = Link.Signaling(token: first.token)
        signaling.offer = { offer in
            let mark = namesItFirst ? "a=fingerprint:" : "a=setup:"
            #expect(offer.contains(mark))
            return offer.replacing(mark, with: line + mark, maxReplacements: 1)
        }
        var link = Link(thief, server)
        try link.negotiate(signaling)
        #expect(try server.state(.closed, of: link.answering).status == .fingerprintMismatch)
        #expect(send(first.channel, [1]) == .ok)
        #expect(try server.next(.message) { $0.peer == first.answering }.bytes == [1])
        // The client itself still comes back fast.
        #expect(try Link.connected(client, server, Link.Signaling(token: first.token)).isFast)
        #expect(try server.next(.session).text == victim)
    }

    /// A new session belongs to the certificate whose key the client has, not to the first that it named.
    @Test func belongToTheCertificateThatWasProven() throws {
        let (client, thief, server) = (try Host(), try Host(), try Host())
        var signaling = Link.Signaling()
        let line = "a=fingerprint:" + client.engine.fingerprint(.sha256) + "\\r\\n"
        signaling.offer = { $0.replacing("a=fingerprint:", with: line + "a=fingerprint:", maxReplacements: 1) }
        let first = try Link.connected(thief, server, signaling)
        #expect(!(try Link.connected(client, server, Link.Signaling(token: first.token)).isFast))
        #expect(try Link.connected(thief, server, Link.Signaling(token: first.token)).isFast)
    }

    @Test func expire() throws {
        let client = try Host()
        let server = try Host { $0.sessionLifetime = .milliseconds(1) }
        let first = try Link.connected(client, server)
        try first.close()
        // Its life ends a millisecond after the connection's end; a good answer takes longer than that.
        var next = try Link.connected(client, server, Link.Signaling(token: first.token))
        while next.isFast {
            try next.close()
            next = try Link.connected(client, server, Link.Signaling(token: next.token))
        }
        #expect(server.engine.statistics().answersNormal >= 2)
    }

    @Test func areNotAnsweredFastWhenThatIsOff() throws {
        let client = try Host()
        let server = try Host { $0.fastReload = .off }
        let first = try Link.connected(client, server)
        let second = try Link.connected(client, server, Link.Signaling(token: first.token))
        #expect(!second.isFast)
        server.engine.setFastReload(.on)
        let third = try Link.connected(client, server, Link.Signaling(token: second.token))
        #expect(third.isFast)
        server.engine.setFastReload(.off)
        #expect(!(try Link.connected(client, server, Link.Signaling(token: third.token)).isFast))
    }
}
