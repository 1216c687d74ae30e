import Wire

/// Puts the live messages of one room, and the outcomes of those who join or recover in it, into one order that a client
/// can rely on:
///
/// - An outcome at sequence N comes before every live message after N.
/// - Live messages come in order, and none is left out, or ``Action/gap(_:)`` says so: after it, and after every outcome
///   that it is about.
///
/// So a client misses nothing and gets nothing twice if it takes messages with sequences above its own, gets nothing
/// while an outcome of its own is under way, and recovers from where it is at every gap.
///
/// A message waits for the outcomes of what was handed in before it arrived. What is handed in afterwards finds the message
/// already numbered.
public struct LiveRoom<Item> {
    /// Names a join or recover whose outcome has not been handed over.
    public struct Ticket: Hashable, Sendable {
        fileprivate let number: UInt64
    }

    public enum Action {
        case message(Item)
        /// Messages may be missing.
        case gap(LossReason)
    }

    fileprivate enum Entry {
        case message(Item, Position, cost: Int)
        /// Live messages come from after this position on; nil: the room does not exist yet.
        case start(Position?, LossReason)
    }

    /// A gap that was not said yet.
    private enum Doubt {
        /// As soon as all outcomes of what was handed in up to the number are out.
        case after(UInt64, LossReason)
        /// Before the next message.
        case beforeMessage(LossReason)
    }

    private let limit: Int
    private let maximumBytes: Int
    private var lastNumber: UInt64 = 0
    /// In order, from `firstPending` on.
    private var pending: [UInt64] = []
    private var firstPending = 0
    /// With the last number handed in when each arrived.
    private var held = Queue<(barrier: UInt64, entry: Entry)>()
    private var heldMessages = 0
    private var heldBytes = 0

    /// Live messages after this have not been handed over, and will be. The inner nil: the room does not exist.
    private var edge: Position??
    /// Where clients came in before there was an edge, if it is one place.
    private var early: Position?
    private var isEarlyMixed = false
    private var doubt: Doubt?
    private var interruption: LossReason?

    /// No more than so many messages and bytes are held.
    public init(limit: Int = 1_000, maximumBytes: Int = 1 << 20) {
        self.limit = max(limit, 1)
        self.maximumBytes = max(maximumBytes, 1)
    }

    public var heldCount: Int { heldMessages }
    public var pendingCount: Int { pending.count &- firstPending }

    // MARK: Outcomes

    /// A join or recover is handed in.
    public mutating func begin() -> Ticket {
        lastNumber &+= 1
        pending.append(lastNumber)
        return Ticket(number: lastNumber)
    }

    /// Its outcome has been handed over. `position` is where the client is then; nil: it was refused. Not `isExact`: the
    /// store was not asked, and the client is where it was, and told so.
    public mutating func end(_ ticket: Ticket?, at position: Position?, isExact: Bool = true) {
        if let ticket { forget(ticket.number) }
        guard let position else { return }
        guard let edge else {
            guard isExact else { return }
            if let early, early != position { isEarlyMixed = true }
            early = early ?? position
            return
        }
        guard let edge else {
            // What comes first must be of this epoch.
            if isExact { self.edge = Position(epoch: position.epoch, sequence: 0) }
            return
        }
        guard edge.epoch == position.epoch else { return doubtNext(.epoch) }
        guard position.sequence < edge.sequence else { return }
        if isExact { doubtSoon(.store) } else { doubtNext(.store) }
    }

    private mutating func forget(_ number: UInt64) {
        guard let index = pending[firstPending...].firstIndex(of: number) else { return }
        guard index == firstPending else {
            pending.remove(at: index)
            return
        }
        firstPending &+= 1
        guard firstPending == pending.count || firstPending >= 1_024 else { return }
        pending.removeFirst(firstPending)
        firstPending = 0
    }

    // MARK: Live

    /// The store says that messages come from after `position` on. Repeated after each interruption.
    public mutating func start(at position: Position?) {
        let reason = interruption ?? .store
        interruption = nil
        if held.isEmpty { start(position, reason) } else { held.append((lastNumber, .start(position, reason))) }
    }

    /// Nothing comes until the next start.
    public mutating func interrupt(_ reason: LossReason) { interruption = reason }

    /// Take what can be handed over after each.
    public mutating func receive(_ item: Item, at position: Position, cost: Int) {
        held.append((lastNumber, .message(item, position, cost: cost)))
        heldMessages &+= 1
        heldBytes &+= cost
        if heldMessages > limit || heldBytes > maximumBytes { overflow() }
    }

    /// Nothing of what waits is handed over any more.
    private mutating func overflow() {
        while let (_, entry) = held.popFirst() {
            switch entry {
            case .message(_, let position, _): edge = .some(position)
            case .start(let position, let reason): start(position, reason)
            }
        }
        heldMessages = 0
        heldBytes = 0
        doubtSoon(.limit)
    }

    // MARK: Out

    /// The next thing to hand over.
    public mutating func pop() -> Action? {
        while let first = held.first, isFree(first.barrier) {
            switch first.entry {
            case .start(let position, let reason):
                _ = held.popFirst()
                start(position, reason)
            case .message(let item, let position, let cost):
                if let gap = takeDoubt() { return .gap(gap) }
                if let edge, let edge, edge.epoch != position.epoch {
                    self.edge = Position(epoch: position.epoch, sequence: position.sequence &- 1)
                    return .gap(.epoch)
                }
                _ = held.popFirst()
                heldMessages &-= 1
                heldBytes &-= cost
                edge = .some(position)
                return .message(item)
            }
        }
        if case .after(let number, _) = doubt, isFree(number), let gap = takeDoubt() { return .gap(gap) }
        return nil
    }

    private mutating func start(_ position: Position?, _ reason: LossReason) {
        if let edge {
            if edge != position { doubtSoon(reason) }
        } else if isEarlyMixed || early != nil && early != position {
            doubtSoon(reason)
        }
        early = nil
        isEarlyMixed = false
        edge = .some(position)
    }

    /// Whether the outcomes of all that was handed in up to the number are out.
    private func isFree(_ number: UInt64) -> Bool {
        firstPending == pending.count || pending[firstPending] > number
    }

    private mutating func doubtSoon(_ reason: LossReason) {
        if case .after = doubt { return }
        doubt = .after(lastNumber, reason)
    }

    private mutating func doubtNext(_ reason: LossReason) {
        if doubt == nil { doubt = .beforeMessage(reason) }
    }

    private mutating func takeDoubt() -> LossReason? {
        defer { doubt = nil }
        switch doubt {
        case .after(_, let reason), .beforeMessage(let reason): return reason
        case nil: return nil
        }
    }
}

extension LiveRoom: Sendable where Item: Sendable {}
extension LiveRoom.Action: Sendable where Item: Sendable {}
extension LiveRoom.Entry: Sendable where Item: Sendable {}
