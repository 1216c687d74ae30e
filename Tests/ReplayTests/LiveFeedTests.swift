import Testing
import Wire

@testable import Replay

private let lobby = RoomName(checked: Array("lobby".utf8))
private let other = RoomName(checked: Array("other".utf8))

private func message(_ epoch: UInt64, _ sequence: UInt64, _ room: RoomName = lobby, size: Int = 1) -> LiveMessage {
    LiveMessage(
        room: room, position: Position(epoch: epoch, sequence: sequence), from: nil, to: nil, kind: .other,
        isText: true, isPriority: false, negotiation: 0, payload: Array(repeating: 0, count: size))
}

private func at(_ epoch: UInt64, _ sequence: UInt64) -> Position { Position(epoch: epoch, sequence: sequence) }

extension LiveFeed {
    fileprivate mutating func all() -> [LiveEvent] {
        var events: [LiveEvent] = []
        while let event = pop() { events.append(event) }
        return events
    }
}

@Suite struct LiveFeeds {
    @Test func passOnWhatComesAfterThePosition() {
        var feed = LiveFeed(limit: 100, maximumBytes: 1 << 20)
        feed.receive(message(8, 1))
        feed.subscribe(lobby)
        #expect(feed.isWaiting(lobby) && feed.isEmpty)
        feed.receive(message(8, 4))
        feed.announce(lobby, at: at(8, 4))
        // Published before the position was read, heard after it.
        feed.receive(message(8, 4))
        feed.receive(message(8, 5))
        feed.announce(lobby, at: at(8, 5))
        feed.receive(message(8, 5))
        feed.receive(message(8, 6, other))
        #expect(feed.all() == [.subscribed(lobby, at: at(8, 4)), .message(message(8, 5))])
        #expect(feed.counters.messages == 1 && feed.counters.interruptions == 0)
    }

    @Test func tellWhatIsMissing() {
        var feed = LiveFeed(limit: 100, maximumBytes: 1 << 20)
        feed.subscribe(lobby)
        feed.announce(lobby, at: at(8, 4))
        feed.receive(message(8, 6))
        feed.announce(lobby, at: at(8, 9))
        feed.receive(message(10, 1))
        #expect(
            feed.all() == [
                .subscribed(lobby, at: at(8, 4)), .interrupted(lobby, .missing), .subscribed(lobby, at: at(8, 5)),
                .message(message(8, 6)), .interrupted(lobby, .missing), .subscribed(lobby, at: at(8, 9)),
                .interrupted(lobby, .epoch), .subscribed(lobby, at: at(10, 0)), .message(message(10, 1)),
            ])
        feed.interrupt(lobby, .connectionLost)
        feed.interrupt(lobby, .connectionLost)
        feed.receive(message(10, 2))
        feed.announce(lobby, at: at(10, 2))
        #expect(feed.all() == [.interrupted(lobby, .connectionLost), .subscribed(lobby, at: at(10, 2))])
    }

    @Test func beginWithARoomThatIsNotThereYet() {
        var feed = LiveFeed(limit: 100, maximumBytes: 1 << 20)
        feed.subscribe(lobby)
        feed.announce(lobby, at: nil)
        feed.announce(lobby, at: at(8, 0))
        feed.receive(message(8, 1))
        #expect(feed.all() == [.subscribed(lobby, at: nil), .message(message(8, 1))])
        feed.subscribe(other)
        feed.announce(other, at: nil)
        feed.receive(message(8, 2, other))
        #expect(
            feed.all() == [
                .subscribed(other, at: nil), .interrupted(other, .epoch), .subscribed(other, at: at(8, 1)),
                .message(message(8, 2, other)),
            ])
    }

    @Test func sayNothingOfRoomsThatNobodyWants() {
        var feed = LiveFeed(limit: 100, maximumBytes: 1 << 20)
        feed.subscribe(lobby)
        feed.announce(lobby, at: at(8, 0))
        feed.receive(message(8, 1))
        feed.unsubscribe(lobby)
        feed.receive(message(8, 2))
        feed.subscribe(lobby)
        feed.announce(lobby, at: at(8, 2))
        feed.receive(message(8, 3))
        #expect(feed.all() == [.subscribed(lobby, at: at(8, 2)), .message(message(8, 3))])
    }

    /// Whoever does not take what comes is told that something is missing, and from where on nothing is.
    @Test func areBounded() {
        var feed = LiveFeed(limit: 4, maximumBytes: 1 << 20)
        feed.subscribe(lobby)
        feed.announce(lobby, at: at(8, 0))
        for sequence in 1...10 { feed.receive(message(8, UInt64(sequence))) }
        #expect(feed.counters.dropped == 7)
        #expect(
            feed.all() == [
                .subscribed(lobby, at: at(8, 0)), .message(message(8, 1)), .message(message(8, 2)),
                .message(message(8, 3)), .interrupted(lobby, .overflow), .subscribed(lobby, at: at(8, 10)),
            ])
        feed.receive(message(8, 11))
        #expect(feed.all() == [.message(message(8, 11))])
        var heavy = LiveFeed(limit: 1_000, maximumBytes: 10_000)
        heavy.subscribe(lobby)
        heavy.announce(lobby, at: at(8, 0))
        for sequence in 1...100 { heavy.receive(message(8, UInt64(sequence), size: 1_000)) }
        #expect(heavy.counters.dropped > 90)
        #expect(heavy.all().last == .subscribed(lobby, at: at(8, 100)))
    }

    /// Whatever happens, what is told is true.
    @Test func keepTheirWordInRandomSchedules() {
        for seed in 0..<2_000 as Range<UInt64> {
            var random = SeededGenerator(seed: seed)
            var feed = LiveFeed(limit: Int.random(in: 2...12, using: &random), maximumBytes: 4_000)
            let rooms = [lobby, other]
            var tops = [lobby: at(2, 0), other: at(4, 0)]
            var audits: [RoomName: LiveAudit] = [:]
            func fail(_ what: String) { #expect(Bool(false), "seed \(seed): \(what)") }
            func take(_ count: Int) {
                for _ in 0..<count {
                    guard let event = feed.pop() else { return }
                    guard audits[event.room] != nil else { return fail("\(event)") }
                    if let problem = audits[event.room]?.take(event) { return fail(problem) }
                }
            }
            for _ in 0..<200 {
                guard let room = rooms.randomElement(using: &random), let top = tops[room] else { continue }
                switch UInt8.random(in: 0..<100, using: &random) {
                case 0..<4:
                    feed.subscribe(room)
                    audits[room] = LiveAudit()
                    if Bool.random(using: &random) { feed.announce(room, at: top) }
                case 4..<6:
                    feed.unsubscribe(room)
                    audits[room] = nil
                case 6..<12: feed.announce(room, at: top)
                case 12..<15: feed.interrupt(room, .connectionLost)
                case 15..<17:
                    tops[room] = at(top.epoch &+ 2, 0)
                    if Bool.random(using: &random) { feed.announce(room, at: tops[room]) }
                case 17..<75:
                    tops[room]?.sequence &+= 1
                    if UInt8.random(in: 0..<20, using: &random) > 0 {
                        feed.receive(message(top.epoch, top.sequence &+ 1, room, size: 300))
                    }
                default: take(Int.random(in: 1...6, using: &random))
                }
            }
            // At the end everybody is told where the room is.
            for room in rooms { feed.announce(room, at: tops[room]) }
            take(.max)
            for room in rooms {
                if let audit = audits[room], audit.position != tops[room] { fail("\(audit) and not \(tops)") }
            }
        }
    }
}

/// Holds the events of one room to what they promise.
struct LiveAudit {
    private(set) var isSubscribed = false
    private(set) var position: Position?
    private(set) var texts: [String] = []

    /// What is wrong.
    mutating func take(_ event: LiveEvent) -> String? {
        switch event {
        case .subscribed(_, let at):
            if isSubscribed { return "subscribed twice" }
            isSubscribed = true
            position = at
        case .interrupted:
            if !isSubscribed { return "interrupted, and not subscribed" }
            isSubscribed = false
        case .message(let message):
            guard isSubscribed else { return "a message, and not subscribed" }
            let isNext =
                position.map { $0.epoch == message.position.epoch && $0.sequence &+ 1 == message.position.sequence }
                ?? (message.position.sequence == 1)
            guard isNext else { return "\(message.position) after \(String(describing: position))" }
            position = message.position
            texts.append(String(decoding: message.payload, as: UTF8.self))
        }
        return nil
    }
}

@Suite struct LiveMessagesOfAStore {
    private func text(_ event: LiveEvent?) -> String {
        guard case .message(let message)? = event else { return "\(String(describing: event))" }
        return String(decoding: message.payload, as: UTF8.self)
    }

    private func publish(_ text: String, from: UserName? = nil) -> Operation {
        .publish(room: lobby, from: from, to: nil, MessageProperties(), payload: Array(text.utf8))
    }

    /// The store stops; the server goes on; the store comes back. Each change is told, and nothing comes twice.
    @Test func goOnWhileTheStoreIsAway() throws {
        let server = Server()
        let ann = Membership(room: lobby, user: try UserName("ann"))
        _ = server.perform(.join(ann, resume: nil))
        server.store.subscribe(lobby, now: server.now)
        var audit = LiveAudit()
        var events: [LiveEvent] = []
        func take() {
            while let event = server.store.pollLive() {
                if let problem = audit.take(event) { Issue.record("\(problem)") }
                events.append(event)
            }
        }
        _ = server.perform(publish("1", from: ann.user))
        take()
        #expect(audit.texts == ["1"] && audit.position?.isDegraded == false)
        // It does what it is asked, and never says so.
        server.remote.behavior = .deaf
        _ = server.perform(publish("2", from: ann.user))
        take()
        #expect(audit.position?.isDegraded == true && audit.texts.last == "2")
        server.remote.behavior = .answers
        while server.store.degradedRoomCount > 0 { server.pass(.seconds(1)) }
        take()
        #expect(audit.position?.isDegraded == false && audit.isSubscribed)
        _ = server.perform(publish("3", from: ann.user))
        take()
        #expect(audit.texts.last == "3")
        #expect(events.contains(.interrupted(lobby, .degraded)))
        server.store.unsubscribe(lobby)
        _ = server.perform(publish("4", from: ann.user))
        #expect(server.store.pollLive() == nil)
    }
}
