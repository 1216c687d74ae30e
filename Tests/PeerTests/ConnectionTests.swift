import DTLS
import DataChannel
import SDP
import Testing
import Wire

@testable import Peer

@Suite struct Connecting {
    @Test(arguments: [false, true], [false, true])
    func connectsWhicheverSideSpeaksDTLSFirst(isLite: Bool, prefersActive: Bool) throws {
        let simulation = Simulation(seed: 1, isLite: isLite, prefersActive: prefersActive)
        try simulation.negotiate()
        #expect(simulation.run(for: .seconds(5)) { $0.areConnected })
        #expect(simulation.events[0] == [.connecting, .connected])
        #expect(simulation.events[1] == [.connecting, .connected])
    }

    @Test func passiveAnswererIsConnectedInThreeRoundTripsAndAHalf() throws {
        // One for the check, and for the stand-in's handshake what DTLS 1.2 takes: two.
        let simulation = Simulation(seed: 2, weather: Weather(delay: .milliseconds(50)))
        let start = simulation.now
        try simulation.negotiate()
        #expect(simulation.run(for: .seconds(5)) { $0.areConnected })
        #expect(simulation.now - start <= .milliseconds(350))
    }

    @Test func givesUpWhenNobodyAnswers() throws {
        let simulation = Simulation(seed: 3) { $0.connectTimeout = .seconds(3) }
        simulation.isPartitioned = true
        try simulation.negotiate()
        #expect(simulation.run(for: .seconds(10)) { $0.offerer.isClosed && $0.answerer.isClosed })
        guard case .closed(.timeout) = simulation.events[1].last else {
            Issue.record("\(simulation.events[1])")
            return
        }
    }

    @Test func wrongCertificateFailsWithThatReason() throws {
        let simulation = Simulation(seed: 4)
        let offer = try simulation.offerer.makeOffer()
        let forged = replacingFingerprint(in: offer)
        let answer = try simulation.answerer.answer(SessionDescription(parsing: forged), now: simulation.now)
        try simulation.offerer.accept(SessionDescription(parsing: answer), now: simulation.now)
        #expect(simulation.run(for: .seconds(20)) { $0.answerer.isClosed })
        #expect(simulation.events[1].last == .closed(.fingerprintMismatch))
        #expect(!simulation.events[1].contains(.connected))
    }

    private func replacingFingerprint(in sdp: String) -> String {
        sdp.split(separator: "\r\n").map { line in
            line.hasPrefix("a=fingerprint:")
                ? "a=fingerprint:sha-256 " + Array(repeating: "AB", count: 32).joined(separator: ":") : String(line)
        }.joined(separator: "\r\n") + "\r\n"
    }

    @Test func closingTellsTheOtherSide() throws {
        let simulation = Simulation(seed: 5)
        try simulation.negotiate()
        #expect(simulation.run(for: .seconds(5)) { $0.areConnected })
        simulation.offerer.close(now: simulation.now)
        #expect(simulation.run(for: .seconds(1)) { $0.answerer.isClosed })
        #expect(simulation.events[0].last == .closed(.local))
        #expect(simulation.events[1].last == .closed(.remote))
    }

    @Test func buffersAreGivenBackOnceWhenNothingIsSaid() throws {
        let simulation = Simulation(seed: 7)
        try simulation.negotiate()
        #expect(simulation.run(for: .seconds(5)) { $0.areConnected })
        let transport = try #require(simulation.answerer.transport as? SimulatedTransport)
        // While records come there is no idle second.
        let id = try simulation.offerer.openChannel(ChannelParameters(label: "a"), now: simulation.now)
        for _ in 0..<8 {
            try simulation.offerer.send(id, isText: true, Payload.copying([1].span.bytes), now: simulation.now)
            simulation.run(for: .milliseconds(500))
        }
        #expect(transport.releases == 0)
        simulation.run(for: .seconds(10))
        #expect(transport.releases == 1)
        // The next record takes them again.
        try simulation.offerer.send(id, isText: true, Payload.copying([1].span.bytes), now: simulation.now)
        simulation.run(for: .seconds(10))
        #expect(transport.releases == 2)
    }

    @Test func silenceIsReportedAndForgivenOrFinal() throws {
        let simulation = Simulation(seed: 6)
        try simulation.negotiate()
        #expect(simulation.run(for: .seconds(5)) { $0.peers.allSatisfy { $0.milestones.associated != nil } })
        simulation.isPartitioned = true
        simulation.run(for: .seconds(12))
        #expect(simulation.events[1].last == .disconnected)
        simulation.isPartitioned = false
        #expect(simulation.run(for: .seconds(10)) { $0.events[1].last == .reconnected })
        simulation.isPartitioned = true
        #expect(simulation.run(for: .seconds(60)) { $0.answerer.isClosed && $0.offerer.isClosed })
        #expect(simulation.events[1].last == .closed(.consentExpired))
    }

    /// A round trip or two after the path is back, and not when the last back-off of twenty seconds ends.
    @Test func whatWasSentInSilenceArrivesAtOnceAfterwards() throws {
        let simulation = Simulation(seed: 9, weather: Weather(delay: .milliseconds(25)))
        let id = try simulation.offerer.openChannel(ChannelParameters(label: "a"), now: simulation.now)
        try simulation.negotiate()
        #expect(simulation.run(for: .seconds(5)) { $0.opened(1).count == 1 })
        simulation.isPartitioned = true
        try simulation.offerer.send(
            id, isText: true, Payload.copying(([1, 2, 3] as [UInt8]).span.bytes), now: simulation.now)
        simulation.run(for: .seconds(22))
        simulation.isPartitioned = false
        let back = simulation.now
        #expect(simulation.run(for: .seconds(5)) { $0.events[0].last == .reconnected })
        let reconnected = simulation.now
        #expect(simulation.run(for: .seconds(5)) { $0.messages(1) == [[1, 2, 3]] })
        #expect(
            simulation.now - reconnected <= .milliseconds(60),
            "\((simulation.now - back).milliseconds) ms after the path")
    }

    @Test func anOffererWaitsForItsAnswerAsLongAsItsHostDoes() throws {
        let simulation = Simulation(seed: 9)
        let offer = try SessionDescription(parsing: simulation.offerer.makeOffer())
        simulation.run(for: .seconds(600))
        #expect(!simulation.offerer.isClosed)
        // Nobody has answered yet, so the answerer of this simulation is made anew: with its time not yet run out.
        let later = Simulation(seed: 10)
        let answer = try later.answerer.answer(offer, now: later.now)
        try simulation.offerer.accept(SessionDescription(parsing: answer), now: simulation.now)
        #expect(simulation.run(for: .seconds(60)) { $0.offerer.isClosed })
        guard case .closed(.timeout) = simulation.events[0].last else {
            Issue.record("\(simulation.events[0])")
            return
        }
    }

    /// Of several certificates that an offer names the one counts whose key the other side has.
    @Test(arguments: [false, true])
    func whatIsProvenIsTheCertificate(isOwnFirst: Bool) throws {
        let simulation = Simulation(seed: 11)
        let offer = try simulation.offerer.makeOffer()
        let other = "a=fingerprint:sha-256 " + Array(repeating: "AB", count: 32).joined(separator: ":")
        let lines = offer.split(separator: "\r\n").flatMap { line in
            line.hasPrefix("a=fingerprint:")
                ? isOwnFirst ? [String(line), other] : [other, String(line)] : [String(line)]
        }
        let answer = try simulation.answerer.answer(
            SessionDescription(parsing: lines.joined(separator: "\r\n") + "\r\n"), now: simulation.now)
        try simulation.offerer.accept(SessionDescription(parsing: answer), now: simulation.now)
        #expect(simulation.answerer.announcedFingerprints.count == 2 && simulation.answerer.provenFingerprint == nil)
        #expect(simulation.run(for: .seconds(5)) { $0.areConnected })
        #expect(simulation.answerer.provenFingerprint == simulation.offerer.provider.localFingerprint(.sha256))
    }

    @Test func forgedAndReplayedRecordsAreDropped() throws {
        let simulation = Simulation(seed: 12)
        let traffic = Traffic(simulation)
        traffic.open(0, .ordered)
        try simulation.negotiate()
        #expect(simulation.run(for: .seconds(5)) { $0.areConnected })
        simulation.run(for: .seconds(1))
        traffic.send(0, traffic.lines[0])
        simulation.drain()
        let record = try #require(simulation.flights.last { $0.bytes[0] == 23 }).bytes
        var forged = record
        forged[forged.count - 1] ^= 1
        let (from, to, now) = (simulation.shown[0], simulation.addresses[1], simulation.now)
        func isTaken(_ bytes: [UInt8], from: SocketAddress) -> Bool {
            simulation.answerer.handle(datagram: bytes.span.bytes, from: from, to: to, now: now)
        }
        #expect(!isTaken(forged, from: from))
        // From an address that no check came from, not even a good one.
        #expect(!isTaken(record, from: SocketAddress(ip: from.ip, port: 9)))
        #expect(isTaken(record, from: from))
        #expect(!isTaken(record, from: from))
        simulation.run(for: .seconds(1))
        traffic.check()
        #expect(traffic.isComplete && traffic.failures.isEmpty)
    }

    @Test func descriptionsOutOfTurnAreRefused() throws {
        let simulation = Simulation(seed: 7)
        try simulation.negotiate()
        let again = try SessionDescription(parsing: Simulation(seed: 8).offerer.makeOffer())
        #expect(throws: Peer.DescriptionError.self) { try simulation.answerer.answer(again, now: simulation.now) }
        #expect(throws: Peer.DescriptionError.self) { try simulation.offerer.accept(again, now: simulation.now) }
        #expect(throws: Peer.DescriptionError.self) { try simulation.offerer.makeOffer() }
    }
}
