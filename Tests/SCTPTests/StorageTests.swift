import Testing
import Wire

@testable import SCTP

@Suite struct Storage {
    @Test func bitRingMatchesASetAcrossTheWrap() {
        var generator = SeededGenerator(seed: 3)
        var bits = BitRing()
        var model: Set<UInt32> = []
        var first = TSN(0xFFFF_FF00)
        var used = 0
        for _ in 0..<4000 {
            let distance = Int(generator.next() % 700)
            let tsn = first.advanced(by: UInt32(distance))
            bits.reserve(distance + 1, from: first, used: used)
            used = max(used, distance + 1)
            bits.insert(tsn)
            model.insert(tsn.value)
            if generator.next() % 4 == 0 {
                bits.remove(tsn)
                model.remove(tsn.value)
            }
            if generator.next() % 3 == 0 {
                let step = Int(generator.next() % 100)
                bits.remove(from: first, count: min(step, used))
                for offset in 0..<step { model.remove(first.value &+ UInt32(offset)) }
                first = first.advanced(by: UInt32(step))
                used = max(0, used - step)
            }
            let probe = first.advanced(by: UInt32(generator.next() % 300))
            #expect(bits.contains(probe) == model.contains(probe.value))
            for value in [true, false] {
                var expected = 0
                while expected < 90, model.contains(first.value &+ UInt32(expected)) == value { expected += 1 }
                let limit = max(min(90, used), 0)
                #expect(bits.run(of: value, from: first, limit: limit) == min(expected, limit))
            }
        }
    }

    @Test func streamTableFindsEveryStream() {
        var table = StreamTable<UInt16>()
        for id in stride(from: 0, to: 65_535, by: 257) {
            let slot = table.slot(UInt16(id), initial: UInt16(id))
            #expect(table[slot] == UInt16(id))
        }
        for id in 0..<65_535 {
            #expect((table.find(UInt16(id)).map { table[$0] }) == (id % 257 == 0 ? UInt16(id) : nil))
        }
    }

    @Test func gapBlocksDescribeWhatArrived() {
        var received = ReceivedTSNs(cumulative: TSN(0xFFFF_FFFA), reach: 1000)
        for distance in [3, 4, 7, 200] as [UInt32] { received.insertAhead(TSN(0xFFFF_FFFA &+ distance)) }
        var blocks: [[Int]] = []
        var distance = 1
        while let block = received.gapBlock(from: distance) {
            blocks.append([block.start, block.end])
            distance = block.end + 1
        }
        #expect(blocks == [[3, 4], [7, 7], [200, 200]])
        #expect(received.classify(TSN(0xFFFF_FFFD)) == .duplicate)
        #expect(received.classify(TSN(0xFFFF_FFFA)) == .duplicate)
        #expect(received.classify(TSN(0xFFFF_FFFB)) == .next)
        #expect(received.classify(TSN(0xFFFF_FFFC)) == .ahead)
        #expect(received.classify(TSN(0xFFFF_FFFA &+ 1001)) == .tooFar)
        #expect(received.insertNext() == 1)
        #expect(received.insertNext() == 3)
        #expect(received.cumulative == TSN(0xFFFF_FFFE) && received.hasGap)
        #expect(received.advance(over: 2) == 3)
        #expect(received.cumulative == TSN(1))
        #expect(received.advance(over: 5000) == 5000)
        #expect(!received.hasGap && received.gapBlock(from: 1) == nil)
    }
}
