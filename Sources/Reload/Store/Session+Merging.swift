import Wire

extension Session {
    /// What two servers know of one session together. The order in which things are put together does not matter, and
    /// nothing is lost by doing it twice: so servers that write over each other agree in the end.
    ///
    /// A token that either side knows to be dead stays dead. `live` are the connections of this process, and stay.
    ///
    /// Tokens from the generation `privateFrom` on were never out of this process: nobody else can have used or replaced
    /// them, and they count on from what the other side has. 0: nothing of the session was; it was begun here under a name
    /// that turns out to have a session already (its client came with a ticket before that could be fetched).
    func merged(with other: Session, privateFrom: UInt64) -> Session {
        guard other.clientID == clientID, other.clientFingerprint == clientFingerprint else { return self }
        let mine = renumbered(from: privateFrom, after: other)
        let newest = other.isNewer(than: mine) ? other : mine
        let count =
            privateFrom == 0
            ? mine.connectionCount &+ other.connectionCount : max(mine.connectionCount, other.connectionCount)
        var merged = Session(
            clientID: clientID, created: min(created, other.created), clientFingerprint: clientFingerprint,
            lastConnected: max(lastConnected, other.lastConnected), lastSeen: max(lastSeen, other.lastSeen),
            lastAddress: newest.lastAddress, preferredCandidateType: newest.preferredCandidateType,
            lastCandidates: newest.lastCandidates, connectionCount: count, live: live, expires: nil, tokens: [],
            nextGeneration: max(mine.nextGeneration, other.nextGeneration),
            deadThrough: max(deadThrough, other.deadThrough))
        let tokens = (newest.tokens, other.isNewer(than: mine) ? mine.tokens : other.tokens)
        merged.tokens = Self.merged(tokens.0, tokens.1, deadThrough: merged.deadThrough)
        if live.isEmpty { merged.expires = Self.later(expires, other.expires) }
        return merged
    }

    /// By the token that was proved last; clocks of two servers differ.
    private func isNewer(than other: Session) -> Bool {
        (tokens.first?.generation ?? 0, deadThrough, lastConnected.nanoseconds)
            > (other.tokens.first?.generation ?? 0, other.deadThrough, other.lastConnected.nanoseconds)
    }

    private func renumbered(from first: UInt64, after other: Session) -> Session {
        guard other.nextGeneration > first else { return self }
        let offset = other.nextGeneration &- first
        var session = self
        session.tokens = tokens.map { issued in
            guard issued.generation >= first else { return issued }
            return IssuedToken(digest: issued.digest, generation: issued.generation &+ offset)
        }
        session.nextGeneration = max(nextGeneration, first) &+ offset
        return session
    }

    /// First that of the newest connection, then those that wait to be proved, the oldest first.
    private static func merged(_ newest: [IssuedToken], _ other: [IssuedToken], deadThrough: UInt64) -> [IssuedToken] {
        var tokens = newest
        for issued in other where !tokens.contains(where: { $0.digest == issued.digest }) {
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
