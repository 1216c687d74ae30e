import CSystem
import ICE
import STUN
import Testing
import Wire

import class Foundation.NSCondition

@testable import Engine

/// A STUN server on a real port, on the test's own thread: it answers when it is asked to.
final class Responder {
    let port: Port
    var seen: SocketAddress?
    private let receiver = cs_receiver_create()!
    private let sender = cs_sender_create()!

    let ip: IPAddress

    init(_ ip: String = "127.0.0.1") throws {
        self.ip = IPAddress(ip)!
        port = try Port.open(SocketAddress(ip: self.ip, port: 0))
    }

    deinit {
        cs_receiver_destroy(receiver)
        cs_sender_destroy(sender)
    }

    var address: ServerAddress { ServerAddress(host: ip.description, port: port.number) }

    /// Answers what has come: that it saw `outside`, or what it really saw.
    func answer(_ outside: SocketAddress? = nil) -> Int {
        var datagrams: UnsafePointer<cs_datagram>?
        let count = cs_receive(receiver, port.descriptor, &datagrams)
        for index in 0..<Int(max(0, count)) {
            guard let datagram = datagrams?[index] else { continue }
            let bytes = UnsafeRawBufferPointer(start: datagram.data, count: Int(datagram.size)).bytes
            guard let request = try? Message(bytes) else { continue }
            seen = SocketAddress(datagram.from)
            let room = UnsafeMutableRawBufferPointer(start: cs_sender_next(sender), count: Int(CS_PACKET_ROOM))
            var output = OutputRawSpan(buffer: room, initializedCount: 0)
            var writer = MessageWriter(.success, id: request.transactionID, to: &output)
            writer.append(.xorMappedAddress, outside ?? SocketAddress(datagram.from), to: &output)
            writer.finish(nil, to: &output)
            var (to, from) = (datagram.from, cs_address())
            cs_sender_commit(
                sender, port.descriptor, port.isIPv4 ? 1 : 0, UInt32(output.finalize(for: room)), &to, &from)
        }
        var (sent, refused) = (0 as UInt64, 0 as UInt64)
        cs_sender_flush(sender, &sent, &refused)
        return Int(sent)
    }
}

/// What the loop does with a network.
final class Driver {
    let port: Port
    let network: Network
    var now = Instant(nanoseconds: 1_000_000_000)
    var changes: Network.Change = []
    private let receiver = cs_receiver_create()!
    private let sender = cs_sender_create()!

    init(
        _ configuration: Configuration, bind: IPAddress = .anyIPv6, monitor: NetworkMonitor? = nil,
        resolver: Resolver? = nil
    ) throws {
        port = try Port.open(SocketAddress(ip: bind, port: 0))
        network = Network(
            configuration, port: port.number, isIPv4: port.isIPv4,
            monitor: monitor ?? NetworkMonitor(configuration.interfaces, now: now),
            resolver: resolver ?? Resolver(configuration.stunServers, now: now), random: SystemRandomNumberGenerator(),
            now: now)
    }

    deinit {
        cs_receiver_destroy(receiver)
        cs_sender_destroy(sender)
    }

    var offered: [String] { network.candidates.map { "\($0.kind.rawValue) \($0.address.ip)" } }

    func transmit() -> Int {
        var count = 0
        while let room = cs_sender_next(sender) {
            let buffer = UnsafeMutableRawBufferPointer(start: room, count: Int(CS_PACKET_ROOM))
            var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
            guard let to = network.pollTransmit(into: &output, now: now) else { break }
            var (system, from) = (to.system, cs_address())
            cs_sender_commit(
                sender, port.descriptor, port.isIPv4 ? 1 : 0, UInt32(output.finalize(for: buffer)), &system, &from)
            count += 1
        }
        var (sent, refused) = (0 as UInt64, 0 as UInt64)
        cs_sender_flush(sender, &sent, &refused)
        return count
    }

    /// Hands over what has come to the port; how many the network took.
    func receive() -> Int {
        var datagrams: UnsafePointer<cs_datagram>?
        var taken = 0
        let count = cs_receive(receiver, port.descriptor, &datagrams)
        for index in 0..<Int(max(0, count)) {
            guard let datagram = datagrams?[index] else { continue }
            let bytes = UnsafeRawBufferPointer(start: datagram.data, count: Int(datagram.size)).bytes
            let to = SocketAddress(ip: IPAddress(datagram.to), port: port.number)
            if network.handle(bytes, from: SocketAddress(datagram.from), to: to, now: now) { taken += 1 }
        }
        return taken
    }

    /// Answers each request by hand, as if its server had seen `outside` and the answer had come to `to`. Requests
    /// without an address to see are lost. Whom they were for.
    @discardableResult
    func answer(_ outside: SocketAddress?, to: IPAddress) -> [SocketAddress] {
        var storage = [UInt8](repeating: 0, count: 256)
        var servers: [SocketAddress] = []
        while true {
            let asked: (server: SocketAddress, id: TransactionID)? = storage.withUnsafeMutableBytes { buffer in
                var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
                guard let server = network.pollTransmit(into: &output, now: now) else { return nil }
                let bytes = output.bytes
                guard let request = try? Message(bytes) else { return nil }
                return (server, request.transactionID)
            }
            guard let asked else { return servers }
            servers.append(asked.server)
            guard let outside else { continue }
            storage.withUnsafeMutableBytes { buffer in
                var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
                var writer = MessageWriter(.success, id: asked.id, to: &output)
                writer.append(.xorMappedAddress, outside, to: &output)
                writer.finish(nil, to: &output)
                let bytes = output.bytes
                let local = SocketAddress(ip: to, port: port.number)
                let isTaken = network.handle(bytes, from: asked.server, to: local, now: now)
                #expect(isTaken)
            }
        }
    }

    func poll() -> Network.Change {
        var all: Network.Change = []
        while let change = network.pollChange() { all.formUnion(change) }
        return all
    }
}

/// A machine that is whatever the test says.
private final class Machine {
    var network = Described()

    func monitor(_ now: Instant, _ policy: InterfacePolicy = []) -> NetworkMonitor {
        NetworkMonitor(policy, now: now, watch: { -1 }, read: { [self] in .complete(network.snapshot) })
    }
}

@Suite struct NetworkFacade {
    @Test func aServerOnLoopbackTellsTheMappedAddress() throws {
        let responder = try Responder()
        var configuration = Configuration()
        configuration.stunServers = [responder.address]
        configuration.addresses = [IPAddress("10.0.0.1")!]
        let driver = try Driver(configuration)
        #expect(driver.offered == ["host 10.0.0.1"] && driver.poll().isEmpty)
        let generation = driver.network.generation
        #expect(driver.transmit() == 1)
        #expect(cs_wait_readable(responder.port.descriptor, 5000) == 1)
        let outside = SocketAddress(ip: IPAddress("203.0.113.7")!, port: 7777)
        #expect(responder.answer(outside) == 1)
        // Asked from the very port that peers will use.
        #expect(responder.seen?.port == driver.port.number)
        #expect(cs_wait_readable(driver.port.descriptor, 5000) == 1)
        #expect(driver.receive() == 1)
        #expect(driver.poll() == .candidates)
        #expect(
            driver.offered == ["host 10.0.0.1", "srflx 203.0.113.7"] && driver.network.generation == generation + 1)
        #expect(driver.network.candidates[1].base?.ip == IPAddress("127.0.0.1"))
        #expect(driver.network.counts == .init(hostIPv4: 1, reflexiveIPv4: 1))
        // Peers on their own ports have none of it.
        #expect(driver.network.candidates(ownPort: 5).count == 1)
        // The next question comes with the keepalive.
        driver.now = try #require(driver.network.nextTimeout)
        driver.network.handleTimeout(now: driver.now)
        driver.network.close()
        #expect(driver.transmit() == 0 && driver.network.nextTimeout == nil)
    }

    @Test func changesOfTheMachineReachTheCandidates() throws {
        let machine = Machine()
        machine.network.interface("lo", "127.0.0.1")
        let eth = machine.network.interface("eth0", "10.0.0.1")
        let start = Instant(nanoseconds: 1_000_000_000)
        var configuration = Configuration()
        configuration.publicAddresses = [try PublicAddress.parse("203.0.113.5:4000")]
        let driver = try Driver(configuration, monitor: machine.monitor(start))
        func look() -> Network.Change {
            driver.now = driver.network.nextTimeout!
            driver.network.handleTimeout(now: driver.now)
            return driver.poll()
        }
        #expect(driver.offered == ["host 10.0.0.1", "srflx 203.0.113.5"])
        #expect(look().isEmpty)
        // A way out by itself changes no candidate.
        machine.network.route(eth, "10.0.0.254")
        #expect(look() == [.addresses, .route] && driver.network.hasRoute == (true, false))
        machine.network.interface("eth1", "2001:db8::1")
        #expect(look() == [.addresses, .candidates])
        #expect(driver.offered == ["host 2001:db8::1", "host 10.0.0.1", "srflx 203.0.113.5"])
        machine.network.snapshot.addresses.removeAll { !$0.ip.isLoopback }
        machine.network.snapshot.routeIPv4 = nil
        #expect(look() == [.addresses, .candidates, .route, .online] && !driver.network.isOnline)
        #expect(driver.offered == ["host 127.0.0.1", "srflx 203.0.113.5"])
        #expect(look().isEmpty)
        // What the host gives is offered as it is, and taken back.
        driver.network.setAddresses([IPAddress("192.0.2.9")!], now: driver.now)
        #expect(driver.poll() == .candidates && driver.offered.first == "host 192.0.2.9")
        driver.network.setAddresses(nil, now: driver.now)
        #expect(driver.poll() == .candidates && driver.offered.first == "host 127.0.0.1")
        driver.network.setAddresses(nil, now: driver.now)
        #expect(driver.poll().isEmpty)
    }

    /// A mapping that was learned through another router, or from an address that is gone, is not offered for a moment.
    @Test func mappedAddressesGoWithTheNetwork() throws {
        let machine = Machine()
        machine.network.interface("lo", "127.0.0.1")
        let eth = machine.network.interface("eth0", "10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::7a t")
        machine.network.route(eth, "10.0.0.254")
        let start = Instant(nanoseconds: 1_000_000_000)
        var configuration = Configuration()
        configuration.stunServers = try ["198.51.100.1:3478", "[2001:db8:f::1]:3478"].map(ServerAddress.parse)
        let driver = try Driver(configuration, monitor: machine.monitor(start))
        func look() -> Network.Change {
            driver.now = driver.now + NetworkMonitor.polling
            driver.network.handleTimeout(now: driver.now)
            return driver.poll()
        }
        let local = IPAddress("10.0.0.1")!
        let hosts = ["host 2001:db8::1", "host 10.0.0.1", "host 10.0.0.2"]
        // The temporary address is this machine's too, and left out for its reason.
        #expect(
            driver.answer(SocketAddress(ip: IPAddress("2001:db8::7a")!, port: driver.port.number), to: local).count == 2
        )
        #expect(driver.poll().isEmpty && driver.offered == hosts)
        // Another router.
        let outside = SocketAddress(ip: IPAddress("203.0.113.7")!, port: 7777)
        machine.network.route(eth, "10.0.0.253")
        #expect(look() == [.addresses, .route])
        #expect(driver.answer(outside, to: local).count == 1)
        #expect(driver.poll() == .candidates && driver.offered == hosts + ["srflx 203.0.113.7"])
        #expect(driver.network.candidates.last?.base?.ip == local)
        machine.network.route(eth, "10.0.0.254")
        #expect(look() == [.addresses, .route, .candidates] && driver.offered == hosts)
        #expect(driver.answer(outside, to: local).count == 1 && driver.poll() == .candidates)
        // An address that has nothing to do with it goes, then the one it belongs to.
        machine.network.snapshot.addresses.removeAll { $0.ip == IPAddress("10.0.0.2") }
        #expect(look() == [.addresses, .candidates] && driver.answer(nil, to: local).isEmpty)
        #expect(driver.offered == ["host 2001:db8::1", "host 10.0.0.1", "srflx 203.0.113.7"])
        machine.network.snapshot.addresses.removeAll { $0.ip == local }
        #expect(look() == [.addresses, .candidates] && driver.offered == ["host 2001:db8::1"])
        // Without an IPv4 address nobody is asked over IPv4, whatever time passes.
        var asked: [SocketAddress] = []
        for _ in 0..<400 {
            asked += driver.answer(nil, to: local)
            driver.now = driver.network.nextTimeout!
            driver.network.handleTimeout(now: driver.now)
        }
        #expect(asked.count > 10 && asked.allSatisfy(\.ip.isIPv6))
        driver.network.close()
        #expect(driver.answer(outside, to: local).isEmpty && driver.network.nextTimeout == nil)
    }

    @Test func onlyWhatThePortIsBoundToIsOffered() throws {
        let machine = Machine()
        machine.network.interface("lo", "127.0.0.1", "::1")
        machine.network.interface("eth0", "10.0.0.1", "10.0.0.2", "2001:db8::1")
        func offered(_ bind: String?, isIPv4: Bool = false) -> [String] {
            let now = Instant(nanoseconds: 1)
            var configuration = Configuration()
            configuration.bindAddress = bind.flatMap { IPAddress($0) }
            let network = Network(
                configuration, port: 5000, isIPv4: isIPv4, monitor: machine.monitor(now),
                resolver: Resolver([], now: now),
                random: SeededGenerator(seed: 1), now: now)
            return network.hosts.map(\.description)
        }
        #expect(offered(nil) == ["2001:db8::1", "10.0.0.1", "10.0.0.2"])
        #expect(offered("::") == ["2001:db8::1", "10.0.0.1", "10.0.0.2"])
        #expect(offered("0.0.0.0") == ["10.0.0.1", "10.0.0.2"])
        #expect(offered(nil, isIPv4: true) == ["10.0.0.1", "10.0.0.2"])
        #expect(offered("10.0.0.2") == ["10.0.0.2"])
        #expect(offered("127.0.0.5") == ["127.0.0.5"])
        // It was there once.
        #expect(offered("10.0.0.3") == [])
    }

    /// Where there is no netlink, the monitor looks by itself; where a look fails, it looks again soon.
    @Test func aMonitorThatCannotWatchLooks() {
        var readings: [NetworkSnapshot.Reading] = []
        var network = Described()
        network.interface("eth0", "10.0.0.1")
        readings = [.partial(network.snapshot), .failed(24), .partial(network.snapshot)]
        network.interface("eth1", "10.0.0.2")
        readings.append(.partial(network.snapshot))
        readings.reverse()
        let start = Instant(nanoseconds: 5)
        let monitor = NetworkMonitor([], now: start, watch: { -1 }, read: { readings.popLast()! })
        #expect(monitor.descriptor == nil && monitor.nextTimeout == start + NetworkMonitor.polling)
        #expect(!monitor.handleTimeout(now: start + NetworkMonitor.polling))
        #expect(monitor.offered.count == 1)
        let again = start + NetworkMonitor.polling + NetworkMonitor.retry
        #expect(monitor.nextTimeout == again)
        #expect(!monitor.handleTimeout(now: again))
        #expect(monitor.nextTimeout == again + NetworkMonitor.polling)
        #expect(monitor.handleTimeout(now: again + NetworkMonitor.polling) && monitor.offered.count == 2)
    }
}

/// Names on their way: which are asked for, and what is answered when the test says so.
private final class NameServer: @unchecked Sendable {
    private let lock = NSCondition()
    private var answers: [String: [[IPAddress]]] = [:]
    private(set) var asked: [String] = []

    func lookUp(_ name: String) -> [IPAddress] {
        lock.withLock {
            asked.append(name)
            lock.broadcast()
            while true {
                if let answer = answers[name]?.first {
                    answers[name]?.removeFirst()
                    return answer
                }
                lock.wait()
            }
        }
    }

    func answer(_ name: String, _ addresses: String...) {
        lock.withLock {
            answers[name, default: []].append(addresses.map { IPAddress($0)! })
            lock.broadcast()
        }
    }

    func count(_ name: String) -> Int { lock.withLock { asked.count { $0 == name } } }

    /// Waits until `name` was asked for so often.
    func awaitQuestion(_ name: String, _ times: Int) {
        lock.withLock {
            while asked.count(where: { $0 == name }) < times { lock.wait() }
        }
    }
}

@Suite struct NetworkResolver {
    /// As many as a configuration may name.
    @Test func keepsAllServers() {
        let servers = (1...32).map { ServerAddress(host: "192.0.2.\($0)", port: 3478) }
        #expect(Resolver(servers, now: Instant(nanoseconds: 0)).servers.flatMap(\.self).count == 32)
    }

    private let now = Instant(nanoseconds: 1_000_000_000)

    private func results(_ resolver: Resolver, _ now: Instant) throws -> Bool {
        #expect(cs_wait_readable(try #require(resolver.descriptor), 20_000) == 1)
        return resolver.readable(now: now)
    }

    @Test func aNameThatHangsDelaysNoOther() throws {
        let names = NameServer()
        let servers = [
            ServerAddress(host: "hangs.example", port: 1), ServerAddress(host: "lives.example", port: 2),
            ServerAddress(host: "192.0.2.1", port: 3),
        ]
        let resolver = Resolver(servers, now: now, lookUp: names.lookUp)
        // An address is known at once, and nobody is asked for it.
        #expect(resolver.servers.map(\.count) == [0, 0, 1])
        names.answer("lives.example", "2001:db8::7", "198.51.100.7")
        #expect(try results(resolver, now))
        #expect(resolver.servers[1].map(\.description) == ["[2001:db8::7]:2", "198.51.100.7:2"])
        #expect(resolver.nextTimeout == now + Resolver.interval)
        // The one on its way is not asked for twice, but again when it is done: the network was another.
        names.awaitQuestion("hangs.example", 1)
        resolver.refresh(now: now)
        names.answer("lives.example", "198.51.100.7")
        #expect(try results(resolver, now))
        #expect(names.count("hangs.example") == 1)
        names.answer("hangs.example", "198.51.100.8")
        #expect(try results(resolver, now))
        names.awaitQuestion("hangs.example", 2)
        // Its end waits for nobody: the thread is still in there.
    }

    @Test func namesWithoutAnAnswerAreAskedForAgain() throws {
        let names = NameServer()
        let resolver = Resolver([ServerAddress(host: "x.example", port: 1)], now: now, lookUp: names.lookUp)
        names.answer("x.example")
        #expect(try !results(resolver, now) && resolver.nextTimeout == now + Resolver.firstRetry)
        var later = now + Resolver.firstRetry
        resolver.handleTimeout(now: later)
        #expect(resolver.nextTimeout == nil)
        names.answer("x.example")
        #expect(try !results(resolver, later) && resolver.nextTimeout == later + Resolver.firstRetry * 2)
        later = later + Resolver.firstRetry * 2
        resolver.handleTimeout(now: later)
        names.answer("x.example", "198.51.100.7")
        #expect(try results(resolver, later))
        // What was known once stays when the name server has nothing to say.
        later = later + Resolver.interval
        resolver.handleTimeout(now: later)
        names.answer("x.example")
        #expect(try !results(resolver, later) && resolver.servers[0].count == 1)
    }

    @Test func theSystemsResolverKnowsLocalhost() {
        #expect(Resolver.system("localhost").contains { $0.isLoopback })
        #expect(Resolver.system("no such name at all").isEmpty)
    }
}
