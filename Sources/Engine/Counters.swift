import Synchronization

/// Counters that the loop writes and every thread may read.
final class Counters: Sendable {
    let peers = Atomic<Int>(0)
    let connectors = Atomic<Int>(0)
    let sessions = Atomic<Int>(0)
    let answersFast = Atomic<UInt64>(0)
    let answersNormal = Atomic<UInt64>(0)
    let peersConnected = Atomic<UInt64>(0)
    let peersFailed = Atomic<UInt64>(0)
    let sessionsReturned = Atomic<UInt64>(0)
    let datagramsReceived = Atomic<UInt64>(0)
    let datagramsSent = Atomic<UInt64>(0)
    let bytesReceived = Atomic<UInt64>(0)
    let bytesSent = Atomic<UInt64>(0)
    let datagramsDropped = Atomic<UInt64>(0)
    let sendErrors = Atomic<UInt64>(0)
    /// Messages of the control channel that were malformed, or too many.
    let controlDropped = Atomic<UInt64>(0)
}

/// A reading of the counters; `reconnect_engine_statistics_t`.
public struct EngineStatistics: Sendable {
    public var peers = 0
    public var sessions = 0
    public var answersFast: UInt64 = 0
    public var answersNormal: UInt64 = 0
    public var peersConnected: UInt64 = 0
    public var peersFailed: UInt64 = 0
    public var sessionsReturned: UInt64 = 0
    public var datagramsReceived: UInt64 = 0
    public var datagramsSent: UInt64 = 0
    public var bytesReceived: UInt64 = 0
    public var bytesSent: UInt64 = 0
    public var datagramsDropped: UInt64 = 0
    public var sendErrors: UInt64 = 0
    public var certificateAgeSeconds: Int64 = 0
    public var eventsQueued = 0
}

extension Counters {
    func reading() -> EngineStatistics {
        var reading = EngineStatistics()
        reading.peers = peers.load(ordering: .relaxed)
        reading.sessions = sessions.load(ordering: .relaxed)
        reading.answersFast = answersFast.load(ordering: .relaxed)
        reading.answersNormal = answersNormal.load(ordering: .relaxed)
        reading.peersConnected = peersConnected.load(ordering: .relaxed)
        reading.peersFailed = peersFailed.load(ordering: .relaxed)
        reading.sessionsReturned = sessionsReturned.load(ordering: .relaxed)
        reading.datagramsReceived = datagramsReceived.load(ordering: .relaxed)
        reading.datagramsSent = datagramsSent.load(ordering: .relaxed)
        reading.bytesReceived = bytesReceived.load(ordering: .relaxed)
        reading.bytesSent = bytesSent.load(ordering: .relaxed)
        reading.datagramsDropped = datagramsDropped.load(ordering: .relaxed)
        reading.sendErrors = sendErrors.load(ordering: .relaxed)
        return reading
    }
}

extension Atomic where Value == UInt64 {
    /// Adds without ordering anything else: these are statistics.
    func count(_ amount: UInt64 = 1) { wrappingAdd(amount, ordering: .relaxed) }
}
