import Foundation
import Glibc
import Testing

@testable import Storage

private let schema = ["CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB)"]

private struct Opened {
    let database: SQLiteDatabase
    let states = Journal<SQLiteState>()

    init(_ path: String, version: Int64 = 1, _ change: (inout SQLiteDatabase.Configuration) -> Void = { _ in }) {
        var configuration = SQLiteDatabase.Configuration(path: path, schema: schema, schemaVersion: version)
        configuration.firstPause = .milliseconds(5)
        configuration.longestPause = .milliseconds(20)
        change(&configuration)
        database = SQLiteDatabase(configuration) { [states] in states.append($0) }
    }

    func waitUntilUp() throws { try states.wait("up") { $0.last == .up } }

    @discardableResult
    func run(_ access: SQLiteDatabase.Access, _ sql: String, _ values: [SQLiteValue] = []) throws
        -> Result<[Int64], SQLiteFailure>
    {
        try answer { completion in
            database.perform(access) { connection throws(SQLiteFailure) in
                var rows: [Int64] = []
                try connection.execute(sql, values) { rows.append($0.integer(0)) }
                return rows
            } completion: {
                completion($0)
            }
        }
    }

    func insert(_ key: Int64, _ size: Int = 10) throws -> Result<[Int64], SQLiteFailure> {
        try run(.write, "INSERT INTO t VALUES (?, ?)", [.integer(key), .bytes(Array(repeating: 7, count: size))])
    }
}

@Suite(.serialized) struct SQLiteDatabases {
    @Test func keepWhatIsWritten() throws {
        let scratch = try Scratch()
        let path = scratch.file("a.db")
        do {
            let opened = Opened(path)
            // Work that comes before the file is open waits for it.
            #expect(try opened.insert(1) == .success([]))
            opened.database.close()
            #expect(try opened.insert(2) == .failure(.closed))
        }
        let opened = Opened(path)
        defer { opened.database.close() }
        #expect(try opened.run(.read, "SELECT k FROM t") == .success([1]))
        for suffix in ["", "-wal", "-shm"] {
            var status = stat()
            #expect(stat(path + suffix, &status) == 0)
            #expect(status.st_mode & 0o777 == 0o600, "\(suffix)")
        }
        #expect(opened.states.all == [.up])
    }

    @Test func readEveryKindOfValue() throws {
        let scratch = try Scratch()
        let opened = Opened(scratch.file("a.db"))
        defer { opened.database.close() }
        let values: [SQLiteValue] = [.null, .integer(.min), .text("é\0x"), .bytes([0, 255]), .bytes([]), .text("")]
        let result: Result<[[UInt8]], SQLiteFailure> = try answer { completion in
            opened.database.perform(.read) { connection throws(SQLiteFailure) in
                var found: [[UInt8]] = []
                try connection.execute("SELECT ?, ?, ?, ?, ?, ?", values) { row in
                    found = (0..<6).map { row.bytes(Int32($0)) }
                }
                return found
            } completion: {
                completion($0)
            }
        }
        #expect(
            result == .success([[], Array("-9223372036854775808".utf8), Array("é\0x".utf8), [0, 255], [], []]))
    }

    @Test func carryOutInOrderAndOneFailureAlone() throws {
        let scratch = try Scratch()
        let opened = Opened(scratch.file("a.db"))
        defer { opened.database.close() }
        try opened.waitUntilUp()
        let log = Journal<String>()
        for number in 0..<500 {
            opened.database.perform(.write) { connection throws(SQLiteFailure) in
                try connection.execute("INSERT INTO t VALUES (?, NULL)", [.integer(Int64(number))])
                // Every tenth breaks after it has written something.
                if number % 10 == 9 { try connection.execute("INSERT INTO t VALUES (0, NULL)") }
            } completion: { (result: Result<Void, SQLiteFailure>) in
                if case .success = result { log.append("w") } else { log.append("f") }
            }
            opened.database.perform(.read) { connection throws(SQLiteFailure) in
                var count: Int64 = -1
                try connection.execute("SELECT count(*) FROM t") { count = $0.integer(0) }
                return count
            } completion: { (result: Result<Int64, SQLiteFailure>) in
                log.append("\((try? result.get()) ?? -1)")
            }
        }
        let all = try log.wait { $0.count >= 1000 }
        var expected: [String] = []
        var count = 0
        for number in 0..<500 {
            let isKept = number % 10 != 9
            if isKept { count += 1 }
            expected += [isKept ? "w" : "f", String(count)]
        }
        #expect(all == expected)
    }

    @Test(arguments: ["garbage", "truncated", "page"])
    func aDamagedFileIsPutAside(_ kind: String) throws {
        let scratch = try Scratch()
        let path = scratch.file("a.db")
        do {
            let opened = Opened(path)
            for key in 0..<200 { #expect(try opened.insert(Int64(key), 500) == .success([])) }
            opened.database.close()
        }
        var bytes = try Data(contentsOf: URL(fileURLWithPath: path))
        switch kind {
        case "garbage": bytes = Data("this is no database, but long enough to look like a file of one".utf8)
        case "truncated": bytes = bytes.prefix(bytes.count / 2)
        default: for index in 4096..<12_288 { bytes[index] = 0xA5 }
        }
        try bytes.write(to: URL(fileURLWithPath: path))
        let opened = Opened(path)
        defer { opened.database.close() }
        try opened.waitUntilUp()
        #expect(opened.states.all == [.replaced(aside: path + ".corrupt-1"), .up])
        #expect(try opened.run(.read, "SELECT count(*) FROM t") == .success([0]))
        #expect(try opened.insert(1) == .success([]))
        #expect(try Data(contentsOf: URL(fileURLWithPath: path + ".corrupt-1")) == bytes)
        // Again: under another name.
        opened.database.close()
        try Data("nonsense that is no database at all ......".utf8).write(to: URL(fileURLWithPath: path))
        let again = Opened(path)
        defer { again.database.close() }
        try again.waitUntilUp()
        #expect(again.states.all.first == .replaced(aside: path + ".corrupt-2"))
    }

    @Test func damageThatShowsLaterIsSeenToo() throws {
        let scratch = try Scratch()
        let path = scratch.file("a.db")
        do {
            let opened = Opened(path)
            for key in 0..<200 { #expect(try opened.insert(Int64(key), 500) == .success([])) }
            opened.database.close()
        }
        var bytes = try Data(contentsOf: URL(fileURLWithPath: path))
        for index in 4096..<bytes.count { bytes[index] = 0xA5 }
        try bytes.write(to: URL(fileURLWithPath: path))
        let opened = Opened(path) { $0.isCheckedAtOpen = false }
        defer { opened.database.close() }
        try opened.waitUntilUp()
        #expect(try opened.run(.read, "SELECT count(v) FROM t") == .failure(.corrupt))
        try opened.states.wait("replaced") { $0.contains(.replaced(aside: path + ".corrupt-1")) && $0.last == .up }
        #expect(try opened.insert(1) == .success([]))
        #expect(try opened.run(.read, "SELECT count(*) FROM t") == .success([1]))
    }

    @Test func aFullDiskFailsTheWriteAndNothingElse() throws {
        let scratch = try Scratch()
        let opened = Opened(scratch.file("a.db"))
        defer { opened.database.close() }
        try opened.waitUntilUp()
        #expect(try opened.insert(1) == .success([]))
        _ = try opened.run(.read, "PRAGMA max_page_count=20")
        // Several in one transaction: the full disk undoes them all, and all are told.
        let results = Journal<Bool>()
        for key in 10..<20 {
            opened.database.perform(.write) { connection throws(SQLiteFailure) in
                try connection.execute(
                    "INSERT INTO t VALUES (?, ?)",
                    [.integer(Int64(key)), .bytes(Array(repeating: 1, count: key == 15 ? 200_000 : 1000))])
            } completion: { (result: Result<Void, SQLiteFailure>) in
                if case .success = result { results.append(true) } else { results.append(false) }
            }
        }
        let all = try results.wait { $0.count == 10 }
        #expect(try opened.insert(99, 200_000) == .failure(.diskFull))
        let kept = Int64(1 + all.count { $0 })
        #expect(all.contains(false))
        #expect(try opened.run(.read, "SELECT count(*) FROM t") == .success([kept]))
        #expect(try opened.run(.read, "PRAGMA max_page_count=100000") == .success([100_000]))
        #expect(try opened.insert(99, 200_000) == .success([]))
        #expect(opened.states.all == [.up])
    }

    @Test func whatCannotBeWritten() throws {
        let scratch = try Scratch()
        let opened = Opened(scratch.file("a.db"))
        defer { opened.database.close() }
        try opened.waitUntilUp()
        _ = try opened.run(.read, "PRAGMA query_only=1")
        #expect(try opened.insert(1) == .failure(.readOnly))
        #expect(try opened.run(.read, "SELECT count(*) FROM t") == .success([0]))
        // Permissions mean nothing to the superuser.
        guard getuid() != 0 else { return }
        let path = scratch.file("b.db")
        do {
            let other = Opened(path)
            #expect(try other.insert(1) == .success([]))
            other.database.close()
        }
        chmod(path, 0o400)
        let other = Opened(path)
        defer { other.database.close() }
        try other.states.wait("down") { $0 == [.down(.readOnly)] }
    }

    @Test func comeUpWhenTheyCan() throws {
        let scratch = try Scratch()
        let path = scratch.file("later/a.db")
        let opened = Opened(path)
        defer { opened.database.close() }
        try opened.states.wait("down") { !$0.isEmpty }
        guard case .down(.cannotOpen) = opened.states.all[0] else {
            Issue.record("\(opened.states.all)")
            return
        }
        let refused = Journal<Bool>()
        opened.database.perform(.read) { _ throws(SQLiteFailure) in
            true
        } completion: { result in
            refused.append(result == .failure(.unavailable))
        }
        #expect(refused.all == [true])
        try FileManager.default.createDirectory(atPath: scratch.file("later"), withIntermediateDirectories: false)
        try opened.waitUntilUp()
        #expect(try opened.insert(1) == .success([]))
        // A directory is no database.
        let directory = Opened(scratch.path)
        defer { directory.database.close() }
        try directory.states.wait("down") { !$0.isEmpty }
        #expect(directory.states.all.first != .up)
    }

    @Test func ofALaterVersionAreLeftAlone() throws {
        let scratch = try Scratch()
        let path = scratch.file("a.db")
        do {
            let opened = Opened(path, version: 7)
            #expect(try opened.insert(1) == .success([]))
            opened.database.close()
        }
        let opened = Opened(path, version: 6)
        defer { opened.database.close() }
        try opened.states.wait("down") { $0 == [.down(.cannotOpen("made by a later version"))] }
    }

    @Test func twoOfOneFileTakeTurns() throws {
        let scratch = try Scratch()
        let path = scratch.file("a.db")
        let opened = [Opened(path), Opened(path)]
        defer { for each in opened { each.database.close() } }
        let results = Journal<Bool>()
        for number in 0..<200 {
            opened[number % 2].database.perform(.write) { connection throws(SQLiteFailure) in
                try connection.execute("INSERT INTO t VALUES (?, NULL)", [.integer(Int64(number))])
            } completion: { (result: Result<Void, SQLiteFailure>) in
                if case .success = result { results.append(true) } else { results.append(false) }
            }
        }
        #expect(try results.wait { $0.count == 200 }.allSatisfy { $0 })
        #expect(try opened[0].run(.read, "SELECT count(*) FROM t") == .success([200]))
    }

    @Test func closingFinishesWhatWasSubmitted() throws {
        let scratch = try Scratch()
        let path = scratch.file("a.db")
        let opened = Opened(path)
        let results = Journal<Bool>()
        for number in 0..<1000 {
            opened.database.perform(.write) { connection throws(SQLiteFailure) in
                try connection.execute("INSERT INTO t VALUES (?, NULL)", [.integer(Int64(number))])
            } completion: { (result: Result<Void, SQLiteFailure>) in
                if case .success = result { results.append(true) } else { results.append(false) }
            }
        }
        opened.database.close()
        #expect(results.all == Array(repeating: true, count: 1000))
    }
}
