public import Wire

/// What ``MemoryStore/join(room:user:resume:into:now:)`` gives beside ``Joined``.
public struct Seat: Hashable, Sendable {
    public let room: RoomID
    public let member: MemberID
}

extension MemoryStore {
    /// A connection begins; the names must have been checked (``NameRules``). With `resume`, what was missed is put
    /// into `batch`, which is emptied first.
    ///
    /// Refuses: throttled (only with `resume`), tooManyRooms, tooManyMembers.
    public func join(
        room roomName: RawSpan, user userName: RawSpan, resume: Resume?, into batch: inout Batch, now: Instant
    ) throws(Refusal) -> (Seat, Joined) {
        let time = advance(now)
        batch.removeAll()
        if resume != nil { try admitRecovery() }
        let knownRoom = roomSlot(roomName).flatMap { rooms[$0] }
        guard let room = knownRoom ?? makeRoom(roomName) else { throw .tooManyRooms }
        statistics.joins &+= 1
        if let slot = memberSlot(userName, in: room) {
            let joined = rejoin(slot, in: room, resume: resume, into: &batch, at: time)
            return (Seat(room: room.id, member: members[slot].id), joined)
        }
        guard let slot = makeMember(userName, in: room, time: time) else {
            if room.memberCount == 0 { removeRoom(room) }
            throw .tooManyMembers
        }
        let member = members[slot]
        let recovery = unproven(resume, in: room)
        statistics.count(recovery.verdict)
        let joined = Joined(
            generation: member.generation, token: member.token, isReconnection: false, disconnectDuration: nil,
            replaced: nil, recovery: recovery)
        return (Seat(room: room.id, member: member.id), joined)
    }

    private func rejoin(_ slot: Int, in room: Room, resume: Resume?, into batch: inout Batch, at time: Int64) -> Joined
    {
        let before = members[slot]
        unlistDropped(slot)
        // The newest connection wins; what the old one still says changes nothing.
        members[slot].generation = newGeneration()
        members[slot].isConnected = true
        members[slot].connections &+= 1
        members[slot].lastSeen = time
        let recovery: Recovery
        if isProven(resume, before) {
            recovery = replay(slot, in: room, resume?.position ?? .nothing, into: &batch, at: time)
        } else {
            // The same name is not the same client: what was sent to the one before is not for this one.
            renew(slot, in: room)
            recovery = unproven(resume, in: room)
            statistics.count(recovery.verdict)
        }
        return Joined(
            generation: members[slot].generation, token: members[slot].token,
            isReconnection: true,
            disconnectDuration: before.isConnected ? .zero : Duration(nanoseconds: time &- before.lastSeen),
            replaced: before.isConnected ? before.generation : nil, recovery: recovery)
    }

    private func isProven(_ resume: Resume?, _ member: Member) -> Bool {
        guard let resume else { return false }
        guard let token = resume.token else { return !configuration.needsToken }
        return token == member.token
    }

    private func renew(_ slot: Int, in room: Room) {
        let id = newMemberID(slot)
        members[slot].id = id
        members[slot].token = newToken()
        members[slot].acknowledged = nil
        members[slot].lastSequence = room.standing.top
        guard room.nextSerial != UInt32.max else {
            // After four billion memberships the serials start again, and with them the room.
            reset(room, because: .epoch)
            room.nextSerial = 1
            var other = room.firstMember
            while other != Room.none {
                members[Int(other)].serial = room.nextSerial
                room.nextSerial &+= 1
                other = members[Int(other)].nextInRoom
            }
            return
        }
        members[slot].serial = room.nextSerial
        room.nextSerial &+= 1
    }

    /// The verdict for a client that cannot show that it was here.
    private func unproven(_ resume: Resume?, in room: Room) -> Recovery {
        var recovery = Recovery(verdict: .fresh, position: room.standing.position)
        guard let resume else { return recovery }
        guard
            case .lost(let reason, let problem) = room.standing.judgeUnproven(
                resume.position, isDegraded: configuration.isDegraded)
        else { return recovery }
        recovery.verdict = .lost(reason)
        recovery.problem = problem
        return recovery
    }

    /// The client has everything up to the position.
    ///
    /// Refuses: unknownUser, stale. A position that cannot be is ignored.
    public func acknowledge(_ member: MemberID, generation: UInt64, _ presented: Presented, now: Instant)
        throws(Refusal)
    {
        let time = advance(now)
        let slot = try checked(member, generation)
        guard let room = rooms[members[slot].room] else { throw .unknownRoom }
        touch(slot, at: time)
        guard case .position(let position) = presented, position.epoch == room.standing.epoch,
            position.sequence <= room.standing.top
        else { return }
        let acknowledged = max(members[slot].acknowledged ?? 0, position.sequence)
        let last = max(members[slot].lastSequence, position.sequence)
        members[slot].acknowledged = acknowledged
        members[slot].lastSequence = last
    }

    /// The connection ended. The user may come back, and the room stays for them.
    ///
    /// Refuses: unknownUser, stale.
    public func drop(_ member: MemberID, generation: UInt64, now: Instant) throws(Refusal) {
        let time = advance(now)
        let slot = try checked(member, generation)
        guard members[slot].isConnected else { return }
        members[slot].isConnected = false
        members[slot].lastSeen = time
        listDropped(slot)
    }

    /// The user does not come back. The last one to leave takes the room along.
    ///
    /// Refuses: unknownUser, stale.
    public func leave(_ member: MemberID, generation: UInt64, now: Instant) throws(Refusal) {
        _ = advance(now)
        removeMember(try checked(member, generation))
    }

    /// nil if there is no such member.
    public func state(_ member: MemberID, now: Instant) -> UserState? {
        let time = advance(now)
        guard let slot = slot(member) else { return nil }
        let member = members[slot]
        return UserState(
            isConnected: member.isConnected, lastSeen: Instant(nanoseconds: member.lastSeen),
            lastSequence: member.lastSequence, quality: member.quality,
            disconnectDuration: member.isConnected ? nil : Duration(nanoseconds: time &- member.lastSeen),
            connections: member.connections)
    }

    /// Refuses: unknownUser, invalidMetrics.
    public func quality(_ member: MemberID, _ metrics: QualityMetrics, now: Instant) throws(Refusal) -> QualityReport {
        _ = advance(now)
        guard let slot = slot(member) else { throw .unknownUser }
        guard let report = classifier.judge(metrics, previous: members[slot].quality) else { throw .invalidMetrics }
        members[slot].quality = report.quality
        return report
    }

    /// Where the room is.
    public func position(of room: RoomID) -> Position? { self.room(room)?.standing.position }

    /// Begins a new epoch.
    public func reset(_ id: RoomID, because reason: LossReason) throws(Refusal) {
        guard let room = room(id) else { throw .unknownRoom }
        reset(room, because: reason)
    }

    // MARK: Sweeping

    static let sweepBatch = 256
    static let sweepInterval: Int64 = 1_000_000_000

    /// Frees the memory of what is too old, and forgets who stayed away for too long; a bounded number at a time.
    /// Everything is checked when it is used, so sweeping need not be prompt.
    public func handleTimeout(now: Instant) {
        let time = advance(now)
        var work = Self.sweepBatch
        while work > 0, firstDropped != Room.none,
            later(members[Int(firstDropped)].lastSeen, by: configuration.stateLifetime) <= time
        {
            removeMember(Int(firstDropped))
            work &-= 1
        }
        while work > 0, oldestRoom != Room.none, let room = rooms[Int(oldestRoom)],
            later(room.lastUse, by: configuration.messageLifetime) <= time
        {
            expire(room, at: time)
            room.ring.removeAll()
            unlist(room)
            work &-= 1
        }
        // A full batch may have left some: go on at once.
        lastSweep = work == 0 ? Int64.min : time
    }

    public var nextTimeout: Instant? {
        var next = Int64.max
        if firstDropped != Room.none {
            next = later(members[Int(firstDropped)].lastSeen, by: configuration.stateLifetime)
        }
        if oldestRoom != Room.none, let room = rooms[Int(oldestRoom)] {
            next = min(next, later(room.lastUse, by: configuration.messageLifetime))
        }
        guard next != Int64.max else { return nil }
        let earliest =
            lastSweep == Int64.min ? lastSweep : later(lastSweep, by: Duration(nanoseconds: Self.sweepInterval))
        return Instant(nanoseconds: max(next, earliest))
    }
}
