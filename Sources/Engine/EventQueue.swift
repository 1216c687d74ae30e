import CSystem
import Storage

/// Events from the loop to the host: appended in batches, taken in batches, each batch kept until it is released.
final class EventQueue: Sendable {
    private struct State {
        /// Those that were appended last.
        var fresh: [Event] = []
        /// Those before, the oldest at the end, so that they are moved out and not copied.
        var older: [Event] = []
        var batches: [UInt64: [Event]] = [:]
        var nextBatch: UInt64 = 1
        var isClosed = false

        var count: Int { fresh.count + older.count }

        mutating func append(_ events: inout [Event]) {
            guard fresh.isEmpty else { return fresh.append(contentsOf: events) }
            swap(&fresh, &events)
            // As many may come next time.
            events.reserveCapacity(min(fresh.count, 1024))
        }

        /// As many of the oldest as wait, at most `max`. Often that is all of them, in the array they came in.
        mutating func removeOldest(_ max: Int) -> [Event] {
            var events: [Event] = []
            if older.isEmpty {
                if fresh.count <= max {
                    swap(&events, &fresh)
                    return events
                }
                turnOver()
            }
            events.reserveCapacity(min(max, count))
            while events.count < max {
                if older.isEmpty { turnOver() }
                guard let event = older.popLast() else { break }
                events.append(event)
            }
            return events
        }

        private mutating func turnOver() {
            swap(&older, &fresh)
            older.reverse()
        }
    }

    private let state = Guarded(State())
    /// Readable while events wait.
    let descriptor: Int32

    init?() {
        descriptor = cs_eventfd_create()
        guard descriptor >= 0 else { return nil }
    }

    deinit { cs_close(descriptor) }

    var count: Int { state.withLock { $0.count } }

    /// Takes over the events; `events` is empty afterwards and keeps its room.
    func append(_ events: inout [Event]) {
        guard !events.isEmpty else { return }
        state.withLock { state in
            let wasEmpty = state.count == 0
            state.append(&events)
            // Inside the lock, so that a signal and a clear cannot swap.
            if wasEmpty { cs_eventfd_signal(descriptor) }
        }
        events.removeAll(keepingCapacity: true)
    }

    enum Taken {
        case closed
        case nothing
        case batch(UInt64, [Event])
    }

    func take(max: Int) -> Taken {
        state.withLock { state in
            if state.isClosed { return .closed }
            guard state.count > 0, max > 0 else { return .nothing }
            let events = state.removeOldest(max)
            if state.count == 0 { cs_eventfd_clear(descriptor) }
            let batch = state.nextBatch
            state.nextBatch += 1
            state.batches[batch] = events
            return .batch(batch, events)
        }
    }

    /// The events of the batch, or nil if there is no such batch (any more).
    func release(_ batch: UInt64) -> [Event]? {
        state.withLock { $0.batches.removeValue(forKey: batch) }
    }

    /// Wakes everybody who waits; from now on there is nothing to take.
    func close() {
        let dropped = state.withLock { state in
            state.isClosed = true
            let dropped = (state.fresh, state.older, state.batches)
            state.fresh = []
            state.older = []
            state.batches = [:]
            // The descriptor stays readable: whoever waits on it polls and learns that the engine is gone.
            cs_eventfd_signal(descriptor)
            return dropped
        }
        _ = dropped
    }
}
