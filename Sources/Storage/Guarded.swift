import CSystem

/// A value behind a lock. POSIX's, because ThreadSanitizer does not see through the standard library's Mutex and would
/// report everything it protects.
package final class Guarded<Value>: @unchecked Sendable {
    @usableFromInline let mutex: OpaquePointer
    @usableFromInline var value: Value

    @inlinable
    package init(_ value: Value) {
        mutex = unsafe cs_mutex_create()
        self.value = value
    }

    deinit { unsafe cs_mutex_destroy(mutex) }

    /// `body` must not come back here.
    @inlinable
    package func withLock<Result>(_ body: (inout Value) -> Result) -> Result {
        unsafe cs_mutex_lock(mutex)
        defer { unsafe cs_mutex_unlock(mutex) }
        return body(&value)
    }
}
