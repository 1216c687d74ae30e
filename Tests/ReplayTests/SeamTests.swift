import Replay
import Testing
import Wire

@Suite struct Seams {
    private func at(_ sequence: UInt64, epoch: UInt64 = 2) -> Position { Position(epoch: epoch, sequence: sequence) }

    private func check(_ got: Seam<String>.Disposition, _ expected: Seam<String>.Disposition) {
        #expect(got == expected)
    }

    private func check(_ got: [String]?, _ expected: [String]?) { #expect(got == expected) }

    private func items(_ opening: Seam<String>.Opening) -> [String]? {
        if case .open(let items) = opening { items } else { nil }
    }

    @Test func holdsUntilTheBatchIsHandedOver() {
        var seam = Seam<String>(at: at(3))
        check(seam.receive(at(6), "six"), .held)
        check(seam.receive(at(7), nil), .held)
        check(seam.receive(at(8), "eight"), .held)
        // The batch had everything up to 6: six is in both.
        check(items(seam.open(at: at(6))), ["eight"])
        #expect(seam.position == at(8))
        check(seam.receive(at(9), "nine"), .deliver)
        check(seam.receive(at(9), "nine"), .duplicate)
        check(seam.receive(at(4), "four"), .duplicate)
    }

    @Test func batchThatEndsTooEarlyIsNotCoveredUp() {
        var seam = Seam<String>(at: at(3))
        check(seam.receive(at(8), "eight"), .held)
        check(items(seam.open(at: at(6))), nil)
        #expect(seam.position == at(6))
        check(items(seam.open(at: at(7))), ["eight"])
    }

    @Test func missingNumberIsNoticedAndMadeUpFor() {
        var seam = Seam<String>(at: at(0))
        check(items(seam.open(at: at(2))), [])
        check(seam.receive(at(5), "five"), .gap)
        check(seam.receive(at(6), "six"), .held)
        #expect(seam.position == at(2))
        check(items(seam.open(at: at(5))), ["six"])
        #expect(seam.position == at(6))
    }

    @Test func newEpochIsAGap() {
        var seam = Seam<String>(at: at(0))
        check(items(seam.open(at: at(2))), [])
        check(seam.receive(at(3, epoch: 4), "other"), .gap)
        check(items(seam.open(at: at(3, epoch: 2))), nil)
        check(items(seam.open(at: at(2, epoch: 4))), ["other"])
    }

    @Test func holdsOnlySoMuch() {
        var seam = Seam<String>(at: at(0), limit: 3)
        for sequence in 1...10 as ClosedRange<UInt64> { _ = seam.receive(at(sequence), "\(sequence)") }
        #expect(seam.heldCount <= 3)
        check(items(seam.open(at: at(0))), nil)
        check(items(seam.open(at: at(9))), ["10"])
    }

    /// Any order of arrival, any moment of the batch: each message once, in order, none missing.
    @Test func neverLosesDoublesOrReorders() {
        for seed in 0..<2_000 as Range<UInt64> {
            var random = SeededGenerator(seed: seed)
            var seam = Seam<UInt64>(at: at(0), limit: Int.random(in: 1...4, using: &random))
            var got: [UInt64] = []
            var published: UInt64 = 0
            var needsBatch = true
            var inFlight: [UInt64] = []
            for _ in 0..<60 {
                switch Int.random(in: 0..<4, using: &random) {
                case 0:
                    published += 1
                    // Some are lost on the way, some come twice or late.
                    if Int.random(in: 0..<8, using: &random) > 0 { inFlight.append(published) }
                    if Int.random(in: 0..<8, using: &random) == 0 { inFlight.append(published) }
                case 1 where needsBatch:
                    // The batch may be older than what is held: read a while ago.
                    let done = seam.position.sequence
                    let upTo = done < published ? UInt64.random(in: done...published, using: &random) : done
                    got += upTo > done ? Array(done + 1...upTo) : []
                    if case .open(let items) = seam.open(at: at(upTo)) {
                        got += items
                        needsBatch = false
                    }
                default:
                    guard !inFlight.isEmpty else { break }
                    let index = Int.random(in: 0..<min(2, inFlight.count), using: &random)
                    let sequence = inFlight.remove(at: index)
                    switch seam.receive(at(sequence), sequence) {
                    case .deliver: got.append(sequence)
                    case .gap: needsBatch = true
                    case .held, .duplicate: break
                    }
                }
            }
            #expect(got == (got.isEmpty ? [] : Array(1...UInt64(got.count))), "seed \(seed)")
            #expect(seam.position.sequence == UInt64(got.count), "seed \(seed)")
        }
    }
}
