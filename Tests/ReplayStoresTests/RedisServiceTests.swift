import Glibc
import Replay
import Storage
import Testing
import Wire

@testable import ReplayStores

/// A connection that only listens.
private final class Subscriber {
    private let fd: Int32
    private var received: [UInt8] = []

    init(_ port: UInt16, _ channel: String) throws {
        fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | 0o2000000, 0)
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_port = port.bigEndian
        name.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let isConnected = withUnsafePointer(to: &name) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(fd, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
        guard isConnected else { throw Overdue(what: "a connection") }
        var limit = timeval(tv_sec: 20, tv_usec: 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        Listener.send("SUBSCRIBE \(channel)\r\n", to: fd)
        _ = try next(3)
    }

    deinit { Glibc.close(fd) }

    private func line() throws -> String {
        while true {
            if let end = received.firstIndex(of: 0x0A) {
                let line = String(decoding: received[..<end].dropLast(), as: UTF8.self)
                received.removeFirst(end + 1)
                return line
            }
            try read()
        }
    }

    private func read() throws {
        var bytes = [UInt8](repeating: 0, count: 65_536)
        let count = recv(fd, &bytes, bytes.count, 0)
        guard count > 0 else { throw Overdue(what: "a message") }
        received += bytes.prefix(count)
    }

    /// An array of so many words, of which the last is given; empty for a number.
    func next(_ words: Int) throws -> [UInt8] {
        var last: [UInt8] = []
        #expect(try line() == "*\(words)")
        for _ in 0..<words {
            let head = try line()
            guard head.hasPrefix("$"), let count = Int(head.dropFirst()) else {
                last = []
                continue
            }
            while received.count < count + 2 { try read() }
            last = Array(received.prefix(count))
            received.removeFirst(count + 2)
        }
        return last
    }
}

@Suite(.serialized) struct ServersThatShareARedis {
    @Test func hearLiveMessagesInOrder() throws {
        let server = try RedisServer()
        let scene = try RedisScene(server) { $0.publishesLive = true }
        let ann = try scene.join("ann and more")
        let bob = try scene.join("bob\u{E9}")
        let subscriber = try Subscriber(server.port, "webrtc:reconnect:live:{lobby}")
        try scene.publish("one\r\n\u{0}", from: ann, to: bob, MessageProperties(.offer, negotiation: .max))
        var key = MessageProperties(.other, isText: false, isPriority: true)
        key.key = IdempotencyKey(high: 1, low: 2)
        try scene.publish("", key)
        // The same again is not to be sent again.
        try scene.publish("", key)
        try scene.publish("three", from: bob)
        let first = try #require(LiveMessage(decoding: try subscriber.next(3), room: ann.membership.room))
        #expect(first.position == Position(epoch: ann.position.epoch, sequence: 1))
        #expect(first.from == ann.membership.user && first.to == bob.membership.user)
        #expect(first.kind == .offer && first.isText && !first.isPriority && first.negotiation == .max)
        #expect(first.payload == Array("one\r\n\u{0}".utf8))
        let second = try #require(LiveMessage(decoding: try subscriber.next(3), room: ann.membership.room))
        #expect(second.from == nil && second.to == nil && second.payload == [] && second.position.sequence == 2)
        #expect(!second.isText && second.isPriority)
        #expect(LiveMessage(decoding: try subscriber.next(3), room: ann.membership.room)?.position.sequence == 3)
    }

    @Test func readNoLiveMessageFromAnythingElse() throws {
        let room = try RoomName("lobby")
        let good = Array("00000000000000aa 1 0 1 0000000000000000 1 1\nabx".utf8)
        #expect(LiveMessage(decoding: good, room: room)?.payload == [0x78])
        for count in 0..<good.count - 1 { #expect(LiveMessage(decoding: Array(good.prefix(count)), room: room) == nil) }
        for text in [
            "", "\n", "1 2 3 4 5 6 7\nxx", "00 -1 0 1 00 0 0\n", "00 1 9 1 00 0 0\n", "00 1 0 1 00 9999999999 0\n",
            "00 1 0 1 00 18446744073709551615 18446744073709551615\n", "00 1 0 1 00 1 0\n\u{1}",
        ] { #expect(LiveMessage(decoding: Array(text.utf8), room: room) == nil, "\(text)") }
    }

    /// A late operation is carried out all the same: what it leaves behind must not be taken for the whole story.
    @Test func goOnWithoutItAndNeverMergeWhatTheySaid() throws {
        let scene = try RedisScene(try RedisServer())
        let store = ResilientStore(scene.store, random: SeededGenerator(seed: 7))
        var now = Instant(nanoseconds: 1_000_000_000)
        var last: UInt64 = 0
        func wait() throws -> Outcome {
            while true {
                let before = scene.wake.all.count
                store.takeOutcomes(now: now)
                if let (_, outcome) = store.pollOutcome() { return outcome }
                try scene.wake.wait("an outcome") { $0.count > before }
            }
        }
        func perform(_ operation: Operation) throws -> Outcome {
            last += 1
            return try store.submit(operation, id: OperationID(last), now: now) ?? wait()
        }
        let ann = Membership(room: try RoomName("lobby"), user: try UserName("ann"))
        let bob = Membership(room: ann.room, user: try UserName("bob"))
        _ = try perform(.join(ann, resume: nil))
        guard case .joined(let joined, _) = try perform(.join(bob, resume: nil)) else {
            Issue.record("join")
            return
        }
        let publish = Operation.publish(room: ann.room, from: ann.user, to: nil, MessageProperties(), payload: [1])
        _ = try perform(publish)
        try scene.raw("CLIENT", "PAUSE", "60000", "WRITE")
        last += 1
        #expect(store.submit(publish, id: OperationID(last), now: now) == nil)
        now = now + .milliseconds(50)
        store.handleTimeout(now: now)
        guard case .published(let published) = try wait() else {
            Issue.record("publish")
            return
        }
        #expect(published.position.isDegraded && published.position.epoch != joined.recovery.position.epoch)
        try scene.raw("CLIENT", "UNPAUSE")
        // The room gets its new epoch before anything else is asked about it.
        let resume = Resume(token: joined.token, position: .position(joined.recovery.position))
        while store.degradedRoomCount > 0 {
            let before = scene.wake.all.count
            store.handleTimeout(now: now)
            store.takeOutcomes(now: now)
            if store.degradedRoomCount > 0 { try scene.wake.wait("a reset") { $0.count > before } }
        }
        guard case .joined(let back, let batch) = try perform(.join(bob, resume: resume)) else {
            Issue.record("join again")
            return
        }
        #expect(back.recovery.verdict == .lost(.degraded) && batch.isEmpty)
        #expect(!back.recovery.position.isDegraded && back.recovery.position.sequence == 0)
    }

    /// Rooms in which nobody says anything outlive their keys, as long as somebody is connected.
    @Test func keepRoomsWithConnections() throws {
        let scene = try RedisScene(try RedisServer())
        let ann = try scene.join("ann")
        let key = RedisArgument.text("webrtc:reconnect:seq:{lobby}")
        try scene.raw("PEXPIRE", key, "100000")
        let due = try #require(scene.store.nextTimeout)
        scene.store.handleTimeout(now: due)
        // The same connection carries both, in order.
        _ = try scene.perform(.state(ann.membership))
        #expect(try scene.raw("PTTL", key).get().integerValue ?? 0 > 1_000_000)
        try scene.drop(ann)
        #expect(scene.store.nextTimeout == nil)
    }
}
