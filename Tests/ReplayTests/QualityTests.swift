import Replay
import Testing
import Wire

@Suite struct ConnectionQuality {
    private let classifier = QualityClassifier()

    private func judge(
        _ latency: Double? = nil, loss: Double? = nil, jitter: Double? = nil, bandwidth: Double? = nil,
        after previous: Quality = .unknown
    ) -> Quality? {
        classifier.judge(
            QualityMetrics(
                latencyMilliseconds: latency, lossPercent: loss, jitterMilliseconds: jitter,
                bandwidthKilobits: bandwidth), previous: previous)?.quality
    }

    @Test func worstMetricDecides() {
        #expect(judge(40, loss: 0, jitter: 5, bandwidth: 5_000) == .good)
        #expect(judge(150, loss: 2.5, jitter: 30, bandwidth: 5_000) == .fair)
        #expect(judge(40, loss: 0, jitter: 5, bandwidth: 200) == .poor)
        #expect(judge(500) == .poor && judge(loss: 6) == .poor && judge(jitter: 80) == .poor)
        #expect(judge(bandwidth: 500) == .fair)
        #expect(judge() == .unknown)
    }

    @Test func worseAtOnceBetterWithAMargin() {
        #expect(judge(151, after: .good) == .fair)
        #expect(judge(149, after: .fair) == .fair)
        #expect(judge(134, after: .fair) == .good)
        #expect(judge(390, after: .poor) == .poor)
        #expect(judge(359, after: .poor) == .fair)
        #expect(judge(20, after: .poor) == .good)
        #expect(judge(bandwidth: 1_050, after: .fair) == .fair)
        #expect(judge(bandwidth: 1_200, after: .fair) == .good)
        // A value that wavers around the limit does not flap.
        var quality = Quality.good
        var changes = 0
        for index in 0..<100 {
            let next = judge(index % 2 == 0 ? 149 : 151, after: quality) ?? .unknown
            if next != quality { changes += 1 }
            quality = next
        }
        #expect(changes == 1)
    }

    @Test func impossibleMetricsAreRefused() {
        #expect(judge(-1) == nil && judge(.nan) == nil && judge(.infinity) == nil)
        #expect(judge(loss: 101) == nil && judge(bandwidth: -5) == nil && judge(loss: 100) == .poor)
    }

    @Test func thresholdsCanBeSet() {
        var thresholds = QualityThresholds()
        thresholds.latencyMilliseconds = (fair: 10, poor: 20)
        thresholds.hysteresis = 0
        let strict = QualityClassifier(thresholds)
        let metrics = QualityMetrics(latencyMilliseconds: 15)
        #expect(strict.judge(metrics, previous: .unknown)?.quality == .fair)
        #expect(strict.judge(QualityMetrics(latencyMilliseconds: 10), previous: .poor)?.quality == .good)
        thresholds.hysteresis = .nan
        #expect(QualityClassifier(thresholds).judge(metrics, previous: .poor)?.quality == .fair)
    }

    @Test func recommendationsNameWhatIsWrong() throws {
        for quality in [Quality.unknown, .good, .fair, .poor] {
            for latency in [nil, 10, 140, 200, 500] as [Double?] {
                for bandwidth in [nil, 100, 500, 1_050, 9_000] as [Double?] {
                    let report = classifier.judge(
                        QualityMetrics(latencyMilliseconds: latency, bandwidthKilobits: bandwidth), previous: quality)
                    #expect(report?.recommendations.isEmpty == false)
                    #expect(report?.recommendations.allSatisfy { $0.hasSuffix(".") } == true)
                }
            }
        }
        let lossy = try #require(
            classifier.judge(QualityMetrics(latencyMilliseconds: 10, lossPercent: 9), previous: .good))
        #expect(lossy.recommendations.count == 1 && lossy.recommendations[0].contains("Packets"))
    }
}

@Suite struct Admissions {
    @Test func admitsABurstThenEvenly() {
        var admission = Admission(perSecond: 100, burst: 10, seed: 1)
        var now = Instant.at(5)
        var admitted = 0
        for _ in 0..<20 where admission.admit(now: now) == nil { admitted += 1 }
        #expect(admitted == 10)
        for _ in 0..<1_000 {
            now = now + .milliseconds(1)
            if admission.admit(now: now) == nil { admitted += 1 }
        }
        #expect((105...112).contains(admitted))
    }

    @Test func returnsAreSpread() {
        var admission = Admission(perSecond: 1_000, burst: 1_000, seed: 2)
        let now = Instant.at(5)
        let waits = (0..<10_000).compactMap { _ in admission.admit(now: now) }
        #expect(waits.count == 9_000)
        #expect(waits.allSatisfy { $0 > .zero })
        // 9 000 at 1 000 a second: nine seconds, and a little more for the jitter.
        #expect(waits.max().map { $0 > .seconds(8) && $0 < .seconds(11) } == true)
        var perSecond: [Int64: Int] = [:]
        for wait in waits { perSecond[wait.nanoseconds / 1_000_000_000, default: 0] += 1 }
        #expect(perSecond.values.allSatisfy { $0 < 1_300 })
    }

    @Test func unlimitedAndOddLimitsDoNotTrap() {
        var free = Admission(perSecond: 0, burst: 0, seed: 1)
        for _ in 0..<1_000 {
            let wait = free.admit(now: .at(1))
            #expect(wait == nil)
        }
        var odd = Admission(perSecond: .max, burst: .max, seed: 1)
        _ = odd.admit(now: Instant(nanoseconds: .max))
        _ = odd.admit(now: Instant(nanoseconds: .min))
        var slow = Admission(perSecond: 1, burst: .min, seed: 1)
        _ = slow.admit(now: .at(1))
        for _ in 0..<1_000 {
            let wait = slow.admit(now: .at(1))
            #expect(wait.map { $0 < .seconds(70) } == true)
        }
    }
}
