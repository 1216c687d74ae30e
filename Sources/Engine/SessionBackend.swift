import CSystem
import Reload
import Storage
import Wire

/// Carries the requests of a ``CachingStore`` to a database, and the answers back.
///
/// The loop calls ``pump(_:)`` after everything that touched its sessions; completions come on the database's thread,
/// to be pushed into the loop's inbox, where they go to ``CachingStore/complete(_:with:now:)``, followed by another pump
/// and by `pollDecision`.
final class SessionBackend: Sendable {
    struct Completion: Sendable {
        let id: LookupID
        let answer: BackendAnswer
    }

    enum State: Equatable, Sendable {
        case up
        case down(String)
        /// Something for the log; up as before.
        case notice(String)
    }

    private let records: any SessionRecords
    private let onCompletion: @Sendable (Completion) -> Void

    private init(records: any SessionRecords, onCompletion: @escaping @Sendable (Completion) -> Void) {
        self.records = records
        self.onCompletion = onCompletion
    }

    /// Opens what `text` names: "sqlite:PATH", "redis://...", "rediss://...", "redis+unix:PATH". Blocks for nothing but
    /// the start of a thread. Fails only for a text that names nothing: a database that is away is reported by `onState`,
    /// and may come. Both closures are called on other threads.
    static func open(
        _ text: String, prefix: String, timeout: Duration, onCompletion: @escaping @Sendable (Completion) -> Void,
        onState: @escaping @Sendable (State) -> Void
    ) throws(Failure) -> SessionBackend {
        throw Failure(.invalidArgument)
    }

    /// Hands on everything the store wants. On the loop's thread.
    func pump(_ store: CachingStore, now: Instant) {
        while let request = store.pollRequest(now: now) { _ = request }
    }

    /// Waits for the database's thread; afterwards no closure is called any more.
    func close() { records.close() }
}
