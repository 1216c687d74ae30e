import Replay
import Storage
import Wire

/// One room in the file, while an operation works on it. Times are nanoseconds of the wall clock, which outlives the
/// process.
struct SQLiteRoom {
    /// Version 2: what is there of an earlier one goes.
    static let schema =
        ["rooms", "members", "messages", "keys", "totals"].map { "DROP TABLE IF EXISTS \($0)" } + tables + totals

    private static let tables = [
        """
        CREATE TABLE rooms (
            id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, epoch INTEGER NOT NULL, top INTEGER NOT NULL,
            floor INTEGER NOT NULL, floor_reason INTEGER NOT NULL, has_ended INTEGER NOT NULL, ended INTEGER NOT NULL,
            end_reason INTEGER NOT NULL, live INTEGER NOT NULL, negotiating INTEGER NOT NULL, bytes INTEGER NOT NULL,
            kept INTEGER NOT NULL, kept_bytes INTEGER NOT NULL, time INTEGER NOT NULL, sweep INTEGER NOT NULL,
            oldest INTEGER NOT NULL, serial INTEGER NOT NULL, window INTEGER NOT NULL, gap INTEGER NOT NULL,
            slot INTEGER NOT NULL, used INTEGER NOT NULL DEFAULT 0
        ) STRICT
        """,
        "CREATE INDEX rooms_by_sweep ON rooms (sweep)",
        "CREATE INDEX rooms_by_oldest ON rooms (oldest)",
        """
        CREATE TABLE members (
            room INTEGER NOT NULL, name BLOB NOT NULL, serial INTEGER NOT NULL, high INTEGER NOT NULL,
            low INTEGER NOT NULL, generation INTEGER NOT NULL, connected INTEGER NOT NULL, seen INTEGER NOT NULL,
            acknowledged INTEGER NOT NULL, last INTEGER NOT NULL, quality INTEGER NOT NULL,
            connections INTEGER NOT NULL, PRIMARY KEY (room, name)
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE messages (
            room INTEGER NOT NULL, sequence INTEGER NOT NULL, kept INTEGER NOT NULL, published INTEGER NOT NULL,
            expires INTEGER NOT NULL, sender INTEGER NOT NULL, recipient INTEGER NOT NULL, kind INTEGER NOT NULL,
            flags INTEGER NOT NULL, negotiation INTEGER NOT NULL, payload BLOB NOT NULL, PRIMARY KEY (room, sequence)
        ) STRICT
        """,
        """
        CREATE TABLE keys (
            room INTEGER NOT NULL, slot INTEGER NOT NULL, sender BLOB NOT NULL, high INTEGER NOT NULL,
            low INTEGER NOT NULL, sequence INTEGER NOT NULL, expires INTEGER NOT NULL, PRIMARY KEY (room, slot)
        ) STRICT, WITHOUT ROWID
        """,
    ]

    let connection: SQLiteConnection
    let limits: Replay.Configuration
    let id: Int64
    var standing: Standing
    var live: Int64 = 0
    var negotiating: Int64 = 0
    var bytes: Int64 = 0
    var kept: Int64 = 0
    var keptBytes: Int64 = 0
    /// Never goes back, whatever the clock does.
    var time: Int64
    /// When the first member may have stayed away for too long, and when the oldest message was published.
    var sweep = Int64.max
    var oldest = Int64.max
    var serial: Int64 = 1
    var window: Int64
    var gap: Int64 = 0
    var slot: Int64 = 0
    /// When it was used last, counted in uses of all rooms; 0: nothing to evict.
    var used: Int64 = 0

    static func later(_ time: Int64, by duration: Duration) -> Int64 {
        let (sum, overflow) = time.addingReportingOverflow(duration.nanoseconds)
        return overflow ? .max : sum
    }

    // MARK: Finding and keeping

    static let columns = """
        id, epoch, top, floor, floor_reason, has_ended, ended, end_reason, live, negotiating, bytes, kept, kept_bytes,
        time, sweep, oldest, serial, window, gap, slot, used
        """

    init(_ connection: SQLiteConnection, _ limits: Replay.Configuration, _ row: SQLiteRow, _ wall: Int64) {
        self.connection = connection
        self.limits = limits
        id = row.integer(0)
        standing = Standing(
            epoch: UInt64(bitPattern: row.integer(1)), top: UInt64(bitPattern: row.integer(2)),
            floor: UInt64(bitPattern: row.integer(3)), floorReason: Self.reason(row.integer(4)),
            endedEpoch: row.integer(5) == 0 ? nil : UInt64(bitPattern: row.integer(6)),
            endReason: Self.reason(row.integer(7)))
        live = row.integer(8)
        negotiating = row.integer(9)
        bytes = row.integer(10)
        kept = row.integer(11)
        keptBytes = row.integer(12)
        time = max(wall, row.integer(13))
        sweep = row.integer(14)
        oldest = row.integer(15)
        serial = row.integer(16)
        window = row.integer(17)
        gap = row.integer(18)
        slot = row.integer(19)
        used = row.integer(20)
    }

    private static func reason(_ value: Int64) -> LossReason {
        UInt8(exactly: value).flatMap(LossReason.init(rawValue:)) ?? .epoch
    }

    /// nil if there is none, or none any more.
    static func load(
        _ name: RoomName, _ connection: SQLiteConnection, _ limits: Replay.Configuration, wall: Int64
    ) throws(SQLiteFailure) -> SQLiteRoom? {
        var found: SQLiteRoom?
        try connection.execute("SELECT \(columns) FROM rooms WHERE name = ?", [.bytes(name.bytes)]) {
            found = SQLiteRoom(connection, limits, $0, wall)
        }
        guard var room = found, try room.forgetMembers() else { return nil }
        return room
    }

    /// Some rooms in which something is due.
    static func due(_ connection: SQLiteConnection, _ limits: Replay.Configuration, wall: Int64, count: Int64)
        throws(SQLiteFailure) -> [SQLiteRoom]
    {
        var found: [SQLiteRoom] = []
        let old = wall.subtractingReportingOverflow(limits.messageLifetime.nanoseconds)
        for (column, limit) in [("sweep", wall), ("oldest", old.overflow ? .min : old.partialValue)] {
            try connection.execute(
                "SELECT \(columns) FROM rooms WHERE \(column) <= ? ORDER BY \(column) LIMIT ?",
                [.integer(limit), .integer(count)]
            ) { row in
                if !found.contains(where: { $0.id == row.integer(0) }) {
                    found.append(SQLiteRoom(connection, limits, row, wall))
                }
            }
        }
        return found
    }

    static func all(_ connection: SQLiteConnection, _ limits: Replay.Configuration, wall: Int64)
        throws(SQLiteFailure) -> [SQLiteRoom]
    {
        var found: [SQLiteRoom] = []
        try connection.execute("SELECT \(columns) FROM rooms") {
            found.append(SQLiteRoom(connection, limits, $0, wall))
        }
        return found
    }

    static func make(
        _ name: RoomName, _ connection: SQLiteConnection, _ limits: Replay.Configuration, wall: Int64, epoch: UInt64
    ) throws(SQLiteFailure) -> SQLiteRoom? {
        var room: SQLiteRoom?
        try connection.execute(
            """
            INSERT INTO rooms (name, epoch, top, floor, floor_reason, has_ended, ended, end_reason, live, negotiating,
                bytes, kept, kept_bytes, time, sweep, oldest, serial, window, gap, slot)
            VALUES (?1, ?2, 0, 0, ?3, 0, 0, ?4, 0, 0, 0, 0, 0, ?5, ?6, ?6, 1, ?7, 0, 0) RETURNING \(columns)
            """,
            [
                .bytes(name.bytes), .integer(Int64(bitPattern: epoch)), .integer(Int64(LossReason.trimmed.rawValue)),
                .integer(Int64(LossReason.epoch.rawValue)), .integer(wall), .integer(.max),
                .integer(Int64(limits.window)),
            ]
        ) { room = SQLiteRoom(connection, limits, $0, wall) }
        return room
    }

    func save() throws(SQLiteFailure) {
        try connection.execute(
            """
            UPDATE rooms SET epoch = ?2, top = ?3, floor = ?4, floor_reason = ?5, has_ended = ?6, ended = ?7,
                end_reason = ?8, live = ?9, negotiating = ?10, bytes = ?11, kept = ?12, kept_bytes = ?13, time = ?14,
                sweep = ?15, oldest = ?16, serial = ?17, window = ?18, gap = ?19, slot = ?20, used = ?21 WHERE id = ?1
            """,
            [
                .integer(id), .integer(Int64(bitPattern: standing.epoch)), .integer(Int64(bitPattern: standing.top)),
                .integer(Int64(bitPattern: standing.floor)), .integer(Int64(standing.floorReason.rawValue)),
                .integer(standing.endedEpoch == nil ? 0 : 1),
                .integer(Int64(bitPattern: standing.endedEpoch ?? 0)), .integer(Int64(standing.endReason.rawValue)),
                .integer(live), .integer(negotiating), .integer(bytes), .integer(kept), .integer(keptBytes),
                .integer(time), .integer(sweep), .integer(live + kept == 0 ? .max : oldest), .integer(serial),
                .integer(window), .integer(gap), .integer(slot), .integer(used),
            ])
    }

    func remove() throws(SQLiteFailure) { try Self.remove(id, connection) }

    static func remove(_ id: Int64, _ connection: SQLiteConnection) throws(SQLiteFailure) {
        for table in ["members", "messages", "keys"] {
            try connection.execute("DELETE FROM \(table) WHERE room = ?", [.integer(id)])
        }
        try connection.execute("DELETE FROM rooms WHERE id = ?", [.integer(id)])
    }

    mutating func reset(_ epoch: UInt64, because reason: LossReason) throws(SQLiteFailure) {
        standing.begin(epoch, because: reason)
        live = 0
        negotiating = 0
        bytes = 0
        kept = 0
        keptBytes = 0
        oldest = .max
        used = 0
        for table in ["messages", "keys"] {
            try connection.execute("DELETE FROM \(table) WHERE room = ?", [.integer(id)])
        }
        try connection.execute("UPDATE members SET acknowledged = -1, last = 0 WHERE room = ?", [.integer(id)])
    }

    // MARK: Members

    /// False if that was the last one.
    mutating func forgetMembers() throws(SQLiteFailure) -> Bool {
        guard sweep <= time else { return true }
        let gone = time.subtractingReportingOverflow(limits.stateLifetime.nanoseconds)
        try connection.execute(
            "DELETE FROM members WHERE room = ? AND connected = 0 AND seen <= ?",
            [.integer(id), .integer(gone.overflow ? .min : gone.partialValue)])
        var count: Int64 = 0
        var first = Int64.max
        try connection.execute(
            "SELECT count(*), min(CASE connected WHEN 0 THEN seen ELSE \(Int64.max) END) FROM members WHERE room = ?",
            [.integer(id)]
        ) {
            count = $0.integer(0)
            first = $0.integer(1)
        }
        if count == 0 {
            try remove()
            return false
        }
        sweep = Self.later(first, by: limits.stateLifetime)
        try save()
        return true
    }

    func member(_ name: UserName) throws(SQLiteFailure) -> SQLiteMember? {
        var found: SQLiteMember?
        try connection.execute(
            """
            SELECT serial, high, low, generation, connected, seen, acknowledged, last, quality, connections
            FROM members WHERE room = ? AND name = ?
            """, [.integer(id), .bytes(name.bytes)]
        ) { row in
            found = SQLiteMember(
                name: name, serial: row.integer(0),
                token: ResumeToken(
                    high: UInt64(bitPattern: row.integer(1)), low: UInt64(bitPattern: row.integer(2))),
                generation: UInt64(bitPattern: row.integer(3)), isConnected: row.integer(4) != 0, seen: row.integer(5),
                acknowledged: UInt64(exactly: row.integer(6)), last: UInt64(bitPattern: row.integer(7)),
                quality: UInt8(exactly: row.integer(8)).flatMap(Quality.init(rawValue:)) ?? .unknown,
                connections: row.integer(9))
        }
        return found
    }

    func put(_ member: SQLiteMember) throws(SQLiteFailure) {
        try connection.execute(
            """
            INSERT INTO members VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
            ON CONFLICT DO UPDATE SET serial = ?3, high = ?4, low = ?5, generation = ?6, connected = ?7, seen = ?8,
                acknowledged = ?9, last = ?10, quality = ?11, connections = ?12
            """,
            [
                .integer(id), .bytes(member.name.bytes), .integer(member.serial),
                .integer(Int64(bitPattern: member.token.high)), .integer(Int64(bitPattern: member.token.low)),
                .integer(Int64(bitPattern: member.generation)), .integer(member.isConnected ? 1 : 0),
                .integer(member.seen), .integer(member.acknowledged.map { Int64(bitPattern: $0) } ?? -1),
                .integer(Int64(bitPattern: member.last)), .integer(Int64(member.quality.rawValue)),
                .integer(member.connections),
            ])
    }

    func count() throws(SQLiteFailure) -> Int64 {
        var count: Int64 = 0
        try connection.execute("SELECT count(*) FROM members WHERE room = ?", [.integer(id)]) { count = $0.integer(0) }
        return count
    }
}

struct SQLiteMember {
    let name: UserName
    var serial: Int64
    var token: ResumeToken
    var generation: UInt64
    var isConnected = true
    var seen: Int64
    var acknowledged: UInt64?
    var last: UInt64
    var quality = Quality.unknown
    var connections: Int64 = 1

    mutating func touch(_ time: Int64) { if isConnected { seen = time } }
}
