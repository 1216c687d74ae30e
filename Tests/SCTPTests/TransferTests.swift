import Testing
import Wire

@testable import SCTP

/// Two established ends.
private func connected(
    seed: UInt64 = 1, conditions: PathConditions = PathConditions(),
    _ change: (inout Association.Configuration) -> Void = { _ in }
) -> Simulation {
    var configuration = Association.Configuration()
    change(&configuration)
    let simulation = Simulation(seed: seed, conditions: conditions, configuration)
    simulation.connect()
    simulation.run(for: .seconds(30)) { simulation.bothEstablished }
    simulation.run(for: .milliseconds(100))
    return simulation
}

private func pattern(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 / 256) } }

@Suite struct Transfer {
    @Test(arguments: [1, 3, 4, 1134, 1135, 1136, 1137, 5000, 65_536, 262_144])
    func messageOfAnySizeArrivesWhole(count: Int) throws {
        let simulation = connected()
        try simulation.send(0, pattern(count))
        #expect(simulation.run(for: .seconds(60)) { simulation.messages(1).count == 1 })
        let message = simulation.messages(1)[0]
        #expect(message.payload.copied() == pattern(count) && message.protocolIdentifier == 53 && message.ordered)
        #expect(simulation.ends[0].statistics.retransmittedChunks == 0)
    }

    /// A path that took over from a dead one: the window is a new path's, and what was lost goes out at once.
    @Test func anotherPathBeginsWithItsOwnWindow() throws {
        let simulation = connected(conditions: PathConditions(delay: .milliseconds(20)))
        let end = simulation.ends[0]
        let fresh = end.statistics.congestionWindow
        try simulation.send(0, pattern(250_000))
        simulation.run(for: .milliseconds(150))
        #expect(end.statistics.congestionWindow > fresh)
        // Everything is lost for a while: three time-outs.
        simulation.filter = { _, _ in false }
        simulation.run(for: .seconds(4))
        #expect(end.statistics.congestionWindow < fresh)
        simulation.filter = { _, _ in true }
        let back = simulation.now
        end.pathChanged(roundTrip: .milliseconds(40), isLost: true, now: simulation.now)
        #expect(end.statistics.congestionWindow == fresh)
        #expect(simulation.run(for: .seconds(5)) { simulation.messages(1).count == 1 })
        #expect(simulation.messages(1).map { $0.payload.copied() } == [pattern(250_000)])
        #expect((simulation.now - back).milliseconds <= 600)
    }

    @Test func smallMessagesShareAPacket() throws {
        let simulation = connected()
        for index in 0..<30 {
            try simulation.send(0, stream: UInt16(index % 3), [UInt8](repeating: UInt8(index), count: 20))
        }
        let before = simulation.transmitted[0]
        #expect(simulation.run { simulation.messages(1).count == 30 })
        #expect(simulation.transmitted[0] - before <= 2)
    }

    @Test func packetsKeepToTheirSize() throws {
        let simulation = connected { $0.maximumPacketSize = 300 }
        var largest = 0
        simulation.filter = { _, packet in
            largest = max(largest, packet.count)
            return true
        }
        try simulation.send(0, pattern(3000))
        #expect(simulation.run { simulation.messages(1).count == 1 })
        #expect(largest == 300)
        simulation.ends[0].maximumPacketSize = 1200
        try simulation.send(0, pattern(3000))
        #expect(simulation.run { simulation.messages(1).count == 2 })
        #expect(largest == 1200)
    }

    /// RFC 9260 section 6.2: every second packet, or after 200 ms; RFC 7053: at once if asked to.
    @Test func acknowledgementsAreDelayed() throws {
        let simulation = connected()
        try simulation.send(0, [1])
        var packet = try #require(simulation.poll(0))
        #expect(packet[13] & DataFlag.immediate != 0)
        packet[13] &= ~DataFlag.immediate
        if !simulation.ends[1].features.zeroChecksumReceive { packet = withChecksum(packet) }
        simulation.ends[1].handle(packet: packet.span.bytes, now: simulation.now)
        let early = simulation.poll(1)
        #expect(early == nil)
        let due = try #require(simulation.ends[1].nextTimeout)
        #expect((due - simulation.now).milliseconds == 200)
        simulation.now = due
        simulation.ends[1].handleTimeout(now: due)
        let sack = try #require(simulation.poll(1))
        #expect(chunkTypes(sack) == [ChunkType.sack])
    }

    @Test func askedForAcknowledgementComesAtOnce() throws {
        let simulation = connected()
        let start = simulation.now
        try simulation.send(0, [1])
        #expect(simulation.run { simulation.ends[0].outstanding.isEmpty && simulation.messages(1).count == 1 })
        #expect((simulation.now - start).milliseconds == 40)
    }

    @Test func oneLossIsRepairedWithoutATimeout() throws {
        let simulation = connected()
        var dropped = false
        simulation.filter = { index, packet in
            if index == 0, !dropped, packet.count > 1000 {
                dropped = true
                return false
            }
            return true
        }
        try simulation.send(0, pattern(20_000))
        #expect(simulation.run { simulation.messages(1).count == 1 })
        let statistics = simulation.ends[0].statistics
        #expect(dropped && statistics.fastRetransmits == 1 && statistics.retransmissionTimeouts == 0)
        #expect(statistics.retransmittedChunks == 1)
    }

    @Test func lostTailIsRepairedByTheTimer() throws {
        let simulation = connected()
        simulation.filter = { index, _ in index == 1 }
        try simulation.send(0, [1])
        simulation.drain()
        simulation.filter = nil
        let start = simulation.now
        #expect(simulation.run { simulation.messages(1).count == 1 })
        #expect((simulation.now - start).milliseconds == 220)
        #expect(simulation.ends[0].statistics.retransmissionTimeouts == 1)
        #expect(simulation.ends[0].congestion.window == simulation.ends[0].chunkCapacity)
    }

    @Test func peerThatVanishesIsNoticed() throws {
        let simulation = connected()
        try simulation.send(0, [1])
        simulation.filter = { _, _ in false }
        #expect(simulation.run(for: .seconds(300)) { simulation.ends[0].isClosed })
        #expect(simulation.aborts(0) == [.timeout])
    }

    @Test func idlePathIsProbed() {
        let simulation = connected()
        var heartbeats = 0
        simulation.filter = { _, packet in
            if chunkTypes(packet).contains(ChunkType.heartbeat) { heartbeats += 1 }
            return true
        }
        simulation.run(for: .seconds(100))
        #expect(heartbeats >= 4 && simulation.bothEstablished)
        simulation.filter = { _, _ in false }
        #expect(simulation.run(for: .seconds(3000)) { simulation.bothClosed })
        #expect(simulation.aborts(0) == [.timeout])
    }

    @Test func orderIsKeptPerStreamOnly() throws {
        let simulation = connected()
        var dropped = false
        simulation.filter = { index, _ in
            if index == 0, !dropped {
                dropped = true
                return false
            }
            return true
        }
        try simulation.send(0, stream: 1, [1])
        simulation.drain()
        try simulation.send(0, stream: 1, [2])
        try simulation.send(0, stream: 2, [3])
        try simulation.send(0, stream: 1, [4], ordered: false)
        #expect(simulation.run { simulation.messages(1).count == 4 })
        #expect(simulation.messages(1).map { $0.payload.copied()[0] } == [3, 4, 1, 2])
    }

    @Test func refusesWhatCannotBeSent() throws {
        let simulation = connected {
            $0.sendBuffer = 10_000
            $0.outboundStreams = 5
        }
        #expect(throws: Association.SendError.empty) { try simulation.send(0, []) }
        #expect(throws: Association.SendError.tooLarge) { try simulation.send(0, pattern(10_000)) }
        #expect(throws: Association.SendError.invalidStream) { try simulation.send(0, stream: 5, [1]) }
        try simulation.send(0, pattern(9_000))
        #expect(throws: Association.SendError.bufferFull) { try simulation.send(0, pattern(2_000)) }
        #expect(simulation.run { simulation.messages(1).count == 1 })
        simulation.run(for: .milliseconds(100))
        #expect(simulation.events[0].contains { if case .sendBufferAvailable = $0 { true } else { false } })
        try simulation.send(0, pattern(2_000))
        simulation.ends[0].abort(now: simulation.now)
        #expect(throws: Association.SendError.notOpen) { try simulation.send(0, [1]) }
    }

    @Test func bufferedAmountFallsAndSaysSo() throws {
        let simulation = connected()
        simulation.ends[0].setBufferedAmountLowThreshold(stream: 3, bytes: 1000)
        try simulation.send(0, stream: 3, pattern(50_000))
        try simulation.send(0, stream: 3, pattern(500))
        #expect(simulation.ends[0].bufferedAmount(stream: 3) == 50_500 && simulation.ends[0].bufferedAmount == 50_500)
        #expect(simulation.ends[0].bufferedAmount(stream: 4) == 0)
        simulation.drain()
        #expect(simulation.ends[0].bufferedAmount(stream: 3) < 50_500)
        #expect(simulation.run { simulation.messages(1).count == 2 })
        let low = simulation.events[0].filter { if case .bufferedAmountLow(stream: 3) = $0 { true } else { false } }
        #expect(low.count == 1 && simulation.ends[0].bufferedAmount == 0)
    }

    // MARK: Flow control

    @Test func hostThatDoesNotReadStopsThePeer() throws {
        let simulation = connected {
            $0.receiveBuffer = 20_000
            $0.maximumMessageSize = 5_000
        }
        simulation.isReading[1] = false
        for _ in 0..<50 { try simulation.send(0, pattern(2_000)) }
        simulation.run(for: .seconds(60))
        let held = simulation.ends[1].statistics.receiveBufferUsed
        #expect(held > 10_000 && held <= 2 * simulation.ends[1].receiveLimit + 5_000)
        #expect(simulation.bothEstablished && simulation.ends[0].bufferedAmount > 0)
        // An hour later the host reads again.
        simulation.run(for: .seconds(3600))
        #expect(simulation.bothEstablished)
        simulation.isReading[1] = true
        let start = simulation.now
        #expect(simulation.run(for: .seconds(60)) { simulation.messages(1).count == 50 })
        // The window update brings it back, not a probe.
        #expect((simulation.now - start).milliseconds < 3000)
    }

    @Test func takingEventsAsksForAWindowUpdate() throws {
        let simulation = connected {
            $0.receiveBuffer = 8_000
            $0.maximumMessageSize = 3_000
        }
        simulation.isReading[1] = false
        for _ in 0..<8 { try simulation.send(0, pattern(2_500)) }
        simulation.run(for: .seconds(2))
        while simulation.ends[1].pollEvent() != nil {}
        #expect(simulation.ends[1].nextTimeout.map { $0 <= simulation.now } == true)
        let update = try #require(simulation.poll(1))
        #expect(chunkTypes(update) == [ChunkType.sack])
    }

    // MARK: Limited reliability

    @Test func messageWithoutRetransmitsIsGivenUp() throws {
        let simulation = connected()
        var drops = 1
        simulation.filter = { index, packet in
            if index == 0, drops > 0, chunkTypes(packet).contains(ChunkType.data) {
                drops -= 1
                return false
            }
            return true
        }
        try simulation.send(0, stream: 1, [1], reliability: .retransmits(0))
        simulation.drain()
        try simulation.send(0, stream: 1, [2])
        #expect(simulation.run { simulation.messages(1).count == 1 })
        #expect(simulation.messages(1)[0].payload.copied() == [2])
        #expect(simulation.ends[0].statistics.abandonedMessages == 1)
        simulation.run(for: .seconds(5))
        #expect(simulation.ends[0].outstanding.isEmpty && simulation.messages(1).count == 1)
    }

    @Test func retransmitsAreCounted() throws {
        for limit in 0...3 as ClosedRange<UInt32> {
            let simulation = connected()
            var sent = 0
            simulation.filter = { index, packet in
                guard index == 0, chunkTypes(packet).contains(ChunkType.data) else { return true }
                sent += 1
                return false
            }
            try simulation.send(0, [1], reliability: .retransmits(limit))
            #expect(simulation.run { simulation.ends[0].outstanding.isEmpty })
            #expect(sent == Int(limit) + 1)
        }
    }

    @Test func expiredMessageIsNotSent() throws {
        let simulation = connected { $0.sendBuffer = 4_000_000 }
        simulation.isReading[1] = false
        try simulation.send(0, stream: 1, pattern(200_000))
        try simulation.send(0, stream: 2, [9], reliability: .lifetime(.milliseconds(5)))
        try simulation.send(0, stream: 2, [8])
        simulation.isReading[1] = true
        #expect(simulation.run { simulation.messages(1).count == 2 })
        #expect(simulation.messages(1).contains { $0.payload.copied() == [8] })
        #expect(!simulation.messages(1).contains { $0.payload.copied() == [9] })
    }

    /// The peer holds an acknowledged beginning of a message whose rest is never sent.
    @Test func halfSentMessageIsForgottenByThePeer() throws {
        let simulation = connected { $0.initialWindowPackets = 4 }
        try simulation.send(0, stream: 1, pattern(60_000), reliability: .lifetime(.milliseconds(50)))
        try simulation.send(0, stream: 1, [7])
        #expect(simulation.run { simulation.messages(1).count == 1 })
        #expect(simulation.messages(1)[0].payload.copied() == [7])
        #expect(simulation.run { simulation.ends[0].outstanding.isEmpty })
        #expect(simulation.ends[1].reassembly.heldBytes == 0 && simulation.bothEstablished)
    }

    @Test func expiredMessagesMakeRoomInAFullBuffer() throws {
        let simulation = connected {
            $0.sendBuffer = 20_000
            $0.receiveBuffer = 3_000
            $0.maximumMessageSize = 1_000
        }
        simulation.isReading[1] = false
        for _ in 0..<15 { try simulation.send(0, pattern(900), reliability: .lifetime(.milliseconds(100))) }
        #expect(throws: Association.SendError.bufferFull) { for _ in 0..<9 { try simulation.send(0, pattern(900)) } }
        simulation.run(for: .milliseconds(300))
        try simulation.send(0, pattern(900))
    }

    // MARK: Stream reset

    @Test func resetComesAfterWhatWasQueued() throws {
        let simulation = connected()
        try simulation.send(0, stream: 5, pattern(30_000))
        try simulation.send(0, stream: 5, [2])
        simulation.ends[0].resetStreams([5, 9], now: simulation.now)
        #expect(throws: Association.SendError.streamResetting) { try simulation.send(0, stream: 5, [3]) }
        #expect(
            simulation.run {
                simulation.events[0].filter { if case .resetDone = $0 { true } else { false } }.count == 2
            })
        // Stream 9 had nothing to wait for; stream 5 had.
        var order: [String] = []
        for event in simulation.events[1] {
            switch event {
            case .message(let message): order.append("message \(message.payload.count)")
            case .streamsReset(let streams): order.append("reset \(streams)")
            default: break
            }
        }
        #expect(order == ["reset [9]", "message 30000", "message 1", "reset [5]"])
        // Sequence numbers start anew on both ends.
        try simulation.send(0, stream: 5, [4])
        #expect(simulation.run { simulation.messages(1).count == 3 })
    }

    @Test func lostResetPiecesAreRepeated() throws {
        for seed in 0..<60 as Range<UInt64> {
            var conditions = PathConditions()
            conditions.loss = 300
            conditions.duplication = 100
            let simulation = connected(seed: seed, conditions: conditions) {
                $0.maximumRetransmissions = 100
                $0.maximumInitRetransmissions = 100
            }
            try simulation.send(0, stream: 1, [1])
            simulation.ends[0].resetStreams([1], now: simulation.now)
            simulation.ends[1].resetStreams([1], now: simulation.now)
            let done = simulation.run(for: .seconds(300)) {
                (0..<2).allSatisfy { index in
                    simulation.events[index].contains { if case .resetDone([1]) = $0 { true } else { false } }
                        && simulation.events[index].contains { if case .streamsReset([1]) = $0 { true } else { false } }
                }
            }
            #expect(done, "seed \(seed)")
            for index in 0..<2 {
                let resets = simulation.events[index].filter { if case .streamsReset = $0 { true } else { false } }
                #expect(resets.count == 1, "seed \(seed)")
            }
        }
    }

    @Test func requestsThatDataChannelsNeverMakeAreDenied() throws {
        let simulation = connected()
        let end = simulation.ends[1]
        let expected = end.reset.expectedSequence
        func ask(_ sequence: UInt32) throws -> UInt32 {
            var packet = PacketBuilder(localPort: 5000, remotePort: 5000, tag: end.localTag)
            packet.chunk(ChunkType.reconfig) { chunk in
                chunk.parameter(ParameterType.addOutgoingStreams) {
                    $0.write(sequence)
                    $0.write(1 as UInt32)
                }
            }
            simulation.give(packet, to: 1)
            let answer = try #require(simulation.poll(1))
            return answer.span.bytes.load(bigEndianAt: 24) ?? 99
        }
        #expect(try ask(expected &+ 1) == ResetResult.badSequenceNumber)
        #expect(try ask(expected) == ResetResult.denied)
        #expect(try ask(expected) == ResetResult.denied)
        #expect(try ask(expected &- 1) == ResetResult.badSequenceNumber)
    }

    /// The request overtakes data that was lost before it.
    @Test func resetWaitsForEarlierData() throws {
        let simulation = connected()
        var holds = true
        simulation.filter = { index, packet in
            !(holds && index == 0 && chunkTypes(packet).contains(ChunkType.data))
        }
        try simulation.send(0, stream: 1, [1])
        simulation.drain()
        // Of another stream, so that the request need not wait for an acknowledgement.
        simulation.ends[0].resetStreams([2], now: simulation.now)
        simulation.run(for: .milliseconds(100))
        #expect(!simulation.events[1].contains { if case .streamsReset = $0 { true } else { false } })
        holds = false
        #expect(
            simulation.run { simulation.events[0].contains { if case .resetDone([2]) = $0 { true } else { false } } })
        var order: [String] = []
        for event in simulation.events[1] {
            switch event {
            case .message: order.append("message")
            case .streamsReset: order.append("reset")
            default: break
            }
        }
        #expect(order == ["message", "reset"])
    }

    // MARK: End

    @Test func shutdownDeliversEverythingFirst() throws {
        let simulation = connected()
        try simulation.send(0, pattern(60_000))
        try simulation.send(1, pattern(40_000))
        simulation.ends[0].shutdown(now: simulation.now)
        #expect(throws: Association.SendError.notOpen) { try simulation.send(0, [1]) }
        #expect(simulation.run { simulation.bothClosed })
        #expect(simulation.messages(1).map(\.payload.count) == [60_000])
        #expect(simulation.messages(0).map(\.payload.count) == [40_000])
        for index in 0..<2 {
            #expect(simulation.events[index].last.map { if case .closed = $0 { true } else { false } } == true)
            #expect(simulation.ends[index].nextTimeout == nil)
        }
    }

    @Test func shutdownFromBothEndsOverABadPath() throws {
        for seed in 0..<100 as Range<UInt64> {
            var conditions = PathConditions()
            conditions.loss = 200
            conditions.reordering = 200
            let simulation = connected(seed: seed, conditions: conditions) { $0.maximumRetransmissions = 50 }
            try simulation.send(0, pattern(3_000))
            simulation.ends[0].shutdown(now: simulation.now)
            if seed % 2 == 0 { simulation.ends[1].shutdown(now: simulation.now) }
            #expect(simulation.run(for: .seconds(600)) { simulation.bothClosed }, "seed \(seed)")
            #expect(simulation.messages(1).count == 1, "seed \(seed)")
        }
    }

    @Test func shutdownBeforeTheHandshakeEnds() throws {
        let simulation = Simulation(seed: 3)
        try simulation.send(0, [1])
        simulation.connect()
        simulation.ends[0].shutdown(now: simulation.now)
        #expect(simulation.run { simulation.bothClosed })
        #expect(simulation.messages(1).count == 1)
    }

    @Test func abortEndsBothAtOnce() {
        let simulation = connected()
        simulation.ends[0].abort(now: simulation.now)
        #expect(simulation.run { simulation.bothClosed })
        #expect(simulation.aborts(0) == [.local] && simulation.aborts(1) == [.peer(cause: ErrorCause.userAbort)])
        let quiet = simulation.poll(0) == nil && simulation.poll(1) == nil
        #expect(quiet)
    }

    @Test func strangersToAClosedEndAreAnswered() throws {
        let simulation = connected()
        try simulation.send(0, [1])
        simulation.filter = { index, _ in index == 0 }
        simulation.ends[1].abort(now: simulation.now)
        // Its ABORT is lost; the next packet is answered with another.
        #expect(simulation.poll(1) != nil)
        simulation.filter = nil
        #expect(simulation.run { simulation.bothClosed })
        #expect(simulation.aborts(0) == [.peer(cause: nil)])
    }
}

@Suite struct Memory {
    @Test func associationsAreReleased() throws {
        weak var left: Association?
        weak var payload: Payload?
        do {
            let simulation = connected()
            let bytes: [UInt8] = [1, 2, 3]
            let message = Payload.copying(bytes.span.bytes)
            try simulation.ends[0].send(stream: 0, protocolIdentifier: 51, payload: message, now: simulation.now)
            left = simulation.ends[0]
            payload = message
        }
        #expect(left == nil && payload == nil)
    }

    @Test func deliveredMessagesAreReleased() throws {
        let simulation = connected()
        weak var payload: Payload?
        do {
            let bytes = pattern(3_000)
            let message = Payload.copying(bytes.span.bytes)
            try simulation.ends[0].send(stream: 0, protocolIdentifier: 51, payload: message, now: simulation.now)
            payload = message
        }
        #expect(payload != nil)
        simulation.run { simulation.messages(1).count == 1 && simulation.ends[0].outstanding.isEmpty }
        #expect(payload == nil && simulation.ends[0].statistics.sendBufferUsed == 0)
        #expect(simulation.ends[1].statistics.receiveBufferUsed == 0)
    }
}
