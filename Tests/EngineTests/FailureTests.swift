import Foundation
import Testing
import Wire

@testable import Engine

@Suite struct Failing {
    @Test func malformedInputIsNamed() throws {
        let host = try Host()
        func refusal(_ json: String) -> Failure? {
            do {
                _ = try host.answer(json)
                return nil
            } catch {
                return error as? Failure
            }
        }
        #expect(refusal("")?.status == .malformedJSON)
        #expect(refusal("{\"type\":\"offer\",\n\"sdp\":}")?.detail.contains("line 2") == true)
        #expect(refusal("{\"type\":\"offer\",\"sdp\":7}")?.detail.contains("sdp") == true)
        #expect(refusal("{\"type\":\"answer\",\"sdp\":\"v=0\\r\\n\"}")?.status == .malformedJSON)
        let sdp = refusal("{\"type\":\"offer\",\"sdp\":\"v=0\\r\\no=- x 1 IN IP4 0.0.0.0\\r\\n\"}")
        #expect(sdp?.status == .malformedSDP && sdp?.detail.contains("line 3") == true)
        let peer = try #require(PeerReference(try host.engine.createPeer(PeerConfiguration())))
        #expect(throws: Failure.self) { try peer.addCandidate(Array("{\"candidate\":7}".utf8).span.bytes) }
        #expect(throws: Failure.self) { try peer.accept(Array("{}".utf8).span.bytes, tag: 0) }
        #expect(host.engine.statistics().peers == 1)
    }

    /// An offer that nothing can come of: the answer says why, and the peer ends like every other.
    @Test func anUnacceptableOfferIsAnsweredWithTheReason() throws {
        let (offerer, answerer) = (try Host(), try Host())
        let peer = try offerer.engine.createPeer(PeerConfiguration())
        try PeerReference(peer)?.offer(tag: 0)
        let offer = try offerer.next(.offer).text.replacing("sha-256 ", with: "sha-1 ")
        let handle: UInt64
        do {
            handle = try answerer.answer(offer, tag: 8)
        } catch {
            #expect((error as? Failure)?.status == .malformedSDP)
            #expect(answerer.engine.statistics().peers == 0)
            return
        }
        let answer = try answerer.next(.answer)
        #expect(answer.status == .unacceptable && answer.tag == 8 && !answer.text.isEmpty)
        #expect(try answerer.state(.closed, of: handle).status == .unacceptable)
        #expect(PeerReference(handle) == nil)
        #expect(answerer.engine.statistics().peersFailed == 1)
    }

    @Test func theWrongCertificateIsTheReason() throws {
        let (offerer, answerer) = (try Host(), try Host())
        var signaling = Link.Signaling()
        let forged = "a=fingerprint:sha-256 " + Array(repeating: "AB", count: 32).joined(separator: ":")
        let own = "a=fingerprint:" + offerer.engine.fingerprint(.sha256)
        signaling.offer = { $0.replacing(own, with: forged) }
        var link = Link(offerer, answerer)
        try link.negotiate(signaling)
        #expect(try answerer.state(.closed, of: link.answering).status == .fingerprintMismatch)
        _ = try offerer.state(.closed, of: link.offering)
        #expect(answerer.engine.statistics().peersConnected == 0 && answerer.engine.statistics().sessions == 0)
        #expect(answerer.engine.statistics().peersFailed == 1)
    }

    @Test func nobodyComes() throws {
        let offerer = try Host()
        let answerer = try Host { $0.connectTimeout = .milliseconds(200) }
        let peer = try offerer.engine.createPeer(PeerConfiguration())
        try PeerReference(peer)?.offer(tag: 0)
        let handle = try answerer.answer(try offerer.next(.offer).text)
        #expect(try answerer.state(.closed, of: handle).status == .timeout)
        // The peer's room is free a moment after its last event.
        while answerer.engine.statistics().peers != 0 { try answerer.take(milliseconds: 1) }
    }

    @Test func silenceIsToldAndThenFinal() throws {
        let (offerer, relay) = (try Host(), try Relay(seed: 1))
        let answerer = try Host {
            $0.disconnectTimeout = .milliseconds(300)
            $0.failedTimeout = .milliseconds(1200)
        }
        let link = try Link.connected(offerer, answerer, relay.signaling())
        relay.isCut = true
        _ = try answerer.state(.disconnected, of: link.answering)
        let end = try answerer.state(.closed, of: link.answering)
        #expect(end.status == .consentExpired)
        #expect(try answerer.next(.channelClosed).status == .consentExpired)
        #expect(answerer.engine.statistics().peersFailed == 1)
    }

    @Test func datagramsOfStrangersAreCountedAndDropped() throws {
        let (offerer, host) = (try Host(), try Host())
        let link = try Link.connected(offerer, host)
        let before = host.engine.statistics()
        var random = SeededGenerator(seed: 9)
        let port = try UDP()
        var count: UInt64 = 0
        for round in 0..<2000 {
            var bytes = random.bytes(Int(random.next() % 1200))
            // Some of them look like STUN, DTLS or RTP at first sight.
            if round % 2 == 0, bytes.count >= 20 {
                bytes[0] = [0, 1, 20, 22, 23, 63, 128][round / 2 % 7]
                if bytes[0] < 2 { bytes.replaceSubrange(4..<8, with: [0x21, 0x12, 0xA4, 0x42]) }
            }
            if port.send(bytes, to: host.engine.portNumber) { count += 1 }
            // Not more at once than a socket's buffer holds.
            if round % 100 == 99 {
                let wanted = before.datagramsDropped + count / 2
                let end = Date(timeIntervalSinceNow: 5)
                while host.engine.statistics().datagramsDropped < wanted, Date() < end {
                    try host.take(milliseconds: 1)
                }
            }
        }
        let after = host.engine.statistics()
        #expect(after.datagramsDropped > before.datagramsDropped + count / 2)
        #expect(after.peers == before.peers && after.sessions == before.sessions && after.eventsQueued == 0)
        #expect(after.datagramsSent <= before.datagramsSent + 20)
        #expect(send(link.channel, [5]) == .ok)
        #expect(try host.next(.message).bytes == [5])
    }
}

@Suite struct OverALossyNetwork {
    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func connectsAndDeliversEverythingInOrder(seed: UInt64) throws {
        let (offerer, answerer, relay) = (
            try Host(), try Host(), try Relay(seed: seed, loss: 0.15, duplication: 0.1, reordering: 0.1)
        )
        let link = try Link.connected(offerer, answerer, relay.signaling(dtlsActive: seed % 2 == 0))
        for index in 0..<40 {
            #expect(send(link.channel, [UInt8](repeating: UInt8(index), count: index * 100)) == .ok)
            #expect(send(link.remoteChannel, [UInt8(index)]) == .ok)
        }
        for index in 0..<40 {
            let there = try answerer.next(.message)
            #expect(there.bytes == [UInt8](repeating: UInt8(index), count: index * 100), "seed \(seed)")
            #expect(try offerer.next(.message).bytes == [UInt8(index)], "seed \(seed)")
        }
    }
}
