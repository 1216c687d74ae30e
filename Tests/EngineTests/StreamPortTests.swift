import ICE
import STUN
import Testing
import Wire

@testable import Engine

/// A binding request, of which a port looks at the beginning only; padded to that many bytes.
private func check(_ count: Int = 20, type: UInt16 = 1, mark: UInt8 = 0) -> [UInt8] {
    let length = UInt16(count - 20)
    return [UInt8(type >> 8), UInt8(type & 255), UInt8(length >> 8), UInt8(length & 255), 0x21, 0x12, 0xA4, 0x42]
        + [UInt8](repeating: mark, count: count - 8)
}

private func framed(_ bytes: [UInt8]) -> [UInt8] { [UInt8(bytes.count >> 8), UInt8(bytes.count & 255)] + bytes }

/// A port with what it delivers.
private final class Harness {
    let world: StreamWorld
    let port: StreamPort
    var delivered: [(bytes: [UInt8], path: Path, peer: UInt64)] = []
    /// Accepts every check from connections for this peer.
    var trustsFor: UInt64?

    init(_ world: StreamWorld, listens: String? = "::", _ adjust: (inout StreamPort.Settings) -> Void = { _ in }) throws
    {
        self.world = world
        var settings = StreamPort.Settings()
        adjust(&settings)
        port = StreamPort(watch: world.table, settings: settings)
        port.deliver = { [unowned self] datagram, path, peer, _ in
            delivered.append((datagram.copied(), path, peer))
            if let trustsFor { port.trust(path, for: trustsFor) }
        }
        if let listens { try port.listen(on: IPAddress(listens), port: 0) }
        world.others.append { [weak self] in
            guard let self else { return }
            port.flush(now: world.now)
        }
    }

    func address(_ ip: String = "127.0.0.1") -> SocketAddress {
        SocketAddress(ip: IPAddress(ip)!, port: port.port ?? 0)
    }

    @discardableResult
    func send(_ bytes: [UInt8], _ path: Path, peer: UInt64 = 1, opens: Bool = true) -> Bool {
        port.send(bytes.span.bytes, over: path, peer: peer, opens: opens, now: world.now)
    }

    /// To there, from port 9.
    func active(_ to: SocketAddress, from: String = "127.0.0.1") -> Path {
        Path(local: SocketAddress(ip: IPAddress(from)!, port: 9), remote: to, transport: .tcp)
    }
}

@Suite struct StreamPorts {
    private let world = StreamWorld()

    // MARK: Coming in

    @Test(arguments: ["127.0.0.1", "127.0.0.5", "::1"]) func tellWhereADatagramCameFromAndTo(_ ip: String) throws {
        let harness = try Harness(world)
        let client = try #require(RawSocket.connected(harness.address(ip)))
        client.write(framed(check()))
        try world.run("a datagram") { !harness.delivered.isEmpty }
        let first = harness.delivered[0]
        #expect(first.bytes == check() && first.peer == 0)
        #expect(first.path == Path(local: harness.address(ip), remote: client.local, transport: .tcp))
        // The answer goes the same way.
        #expect(harness.send([4, 5, 6], first.path, peer: 0, opens: false))
        try world.run("an answer") { client.read() == [0, 3, 4, 5, 6] }
        let statistics = harness.port.statistics
        #expect(statistics.accepted == 1 && statistics.datagramsReceived == 1 && statistics.datagramsSent == 1)
        #expect(statistics.bytesReceived == 22 && statistics.bytesSent == 5)
    }

    @Test func listenOnOneAddress() throws {
        let harness = try Harness(world, listens: "127.0.0.3")
        #expect(RawSocket.connected(harness.address("127.0.0.3")) != nil)
        #expect(RawSocket.connected(harness.address("127.0.0.1")) == nil)
    }

    @Test func preferThePortOfUDP() throws {
        let taken = RawSocket.listening("127.0.0.1")
        let free = RawSocket.listening("127.0.0.1").local.port
        let port = StreamPort(watch: world.table)
        try port.listen(on: IPAddress("127.0.0.1"), port: 0, preferring: free)
        #expect(port.port == free)
        let other = StreamPort(watch: world.table)
        try other.listen(on: IPAddress("127.0.0.1"), port: 0, preferring: taken.local.port)
        #expect(other.port != nil && other.port != 0 && other.port != taken.local.port)
        let third = StreamPort(watch: world.table)
        let failure = #expect(throws: Failure.self) {
            try third.listen(on: IPAddress("127.0.0.1"), port: taken.local.port)
        }
        #expect(failure?.status == .portInUse)
        #expect(failure?.detail.hasPrefix("cannot open TCP port \(taken.local.port) on 127.0.0.1: ") == true)
    }

    @Test func cutDatagramsOutOfWhatComes() throws {
        let harness = try Harness(world)
        harness.trustsFor = 7
        let client = try #require(RawSocket.connected(harness.address()))
        var random = SeededGenerator(seed: 0x4571)
        var sent = [check(40)]
        for _ in 0..<3000 {
            let count = [0, 1, 2, 100, 1200, 18_445, 3].randomElement(using: &random)!
            sent.append(
                (0..<min(count, 200)).map { _ in UInt8.random(in: 0...255, using: &random) }
                    + [UInt8](repeating: 7, count: max(0, count - 200)))
        }
        var stream = sent.flatMap { framed($0) }[...]
        // One by one to begin with: each boundary is met.
        for _ in 0..<60 {
            client.write([stream.removeFirst()])
            world.turn()
        }
        try world.run("all of it") {
            let piece = stream.prefix(Int.random(in: 1...5000, using: &random))
            stream = stream.dropFirst(piece.isEmpty ? 0 : max(0, client.write(piece)))
            return harness.delivered.count == sent.count { !$0.isEmpty }
        }
        // RFC 4571 section 2: a length of zero says nothing.
        #expect(harness.delivered.map(\.bytes) == sent.filter { !$0.isEmpty })
        #expect(harness.delivered.first?.peer == 0 && harness.delivered.dropFirst().allSatisfy { $0.peer == 7 })
    }

    @Test(arguments: [
        Array("GET / HTTP/1.1\r\n".utf8), [0x16, 0x03, 0x01, 0x02, 0x00], framed([1, 2, 3]),
        framed(check(type: 0x0101)), framed(check(type: 0x0011)), framed(check(type: 0x0003)),
        framed([0x16, 0xFE, 0xFF] + [UInt8](repeating: 0, count: 40)), [0xFF, 0xFF], [0x08, 0x01],
        framed(check().dropLast()),
    ])
    func closeWhatDoesNotBeginWithACheck(_ bytes: [UInt8]) throws {
        let harness = try Harness(world)
        let client = try #require(RawSocket.connected(harness.address()))
        client.write(bytes)
        try world.run("the end") { client.read() == nil }
        #expect(harness.delivered.isEmpty && harness.port.count == 0)
        #expect(harness.port.statistics.malformed == 1)
        #expect(harness.port.pollClosed() == nil, "nobody knew of it")
    }

    @Test func closeWhatBecomesGarbageLater() throws {
        let harness = try Harness(world)
        harness.trustsFor = 3
        let client = try #require(RawSocket.connected(harness.address()))
        client.write(framed(check()))
        try world.run("a check") { harness.delivered.count == 1 }
        client.write([0xFF, 0xFF])
        try world.run("the end") { client.read() == nil }
        let closed = try #require(harness.port.pollClosed())
        #expect(closed.path == harness.delivered[0].path && closed.peer == 3)
        #expect(harness.port.pollClosed() == nil && harness.port.count == 0)
    }

    @Test func closeThoseThatNobodyTrusts() throws {
        let harness = try Harness(world)
        let silent = try #require(RawSocket.connected(harness.address()))
        let slow = try #require(RawSocket.connected(harness.address()))
        let refused = try #require(RawSocket.connected(harness.address()))
        let trusted = try #require(RawSocket.connected(harness.address()))
        slow.write([0])
        refused.write(framed(check()))
        trusted.write(framed(check(mark: 9)))
        try world.run("two checks") { harness.delivered.count == 2 && harness.port.count == 4 }
        let path = try #require(harness.delivered.first { $0.bytes.last == 9 }?.path)
        harness.port.trust(path, for: 5)
        let due = try #require(harness.port.nextTimeout)
        #expect(due - world.now > .seconds(5) && due - world.now <= .seconds(10))
        harness.port.handleTimeout(now: due + .seconds(3))
        #expect(harness.port.count == 1 && harness.port.nextTimeout == nil)
        #expect(harness.port.statistics.expired == 3)
        try world.run("three ends") { [silent, slow, refused].allSatisfy { $0.read() == nil } }
        // Only the one whose check was handed on is known outside.
        #expect(harness.port.pollClosed()?.path.remote == refused.local && harness.port.pollClosed() == nil)
        harness.send([1], path, opens: false)
        try world.run("the trusted one's") { trusted.read() == [0, 1, 1] }
    }

    @Test func admitSoManyFromOneAddress() throws {
        let harness = try Harness(world) { $0.maximumUntrusted = 3 }
        let clients = (0..<5).map { _ in RawSocket.connected(harness.address()) }
        try world.run("five") { harness.port.statistics.refused == 2 }
        #expect(harness.port.count == 3)
        // Others are not kept out by that, and who is trusted does not count.
        let other = try #require(RawSocket.connected(harness.address(), from: "127.0.0.9"))
        other.write(framed(check()))
        clients[0]?.write(framed(check()))
        try world.run("two checks") { harness.delivered.count == 2 }
        for delivered in harness.delivered { harness.port.trust(delivered.path, for: 1) }
        let next = RawSocket.connected(harness.address())
        try world.run("one more") { harness.port.statistics.accepted == 5 }
        withExtendedLifetime((clients, next)) {}
    }

    @Test func makeRoomForNewcomersWhenFull() throws {
        let harness = try Harness(world) { $0.maximumConnections = 3 }
        let trusted = try #require(RawSocket.connected(harness.address()))
        trusted.write(framed(check()))
        try world.run("a check") { harness.delivered.count == 1 }
        harness.port.trust(harness.delivered[0].path, for: 1)
        let first = try #require(RawSocket.connected(harness.address()))
        try world.run("two") { harness.port.count == 2 }
        let second = try #require(RawSocket.connected(harness.address()))
        try world.run("three") { harness.port.count == 3 }
        let third = try #require(RawSocket.connected(harness.address()))
        try world.run("the oldest goes") { first.read() == nil }
        #expect(harness.port.count == 3 && trusted.read() == [] && second.read() == [] && third.read() == [])
        // Where all are trusted there is no room.
        for (index, client) in [second, third].enumerated() {
            client.write(framed(check()))
            try world.run("a check") { harness.delivered.count == index + 2 }
            harness.port.trust(harness.delivered[index + 1].path, for: 1)
        }
        let last = try #require(RawSocket.connected(harness.address()))
        try world.run("no room") { last.read() == nil }
        #expect(harness.port.count == 3 && harness.port.statistics.refused == 1)
    }

    // MARK: Opening

    @Test(arguments: ["127.0.0.1", "::1"]) func openConnectionsOnDemand(_ ip: String) throws {
        let (one, other) = (try Harness(world, listens: nil), try Harness(world))
        let path = one.active(other.address(ip), from: ip)
        #expect(!one.send([1], path, opens: false) && one.port.count == 0)
        #expect(one.send(check(), path) && one.send([7, 7], path, opens: false))
        #expect(one.port.has(path, peer: 1) && !one.port.has(path, peer: 2))
        other.trustsFor = 44
        try world.run("two datagrams") { other.delivered.count == 2 }
        #expect(other.delivered[1].bytes == [7, 7] && other.delivered[1].peer == 44)
        other.send([8], other.delivered[0].path, peer: 44, opens: false)
        try world.run("an answer") { one.delivered.count == 1 }
        #expect(one.delivered[0].path == path && one.delivered[0].peer == 1 && one.delivered[0].bytes == [8])
        #expect(one.port.statistics.opened == 1 && one.port.nextTimeout == nil)
    }

    @Test func keepPeersApartThatCallTheSamePlace() throws {
        let (one, other) = (try Harness(world, listens: nil), try Harness(world))
        let path = one.active(other.address())
        one.send(check(mark: 1), path, peer: 1)
        one.send(check(mark: 2), path, peer: 2)
        try world.run("two checks") { other.delivered.count == 2 }
        #expect(other.delivered[0].path != other.delivered[1].path && one.port.count == 2)
        for delivered in other.delivered { other.send([delivered.bytes[19]], delivered.path, opens: false) }
        try world.run("two answers") { one.delivered.count == 2 }
        #expect(one.delivered.allSatisfy { $0.path == path && $0.bytes == [UInt8($0.peer)] })
        one.port.release(peer: 1)
        #expect(!one.port.has(path, peer: 1) && one.port.has(path, peer: 2))
        try world.run("one end") { other.port.count == 1 }
    }

    @Test func tellOfConnectionsThatEnd() throws {
        let (one, other) = (try Harness(world, listens: nil), try Harness(world))
        let path = one.active(other.address())
        one.send(check(), path)
        try world.run("a check") { other.delivered.count == 1 }
        let back = other.delivered[0].path
        other.port.trust(back, for: 6)
        other.port.release(back, peer: 6)
        #expect(other.port.pollClosed() == nil, "who releases knows")
        var closed: StreamPort.Closed?
        try world.run("the end") {
            closed = closed ?? one.port.pollClosed()
            return closed != nil
        }
        #expect(closed?.path == path && closed?.peer == 1 && closed?.failure == nil)
        #expect(one.port.count == 0 && other.port.count == 0)
        #expect(!one.send([1], path, opens: false) && one.port.statistics.datagramsDropped == 1)
    }

    @Test func tellOfConnectionsThatCannotBe() throws {
        let harness = try Harness(world, listens: nil)
        let free = RawSocket.listening().local
        let path = harness.active(free)
        harness.send(check(), path)
        var closed: StreamPort.Closed?
        try world.run("the end") {
            closed = closed ?? harness.port.pollClosed()
            return closed != nil
        }
        #expect(closed?.path == path && closed?.failure?.status == .turnUnreachable)
        #expect(harness.port.statistics.unreachable == 1 && harness.port.count == 0 && harness.port.nextTimeout == nil)
        // Not from an address this machine has not.
        let foreign = harness.active(free, from: "192.0.2.1")
        #expect(!harness.send(check(), foreign))
        #expect(harness.port.pollClosed()?.path == foreign)
    }

    @Test func giveUpOpening() throws {
        let harness = try Harness(world, listens: nil)
        let listener = RawSocket.listening()
        harness.send(check(), harness.active(listener.local))
        let due = try #require(harness.port.nextTimeout)
        harness.port.handleTimeout(now: due)
        #expect(harness.port.pollClosed()?.failure?.detail.contains("no answer within 10 s") == true)
        #expect(harness.port.count == 0 && world.table.count == 0)
    }

    @Test func openSoManyForOnePeer() throws {
        let harness = try Harness(world, listens: nil) { $0.maximumPerPeer = 2 }
        let listeners = (0..<3).map { _ in RawSocket.listening() }
        let results = listeners.map { harness.send(check(), harness.active($0.local)) }
        #expect(results == [true, true, false] && harness.port.count == 2)
        #expect(harness.send(check(), harness.active(listeners[2].local), peer: 2))
    }

    @Test func trustSoManyForOnePeer() throws {
        let harness = try Harness(world) { $0.maximumPerPeer = 2 }
        var results: [Bool] = []
        let clients = try (0..<3).map { index in
            let client = try #require(RawSocket.connected(harness.address()))
            client.write(framed(check()))
            try world.run("a check") { harness.delivered.count == index + 1 }
            results.append(harness.port.trust(harness.delivered[index].path, for: 8))
            return client
        }
        #expect(results == [true, true, false])
        #expect(harness.port.trust(harness.delivered[0].path, for: 8), "again")
        harness.port.handleTimeout(now: world.now + .seconds(11))
        #expect(harness.port.count == 2)
        try world.run("the third's end") { clients[2].read() == nil }
        // Another one may have it from its peer.
        #expect(harness.port.trust(harness.delivered[0].path, for: 9))
        harness.port.release(peer: 8)
        #expect(harness.port.count == 1)
    }

    @Test func neverOpenToNowhere() throws {
        let harness = try Harness(world, listens: nil)
        for (ip, port) in [("127.0.0.1", 0), ("0.0.0.0", 9000), ("::", 9000), ("224.0.0.1", 9000), ("ff02::1", 9000)] {
            #expect(!harness.send(check(), harness.active(SocketAddress(ip: IPAddress(ip)!, port: UInt16(port)))))
        }
        #expect(harness.port.count == 0 && harness.port.statistics.datagramsDropped == 5)
    }

    // MARK: Sending

    @Test func dropWholeDatagramsWhenTheOtherSideDoesNotRead() throws {
        let harness = try Harness(world)
        harness.trustsFor = 2
        let client = try #require(RawSocket.connected(harness.address()))
        client.write(framed(check()))
        try world.run("a check") { harness.delivered.count == 1 }
        let path = harness.delivered[0].path
        var random = SeededGenerator(seed: 0xD07)
        var sent: [UInt8] = []
        for number in 0..<200_000 where harness.port.statistics.datagramsDropped < 100 {
            let datagram = [UInt8](
                repeating: UInt8(truncatingIfNeeded: number), count: Int.random(in: 1...1200, using: &random))
            if harness.send(datagram, path, opens: false) { sent += framed(datagram) }
            if number % 16 == 0 { harness.port.flush(now: world.now) }
        }
        #expect(harness.port.statistics.datagramsDropped == 100)
        var received: [UInt8] = []
        try world.run("all of it") {
            received += client.read() ?? []
            return received.count >= sent.count
        }
        #expect(received == sent)
    }

    @Test func queueLittleUntilTheConnectionIsOpen() throws {
        let harness = try Harness(world, listens: nil)
        let listener = RawSocket.listening()
        let path = harness.active(listener.local)
        var count = 0
        while harness.send([UInt8](repeating: 1, count: 1000), path), count < 2000 { count += 1 }
        #expect(count == 66)
    }

    @Test func sendATurnsDatagramsTogether() throws {
        let (one, other) = (try Harness(world, listens: nil), try Harness(world))
        other.trustsFor = 1
        let path = one.active(other.address())
        one.send(check(), path)
        try world.run("a check") { other.delivered.count == 1 }
        for _ in 0..<50 { one.send([UInt8](repeating: 3, count: 100), path) }
        let before = one.port.statistics.bytesSent
        #expect(before == 22, "nothing before the flush")
        one.port.flush(now: world.now)
        #expect(one.port.statistics.bytesSent == 22 + 50 * 102)
        try world.run("all of it") { other.delivered.count == 51 }
    }

    // MARK: Ends

    @Test func closeEverything() throws {
        let (one, other) = (try Harness(world, listens: nil), try Harness(world))
        let path = one.active(other.address())
        one.send(check(), path)
        try world.run("a check") { other.delivered.count == 1 }
        other.port.close()
        #expect(other.port.count == 0 && other.port.port == nil && other.port.nextTimeout == nil)
        try world.run("the end") { one.port.count == 0 }
        one.port.close()
        #expect(!one.send(check(), path) && world.table.count == 0)
    }

    @Test func mayBeClosedWhileItDelivers() throws {
        let harness = try Harness(world)
        harness.port.deliver = { [unowned harness] _, path, _, _ in
            harness.delivered.append(([], path, 0))
            harness.port.release(path, peer: 0)
        }
        let client = try #require(RawSocket.connected(harness.address()))
        client.write(framed(check()) + framed(check()) + [0])
        try world.run("the end") { client.read() == nil }
        #expect(harness.delivered.count == 1 && harness.port.count == 0 && harness.port.pollClosed() == nil)
    }

    /// Peers come, talk and go in any order; nothing is left over.
    @Test(arguments: 1...6 as ClosedRange<UInt64>) func surviveAnyOrderOfThings(_ seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let other = try Harness(world) { $0.maximumConnections = 12 }
        let one = try Harness(world, listens: nil) { $0.maximumConnections = 10 }
        other.trustsFor = 9
        var raw: [RawSocket] = []
        for _ in 0..<600 {
            let peer = UInt64.random(in: 1...5, using: &random)
            let path = one.active(other.address(["127.0.0.1", "127.0.0.2"].randomElement(using: &random)!))
            switch Int.random(in: 0..<10, using: &random) {
            case 0...3: one.send(check(Int.random(in: 5...300, using: &random) * 4, mark: 1), path, peer: peer)
            case 4: one.port.release(path, peer: peer)
            case 5: other.port.release(peer: 9)
            case 6:
                if let client = RawSocket.connected(other.address()) {
                    client.write((0..<40).map { _ in UInt8.random(in: 0...255, using: &random) })
                    if Bool.random(using: &random) { client.reset() }
                    raw.append(client)
                }
            case 7: if !raw.isEmpty { raw.removeFirst() }
            case 8:
                if let path = other.delivered.randomElement(using: &random)?.path {
                    other.send([5], path, opens: false)
                }
            default: world.turn(1)
            }
            while one.port.pollClosed() != nil {}
            while other.port.pollClosed() != nil {}
            #expect(one.port.count <= 10 && other.port.count <= 12, "seed \(seed)")
        }
        for harness in [one, other] {
            harness.port.close()
            #expect(harness.port.count == 0 && harness.port.nextTimeout == nil, "seed \(seed)")
        }
        #expect(world.table.count == 0, "seed \(seed)")
    }
}
