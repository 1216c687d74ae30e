import Testing
import Wire

@testable import SCTP

private func established(seed: UInt64 = 5) -> Simulation {
    let simulation = Simulation(seed: seed)
    simulation.connect()
    simulation.run(for: .seconds(5)) { simulation.bothEstablished }
    simulation.run(for: .milliseconds(100))
    return simulation
}

private func packet(for end: Association, _ body: (inout PacketBuilder) -> Void) -> PacketBuilder {
    var packet = PacketBuilder(localPort: 5000, remotePort: 5000, tag: end.localTag)
    body(&packet)
    return packet
}

extension PacketBuilder {
    fileprivate mutating func data(
        _ tsn: TSN, stream: UInt16 = 0, sequence: UInt16 = 0, flags: UInt8 = DataFlag.whole, _ bytes: [UInt8]
    ) {
        chunk(ChunkType.data, flags: flags) { chunk in
            chunk.write(tsn.value)
            chunk.write(stream)
            chunk.write(sequence)
            chunk.write(51 as UInt32)
            chunk.write(bytes)
        }
    }
}

@Suite struct BadInput {
    @Test func emptyDataEndsTheAssociation() throws {
        let simulation = established()
        let end = simulation.ends[1]
        let next = end.received.cumulative.next
        simulation.give(packet(for: end) { $0.data(next, []) }, to: 1)
        #expect(end.isClosed)
        let abort = try #require(simulation.poll(1))
        #expect(chunkTypes(abort) == [ChunkType.abort])
        let cause: UInt16? = abort.span.bytes.load(bigEndianAt: 16)
        #expect(cause == ErrorCause.noUserData)
    }

    @Test func interleavedMessagesEndTheAssociation() {
        let simulation = established()
        let end = simulation.ends[1]
        let next = end.received.cumulative.next
        simulation.give(
            packet(for: end) {
                $0.data(next, flags: DataFlag.beginning, [1])
                $0.data(next.next, stream: 1, [2])
            }, to: 1)
        simulation.drain()
        #expect(simulation.aborts(1) == [.protocolError(cause: ErrorCause.protocolViolation)])
    }

    @Test func messageBeyondTheLimitEndsTheAssociation() {
        var configuration = Association.Configuration()
        configuration.maximumMessageSize = 1500
        for ahead in [false, true] {
            let simulation = Simulation(seed: 6, configuration)
            simulation.connect()
            simulation.run(for: .seconds(5)) { simulation.bothEstablished }
            let end = simulation.ends[1]
            var tsn = end.received.cumulative.next
            if ahead { tsn = tsn.next }
            for part in 0..<3 {
                let flags = part == 0 ? DataFlag.beginning : part == 2 ? DataFlag.end : 0
                simulation.give(
                    packet(for: end) { $0.data(tsn, flags: flags, [UInt8](repeating: 1, count: 700)) }, to: 1)
                tsn = tsn.next
            }
            simulation.drain()
            #expect(simulation.aborts(1) == [.protocolError(cause: ErrorCause.outOfResource)])
        }
    }

    @Test func invalidStreamIsReportedAndAcknowledged() throws {
        var configuration = Association.Configuration()
        configuration.inboundStreams = 4
        let simulation = Simulation(seed: 7, configuration)
        simulation.connect()
        simulation.run(for: .seconds(5)) { simulation.bothEstablished }
        let end = simulation.ends[1]
        let next = end.received.cumulative.next
        simulation.give(packet(for: end) { $0.data(next, stream: 4, [1]) }, to: 1)
        let answer = try #require(simulation.poll(1))
        #expect(chunkTypes(answer).contains(ChunkType.error))
        #expect(end.received.cumulative == next && end.isEstablished)
    }

    @Test func unknownChunksFollowTheirActionBits() throws {
        let simulation = established()
        let end = simulation.ends[1]
        for (type, goesOn, reports) in [
            (0x3F, false, false), (0x7F, false, true), (0xBF, true, false), (0xFF, true, true),
        ]
            as [(UInt8, Bool, Bool)]
        {
            let next = end.received.cumulative.next
            let sequence = UInt16(truncatingIfNeeded: simulation.messages(1).count)
            simulation.give(
                packet(for: end) {
                    $0.chunk(type) { $0.write([1, 2, 3]) }
                    $0.data(next, sequence: sequence, flags: DataFlag.whole | DataFlag.immediate, [1])
                }, to: 1)
            let answers = chunkTypes(simulation.poll(1) ?? [])
            #expect(answers.contains(ChunkType.error) == reports, "\(type)")
            #expect((end.received.cumulative == next) == goesOn, "\(type)")
            simulation.drain()
        }
    }

    @Test func farTSNsHoldLittleMemory() {
        let simulation = established()
        let end = simulation.ends[1]
        let base = end.received.cumulative
        let reach = UInt32(end.received.reach)
        simulation.give(packet(for: end) { $0.data(base.advanced(by: reach + 1), [1]) }, to: 1)
        #expect(end.statistics.droppedWindow == 1 && !end.received.hasGap)
        simulation.give(packet(for: end) { $0.data(base.advanced(by: reach), flags: DataFlag.beginning, [1]) }, to: 1)
        #expect(end.received.hasGap)
        // Fragments that never become whole: bounded however many come.
        for offset in stride(from: 2, to: reach, by: 3) {
            simulation.give(
                packet(for: end) {
                    $0.data(base.advanced(by: offset), flags: DataFlag.beginning, [UInt8](repeating: 0, count: 1000))
                }, to: 1)
        }
        #expect(end.statistics.receiveBufferUsed <= 2 * end.receiveLimit + 262_144)
        #expect(end.statistics.droppedWindow > 100 && end.isEstablished)
    }

    @Test func forwardTSNFarAheadIsCheap() {
        let simulation = established()
        let end = simulation.ends[1]
        let base = end.received.cumulative
        simulation.give(packet(for: end) { $0.data(base.advanced(by: 5), flags: DataFlag.beginning, [1]) }, to: 1)
        #expect(end.statistics.receiveBufferUsed > 0)
        simulation.give(
            packet(for: end) { packet in
                packet.chunk(ChunkType.forwardTSN) { chunk in
                    chunk.write(base.value &+ 0x7FFF_FFFF)
                    for stream in 0..<250 as Range<UInt16> {
                        chunk.write(stream)
                        chunk.write(0x7FFF as UInt16)
                    }
                }
            }, to: 1)
        #expect(end.received.cumulative.value == base.value &+ 0x7FFF_FFFF && !end.received.hasGap)
        #expect(end.statistics.receiveBufferUsed == 0)
    }

    @Test func sackForWhatWasNeverSentIsIgnored() {
        let simulation = established()
        let end = simulation.ends[1]
        let state = end.outstanding.cumulative
        for cumulative in [state.next, state.advanced(by: 1000), state.retreated(by: 3)] {
            simulation.give(
                packet(for: end) { packet in
                    packet.chunk(ChunkType.sack) { chunk in
                        chunk.write(cumulative.value)
                        chunk.write(1000 as UInt32)
                        chunk.write([0, 1, 0, 0])
                        chunk.write([0, 5, 0, 9])
                    }
                }, to: 1)
        }
        #expect(end.isEstablished && end.outstanding.cumulative == state && end.statistics.droppedUnexpected >= 3)
    }

    /// A peer that drops what it has acknowledged in gap blocks (RFC 9260 section 6.2.1) gets it again.
    @Test func renegedDataIsSentAgain() throws {
        let simulation = established()
        let end = simulation.ends[0]
        for number in 0..<5 as Range<UInt8> {
            try simulation.send(0, [number])
            _ = simulation.poll(0)
        }
        let base = end.outstanding.cumulative
        func sack(_ cumulative: UInt32, _ blocks: [UInt8]) {
            simulation.give(
                packet(for: end) { packet in
                    packet.chunk(ChunkType.sack) { chunk in
                        chunk.write(base.value &+ cumulative)
                        chunk.write(100_000 as UInt32)
                        chunk.write([0, UInt8(blocks.count / 4), 0, 0])
                        chunk.write(blocks)
                    }
                }, to: 0)
        }
        sack(0, [0, 2, 0, 3, 0, 5, 0, 5])
        #expect(end.outstanding.acknowledgedCount == 3)
        sack(1, [])
        #expect(end.outstanding.acknowledgedCount == 1)
        #expect(end.outstanding.bytesInFlight == 3)
    }

    /// Valid packets with random damage: nothing may trap, whatever is in them.
    @Test func damagedPacketsDoNoHarm() throws {
        for seed in 0..<40 as Range<UInt64> {
            let simulation = established(seed: seed)
            var generator = SeededGenerator(seed: seed)
            var recorded: [[UInt8]] = []
            simulation.filter = { _, packet in
                if recorded.count < 200 { recorded.append(packet) }
                return true
            }
            for stream in 0..<3 as Range<UInt16> {
                try simulation.send(0, stream: stream, [UInt8](repeating: 1, count: 2500), ordered: stream != 1)
                try simulation.send(1, stream: stream, [1, 2, 3], reliability: .retransmits(0))
            }
            simulation.ends[0].resetStreams([2], now: simulation.now)
            simulation.run(for: .milliseconds(500))
            simulation.ends[1].shutdown(now: simulation.now)
            simulation.run(for: .milliseconds(500))
            let victims = [established(seed: seed &+ 100), established(seed: seed &+ 200)]
            for _ in 0..<300 {
                var bytes = recorded[Int(generator.next() % UInt64(recorded.count))]
                let index = Int(generator.next() % 2)
                let victim = victims[index]
                let tag = victim.ends[0].localTag
                for place in 0..<4 { bytes[4 + place] = UInt8(truncatingIfNeeded: tag >> UInt32(24 - 8 * place)) }
                for _ in 0..<(generator.next() % 6) {
                    let place = 12 + Int(generator.next() % UInt64(max(bytes.count - 12, 1)))
                    if place < bytes.count { bytes[place] = UInt8(truncatingIfNeeded: generator.next()) }
                }
                if generator.next() % 8 == 0 {
                    bytes = Array(bytes.prefix(Int(generator.next() % UInt64(bytes.count))))
                }
                if bytes.count >= 12 { bytes = withChecksum(bytes) }
                victim.ends[0].handle(packet: bytes.span.bytes, now: victim.now)
                _ = victim.step()
            }
        }
    }
}
