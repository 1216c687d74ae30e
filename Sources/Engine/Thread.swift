import CSystem

/// What a thread is to do.
private final class Work {
    let body: @Sendable () -> Void

    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
}

/// Starts a thread that runs `body` with all signals blocked. Join it.
func startThread(_ body: @escaping @Sendable () -> Void) throws(Failure) -> cs_thread {
    var started = cs_thread()
    let context = unsafe Unmanaged.passRetained(Work(body))
    let error = unsafe cs_thread_start(
        &started,
        { context in
            guard let context = unsafe context else { return nil }
            unsafe Unmanaged<Work>.fromOpaque(context).takeRetainedValue().body()
            return nil
        }, context.toOpaque())
    guard error == 0 else {
        unsafe context.release()
        let reason = unsafe String(cString: cs_error_text(-error))
        throw Failure(.system, "cannot start a thread: \(reason)")
    }
    return started
}
