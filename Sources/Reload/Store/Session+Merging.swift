import Wire

extension Session {
    /// What two servers know of one session together. The order in which things are put together does not matter, and
    /// nothing is lost by doing it twice: so servers that write over each other agree in the end.
    ///
    /// A token that either side knows to be dead stays dead. `live` are the connections of this process, and stay.
    func merged(with other: Session) -> Session {
        guard other.clientID == clientID, other.clientFingerprint == clientFingerprint else { return self }
        // The newer connection tells where the client was last.
        let isNewer =
            (other.deadThrough, other.lastConnected.nanoseconds) > (deadThrough, lastConnected.nanoseconds)
        let newest = isNewer ? other : self
        var merged = Session(
            clientID: clientID, created: min(created, other.created), clientFingerprint: clientFingerprint,
            lastConnected: max(lastConnected, other.lastConnected), lastSeen: max(lastSeen, other.lastSeen),
            lastAddress: newest.lastAddress, preferredCandidateType: newest.preferredCandidateType,
            lastCandidates: newest.lastCandidates, connectionCount: max(connectionCount, other.connectionCount),
            live: live, expires: nil, tokens: [], nextGeneration: max(nextGeneration, other.nextGeneration),
            deadThrough: max(deadThrough, other.deadThrough))
        merged.tokens = Self.merged(newest, isNewer ? self : other, deadThrough: merged.deadThrough)
        if live.isEmpty { merged.expires = Self.later(expires, other.expires) }
        return merged
    }

    /// First that of the newest connection, then those that wait to be proved, the oldest first.
    private static func merged(_ newest: Session, _ other: Session, deadThrough: UInt64) -> [IssuedToken] {
        var tokens = newest.tokens
        for issued in other.tokens where !tokens.contains(where: { $0.digest == issued.digest }) {
            tokens.append(issued)
        }
        tokens.removeAll { $0.generation <= deadThrough }
        guard let first = tokens.first else { return [] }
        let rest = tokens.dropFirst().sorted { $0.generation < $1.generation }
        return [first] + rest.suffix(maximumPendingTokens)
    }

    private static func later(_ left: Instant?, _ right: Instant?) -> Instant? {
        guard let left, let right else { return left ?? right }
        return max(left, right)
    }

    /// Nothing but the time of the last sign of life is different.
    func differsOnlyInLastSeen(from other: Session) -> Bool {
        tokens == other.tokens && nextGeneration == other.nextGeneration && deadThrough == other.deadThrough
            && live == other.live && expires == other.expires && connectionCount == other.connectionCount
            && lastConnected == other.lastConnected && lastAddress == other.lastAddress
            && preferredCandidateType == other.preferredCandidateType && lastCandidates == other.lastCandidates
    }
}
