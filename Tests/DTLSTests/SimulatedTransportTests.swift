import Testing
import Wire

@testable import DTLS

@Suite struct Simulated {
    private let start = Instant(nanoseconds: 5)

    private func link(seed: UInt64 = 1, mismatch: Bool = false) -> Link {
        let one = SimulatedContext(seed: seed)
        let other = SimulatedContext(seed: seed &+ 1)
        return Link(
            one.makeTransport(
                role: .client, expectedFingerprints: [(mismatch ? one : other).localFingerprint(.sha256)], mtu: 1200,
                initialRetransmission: .milliseconds(100))!,
            other.makeTransport(
                role: .server, expectedFingerprints: [one.localFingerprint(.sha512)], mtu: 1200,
                initialRetransmission: .milliseconds(100))!, seed: seed)
    }

    @Test func connectsInOneAndAHalfRoundTrips() {
        let link = link()
        link.start(now: start)
        #expect(link.isConnected && link.log.map(\.fromClient) == [true, false, true])
        #expect(link.nextTimeout == nil)
        #expect(link.client.exportKeys(label: "a", length: 20) == link.server.exportKeys(label: "a", length: 20))
    }

    @Test func refusesAWrongFingerprint() {
        let link = link(mismatch: true)
        link.start(now: start)
        #expect(link.client.state == .failed(.fingerprintMismatch) && link.server.state == .failed(.alert(42)))
    }

    @Test(arguments: UInt64(1)...200)
    func connectsAndCarriesThroughABadNetwork(seed: UInt64) {
        let link = link(seed: seed)
        link.disturbance = Disturbance(loss: 0.3, duplication: 0.2, reordering: 0.3, corruption: 0.1)
        link.start(now: start)
        link.runVirtually(from: start, for: .seconds(30)) { link.isConnected }
        // The client's Done may be lost for good; then its data connects the server.
        #expect(link.client.state == .connected, "seed \(seed)")
        for number in UInt8(0)..<100 {
            for end in [link.client, link.server] where end.state == .connected {
                if let datagram = end.seal([number, 1, 2, 3]) { link.put(datagram, fromClient: end === link.client) }
            }
            link.settle(now: start)
        }
        #expect(link.isConnected, "seed \(seed)")
        for records in [link.readByClient, link.readByServer] {
            #expect(
                Set(records).count == records.count && records.allSatisfy { $0.dropFirst() == [1, 2, 3] },
                "seed \(seed)")
            #expect(records.count > 30, "seed \(seed)")
        }
    }

    @Test func dropsRecordsOfAnotherConnection() {
        let (link, other) = (link(seed: 1), link(seed: 9))
        link.start(now: start)
        other.start(now: start)
        let record = other.client.seal([1, 2]) ?? []
        link.server.receive(record, now: start)
        #expect(link.server.readAll() == [] && link.server.counters.rejectedDatagrams == 1)
    }

    @Test func closesAndTimesOut() {
        let link = link()
        link.start(now: start)
        link.client.close(now: start)
        link.settle(now: start)
        #expect(link.client.state == .closed(byPeer: false) && link.server.state == .closed(byPeer: true))

        let lonely = self.link(seed: 4)
        lonely.disturbance.loss = 1
        lonely.start(now: start)
        lonely.runVirtually(from: start, for: .seconds(60)) { false }
        #expect(lonely.client.state == .failed(.handshakeTimeout) && lonely.server.state == .failed(.handshakeTimeout))
    }

    @Test func needsRoom() {
        let link = link()
        link.start(now: start)
        let plaintext = [UInt8](repeating: 1, count: 10)
        let tooSmall = output(10 + link.client.recordOverhead - 1) { link.client.seal(plaintext.span.bytes, into: &$0) }
        let fits = output(10 + link.client.recordOverhead) { link.client.seal(plaintext.span.bytes, into: &$0) }
        #expect(tooSmall == nil && fits?.count == 10 + link.client.recordOverhead)
    }
}

@Suite struct Window {
    @Test func acceptsEachNumberOnceWithinSixtyFour() {
        var window = ReplayWindow()
        #expect(window.accept(1) && !window.accept(1) && window.accept(100) && window.accept(37) && !window.accept(37))
        #expect(!window.accept(36) && window.accept(1 << 50) && !window.accept(100))
        #expect(window.accept(.max) && !window.accept(.max) && window.accept(.max - 63) && !window.accept(.max - 64))
    }
}
