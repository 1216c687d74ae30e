import Replay
import Storage

/// Limits on all rooms together. Triggers keep the totals, so that nothing is ever counted by going through a table.
extension SQLiteRoom {
    static let totals = [
        """
        CREATE TABLE totals (
            id INTEGER PRIMARY KEY, rooms INTEGER NOT NULL, members INTEGER NOT NULL, cost INTEGER NOT NULL,
            uses INTEGER NOT NULL
        ) STRICT
        """,
        "INSERT INTO totals VALUES (1, 0, 0, 0, 0)",
        "CREATE INDEX rooms_by_use ON rooms (used) WHERE used > 0",
        "CREATE INDEX members_by_absence ON members (seen) WHERE connected = 0",
        "CREATE TRIGGER room_comes AFTER INSERT ON rooms BEGIN UPDATE totals SET rooms = rooms + 1; END",
        "CREATE TRIGGER room_goes AFTER DELETE ON rooms BEGIN UPDATE totals SET rooms = rooms - 1; END",
        "CREATE TRIGGER member_comes AFTER INSERT ON members BEGIN UPDATE totals SET members = members + 1; END",
        "CREATE TRIGGER member_goes AFTER DELETE ON members BEGIN UPDATE totals SET members = members - 1; END",
        """
        CREATE TRIGGER message_comes AFTER INSERT ON messages BEGIN
            UPDATE totals SET cost = cost + (length(new.payload) + \(block - 1)) / \(block) * \(block) + \(entry);
        END
        """,
        """
        CREATE TRIGGER message_goes AFTER DELETE ON messages BEGIN
            UPDATE totals SET cost = cost - (length(old.payload) + \(block - 1)) / \(block) * \(block) - \(entry);
        END
        """,
    ]

    /// A message costs what it costs in memory (``Configuration/cost(ofMessage:)``): the same limits mean the same.
    private static var block: Int { Configuration.cost(ofMessage: 1) - entry }
    private static var entry: Int { Configuration.cost(ofMessage: 0) }

    private static func total(_ column: String, _ connection: SQLiteConnection) throws(SQLiteFailure) -> Int64 {
        var total: Int64 = 0
        try connection.execute("SELECT \(column) FROM totals WHERE id = 1") { total = $0.integer(0) }
        return total
    }

    // MARK: Bytes

    /// Makes the room the most recently used one.
    mutating func use() throws(SQLiteFailure) {
        let uses = try Self.total("uses", connection)
        guard used == 0 || used != uses else { return }
        try connection.execute("UPDATE totals SET uses = uses + 1 WHERE id = 1")
        used = uses &+ 1
    }

    /// Room for a message of so many bytes more: the rooms that were not used for longest go first, whole; then the
    /// oldest messages of this one.
    mutating func makeSpace(_ count: Int) throws(SQLiteFailure) {
        let needed = Int64(Configuration.cost(ofMessage: count))
        let limit = Int64(limits.maximumBytes)
        guard try Self.total("cost", connection) + needed > limit else { return }
        try use()
        while try Self.total("cost", connection) + needed > limit {
            if var oldest = try leastUsed() {
                try oldest.evict()
            } else if kept > 0 {
                guard try dropKept() else { return }
            } else if live > 0 {
                guard try dropFirst() else { return }
            } else {
                return
            }
        }
    }

    private func leastUsed() throws(SQLiteFailure) -> SQLiteRoom? {
        var found: SQLiteRoom?
        try connection.execute(
            "SELECT \(Self.columns) FROM rooms WHERE used > 0 AND id <> ? ORDER BY used LIMIT 1", [.integer(id)]
        ) { found = SQLiteRoom(connection, limits, $0, time) }
        return found
    }

    private mutating func evict() throws(SQLiteFailure) {
        while kept > 0 { guard try dropKept() else { break } }
        while live > 0 { guard try dropFirst() else { break } }
        used = 0
        try save()
    }

    // MARK: Rooms and members

    /// False if there are too many rooms.
    static func hasPlace(
        _ connection: SQLiteConnection, _ limits: Replay.Configuration, wall: Int64
    ) throws(SQLiteFailure) -> Bool {
        // Those who dropped out longest ago are forgotten, a few at a time.
        for _ in 0..<16 {
            if try total("rooms", connection) < Int64(limits.maximumRooms) { return true }
            guard try forgetOldest(connection, limits, except: -1) else { return false }
        }
        return try total("rooms", connection) < Int64(limits.maximumRooms)
    }

    /// False if there are too many members in all rooms.
    func hasPlace() throws(SQLiteFailure) -> Bool {
        if try Self.total("members", connection) >= Int64(limits.maximumMembers) {
            _ = try Self.forgetOldest(connection, limits, except: id)
        }
        return try Self.total("members", connection) < Int64(limits.maximumMembers)
    }

    /// The last member takes the room along.
    private static func forgetOldest(
        _ connection: SQLiteConnection, _ limits: Replay.Configuration, except room: Int64
    ) throws(SQLiteFailure) -> Bool {
        var found: (room: Int64, name: [UInt8])?
        try connection.execute("SELECT room, name FROM members WHERE connected = 0 ORDER BY seen LIMIT 1") {
            found = ($0.integer(0), $0.bytes(1))
        }
        guard let found, found.room != room else { return false }
        try connection.execute(
            "DELETE FROM members WHERE room = ? AND name = ?", [.integer(found.room), .bytes(found.name)])
        var left: Int64 = 0
        try connection.execute("SELECT count(*) FROM members WHERE room = ?", [.integer(found.room)]) {
            left = $0.integer(0)
        }
        if left == 0 { try remove(found.room, connection) }
        return true
    }
}
