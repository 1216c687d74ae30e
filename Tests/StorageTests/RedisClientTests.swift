import Testing
import Wire

@testable import Storage

@Suite(.serialized) struct RedisClients {
    @Test func pipelineInOrder() throws {
        let (server, redis) = try connected()
        defer { redis.close(with: server) }
        let replies = Journal<Result<RedisReply, RedisFailure>>()
        for _ in 0..<5000 {
            redis.client.submit(["INCR", "n"], deadline: .seconds(20)) { replies.append($0) }
        }
        let all = try replies.wait { $0.count >= 5000 }
        #expect(all == (1...5000).map { .success(.integer($0)) })
    }

    @Test func understandEveryKindOfReply() throws {
        let (server, redis) = try connected()
        defer { redis.close(with: server) }
        let binary = (0...255).map { UInt8($0) }
        #expect(try redis.reply("SET", "k", .bytes(binary)) == .success(.status("OK")))
        #expect(try redis.reply("GET", "k") == .success(.bytes(binary)))
        #expect(try redis.reply("GET", "none") == .success(.null))
        #expect(try redis.reply("STRLEN", "k") == .success(.integer(256)))
        #expect(try redis.reply("SET", "empty", "") == .success(.status("OK")))
        #expect(try redis.reply("GET", "empty") == .success(.bytes([])))
        guard case .failure(.server(let error)) = try redis.reply("INCR", "k") else {
            Issue.record("not refused")
            return
        }
        #expect(error.code == "ERR")
        #expect(!error.message.isEmpty)
        let nested = try redis.reply("EVAL", "return {1,{'a',false,{}},redis.error_reply('OOPS x')}", 0)
        #expect(
            nested
                == .success(
                    .array([
                        .integer(1), .array([.bytes([97]), .null, .array([])]),
                        .error(RedisError(code: "OOPS", message: "x")),
                    ])))
    }

    @Test func keepLanesApartAndEachInOrder() throws {
        let (server, redis) = try connected { $0.lanes = 3 }
        defer { redis.close(with: server) }
        let replies = Journal<Int64>()
        for number in 0..<3000 {
            redis.client.submit(["INCR", .integer(Int64(number % 3))], lane: number % 3, deadline: .seconds(20)) {
                replies.append((try? $0.get().integerValue) ?? -1)
            }
        }
        let all = try replies.wait { $0.count >= 3000 }
        #expect(all.sorted() == (1...1000).flatMap { [$0, $0, $0] })
        guard case .success(.bytes(let list)) = try redis.reply("CLIENT", "LIST") else {
            Issue.record("no list")
            return
        }
        #expect(String(decoding: list, as: UTF8.self).split(separator: "\n").count == 3)
    }

    @Test func useADatabaseAndASocketFile() throws {
        let scratch = try Scratch()
        let path = scratch.file("redis.sock")
        let server = try RedisServer(["--unixsocket", path], scratch: scratch)
        let redis = Connected(try RedisAddress(parsing: "redis+unix:\(path)?db=5"))
        defer { redis.client.close() }
        try redis.waitUntilUp()
        #expect(try redis.reply("SET", "k", "v") == .success(.status("OK")))
        let other = Connected(try RedisAddress(parsing: "redis://localhost:\(server.port)/5"))
        defer { other.client.close() }
        try other.waitUntilUp()
        #expect(try other.reply("GET", "k") == .success(.bytes([118])))
        let wrong = Connected(try RedisAddress(parsing: "redis://127.0.0.1:\(server.port)/9999"))
        defer { wrong.client.close() }
        try wrong.waitUntilDown { $0 == .refused(code: "ERR") }
    }

    // MARK: Time

    @Test func aLateReplyIsDroppedAndNotMistakenForAnother() throws {
        let (server, redis) = try connected()
        let other = try connected(to: server)
        defer { redis.close(with: server, other) }
        #expect(try redis.reply("SET", "a", "1") == .success(.status("OK")))
        // All writes wait until the pause is over; it is lifted when the deadline has been seen to pass.
        #expect(try other.reply("CLIENT", "PAUSE", 60_000, "WRITE") == .success(.status("OK")))
        #expect(try redis.reply("INCRBY", "a", 10, deadline: .milliseconds(30)) == .failure(.deadline))
        let next = Journal<Result<RedisReply, RedisFailure>>()
        redis.client.submit(["GET", "a"], deadline: .seconds(20)) { next.append($0) }
        #expect(try other.reply("CLIENT", "UNPAUSE") == .success(.status("OK")))
        #expect(try next.wait { !$0.isEmpty } == [.success(.bytes(Array("11".utf8)))])
        #expect(redis.client.state == .up)
        // Counted at the end of the turn that the replies came in, so before the next one.
        #expect(try redis.reply("PING") == .success(.status("PONG")))
        #expect(redis.client.counters.lateReplies == 1 && redis.client.counters.deadlines == 1)
    }

    @Test func aServerThatDoesNotAnswerIsDownUntilItDoes() throws {
        let (server, redis) = try connected { $0.stallTimeout = .milliseconds(50) }
        let other = try connected(to: server)
        defer { redis.close(with: server, other) }
        #expect(try other.reply("CLIENT", "PAUSE", 60_000, "WRITE") == .success(.status("OK")))
        let slow = Journal<Result<RedisReply, RedisFailure>>()
        redis.client.submit(["SET", "a", "1"], deadline: .seconds(20)) { slow.append($0) }
        try redis.waitUntilDown { $0 == .silent }
        #expect(try redis.reply("GET", "a") == .failure(.unavailable))
        #expect(try other.reply("CLIENT", "UNPAUSE") == .success(.status("OK")))
        #expect(try slow.wait { !$0.isEmpty } == [.success(.status("OK"))])
        try redis.waitUntilUp()
        // The same connection.
        #expect(redis.client.counters.connects == 1)
        #expect(try redis.reply("GET", "a") == .success(.bytes([49])))
    }

    @Test func aSilentServerIsGivenUp() throws {
        let listener = try Listener()
        listener.serve { number, fd in
            guard Listener.receive(from: fd) != nil else { return }
            Listener.send("+PONG\r\n", to: fd)
            Listener.drain(fd)
        }
        let redis = Connected(try listener.address()) {
            $0.stallTimeout = .milliseconds(20)
            $0.silenceTimeout = .milliseconds(100)
        }
        defer { redis.close(with: listener) }
        try redis.waitUntilUp()
        #expect(try redis.reply("GET", "a") == .failure(.connectionLost))
        try redis.states.wait("up again") { $0.count { $0 == .up } >= 2 }
    }

    @Test func anIdleConnectionIsTried() throws {
        let pings = Journal<String>()
        let listener = try Listener()
        listener.serve { _, fd in
            while let text = Listener.receive(from: fd) {
                pings.append(text)
                if pings.all.count < 4 { Listener.send("+PONG\r\n", to: fd) }
            }
        }
        let redis = Connected(try listener.address()) {
            $0.pingInterval = .milliseconds(10)
            $0.stallTimeout = .milliseconds(200)
            $0.silenceTimeout = .seconds(20)
        }
        defer { redis.close(with: listener) }
        try redis.waitUntilDown { $0 == .silent }
        #expect(Set(pings.all) == ["*1\r\n$4\r\nPING\r\n"])
    }

    @Test func aServerThatNeverGreetsIsNoServer() throws {
        let listener = try Listener()
        let visits = Journal<Int>()
        listener.serve { number, fd in
            visits.append(number)
            Listener.drain(fd)
        }
        let redis = Connected(try listener.address()) {
            $0.connectTimeout = .milliseconds(50)
        }
        defer { redis.close(with: listener) }
        try redis.waitUntilDown { $0 == .cannotConnect("no answer in time") }
        // The third visit comes after two that failed.
        try visits.wait("a third visit") { $0.count >= 3 }
        #expect(redis.client.counters.failedConnects >= 2)
    }

    // MARK: Loss

    @Test func aServerThatWasKilledComesBack() throws {
        let (server, redis) = try connected()
        defer { redis.close(with: server) }
        #expect(try redis.reply("PING") == .success(.status("PONG")))
        server.kill()
        try redis.states.wait("down") { $0.last != .up }
        // Refused at once, on this thread.
        let refused = Journal<Result<RedisReply, RedisFailure>>()
        redis.client.submit(["PING"], deadline: .seconds(20)) { refused.append($0) }
        #expect(refused.all == [.failure(.unavailable)])
        let before = redis.states.all.count
        try server.start()
        try redis.states.wait("up again") { $0.dropFirst(before).last == .up }
        #expect(try redis.reply("PING") == .success(.status("PONG")))
        #expect(redis.client.counters.lostConnections == 1)
    }

    @Test func whatWasUnderWayFailsWithTheConnection() throws {
        let (server, redis) = try connected()
        let other = try connected(to: server)
        defer { redis.close(with: server, other) }
        _ = try other.reply("CLIENT", "PAUSE", 60_000, "WRITE")
        let results = Journal<Result<RedisReply, RedisFailure>>()
        for _ in 0..<100 { redis.client.submit(["INCR", "n"], deadline: .seconds(20)) { results.append($0) } }
        server.kill()
        let all = try results.wait { $0.count >= 100 }
        #expect(all.allSatisfy { $0 == .failure(.connectionLost) || $0 == .failure(.unavailable) })
        #expect(all.count == 100)
    }

    @Test func nobodyThere() throws {
        let server = try RedisServer()
        server.kill()
        let redis = Connected(try server.address())
        defer { redis.client.close() }
        try redis.waitUntilDown { $0 == .cannotConnect("Connection refused") }
        #expect(redis.client.counters.failedConnects >= 1)
        // It is tried again.
        try server.start()
        try redis.waitUntilUp()
        let nowhere = Connected(try RedisAddress(parsing: "redis+unix:/nowhere/redis.sock"))
        defer { nowhere.client.close() }
        try nowhere.waitUntilDown { $0 == .cannotConnect("No such file or directory") }
        let unnamed = Connected(try RedisAddress(parsing: "redis://no-such-host.invalid"))
        defer { unnamed.client.close() }
        try unnamed.waitUntilDown { if case .unknownHost = $0 { true } else { false } }
    }

    @Test func closingFailsWhatIsUnderWay() throws {
        let listener = try Listener()
        listener.serve { _, fd in
            greet(fd)
            Listener.drain(fd)
        }
        defer { listener.stop() }
        let redis = Connected(try listener.address())
        try redis.waitUntilUp()
        let results = Journal<Result<RedisReply, RedisFailure>>()
        for _ in 0..<50 { redis.client.submit(["GET", "x"], deadline: .seconds(20)) { results.append($0) } }
        redis.client.close()
        // All of them have been told when close() returns.
        #expect(results.all == Array(repeating: .failure(.closed), count: 50))
        #expect(try redis.reply("GET", "x") == .failure(.closed))
        redis.client.close()
    }

    @Test func aClientWithoutAnOwnerEnds() throws {
        let gone = Journal<Bool>()
        let listener = try Listener()
        listener.serve { _, fd in
            greet(fd)
            Listener.drain(fd)
            gone.append(true)
        }
        defer { listener.stop() }
        do { try Connected(try listener.address()).waitUntilUp() }
        try gone.wait("the end of the connection") { !$0.isEmpty }
    }

    // MARK: Bounds

    @Test func whatIsUnderWayIsBounded() throws {
        let listener = try Listener()
        let mayGoOn = Journal<Bool>()
        /// Sent when nothing is under way.
        let pings = Journal<Bool>()
        listener.serve { _, fd in
            var owed = 0
            while let text = Listener.receive(from: fd) {
                for _ in text.split(separator: "PING", omittingEmptySubsequences: false).dropFirst() {
                    Listener.send("+PONG\r\n", to: fd)
                    if owed == 10 { pings.append(true) }
                }
                owed += text.split(separator: "GET", omittingEmptySubsequences: false).count - 1
                guard owed == 10, mayGoOn.all.isEmpty else { continue }
                _ = try? mayGoOn.wait { !$0.isEmpty }
                Listener.send(String(repeating: ":1\r\n", count: 10), to: fd)
            }
        }
        let redis = Connected(try listener.address()) {
            $0.maximumCommands = 10
            $0.maximumBytes = 1000
            $0.pingInterval = .milliseconds(10)
        }
        defer { redis.close(with: listener) }
        try redis.waitUntilUp()
        #expect(try redis.reply("SET", "x", .bytes(Array(repeating: 0, count: 1000))) == .failure(.tooLarge))
        let replies = Journal<Result<RedisReply, RedisFailure>>()
        // Expired commands still count: their replies are to come.
        for _ in 0..<10 { redis.client.submit(["GET", "x"], deadline: .milliseconds(1)) { replies.append($0) } }
        #expect(try replies.wait { $0.count >= 10 } == Array(repeating: .failure(.deadline), count: 10))
        #expect(try redis.reply("GET", "x") == .failure(.overloaded))
        mayGoOn.append(true)
        // At the latest in the turn after the first of these is known what came before it.
        try pings.wait("two pings") { $0.count >= 2 }
        #expect(redis.client.counters.lateReplies == 10)
        let bytes = RedisArgument.bytes(Array(repeating: 0, count: 600))
        redis.client.submit(["SET", "x", bytes], deadline: .seconds(20)) { _ in }
        #expect(try redis.reply("SET", "x", bytes) == .failure(.overloaded))
        #expect(redis.client.counters.refused == 2)
    }

    @Test func aHugeReplyClosesTheConnection() throws {
        let (server, redis) = try connected { $0.maximumReplyBytes = 1 << 20 }
        defer { redis.close(with: server) }
        #expect(try redis.reply("SETRANGE", "big", 1_000_000, "x") == .success(.integer(1_000_001)))
        #expect(try redis.reply("GETRANGE", "big", 0, 900_000).get().bytesValue?.count == 900_001)
        #expect(try redis.reply("SETRANGE", "big", 5_000_000, "x") == .success(.integer(5_000_001)))
        #expect(try redis.reply("GET", "big") == .failure(.connectionLost))
        try redis.waitUntilDown { $0 == .protocolViolation("a reply exceeds the size limit") }
        try redis.states.wait("up again") { $0.count { $0 == .up } == 2 }
        #expect(try redis.reply("STRLEN", "big") == .success(.integer(5_000_001)))
        // Many small elements count as well.
        #expect(try redis.reply("EVAL", "for i=1,50000 do redis.call('RPUSH','l','') end", 0) == .success(.null))
        #expect(try redis.reply("LRANGE", "l", 0, -1) == .failure(.connectionLost))
        try redis.states.wait("up a third time") { $0.count { $0 == .up } == 3 }
        #expect(redis.client.counters.violations == 2)
    }

    // MARK: Credentials

    @Test func passwords() throws {
        let server = try RedisServer(["--requirepass", "hunter2"])
        let right = Connected(try server.address(":hunter2@"))
        defer { right.client.close() }
        try right.waitUntilUp()
        #expect(
            try right.reply("ACL", "SETUSER", "alice", "on", ">wonder land", "~*", "+@all")
                == .success(.status("OK")))
        let named = Connected(try server.address("alice:wonder%20land@"))
        defer { named.client.close() }
        try named.waitUntilUp()
        #expect(try named.reply("ACL", "WHOAMI") == .success(.bytes(Array("alice".utf8))))
        let wrong = Connected(try server.address(":hunter3@"))
        defer { wrong.client.close() }
        try wrong.waitUntilDown { $0 == .authentication(code: "WRONGPASS") }
        let none = Connected(try server.address())
        defer { none.client.close() }
        try none.waitUntilDown { $0 == .authentication(code: "NOAUTH") }
        #expect(try none.reply("PING") == .failure(.unavailable))
        // Corrected on the server, it comes up by itself.
        #expect(try right.reply("CONFIG", "SET", "requirepass", "hunter3") == .success(.status("OK")))
        try wrong.waitUntilUp()
    }

    @Test func aServerThatRepeatsThePasswordIsNotQuoted() throws {
        let listener = try Listener()
        listener.serve { _, fd in
            _ = Listener.receive(from: fd)
            Listener.send("-ERR unknown command 'AUTH', with args beginning with: 'hunter2'\r\n", to: fd)
            Listener.drain(fd)
        }
        let other = try Listener()
        other.serve { _, fd in
            _ = Listener.receive(from: fd)
            Listener.send("-hunter2 is wrong\r\n", to: fd)
            Listener.drain(fd)
        }
        for port in [listener.port, other.port] {
            let redis = Connected(try RedisAddress(parsing: "redis://:hunter2@127.0.0.1:\(port)"))
            defer { redis.client.close() }
            try redis.waitUntilDown { $0 == .authentication(code: "ERR") }
        }
        listener.stop()
        other.stop()
    }

    // MARK: Scripts

    @Test func scriptsAreLoadedAndReloaded() throws {
        let loaded = RedisScript("return {KEYS[1], ARGV[1]}")
        let unknown = RedisScript("return redis.call('INCR', KEYS[1])")
        let (server, redis) = try connected { $0.scripts = [loaded] }
        defer { redis.close(with: server) }
        let pair = RedisReply.array([.bytes([107]), .bytes([97])])
        #expect(
            try answer {
                redis.client.run(loaded, keys: ["k"], arguments: ["a"], deadline: .seconds(20), completion: $0)
            } == .success(pair))
        #expect(redis.client.counters.scriptsReloaded == 0)
        #expect(
            try answer { redis.client.run(unknown, keys: ["n"], deadline: .seconds(20), completion: $0) }
                == .success(.integer(1)))
        #expect(
            try answer { redis.client.run(unknown, keys: ["n"], deadline: .seconds(20), completion: $0) }
                == .success(.integer(2)))
        #expect(redis.client.counters.scriptsReloaded == 1)
        #expect(try redis.reply("SCRIPT", "FLUSH") == .success(.status("OK")))
        #expect(
            try answer {
                redis.client.run(loaded, keys: ["k"], arguments: ["a"], deadline: .seconds(20), completion: $0)
            } == .success(pair))
        #expect(redis.client.counters.scriptsReloaded == 2)
        let broken = RedisScript("return redis.call('NONSENSE')")
        guard
            case .failure(.server) = try answer({
                redis.client.run(broken, keys: [], deadline: .seconds(20), completion: $0)
            })
        else {
            Issue.record("ran")
            return
        }
    }

    // MARK: Servers that are none

    @Test(arguments: [
        "HTTP/1.1 400 Bad Request\r\n\r\n", "\0\0\0\0", "$999999999999\r\n", "*2147483647\r\n", "*-5\r\n", "$-7\r\n",
        ":12x\r\n", "+PONG\r\n+MORE\r\n", "$4\r\nPONGxx", String(repeating: "*1\r\n", count: 12), "%1\r\n",
        "+" + String(repeating: "x", count: 300_000), "-ERR no\r\n", "$4\r\nnope\r\n", "*0\r\n", ",1.5\r\n", "#t\r\n",
    ])
    func garbageIsCountedAndLeft(_ garbage: String) throws {
        let listener = try Listener()
        let visits = Journal<Int>()
        listener.serve { number, fd in
            _ = Listener.receive(from: fd)
            visits.append(number)
            Listener.send(number == 0 ? garbage : "+PONG\r\n", to: fd)
            Listener.drain(fd)
        }
        let redis = Connected(try listener.address()) {
            $0.maximumReplyBytes = 200_000
            $0.connectTimeout = .milliseconds(500)
        }
        defer { redis.close(with: listener) }
        try redis.waitUntilDown()
        try redis.states.wait("up after garbage") { states in
            states.contains { $0 != .up } && states.last == .up
        }
    }

    @Test func garbageAfterTheGreetingFailsWhatIsUnderWay() throws {
        let listener = try Listener()
        listener.serve { number, fd in
            greet(fd)
            guard number == 0 else { return Listener.drain(fd) }
            _ = Listener.receive(from: fd)
            Listener.send("$3\r\nabc\r\nwhat?\r\n", to: fd)
            Listener.drain(fd)
        }
        let redis = Connected(try listener.address())
        defer { redis.close(with: listener) }
        try redis.waitUntilUp()
        let results = Journal<Result<RedisReply, RedisFailure>>()
        for _ in 0..<2 { redis.client.submit(["GET", "x"], deadline: .seconds(20)) { results.append($0) } }
        let all = try results.wait { $0.count == 2 }
        #expect(all[1] == .failure(.connectionLost) || all[1] == .failure(.unavailable))
        try redis.waitUntilDown { if case .protocolViolation = $0 { true } else { false } }
        #expect(redis.client.counters.violations == 1)
        try redis.states.wait("up again") { $0.count { $0 == .up } == 2 }
    }
}

/// A server, and a client that is up.
private func connected(
    _ change: (inout RedisClient.Configuration) -> Void = { _ in }
) throws -> (server: RedisServer, redis: Connected) {
    let server = try RedisServer()
    return (server, try connected(to: server, change))
}

private func connected(
    to server: RedisServer, _ change: (inout RedisClient.Configuration) -> Void = { _ in }
) throws -> Connected {
    let redis = Connected(try server.address(), change)
    try redis.waitUntilUp()
    return redis
}

extension Connected {
    /// Ends it, its server and the server's other clients.
    fileprivate func close(with server: RedisServer, _ others: Connected...) {
        for one in [self] + others { one.client.close() }
        server.kill()
    }

    /// Ends it and the listener that played its server.
    fileprivate func close(with listener: Listener) {
        client.close()
        listener.stop()
    }
}

extension Listener {
    fileprivate func address() throws -> RedisAddress { try RedisAddress(parsing: "redis://127.0.0.1:\(port)") }
}

/// Answers the greeting.
private func greet(_ fd: Int32) {
    _ = Listener.receive(from: fd)
    Listener.send("+PONG\r\n", to: fd)
}
