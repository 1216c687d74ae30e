import Storage

/// Starts a thread that runs `body` with all signals blocked. Join it.
func startThread(_ body: @escaping @Sendable () -> Void) throws(Failure) -> Worker {
    do throws(Worker.Failure) {
        return try Worker.start(body)
    } catch {
        throw Failure(.system, "cannot start a thread: \(String(systemError: error.number))")
    }
}
