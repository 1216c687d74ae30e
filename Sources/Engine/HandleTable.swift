import Storage

/// What a handle stands for.
enum HandleTarget {
    case engine(Engine)
    case peer(PeerEntry)
    case channel(ChannelEntry)
    case connector(ConnectorEntry)
    /// Of a module above this one.
    case other(any AnyObject & Sendable)
}

/// The numbers that hosts hold instead of pointers. A number is a slot and the slot's generation, so that one
/// that was closed, or never given out, finds nothing.
final class HandleTable: Sendable {
    static let shared = HandleTable()

    private struct Slot {
        var generation: UInt32
        var target: HandleTarget?
    }

    private struct State {
        var slots: [Slot] = []
        var free: [UInt32] = []
    }

    private let state = Guarded(State())

    /// Slots are used again, but never more than this many at once: 2^24 handles.
    private static let limit = 1 << 24

    /// Gives out a number for what `make` builds around it; nil if the table is full.
    func insert<Target>(_ make: (UInt64) -> (Target, HandleTarget)) -> Target? {
        let reserved: UInt64? = state.withLock { state in
            if let index = state.free.popLast() {
                return HandleTable.number(index: index, generation: state.slots[Int(index)].generation)
            }
            guard state.slots.count < HandleTable.limit else { return nil }
            state.slots.append(Slot(generation: 1, target: nil))
            return HandleTable.number(index: UInt32(state.slots.count - 1), generation: 1)
        }
        guard let reserved else { return nil }
        let (made, target) = make(reserved)
        state.withLock { $0.slots[HandleTable.index(reserved)].target = target }
        return made
    }

    func find(_ number: UInt64) -> HandleTarget? {
        let index = HandleTable.index(number)
        return state.withLock { state in
            guard state.slots.indices.contains(index),
                state.slots[index].generation == UInt32(truncatingIfNeeded: number >> 32)
            else { return nil }
            return state.slots[index].target
        }
    }

    /// Ends a handle. What it stood for is let go outside the lock.
    func remove(_ number: UInt64) {
        let index = HandleTable.index(number)
        let removed: HandleTarget? = state.withLock { state in
            guard state.slots.indices.contains(index),
                state.slots[index].generation == UInt32(truncatingIfNeeded: number >> 32)
            else { return nil }
            let target = state.slots[index].target
            state.slots[index].target = nil
            // Generation 0 is skipped: zero is never a handle.
            state.slots[index].generation =
                state.slots[index].generation == .max ? 1 : state.slots[index].generation + 1
            state.free.append(UInt32(index))
            return target
        }
        _ = removed
    }

    private static func number(index: UInt32, generation: UInt32) -> UInt64 { UInt64(generation) << 32 | UInt64(index) }
    private static func index(_ number: UInt64) -> Int { Int(UInt32(truncatingIfNeeded: number)) }
}

/// Handles of a module above this one.
package enum AttachedHandle {
    /// Gives out a number for what `make` builds around it; nil if there are too many handles.
    package static func insert<Target: AnyObject & Sendable>(_ make: (UInt64) -> Target) -> Target? {
        HandleTable.shared.insert { number in
            let made = make(number)
            return (made, .other(made))
        }
    }

    package static func find(_ number: UInt64) -> AnyObject? {
        guard case .other(let target) = HandleTable.shared.find(number) else { return nil }
        return target
    }

    package static func remove(_ number: UInt64) { HandleTable.shared.remove(number) }
}
