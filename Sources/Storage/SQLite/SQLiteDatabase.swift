import CSystem
public import Wire

/// An SQLite file, on a thread of its own.
///
/// Work is carried out in the order it came. What has come meanwhile goes into one transaction, so that many writes cost
/// one sync; the completion of a write is called after the commit. One write that fails does not take the others with it.
///
/// A file that turns out to be damaged is renamed to `PATH.corrupt-N`, an empty one takes its place, and the state handler
/// is told. A file that cannot be opened or written is tried again for ever, with growing pauses; meanwhile work fails at
/// once.
public final class SQLiteDatabase: Sendable {
    public struct Configuration: Sendable {
        public var path: String
        /// Run once, when the file is new or its version lower.
        public var schema: [String]
        public var schemaVersion: Int64
        /// A completed write survives a power failure; otherwise only the end of the process.
        public var isDurable = false
        public var isCheckedAtOpen = true
        public var busyTimeout = Duration.seconds(2)
        public var maximumJobs = 8192
        public var firstPause = Duration.milliseconds(500)
        public var longestPause = Duration.seconds(15)

        public init(path: String, schema: [String], schemaVersion: Int64 = 1) {
            self.path = path
            self.schema = schema
            self.schemaVersion = schemaVersion
        }
    }

    public enum Access: Sendable {
        case read
        case write
    }

    private let shared: SQLiteShared?
    private let worker = Guarded<Worker?>(nil)

    /// `onState` is called on the database's thread, at each change.
    public init(_ configuration: Configuration, onState: @escaping @Sendable (SQLiteState) -> Void = { _ in }) {
        guard let wake = WakeDescriptor() else {
            shared = nil
            onState(.down(.cannotOpen("no descriptor is left")))
            return
        }
        let shared = SQLiteShared(configuration, wake: wake)
        self.shared = shared
        let started = Worker { SQLiteLoop(shared, onState: onState).run() }
        worker.withLock { $0 = started }
        if started == nil { onState(.down(.cannotOpen("no thread can be started"))) }
    }

    deinit {
        shared?.close()
        worker.withLock { $0.take() }?.detach()
    }

    /// Has `work` done. `completion` is called exactly once: on the database's thread, or, if the work cannot be done at
    /// all, on the caller's before this returns. Both must be short.
    public func perform<Value: Sendable>(
        _ access: Access, _ work: @escaping @Sendable (SQLiteConnection) throws(SQLiteFailure) -> Value,
        completion: @escaping @Sendable (Result<Value, SQLiteFailure>) -> Void
    ) {
        guard let shared else { return completion(.failure(.unavailable)) }
        let job = SQLiteJob(
            access: access,
            run: { connection in
                let result: Result<Value, SQLiteFailure>
                do throws(SQLiteFailure) { result = .success(try work(connection)) } catch { result = .failure(error) }
                var failure: SQLiteFailure?
                if case .failure(let error) = result { failure = error }
                return (failure, { later in completion(later.map { .failure($0) } ?? result) })
            },
            refuse: { completion(.failure($0)) })
        if let refusal = shared.submit(job) { completion(.failure(refusal)) }
    }

    /// Finishes what was submitted, closes the file and waits for the thread.
    public func close() {
        shared?.close()
        worker.withLock { $0.take() }?.join()
    }
}

struct SQLiteJob: Sendable {
    /// Tells the submitter; with a failure if what seemed done was undone.
    typealias Finish = @Sendable (SQLiteFailure?) -> Void

    let access: SQLiteDatabase.Access
    let run: @Sendable (SQLiteConnection) -> (failure: SQLiteFailure?, finish: Finish)
    let refuse: @Sendable (SQLiteFailure) -> Void
}

/// What the threads that submit and the database's own thread share.
final class SQLiteShared: Sendable {
    struct State: Sendable {
        var jobs: [SQLiteJob] = []
        /// Until the first try it is not known: then work waits.
        var isDown = false
        var isClosed = false
    }

    let configuration: SQLiteDatabase.Configuration
    let wake: WakeDescriptor
    let state = Guarded(State())

    init(_ configuration: SQLiteDatabase.Configuration, wake: WakeDescriptor) {
        self.configuration = configuration
        self.wake = wake
    }

    func submit(_ job: SQLiteJob) -> SQLiteFailure? {
        let refusal = state.withLock { state -> SQLiteFailure? in
            if state.isClosed { return .closed }
            if state.isDown { return .unavailable }
            if state.jobs.count >= configuration.maximumJobs { return .overloaded }
            state.jobs.append(job)
            return nil
        }
        if refusal == nil { wake.signal() }
        return refusal
    }

    func close() {
        state.withLock { $0.isClosed = true }
        wake.signal()
    }
}
