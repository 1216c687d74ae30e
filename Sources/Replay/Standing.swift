/// What decides about a position, whatever store the room is in: a store reads these few numbers, and the verdict is the
/// same everywhere.
public struct Standing: Hashable, Sendable {
    public var epoch: UInt64
    /// The last number given out.
    public var top: UInt64
    /// The highest number of a message that was dropped although somebody may have needed it. Whoever is at this
    /// number or after it has missed nothing that is not here. Replaced messages do not count, since what replaced them
    /// came later and is here, or has itself moved the floor; neither do messages that outlived the time their sender
    /// gave them.
    public var floor: UInt64
    public var floorReason: LossReason
    /// The epoch before this one in which something was said, and why it ended.
    public var endedEpoch: UInt64?
    public var endReason: LossReason

    public init(
        epoch: UInt64, top: UInt64 = 0, floor: UInt64 = 0, floorReason: LossReason = .trimmed,
        endedEpoch: UInt64? = nil, endReason: LossReason = .epoch
    ) {
        self.epoch = epoch
        self.top = top
        self.floor = floor
        self.floorReason = floorReason
        self.endedEpoch = endedEpoch
        self.endReason = endReason
    }

    public var position: Position { Position(epoch: epoch, sequence: top) }

    public enum Judgement: Hashable, Sendable {
        /// Everything after this number is here: replay it.
        case since(UInt64)
        case lost(LossReason, ResumeProblem?)
        /// Nothing was presented.
        case fresh
    }

    /// `acknowledged` is where a client is that brings no position; `isDegraded` says which kind of epochs the asking
    /// store gives out (``Position/isDegraded``).
    public func judge(_ presented: Presented, acknowledged: UInt64?, isDegraded: Bool = false) -> Judgement {
        switch presented {
        case .nothing:
            guard let acknowledged else { return .fresh }
            return reach(acknowledged)
        case .unreadable(let error):
            return .lost(.epoch, error == .forged ? .forgedPosition : .malformedPosition)
        case .position(let position) where position.epoch != epoch:
            return .lost(reason(of: position, isDegraded: isDegraded), .foreignPosition)
        case .position(let position) where position.sequence > top:
            return .lost(.epoch, .futurePosition)
        case .position(let position):
            return reach(position.sequence)
        }
    }

    /// For a client that cannot show that it was here: it gets nothing, only the reason.
    public func judgeUnproven(_ presented: Presented, isDegraded: Bool = false) -> Judgement {
        switch presented {
        case .unreadable: judge(presented, acknowledged: nil, isDegraded: isDegraded)
        case .position(let position) where position.epoch != epoch:
            .lost(reason(of: position, isDegraded: isDegraded), .foreignPosition)
        case .position, .nothing: .lost(.epoch, .wrongToken)
        }
    }

    private func reach(_ sequence: UInt64) -> Judgement {
        sequence >= floor ? .since(sequence) : .lost(floorReason, nil)
    }

    private func reason(of position: Position, isDegraded: Bool) -> LossReason {
        if position.isDegraded != isDegraded { return .degraded }
        return position.epoch == endedEpoch ? endReason : .epoch
    }

    /// A message was dropped that somebody may have needed.
    public mutating func raiseFloor(_ sequence: UInt64, _ reason: LossReason) {
        guard sequence > floor else { return }
        floor = sequence
        floorReason = reason
    }

    /// All numbers up to the last one are gone.
    public mutating func begin(_ epoch: UInt64, because reason: LossReason) {
        // An epoch in which nothing was said is not worth remembering in place of one in which something was: a store
        // may be told again because it could not say that it had done it.
        if top > 0 || endedEpoch == nil { endedEpoch = self.epoch }
        endReason = reason
        self.epoch = epoch
        top = 0
        floor = 0
    }
}
