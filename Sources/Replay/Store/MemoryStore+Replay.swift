public import Wire

extension MemoryStore {
    /// Puts what `member` missed after `presented` into `batch`, which is emptied first.
    ///
    /// Refuses: unknownUser, stale, throttled.
    public func recover(
        _ member: MemberID, generation: UInt64, _ presented: Presented, into batch: inout Batch, now: Instant
    ) throws(Refusal) -> Recovery {
        let time = advance(now)
        batch.removeAll()
        let slot = try checked(member, generation)
        guard let room = rooms[members[slot].room] else { throw .unknownRoom }
        try admitRecovery()
        touch(slot, at: time)
        return replay(slot, in: room, presented, into: &batch, at: time)
    }

    func admitRecovery() throws(Refusal) {
        guard let wait = admission.admit(now: Instant(nanoseconds: time)) else { return }
        statistics.throttled &+= 1
        throw .throttled(retryAfter: wait)
    }

    /// The member that `generation` still speaks for.
    @inline(__always)
    func checked(_ id: MemberID, _ generation: UInt64) throws(Refusal) -> Int {
        guard let slot = slot(id) else { throw .unknownUser }
        guard members[slot].generation == generation else {
            statistics.fenced &+= 1
            throw .stale
        }
        return slot
    }

    func replay(_ slot: Int, in room: Room, _ presented: Presented, into batch: inout Batch, at time: Int64) -> Recovery
    {
        expire(room, at: time)
        var recovery = Recovery(verdict: .fresh, position: room.standing.position)
        let acknowledged = members[slot].acknowledged
        if configuration.maximumWindow > configuration.window { adapt(room, presented, acknowledged) }
        switch room.standing.judge(presented, acknowledged: acknowledged, isDegraded: configuration.isDegraded) {
        case .fresh:
            break
        case .since(let sequence):
            collect(slot, in: room, since: sequence, into: &batch, at: time, &recovery)
        case .lost(let reason, let problem):
            recovery.verdict = .lost(reason)
            recovery.problem = problem
            if problem == nil { collectKept(slot, in: room, presented, acknowledged, into: &batch, at: time) }
        }
        members[slot].lastSequence = room.standing.top
        statistics.count(recovery.verdict)
        statistics.replayed &+= batch.count
        return recovery
    }

    /// All that came after `since` and is for this member.
    private func collect(
        _ slot: Int, in room: Room, since: UInt64, into batch: inout Batch, at time: Int64, _ recovery: inout Recovery
    ) {
        let serial = members[slot].serial
        if !room.isEmpty { use(room, at: time) }
        var skipped = 0
        guard take(serial, in: room, since: since, into: &batch, at: time, skipped: &skipped, where: { _ in true })
        else {
            batch.removeAll()
            recovery.verdict = .lost(.limit)
            collectKept(slot, in: room, since: since, into: &batch, at: time)
            return
        }
        recovery.skipped = skipped
        recovery.verdict = batch.isEmpty ? .recoveredEmpty : .recovered
    }

    private func collectKept(
        _ slot: Int, in room: Room, _ presented: Presented, _ acknowledged: UInt64?, into batch: inout Batch,
        at time: Int64
    ) {
        if case .position(let position) = presented {
            collectKept(slot, in: room, since: position.sequence, into: &batch, at: time)
        } else if let acknowledged {
            collectKept(slot, in: room, since: acknowledged, into: &batch, at: time)
        }
    }

    /// Not a proof of anything: what a client that lost its place still can use.
    private func collectKept(_ slot: Int, in room: Room, since: UInt64, into batch: inout Batch, at time: Int64) {
        guard configuration.replaysKeptOnLoss else { return }
        let serial = members[slot].serial
        var skipped = 0
        if !take(serial, in: room, since: since, into: &batch, at: time, skipped: &skipped, where: { $0.isKept }) {
            batch.removeAll()
        }
    }

    /// False if it is more than one batch may carry.
    @inline(__always)
    private func take(
        _ serial: UInt32, in room: Room, since: UInt64, into batch: inout Batch, at time: Int64, skipped: inout Int,
        where isWanted: (Entry) -> Bool
    ) -> Bool {
        chains.removeAll(keepingCapacity: true)
        var total = 0
        @inline(__always)
        func add(_ entry: Entry, _ sequence: UInt64) -> Bool {
            guard entry.isFor(serial) else { return true }
            if entry.isSuperseded || entry.isExpired(at: time) {
                skipped &+= 1
                return true
            }
            guard isWanted(entry) else { return true }
            let count = Int(entry.length)
            guard batch.count < configuration.maximumBatch, total &+ count <= configuration.maximumBatchBytes else {
                return false
            }
            batch.append(
                Batch.Record(
                    sequence: sequence, offset: total, count: count, kind: entry.kind, isText: entry.isText,
                    isCompressed: entry.isCompressed, negotiation: entry.negotiation))
            chains.append(Arena.Chain(first: entry.block, count: count))
            total &+= count
            return true
        }
        for kept in room.kept where kept.sequence > since {
            guard add(kept.entry, kept.sequence) else { return false }
        }
        let first = room.ring.first
        let start = since >= first ? Int(clamping: since &- first &+ 1) : 0
        if start < room.ring.count {
            for index in start..<room.ring.count {
                guard add(room.ring[index], first &+ UInt64(truncatingIfNeeded: index)) else { return false }
            }
        }
        batch.fill { arena.read(chains, total: total, into: &$0) }
        return true
    }

    /// The window follows what clients miss: up at once, down slowly.
    private func adapt(_ room: Room, _ presented: Presented, _ acknowledged: UInt64?) {
        let since: UInt64
        switch presented {
        case .position(let position) where position.epoch == room.standing.epoch: since = position.sequence
        case .nothing: since = acknowledged ?? room.standing.top
        default: return
        }
        guard since <= room.standing.top else { return }
        room.gap = max(room.standing.top &- since, room.gap &- (room.gap &+ 15) / 16)
        let wanted = Int(clamping: room.gap)
        let target = wanted > configuration.maximumWindow ? wanted : wanted &+ wanted / 4
        room.window = min(max(target, configuration.window), configuration.maximumWindow)
    }
}
