/// What happened so far, for metrics.
public struct Statistics: Equatable, Sendable {
    public internal(set) var published = 0
    public internal(set) var duplicates = 0
    public internal(set) var superseded = 0
    /// Messages dropped because of limits of their room, their age, or the limit for all rooms.
    public internal(set) var trimmed = 0
    public internal(set) var expired = 0
    public internal(set) var evicted = 0
    public internal(set) var joins = 0
    public internal(set) var fresh = 0
    public internal(set) var recovered = 0
    public internal(set) var recoveredEmpty = 0
    public internal(set) var lost: [LossReason: Int] = [:]
    public internal(set) var replayed = 0
    public internal(set) var throttled = 0
    /// Late closes of connections that a newer one had taken over from.
    public internal(set) var fenced = 0

    public init() {}

    mutating func count(_ verdict: Verdict) {
        switch verdict {
        case .fresh: fresh &+= 1
        case .recovered: recovered &+= 1
        case .recoveredEmpty: recoveredEmpty &+= 1
        case .lost(let reason): lost[reason, default: 0] &+= 1
        }
    }
}
