import CSystem
import Wire

/// The thread of an ``SQLiteDatabase``.
final class SQLiteLoop {
    private let shared: SQLiteShared
    private let file: SQLiteFile
    private let onState: @Sendable (SQLiteState) -> Void
    private var connection: SQLiteConnection?
    private var failures = 0
    private var nextTry = Instant(nanoseconds: cs_monotonic_ns())
    private var reported: SQLiteState?

    init(_ shared: SQLiteShared, onState: @escaping @Sendable (SQLiteState) -> Void) {
        self.shared = shared
        self.onState = onState
        file = SQLiteFile(shared.configuration)
    }

    func run() {
        while true {
            shared.wake.clear()
            if connection == nil, nextTry <= Instant(nanoseconds: cs_monotonic_ns()) { open() }
            let (jobs, isClosed) = shared.state.withLock { state in
                var jobs: [SQLiteJob] = []
                swap(&jobs, &state.jobs)
                return (jobs, state.isClosed)
            }
            if !jobs.isEmpty, !carryOut(jobs) {
                // Closed before it is moved: closing removes files by their names.
                connection = nil
                replace()
            }
            if isClosed {
                connection = nil
                return
            }
            if jobs.isEmpty { wait() }
        }
    }

    private func wait() {
        var entries = [cs_wait_entry(fd: shared.wake.fd, want: Int32(CS_READ), got: 0)]
        var limit: Int64 = -1
        if connection == nil { limit = max(nextTry - Instant(nanoseconds: cs_monotonic_ns()), .zero).nanoseconds }
        _ = unsafe cs_wait_any(&entries, 1, limit)
    }

    // MARK: Opening

    private func open() {
        do throws(SQLiteFailure) {
            connection = try opened()
            failures = 0
            shared.state.withLock { $0.isDown = false }
            report(.up)
        } catch {
            down(error)
        }
    }

    private func opened() throws(SQLiteFailure) -> SQLiteConnection {
        do throws(SQLiteFailure) {
            return try file.open()
        } catch {
            guard error.isDamage else { throw error }
            guard let aside = file.putAside() else { throw error }
            let fresh = try file.open()
            report(.replaced(aside: aside))
            return fresh
        }
    }

    private func down(_ failure: SQLiteFailure) {
        connection = nil
        let configuration = shared.configuration
        let pause = min(configuration.firstPause * (1 << Int64(min(failures, 20))), configuration.longestPause)
        failures = min(failures + 1, 1000)
        nextTry = Instant(nanoseconds: cs_monotonic_ns()) + pause
        let left = shared.state.withLock { state in
            state.isDown = true
            let left = state.jobs
            state.jobs = []
            return left
        }
        report(.down(failure))
        for job in left { job.refuse(.unavailable) }
    }

    private func report(_ state: SQLiteState) {
        guard state != reported else { return }
        reported = state
        onState(state)
    }

    // MARK: Work

    /// False if the file turned out to be damaged.
    private func carryOut(_ jobs: [SQLiteJob]) -> Bool {
        guard let connection else {
            for job in jobs { job.refuse(.unavailable) }
            return true
        }
        var turn = SQLiteTurn(connection)
        for job in jobs { turn.perform(job) }
        turn.commit()
        return connection.damage == nil
    }

    private func replace() {
        guard let aside = file.putAside() else { return down(.corrupt) }
        do throws(SQLiteFailure) {
            connection = try file.open()
            report(.replaced(aside: aside))
            report(.up)
        } catch {
            down(error)
        }
    }
}

/// What is carried out in one go: one transaction, from the first write on.
private struct SQLiteTurn {
    private let connection: SQLiteConnection
    private var isWriting = false
    /// To be told after the commit. Reads too: they may have seen what is not yet committed.
    private var waiting: [SQLiteJob.Finish] = []

    init(_ connection: SQLiteConnection) { self.connection = connection }

    mutating func perform(_ job: SQLiteJob) {
        switch job.access {
        case .read:
            let (_, finish) = job.run(connection)
            if isWriting { waiting.append(finish) } else { finish(nil) }
        case .write: write(job)
        }
    }

    private mutating func write(_ job: SQLiteJob) {
        do throws(SQLiteFailure) {
            if !isWriting { try connection.execute("BEGIN IMMEDIATE") }
            isWriting = true
            try connection.execute("SAVEPOINT job")
        } catch {
            job.refuse(error)
            undoIfBroken(error)
            return
        }
        let (failure, finish) = job.run(connection)
        waiting.append(finish)
        do throws(SQLiteFailure) {
            // A full disk undoes the whole transaction by itself.
            if connection.isInTransaction {
                if failure != nil { try connection.execute("ROLLBACK TO job") }
                try connection.execute("RELEASE job")
            }
            undoIfBroken(failure ?? .other(code: 0, "undone"))
        } catch {
            try? connection.execute("ROLLBACK")
            undoIfBroken(error)
        }
    }

    private mutating func undoIfBroken(_ failure: SQLiteFailure) {
        guard isWriting, !connection.isInTransaction else { return }
        isWriting = false
        tell(failure)
    }

    mutating func commit() {
        guard isWriting else { return }
        isWriting = false
        do throws(SQLiteFailure) {
            try connection.execute("COMMIT")
            tell(nil)
        } catch {
            try? connection.execute("ROLLBACK")
            tell(error)
        }
    }

    private mutating func tell(_ failure: SQLiteFailure?) {
        let told = waiting
        waiting = []
        for finish in told { finish(failure) }
    }
}
