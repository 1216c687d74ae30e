public enum Quality: UInt8, Hashable, Sendable, CaseIterable {
    case unknown = 0
    case good = 1
    case fair = 2
    case poor = 3

    public var text: String {
        switch self {
        case .unknown: "unknown"
        case .good: "good"
        case .fair: "fair"
        case .poor: "poor"
        }
    }
}

/// What a client measured; nil: not known.
public struct QualityMetrics: Hashable, Sendable {
    public var latencyMilliseconds: Double?
    public var lossPercent: Double?
    public var jitterMilliseconds: Double?
    public var bandwidthKilobits: Double?

    public init(
        latencyMilliseconds: Double? = nil, lossPercent: Double? = nil, jitterMilliseconds: Double? = nil,
        bandwidthKilobits: Double? = nil
    ) {
        self.latencyMilliseconds = latencyMilliseconds
        self.lossPercent = lossPercent
        self.jitterMilliseconds = jitterMilliseconds
        self.bandwidthKilobits = bandwidthKilobits
    }

    /// Finite, not negative, and loss at most 100 %.
    public var isValid: Bool {
        for value in [latencyMilliseconds, lossPercent, jitterMilliseconds, bandwidthKilobits] {
            guard let value else { continue }
            guard value.isFinite, value >= 0 else { return false }
        }
        return lossPercent.map { $0 <= 100 } ?? true
    }
}

/// Where good ends and where poor begins.
public struct QualityThresholds: Hashable, Sendable {
    /// Above the first it is not good, above the second it is poor.
    public var latencyMilliseconds: (fair: Double, poor: Double) {
        get { (latency.fair, latency.poor) }
        set { latency = Limits(fair: newValue.fair, poor: newValue.poor) }
    }
    public var lossPercent: (fair: Double, poor: Double) {
        get { (loss.fair, loss.poor) }
        set { loss = Limits(fair: newValue.fair, poor: newValue.poor) }
    }
    public var jitterMilliseconds: (fair: Double, poor: Double) {
        get { (jitter.fair, jitter.poor) }
        set { jitter = Limits(fair: newValue.fair, poor: newValue.poor) }
    }
    /// Below the first it is not good, below the second it is poor.
    public var bandwidthKilobits: (fair: Double, poor: Double) {
        get { (bandwidth.fair, bandwidth.poor) }
        set { bandwidth = Limits(fair: newValue.fair, poor: newValue.poor) }
    }
    /// A quality is better than the last one only if its metrics are better than the limits by this share.
    public var hysteresis = 0.1

    struct Limits: Hashable, Sendable {
        var fair: Double
        var poor: Double
    }
    var latency = Limits(fair: 150, poor: 400)
    var loss = Limits(fair: 1, poor: 5)
    var jitter = Limits(fair: 30, poor: 75)
    var bandwidth = Limits(fair: 1_000, poor: 300)

    public init() {}
}

public struct QualityReport: Hashable, Sendable {
    public let quality: Quality
    public let metrics: QualityMetrics
    /// Sentences for people.
    public let recommendations: [String]
}

/// Judges what clients measure. Worse counts at once; better only with a margin, so that a value that
/// wavers around a limit does not flap.
public struct QualityClassifier: Sendable {
    private let thresholds: QualityThresholds
    private let margin: Double

    public init(_ thresholds: QualityThresholds = QualityThresholds()) {
        self.thresholds = thresholds
        margin = thresholds.hysteresis.isFinite ? min(max(thresholds.hysteresis, 0), 0.9) : 0
    }

    /// nil if the metrics cannot be. `previous` is what the last report said.
    public func judge(_ metrics: QualityMetrics, previous: Quality) -> QualityReport? {
        guard metrics.isValid else { return nil }
        let plain = findings(metrics, leniency: 1)
        // With stricter limits a quality is better only if it is better than the real limits by the margin.
        let strict = findings(metrics, leniency: 1 - margin)
        let quality: Quality
        if plain.worst == .unknown || previous == .unknown || plain.worst.rawValue >= previous.rawValue {
            quality = plain.worst
        } else {
            quality = strict.worst.rawValue < previous.rawValue ? strict.worst : previous
        }
        return QualityReport(
            quality: quality, metrics: metrics, recommendations: Self.recommendations(quality, plain, strict))
    }

    struct Findings {
        var latency = Quality.unknown
        var loss = Quality.unknown
        var jitter = Quality.unknown
        var bandwidth = Quality.unknown
        var worst: Quality {
            Quality(rawValue: max(latency.rawValue, loss.rawValue, jitter.rawValue, bandwidth.rawValue)) ?? .unknown
        }
    }

    private func findings(_ metrics: QualityMetrics, leniency: Double) -> Findings {
        func high(_ value: Double?, _ limits: QualityThresholds.Limits) -> Quality {
            guard let value else { return .unknown }
            return value > limits.poor * leniency ? .poor : value > limits.fair * leniency ? .fair : .good
        }
        func low(_ value: Double?, _ limits: QualityThresholds.Limits) -> Quality {
            guard let value else { return .unknown }
            return value * leniency < limits.poor ? .poor : value * leniency < limits.fair ? .fair : .good
        }
        return Findings(
            latency: high(metrics.latencyMilliseconds, thresholds.latency),
            loss: high(metrics.lossPercent, thresholds.loss),
            jitter: high(metrics.jitterMilliseconds, thresholds.jitter),
            bandwidth: low(metrics.bandwidthKilobits, thresholds.bandwidth))
    }

    private static func recommendations(_ quality: Quality, _ plain: Findings, _ strict: Findings) -> [String] {
        switch quality {
        case .unknown: return ["Nothing was measured yet."]
        case .good: return ["The connection is good."]
        case .fair, .poor: break
        }
        // What keeps the quality down: past the limit, or not yet clear of it.
        func isBad(_ plain: Quality, _ strict: Quality) -> Bool {
            plain.rawValue >= Quality.fair.rawValue || strict.rawValue >= quality.rawValue
        }
        var sentences: [String] = []
        if isBad(plain.latency, strict.latency) {
            sentences.append("Latency is high: a nearer server, or a direct path instead of a relay, would help.")
        }
        if isBad(plain.loss, strict.loss) {
            sentences.append(
                "Packets get lost: move closer to the access point or use a cable, and lower the bit rate.")
        }
        if isBad(plain.jitter, strict.jitter) {
            sentences.append("Delays vary: stop other transfers on this network, and allow a larger jitter buffer.")
        }
        if isBad(plain.bandwidth, strict.bandwidth) {
            sentences.append(
                quality == .poor
                    ? "There is too little bandwidth for video: switch it off and keep the sound."
                    : "Bandwidth is short: lower the resolution of the video.")
        }
        return sentences
    }
}
