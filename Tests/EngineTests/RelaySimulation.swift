import ICE
import STUN
import TURN
import Testing
import Wire

@testable import Engine

/// One group on virtual time, with servers over UDP that ask for no credentials.
final class RelaySimulation: DescriptorWatch {
    private(set) var environment: RelayEnvironment! = nil
    private(set) var group: RelayGroup! = nil
    private(set) var now = Instant(nanoseconds: 1_000_000_000)
    private(set) var events: [RelayEvent] = []
    /// First requests for an allocation, by the server's port: when.
    private(set) var asked: [(port: UInt16, at: Wire.Duration)] = []
    private(set) var sent = 0
    /// What servers answer; nil: they are silent.
    var answer: (RelaySimulation, SocketAddress, borrowing Message) -> [UInt8]? = { _, _, _ in nil }
    /// There is no way out.
    var isOffline = false
    private var underWay: [(at: Instant, from: SocketAddress, bytes: [UInt8])] = []
    var delay: (SocketAddress) -> Wire.Duration = { _ in .milliseconds(10) }
    private var seen = Set<SocketAddress>()
    private var random: SeededGenerator

    init(seed: UInt64 = 1, _ adjust: (inout RelayEnvironment.Settings) -> Void = { _ in }) {
        random = SeededGenerator(seed: seed)
        var settings = RelayEnvironment.Settings()
        settings.families = .ipv4
        adjust(&settings)
        let seeds = Seeds(seed)
        environment = RelayEnvironment(
            settings, watch: self, random: { seeds.next() }, unixSeconds: { 1_700_000_000 },
            source: { [unowned self] address in
                isOffline ? nil : IPAddress(address.ip.isIPv4 ? "198.51.100.1" : "2001:db8::1")
            }, lookUp: { _ in [] })
        group = RelayGroup(environment, port: 5000, isIPv4: false, now: now)
    }

    private final class Seeds {
        private var generator: SeededGenerator
        init(_ seed: UInt64) { generator = SeededGenerator(seed: seed) }
        func next() -> any RandomNumberGenerator { SeededGenerator(seed: generator.next()) }
    }

    func watch(_ descriptor: Int32, writable: Bool, by owner: any DescriptorOwner) -> Bool { true }
    func unwatch(_ descriptor: Int32) {}

    func setServers(_ urls: [String]) throws {
        environment.setServers(try urls.map { try TURNServer(url: $0, credentials: nil) }, now: now)
        drain()
    }

    func drain() {
        var storage = [UInt8](repeating: 0, count: 4096)
        while true {
            var to: SocketAddress?
            let count = storage.withUnsafeMutableBytes { buffer in
                var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
                to = group.pollTransmit(into: &output, now: now)
                return output.finalize(for: buffer)
            }
            guard let to else { break }
            sent += 1
            arrived(Array(storage[..<count]), at: to)
        }
        while let event = group.pollEvent() { events.append(event) }
    }

    private func arrived(_ bytes: [UInt8], at server: SocketAddress) {
        guard STUN.isMessage(bytes.span.bytes), let message = try? Message(bytes.span.bytes) else { return }
        if message.method == MessageType.allocate, message.messageClass == .request, seen.insert(server).inserted {
            asked.append((server.port, now - Instant(nanoseconds: 1_000_000_000)))
        }
        if let reply = answer(self, server, message) { underWay.append((now + delay(server), server, reply)) }
    }

    func forgetAsked() {
        seen = []
        asked = []
    }

    /// Lets time go by until then.
    func run(_ duration: Wire.Duration, turns: Int = 1_000_000) {
        let end = now + duration
        var left = turns
        while left > 0 {
            left -= 1
            let due = min(group.nextTimeout ?? .distantFuture, underWay.map(\.at).min() ?? .distantFuture)
            guard due <= end else { break }
            now = max(now, due)
            let arriving = underWay.filter { $0.at <= now }
            underWay.removeAll { $0.at <= now }
            for packet in arriving {
                _ = group.handle(packet.bytes.span.bytes, from: packet.from, now: now) { _, _, _ in }
            }
            if let due = group.nextTimeout, due <= now { group.handleTimeout(now: now) }
            drain()
        }
        #expect(left > 0, "it does not come to rest")
        now = end
    }

    func networkChanged() {
        environment.networkChanged(now: now)
        drain()
    }

    var losses: [SocketAddress] {
        events.compactMap { if case .lost(let relayed) = $0 { relayed } else { nil } }
    }

    /// A server that gives what is asked for; its relayed address is its own with another port.
    static func willing(_ server: SocketAddress, _ message: borrowing Message) -> [UInt8]? {
        respond(message, .success) { writer, output in
            if message.method == MessageType.allocate || message.method == MessageType.refresh {
                writer.append(.lifetime, message.lifetime ?? 600, to: &output)
            }
            if message.method == MessageType.allocate {
                let relayed = SocketAddress(ip: server.ip, port: server.port &+ 10_000)
                writer.append(.xorRelayedAddress, relayed, to: &output)
                writer.append(
                    .xorMappedAddress, SocketAddress(ip: IPAddress("198.51.100.1")!, port: 5000), to: &output)
            }
        }
    }

    static func respond(
        _ message: borrowing Message, _ kind: MessageClass,
        _ body: (inout MessageWriter, inout OutputRawSpan) -> Void = { _, _ in }
    ) -> [UInt8]? {
        guard message.messageClass == .request else { return nil }
        return [UInt8](unsafeUninitializedCapacity: 1500) { buffer, count in
            let bytes = UnsafeMutableRawBufferPointer(buffer)
            var output = OutputRawSpan(buffer: bytes, initializedCount: 0)
            var writer = MessageWriter(kind, method: message.method, id: message.transactionID, to: &output)
            body(&writer, &output)
            writer.finish(nil, to: &output)
            count = output.finalize(for: bytes)
        }
    }
}

@Suite struct RelayRaces {
    private func urls(_ count: Int, transport: String = "udp") -> [String] {
        (1...count).map { "turn:203.0.113.\($0):\(3000 + $0)?transport=\(transport)" }
    }

    @Test func twoBeginAndOthersFollow() throws {
        let world = RelaySimulation()
        try world.setServers(urls(5))
        world.run(.seconds(2))
        #expect(world.asked.map(\.port) == [3001, 3002, 3003, 3004, 3005])
        #expect(world.asked.map { $0.at.milliseconds } == [0, 0, 50, 100, 150])
    }

    /// The first to answer is the first choice; the second is its standby, and all others are let go.
    @Test func firstToAnswerWins() throws {
        let world = RelaySimulation()
        world.answer = { RelaySimulation.willing($1, $2) }
        world.delay = { $0.port == 3004 ? .milliseconds(20) : .milliseconds(500) }
        try world.setServers(urls(6))
        world.run(.milliseconds(125))
        #expect(world.group.candidates.map(\.address.port) == [13_004])
        #expect(world.events.first == .candidatesChanged)
        world.run(.seconds(3))
        #expect(world.group.candidates.map(\.address.port) == [13_004, 13_001])
        #expect(world.group.legs.count == 2 && world.losses.isEmpty)
        // The next race begins with those that are known to be near.
        world.forgetAsked()
        let other = RelayGroup(world.environment, port: 5001, isIPv4: false, now: world.now)
        #expect(other.legs.map(\.endpoint.address.port).first == 3004)
    }

    @Test func connectionsComeAfterDatagrams() throws {
        let world = RelaySimulation()
        try world.setServers(["turns:127.0.0.1:9", "turn:127.0.0.1:9?transport=tcp"] + urls(1))
        world.run(.milliseconds(299))
        let early = world.group.legs.filter(\.isStream)
        #expect(early.isEmpty)
        world.run(.milliseconds(100))
        // Of these, TCP before TLS.
        let opened = world.group.legs.filter(\.isStream).map(\.endpoint.server.transport)
        #expect(opened == [.tcp, .tls])
        // Without hope of datagrams they begin at once.
        let alone = RelaySimulation()
        try alone.setServers(["turns:127.0.0.1:9"])
        #expect(alone.group.legs.count == 1)
    }

    /// Nobody answers, for an hour: tried again and again, ever more rarely, and never given up.
    @Test func silentServersAreTriedRarely() throws {
        let world = RelaySimulation()
        try world.setServers(urls(1))
        var attempts = 0
        for _ in 0..<3600 {
            world.forgetAsked()
            world.run(.seconds(1))
            if world.group.legs.contains(where: { $0.begun > world.now - .seconds(1) }) { attempts += 1 }
        }
        #expect((30...80).contains(attempts), "\(attempts)")
        let failures = world.events.count { if case .failed = $0 { true } else { false } }
        #expect(failures >= 30)
        // And then it is there.
        world.answer = { RelaySimulation.willing($1, $2) }
        world.run(.seconds(70))
        #expect(world.group.candidates.count == 1)
    }

    @Test func manyDeadServersDoNotHideTheLiving() throws {
        let world = RelaySimulation()
        world.answer = { $1.port == 3032 ? RelaySimulation.willing($1, $2) : nil }
        try world.setServers(urls(32))
        world.run(.seconds(2))
        #expect(world.group.candidates.map(\.address.port) == [13_032])
        #expect(world.group.legs.count <= 64)
    }

    /// The relay dies without a word: the standby is there, another is looked for, and the dead one comes back.
    @Test func silentRelayIsWithdrawn() throws {
        let world = RelaySimulation()
        let silent = Silent()
        world.answer = { silent.ports.contains($1.port) ? nil : RelaySimulation.willing($1, $2) }
        try world.setServers(urls(2))
        world.run(.seconds(5))
        let (first, second) = (world.group.candidates[0].address, world.group.candidates[1].address)
        silent.ports = [first.port &- 10_000]
        world.group.doubt(relayed: first, now: world.now)
        world.drain()
        world.run(.milliseconds(999))
        #expect(world.group.owns(first))
        world.run(.milliseconds(2))
        #expect(world.losses == [first] && world.group.candidates.map(\.address) == [second])
        world.run(.seconds(2))
        silent.ports = []
        world.run(.seconds(5))
        #expect(Set(world.group.candidates.map(\.address)) == [first, second])
        // For good this time, and nobody asks.
        silent.ports = [first.port &- 10_000]
        world.run(.seconds(40))
        #expect(world.group.candidates.map(\.address) == [second])
        world.run(.seconds(3600))
        #expect(world.group.candidates.map(\.address) == [second])
        #expect(world.losses == [first, first])
    }

    /// A server that refuses to prolong an allocation is there, and the allocation too, until its end.
    @Test func refusalIsNoSilence() throws {
        let world = RelaySimulation()
        world.answer = { _, server, message in
            guard message.method == MessageType.refresh else { return RelaySimulation.willing(server, message) }
            return RelaySimulation.respond(message, .error) { writer, output in
                writer.append(errorCode: 500, to: &output)
            }
        }
        try world.setServers(urls(1))
        world.run(.seconds(590))
        #expect(world.group.candidates.count == 1 && world.losses.isEmpty)
        world.run(.seconds(15))
        #expect(world.group.candidates.count == 1 && world.losses.count == 1)
    }

    /// Without any way out a relay is no use, and a moment later it is there again.
    @Test(arguments: [3, 60] as [Int64]) func outageIsSurvived(seconds: Int64) throws {
        let world = RelaySimulation()
        world.answer = { $0.isOffline ? nil : RelaySimulation.willing($1, $2) }
        try world.setServers(urls(2))
        world.run(.seconds(5))
        let before = world.group.candidates.map(\.address)
        world.isOffline = true
        world.networkChanged()
        #expect(world.group.candidates.isEmpty && world.losses == before)
        world.run(.seconds(seconds))
        #expect(world.group.candidates.isEmpty)
        world.isOffline = false
        world.networkChanged()
        world.run(.milliseconds(200))
        #expect(Set(world.group.candidates.map(\.address)) == Set(before))
    }

    /// An address that is another's, or ours, is none.
    @Test func stolenAddressesAreNotUsed() throws {
        let world = RelaySimulation()
        world.answer = { world, server, message in
            RelaySimulation.respond(message, .success) { writer, output in
                writer.append(.lifetime, 600 as UInt32, to: &output)
                let text = server.port == 3003 ? "198.51.100.1" : "203.0.113.1"
                let relayed = SocketAddress(ip: IPAddress(text)!, port: server.port == 3003 ? 5000 : 7)
                writer.append(.xorRelayedAddress, relayed, to: &output)
            }
        }
        try world.setServers(urls(3))
        world.run(.seconds(5))
        #expect(world.group.candidates.map(\.address) == [SocketAddress(ip: IPAddress("203.0.113.1")!, port: 7)])
        let failures = world.events.compactMap { if case .failed(_, let status, _) = $0 { status } else { nil } }
        #expect(failures.contains(.turnMalformed))
    }

    private final class Silent {
        var ports: Set<UInt16> = []
    }

    /// Servers that do anything, a host that does anything: what is told fits what there is, and it always ends.
    @Test(arguments: 1...150 as ClosedRange<UInt64>) func anythingGoes(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let world = RelaySimulation(seed: seed)
        let dice = Dice(seed)
        world.answer = { dice.answer($1, $2) }
        world.delay = { _ in dice.delay() }
        var offered = Set<SocketAddress>()
        for _ in 0..<60 {
            switch Int.random(in: 0..<9, using: &random) {
            case 0:
                let all = urls(6) + ["turn:203.0.113.1:4000"]
                try world.setServers(all.filter { _ in Bool.random(using: &random) })
            case 1:
                world.isOffline = Int.random(in: 0..<4, using: &random) == 0
                world.networkChanged()
            case 2:
                if let address = world.group.candidates.randomElement(using: &random)?.address {
                    world.group.doubt(relayed: address, now: world.now)
                }
            case 3...5:
                for candidate in world.group.candidates {
                    let ip = IPAddress(v4: 0xC000_0200 | UInt32.random(in: 0..<40, using: &random))
                    let peer = SocketAddress(ip: ip, port: .random(in: 0..<9, using: &random))
                    let data = [UInt8](repeating: 1, count: .random(in: 0..<1300, using: &random))
                    world.group.send(data.span.bytes, from: candidate.address, to: peer, now: world.now)
                    if Bool.random(using: &random) {
                        world.group.prefer(from: candidate.address, to: peer, now: world.now)
                    }
                }
            default: world.run(.milliseconds(Int64.random(in: 0..<20_000, using: &random)))
            }
            world.drain()
            let candidates = world.group.candidates
            for candidate in candidates {
                #expect(world.group.owns(candidate.address), "seed \(seed)")
                offered.insert(candidate.address)
            }
            #expect(Set(candidates.map(\.priority)).count == candidates.count, "seed \(seed)")
            #expect(Set(candidates.map(\.address)).count == candidates.count, "seed \(seed)")
            #expect(world.group.legByRelayed.count == candidates.count, "seed \(seed)")
            let held = world.group.legs.filter { $0.isHeld && !$0.isOutdated }
            #expect(held.count <= 3, "seed \(seed)")
            #expect(world.group.legs.count <= 64, "seed \(seed)")
        }
        world.group.close(now: world.now)
        world.drain()
        world.run(.seconds(60))
        #expect(world.group.isClosed && world.group.candidates.isEmpty, "seed \(seed)")
        #expect(Set(world.losses).isSuperset(of: offered), "seed \(seed)")
        #expect(world.group.legByServer.isEmpty && world.group.legByRelayed.isEmpty, "seed \(seed)")
    }

    private final class Dice {
        private var random: SeededGenerator

        init(_ seed: UInt64) { random = SeededGenerator(seed: seed &+ 1000) }

        func delay() -> Wire.Duration { .milliseconds(Int64.random(in: 1..<400, using: &random)) }

        func answer(_ server: SocketAddress, _ message: borrowing Message) -> [UInt8]? {
            let codes = [300, 400, 401, 403, 405, 437, 437, 438, 440, 486, 508, 500]
            switch Int.random(in: 0..<16, using: &random) {
            case 0...1: return nil
            case 2...3:
                let code = codes.randomElement(using: &random) ?? 400
                let other = SocketAddress(
                    ip: IPAddress(v4: 0xCB00_7100 | UInt32.random(in: 1..<9, using: &random)), port: 3001)
                return RelaySimulation.respond(message, .error) { writer, output in
                    writer.append(errorCode: code, to: &output)
                    if code == 300 { writer.append(.alternateServer, other, to: &output) }
                    writer.append(.realm, Array("r".utf8), to: &output)
                    writer.append(.nonce, [7], to: &output)
                }
            case 4:
                let count = Int.random(in: 0..<100, using: &random)
                return (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
            default: return RelaySimulation.willing(server, message)
            }
        }
    }
}
