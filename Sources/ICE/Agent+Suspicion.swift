public import Wire

/// A path in use that is doubtful, since when.
struct Suspicion {
    let since: Instant
}

/// What was sent on the path in use since something was received on it.
struct Silence {
    var first = Instant.distantFuture
    var second = Instant.distantFuture
}

extension Agent {
    /// A data packet that the other side will acknowledge was sent on the path in use. Cheap: for every packet.
    public func noteSent(now: Instant) {
        if silence.first == .distantFuture {
            silence.first = now
        } else if silence.second == .distantFuture {
            silence.second = now
        }
    }

    /// The network has changed, and every path is doubtful: the one in use and the one that is kept warm are asked at
    /// once.
    public func networkChanged(now: Instant) { probe(now: now) }

    /// The connection of a path over TCP is gone.
    public func connectionFailed(_ path: Path, now: Instant) {}

    /// The path in use is gone for certain.
    func lose(_ index: Int, _ now: Instant) {}
}
