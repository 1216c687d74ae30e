extension Operation {
    /// The room it is about; nil: all.
    public var room: RoomName? {
        switch self {
        case .publish(let room, _, _, _, _): room
        case .reset(let room, _): room
        case .join(let membership, _), .recover(let membership, _, _), .acknowledge(let membership, _, _),
            .drop(let membership, _), .leave(let membership, _), .state(let membership), .quality(let membership, _):
            membership.room
        }
    }

    public var membership: Membership? {
        switch self {
        case .publish, .reset: nil
        case .join(let membership, _), .recover(let membership, _, _), .acknowledge(let membership, _, _),
            .drop(let membership, _), .leave(let membership, _), .state(let membership), .quality(let membership, _):
            membership
        }
    }

    /// The connection that asks.
    public var generation: UInt64? {
        switch self {
        case .recover(_, let generation, _), .acknowledge(_, let generation, _), .drop(_, let generation),
            .leave(_, let generation):
            generation
        case .publish, .join, .state, .quality, .reset: nil
        }
    }
}
