public import Wire

extension MemoryStore {
    /// Numbers a message and keeps it. `from` nil: the server; `to` nil: everybody.
    ///
    /// Refuses: unknownRoom, unknownUser, unknownRecipient, messageTooLarge.
    public func publish(
        room id: RoomID, from: MemberID?, to: MemberID?, _ properties: MessageProperties, payload: RawSpan, now: Instant
    ) throws(Refusal) -> Published {
        let time = advance(now)
        guard let room = room(id) else { throw .unknownRoom }
        guard payload.byteCount <= configuration.maximumMessageSize else { throw .messageTooLarge }
        var sender: UInt32 = 0
        var senderName: UInt64 = 0
        if let from {
            guard let slot = slot(from), members[slot].room == room.id.slot else { throw .unknownUser }
            sender = members[slot].serial
            senderName = members[slot].nameHash
            touch(slot, at: time)
        }
        var recipient: UInt32 = 0
        if let to {
            guard let slot = slot(to), members[slot].room == room.id.slot else { throw .unknownRecipient }
            recipient = members[slot].serial
        }
        if let key = properties.key, let sequence = remembered(key, by: senderName, in: room, at: time) {
            statistics.duplicates &+= 1
            return Published(position: Position(epoch: room.standing.epoch, sequence: sequence), isDuplicate: true)
        }
        if room.standing.top == UInt64.max { reset(room, because: .epoch) }
        expire(room, at: time)
        makeSpace(Arena.cost(payload.byteCount), for: room, at: time)
        supersede(properties, from: sender, to: recipient, in: room)

        room.standing.top &+= 1
        let entry = Entry(
            published: time, expires: later(time, by: max(properties.lifetime, .zero)),
            negotiation: properties.negotiation, from: sender, to: recipient, block: arena.store(payload) ?? Arena.none,
            length: UInt32(truncatingIfNeeded: payload.byteCount), kind: properties.kind,
            flags: properties.flags)
        room.ring.append(entry, sequence: room.standing.top)
        account(room, entry, sign: 1)
        room.live &+= 1
        if properties.kind != .other { room.liveNegotiation &+= 1 }
        use(room, at: time)
        trim(room, at: time)
        if let key = properties.key { remember(key, by: senderName, in: room, at: time) }
        if room.isLive { tell(room, from, to, properties, payload) }
        statistics.published &+= 1
        return Published(position: room.standing.position, isDuplicate: false)
    }

    // MARK: What newer messages replace

    /// A newer offer replaces the older one and its candidates, a newer answer the older one: of the same negotiation,
    /// from the same sender to the same recipient. Their numbers stay.
    private func supersede(_ properties: MessageProperties, from: UInt32, to: UInt32, in room: Room) {
        guard properties.kind == .offer || properties.kind == .answer, room.liveNegotiation > 0 || !room.kept.isEmpty
        else { return }
        func isReplaced(_ entry: Entry) -> Bool {
            guard !entry.isSuperseded, entry.from == from, entry.to == to, entry.negotiation == properties.negotiation
            else { return false }
            return entry.kind == properties.kind || entry.kind == .candidate && properties.kind == .offer
        }
        if !room.kept.isEmpty {
            room.kept.removeAll { kept in
                guard isReplaced(kept.entry) else { return false }
                statistics.superseded &+= 1
                room.keptBytes &-= Int(kept.entry.length)
                release(room, kept.entry)
                return true
            }
        }
        guard room.liveNegotiation > 0 else { return }
        for index in 0..<room.ring.count where isReplaced(room.ring[index]) {
            statistics.superseded &+= 1
            release(room, room.ring[index])
            room.ring[index].block = Arena.none
            room.ring[index].flags |= Entry.superseded
            room.live &-= 1
            room.liveNegotiation &-= 1
        }
    }

    // MARK: Same message again

    private func remembered(_ key: IdempotencyKey, by sender: UInt64, in room: Room, at time: Int64) -> UInt64? {
        for known in room.keys where known.key == key && known.sender == sender && known.expires > time {
            return known.sequence
        }
        return nil
    }

    /// The oldest of ``Configuration/maximumKeys`` is forgotten.
    private func remember(_ key: IdempotencyKey, by sender: UInt64, in room: Room, at time: Int64) {
        guard configuration.maximumKeys > 0 else { return }
        let known = RememberedKey(
            sender: sender, key: key, sequence: room.standing.top, expires: later(time, by: configuration.keyLifetime))
        if room.keys.count < configuration.maximumKeys {
            room.keys.append(known)
        } else {
            room.keys[room.oldestKey] = known
            room.oldestKey = (room.oldestKey &+ 1) % room.keys.count
        }
    }

    // MARK: Limits

    @inline(__always)
    private func account(_ room: Room, _ entry: Entry, sign: Int) {
        let size = Arena.cost(Int(entry.length)) &* sign
        room.bytes &+= Int(entry.length) &* sign
        room.cost &+= size
        cost &+= size
    }

    /// Gives the memory of a message back.
    private func release(_ room: Room, _ entry: Entry) {
        account(room, entry, sign: -1)
        arena.release(entry.block)
    }

    /// Holds a room to its window, its bytes, and its span of numbers. The newest message always stays.
    private func trim(_ room: Room, at time: Int64) {
        let span = Configuration.span(window: room.window)
        while room.live > room.window || room.bytes > configuration.maximumRoomBytes || room.ring.count > span {
            if room.ring.count > 1 {
                dropFirst(room, at: time, because: .trimmed, keeps: true)
            } else if !room.kept.isEmpty {
                dropKept(room, at: time, because: .trimmed)
            } else {
                break
            }
        }
        while room.ring.count > 0, room.ring[0].isSuperseded { _ = room.ring.popFirst() }
    }

    /// Drops what is too old.
    func expire(_ room: Room, at time: Int64) {
        let lifetime = configuration.messageLifetime
        while let first = room.kept.first, later(first.entry.published, by: lifetime) <= time {
            dropKept(room, at: time, because: .expired)
        }
        while room.ring.count > 0, room.ring[0].isSuperseded || later(room.ring[0].published, by: lifetime) <= time {
            dropFirst(room, at: time, because: .expired, keeps: false)
        }
    }

    /// Drops the first number of the ring. `keeps`: offers, answers and priority messages are put aside instead.
    private func dropFirst(_ room: Room, at time: Int64, because reason: LossReason, keeps: Bool) {
        let sequence = room.ring.first
        guard let entry = room.ring.popFirst(), !entry.isSuperseded else { return }
        room.live &-= 1
        if entry.kind != .other { room.liveNegotiation &-= 1 }
        if keeps, entry.isKept, configuration.maximumKept > 0, !entry.isExpired(at: time) {
            room.kept.append((sequence, entry))
            room.keptBytes &+= Int(entry.length)
            while room.kept.count > configuration.maximumKept || room.keptBytes > configuration.maximumRoomBytes / 4 {
                dropKept(room, at: time, because: reason)
            }
            return
        }
        forget(room, entry, sequence, at: time, because: reason)
    }

    private func dropKept(_ room: Room, at time: Int64, because reason: LossReason) {
        guard !room.kept.isEmpty else { return }
        let (sequence, entry) = room.kept.removeFirst()
        room.keptBytes &-= Int(entry.length)
        forget(room, entry, sequence, at: time, because: reason)
    }

    /// Nobody misses a message that its sender gave a shorter life; any other moves the floor.
    private func forget(_ room: Room, _ entry: Entry, _ sequence: UInt64, at time: Int64, because reason: LossReason) {
        release(room, entry)
        if reason == .expired { statistics.expired &+= 1 } else { statistics.trimmed &+= 1 }
        if !entry.isExpired(at: time) { room.standing.raiseFloor(sequence, reason) }
    }

    /// Room for `needed` bytes more: the rooms that were not used for longest go first, whole; then the oldest messages
    /// of this one.
    private func makeSpace(_ needed: Int, for room: Room, at time: Int64) {
        guard cost &+ needed > configuration.maximumBytes else { return }
        use(room, at: time)
        while cost &+ needed > configuration.maximumBytes {
            if oldestRoom != Room.none, Int(oldestRoom) != room.id.slot, let oldest = rooms[Int(oldestRoom)] {
                evict(oldest, at: time)
            } else if !room.kept.isEmpty {
                statistics.evicted &+= 1
                dropKept(room, at: time, because: .trimmed)
            } else if room.ring.count > 0 {
                statistics.evicted &+= room.ring[0].isSuperseded ? 0 : 1
                dropFirst(room, at: time, because: .trimmed, keeps: false)
            } else {
                break
            }
        }
    }

    private func evict(_ room: Room, at time: Int64) {
        statistics.evicted &+= room.live &+ room.kept.count
        while !room.kept.isEmpty { dropKept(room, at: time, because: .trimmed) }
        while room.ring.count > 0 { dropFirst(room, at: time, because: .trimmed, keeps: false) }
        room.ring.removeAll()
        unlist(room)
    }

    /// Forgets all messages without a trace: the epoch or the room ends.
    func removeHistory(_ room: Room) {
        for kept in room.kept { release(room, kept.entry) }
        room.kept = []
        room.keptBytes = 0
        while let entry = room.ring.popFirst() {
            if !entry.isSuperseded { release(room, entry) }
        }
        room.ring.removeAll()
        room.live = 0
        room.liveNegotiation = 0
        unlist(room)
    }

    func reset(_ room: Room, because reason: LossReason) {
        removeHistory(room)
        room.begin(newEpoch(), because: reason)
        var slot = room.firstMember
        while slot != Room.none {
            members[Int(slot)].acknowledged = nil
            members[Int(slot)].lastSequence = 0
            slot = members[Int(slot)].nextInRoom
        }
        if room.isLive { live.announce(RoomName(checked: room.name), at: room.standing.position) }
    }
}
