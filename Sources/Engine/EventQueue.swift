import CSystem

/// Events from the loop to the host: appended in batches, taken in batches, each batch kept until it is released.
final class EventQueue: Sendable {
    private struct State {
        var waiting = Ring<Event>()
        var batches: [UInt64: [Event]] = [:]
        var nextBatch: UInt64 = 1
        var isClosed = false
    }

    private let state = Guarded(State())
    /// Readable while events wait.
    let descriptor: Int32

    init?() {
        descriptor = cs_eventfd_create()
        guard descriptor >= 0 else { return nil }
    }

    deinit { cs_close(descriptor) }

    var count: Int { state.withLock { $0.waiting.count } }

    /// Takes over the events; `events` is empty afterwards and keeps its room.
    func append(_ events: inout [Event]) {
        guard !events.isEmpty else { return }
        state.withLock { state in
            let wasEmpty = state.waiting.isEmpty
            for event in events { state.waiting.append(event) }
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
            guard !state.waiting.isEmpty, max > 0 else { return .nothing }
            var events: [Event] = []
            events.reserveCapacity(min(max, state.waiting.count))
            while events.count < max, let event = state.waiting.popFirst() { events.append(event) }
            if state.waiting.isEmpty { cs_eventfd_clear(descriptor) }
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
            let dropped = (state.waiting, state.batches)
            state.waiting = Ring()
            state.batches = [:]
            // The descriptor stays readable: whoever waits on it polls and learns that the engine is gone.
            cs_eventfd_signal(descriptor)
            return dropped
        }
        _ = dropped
    }
}
