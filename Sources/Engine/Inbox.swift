import CSystem
import Synchronization
import Wire

/// Work that host threads hand to the loop.
final class Inbox: Sendable {
    private let commands = Mutex<[Command]>([])
    /// True while the loop waits, or is about to: only then does a command need to wake it.
    private let isSleeping = Atomic<Bool>(false)
    let descriptor: Int32

    init?() {
        descriptor = cs_eventfd_create()
        guard descriptor >= 0 else { return nil }
    }

    deinit { cs_close(descriptor) }

    func push(_ command: Command) {
        commands.withLock { $0.append(command) }
        if isSleeping.exchange(false, ordering: .sequentiallyConsistent) { cs_eventfd_signal(descriptor) }
    }

    /// Swaps the waiting commands with `taken`, which must be empty.
    func take(_ taken: inout [Command]) {
        commands.withLock { swap(&$0, &taken) }
    }

    /// Announces that the loop is going to wait. False if there is work after all.
    func mayWait() -> Bool {
        isSleeping.store(true, ordering: .sequentiallyConsistent)
        if commands.withLock({ $0.isEmpty }) { return true }
        isSleeping.store(false, ordering: .sequentiallyConsistent)
        return false
    }

    func woke() {
        isSleeping.store(false, ordering: .sequentiallyConsistent)
    }

    func clearWake() { cs_eventfd_clear(descriptor) }
}
