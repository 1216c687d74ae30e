import Synchronization
import Wire

/// What host threads and the loop share about a peer. Everything else about it lives on the loop.
final class PeerEntry: Sendable {
    let handle: UInt64
    let tag: UInt64
    /// Not the engine itself: whoever has looked up a handle may go on with it while the engine is destroyed.
    let inbox: Inbox
    let maximumChannels: Int
    let sendHighWater: Int
    let negotiation: NegotiationStyle
    /// Bytes of events that the host has not given back yet.
    let undelivered = Atomic<Int>(0)
    /// Set by the loop when it stopped taking messages because of `undelivered`.
    let isStalled = Atomic<Bool>(false)
    let isClosed = Atomic<Bool>(false)
    let channelCount = Atomic<Int>(0)

    init(handle: UInt64, tag: UInt64, negotiation: NegotiationStyle, engine: Engine) {
        self.handle = handle
        self.tag = tag
        self.negotiation = negotiation
        inbox = engine.inbox
        maximumChannels = engine.configuration.maximumChannels
        sendHighWater = engine.configuration.sendHighWater
    }
}

/// What host threads and the loop share about a channel: enough to take or refuse a message without asking the loop.
final class ChannelEntry: Sendable {
    let handle: UInt64
    let tag: UInt64
    let peer: PeerEntry
    let highWater: Int

    /// Bytes and messages taken from the host and not yet handed to the association.
    let waitingBytes = Atomic<Int>(0)
    let waitingMessages = Atomic<Int>(0)
    /// Bytes in the association that were not sent for the first time yet; the loop keeps it up to date.
    let associationBytes = Atomic<Int>(0)
    /// The host was told "would block" and waits for the low-water event.
    let isBlocked = Atomic<Bool>(false)
    let lowWater: Atomic<Int>
    /// The host asked for a low-water event on every fall.
    let announcesLowWater: Atomic<Bool>
    /// Armed while the queue is above the low-water mark.
    let isAboveLowWater = Atomic<Bool>(false)
    let isClosing = Atomic<Bool>(false)
    /// The peer's number for the channel; read and written by the loop only.
    let loopID = Atomic<UInt32>(.max)
    /// The largest message the other side takes; a guess until its description is known.
    let messageLimit: Atomic<Int>

    init(handle: UInt64, tag: UInt64, peer: PeerEntry, highWater: Int, lowWater: Int?, messageLimit: Int) {
        self.handle = handle
        self.tag = tag
        self.peer = peer
        self.highWater = highWater
        self.lowWater = Atomic(lowWater ?? highWater / 4)
        self.announcesLowWater = Atomic(lowWater != nil)
        self.messageLimit = Atomic(messageLimit)
    }

    /// What a waiting message costs beside its bytes.
    static let messageOverhead = 64

    var buffered: Int {
        waitingBytes.load(ordering: .sequentiallyConsistent) + associationBytes.load(ordering: .sequentiallyConsistent)
    }

    /// The buffered bytes with the overhead of waiting messages, which is what the high-water mark bounds.
    private var occupied: Int {
        buffered + waitingMessages.load(ordering: .sequentiallyConsistent) * ChannelEntry.messageOverhead
    }

    /// Takes room for a message, or answers false: the queue is full and a low-water event will follow.
    func reserve(_ count: Int) -> Bool {
        if occupied >= highWater {
            isBlocked.store(true, ordering: .sequentiallyConsistent)
            // The loop may have emptied the queue between the two lines; then nobody would send the event.
            guard occupied < highWater else { return false }
            isBlocked.store(false, ordering: .sequentiallyConsistent)
        }
        waitingBytes.wrappingAdd(count, ordering: .sequentiallyConsistent)
        waitingMessages.wrappingAdd(1, ordering: .sequentiallyConsistent)
        return true
    }

    /// The loop handed a message on, or dropped it.
    func handedOn(_ count: Int) {
        waitingBytes.wrappingSubtract(count, ordering: .sequentiallyConsistent)
        waitingMessages.wrappingSubtract(1, ordering: .sequentiallyConsistent)
    }

    /// A message came to the loop: what goes out at once has been above the mark, too.
    func rose() {
        if buffered > lowWater.load(ordering: .relaxed) { isAboveLowWater.store(true, ordering: .relaxed) }
    }

    /// True if a low-water event is due; called by the loop after it moved messages on.
    func fellToLowWater() -> Bool {
        let isLow = buffered <= lowWater.load(ordering: .relaxed)
        if !isLow {
            isAboveLowWater.store(true, ordering: .relaxed)
            return false
        }
        let wasBlocked = isBlocked.exchange(false, ordering: .sequentiallyConsistent)
        let fell = isAboveLowWater.exchange(false, ordering: .relaxed)
        return wasBlocked || (fell && announcesLowWater.load(ordering: .relaxed))
    }
}
