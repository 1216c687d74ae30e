import CSystem

/// A thread with all signals blocked, so that neither the host's handlers run here nor a broken pipe ends the process.
package struct Worker: Sendable {
    private let thread: cs_thread

    /// The system has no thread left; its error number says why.
    package struct Failure: Error {
        package let number: Int32
    }

    private final class Work: Sendable {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    /// Runs `body` on a new thread.
    package static func start(_ body: @escaping @Sendable () -> Void) throws(Failure) -> Worker {
        var started = cs_thread()
        let context = unsafe Unmanaged.passRetained(Work(body))
        let error = unsafe cs_thread_start(
            &started,
            { context in
                guard let context = unsafe context else { return nil }
                unsafe Unmanaged<Work>.fromOpaque(context).takeRetainedValue().run()
                return nil
            }, context.toOpaque())
        guard error == 0 else {
            unsafe context.release()
            throw Failure(number: -error)
        }
        return Worker(thread: started)
    }

    private init(thread: cs_thread) { self.thread = thread }

    /// The same; nil if the system has none.
    package init?(_ body: @escaping @Sendable () -> Void) {
        guard let started = try? Worker.start(body) else { return nil }
        self = started
    }

    /// Waits for its end; on the thread itself only lets go of it. Once.
    package func join() {
        if cs_thread_is_current(thread) != 0 { detach() } else { _ = cs_thread_join(thread) }
    }

    package func detach() { _ = cs_thread_detach(thread) }
}

/// Wakes a thread that waits for descriptors.
package final class WakeDescriptor: Sendable {
    package let fd: Int32

    package init?() {
        fd = cs_eventfd_create()
        guard fd >= 0 else { return nil }
    }

    deinit { cs_close(fd) }

    package func signal() { cs_eventfd_signal(fd) }
    package func clear() { cs_eventfd_clear(fd) }
}

extension String {
    /// The system's name of an error number.
    package init(systemError code: Int32) { self = unsafe String(cString: cs_error_text(code)) }
}
