import Foundation
import Synchronization
import Testing

@testable import Storage

/// A database for records, and what it needs to live.
private final class Database {
    enum Kind: CaseIterable {
        case redis
        case sqlite
    }

    let records: any SessionRecords
    let states = Journal<RecordsState>()
    let redis: RedisServer?
    let scratch: Scratch
    /// Milliseconds that the clock of a file is ahead.
    private let ahead: Guarded<Int64>

    init(_ kind: Kind, _ shared: Database? = nil) throws {
        scratch = try shared?.scratch ?? Scratch()
        let ahead = shared?.ahead ?? Guarded(0)
        self.ahead = ahead
        let states = states
        switch kind {
        case .redis:
            let server = try shared?.redis ?? RedisServer()
            redis = server
            records = RedisSessions(
                address: try server.address(), prefix: "test prefix:", loadTimeout: .seconds(20),
                saveTimeout: .seconds(20)
            ) { states.append($0) }
        case .sqlite:
            redis = nil
            records = SQLiteSessions(
                path: scratch.file("sessions.db"),
                clock: { Int64(Date().timeIntervalSince1970 * 1000) + ahead.withLock { $0 } },
                onState: { states.append($0) })
        }
        try waitUntilUp()
    }

    deinit { records.close() }

    func waitUntilUp() throws { try states.wait("up") { $0.last == .up } }

    /// Lets so much time pass for what is in the database: a server's clock goes on as ever, but everything in it expires
    /// that much earlier.
    func pass(_ milliseconds: Int64) throws {
        guard let redis else { return ahead.withLock { $0 += milliseconds } }
        let other = Connected(try redis.address())
        defer { other.client.close() }
        try other.waitUntilUp()
        let script = """
            for _, key in ipairs(redis.call('KEYS', '*')) do
              local left = redis.call('PTTL', key)
              if left >= 0 then redis.call('PEXPIRE', key, left - ARGV[1]) end
            end
            return 1
            """
        #expect(try other.reply("EVAL", .text(script), 0, .integer(milliseconds)) == .success(.integer(1)))
    }

    func load(_ key: String) throws -> StoredSession? {
        try answer { records.load(key: key, completion: $0) }.get()
    }

    func load(client: UInt64) throws -> StoredSession? {
        try answer { records.load(client: client, completion: $0) }.get()
    }

    @discardableResult
    func save(
        _ client: UInt64, _ bytes: [UInt8] = [1, 2, 3], keys: [String], basedOn: UInt64, lifetime: Span = .seconds(300)
    ) throws -> SaveOutcome {
        let write = SessionWrite(client: client, bytes: bytes, keys: keys, basedOn: basedOn, lifetime: lifetime)
        return try answer { records.save(write, completion: $0) }.get()
    }

    func remove(_ client: UInt64) throws { try answer { records.remove(client: client, completion: $0) }.get() }
}

@Suite(.serialized) struct RecordsOfSessions {
    @Test(arguments: Database.Kind.allCases)
    fileprivate func areFoundByEveryKeyAndTheClient(_ kind: Database.Kind) throws {
        let database = try Database(kind)
        let bytes = (0...255).map { UInt8($0) } + Array("\r\n".utf8)
        #expect(try database.save(.max, bytes, keys: ["a", "b"], basedOn: 0) == .saved(version: 1))
        for found in [try database.load("a"), try database.load("b"), try database.load(client: .max)] {
            #expect(found?.client == .max)
            #expect(found?.version == 1)
            #expect(found?.bytes == bytes)
            #expect((found?.remaining).map { $0 > .seconds(250) && $0 <= .seconds(300) } == true)
        }
        #expect(try database.load("c") == nil)
        #expect(try database.load(client: 1) == nil)
    }

    @Test(arguments: Database.Kind.allCases)
    fileprivate func replaceTheirKeys(_ kind: Database.Kind) throws {
        let database = try Database(kind)
        #expect(try database.save(5, keys: ["a", "b"], basedOn: 0) == .saved(version: 1))
        #expect(try database.save(5, [9], keys: ["b", "c"], basedOn: 1) == .saved(version: 2))
        #expect(try database.load("a") == nil)
        #expect(try database.load("b")?.bytes == [9])
        #expect(try database.load("c")?.version == 2)
        // A key that has become another's stays that one's.
        #expect(try database.save(6, [6], keys: ["c"], basedOn: 0) == .saved(version: 1))
        #expect(try database.save(5, [9], keys: ["b"], basedOn: 2) == .saved(version: 3))
        #expect(try database.load("c")?.client == 6)
        #expect(try database.save(5, [9], keys: [], basedOn: 3) == .saved(version: 4))
        #expect(try database.load("b") == nil)
        #expect(try database.load(client: 5)?.bytes == [9])
    }

    @Test(arguments: Database.Kind.allCases)
    fileprivate func areNotWrittenOverUnseen(_ kind: Database.Kind) throws {
        let one = try Database(kind)
        let two = try Database(kind, one)
        #expect(try one.save(5, [1], keys: ["a"], basedOn: 0) == .saved(version: 1))
        #expect(try two.save(5, [2], keys: ["a", "b"], basedOn: 1) == .saved(version: 2))
        guard case .conflict(let there) = try one.save(5, [3], keys: ["c"], basedOn: 1) else {
            Issue.record("written over")
            return
        }
        #expect(there.bytes == [2] && there.version == 2 && there.client == 5)
        #expect(there.remaining > .seconds(250))
        #expect(try two.load("c") == nil)
        #expect(try one.load("b")?.bytes == [2])
        // Versions are numbers of 64 bits, not of 53.
        #expect(try one.save(7, [1], keys: ["x"], basedOn: .max - 2) == .saved(version: UInt64.max - 1))
        guard case .conflict(let last) = try one.save(7, [1], keys: ["x"], basedOn: .max - 2) else {
            Issue.record("written over")
            return
        }
        #expect(last.version == UInt64.max - 1)
    }

    @Test(arguments: Database.Kind.allCases)
    fileprivate func end(_ kind: Database.Kind) throws {
        let database = try Database(kind)
        try database.save(5, keys: ["a"], basedOn: 0, lifetime: .seconds(40))
        try database.save(6, keys: ["b"], basedOn: 0)
        try database.pass(60_000)
        #expect(try database.load("a") == nil)
        #expect(try database.load(client: 5) == nil)
        #expect(try database.load("b")?.client == 6)
        // What has expired is no conflict.
        #expect(try database.save(5, keys: ["a"], basedOn: 0) == .saved(version: 1))
    }

    @Test(arguments: Database.Kind.allCases)
    fileprivate func areRemovedWithTheirKeys(_ kind: Database.Kind) throws {
        let database = try Database(kind)
        try database.save(5, keys: ["a", "b"], basedOn: 0)
        try database.save(6, keys: ["b", "c"], basedOn: 0)
        try database.remove(5)
        try database.remove(99)
        #expect(try database.load("a") == nil)
        #expect(try database.load(client: 5) == nil)
        #expect(try database.load("b")?.client == 6)
        #expect(try database.load("c")?.client == 6)
    }

    @Test(arguments: Database.Kind.allCases)
    fileprivate func areCarriedOutInOrder(_ kind: Database.Kind) throws {
        let database = try Database(kind)
        let found = Journal<UInt64>()
        for number in 0..<200 as Range<UInt64> {
            database.records.save(
                SessionWrite(client: 5, bytes: [], keys: ["k\(number)"], basedOn: number, lifetime: .seconds(300))
            ) { _ in }
            database.records.load(key: "k\(number)") { found.append((try? $0.get())?.version ?? 0) }
        }
        #expect(try found.wait { $0.count == 200 } == Array(1...200))
    }

    @Test func ofAServerThatWasFlushedAreGoneAndNothingElse() throws {
        let database = try Database(.redis)
        try database.save(5, keys: ["a"], basedOn: 0)
        let other = Connected(try #require(database.redis).address())
        defer { other.client.close() }
        try other.waitUntilUp()
        #expect(try other.reply("FLUSHALL") == .success(.status("OK")))
        #expect(try other.reply("SCRIPT", "FLUSH") == .success(.status("OK")))
        #expect(try database.load("a") == nil)
        #expect(try database.save(5, keys: ["a"], basedOn: 7) == .saved(version: 8))
        #expect(try database.load("a")?.version == 8)
    }

    @Test func ofAServerThatIsAwayAreUnavailableAtOnce() throws {
        let database = try Database(.redis)
        database.redis?.kill()
        try database.states.wait("down") { $0.last != .up }
        let answers = Journal<Bool>()
        database.records.load(key: "a") { answers.append($0 == .failure(.unavailable)) }
        database.records.remove(client: 1) { result in
            if case .failure = result { answers.append(true) }
        }
        #expect(answers.all == [true, true])
        try database.redis?.start()
        try database.waitUntilUp()
        #expect(try database.load("a") == nil)
    }

    /// In a cluster all keys of a script must share a slot: the part in braces decides.
    @Test func shareOneSlotAndExpire() throws {
        let database = try Database(.redis)
        try database.save(0xABC, keys: ["k1", "k2"], basedOn: 0)
        let other = Connected(try #require(database.redis).address())
        defer { other.client.close() }
        try other.waitUntilUp()
        let keys = try other.reply("KEYS", "*").get().arrayValue?.compactMap(\.bytesValue) ?? []
        let names = keys.map { String(decoding: $0, as: UTF8.self) }.sorted()
        #expect(
            names == [
                "test prefix:{sessions}:client:abc", "test prefix:{sessions}:token:k1",
                "test prefix:{sessions}:token:k2",
            ])
        for name in names {
            let left = try other.reply("PTTL", .text(name)).get().integerValue ?? 0
            #expect(left > 250_000 && left <= 300_000)
        }
    }

    /// What docs/formats.md says a user of an access list needs.
    @Test func needFewPermissions() throws {
        let server = try RedisServer()
        let owner = Connected(try server.address())
        defer { owner.client.close() }
        try owner.waitUntilUp()
        let made = try answer { completion in
            owner.client.submit(
                [
                    "ACL", "SETUSER", "sessions", "on", ">secret", "~p:{sessions}:*", "-@all", "+eval", "+evalsha",
                    "+script|load", "+ping", "+select", "+get", "+set", "+del", "+hget", "+hmget", "+hset", "+pexpire",
                    "+pttl",
                ], deadline: .seconds(20), completion: completion)
        }
        #expect(made == .success(.status("OK")))
        let states = Journal<RecordsState>()
        let records = RedisSessions(
            address: try server.address("sessions:secret@"), prefix: "p:", loadTimeout: .seconds(20)
        ) { states.append($0) }
        defer { records.close() }
        try states.wait("up") { $0.last == .up }
        for version in 0..<2 as Range<UInt64> {
            let write = SessionWrite(
                client: 1, bytes: [1], keys: ["k\(version)"], basedOn: version, lifetime: .seconds(300))
            #expect(try answer { records.save(write, completion: $0) } == .success(.saved(version: version + 1)))
        }
        let found: Result<StoredSession?, RecordsFailure> = try answer { records.load(key: "k1", completion: $0) }
        #expect(try found.get()?.version == 2)
        let removed: Result<Void, RecordsFailure> = try answer { records.remove(client: 1, completion: $0) }
        #expect(throws: Never.self) { try removed.get() }
        let gone: Result<StoredSession?, RecordsFailure> = try answer { records.load(client: 1, completion: $0) }
        #expect(gone == .success(nil))
    }

    @Test func inAServerOfAnotherMakeAreUnavailable() throws {
        let database = try Database(.redis)
        try database.save(5, keys: ["a"], basedOn: 0)
        let other = Connected(try #require(database.redis).address())
        defer { other.client.close() }
        try other.waitUntilUp()
        // Somebody else's value under our name.
        #expect(try other.reply("SET", "test prefix:{sessions}:client:5", "x") == .success(.status("OK")))
        let loaded: Result<StoredSession?, RecordsFailure> = try answer {
            database.records.load(key: "a", completion: $0)
        }
        #expect(loaded == .failure(.unavailable))
        #expect(try other.reply("DEL", "test prefix:{sessions}:client:5") == .success(.integer(1)))
        #expect(try other.reply("HSET", "test prefix:{sessions}:client:5", "v", "x", "d", "y") == .success(.integer(2)))
        let again: Result<StoredSession?, RecordsFailure> = try answer {
            database.records.load(key: "a", completion: $0)
        }
        #expect(again == .failure(.unavailable))
    }

    @Test func inAFileAreSweptAndSurvive() throws {
        let database = try Database(.sqlite)
        for client in 0..<600 as Range<UInt64> {
            try database.save(client, keys: ["k\(client)"], basedOn: 0, lifetime: .milliseconds(1000))
        }
        try database.pass(20_000)
        // A batch with the first write, the rest with the next.
        for round in 0..<3 as Range<UInt64> { try database.save(1000, keys: ["x"], basedOn: round) }
        database.records.close()
        let child = try Child(
            "sqlite3", ["-bail", database.scratch.file("sessions.db"), ".backup '\(database.scratch.file("copy.db"))'"])
        #expect(child.wait() == 0)
        let copied = SQLiteDatabase(.init(path: database.scratch.file("copy.db"), schema: []))
        defer { copied.close() }
        let counts: Result<[Int64], SQLiteFailure> = try answer { completion in
            copied.perform(.read) { connection throws(SQLiteFailure) in
                var rows: [Int64] = []
                try connection.execute("SELECT count(*) FROM sessions UNION ALL SELECT count(*) FROM tokens") {
                    rows.append($0.integer(0))
                }
                return rows
            } completion: {
                completion($0)
            }
        }
        #expect(counts == .success([1, 1]))
    }

    @Test func inADamagedFileStartEmptyAndSaySo() throws {
        let scratch = try Scratch()
        let path = scratch.file("sessions.db")
        try Data("something else entirely, of some length......".utf8).write(to: URL(fileURLWithPath: path))
        let states = Journal<RecordsState>()
        let records = SQLiteSessions(path: path) { states.append($0) }
        defer { records.close() }
        let all = try states.wait("up") { $0.last == .up }
        #expect(all == [.notice("the file was damaged and is now \(path).corrupt-1; starting empty"), .up])
    }
}
