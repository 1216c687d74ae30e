/// Joins a replay to what goes on meanwhile, for one connection.
///
/// Everything a room says passes through here, in the order in which it arrives, from the moment the connection is
/// subscribed; what is not for its user passes as a number without an item. Live messages are held until the replayed
/// batch has been handed over; those that were in the batch are dropped, and if a number is missing in between, that is
/// said instead of covered up: then recover again from ``position``.
public struct Seam<Item> {
    public enum Disposition: Equatable, Sendable {
        /// It is next: hand it over.
        case deliver
        /// It waits for ``open(at:)``.
        case held
        /// It was handed over before.
        case duplicate
        /// Numbers before it are missing. It waits; recover from ``position``, then call ``open(at:)``.
        case gap
    }

    public enum Opening {
        /// To hand over now, in order.
        case open([Item])
        /// Numbers are missing between the batch and what is held. Recover again from ``position``.
        case gap
    }

    private let limit: Int
    private var isOpen = false
    /// Up to where everything has been handed over.
    public private(set) var position: Position
    /// The newest run of numbers without a gap that is held.
    private var held: [(sequence: UInt64, item: Item)] = []
    private var run: (epoch: UInt64, first: UInt64, last: UInt64)?

    /// Holds from the start. `limit` bounds what is held.
    public init(at position: Position, limit: Int = 1_000) {
        self.position = position
        self.limit = max(limit, 1)
    }

    public var heldCount: Int { held.count }

    public mutating func receive(_ arrived: Position, _ item: Item?) -> Disposition {
        guard isOpen else { return hold(arrived, item) }
        if arrived.epoch == position.epoch {
            if arrived.sequence <= position.sequence { return .duplicate }
            if arrived.sequence == position.sequence &+ 1 {
                position = arrived
                return .deliver
            }
        }
        isOpen = false
        _ = hold(arrived, item)
        return .gap
    }

    /// Something may be missing from now on: everything waits for ``open(at:)``.
    public mutating func hold() { isOpen = false }

    private mutating func hold(_ arrived: Position, _ item: Item?) -> Disposition {
        if let known = run, known.epoch == arrived.epoch, arrived.sequence <= known.last,
            arrived.sequence >= known.first
        {
            return .duplicate
        }
        if let known = run, known.epoch == arrived.epoch, arrived.sequence == known.last &+ 1,
            held.count < limit || item == nil
        {
            run?.last = arrived.sequence
        } else {
            // A gap, a new epoch or too much: what came before must be in the batch, or the seam does not open.
            run = (arrived.epoch, arrived.sequence, arrived.sequence)
            held.removeAll()
        }
        if let item { held.append((arrived.sequence, item)) }
        return .held
    }

    /// The batch up to `position` has been handed over.
    public mutating func open(at position: Position) -> Opening {
        // A batch that was read before the last one takes nothing back.
        let isOlder = position.epoch == self.position.epoch && position.sequence < self.position.sequence
        let position = isOlder ? self.position : position
        self.position = position
        guard let run else {
            isOpen = true
            return .open([])
        }
        guard run.epoch == position.epoch, run.first <= position.sequence &+ 1 else { return .gap }
        let items = held.filter { $0.sequence > position.sequence }.map(\.item)
        self.position.sequence = max(position.sequence, run.last)
        self.run = nil
        held = []
        isOpen = true
        return .open(items)
    }
}

extension Seam: Sendable where Item: Sendable {}
extension Seam.Opening: Sendable where Item: Sendable {}
