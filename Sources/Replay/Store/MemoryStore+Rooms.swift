import Wire

/// What a substitute is asked when the store is back.
extension MemoryStore {
    func hasConnection(_ membership: Membership, generation: UInt64) -> Bool {
        guard let room = room(named: membership.room.bytes.span.bytes),
            let member = member(named: membership.user.bytes.span.bytes, in: room)
        else { return false }
        return members[member.slot].generation == generation
    }

    /// Ends the room and names its connections.
    func removeRoom(_ name: RoomName) -> [(Membership, UInt64)] {
        guard let slot = roomSlot(name.bytes.span.bytes), let room = rooms[slot] else { return [] }
        return end(room, name)
    }

    func removeAllRooms() -> [(Membership, UInt64)] {
        var connections: [(Membership, UInt64)] = []
        for room in rooms {
            guard let room, let name = try? RoomName(room.name) else { continue }
            connections += end(room, name)
        }
        return connections
    }

    private func end(_ room: Room, _ name: RoomName) -> [(Membership, UInt64)] {
        var connections: [(Membership, UInt64)] = []
        var slot = room.firstMember
        while slot != Room.none {
            let member = members[Int(slot)]
            if member.isConnected, let user = try? UserName(member.name) {
                connections.append((Membership(room: name, user: user), member.generation))
            }
            slot = member.nextInRoom
        }
        removeRoom(room)
        return connections
    }
}
