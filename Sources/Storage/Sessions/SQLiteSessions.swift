import CSystem
import Wire

/// Records of sessions in a file: they survive the process and, but for the last moments, a power failure.
public final class SQLiteSessions: SessionRecords {
    private let database: SQLiteDatabase
    private let clock: @Sendable () -> Int64
    private let nextSweep = Guarded<Int64>(0)

    /// `clock`: milliseconds since 1970; for tests.
    public init(
        path: String, clock: @escaping @Sendable () -> Int64 = { cs_unix_ns() / 1_000_000 },
        onState: @escaping @Sendable (RecordsState) -> Void
    ) {
        self.clock = clock
        database = SQLiteDatabase(.init(path: path, schema: Self.schema)) { state in
            switch state {
            case .up: onState(.up)
            case .down(let failure): onState(.down("\(failure)"))
            case .replaced(let aside): onState(.notice("the file was damaged and is now \(aside); starting empty"))
            }
        }
    }

    private static let schema = [
        """
        CREATE TABLE sessions (
            client INTEGER PRIMARY KEY, version INTEGER NOT NULL, expires INTEGER NOT NULL, record BLOB NOT NULL
        ) STRICT
        """,
        "CREATE INDEX sessions_by_expiry ON sessions (expires)",
        "CREATE TABLE tokens (key TEXT PRIMARY KEY, client INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        "CREATE INDEX tokens_by_client ON tokens (client)",
    ]

    // MARK: Loading

    public func load(
        key: String, completion: @escaping @Sendable (Result<StoredSession?, RecordsFailure>) -> Void
    ) {
        let now = clock()
        load(
            """
            SELECT s.client, s.version, s.expires, s.record FROM tokens AS t JOIN sessions AS s ON s.client = t.client
            WHERE t.key = ? AND s.expires > ?
            """, [.text(key), .integer(now)], now, completion)
    }

    public func load(
        client: UInt64, completion: @escaping @Sendable (Result<StoredSession?, RecordsFailure>) -> Void
    ) {
        let now = clock()
        load(
            "SELECT client, version, expires, record FROM sessions WHERE client = ? AND expires > ?",
            [.integer(Int64(bitPattern: client)), .integer(now)], now, completion)
    }

    private func load(
        _ query: String, _ values: [SQLiteValue], _ now: Int64,
        _ completion: @escaping @Sendable (Result<StoredSession?, RecordsFailure>) -> Void
    ) {
        database.perform(.read) { connection throws(SQLiteFailure) in
            try Self.stored(connection, query, values, now)
        } completion: { result in
            completion(result.mapError { _ in .unavailable })
        }
    }

    private static func stored(_ connection: SQLiteConnection, _ query: String, _ values: [SQLiteValue], _ now: Int64)
        throws(SQLiteFailure) -> StoredSession?
    {
        var found: StoredSession?
        try connection.execute(query, values) { row in
            let remaining = row.integer(2).subtractingReportingOverflow(now)
            found = StoredSession(
                client: UInt64(bitPattern: row.integer(0)), version: UInt64(bitPattern: row.integer(1)),
                bytes: row.bytes(3), remaining: .milliseconds(remaining.overflow ? 0 : max(remaining.partialValue, 0)))
        }
        return found
    }

    // MARK: Writing

    public func save(
        _ write: SessionWrite, completion: @escaping @Sendable (Result<SaveOutcome, RecordsFailure>) -> Void
    ) {
        let now = clock()
        sweepNowAndThen(now)
        database.perform(.write) { connection throws(SQLiteFailure) in
            try Self.save(write, connection, now)
        } completion: { result in
            completion(result.mapError { _ in .unavailable })
        }
    }

    private static func save(_ write: SessionWrite, _ connection: SQLiteConnection, _ now: Int64)
        throws(SQLiteFailure) -> SaveOutcome
    {
        let client = SQLiteValue.integer(Int64(bitPattern: write.client))
        let known = try stored(
            connection, "SELECT client, version, expires, record FROM sessions WHERE client = ? AND expires > ?",
            [client, .integer(now)], now)
        if let known, known.version != write.basedOn { return .conflict(known) }
        let version = write.basedOn &+ 1
        let expires = now.addingReportingOverflow(max(write.lifetime.milliseconds, 1))
        try connection.execute(
            "INSERT OR REPLACE INTO sessions (client, version, expires, record) VALUES (?, ?, ?, ?)",
            [
                client, .integer(Int64(bitPattern: version)),
                .integer(expires.overflow ? .max : expires.partialValue), .bytes(write.bytes),
            ])
        try connection.execute("DELETE FROM tokens WHERE client = ?", [client])
        for key in write.keys {
            try connection.execute("INSERT OR REPLACE INTO tokens (key, client) VALUES (?, ?)", [.text(key), client])
        }
        return .saved(version: version)
    }

    public func remove(client: UInt64, completion: @escaping @Sendable (Result<Void, RecordsFailure>) -> Void) {
        database.perform(.write) { connection throws(SQLiteFailure) in
            try Self.remove(.integer(Int64(bitPattern: client)), connection)
        } completion: { result in
            completion(result.mapError { _ in .unavailable })
        }
    }

    private static func remove(_ client: SQLiteValue, _ connection: SQLiteConnection) throws(SQLiteFailure) {
        try connection.execute("DELETE FROM tokens WHERE client = ?", [client])
        try connection.execute("DELETE FROM sessions WHERE client = ?", [client])
    }

    // MARK: Sweeping

    private static let sweepInterval: Int64 = 10_000
    private static let sweepBatch: Int64 = 512

    /// Expired records are not found; deleting them only keeps the file small. It grows by writing alone, so writing is
    /// when to do it. Some at a time: nothing waits for long.
    private func sweepNowAndThen(_ now: Int64) {
        let isDue = nextSweep.withLock { next in
            // The clock may have been set back.
            guard now >= next || next > now &+ Self.sweepInterval else { return false }
            next = now &+ Self.sweepInterval
            return true
        }
        guard isDue else { return }
        database.perform(.write) { connection throws(SQLiteFailure) in
            var expired: [SQLiteValue] = []
            try connection.execute(
                "SELECT client FROM sessions WHERE expires <= ? ORDER BY expires LIMIT ?",
                [.integer(now), .integer(Self.sweepBatch)]
            ) { expired.append(.integer($0.integer(0))) }
            for client in expired { try Self.remove(client, connection) }
            return expired.count
        } completion: { [nextSweep] (result: Result<Int, SQLiteFailure>) in
            // There may be more: go on with the next write.
            if case .success(Int(Self.sweepBatch)) = result { nextSweep.withLock { $0 = 0 } }
        }
    }

    public func close() { database.close() }
}
