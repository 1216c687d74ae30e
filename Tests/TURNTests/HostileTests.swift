import STUN
import Testing
import Wire

@testable import TURN

@Suite struct Hostile {
    @Test func forgedResponsesAreDroppedAndTheRightOneCounts() {
        let world = World()
        world.allocate()
        world.client.probe(now: world.now)
        world.flush()
        guard let id = world.client.transactions.first?.id else {
            Issue.record("no request")
            return
        }
        func forged(_ messageClass: MessageClass, _ key: IntegrityKey?, _ code: Int? = nil) -> [UInt8] {
            written { output in
                var writer = MessageWriter(messageClass, method: MessageType.refresh, id: id, to: &output)
                if let code { writer.append(errorCode: code, to: &output) }
                writer.append(.lifetime, 1 as UInt32, to: &output)
                writer.finish(key, to: &output)
            }
        }
        let wrong = IntegrityKey(password: "wrong")
        #expect(world.inject(forged(.success, nil)) == .ignored(.badIntegrity))
        #expect(world.inject(forged(.success, wrong)) == .ignored(.badIntegrity))
        #expect(world.inject(forged(.error, wrong, 437)) == .ignored(.badIntegrity))
        #expect(world.inject(forged(.error, nil, 437)) == .ignored(.badIntegrity))
        #expect(world.inject(forged(.error, nil, 300)) == .ignored(.badIntegrity))
        #expect(world.inject(forged(.error, nil)) == .ignored(.malformed))
        world.run(for: .seconds(5))
        #expect(world.failures.isEmpty && world.client.allocation != nil)
        #expect(world.client.statistics.badIntegrity == 5)
    }

    @Test func replayedAndForeignResponsesAreDropped() {
        let world = World()
        world.duplication = 1
        world.allocate()
        #expect(world.client.statistics.unmatched > 0 && world.events.count == 1)
        let other = written { output in
            var writer = MessageWriter(
                .success, method: MessageType.refresh, id: TransactionID(high: 1, low: 1), to: &output)
            writer.finish(nil, to: &output)
        }
        #expect(world.inject(other) == .ignored(.unmatched))
    }

    /// Some servers sign no errors: these are believed, a little later.
    @Test func unsignedErrorsAreBelievedInTheEnd() {
        let world = World()
        world.server.signsErrors = false
        world.server.refusals[MessageType.allocate] = 486
        world.client.start(now: world.now)
        world.flush()
        let start = world.now
        world.run(for: .milliseconds(300))
        #expect(world.failures.isEmpty)
        world.run(for: .seconds(1))
        #expect(world.failures == [.quotaReached] && world.now > start)
    }

    @Test func answersWithoutWhatTheyNeedAreFailures() {
        for missing in [AttributeType.lifetime, .xorRelayedAddress] {
            let world = World()
            world.server.tamper = { bytes in
                guard let message = try? Message(bytes.span.bytes), message.messageClass == .success,
                    message.method == MessageType.allocate
                else { return bytes }
                let id = message.transactionID
                let key = IntegrityKey(username: "alice", realm: "example.org", password: "secret", algorithm: .sha1)
                return written { output in
                    var writer = MessageWriter(.success, method: MessageType.allocate, id: id, to: &output)
                    if missing != .lifetime { writer.append(.lifetime, 600 as UInt32, to: &output) }
                    if missing != .xorRelayedAddress {
                        writer.append(.xorRelayedAddress, address("203.0.113.1", 1), to: &output)
                    }
                    writer.finish(key, to: &output)
                }
            }
            world.allocate()
            #expect(world.failures == [.malformedAnswer])
        }
    }

    @Test func randomDatagramsDoNoHarm() {
        var random = SeededGenerator(seed: 8656)
        let world = World()
        world.allocate()
        world.permit()
        _ = world.client.bindChannel(World.peer, now: world.now)
        world.flush()
        world.run(for: .seconds(1))
        let samples = [
            SimulatedServer.dataIndication([1, 2, 3], from: World.peer), [0x40, 0, 0, 3, 1, 2, 3, 0],
            world.server.requests[0].bytes,
        ]
        for _ in 0..<20_000 {
            var bytes =
                Bool.random(using: &random)
                ? samples.randomElement(using: &random)! : random.bytes(Int.random(in: 0...80, using: &random))
            for _ in 0..<Int.random(in: 0...3, using: &random) where !bytes.isEmpty {
                bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8(truncatingIfNeeded: random.next())
            }
            _ = world.inject(bytes)
        }
        #expect(world.client.allocation != nil && world.failures.isEmpty)
        #expect(world.delivered.allSatisfy { $0.from.ip == World.peer.ip })
    }

    @Test(arguments: [
        "GET / HTTP/1.1\r\n", "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}", "HTTP/1.1 200 OK\r\n", "\u{1}\u{1}\u{0}\u{0}xxxx",
        "\u{1}\u{1}\u{0}\u{3}", "\u{7f}", "@\u{0}",
    ])
    func garbageOnAStreamIsAFailure(text: String) {
        let world = World(transport: .tcp)
        world.client.start(now: world.now)
        world.flush()
        for byte in text.utf8 { world.injectStream([byte]) }
        // Less than a word may still become anything.
        let isShort = text.utf8.count < 4
        #expect(world.failures == (isShort ? [] : [.malformedStream]))
        world.injectStream([UInt8](repeating: 0xFF, count: 100_000))
        #expect(world.failures == [.malformedStream])
    }

    @Test func streamsKeepNoMoreThanOneMessage() {
        var frames = Frames()
        frames.allowsChannelData = true
        let head: [UInt8] = [0x40, 0, 0xFF, 0xFF]
        frames.keep(head.span.bytes)
        let zeros = [UInt8](repeating: 0, count: 200_000)
        let result = frames.complete(zeros.span.bytes)
        #expect(result?.taken == 65_536 && result?.whole?.count == 65_540 && frames.isEmpty)
        let empty: [UInt8] = []
        #expect(frames.complete(empty.span.bytes)?.taken == 0)
    }

    @Test func framesAreFoundHoweverTheyAreCut() {
        var random = SeededGenerator(seed: 1)
        let world = World(transport: .tcp)
        world.allocate()
        world.permit()
        world.delivered = []
        var stream: [UInt8] = []
        var sizes: [Int] = []
        for _ in 0..<2000 {
            let count = Int.random(in: 0...40, using: &random)
            sizes.append(count)
            stream += SimulatedServer.dataIndication([UInt8](repeating: 3, count: count), from: World.peer)
        }
        var rest = stream[...]
        while !rest.isEmpty {
            let piece = rest.prefix(Int.random(in: 1...100, using: &random))
            rest = rest.dropFirst(piece.count)
            world.injectStream(Array(piece))
        }
        #expect(world.delivered.map(\.data.count) == sizes)
    }

    @Test func callsInAnyOrderDoNoHarm() {
        for seed in 1...150 as ClosedRange<UInt64> {
            var random = SeededGenerator(seed: seed)
            let world = World(seed: seed, transport: seed % 3 == 0 ? .tcp : .udp)
            world.server.isMobile = seed % 2 == 0
            world.loss = world.isStream ? 0 : 0.1
            for _ in 0..<60 {
                let peer = SocketAddress(ip: World.peer.ip, port: UInt16.random(in: 1...4, using: &random))
                switch Int.random(in: 0...13, using: &random) {
                case 0...2: world.client.start(now: world.now)
                case 3: world.move(UInt16.random(in: 1...9, using: &random))
                case 4: if Int.random(in: 0...9, using: &random) == 0 { world.client.close(now: world.now) }
                case 5: _ = world.client.permit(peer.ip, now: world.now)
                case 6: _ = world.client.bindChannel(peer, now: world.now)
                case 7: world.client.releaseChannel(peer)
                case 8: world.client.forbid(peer.ip)
                case 9: world.client.probe(now: world.now)
                case 10: world.send([1], to: peer)
                case 11: world.client.connectionClosed(now: world.now)
                case 12:
                    let name = Bool.random(using: &random) ? "alice" : "bob"
                    world.client.setCredentials(RelayCredentials(username: name, password: "secret"), now: world.now)
                default: world.run(for: .milliseconds(Int64.random(in: 0...400_000, using: &random)))
                }
                world.flush()
                #expect(world.client.transactions.count <= 16 && world.client.channels.count <= 8, "seed \(seed)")
                #expect(world.client.activeChannels == world.client.channels.values.filter(\.isWanted).count)
            }
            world.client.close(now: world.now)
            world.flush()
            world.run(for: .seconds(60))
            #expect(world.events.filter { $0 == .closed }.count == 1, "seed \(seed)")
            #expect(world.client.nextTimeout == nil, "seed \(seed)")
        }
    }
}
