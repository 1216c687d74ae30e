import Testing
import Wire

@testable import DTLS

@Suite struct Handshake {
    @Test func connectsAndAgreesOnAnAEADCipher() {
        let link = Link()
        link.start(now: realNow())
        #expect(link.client.state == .connected && link.server.state == .connected)
        #expect(link.client.negotiated?.version == "DTLSv1.2" || link.client.negotiated?.version == "DTLSv1.3")
        #expect(link.client.negotiated == link.server.negotiated)
        #expect(link.client.negotiated?.cipher.hasSuffix("_GCM_SHA256") == true)
        #expect(link.client.peerFingerprint == certificates.server.fingerprint(.sha256))
        #expect(link.server.peerFingerprint == certificates.client.fingerprint(.sha256))
        #expect(link.client.nextTimeout == nil && link.server.nextTimeout == nil)
    }

    @Test func sendsNoHelloVerifyRequestAndFourFlights() {
        let link = Link()
        link.start(now: realNow())
        #expect(link.log.map(\.fromClient) == [true, false, true, false])
        // A HelloVerifyRequest is handshake message 3 (RFC 6347 section 4.3.2).
        #expect(link.log.allSatisfy { !($0.bytes[0] == 22 && $0.bytes[13] == 3) })
    }

    @Test(arguments: HashAlgorithm.allCases)
    func acceptsEachHashFunction(algorithm: HashAlgorithm) {
        let link = Link(
            clientExpects: [certificates.server.fingerprint(algorithm)],
            serverExpects: [certificates.client.fingerprint(algorithm)])
        link.start(now: realNow())
        #expect(link.isConnected)
    }

    @Test func wrongServerCertificateFailsInsideTheHandshake() {
        let link = Link(clientExpects: [certificates.stranger.fingerprint(.sha256)])
        link.start(now: realNow())
        #expect(link.client.state == .failed(.fingerprintMismatch))
        #expect(link.server.state == .failed(.alert(42)))
        // The client never got to its own certificate: ClientHello and the alert are all it said.
        #expect(link.log.map(\.fromClient) == [true, false, true])
        #expect(link.log.last?.bytes.first == 21)
        #expect(link.client.peerFingerprint == certificates.server.fingerprint(.sha256))
    }

    @Test func wrongClientCertificateFailsInsideTheHandshake() {
        let link = Link(serverExpects: [certificates.stranger.fingerprint(.sha512)])
        link.start(now: realNow())
        #expect(link.server.state == .failed(.fingerprintMismatch))
        #expect(link.client.state == .failed(.alert(42)))
        let sealed = link.server.seal([1])
        #expect(sealed == nil)
    }

    @Test func noExpectedFingerprintMeansNoConnection() {
        let link = Link(serverExpects: [])
        link.start(now: realNow())
        #expect(link.server.state == .failed(.fingerprintMismatch))
    }

    @Test func onlyTheStrongestHashFunctionCounts() {
        let right = certificates.server
        let wrong = certificates.stranger
        let weakOnly = Link(clientExpects: [right.fingerprint(.sha256), wrong.fingerprint(.sha512)])
        weakOnly.start(now: realNow())
        #expect(weakOnly.client.state == .failed(.fingerprintMismatch))
        let oneOfSeveral = Link(clientExpects: [
            wrong.fingerprint(.sha512), wrong.fingerprint(.sha256), right.fingerprint(.sha512),
        ])
        oneOfSeveral.start(now: realNow())
        #expect(oneOfSeveral.isConnected)
    }

    @Test func fingerprintsMayComeAfterTheStart() {
        let link = Link(serverExpects: [])
        link.server.start(now: realNow())
        link.server.expectedFingerprints = [certificates.client.fingerprint(.sha256)]
        link.start(now: realNow())
        #expect(link.isConnected)
    }

    @Test func exportsTheSameKeysAtBothEnds() {
        let link = Link()
        let early = link.client.exportKeys(label: "EXTRACTOR-dtls_srtp", length: 60)
        link.start(now: realNow())
        let keys = link.client.exportKeys(label: "EXTRACTOR-dtls_srtp", length: 60)
        #expect(early == nil && keys?.count == 60)
        #expect(keys == link.server.exportKeys(label: "EXTRACTOR-dtls_srtp", length: 60))
        #expect(keys != link.server.exportKeys(label: "EXTRACTOR-other", length: 60))
        let none = [link.client.exportKeys(label: "a", length: 0), link.client.exportKeys(label: "a", length: 1 << 40)]
        #expect(none == [nil, nil])
    }

    @Test(arguments: [300, 400, 576, 1200])
    func staysBelowTheMTU(mtu: Int) {
        let link = Link(mtu: mtu)
        link.start(now: realNow())
        #expect(link.isConnected)
        #expect(link.log.allSatisfy { $0.bytes.count <= mtu })
        #expect(mtu > 600 || link.log.count > 4)
    }

    @Test func reassemblesAClientHelloInSeveralDatagrams() throws {
        let link = Link()
        link.server.start(now: realNow())
        link.client.start(now: realNow())
        let hello = try #require(link.client.transmit())
        for part in split(hello, at: 40) { link.server.receive(part, now: realNow()) }
        link.settle(now: realNow())
        #expect(link.isConnected)
    }

    @Test func reassemblesAClientHelloOutOfOrder() throws {
        let link = Link()
        link.server.start(now: realNow())
        link.client.start(now: realNow())
        let hello = try #require(link.client.transmit())
        for part in split(hello, at: 17).reversed() { link.server.receive(part, now: realNow()) }
        link.settle(now: realNow())
        #expect(link.isConnected)
    }

    /// Splits a datagram of one handshake record into two with fragments (RFC 6347 section 4.2.3).
    private func split(_ datagram: [UInt8], at cut: Int) -> [[UInt8]] {
        let body = Array(datagram[25...])
        return [(0, Array(body[..<cut])), (cut, Array(body[cut...]))].enumerated().map { index, part in
            var bytes = Array(datagram[..<25])
            bytes[10] = UInt8(index * 40)  // record sequence number; the client goes on from 1
            bytes[11] = UInt8((part.1.count + 12) >> 8)
            bytes[12] = UInt8((part.1.count + 12) & 255)
            bytes[20] = UInt8(part.0 >> 8)  // fragment offset
            bytes[21] = UInt8(part.0 & 255)
            bytes[23] = UInt8(part.1.count >> 8)  // fragment length
            bytes[24] = UInt8(part.1.count & 255)
            return bytes + part.1
        }
    }

    @Test func endsAtTheDeadline() {
        let start = realNow()
        let client = OpenSSLTransport(context: contexts.client, role: .client, handshakeDeadline: .seconds(3))!
        client.start(now: start)
        _ = client.transmit()
        client.handleTimeout(now: start + .milliseconds(2999))
        #expect(client.state == .handshaking)
        #expect(client.nextTimeout.map { $0 <= start + .seconds(4) } == true)
        client.handleTimeout(now: start + .seconds(3))
        #expect(client.state == .failed(.handshakeTimeout) && client.nextTimeout == nil)
    }

    @Test func firstRetransmissionFollowsTheMeasuredRoundTrip() {
        func wait(_ measured: Duration) -> Duration {
            let client = OpenSSLTransport(context: contexts.client, role: .client, initialRetransmission: measured)!
            let now = Instant(nanoseconds: 0)
            client.start(now: now)
            return (client.nextTimeout ?? now) - now
        }
        // What OpenSSL has left by its own clock: never more than was asked for.
        #expect(wait(.milliseconds(400)) <= .milliseconds(400))
        #expect(wait(.seconds(90)) <= .seconds(1) && wait(.seconds(90)) > .milliseconds(400))
        #expect(wait(.zero) <= .milliseconds(50))
    }
}

/// On the real clock, because OpenSSL looks at it; short, because the first timeout is 50 ms.
@Suite(.serialized) struct HandshakeUnderLoss {
    @Test func repeatsALostFlight() {
        let link = Link()
        link.disturbance.loss = 1
        link.start(now: realNow())
        link.disturbance.loss = 0
        link.run(for: .seconds(5)) { link.isConnected }
        #expect(link.isConnected)
    }

    /// ClientHello, the server's flight, the client's Finished; then the server's Finished is lost, and comes again.
    private func loseTheLastFlight(_ link: Link) {
        link.server.start(now: realNow())
        link.client.start(now: realNow())
        for (sender, receiver) in [(link.client, link.server), (link.server, link.client), (link.client, link.server)] {
            while let datagram = sender.transmit() { receiver.receive(datagram, now: realNow()) }
        }
        #expect(link.server.state == .connected)
        while link.server.transmit() != nil {}
        link.run(for: .seconds(5)) { link.isConnected }
        #expect(link.isConnected)
    }

    @Test func serverRepeatsItsLastFlight() {
        let link = Link()
        loseTheLastFlight(link)
    }

    /// A peer that gets ChangeCipherSpec and then data, because Finished was lost between them, ends the connection.
    @Test func repeatsChangeCipherSpecTogetherWithFinished() {
        let link = Link()
        loseTheLastFlight(link)
        // Content type 20 is ChangeCipherSpec, 14 bytes with its header.
        let repeated = link.log.map(\.bytes).filter { $0.first == 20 }
        #expect(!repeated.isEmpty && repeated.allSatisfy { $0.count > 14 }, "\(repeated.map(\.count))")
    }

    @Test(arguments: UInt64(1)...10)
    func connectsThroughLossDuplicationAndReordering(seed: UInt64) {
        let link = Link(mtu: 500, seed: seed)
        link.disturbance = Disturbance(loss: 0.2, duplication: 0.2, reordering: 0.3)
        link.start(now: realNow())
        link.run(for: .seconds(10)) { link.isConnected }
        #expect(link.isConnected, "seed \(seed): \(link.client.state), \(link.server.state)")
        #expect(link.log.allSatisfy { $0.bytes.count <= 500 })
    }
}
