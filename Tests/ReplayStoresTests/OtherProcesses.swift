import Foundation
import Glibc
import Replay
import Storage
import Testing
import Wire

@testable import ReplayStores

/// This test program again, as another process: it runs the test `inAnotherProcess` only, which does what the
/// environment says, and writes lines into a pipe.
final class OtherProcess {
    let child: Child
    private let pipe: Int32
    private var text: [UInt8] = []
    private(set) var lines: [String] = []

    /// `file` is where its pipe is made.
    init(_ role: String, _ arguments: String, file: String) throws {
        var path = [CChar](repeating: 0, count: 4_096)
        let count = readlink("/proc/self/exe", &path, path.count - 1)
        guard count > 0 else { throw Overdue(what: "this program's name") }
        let program = String(decoding: path.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        var words = Array(CommandLine.arguments.dropFirst())
        // Other choices of tests are not for this one.
        while let index = words.firstIndex(of: "--filter") {
            words.removeSubrange(index...min(index + 1, words.count - 1))
        }
        guard mkfifo(file, 0o600) == 0 else { throw Overdue(what: "a pipe") }
        // For writing too: so it does not end with its first writer.
        pipe = open(file, O_RDWR | O_NONBLOCK | O_CLOEXEC)
        guard pipe >= 0 else { throw Overdue(what: "a pipe") }
        child = try Child(
            "env",
            ["REPLAY_ROLE=\(role)", "REPLAY_ARGUMENTS=\(arguments)", "REPLAY_OUTPUT=\(file)", program] + words
                + ["--filter", "inAnotherProcess"])
    }

    deinit { close(pipe) }

    /// Takes what has been said.
    func take() {
        var bytes = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = read(pipe, &bytes, bytes.count)
            guard count > 0 else { break }
            text += bytes.prefix(count)
        }
        while let end = text.firstIndex(of: 0x0A) {
            lines.append(String(decoding: text[..<end], as: UTF8.self))
            text.removeFirst(end + 1)
        }
    }

    func wait(_ what: String, until isEnough: ([String]) -> Bool) throws {
        while true {
            take()
            if isEnough(lines) { return }
            var entry = pollfd(fd: pipe, events: Int16(POLLIN), revents: 0)
            guard poll(&entry, 1, Int32(patience * 1_000)) > 0 else {
                throw Overdue(what: "\(what): \(lines.suffix(3))")
            }
        }
    }
}

private var environment: [String: String] { ProcessInfo.processInfo.environment }

@Suite struct OtherProcesses {
    @Test(.enabled(if: environment["REPLAY_ROLE"] != nil)) func inAnotherProcess() throws {
        let arguments = (environment["REPLAY_ARGUMENTS"] ?? "").split(separator: " ").map(String.init)
        let output = open(environment["REPLAY_OUTPUT"] ?? "", O_WRONLY)
        guard output >= 0 else { throw Overdue(what: "a file to write to") }
        func say(_ line: String) {
            let bytes = Array((line + "\n").utf8)
            _ = write(output, bytes, bytes.count)
        }
        switch environment["REPLAY_ROLE"] {
        case "file": try writeDurably(arguments[0], say)
        case "full": try writeUntilFull(arguments[0], say)
        case "redis": try publishToRedis(UInt16(arguments[0]) ?? 0, arguments[1], Int(arguments[2]) ?? 0, say)
        default: Issue.record("an unknown role")
        }
    }

    /// Until it is killed. Many are under way at once, and what is said is what was acknowledged.
    private func writeDurably(_ path: String, _ say: (String) -> Void) throws {
        let clock = TestClock()
        let scene = try FileScene(path, clock: clock, isDurable: true, Self.rooms)
        let ann = try scene.join("ann")
        let bob = try scene.join("bob")
        say("\(bob.joined.token.high) \(bob.joined.token.low) \(bob.position.epoch)")
        var sent = 0
        while true {
            for _ in 0..<8 {
                sent += 1
                _ = scene.submit(
                    .publish(
                        room: ann.membership.room, from: ann.membership.user, to: nil, MessageProperties(),
                        payload: Array("message \(sent)".utf8)))
            }
            for outcome in try scene.outcomes(8) {
                guard case .published(let published) = outcome else { throw Overdue(what: "a publish: \(outcome)") }
                say("\(published.position.sequence)")
            }
        }
    }

    /// No file of this process may grow beyond a limit; then it may.
    private func writeUntilFull(_ path: String, _ say: (String) -> Void) throws {
        signal(SIGXFSZ, SIG_IGN)
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(1), &limit)
        let all = limit.rlim_cur
        limit.rlim_cur = 2_000_000
        setrlimit(__rlimit_resource_t(1), &limit)
        let scene = try FileScene(path, clock: TestClock(), isDurable: true, Self.rooms)
        let ann = try scene.join("ann")
        let bob = try scene.join("bob")
        let text = String(repeating: "x", count: 1_000)
        var acknowledged: UInt64 = 0
        var refusals = 0
        while refusals < 3, acknowledged < 10_000 {
            do {
                let sequence = try scene.publish(text, from: ann)
                guard sequence == acknowledged + 1 else { throw Overdue(what: "\(sequence) after \(acknowledged)") }
                acknowledged = sequence
            } catch Refusal.unavailable { refusals += 1 }
        }
        say("acknowledged \(acknowledged)")
        limit.rlim_cur = all
        setrlimit(__rlimit_resource_t(1), &limit)
        say("next \(try scene.publish(text, from: ann))")
        let operation = Replay.Operation.recover(
            bob.membership, generation: bob.joined.generation, .position(bob.position))
        guard case .recovered(let recovery, let batch) = try scene.perform(operation) else {
            throw Overdue(what: "a replay")
        }
        say("\(recovery.verdict) \(batch.count)")
    }

    private func publishToRedis(_ port: UInt16, _ name: String, _ count: Int, _ say: (String) -> Void) throws {
        let host = try LiveHost.redis(
            address: try RedisAddress(parsing: "redis://127.0.0.1:\(port)"), Self.rooms, seed: .random(in: 0 ... .max))
        let room = try RoomName("lobby")
        _ = try host.join(name, room)
        say("ready")
        // Together with the others.
        try host.subscribe(room)
        try host.wait("the beginning") { $0.texts.contains("begin") }
        for index in 0..<count {
            let position = try host.publish("\(name) \(index)", room, from: name)
            say("\(position.sequence) \(name) \(index)")
        }
        say("done")
    }

    private static var rooms: Replay.Configuration {
        var rooms = Replay.Configuration()
        rooms.window = 1 << 16
        rooms.maximumRoomBytes = 64 << 20
        rooms.maximumBatch = 1 << 20
        rooms.maximumBatchBytes = 64 << 20
        rooms.maximumMessageSize = 1 << 10
        return rooms
    }

    /// kill -9 of the host: everything acknowledged as durable is there.
    @Test(.disabled(if: environment["REPLAY_ROLE"] != nil), arguments: 0..<3)
    func whatAFileAcknowledgedSurvivesAKill(_ round: Int) throws {
        let scratch = try Scratch()
        let other = try OtherProcess("file", scratch.file("rooms.db"), file: scratch.file("acknowledged"))
        try other.wait("acknowledgements") { $0.count > 100 + 300 * round }
        other.child.kill()
        other.take()
        let lines = other.lines
        let words = lines[0].split(separator: " ").compactMap { UInt64($0) }
        let acknowledged = lines.dropFirst().compactMap { UInt64($0) }
        #expect(words.count == 3 && acknowledged == Array(1...UInt64(acknowledged.count)))
        let scene = try FileScene(scratch.file("rooms.db"), isDurable: true, Self.rooms)
        let resume = Resume(
            token: ResumeToken(high: words[0], low: words[1]),
            position: .position(Position(epoch: words[2], sequence: 0)))
        let back = try scene.join("bob", resume: resume)
        #expect(back.joined.recovery.verdict == .recovered)
        #expect(back.batch.count >= acknowledged.count)
        #expect(back.batch.texts == (1...back.batch.count).map { "message \($0)" })
        #expect(back.batch.records.map(\.sequence) == Array(1...UInt64(back.batch.count)))
    }

    /// A full disk refuses, loses nothing, and is forgiven when there is space again.
    @Test(.disabled(if: environment["REPLAY_ROLE"] != nil)) func aFullDiskLosesNothing() throws {
        let scratch = try Scratch()
        let other = try OtherProcess("full", scratch.file("rooms.db"), file: scratch.file("said"))
        try other.wait("the verdict") { $0.count == 3 }
        let count = try #require(Int(other.lines[0].split(separator: " ").last ?? ""))
        #expect(count > 10 && count < 1_000)
        #expect(other.lines[1] == "next \(count + 1)" && other.lines[2] == "recovered \(count + 1)")
    }

    /// Four processes, one room: the order of the numbers is the order in which messages are stored, and live.
    @Test(.disabled(if: environment["REPLAY_ROLE"] != nil)) func fourShareARoomInRedis() throws {
        let server = try RedisServer()
        let scratch = try Scratch()
        let count = 200
        let reader = try LiveHost.redis(server, Self.rooms, seed: 77)
        let room = try RoomName("lobby")
        let joined = try reader.join("reader", room)
        try reader.subscribe(room)
        let others = try (0..<4).map {
            try OtherProcess("redis", "\(server.port) w\($0) \(count)", file: scratch.file("w\($0)"))
        }
        for other in others { try other.wait("ready") { $0.first == "ready" } }
        // Those who are there a moment later must hear it too.
        while others.contains(where: { $0.lines.count < 2 }) {
            try reader.publish("begin", room)
            for other in others { other.take() }
        }
        for other in others { try other.wait("all") { $0.last == "done" } }
        var stored: [UInt64: String] = [:]
        for other in others {
            var last: UInt64 = 0
            for line in other.lines where line.contains(" ") {
                let words = line.split(separator: " ", maxSplits: 1)
                let sequence = try #require(UInt64(words[0]))
                #expect(sequence > last && stored[sequence] == nil)
                last = sequence
                stored[sequence] = String(words[1])
            }
        }
        #expect(stored.count == 4 * count)
        let outcome = try reader.perform(
            .recover(
                Membership(room: room, user: try UserName("reader")), generation: joined.generation,
                .position(joined.recovery.position)))
        guard case .recovered(let recovery, let batch) = outcome else {
            Issue.record("\(outcome)")
            return
        }
        #expect(recovery.verdict == .recovered)
        let texts = batch.texts
        for (index, record) in batch.records.enumerated() {
            #expect(record.sequence == UInt64(index + 1))
            #expect(texts[index] == stored[record.sequence] ?? "begin")
        }
        try reader.wait("all") { $0.messages.count == batch.count }
        #expect(reader.texts == texts)
    }
}
