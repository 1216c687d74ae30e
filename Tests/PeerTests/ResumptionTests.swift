import DTLS
import DataChannel
import ICE
import SCTP
import Testing
import Wire

@testable import Peer

@Suite struct Resuming {
    @Test(arguments: [false, true])
    func connectsWithoutAnyDescription(derivesInits: Bool) throws {
        let simulation = Simulation(seed: 31)
        try simulation.resume(derivesInits: derivesInits)
        #expect(simulation.run(for: .seconds(5)) { $0.areConnected })
        #expect(simulation.events[0] == [.connecting, .connected])
        #expect(simulation.events[1] == [.connecting, .connected])
    }

    /// Two round trips for the stand-in's DTLS 1.2, which begins with the check, and the echo; one more if SCTP shakes hands.
    @Test(arguments: [(false, 8), (true, 6)])
    func firstEchoTakesAsManyOneWayTrips(derivesInits: Bool, trips: Int64) throws {
        let simulation = Simulation(seed: 32, weather: Weather(delay: .milliseconds(50)))
        let parameters = ChannelParameters(label: "echo")
        let ids = try (0..<2).map { index in
            if index == 1 { try simulation.resume(derivesInits: derivesInits) }
            return try simulation.peers[index].openChannel(parameters, negotiatedStream: 1, now: simulation.now)
        }
        let start = simulation.now
        try simulation.offerer.send(
            ids[0], isText: true, Payload.copying([1].span.bytes), now: simulation.now)
        #expect(simulation.run(for: .seconds(5)) { !$0.messages(1).isEmpty })
        try simulation.answerer.send(
            ids[1], isText: true, Payload.copying([2].span.bytes), now: simulation.now)
        #expect(simulation.run(for: .seconds(5)) { !$0.messages(0).isEmpty })
        #expect(simulation.now - start <= .milliseconds(50) * trips)
    }

    @Test func refusesAnotherCertificate() throws {
        let simulation = Simulation(seed: 33)
        try simulation.resume(derivesInits: true, as: 1)
        #expect(simulation.run(for: .seconds(20)) { $0.answerer.isClosed })
        #expect(simulation.events[1].last == .closed(.fingerprintMismatch))
        #expect(!simulation.events[1].contains(.connected))
    }

    @Test(arguments: 100..<140)
    func survivesBadWeather(seed: UInt64) throws {
        let weather = Weather(
            loss: 0.15, duplication: 0.1, corruption: 0.02, delay: .milliseconds(20), jitter: .milliseconds(15))
        let simulation = Simulation(seed: seed, weather: weather)
        try simulation.resume(derivesInits: seed.isMultiple(of: 2))
        let channel = try simulation.offerer.openChannel(ChannelParameters(label: "x"), now: simulation.now)
        for number in 0..<50 as Range<UInt8> {
            try simulation.offerer.send(
                channel, isText: false, Payload.copying([number].span.bytes), now: simulation.now)
        }
        #expect(simulation.run(for: .seconds(60)) { $0.messages(1).count == 50 }, "seed \(seed)")
        #expect(simulation.messages(1) == (0..<50).map { [$0] }, "seed \(seed)")
    }

    /// Round trips of 100 ms until both are connected, with a datagram lost.
    private func connect(
        losing: [Set<Int>], dead: [SocketAddress] = [], delay: Duration = .milliseconds(50),
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> (Simulation, Duration) {
        let simulation = Simulation(seed: 34, weather: Weather(delay: delay))
        simulation.swallowed = losing
        try simulation.resume(derivesInits: true, dead: dead)
        let start = simulation.now
        #expect(simulation.run(for: .seconds(5)) { $0.areConnected }, sourceLocation: sourceLocation)
        return (simulation, simulation.now - start)
    }

    /// The server sees a ClientHello right behind the check, and is connected one round trip later.
    @Test func beginsTheHandshakeWithTheCheck() throws {
        let (simulation, took) = try connect(losing: [[], []])
        #expect(took == .milliseconds(150))
        #expect(simulation.events[0] == [.connecting, .connected])
        #expect(simulation.offerer.early == nil, "nothing is kept")
    }

    /// Half a round trip after the check's response, behind which the server's flight would have been.
    @Test func repeatsALostClientHelloWhenThePathIsKnown() throws {
        let (_, took) = try connect(losing: [[1], []])
        #expect(took == .milliseconds(100 + 50 + 150))
    }

    /// ... but never sooner than a server needs for its flight.
    @Test(arguments: [(1, 20), (17, 20), (31, 31)])
    func waitsForTheServersFlight(delay: Int64, wait: Int64) throws {
        let (_, took) = try connect(losing: [[1], []], delay: .milliseconds(delay))
        #expect(took == .milliseconds(2 * delay + wait + 3 * delay))
    }

    /// Where a check was repeated, its round trip may be any.
    @Test(arguments: [(100, 50), (400, 200), (9_000, 200), (0, 20), (nil, 0)] as [(Int64?, Int64)])
    func waitsNotLongForTheServersFlight(roundTrip: Int64?, wait: Int64) throws {
        let (here, there) = (Simulation(seed: 38).addresses[0], Simulation(seed: 38).addresses[1])
        let path = Path(local: here, remote: there)
        let now = Instant(nanoseconds: 1)
        var early = EarlyFlight(path: path, began: now)
        #expect(early.nextTimeout == nil)
        early.verified(path, roundTrip: roundTrip.map { .milliseconds($0) }, now: now)
        #expect(early.nextTimeout == now + .milliseconds(wait))
    }

    /// What the server has begun to say needs no second ClientHello.
    @Test(arguments: [false, true])
    func repeatsOnlyAClientHelloThatNobodyAnswered(isAnswered: Bool) throws {
        let simulation = Simulation(seed: 37, weather: Weather(delay: .milliseconds(50)))
        simulation.swallowed = [[1], []]
        try simulation.resume(derivesInits: true)
        let start = simulation.now
        simulation.run(for: .milliseconds(110))
        #expect(simulation.offerer.early?.nextTimeout == start + .milliseconds(150))
        let sent = simulation.sent[0]
        if isAnswered {
            // A record of a handshake, cut short.
            let record: [UInt8] = [22, 254, 253] + [UInt8](repeating: 0, count: 10)
            _ = simulation.offerer.handle(
                datagram: record.span.bytes, from: simulation.shown[1], to: simulation.addresses[0],
                now: simulation.now)
            #expect(simulation.offerer.early?.nextTimeout == nil)
        }
        simulation.run(for: .milliseconds(80))
        #expect(simulation.sent[0] - sent == (isAnswered ? 0 : 1))
        #expect(simulation.offerer.early?.nextTimeout == nil)
    }

    /// A ClientHello without its check is from a stranger; the check that comes again tells that it was lost as well.
    @Test func repeatsTheClientHelloBehindACheckThatWasLost() throws {
        let (simulation, took) = try connect(losing: [[0, 1], []])
        #expect(took < .milliseconds(200 + 500))
        #expect(simulation.events[1] == [.connecting, .connected])
    }

    /// Nothing is connected before a check has been answered, and the handshake goes on meanwhile.
    @Test func goesOnWithoutTheResponseOfTheCheck() throws {
        let simulation = Simulation(seed: 35, weather: Weather(delay: .milliseconds(50)))
        simulation.swallowed = [[], [0]]
        try simulation.resume(derivesInits: true)
        #expect(simulation.run(for: .seconds(5)) { $0.answerer.isConnected })
        let message: [UInt8] = [7]
        let channel = try simulation.answerer.openChannel(
            ChannelParameters(label: "early"), negotiatedStream: 1, now: simulation.now)
        try simulation.answerer.send(channel, isText: true, Payload.copying(message.span.bytes), now: simulation.now)
        #expect(!simulation.offerer.isConnected)
        _ = try simulation.offerer.openChannel(
            ChannelParameters(label: "early"), negotiatedStream: 1, now: simulation.now)
        #expect(simulation.run(for: .seconds(5)) { $0.messages(0) == [message] })
        #expect(simulation.events[0] == [.connecting, .connected])
    }

    @Test func goesElsewhereWhenTheFirstAddressIsDead() throws {
        let dead = SocketAddress(ip: try #require(IPAddress("2001:db8::dead")), port: 9)
        let (simulation, took) = try connect(losing: [[], []], dead: [dead])
        // The check on the other address and its response, then the handshake as ever; checks are paced.
        #expect(took <= .milliseconds(300 + 20))
        #expect(simulation.offerer.selectedPath?.remote == simulation.shown[1])
    }

    @Test func findsNoPathToASilentServer() throws {
        let simulation = Simulation(seed: 36)
        simulation.isPartitioned = true
        try simulation.resume(derivesInits: true)
        #expect(simulation.run(for: .seconds(60)) { $0.offerer.isClosed })
        #expect(simulation.events[0].count == 1)
    }
}
