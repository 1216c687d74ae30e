import Wire

/// Live messages of subscribed rooms, between where they come from and who takes them: bounded, and checked. Whoever
/// takes them never has to believe that nothing is missing when something is.
public struct LiveFeed: Sendable {
    private struct Subscription {
        /// What was put aside for an earlier subscription of the same name is not for this one.
        let number: UInt64
        /// Whether `last` is known, and messages are passed on.
        var isSynchronized = false
        var last: Position?
        /// Whether it is subscribed as far as the queue goes.
        var isOpen = false
        /// An interruption that found no place in the queue. Nothing of the room is passed on until it was told.
        var untold: LiveInterruption?
    }

    private let limit: Int
    private let maximumBytes: Int
    private var rooms: [RoomName: Subscription] = [:]
    private var queue = Queue<(number: UInt64, event: LiveEvent)>()
    private var bytes = 0
    private var untold: [RoomName] = []
    private var lastNumber: UInt64 = 0
    public private(set) var counters = LiveCounters()

    /// No more than so many events and bytes wait.
    public init(limit: Int, maximumBytes: Int) {
        self.limit = max(limit, 2)
        self.maximumBytes = max(maximumBytes, 1)
    }

    public init(_ configuration: Configuration) {
        self.init(limit: configuration.maximumLiveEvents, maximumBytes: configuration.maximumLiveBytes)
    }

    public var isEmpty: Bool { queue.isEmpty && untold.isEmpty }
    public var hasSubscriptions: Bool { !rooms.isEmpty }
    public var subscribedRooms: [RoomName] { Array(rooms.keys) }

    public func isSubscribed(_ room: RoomName) -> Bool { rooms[room] != nil }

    /// True if a subscription waits for ``announce(_:at:)``.
    public func isWaiting(_ room: RoomName) -> Bool { rooms[room].map { !$0.isSynchronized } ?? false }

    // MARK: In

    /// A new start: nothing comes until ``announce(_:at:)``.
    public mutating func subscribe(_ room: RoomName) {
        lastNumber &+= 1
        rooms[room] = Subscription(number: lastNumber)
    }

    public mutating func unsubscribe(_ room: RoomName) { rooms[room] = nil }

    /// Where the room is, at this place among its messages.
    public mutating func announce(_ room: RoomName, at position: Position?) {
        guard let known = rooms[room] else { return }
        if known.isSynchronized {
            guard known.last != position else { return }
            if known.last == nil, position?.sequence == 0 {
                rooms[room]?.last = position
                return
            }
            interrupt(room, known.last?.epoch == position?.epoch ? .missing : .epoch)
        }
        rooms[room]?.isSynchronized = true
        rooms[room]?.last = position
        put(.subscribed(room, at: position), of: room)
    }

    public mutating func receive(_ message: LiveMessage) {
        guard let known = rooms[message.room], known.isSynchronized else { return }
        let arrived = message.position
        var problem: LiveInterruption?
        if let last = known.last, last.epoch == arrived.epoch {
            if arrived.sequence <= last.sequence { return }
            if arrived.sequence != last.sequence &+ 1 { problem = .missing }
        } else if known.last != nil || arrived.sequence != 1 {
            problem = .epoch
        }
        if let problem {
            interrupt(message.room, problem)
            announce(message.room, at: Position(epoch: arrived.epoch, sequence: arrived.sequence &- 1))
        }
        rooms[message.room]?.last = arrived
        put(.message(message), of: message.room)
    }

    /// Nothing comes until the room is announced again.
    public mutating func interrupt(_ room: RoomName, _ reason: LiveInterruption) {
        guard rooms[room]?.isSynchronized == true else { return }
        rooms[room]?.isSynchronized = false
        put(.interrupted(room, reason), of: room)
    }

    public mutating func interruptAll(_ reason: LiveInterruption) {
        for room in rooms.keys { interrupt(room, reason) }
    }

    private static func cost(_ event: LiveEvent) -> Int {
        guard case .message(let message) = event else { return 64 }
        return message.payload.count &+ 192
    }

    private mutating func put(_ event: LiveEvent, of room: RoomName) {
        guard let known = rooms[room] else { return }
        var isMessage = false
        if case .message = event { isMessage = true }
        let cost = Self.cost(event)
        if known.untold == nil, queue.count < limit, bytes &+ cost <= maximumBytes || queue.isEmpty {
            append(event, of: room, known.number)
            return
        }
        if isMessage { counters.dropped &+= 1 }
        guard known.untold == nil else { return }
        var reason = LiveInterruption.overflow
        if case .interrupted(_, let given) = event { reason = given }
        rooms[room]?.untold = reason
        untold.append(room)
    }

    private mutating func append(_ event: LiveEvent, of room: RoomName, _ number: UInt64) {
        switch event {
        case .subscribed: rooms[room]?.isOpen = true
        case .interrupted: rooms[room]?.isOpen = false
        case .message: break
        }
        bytes &+= Self.cost(event)
        queue.append((number, event))
    }

    // MARK: Out

    public mutating func pop() -> LiveEvent? {
        while true {
            if !untold.isEmpty, queue.count <= limit / 2, bytes <= maximumBytes / 2 { tell() }
            guard let (number, event) = queue.popFirst() else { return nil }
            bytes &-= Self.cost(event)
            guard rooms[event.room]?.number == number else { continue }
            switch event {
            case .message: counters.messages &+= 1
            case .interrupted: counters.interruptions &+= 1
            case .subscribed: break
            }
            return event
        }
    }

    /// What found no place before.
    private mutating func tell() {
        while queue.count &+ 2 <= limit, let room = untold.popLast() {
            guard let known = rooms[room], let reason = known.untold else { continue }
            rooms[room]?.untold = nil
            if known.isOpen { append(.interrupted(room, reason), of: room, known.number) }
            if known.isSynchronized { append(.subscribed(room, at: known.last), of: room, known.number) }
        }
    }
}
