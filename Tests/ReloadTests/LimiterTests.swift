import Testing
import Wire

@testable import Reload

private func limiter(
    buckets: Int = 8192, rate: Int = 50, burst: Int = 100, total: Int = 20_000, seed: UInt64 = 1
) -> SourceLimiter {
    var configuration = SourceLimiter.Configuration()
    configuration.buckets = buckets
    configuration.rate = rate
    configuration.burst = burst
    configuration.totalRate = total
    configuration.totalBurst = total
    var random = SeededGenerator(seed: seed)
    return SourceLimiter(configuration: configuration, using: &random)
}

private func v4(_ number: UInt32) -> IPAddress { IPAddress(v4: number) }

private func v6(_ network: UInt64, _ host: UInt64 = 1) -> IPAddress {
    IPAddress(high: 0x2001_0DB8_0000_0000 | network, low: host)
}

@Suite struct SourceLimits {
    @Test func admitABurstThenTheRate() {
        let limiter = limiter()
        var admitted = 0
        for _ in 0..<10_000 where limiter.admits(v4(1), now: .at(0)) { admitted += 1 }
        #expect(admitted == 100)
        // 10 000 a second for ten seconds: 50 of them each second.
        for step in 1...100_000 where limiter.admits(v4(1), now: .at(Double(step) / 10_000)) { admitted += 1 }
        #expect((599...601).contains(admitted), "\(admitted)")
        #expect(limiter.refusedBySource == 110_000 - admitted)
        #expect(limiter.refusedByTotal == 0)
    }

    @Test func fillUpAgain() {
        let limiter = limiter()
        for _ in 0..<1000 { _ = limiter.admits(v4(1), now: .at(0)) }
        #expect(!limiter.admits(v4(1), now: .at(0.01)))
        #expect(limiter.admits(v4(1), now: .at(0.02)))
        #expect(!limiter.admits(v4(1), now: .at(0.03)))
        var admitted = 0
        for _ in 0..<1000 where limiter.admits(v4(1), now: .at(3600)) { admitted += 1 }
        #expect(admitted == 100)
    }

    /// RFC 6177 section 2: one site has at least a /64.
    @Test func countAnIPv6NetworkAsOne() {
        let limiter = limiter()
        var admitted = 0
        for host in 0..<1000 where limiter.admits(v6(7, UInt64(host)), now: .at(0)) { admitted += 1 }
        #expect(admitted == 100)
        #expect(limiter.admits(v6(8), now: .at(0)))
        // IPv4 addresses lie in one /64 and are many.
        admitted = 0
        for host in 0..<1000 where limiter.admits(v4(UInt32(host)), now: .at(0)) { admitted += 1 }
        #expect(admitted == 1000)
    }

    /// A flood from one source takes nothing from a thousand others, nor from the total.
    @Test(arguments: 0..<3) func keepAFloodToItself(seed: UInt64) {
        let limiter = limiter(seed: seed)
        var refused = 0
        for step in 0..<100_000 {
            let now = Instant.at(Double(step) / 100_000)
            _ = limiter.admits(v4(0xC000_0201), now: now)
            if step % 100 == 0, !limiter.admits(v4(UInt32(step / 100)), now: now) { refused += 1 }
        }
        #expect(refused == 0, "seed \(seed)")
        #expect(limiter.refusedByTotal == 0)
    }

    /// Even if the table is far too small and full of attackers, a quiet client is not refused for their sake.
    @Test(arguments: 0..<3) func starveNobodyByCollisions(seed: UInt64) {
        let limiter = limiter(buckets: 64, total: 1 << 30, seed: seed)
        var random = SeededGenerator(seed: seed)
        for step in 0..<50_000 {
            let now = Instant.at(Double(step) / 50_000)
            _ = limiter.admits(v4(UInt32.random(in: 0..<1000, using: &random)), now: now)
            if step % 5000 == 0 { #expect(limiter.admits(v6(UInt64(step)), now: now), "seed \(seed), step \(step)") }
            if step % 2000 == 0 { #expect(limiter.admits(v6(1), now: now), "seed \(seed), step \(step)") }
        }
    }

    /// An attacker with a few addresses more than ways cannot win a new burst by pushing its own out: in a table of
    /// 8192, ten sources stay within ten shares.
    @Test(arguments: 0..<3) func keepSharesOfSeveralSources(seed: UInt64) {
        let limiter = limiter(seed: seed)
        var admitted = 0
        for step in 0..<100_000 where limiter.admits(v4(UInt32(step % 10)), now: .at(Double(step) / 100_000)) {
            admitted += 1
        }
        #expect(admitted <= 10 * 150, "seed \(seed)")
        #expect(admitted >= 10 * 149, "seed \(seed)")
    }

    /// In a full set the fullest bucket makes room: passing strangers win no new burst for the one that floods.
    @Test(arguments: 0..<3) func rememberTheWorstLongest(seed: UInt64) {
        let limiter = limiter(buckets: 4, seed: seed)
        var admitted = 0
        for step in 0..<50_000 {
            let now = Instant.at(Double(step) / 10_000)
            if limiter.admits(v4(0xC000_0201), now: now) { admitted += 1 }
            if step % 10 == 0 { _ = limiter.admits(v4(UInt32(step)), now: now) }
        }
        #expect(admitted <= 100 + 50 * 5 + 1, "seed \(seed)")
    }

    /// Forged sources: all together get no more than the total, and no memory.
    @Test func boundAllTogether() {
        let limiter = limiter()
        var random = SeededGenerator(seed: 5)
        var admitted = 0
        for step in 0..<100_000 {
            let source = UInt32(truncatingIfNeeded: random.next())
            if limiter.admits(v4(source), now: .at(Double(step) / 100_000)) { admitted += 1 }
        }
        // The burst, and one second.
        #expect(admitted <= 40_001)
        #expect(admitted >= 39_990)
        #expect(limiter.refusedByTotal == 100_000 - admitted - limiter.refusedBySource)
    }

    @Test func takeAnyConfiguration() {
        for odd in [Int.min, -1, 0, 1, 3] {
            let limiter = limiter(buckets: odd, rate: odd, burst: odd, total: odd)
            #expect(limiter.admits(v4(1), now: .at(0)))
            #expect(limiter.admits(v4(1), now: .at(10)))
        }
        let limiter = limiter(buckets: 5, rate: .max, burst: .max, total: .max)
        for _ in 0..<10 { #expect(limiter.admits(v4(1), now: .at(0))) }
        _ = limiter.admits(v4(1), now: .distantFuture)
        _ = limiter.admits(v4(1), now: Instant(nanoseconds: .min))
    }
}

private func filter(capacity: Int = 16_384, lifetime: Duration = .seconds(3600), seed: UInt64 = 1) -> ReplayFilter {
    var random = SeededGenerator(seed: seed)
    return ReplayFilter(capacity: capacity, lifetime: lifetime, using: &random)
}

private func small(_ capacity: Int) -> ReplayFilter { filter(capacity: capacity) }

@Suite struct Replays {
    @Test func areKnown() {
        let filter = filter()
        #expect(!filter.isReplay(1, 2, now: .at(0)))
        #expect(filter.isReplay(1, 2, now: .at(0)))
        #expect(filter.isReplay(1, 2, now: .at(3599)))
        #expect(!filter.isReplay(2, 1, now: .at(0)))
        #expect(!filter.isReplay(1, 3, now: .at(0)))
    }

    /// Every id of the last full generation is known, whatever came between; none is known that was not entered.
    @Test(arguments: 0..<3) func areKnownAndNothingElseIs(seed: UInt64) {
        let filter = filter(capacity: 1024, seed: seed)
        var random = SeededGenerator(seed: seed)
        let ids = (0..<30_000).map { _ in (random.next(), random.next() >> 32) }
        var wrong = 0
        var forgotten = 0
        for (index, id) in ids.enumerated() {
            if filter.isReplay(id.0, id.1, now: .at(Double(index) / 1000)) { wrong += 1 }
            guard index >= 1023 else { continue }
            let earlier = ids[index - Int.random(in: 0...1023, using: &random)]
            if !filter.isReplay(earlier.0, earlier.1, now: .at(Double(index) / 1000)) { forgotten += 1 }
        }
        #expect(wrong == 0, "seed \(seed)")
        #expect(forgotten == 0, "seed \(seed)")
    }

    /// A replay of a full filter does not make room for itself: that would forget others.
    @Test func areNotEnteredAgain() {
        let filter = filter(capacity: 16)
        for id in 0..<16 { _ = filter.isReplay(UInt64(id), 0, now: .at(0)) }
        for _ in 0..<100 {
            for id in 0..<16 { #expect(filter.isReplay(UInt64(id), 0, now: .at(0))) }
        }
        #expect(filter.count <= 16)
    }

    @Test func areRememberedForTheLifetimeAndForgottenAfterTwo() {
        for start in 0..<20 {
            let filter = filter()
            let begin = Double(start) * 300
            _ = filter.isReplay(9, 9, now: .at(0))
            #expect(!filter.isReplay(1, 1, now: .at(begin)))
            _ = filter.isReplay(8, 8, now: .at(begin + 1800))
            #expect(filter.isReplay(1, 1, now: .at(begin + 3599)), "from \(begin)")
            #expect(!filter.isReplay(1, 1, now: .at(begin + 2 * 7200)), "from \(begin)")
        }
    }

    @Test func takeFixedMemory() {
        let filter = filter(capacity: 100)
        for id in 0..<10_000 {
            _ = filter.isReplay(UInt64(id), 1, now: .at(0))
            #expect(filter.count <= 128)
        }
        for odd in [Int.min, 0, 1] {
            let tiny = small(odd)
            for id in 0..<100 { #expect(!tiny.isReplay(UInt64(id), 1, now: .at(Double(id)))) }
        }
    }

    /// The same ids fall elsewhere under another key: nobody can prepare collisions.
    @Test func areHashedWithAKey() {
        let one = filter(seed: 1)
        let two = filter(seed: 2)
        #expect(one.entry(5, 6) != two.entry(5, 6))
        #expect(one.entry(5, 6) == one.entry(5, 6))
        #expect(one.entry(5, 6) != one.entry(6, 5))
    }
}
