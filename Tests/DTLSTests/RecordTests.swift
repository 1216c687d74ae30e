import Testing
import Wire

@testable import DTLS

@Suite struct Records {
    let link = Link()
    let now = realNow()

    init() { link.start(now: now) }

    @Test func carryDataBothWays() throws {
        for size in [1, 13, 1100, 1163, 4096] {
            let plaintext = (0..<size).map { UInt8(truncatingIfNeeded: $0) }
            let up = try #require(output(5000) { link.client.seal(plaintext.span.bytes, into: &$0) })
            let down = try #require(output(5000) { link.server.seal(plaintext.span.bytes, into: &$0) })
            #expect(up.count <= size + link.client.recordOverhead)
            link.server.receive(up, now: now)
            link.client.receive(down, now: now)
            let (atServer, atClient) = (link.server.readAll(), link.client.readAll())
            #expect(atServer == [plaintext] && atClient == [plaintext])
        }
    }

    @Test func sealsBehindWhatIsInTheBufferAlready() {
        let bytes = output { span in
            span.write([9, 9])
            let plaintext: [UInt8] = [5]
            return link.client.seal(plaintext.span.bytes, into: &span)
        }
        #expect(bytes?.prefix(3) == [9, 9, 23])
        link.server.receive(Array((bytes ?? [])[2...]), now: now)
        #expect(link.server.readAll() == [[5]])
    }

    @Test func needRoomForTheRecord() {
        let plaintext = [UInt8](repeating: 1, count: 100)
        let room = plaintext.count + link.client.recordOverhead
        let tooSmall = output(room - 1) { link.client.seal(plaintext.span.bytes, into: &$0) }
        let fits = output(room) { link.client.seal(plaintext.span.bytes, into: &$0) }
        let tooLarge = output(9000) { span in
            let plaintext = [UInt8](repeating: 1, count: link.client.maximumPlaintext + 1)
            return link.client.seal(plaintext.span.bytes, into: &span)
        }
        #expect(tooSmall == nil && fits != nil && tooLarge == nil && link.client.seal([]) == nil)
        link.server.receive(fits ?? [], now: now)
        let short = output(99) { link.server.read(into: &$0) }
        let whole = output(100) { link.server.read(into: &$0) }
        #expect(short == nil && whole == plaintext)
    }

    @Test func severalInOneDatagramAreAllRead() throws {
        let datagram =
            try #require(link.client.seal([1])) + #require(link.client.seal([2, 2])) + #require(link.client.seal([3]))
        link.server.receive(datagram, now: now)
        #expect(link.server.readAll() == [[1], [2, 2], [3]])
    }

    @Test func replayedOnesAreDropped() throws {
        let record = try #require(link.client.seal([7]))
        link.server.receive(record, now: now)
        #expect(link.server.readAll() == [[7]])
        link.server.receive(record, now: now)
        #expect(link.server.readAll() == [] && link.server.counters.rejectedDatagrams == 1)
    }

    @Test func damagedOnesAreDropped() throws {
        for offset in 0..<60 {
            var record = try #require(link.client.seal([UInt8](repeating: 1, count: 23)))
            record[offset] ^= 0x55
            link.server.receive(record, now: now)
            #expect(link.server.readAll() == [])
        }
        for length in 0..<60 {
            let record = try #require(link.client.seal([UInt8](repeating: 1, count: 23)))
            link.server.receive(Array(record.prefix(length)), now: now)
            #expect(link.server.readAll() == [])
        }
        let good = try #require(link.client.seal([1]))
        link.server.receive(good, now: now)
        #expect(link.server.readAll() == [[1]] && link.server.state == .connected)
    }

    @Test(arguments: UInt64(1)...20)
    func randomDatagramsDoNothing(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<200 {
            var datagram = generator.bytes(Int.random(in: 0...200, using: &generator))
            if datagram.count > 13, Bool.random(using: &generator) {
                datagram.replaceSubrange(
                    0..<13,
                    with: [
                        [20, 21, 22, 23, 25].randomElement(using: &generator)!, 0xFE, 0xFD, 0,
                        UInt8.random(in: 0...2, using: &generator), 0, 0, 0, 0, 0, datagram[10], 0,
                        UInt8(datagram.count - 13),
                    ])
            }
            link.server.receive(datagram, now: now)
            #expect(link.server.readAll() == [], "seed \(seed)")
        }
        let good = try #require(link.client.seal([1]))
        link.server.receive(good, now: now)
        #expect(link.server.readAll() == [[1]], "seed \(seed)")
    }

    @Test(arguments: UInt64(1)...40)
    func randomDatagramsDuringTheHandshakeEndItAtMost(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let link = Link()
        link.server.start(now: now)
        link.client.start(now: now)
        let hello = link.client.transmit() ?? []
        for _ in 0..<50 {
            var datagram = hello
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                datagram[Int.random(in: 0..<datagram.count, using: &generator)] = UInt8.random(
                    in: 0...255, using: &generator)
            }
            link.server.receive(datagram, now: now)
            while let answer = link.server.transmit() { link.client.receive(answer, now: now) }
            while let answer = link.client.transmit() { link.server.receive(answer, now: now) }
        }
        let sealed = link.server.seal([1])
        #expect((sealed != nil) == (link.server.state == .connected))
    }

    @Test func closingTellsThePeer() throws {
        link.client.close(now: now)
        #expect(link.client.state == .closed(byPeer: false))
        link.settle(now: now)
        #expect(link.server.state == .closed(byPeer: true))
        #expect(link.client.seal([1]) == nil && link.server.seal([1]) == nil)
        link.client.close(now: now)
        #expect(link.client.transmit() == nil && link.client.nextTimeout == nil)
    }

    @Test func dataBeforeTheGoodbyeIsRead() throws {
        let record = try #require(link.client.seal([1]))
        link.client.close(now: now)
        let goodbye = try #require(link.client.transmit())
        link.server.receive(record + goodbye, now: now)
        #expect(link.server.readAll() == [[1]])
        #expect(link.server.state == .closed(byPeer: true))
    }

    @Test func closingBeforeTheHandshakeEnds() {
        let client = OpenSSLTransport(context: contexts.client, role: .client)!
        client.start(now: now)
        client.close(now: now)
        #expect(client.state == .closed(byPeer: false) && client.nextTimeout == nil)
        client.receive([22, 254, 253], now: now)
        #expect(client.counters.droppedDatagrams == 1)
    }

    @Test func releasedBuffersComeBack() throws {
        for end in [link.client, link.server] { end.releaseBuffers() }
        let up = try #require(link.client.seal([1, 2, 3]))
        link.server.receive(up, now: now)
        #expect(link.server.readAll() == [[1, 2, 3]])
        link.server.releaseBuffers()
        link.server.close(now: now)
        link.client.releaseBuffers()
        link.settle(now: now)
        #expect(link.client.state == .closed(byPeer: true))
    }

    @Test func renegotiationIsRefused() throws {
        // What the peer may still say as an authenticated record: a ClientHello cannot be sealed through the
        // seam, so a plain one of the old epoch comes instead, and must not disturb the connection.
        let fresh = OpenSSLTransport(context: contexts.client, role: .client)!
        fresh.start(now: now)
        let hello = try #require(fresh.transmit())
        link.server.receive(hello, now: now)
        #expect(link.server.state == .connected && link.server.transmit() == nil)
    }
}
