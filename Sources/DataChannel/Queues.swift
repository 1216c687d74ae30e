import SCTP
import Wire

/// Messages that wait for the association, or for room in it.
struct Backlog {
    struct Message {
        let channel: Channel
        let identifier: ProtocolIdentifier
        let payload: Payload
    }

    private var messages: [Message] = []
    private var head = 0
    private(set) var bytes = 0

    var isEmpty: Bool { head == messages.count }
    var first: Message? { isEmpty ? nil : messages[head] }

    mutating func append(_ message: Message) { insert(message, at: nil) }

    /// `index` is from ``firstIndex(of:)``; nil appends.
    mutating func insert(_ message: Message, at index: Int?) {
        message.channel.pendingBytes += message.payload.count
        bytes += message.payload.count
        if let index, index >= head, index <= messages.count {
            messages.insert(message, at: index)
        } else {
            messages.append(message)
        }
    }

    func firstIndex(of channel: Channel) -> Int? { messages[head...].firstIndex { $0.channel === channel } }

    mutating func removeFirst() {
        guard !isEmpty else { return }
        forget(messages[head])
        head += 1
        if isEmpty {
            messages.removeAll()
            head = 0
        } else if head >= 64, head * 2 >= messages.count {
            messages.removeFirst(head)
            head = 0
        }
    }

    mutating func removeAll(of channel: Channel) {
        guard channel.pendingBytes > 0 else { return }
        for message in messages[head...] where message.channel === channel { forget(message) }
        messages.removeFirst(head)
        messages.removeAll { $0.channel === channel }
        head = 0
    }

    private mutating func forget(_ message: Message) {
        message.channel.pendingBytes -= message.payload.count
        bytes -= message.payload.count
    }
}

/// Messages on streams that nobody has opened yet: a negotiated channel's that the other side opened
/// first, or those of a new channel on a stream whose old one is not quite closed on our side.
struct EarlyMessages {
    private var messages: [Association.Message] = []
    private var cost = 0
    private static let overhead = 128

    var isEmpty: Bool { messages.isEmpty }

    /// False if there is no room within `limit` bytes.
    mutating func append(_ message: Association.Message, limit: Int) -> Bool {
        let added = message.payload.count + EarlyMessages.overhead
        guard cost <= limit - added else { return false }
        cost += added
        messages.append(message)
        return true
    }

    /// Takes those of `stream`, in order.
    mutating func take(_ stream: UInt16) -> [Association.Message] {
        guard messages.contains(where: { $0.stream == stream }) else { return [] }
        let taken = messages.filter { $0.stream == stream }
        messages.removeAll { $0.stream == stream }
        for message in taken { cost -= message.payload.count + EarlyMessages.overhead }
        return taken
    }

    mutating func removeAll() {
        messages.removeAll()
        cost = 0
    }
}

/// Events on their way out; seldom more than one.
struct EventQueue {
    private var events: [ChannelSet.Event] = []
    private var head = 0

    mutating func append(_ event: ChannelSet.Event) { events.append(event) }

    mutating func next() -> ChannelSet.Event? {
        guard head < events.count else { return nil }
        let event = events[head]
        head += 1
        if head == events.count {
            events.removeAll(keepingCapacity: events.capacity <= 16)
            head = 0
        }
        return event
    }
}
