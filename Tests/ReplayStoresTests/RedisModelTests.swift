import Foundation
import Replay
import Storage
import Testing
import Wire

@testable import ReplayStores

/// Random schedules on a real Redis, by two servers that share it: publish, join, drop, leave, lose a server, lose keys
/// and messages, flush, forget scripts, pause, jump with the clock. A small oracle remembers what was acknowledged, and
/// holds every replay to it: nothing lost, doubled, out of order, or for somebody else, where the verdict is "recovered".
private struct RedisModel {
    struct Wrong: Error { let what: String }

    /// What a client knows.
    struct Client {
        let membership: Membership
        /// The person, as against the name.
        var person: Int
        var joined: Joined
        var position: Position
    }

    struct Said {
        let text: String
        let from: Int?
        let to: Int?
    }

    let prefix: String
    let clock = TestClock()
    let rooms: Replay.Configuration
    let server: RedisServer
    let control: Connected
    var servers: [RedisScene] = []
    var random: SeededGenerator
    var clients: [Client] = []
    var said: [Position: Said] = [:]
    /// Submitted, and nobody knows whether they were done.
    var unsure: [String: Said] = [:]
    var lastText = 0
    var lastPerson = 0
    var verdicts: [Verdict: Int] = [:]
    private(set) var wasKilled = false

    init(_ server: RedisServer, _ control: Connected, seed: UInt64) throws {
        self.server = server
        self.control = control
        random = SeededGenerator(seed: seed)
        prefix = "model \(seed):"
        var rooms = Replay.Configuration()
        rooms.window = Int.random(in: 2...24, using: &random)
        rooms.maximumRoomBytes = Bool.random(using: &random) ? 200 : 1 << 20
        rooms.maximumMessageSize = 100
        rooms.messageLifetime = .seconds(20)
        rooms.stateLifetime = .seconds(200)
        rooms.maximumBatch = Int.random(in: 3...40, using: &random)
        rooms.maximumBytes = Bool.random(using: &random) ? 4_000 : 256 << 20
        self.rooms = rooms
        for _ in 0..<2 { servers.append(try makeServer()) }
    }

    private mutating func makeServer() throws -> RedisScene {
        let prefix = prefix
        return try RedisScene(server, clock: clock, seed: random.next(), rooms) {
            $0.prefix = prefix
            $0.redis.firstPause = .milliseconds(1)
            $0.redis.longestPause = .milliseconds(2)
        }
    }

    private mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }
    private mutating func scene() -> RedisScene { servers[Int.random(in: 0..<servers.count, using: &random)] }

    private func raw(_ command: [RedisArgument]) throws {
        let result: Result<RedisReply, RedisFailure> = try answer {
            control.client.submit(command, deadline: .seconds(20), completion: $0)
        }
        _ = try result.get()
    }

    private func key(_ kind: String, _ room: String) -> RedisArgument { .text(prefix + kind + ":{" + room + "}") }

    mutating func step() throws {
        let room = chance(80) ? "lobby" : "other"
        switch Int.random(in: 0..<100, using: &random) {
        case 0..<50: try publish(room)
        case 50..<62: try join(room, isNew: chance(30))
        case 62..<80: try recover()
        case 80..<84:
            guard let client = clients.randomElement(using: &random) else { return }
            _ = try scene().perform(.drop(client.membership, generation: client.joined.generation))
        case 84..<86:
            guard let index = clients.indices.randomElement(using: &random) else { return }
            let client = clients.remove(at: index)
            _ = try scene().perform(.leave(client.membership, generation: client.joined.generation))
        case 86..<88:
            // A server dies; its connections are not dropped by anybody.
            servers[Int.random(in: 0..<servers.count, using: &random)] = try makeServer()
        case 88..<90: try raw(["DEL", key(["buffer", "state", "seq"].randomElement(using: &random) ?? "seq", room)])
        case 90..<92:
            try raw(["XTRIM", key("buffer", room), "MAXLEN", .integer(Int64.random(in: 0...4, using: &random))])
        case 92..<93: try raw(["SCRIPT", "FLUSH"])
        case 93..<94: for kind in ["buffer", "state", "seq"] { try raw(["DEL", key(kind, room)]) }
        case 94..<95: _ = try scene().perform(.reset(try RoomName(room), .degraded))
        case 95..<96: if chance(15) { try killTheStore() } else { try loseAnAnswer(room) }
        // For less than anybody waits.
        case 96..<97 where chance(30): try raw(["CLIENT", "PAUSE", "2"])
        case 96..<97: clock.pass(.seconds(-Int64.random(in: 1...30, using: &random)))
        default: clock.pass(.seconds(Int64.random(in: 1...25, using: &random)))
        }
    }

    /// The client that the name speaks for now.
    private mutating func sender(_ room: String) -> Client? {
        clients.filter { $0.membership.room.text == room }.randomElement(using: &random)
    }

    private mutating func message(_ room: String) throws -> (Replay.Operation, Said) {
        lastText += 1
        let from = chance(80) ? sender(room) : nil
        let to = chance(30) ? sender(room) : nil
        let said = Said(text: "\(lastText)", from: from?.person, to: to?.person)
        return (
            .publish(
                room: try RoomName(room), from: from?.membership.user, to: to?.membership.user, MessageProperties(),
                payload: Array(said.text.utf8)), said
        )
    }

    @discardableResult
    private mutating func publish(_ room: String) throws -> Position? {
        let (operation, said) = try message(room)
        switch try scene().perform(operation) {
        case .published(let published):
            guard !published.isDuplicate, self.said[published.position] == nil else {
                throw Wrong(what: "\(published.position) was given out twice")
            }
            self.said[published.position] = said
            return published.position
        case .refused(.unavailable), .refused(.unknownRoom), .refused(.unknownUser), .refused(.unknownRecipient):
            return nil
        case let other: throw Wrong(what: "publish: \(other)")
        }
    }

    /// The connection breaks before the answer.
    private mutating func loseAnAnswer(_ room: String) throws {
        let scene = scene()
        let (operation, said) = try message(room)
        let (_, outcome) = scene.submit(operation)
        try raw(["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
        if outcome == nil {
            guard let (_, late) = try scene.outcomes(1).first else { return }
            if case .published(let published) = late {
                self.said[published.position] = said
            } else {
                unsure[said.text] = said
            }
        }
        for scene in servers { while scene.store.state != .up { try scene.waitForState() } }
        _ = try scene.perform(.state(Membership(room: try RoomName(room), user: try UserName("nobody"))))
    }

    /// It is there again with nothing, or with what it had a while ago. Once in a schedule is enough.
    private mutating func killTheStore() throws {
        guard !wasKilled else { return }
        wasKilled = true
        if chance(50) {
            try raw(["SAVE"])
            for _ in 0..<3 { try publish("lobby") }
        }
        server.kill()
        try control.waitUntilDown()
        try server.start()
        try control.waitUntilUp()
        for scene in servers { while scene.store.state != .up { try scene.waitForState() } }
        // A room that is there again has a new epoch, and no other one after that.
        var epochs: Set<UInt64> = []
        for _ in 0..<3 { if let position = try publish("lobby") { epochs.insert(position.epoch) } }
        guard epochs.count <= 1 else { throw Wrong(what: "epochs after a restart: \(epochs)") }
    }

    private mutating func join(_ room: String, isNew: Bool) throws {
        let known = clients.indices.filter { clients[$0].membership.room.text == room }.randomElement(using: &random)
        if let known, !isNew {
            let client = clients[known]
            let resume = Resume(token: client.joined.token, position: .position(client.position))
            switch try scene().perform(.join(client.membership, resume: resume)) {
            case .joined(let joined, let batch):
                try check(client, joined.recovery, batch)
                clients[known].joined = joined
                clients[known].position = joined.recovery.position
                if joined.token != client.joined.token {
                    lastPerson += 1
                    clients[known].person = lastPerson
                }
            case .refused(.unavailable): return
            case let other: throw Wrong(what: "join: \(other)")
            }
            return
        }
        let user = ["ann", "bob", "eve", "joe"].randomElement(using: &random) ?? "ann"
        let membership = Membership(room: try RoomName(room), user: try UserName(user))
        switch try scene().perform(.join(membership, resume: nil)) {
        case .joined(let joined, let batch):
            guard batch.isEmpty, joined.recovery.verdict == .fresh else { throw Wrong(what: "fresh: \(joined)") }
            lastPerson += 1
            clients.removeAll { $0.membership == membership }
            clients.append(
                Client(membership: membership, person: lastPerson, joined: joined, position: joined.recovery.position))
        case .refused(.unavailable): return
        case let other: throw Wrong(what: "join: \(other)")
        }
    }

    private mutating func recover() throws {
        guard let index = clients.indices.randomElement(using: &random) else { return }
        let client = clients[index]
        let operation = Replay.Operation.recover(
            client.membership, generation: client.joined.generation, .position(client.position))
        switch try scene().perform(operation) {
        case .recovered(let recovery, let batch):
            try check(client, recovery, batch)
            if chance(70) { clients[index].position = recovery.position }
        case .refused(.unknownRoom), .refused(.unknownUser), .refused(.stale), .refused(.unavailable): return
        case let other: throw Wrong(what: "recover: \(other)")
        }
    }

    private mutating func check(_ client: Client, _ recovery: Recovery, _ batch: Batch) throws {
        verdicts[recovery.verdict, default: 0] += 1
        var last: UInt64 = 0
        for (index, record) in batch.records.enumerated() {
            let place = Position(epoch: recovery.position.epoch, sequence: record.sequence)
            guard record.sequence > last, record.sequence <= recovery.position.sequence else {
                throw Wrong(what: "order: \(batch.records)")
            }
            last = record.sequence
            let text = String(decoding: batch.payload(index), as: UTF8.self)
            if said[place] == nil, let found = unsure.removeValue(forKey: text) { said[place] = found }
            guard let known = said[place], known.text == text else {
                throw Wrong(what: "\(place) is \(text), and not \(String(describing: said[place]))")
            }
            guard known.from != client.person, known.to == nil || known.to == client.person else {
                throw Wrong(what: "\(text) is not for \(client.person): \(known)")
            }
        }
        guard recovery.verdict.isRecovered else { return }
        let since = client.position
        guard recovery.position.epoch == since.epoch, recovery.position.sequence >= since.sequence else {
            throw Wrong(what: "recovered from \(since) to \(recovery.position)")
        }
        let wanted = said.filter { place, known in
            place.epoch == since.epoch && place.sequence > since.sequence && known.from != client.person
                && (known.to == nil || known.to == client.person)
        }
        let missing = wanted.keys.filter { place in !batch.records.contains { $0.sequence == place.sequence } }
        guard missing.isEmpty else {
            throw Wrong(what: "recovered from \(since) to \(recovery.position) without \(missing)")
        }
        guard batch.records.allSatisfy({ $0.sequence > since.sequence }) else { throw Wrong(what: "again: \(batch)") }
    }
}

@Suite(.serialized) struct RedisSchedules {
    @Test func keepWhatTheyPromise() throws {
        let count = ProcessInfo.processInfo.environment["REPLAY_REDIS_SCHEDULES"].flatMap { UInt64($0) } ?? 200
        let first = ProcessInfo.processInfo.environment["REPLAY_REDIS_SEED"].flatMap { UInt64($0) } ?? 0
        let server = try RedisServer(["--dbfilename", "dump.rdb"])
        var kills = 0
        var verdicts: [Verdict: Int] = [:]
        for seed in first..<first + count {
            // A connection that is not killed together with those of the servers.
            let control = Connected(try server.address())
            defer { control.client.close() }
            try control.waitUntilUp()
            var model = try RedisModel(server, control, seed: seed)
            for step in 0..<80 {
                do { try model.step() } catch {
                    Issue.record("seed \(seed), step \(step): \(error)")
                    break
                }
            }
            verdicts.merge(model.verdicts, uniquingKeysWith: +)
            kills += model.wasKilled ? 1 : 0
        }
        // The schedules must get somewhere.
        #expect(kills > Int(count) / 50)
        for verdict in [Verdict.recovered, .recoveredEmpty, .lost(.epoch), .lost(.trimmed), .lost(.expired)] {
            #expect(verdicts[verdict, default: 0] > Int(count) / 100, "\(verdicts)")
        }
    }
}
