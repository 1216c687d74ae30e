import Replay
import Testing
import Wire

@Suite struct LiveRooms {
    private func at(_ sequence: UInt64, epoch: UInt64 = 2) -> Position { Position(epoch: epoch, sequence: sequence) }

    /// Everything that can be handed over, as texts.
    private func drain(_ room: inout LiveRoom<UInt64>) -> [String] {
        var texts: [String] = []
        while let action = room.pop() {
            switch action {
            case .message(let item): texts.append("\(item)")
            case .gap(let reason): texts.append("gap \(reason)")
            }
        }
        return texts
    }

    @Test func messagesPassWhileNobodyComes() {
        var room = LiveRoom<UInt64>()
        room.start(at: nil)
        for sequence in 1...3 as ClosedRange<UInt64> { room.receive(sequence, at: at(sequence), cost: 1) }
        #expect(drain(&room) == ["1", "2", "3"])
    }

    @Test func messagesWaitForTheOutcomesOfWhatWasHandedInBefore() {
        var room = LiveRoom<UInt64>()
        room.start(at: at(0))
        let first = room.begin()
        room.receive(1, at: at(1), cost: 1)
        let second = room.begin()
        #expect(drain(&room) == [])
        room.end(first, at: at(0))
        // The second finds the message already numbered.
        #expect(drain(&room) == ["1"])
        room.end(second, at: at(1))
        #expect(drain(&room) == [])
    }

    @Test func joinsThatNeverEndDoNotHoldMessagesForEver() {
        var room = LiveRoom<UInt64>()
        room.start(at: at(0))
        var before = room.begin()
        for sequence in 1...100 as ClosedRange<UInt64> {
            room.receive(sequence, at: at(sequence), cost: 1)
            let next = room.begin()
            room.end(before, at: at(sequence))
            #expect(drain(&room) == ["\(sequence)"])
            before = next
        }
    }

    @Test func outcomeOfLongAgoIsMadeUpFor() {
        var room = LiveRoom<UInt64>()
        // Joined before the room was subscribed: what was said in between came to nobody.
        let ticket = room.begin()
        room.start(at: at(5))
        room.receive(6, at: at(6), cost: 1)
        #expect(drain(&room) == [])
        room.end(ticket, at: at(3))
        #expect(drain(&room) == ["gap store", "6"])
    }

    @Test func gapComesAlsoIfNothingIsSaidAnyMore() {
        var room = LiveRoom<UInt64>()
        room.end(nil, at: at(3))
        room.start(at: at(5))
        #expect(drain(&room) == ["gap store"])
        room.interrupt(.degraded)
        room.start(at: at(9))
        #expect(drain(&room) == ["gap degraded"])
    }

    @Test func interruptionWithoutLossIsNoGap() {
        var room = LiveRoom<UInt64>()
        room.start(at: at(5))
        room.receive(6, at: at(6), cost: 1)
        room.interrupt(.store)
        room.start(at: at(6))
        room.receive(7, at: at(7), cost: 1)
        #expect(drain(&room) == ["6", "7"])
    }

    @Test func holdsOnlySoMuch() {
        var room = LiveRoom<UInt64>(limit: 10, maximumBytes: 1_000)
        room.start(at: at(0))
        let ticket = room.begin()
        for sequence in 1...25 as ClosedRange<UInt64> {
            room.receive(sequence, at: at(sequence), cost: 1)
            #expect(room.heldCount <= 10)
        }
        room.receive(26, at: at(26), cost: 2_000)
        #expect(room.heldCount == 0)
        room.receive(27, at: at(27), cost: 1)
        #expect(drain(&room) == [])
        room.end(ticket, at: at(0))
        #expect(drain(&room) == ["gap limit", "27"])
    }

    @Test func storeThatDoesNotAnswerDoesNotMakeClientsAskForEver() {
        var room = LiveRoom<UInt64>()
        room.start(at: at(5))
        let ticket = room.begin()
        room.end(ticket, at: at(3), isExact: false)
        #expect(drain(&room) == [])
        room.receive(6, at: at(6), cost: 1)
        #expect(drain(&room) == ["gap store", "6"])
    }

    @Test func newEpochIsToldBeforeItsFirstMessage() {
        var room = LiveRoom<UInt64>()
        room.start(at: at(5))
        #expect(drain(&room) == [])
        let ticket = room.begin()
        room.end(ticket, at: at(0, epoch: 4))
        #expect(drain(&room) == [])
        room.interrupt(.epoch)
        room.start(at: at(0, epoch: 4))
        room.receive(1, at: at(1, epoch: 4), cost: 1)
        #expect(drain(&room) == ["gap epoch", "1"])
    }

    @Test func outcomeOfLongAgoIsMadeUpForAlsoIfNothingIsSaidAnyMore() {
        var room = LiveRoom<UInt64>()
        let (first, second) = (room.begin(), room.begin())
        room.start(at: at(5))
        room.end(first, at: at(3))
        // The other one is of before as well.
        #expect(drain(&room) == [])
        room.end(second, at: at(4))
        #expect(drain(&room) == ["gap store"])
    }

    @Test func simulationIsNotIdle() {
        var taken = 0
        for seed in 0..<20 as Range<UInt64> {
            var world = LiveWorld(seed: seed)
            for _ in 0..<2_000 { world.step() }
            taken += world.taken
        }
        #expect(taken > 500)
    }

    /// Clients that follow the rule never miss a message, never get one twice and never out of order; and when
    /// everything has arrived, they are where the room is.
    @Test(arguments: 0..<300) func clientsThatFollowTheRuleHaveEverything(seed: UInt64) {
        var world = LiveWorld(seed: seed)
        for _ in 0..<2_000 { world.step() }
        world.settle()
        #expect(world.problems == [], "seed \(seed)")
    }
}

/// A room in a store far away, its live messages and outcomes on their ways of different lengths, a host that takes
/// events when it likes, and clients.
private struct LiveWorld {
    private enum Announcement {
        case interrupted(LossReason)
        case start(Position?)
        case message(Position)
    }

    private struct Asking {
        let client: Int
        let since: Position?
        let ticket: LiveRoom<Position>.Ticket?
        var done: (position: Position, isLost: Bool, isExact: Bool)?
    }

    private enum Event {
        case outcome(Int, since: Position?, Position, isLost: Bool)
        case message(Position)
        case gap
    }

    private struct Client {
        var position: Position?
        var isWaiting = false
    }

    private var random: SeededGenerator
    // The store.
    private var top = Position(epoch: 2, sequence: 0)
    private var isThere = false
    private var asked: [Asking] = []
    private var feed: [Announcement] = []
    private var isSubscribed = false
    private var isInterrupted = false
    private var toldEpoch: UInt64 = 2
    // The host.
    private var room: LiveRoom<Position>
    private var hasStarted = false
    private var queue: [Event] = []
    private var clients: [Client]
    private(set) var problems: [String] = []
    private(set) var taken = 0

    init(seed: UInt64) {
        random = SeededGenerator(seed: seed)
        room = LiveRoom(limit: Int.random(in: 2...20, using: &random))
        clients = [Client](repeating: Client(), count: Int.random(in: 1...5, using: &random))
    }

    private mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }

    mutating func step() {
        switch Int.random(in: 0..<100, using: &random) {
        case 0..<15: publish()
        case 15..<19: subscribe()
        case 19..<23: ask(Int.random(in: 0..<clients.count, using: &random))
        case 23..<35: execute()
        case 35..<48: arrive()
        case 48..<68: hear()
        case 68..<93: take()
        case 93: interrupt()
        case 94: reset()
        case 95..<99: restart()
        default: refuse()
        }
    }

    mutating func settle() {
        for _ in 0..<20 {
            if !isSubscribed { subscribe() }
            if isInterrupted { restart() }
            for client in clients.indices where clients[client].position == nil { ask(client) }
            while !asked.isEmpty || !feed.isEmpty || !queue.isEmpty {
                execute()
                arrive()
                hear()
                take()
            }
        }
        for (index, client) in clients.enumerated() where client.position != top {
            problems.append("client \(index) is at \(String(describing: client.position)), the room at \(top)")
        }
    }

    // MARK: The store

    private mutating func say(_ announcement: Announcement) {
        if isSubscribed, !isInterrupted { feed.append(announcement) }
    }

    private mutating func publish() {
        guard isThere else { return }
        top.sequence += 1
        if toldEpoch != top.epoch {
            // The room ended and began again without a word.
            say(.interrupted(.epoch))
            say(.start(Position(epoch: top.epoch, sequence: top.sequence - 1)))
            toldEpoch = top.epoch
        }
        say(.message(top))
    }

    private mutating func subscribe() {
        guard !isSubscribed else { return }
        isSubscribed = true
        toldEpoch = top.epoch
        say(.start(isThere ? top : nil))
    }

    private mutating func interrupt() {
        guard isSubscribed, !isInterrupted else { return }
        // What was on its way is lost, from some place on.
        feed.removeLast(Int.random(in: 0...feed.count, using: &random))
        say(.interrupted(.store))
        isInterrupted = true
    }

    private mutating func restart() {
        guard isInterrupted else { return }
        isInterrupted = false
        toldEpoch = top.epoch
        say(.start(isThere ? top : nil))
    }

    private mutating func reset() {
        guard isThere else { return }
        top = Position(epoch: top.epoch + 2, sequence: 0)
        if chance(70) {
            say(.interrupted(.epoch))
            say(.start(top))
            toldEpoch = top.epoch
        }
    }

    /// Carries out something that was handed in.
    private mutating func execute() {
        let open = asked.indices.filter { asked[$0].done == nil }
        guard let index = open.randomElement(using: &random) else { return }
        isThere = true
        let since = asked[index].since
        let isLost = since.map { $0.epoch != top.epoch } ?? true
        asked[index].done = (top, isLost, true)
    }

    /// The deadline passes.
    private mutating func refuse() {
        let open = asked.indices.filter { asked[$0].done == nil }
        guard let index = open.randomElement(using: &random), let since = asked[index].since else { return }
        asked[index].done = (since, true, false)
    }

    // MARK: The library

    private mutating func drain() {
        while let action = room.pop() {
            switch action {
            case .message(let position): queue.append(.message(position))
            case .gap: queue.append(.gap)
            }
        }
    }

    private mutating func arrive() {
        let done = asked.indices.filter { asked[$0].done != nil }
        guard let index = done.randomElement(using: &random) else { return }
        let asking = asked.remove(at: index)
        guard let (position, isLost, isExact) = asking.done else { return }
        queue.append(.outcome(asking.client, since: asking.since, position, isLost: isLost))
        room.end(asking.ticket, at: position, isExact: isExact)
        drain()
    }

    private mutating func hear() {
        guard !feed.isEmpty else { return }
        switch feed.removeFirst() {
        case .interrupted(let reason): room.interrupt(reason)
        case .start(let position): room.start(at: position)
        case .message(let position): room.receive(position, at: position, cost: 1)
        }
        drain()
    }

    // MARK: The host

    /// A join, or a recover.
    private mutating func ask(_ index: Int) {
        guard !clients[index].isWaiting else { return }
        clients[index].isWaiting = true
        // Some come before the room is subscribed.
        let ticket = isSubscribed ? room.begin() : nil
        asked.append(Asking(client: index, since: clients[index].position, ticket: ticket))
    }

    private mutating func take() {
        guard !queue.isEmpty else { return }
        switch queue.removeFirst() {
        case .outcome(let index, let since, let position, let isLost):
            if !isLost, clients[index].position != since { problems.append("the batch does not fit") }
            clients[index].position = position
            clients[index].isWaiting = false
        case .gap:
            for index in clients.indices where clients[index].position != nil { ask(index) }
        case .message(let position):
            for index in clients.indices {
                guard let known = clients[index].position, !clients[index].isWaiting,
                    position.sequence > known.sequence
                else { continue }
                if position != Position(epoch: known.epoch, sequence: known.sequence + 1) {
                    problems.append("client \(index) at \(known) gets \(position)")
                }
                clients[index].position = position
                taken += 1
            }
        }
    }
}
