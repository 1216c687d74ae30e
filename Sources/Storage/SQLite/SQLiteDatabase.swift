import CSystem
import Wire

/// Why SQLite did not do something.
public enum SQLiteFailure: Error, Equatable, Sendable {
    /// The file is damaged, or not a database. It is put aside.
    case corrupt
    case readOnly
    case diskFull
    case busy
    case cannotOpen(String)
    /// Queue full, or the database is not open: not carried out.
    case overloaded
    case unavailable
    case constraint
    case other(code: Int32, String)
    case closed
}
