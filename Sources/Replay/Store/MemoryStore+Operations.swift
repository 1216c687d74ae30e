public import Wire

extension MemoryStore {
    /// At once, always.
    public func submit(_ operation: Operation, id: OperationID, now: Instant) -> Outcome? {
        do { return try perform(operation, now: now) } catch { return .refused(error) }
    }

    public func pollOutcome() -> (OperationID, Outcome)? { nil }

    private func perform(_ operation: Operation, now: Instant) throws(Refusal) -> Outcome {
        var batch = Batch()
        switch operation {
        case .publish(let room, let from, let to, let properties, let payload):
            let room = try found(room)
            var sender: MemberID?
            var recipient: MemberID?
            if let from {
                guard let found = member(named: from.bytes.span.bytes, in: room) else { throw .unknownUser }
                sender = found
            }
            if let to {
                guard let found = member(named: to.bytes.span.bytes, in: room) else { throw .unknownRecipient }
                recipient = found
            }
            return .published(
                try publish(
                    room: room, from: sender, to: recipient, properties, payload: payload.span.bytes, now: now))
        case .join(let membership, let resume):
            let (_, joined) = try join(
                room: membership.room.bytes.span.bytes, user: membership.user.bytes.span.bytes, resume: resume,
                into: &batch, now: now)
            return .joined(joined, batch)
        case .recover(let membership, let generation, let presented):
            let recovery = try recover(
                found(membership), generation: generation, presented, into: &batch, now: now)
            return .recovered(recovery, batch)
        case .acknowledge(let membership, let generation, let presented):
            try acknowledge(found(membership), generation: generation, presented, now: now)
        case .drop(let membership, let generation):
            try drop(found(membership), generation: generation, now: now)
        case .leave(let membership, let generation):
            try leave(found(membership), generation: generation, now: now)
        case .state(let membership):
            guard let state = state(try found(membership), now: now) else { throw .unknownUser }
            return .state(state)
        case .quality(let membership, let metrics):
            return .quality(try quality(found(membership), metrics, now: now))
        case .reset(let name?, let reason):
            try reset(found(name), because: reason)
        case .reset(nil, let reason):
            for room in rooms { if let room { reset(room, because: reason) } }
        }
        return .done
    }

    private func found(_ name: RoomName) throws(Refusal) -> RoomID {
        guard let room = room(named: name.bytes.span.bytes) else { throw .unknownRoom }
        return room
    }

    private func found(_ membership: Membership) throws(Refusal) -> MemberID {
        let room = try found(membership.room)
        guard let member = member(named: membership.user.bytes.span.bytes, in: room) else { throw .unknownUser }
        return member
    }
}
