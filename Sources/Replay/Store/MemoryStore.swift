import Wire

/// Rooms in this process's memory. Used from one thread.
///
/// Everything is found by an index or a keyed hash, nothing by a search through rooms or users. Names are looked up
/// once: ``RoomID`` and ``MemberID`` name the same thing for less, and a stale one is refused.
public final class MemoryStore: ReplayStore {
    public let configuration: Configuration
    private(set) var random: any RandomNumberGenerator
    private let hash: SipHash
    let classifier: QualityClassifier
    var admission: Admission
    var nextGeneration: UInt64
    /// Never goes back, whatever the caller's clock does.
    private(set) var time = Int64.min

    var arena: Arena
    /// What a replay is about to read: kept, so that it is allocated once.
    var chains: ContiguousArray<Arena.Chain> = []
    /// Memory of all messages (``Arena/cost(_:)``).
    var cost = 0
    var rooms: ContiguousArray<Room?> = []
    private var roomIncarnations: [UInt32] = []
    private var freeRooms: [Int] = []
    private var roomIndex = NameIndex()
    var members: ContiguousArray<Member> = []
    private var memberIncarnations: [UInt32] = []
    private var freeMembers: [Int] = []
    private var memberIndex = NameIndex()

    /// Rooms with messages, the least recently used first.
    var oldestRoom = Room.none
    var newestRoom = Room.none
    /// Users who dropped out, the first first.
    var firstDropped = Room.none
    var lastDropped = Room.none

    public internal(set) var statistics = Statistics()
    var live: LiveFeed
    var lastSweep = Int64.min

    /// `random` must be unpredictable: epochs and tokens come from it.
    public init(configuration: Configuration = Configuration(), random: some RandomNumberGenerator) {
        let configuration = configuration.bounded
        var random = random
        self.configuration = configuration
        hash = SipHash(using: &random)
        classifier = QualityClassifier(configuration.quality)
        admission = Admission(
            perSecond: configuration.recoveriesPerSecond, burst: configuration.recoveryBurst, seed: random.next())
        // Not from one: a connection of an earlier store must not be taken for one of this.
        nextGeneration = random.next() >> 1
        arena = Arena(maximumBytes: configuration.maximumBytes)
        live = LiveFeed(configuration)
        self.random = random
    }

    public var roomCount: Int { roomIndex.count }
    public var memberCount: Int { memberIndex.count }
    /// Memory of all messages, overhead included: what ``Configuration/maximumBytes`` bounds.
    public var bytesHeld: Int { cost }
    /// Memory got from the system for messages.
    public var bytesReserved: Int { arena.reserved }

    // MARK: Looking up

    /// nil if there is no such room.
    public func room(named name: RawSpan) -> RoomID? { roomSlot(name).flatMap { rooms[$0]?.id } }

    /// nil if the user is not a member.
    public func member(named name: RawSpan, in room: RoomID) -> MemberID? {
        guard let room = self.room(room) else { return nil }
        return memberSlot(name, in: room).map { members[$0].id }
    }

    @inline(__always)
    func room(_ id: RoomID) -> Room? {
        guard id.slot < rooms.count, let room = rooms[id.slot], room.id == id else { return nil }
        return room
    }

    @inline(__always)
    func slot(_ id: MemberID) -> Int? {
        guard id.raw != 0, id.slot < members.count, members[id.slot].id == id else { return nil }
        return id.slot
    }

    func roomSlot(_ name: RawSpan) -> Int? {
        roomIndex.find(hash.hash(name, after: 0)) { slot in
            guard let room = rooms[slot] else { return false }
            let known = room.name
            return name.elementsEqual(known.span.bytes)
        }
    }

    func memberSlot(_ name: RawSpan, in room: Room) -> Int? {
        memberIndex.find(hash.hash(name, after: room.id.raw | 1 << 63)) { slot in
            guard members[slot].room == room.id.slot else { return false }
            let known = members[slot].name
            return name.elementsEqual(known.span.bytes)
        }
    }

    // MARK: Making and removing

    /// Moves time on, never back, and answers it.
    @inline(__always)
    func advance(_ now: Instant) -> Int64 {
        if now.nanoseconds > time { time = now.nanoseconds }
        return time
    }

    /// A moment after `time`; nothing is ever due at the end of time.
    @inline(__always)
    func later(_ time: Int64, by duration: Duration) -> Int64 {
        let (sum, overflow) = time.addingReportingOverflow(duration.nanoseconds)
        return overflow ? Int64.max : sum
    }

    func newEpoch() -> UInt64 {
        let word = random.next()
        return configuration.isDegraded ? word | Position.degradedBit : word & ~Position.degradedBit
    }

    func newToken() -> ResumeToken { ResumeToken(high: random.next(), low: random.next()) }

    func newGeneration() -> UInt64 {
        nextGeneration &+= 1
        return nextGeneration
    }

    func makeRoom(_ name: RawSpan) -> Room? {
        if roomIndex.count >= configuration.maximumRooms { forgetDropped() }
        guard roomIndex.count < configuration.maximumRooms else { return nil }
        let slot: Int
        if let reused = freeRooms.popLast() {
            slot = reused
        } else {
            slot = rooms.count
            rooms.append(nil)
            roomIncarnations.append(0)
        }
        roomIncarnations[slot] &+= 1
        // The highest bit of the incarnation stays clear: it keeps members' hashes apart from rooms'.
        if roomIncarnations[slot] >= 1 << 31 { roomIncarnations[slot] = 1 }
        let nameHash = hash.hash(name, after: 0)
        let room = Room(
            id: RoomID(slot: slot, incarnation: roomIncarnations[slot]), name: name.copied(), nameHash: nameHash,
            epoch: newEpoch(), window: configuration.window)
        room.isLive = live.hasSubscriptions && live.isSubscribed(RoomName(checked: room.name))
        rooms[slot] = room
        roomIndex.insert(nameHash, slot: slot)
        return room
    }

    /// Room for one more: those who dropped out longest ago are forgotten, a few at a time.
    private func forgetDropped() {
        for _ in 0..<16 {
            guard firstDropped != Room.none else { return }
            removeMember(Int(firstDropped))
            if roomIndex.count < configuration.maximumRooms { return }
        }
    }

    func removeRoom(_ room: Room) {
        removeHistory(room)
        while room.firstMember != Room.none { unlinkMember(Int(room.firstMember), from: room) }
        roomIndex.remove(room.nameHash, slot: room.id.slot)
        rooms[room.id.slot] = nil
        freeRooms.append(room.id.slot)
    }

    func makeMember(_ name: RawSpan, in room: Room, time: Int64) -> Int? {
        if memberIndex.count >= configuration.maximumMembers, firstDropped != Room.none,
            members[Int(firstDropped)].room != room.id.slot
        {
            removeMember(Int(firstDropped))
        }
        guard memberIndex.count < configuration.maximumMembers, room.memberCount < configuration.maximumMembersPerRoom,
            room.nextSerial != UInt32.max
        else { return nil }
        let slot: Int
        if let reused = freeMembers.popLast() {
            slot = reused
        } else {
            slot = members.count
            members.append(.vacant)
            memberIncarnations.append(0)
        }
        let nameHash = hash.hash(name, after: room.id.raw | 1 << 63)
        var member = Member(
            id: newMemberID(slot), room: room.id.slot, name: name.copied(), nameHash: nameHash, serial: room.nextSerial,
            token: newToken(), generation: newGeneration(), lastSeen: time, lastSequence: room.standing.top)
        room.nextSerial &+= 1
        member.nextInRoom = room.firstMember
        if room.firstMember != Room.none {
            members[Int(room.firstMember)].previousInRoom = Int32(truncatingIfNeeded: slot)
        }
        room.firstMember = Int32(truncatingIfNeeded: slot)
        room.memberCount &+= 1
        members[slot] = member
        memberIndex.insert(nameHash, slot: slot)
        return slot
    }

    func newMemberID(_ slot: Int) -> MemberID {
        memberIncarnations[slot] &+= 1
        if memberIncarnations[slot] == 0 { memberIncarnations[slot] = 1 }
        return MemberID(slot: slot, incarnation: memberIncarnations[slot])
    }

    /// The last one takes the room along.
    func removeMember(_ slot: Int) {
        guard members[slot].id.raw != 0, let room = rooms[members[slot].room] else { return }
        unlinkMember(slot, from: room)
        if room.memberCount == 0 { removeRoom(room) }
    }

    private func unlinkMember(_ slot: Int, from room: Room) {
        unlistDropped(slot)
        let member = members[slot]
        if member.previousInRoom != Room.none {
            members[Int(member.previousInRoom)].nextInRoom = member.nextInRoom
        } else {
            room.firstMember = member.nextInRoom
        }
        if member.nextInRoom != Room.none {
            members[Int(member.nextInRoom)].previousInRoom = member.previousInRoom
        }
        room.memberCount &-= 1
        memberIndex.remove(member.nameHash, slot: slot)
        members[slot] = .vacant
        freeMembers.append(slot)
    }

    /// A sign of life. Those who dropped out are listed by the time when they did, which stays.
    @inline(__always)
    func touch(_ slot: Int, at time: Int64) {
        if members[slot].isConnected { members[slot].lastSeen = time }
    }

    // MARK: Lists

    func listDropped(_ slot: Int) {
        unlistDropped(slot)
        members[slot].isDropped = true
        members[slot].olderDropped = lastDropped
        let link = Int32(truncatingIfNeeded: slot)
        if lastDropped != Room.none { members[Int(lastDropped)].newerDropped = link } else { firstDropped = link }
        lastDropped = link
    }

    func unlistDropped(_ slot: Int) {
        guard members[slot].isDropped else { return }
        let member = members[slot]
        if member.olderDropped != Room.none {
            members[Int(member.olderDropped)].newerDropped = member.newerDropped
        } else {
            firstDropped = member.newerDropped
        }
        if member.newerDropped != Room.none {
            members[Int(member.newerDropped)].olderDropped = member.olderDropped
        } else {
            lastDropped = member.olderDropped
        }
        members[slot].isDropped = false
        members[slot].olderDropped = Room.none
        members[slot].newerDropped = Room.none
    }

    /// Makes `room` the most recently used one.
    @inline(__always)
    func use(_ room: Room, at time: Int64) {
        room.lastUse = time
        let link = Int32(truncatingIfNeeded: room.id.slot)
        if newestRoom == link { return }
        unlist(room)
        room.isListed = true
        room.olderRoom = newestRoom
        if newestRoom != Room.none { rooms[Int(newestRoom)]?.newerRoom = link } else { oldestRoom = link }
        newestRoom = link
    }

    func unlist(_ room: Room) {
        guard room.isListed else { return }
        if room.olderRoom != Room.none {
            rooms[Int(room.olderRoom)]?.newerRoom = room.newerRoom
        } else {
            oldestRoom = room.newerRoom
        }
        if room.newerRoom != Room.none {
            rooms[Int(room.newerRoom)]?.olderRoom = room.olderRoom
        } else {
            newestRoom = room.olderRoom
        }
        room.isListed = false
        room.olderRoom = Room.none
        room.newerRoom = Room.none
    }
}
