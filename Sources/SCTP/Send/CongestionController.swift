/// Decides how many bytes may be in flight. One instance per association; the association tells it
/// what happened on the path and asks for the window.
protocol CongestionController {
    /// cwnd in bytes.
    var window: Int { get }

    /// A SACK acknowledged `bytes` for the first time.
    /// - `cumulative`: the cumulative TSN moved.
    /// - `windowLimited`: the data was sent while the window kept more from being sent.
    /// - `recovering`: in fast recovery.
    /// - `remaining`: bytes in flight afterwards.
    mutating func acknowledged(bytes: Int, cumulative: Bool, windowLimited: Bool, recovering: Bool, remaining: Int)
    /// A loss was found by missing reports, the first in this window of data.
    mutating func lost()
    /// T3-rtx expired.
    mutating func timedOut()
    /// Nothing was sent for this many retransmission time-outs.
    mutating func idled(periods: Int)
    /// User data that one packet can carry.
    mutating func packetCapacityChanged(_ bytes: Int)
}

/// Slow start, congestion avoidance and fast recovery as RFC 9260 section 7.2 has them.
struct NewReno: CongestionController {
    private(set) var window: Int
    private(set) var slowStartThreshold = Int.max
    private var partialBytesAcknowledged = 0
    /// PMDCS.
    private var capacity: Int
    private let packetsPerAcknowledgement: Int

    /// `initialPackets` is the first window (10 as in RFC 6928, where RFC 9260 has 4) and also the
    /// most by which one SACK opens the window in slow start (L in RFC 9260 section 7.2.1), since one
    /// SACK can cover a whole batch of packets.
    init(capacity: Int, initialPackets: Int) {
        self.capacity = capacity
        packetsPerAcknowledgement = max(initialPackets, 1)
        window = capacity &* max(initialPackets, 2)
    }

    private var isInSlowStart: Bool { window <= slowStartThreshold }

    mutating func acknowledged(bytes: Int, cumulative: Bool, windowLimited: Bool, recovering: Bool, remaining: Int) {
        guard cumulative else { return }
        if isInSlowStart {
            // "cwnd MUST be increased only if the full cwnd is being used and the incoming SACK
            // advances the Cumulative TSN Ack Point", and not in fast recovery (section 7.2.1).
            guard windowLimited, !recovering else { return }
            window &+= min(bytes, packetsPerAcknowledgement &* capacity)
        } else {
            // Section 7.2.2: one packet more for every window that was acknowledged.
            partialBytesAcknowledged &+= bytes
            if partialBytesAcknowledged >= window {
                partialBytesAcknowledged &-= window
                if windowLimited, !recovering { window &+= capacity }
            }
            partialBytesAcknowledged = min(partialBytesAcknowledged, window)
            if remaining == 0 { partialBytesAcknowledged = 0 }
        }
    }

    mutating func lost() {
        // Section 7.2.3: half of it, but not less than four packets.
        slowStartThreshold = max(window / 2, 4 &* capacity)
        window = slowStartThreshold
        partialBytesAcknowledged = 0
    }

    mutating func timedOut() {
        slowStartThreshold = max(window / 2, 4 &* capacity)
        window = capacity
        partialBytesAcknowledged = 0
    }

    mutating func idled(periods: Int) {
        // Section 7.2.1: halved for every RTO without transmission, to no less than four packets.
        for _ in 0..<min(periods, 32) where window > 4 &* capacity {
            window = max(window / 2, 4 &* capacity)
        }
    }

    mutating func packetCapacityChanged(_ bytes: Int) {
        capacity = bytes
        window = max(window, bytes)
    }
}
