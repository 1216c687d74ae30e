public import Wire

extension MemoryStore {
    public func subscribe(_ room: RoomName, now: Instant) {
        live.subscribe(room)
        let known = roomSlot(room.bytes.span.bytes).flatMap { rooms[$0] }
        known?.isLive = true
        live.announce(room, at: known?.standing.position)
    }

    public func unsubscribe(_ room: RoomName) {
        live.unsubscribe(room)
        roomSlot(room.bytes.span.bytes).flatMap { rooms[$0] }?.isLive = false
    }

    public func pollLive() -> LiveEvent? { live.pop() }

    public var liveCounters: LiveCounters { live.counters }

    /// Both are members of the room, if given.
    func tell(
        _ room: Room, _ from: MemberID?, _ to: MemberID?, _ properties: MessageProperties, _ payload: RawSpan
    ) {
        live.receive(
            LiveMessage(
                room: RoomName(checked: room.name), position: room.standing.position,
                from: from.flatMap { slot($0) }.map { UserName(checked: members[$0].name) },
                to: to.flatMap { slot($0) }.map { UserName(checked: members[$0].name) }, properties,
                payload: payload.copied()))
    }
}
