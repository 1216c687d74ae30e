/// What a returning client can be told.
public enum Verdict: Hashable, Sendable {
    /// It comes without a position: there is nothing to replay.
    case fresh
    /// Everything it missed is in the batch.
    case recovered
    /// It missed nothing.
    case recoveredEmpty
    /// Something it missed cannot be proven to be there: it must negotiate anew.
    case lost(LossReason)

    /// True only if nothing is missing.
    public var isRecovered: Bool { self == .recovered || self == .recoveredEmpty }
}

public enum LossReason: UInt8, Hashable, Sendable, CaseIterable {
    /// The position is of another incarnation of the room, or nothing that this store gave out.
    case epoch = 1
    /// Messages after it were dropped because of a limit on count or bytes.
    case trimmed = 2
    /// Messages after it became too old.
    case expired = 3
    /// More was missed than one replay may carry.
    case limit = 4
    /// The store did not answer.
    case store = 5
    /// Messages went around the store while it was away.
    case degraded = 6
}

/// What was wrong with what a client presented. The verdict is then ``LossReason/epoch``, or ``LossReason/degraded``.
public enum ResumeProblem: UInt8, Hashable, Sendable, CaseIterable {
    case malformedPosition = 1
    case forgedPosition = 2
    /// Signed, but of another incarnation, or another room.
    case foreignPosition = 3
    /// Signed, but after the last message.
    case futurePosition = 4
    /// No token, or not that of this membership.
    case wrongToken = 5
}
