import Testing
import Wire

@testable import Reload

@Suite struct Wheel {
    @Test func isNeverEarlyAndAtMostATickLate() {
        var wheel = TimingWheel(tick: .seconds(1))
        wheel.schedule(7, at: .at(10.2))
        #expect(wheel.popExpired(at: .at(10.2)) == nil)
        #expect(wheel.popExpired(at: .at(10.99)) == nil)
        #expect(wheel.popExpired(at: .at(11)) == 7)
        #expect(wheel.popExpired(at: .at(100)) == nil)
        #expect(wheel.count == 0)
        #expect(wheel.nextDue == nil)
    }

    @Test func keepsTheLastDeadline() {
        var wheel = TimingWheel(tick: .seconds(1))
        wheel.schedule(1, at: .at(10))
        wheel.schedule(1, at: .at(500))
        wheel.schedule(2, at: .at(20))
        wheel.cancel(2)
        wheel.cancel(2)
        wheel.cancel(99)
        #expect(wheel.count == 1)
        #expect(wheel.popExpired(at: .at(499)) == nil)
        #expect(wheel.popExpired(at: .at(500)) == 1)
    }

    @Test func takesDeadlinesInThePastAndTheFarFuture() {
        var wheel = TimingWheel(tick: .milliseconds(1))
        #expect(wheel.popExpired(at: .at(1000)) == nil)
        wheel.schedule(0, at: .at(1))
        wheel.schedule(1, at: Instant(nanoseconds: .min))
        wheel.schedule(2, at: .distantFuture)
        wheel.schedule(3, at: Instant(nanoseconds: .max - 1))
        // A clock that goes back takes nothing out early and breaks nothing.
        #expect(wheel.popExpired(at: .at(5)) == nil)
        #expect(wheel.popExpired(at: .at(1000)) == 0)
        #expect(wheel.popExpired(at: .at(1000)) == 1)
        #expect(wheel.popExpired(at: .at(1_000_000)) == nil)
        #expect(wheel.count == 2)
        #expect(wheel.nextDue != nil)
    }

    /// Against the plain way: a list of deadlines, searched.
    @Test func agreesWithAList() {
        for seed in 0..<60 {
            var random = SeededGenerator(seed: UInt64(seed))
            var wheel = TimingWheel(tick: .milliseconds(10))
            var list: [Int: Int64] = [:]
            var now: Int64 = Int64.random(in: 0...1_000_000, using: &random)
            var last: Int64 = 0
            for _ in 0..<2000 {
                let entry = Int.random(in: 0..<200, using: &random)
                switch Int.random(in: 0..<10, using: &random) {
                case 0...4:
                    let distances: [Int64] = [100, 5_000, 300_000, 40_000_000]
                    let far = distances.randomElement(using: &random) ?? 1
                    let deadline = now + Int64.random(in: 0...far, using: &random)
                    wheel.schedule(entry, at: Instant(nanoseconds: deadline * 1_000_000))
                    list[entry] = max((deadline + 9) / 10, now / 10)
                case 5:
                    wheel.cancel(entry)
                    list[entry] = nil
                default:
                    let step: [Int64] = [20, 3_000, 500_000]
                    now += Int64.random(in: 0...(step.randomElement(using: &random) ?? 1), using: &random)
                    last = 0
                    while let popped = wheel.popExpired(at: Instant(nanoseconds: now * 1_000_000)) {
                        guard let tick = list.removeValue(forKey: popped) else {
                            Issue.record("seed \(seed): unknown entry")
                            return
                        }
                        #expect(tick <= now / 10, "seed \(seed)")
                        #expect(tick >= last, "seed \(seed): out of order")
                        last = tick
                    }
                    let left = list.values.contains { $0 <= now / 10 }
                    #expect(!left, "seed \(seed): something was due")
                }
                #expect(wheel.count == list.count, "seed \(seed)")
                let earliest = list.values.min()
                let due = wheel.nextDue
                let isEarly =
                    (due == nil) == (earliest == nil) && (due?.nanoseconds ?? 0) <= (earliest ?? 0) * 10_000_000
                #expect(isEarly, "seed \(seed): a timeout past the first deadline")
            }
        }
    }

    @Test func servesEntriesOfOneTickInOrder() {
        var wheel = TimingWheel(tick: .seconds(1))
        for entry in 0..<100 { wheel.schedule(entry, at: .at(700)) }
        #expect(wheel.earliest == 0)
        for entry in 0..<100 { #expect(wheel.popExpired(at: .at(700)) == entry) }
    }
}
