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

    /// A check, two for the stand-in's DTLS 1.2, and the echo; one more if SCTP shakes hands.
    @Test(arguments: [(false, 10), (true, 8)])
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
}
