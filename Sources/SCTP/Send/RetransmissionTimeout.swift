import Wire

/// RTO from measured round trips (RFC 9260 section 6.3.1).
struct RetransmissionTimeout {
    private(set) var smoothed: Duration?
    private var variation = Duration.zero
    private(set) var value: Duration
    let minimum: Duration
    let maximum: Duration

    init(initial: Duration, minimum: Duration, maximum: Duration) {
        self.maximum = max(maximum, .milliseconds(1))
        self.minimum = minimum.clamped(.milliseconds(1), self.maximum)
        value = initial.clamped(min(.milliseconds(50), self.maximum), self.maximum)
    }

    mutating func measured(_ roundTrip: Duration) {
        guard roundTrip >= .zero else { return }
        if let before = smoothed {
            // RTTVAR <- (1 - 1/4) RTTVAR + 1/4 |SRTT - R'|; SRTT <- (1 - 1/8) SRTT + 1/8 R'.
            let difference = before > roundTrip ? before - roundTrip : roundTrip - before
            variation = variation - variation / 4 + difference / 4
            smoothed = before - before / 8 + roundTrip / 8
        } else {
            smoothed = roundTrip
            variation = roundTrip / 2
        }
        // "if RTTVAR is zero, then it SHOULD be adjusted" to the clock's granularity.
        if variation < .milliseconds(1) { variation = .milliseconds(1) }
        value = ((smoothed ?? roundTrip) + variation * 4).clamped(minimum, maximum)
    }

    /// Takes back what back-off added.
    mutating func restore() {
        guard let smoothed else { return }
        value = (smoothed + variation * 4).clamped(minimum, maximum)
    }

    /// Section 6.3.3, rule E2.
    mutating func backOff() { value = min(value * 2, maximum) }
}
