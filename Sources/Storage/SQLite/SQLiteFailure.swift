import CSQLite

/// Why SQLite did not do something.
public enum SQLiteFailure: Error, Equatable, Sendable, CustomStringConvertible {
    /// The file is damaged. It is put aside.
    case corrupt
    /// The file is something else. It is put aside.
    case notADatabase
    case readOnly
    case diskFull
    /// Another process held the lock for too long.
    case busy
    case cannotOpen(String)
    /// As much is waiting as may wait: not carried out.
    case overloaded
    /// The database is not open: not carried out.
    case unavailable
    case closed
    case other(code: Int32, String)

    init(_ code: Int32, _ database: OpaquePointer?) {
        switch code & 0xFF {
        case SQLITE_CORRUPT: self = .corrupt
        case SQLITE_NOTADB: self = .notADatabase
        case SQLITE_READONLY, SQLITE_PERM: self = .readOnly
        case SQLITE_FULL: self = .diskFull
        case SQLITE_BUSY, SQLITE_LOCKED: self = .busy
        case SQLITE_CANTOPEN: self = .cannotOpen(Self.text(code, database))
        default: self = .other(code: code, Self.text(code, database))
        }
    }

    private static func text(_ code: Int32, _ database: OpaquePointer?) -> String {
        if let database = unsafe database, let text = unsafe sqlite3_errmsg(database) {
            return unsafe String(cString: text)
        }
        return unsafe sqlite3_errstr(code).map { unsafe String(cString: $0) } ?? "error \(code)"
    }

    /// The file cannot be worked with any more.
    var isDamage: Bool { self == .corrupt || self == .notADatabase }

    public var description: String {
        switch self {
        case .corrupt: "the database is damaged"
        case .notADatabase: "the file is not a database"
        case .readOnly: "the database cannot be written"
        case .diskFull: "the disk is full"
        case .busy: "the database is locked by another process"
        case .cannotOpen(let text): "the database cannot be opened: \(text)"
        case .overloaded: "too much is waiting"
        case .unavailable: "the database is not open"
        case .closed: "closed"
        case .other(let code, let text): "\(text) (\(code))"
        }
    }
}

/// Whether an ``SQLiteDatabase`` takes work.
public enum SQLiteState: Equatable, Sendable {
    case up
    case down(SQLiteFailure)
    /// A damaged file was moved to this path, and an empty one is in its place.
    case replaced(aside: String)
}
