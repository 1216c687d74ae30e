import CSystem
import Reload
import Signaling
import Storage
import Synchronization

/// What connectors with one cache path keep, or those without one together.
final class Cache: Sendable {
    let entries: KeyedFile<CacheEntry>
    let tickets: KeyedFile<Ticket>

    init(path: String?) {
        entries = KeyedFile(
            path: path,
            coding: .init(
                decode: { bytes throws(SignalingError) in try decodeCacheFile(bytes.span.bytes) },
                encode: { records throws(SignalingError) in try encodeCacheFile(records) }))
        tickets = KeyedFile(
            path: path.map { $0 + ".tickets" },
            coding: .init(
                decode: { bytes throws(SignalingError) in try decodeTicketFile(bytes.span.bytes) },
                encode: { records throws(SignalingError) in try encodeTicketFile(records) }))
    }

    /// Takes in what other processes have written; sentences of what is wrong with the files.
    func refresh() -> [String] { [entries.refresh(), tickets.refresh()].compactMap(\.self) }

    func write() -> [String] { [entries.write(), tickets.write()].compactMap(\.self) }
}

/// The caches of an engine, and the thread that writes their files: the loop never waits for a disk.
final class CacheFiles: Sendable {
    private struct State {
        var memory: Cache?
        var files: [String: Cache] = [:]
        var thread: Worker?
        var isStopped = false
    }

    private let state = Guarded(State())
    private let wake = cs_eventfd_create()
    private let isStopped = Atomic<Bool>(false)

    deinit { cs_close(wake) }

    /// The cache with this path. Reads its files, so not for the loop.
    func open(_ path: String?, _ engine: Engine) -> Cache {
        guard let path else {
            return state.withLock { state in
                let cache = state.memory ?? Cache(path: nil)
                state.memory = cache
                return cache
            }
        }
        let cache = state.withLock { state in
            let cache = state.files[path] ?? Cache(path: path)
            state.files[path] = cache
            return cache
        }
        startWriting(engine)
        engine.warn(about: cache.refresh())
        return cache
    }

    private func startWriting(_ engine: Engine) {
        let failure: Failure? = state.withLock { state in
            guard state.thread == nil, !state.isStopped, wake >= 0 else { return nil }
            do throws(Failure) {
                state.thread = try startThread { [self] in write(engine) }
                return nil
            } catch {
                return error
            }
        }
        if let failure { engine.warn(about: ["it will not be written: \(failure.detail)"]) }
    }

    /// Something is to be written.
    func changed() { if wake >= 0 { cs_eventfd_signal(wake) } }

    private func write(_ engine: Engine) {
        var isLast = false
        while !isLast {
            _ = cs_wait_readable(wake, -1)
            cs_eventfd_clear(wake)
            // What was changed before the end is written before it.
            isLast = isStopped.load(ordering: .sequentiallyConsistent)
            for cache in state.withLock({ Array($0.files.values) }) { engine.warn(about: cache.write()) }
        }
    }

    /// Writes what is left, and waits for it.
    func stop() {
        let thread = state.withLock { state in
            state.isStopped = true
            return state.thread.take()
        }
        guard let thread else { return }
        isStopped.store(true, ordering: .sequentiallyConsistent)
        changed()
        thread.join()
    }
}

extension Engine {
    /// From any thread.
    fileprivate func warn(about sentences: [String]) {
        guard logs(.warning) else { return }
        var lines = sentences.map { sentence in
            var event = Event(.log)
            event.number = Int64(LogLevel.warning.rawValue)
            event.data = .text("[CACHE] The cache file: \(sentence)")
            return event
        }
        events.append(&lines)
    }
}
