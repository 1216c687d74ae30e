import Wire

/// Commands that were sent and not answered, oldest first, with their deadlines.
///
/// Replies come in order, so a command whose deadline has passed keeps its place: its reply, when it comes, is its own
/// and is dropped.
struct CommandQueue {
    enum Purpose {
        case greeting(RedisGreeting.Step)
        case ping
        /// Of a channel, with the subscription's token; nil: unsubscribed.
        case subscription(channel: [UInt8], token: UInt64?)
        case command(RedisClient.Completion)
        /// Was a command.
        case expired
    }

    struct Entry {
        var purpose: Purpose
        let size: Int
    }

    private var entries: [Entry?] = []
    private var head = 0
    /// The number of the entry at `head`.
    private var first: UInt64 = 0
    /// A binary heap. Answered commands stay in it until they surface, or are too many.
    private var deadlines: [(at: Instant, number: UInt64)] = []

    var count: Int { entries.count - head }
    var isEmpty: Bool { count == 0 }

    mutating func append(_ purpose: Purpose, size: Int, deadline: Instant?) {
        if let deadline {
            if deadlines.count > 2 * count + 64 { removeAnswered() }
            push((deadline, first &+ UInt64(count)))
        }
        entries.append(Entry(purpose: purpose, size: size))
    }

    mutating func popFirst() -> Entry? {
        guard head < entries.count, let entry = entries[head] else { return nil }
        entries[head] = nil
        head += 1
        first &+= 1
        if head == entries.count {
            entries.removeAll(keepingCapacity: head <= 1024)
            head = 0
        } else if head >= 1024, head * 2 >= entries.count {
            entries.removeFirst(head)
            head = 0
        }
        return entry
    }

    /// Takes the completion of a command whose deadline has passed.
    mutating func popExpired(_ now: Instant) -> RedisClient.Completion? {
        while let next = deadlines.first, next.at <= now {
            pop()
            guard let index = index(of: next.number), case .command(let completion)? = entries[index]?.purpose else {
                continue
            }
            entries[index]?.purpose = .expired
            return completion
        }
        return nil
    }

    /// The earliest deadline; maybe of a command that has been answered.
    var nextDeadline: Instant? { deadlines.first?.at }

    mutating func removeAll() -> [Entry] {
        let left = entries[head...].compactMap { $0 }
        first &+= UInt64(left.count)
        entries = []
        head = 0
        deadlines = []
        return left
    }

    private func index(of number: UInt64) -> Int? {
        guard number >= first, number &- first < UInt64(count) else { return nil }
        return head + Int(number &- first)
    }

    private mutating func removeAnswered() {
        let current = deadlines.filter { entry in
            guard let index = index(of: entry.number), case .command? = entries[index]?.purpose else { return false }
            return true
        }
        deadlines = current.sorted { $0.at < $1.at }
    }

    private mutating func push(_ element: (at: Instant, number: UInt64)) {
        deadlines.append(element)
        var child = deadlines.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard deadlines[child].at < deadlines[parent].at else { return }
            deadlines.swapAt(child, parent)
            child = parent
        }
    }

    private mutating func pop() {
        guard let last = deadlines.popLast(), !deadlines.isEmpty else { return }
        deadlines[0] = last
        var parent = 0
        while true {
            var child = 2 * parent + 1
            guard child < deadlines.count else { return }
            if child + 1 < deadlines.count, deadlines[child + 1].at < deadlines[child].at { child += 1 }
            guard deadlines[child].at < deadlines[parent].at else { return }
            deadlines.swapAt(child, parent)
            parent = child
        }
    }
}
