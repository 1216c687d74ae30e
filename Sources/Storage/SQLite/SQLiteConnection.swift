import CSQLite
import Wire

public enum SQLiteValue: Equatable, Sendable {
    case null
    case integer(Int64)
    case text(String)
    case bytes([UInt8])
}

/// One row of a result, while it is being read.
public struct SQLiteRow {
    private let statement: OpaquePointer

    init(_ statement: OpaquePointer) { unsafe self.statement = statement }

    public func integer(_ column: Int32) -> Int64 { unsafe sqlite3_column_int64(statement, column) }

    public func bytes(_ column: Int32) -> [UInt8] {
        let start = unsafe sqlite3_column_blob(statement, column)
        let count = unsafe Int(sqlite3_column_bytes(statement, column))
        return unsafe Array(UnsafeRawBufferPointer(start: start, count: start == nil ? 0 : count))
    }

    public func text(_ column: Int32) -> String { String(decoding: bytes(column), as: UTF8.self) }
}

/// An open database, on its thread. Statements are prepared once and kept.
public final class SQLiteConnection {
    private let database: OpaquePointer
    private var statements: [String: OpaquePointer] = [:]
    /// The first sign of damage.
    private(set) var damage: SQLiteFailure?

    /// The file must exist.
    init(path: String, busyTimeout: Duration) throws(SQLiteFailure) {
        var opened: OpaquePointer?
        let code = unsafe sqlite3_open_v2(path, &opened, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nil)
        guard code == SQLITE_OK, let opened = unsafe opened else {
            let failure = unsafe SQLiteFailure(code, opened)
            unsafe sqlite3_close_v2(opened)
            throw failure
        }
        unsafe database = opened
        _ = unsafe sqlite3_extended_result_codes(database, 1)
        _ = unsafe sqlite3_busy_timeout(database, Int32(clamping: busyTimeout.milliseconds))
        // A file without write permission is opened all the same.
        if unsafe sqlite3_db_readonly(database, "main") == 1 { throw .readOnly }
    }

    deinit {
        for statement in unsafe statements.values { unsafe sqlite3_finalize(statement) }
        unsafe sqlite3_close_v2(database)
    }

    /// Runs one statement and hands its rows to `row`.
    public func execute(_ sql: String, _ values: [SQLiteValue] = [], row: (SQLiteRow) -> Void = { _ in })
        throws(SQLiteFailure)
    {
        let statement = unsafe try prepared(sql)
        defer {
            _ = unsafe sqlite3_reset(statement)
            _ = unsafe sqlite3_clear_bindings(statement)
        }
        for (index, value) in values.enumerated() { unsafe try bind(value, Int32(clamping: index + 1), statement) }
        while true {
            let code = unsafe sqlite3_step(statement)
            switch code {
            case SQLITE_ROW: row(unsafe SQLiteRow(statement))
            case SQLITE_DONE: return
            default: throw failure(code)
            }
        }
    }

    /// Rows that the last statement changed.
    public var changes: Int { unsafe Int(sqlite3_changes(database)) }

    /// False after an error that undid the whole transaction.
    var isInTransaction: Bool { unsafe sqlite3_get_autocommit(database) == 0 }

    private func prepared(_ sql: String) throws(SQLiteFailure) -> OpaquePointer {
        if let known = unsafe statements[sql] { return unsafe known }
        var made: OpaquePointer?
        let code = unsafe sqlite3_prepare_v3(
            database, sql, Int32(clamping: sql.utf8.count), UInt32(SQLITE_PREPARE_PERSISTENT), &made, nil)
        guard code == SQLITE_OK, let made = unsafe made else { throw failure(code) }
        unsafe statements[sql] = made
        return unsafe made
    }

    private func bind(_ value: SQLiteValue, _ index: Int32, _ statement: OpaquePointer) throws(SQLiteFailure) {
        let code: Int32
        switch value {
        case .null: code = unsafe sqlite3_bind_null(statement, index)
        case .integer(let number): code = unsafe sqlite3_bind_int64(statement, index, number)
        case .text(let text):
            code = unsafe csqlite_bind_text(statement, index, text, UInt64(text.utf8.count))
        case .bytes(let bytes):
            code = unsafe csqlite_bind_blob(statement, index, bytes, UInt64(bytes.count))
        }
        guard code == SQLITE_OK else { throw failure(code) }
    }

    private func failure(_ code: Int32) -> SQLiteFailure {
        let failure = unsafe SQLiteFailure(code, database)
        if failure.isDamage { damage = failure }
        return failure
    }
}
