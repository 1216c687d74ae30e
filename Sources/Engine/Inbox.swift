import CSystem
import Storage
import Synchronization
import Wire

/// Work that host threads hand to the loop.
final class Inbox: Sendable {
    private struct State {
        /// Optional, so that the loop can take them out one by one without copies.
        var commands: [Command?] = []
        var isClosed = false
    }

    private let state = Guarded(State())
    /// True while the loop waits, or is about to: only then does a command need to wake it.
    private let isSleeping = Atomic<Bool>(false)
    let descriptor: Int32

    init?() {
        descriptor = cs_eventfd_create()
        guard descriptor >= 0 else { return nil }
    }

    deinit { cs_close(descriptor) }

    /// False if the engine is gone: nobody will do it.
    @discardableResult
    func push(_ command: Command) -> Bool {
        let isOpen = state.withLock { state in
            if !state.isClosed { state.commands.append(command) }
            return !state.isClosed
        }
        if isOpen, isSleeping.exchange(false, ordering: .sequentiallyConsistent) { cs_eventfd_signal(descriptor) }
        return isOpen
    }

    /// Takes nothing any more. Answers what nobody will do; entries in there keep the inbox alive, and it them, until
    /// this is called.
    func close() -> [Command] {
        state.withLock { state in
            state.isClosed = true
            let left = state.commands.compactMap { $0 }
            state.commands = []
            return left
        }
    }

    /// Swaps the waiting commands with `taken`, which must be empty.
    func take(_ taken: inout [Command?]) {
        state.withLock { swap(&$0.commands, &taken) }
    }

    /// Announces that the loop is going to wait. False if there is work after all.
    func mayWait() -> Bool {
        isSleeping.store(true, ordering: .sequentiallyConsistent)
        if state.withLock({ $0.commands.isEmpty }) { return true }
        isSleeping.store(false, ordering: .sequentiallyConsistent)
        return false
    }

    func woke() {
        isSleeping.store(false, ordering: .sequentiallyConsistent)
    }

    func clearWake() { cs_eventfd_clear(descriptor) }
}
