import Synchronization

/// A value that one thread at a time replaces and any number of threads read without a lock.
///
/// It stands in one of a few slots. A reader counts itself into the current slot and then looks again whether it is still
/// the current one: only then does it take the value. A writer fills a slot that is not current and has no readers, then
/// makes it current. In the one order that all these (sequentially consistent) steps have, a reader either counted itself in
/// before the writer looked, and the writer takes another slot, or it looks again after that slot ceased to be current, and
/// goes away without touching it. Readers repeat only when something was published meanwhile.
final class Published<Value: Sendable>: @unchecked Sendable {
    private final class Slot {
        var value: Value
        let readers = Atomic<Int>(0)

        init(_ value: Value) { self.value = value }
    }

    private let slots: [Slot]
    private let current = Atomic<Int>(0)

    init(_ value: Value) { slots = (0..<4).map { _ in Slot(value) } }

    var value: Value { read {} }

    /// `interrupt` runs where others publish at the worst moment.
    func read(_ interrupt: () -> Void) -> Value {
        while true {
            let index = current.load(ordering: .sequentiallyConsistent)
            interrupt()
            let slot = slots[index]
            slot.readers.wrappingAdd(1, ordering: .sequentiallyConsistent)
            defer { slot.readers.wrappingSubtract(1, ordering: .sequentiallyConsistent) }
            if current.load(ordering: .sequentiallyConsistent) == index { return slot.value }
        }
    }

    /// Of several threads only one may do this at a time: the caller's lock sees to it.
    func publish(_ value: Value) {
        let old = current.load(ordering: .sequentiallyConsistent)
        while true {
            // Readers stay for as long as it takes to retain a reference: one of the slots is free at once or very soon.
            for (index, slot) in slots.enumerated()
            where index != old && slot.readers.load(ordering: .sequentiallyConsistent) == 0 {
                slot.value = value
                return current.store(index, ordering: .sequentiallyConsistent)
            }
        }
    }
}
