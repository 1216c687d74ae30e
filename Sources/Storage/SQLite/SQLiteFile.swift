import CSystem
import Glibc
import Wire

/// The file of a database: made, opened, and put aside when it is damaged.
struct SQLiteFile {
    let path: String
    let configuration: SQLiteDatabase.Configuration

    init(_ configuration: SQLiteDatabase.Configuration) {
        self.configuration = configuration
        // Names that SQLite takes for something else than a file begin otherwise.
        path = configuration.path.hasPrefix("/") ? configuration.path : "./" + configuration.path
    }

    func open() throws(SQLiteFailure) -> SQLiteConnection {
        try make()
        let connection = try SQLiteConnection(path: path, busyTimeout: configuration.busyTimeout)
        try useLog(connection)
        try connection.execute("PRAGMA synchronous=\(configuration.isDurable ? "FULL" : "NORMAL")")
        try connection.execute("PRAGMA trusted_schema=OFF")
        if configuration.isCheckedAtOpen { try check(connection) }
        try prepare(connection)
        return connection
    }

    /// SQLite gives its other files the permissions of this one.
    private func make() throws(SQLiteFailure) {
        let descriptor = unsafe Glibc.open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            switch errno {
            case EROFS: throw .readOnly
            // It may be there for reading only: then SQLite says so.
            case EACCES: return
            case ENOSPC, EDQUOT: throw .diskFull
            default: throw .cannotOpen(String(systemError: errno))
            }
        }
        cs_close(descriptor)
    }

    /// Write-ahead logging. Where there is no shared memory, on some network file systems, it stays as it is. Here SQLite
    /// does not wait for other processes by itself.
    private func useLog(_ connection: SQLiteConnection) throws(SQLiteFailure) {
        let limit = Instant(nanoseconds: cs_monotonic_ns()) + configuration.busyTimeout
        while true {
            do throws(SQLiteFailure) {
                return try connection.execute("PRAGMA journal_mode=WAL")
            } catch {
                guard error == .busy, Instant(nanoseconds: cs_monotonic_ns()) < limit else { throw error }
                _ = cs_wait_any(nil, 0, 10_000_000)
            }
        }
    }

    private func check(_ connection: SQLiteConnection) throws(SQLiteFailure) {
        var verdict = ""
        try connection.execute("PRAGMA quick_check(1)") { verdict = $0.text(0) }
        guard verdict == "ok" else { throw .corrupt }
    }

    private func prepare(_ connection: SQLiteConnection) throws(SQLiteFailure) {
        guard try version(connection) < configuration.schemaVersion else { return }
        try connection.execute("BEGIN IMMEDIATE")
        do throws(SQLiteFailure) {
            // Another process may have done it meanwhile.
            if try version(connection) < configuration.schemaVersion {
                for statement in configuration.schema { try connection.execute(statement) }
                try connection.execute("PRAGMA user_version=\(configuration.schemaVersion)")
            }
            try connection.execute("COMMIT")
        } catch {
            try? connection.execute("ROLLBACK")
            throw error
        }
    }

    private func version(_ connection: SQLiteConnection) throws(SQLiteFailure) -> Int64 {
        var version: Int64 = 0
        try connection.execute("PRAGMA user_version") { version = $0.integer(0) }
        guard version <= configuration.schemaVersion else { throw .cannotOpen("made by a later version") }
        return version
    }

    private static let maximumAside = 16

    /// Moves a damaged file and what belongs to it away, under the first free of a few names; answers the name, or nil
    /// if it cannot be moved. It must not be open.
    func putAside() -> String? {
        var aside = ""
        for number in 1...Self.maximumAside {
            aside = "\(path).corrupt-\(number)"
            if unsafe access(aside, F_OK) != 0 { break }
        }
        guard unsafe rename(path, aside) == 0 else { return nil }
        for suffix in ["-wal", "-shm"] { _ = unsafe rename(path + suffix, aside + suffix) }
        return aside
    }
}
