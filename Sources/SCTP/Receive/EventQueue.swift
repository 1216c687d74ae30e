import Wire

/// Events that the host has not taken yet, with the memory they hold.
struct EventQueue {
    private var queue = Queue<Association.Event>()
    /// Memory of the messages in it, overheads included.
    private(set) var heldBytes = 0
    private(set) var messageCount: UInt64 = 0

    /// What a message costs beyond its bytes: the allocation's header and its place in the queue.
    static let messageOverhead = 96

    var isEmpty: Bool { queue.isEmpty }

    mutating func append(_ event: Association.Event) { queue.append(event) }

    @inline(__always)
    mutating func append(_ message: Association.Message) {
        heldBytes &+= message.payload.count &+ Self.messageOverhead
        messageCount &+= 1
        queue.append(.message(message))
    }

    /// The peer can cause these at will, so they count like messages.
    mutating func append(streamsReset streams: [UInt16]) {
        heldBytes &+= cost(ofReset: streams)
        queue.append(.streamsReset(streams))
    }

    mutating func popFirst() -> Association.Event? {
        guard let event = queue.popFirst() else { return nil }
        switch event {
        case .message(let message): heldBytes &-= message.payload.count &+ Self.messageOverhead
        case .streamsReset(let streams): heldBytes &-= cost(ofReset: streams)
        default: break
        }
        return event
    }

    private func cost(ofReset streams: [UInt16]) -> Int { Self.messageOverhead &+ 2 &* streams.count }
}
