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

    var hasChanges: Bool { entries.hasChanges || tickets.hasChanges }
}

/// A cache as long as somebody uses it.
final class OpenCache: Sendable {
    let cache: Cache
    let files: CacheFiles
    private let path: String?

    fileprivate init(_ cache: Cache, _ path: String?, _ files: CacheFiles) {
        self.cache = cache
        self.path = path
        self.files = files
    }

    deinit { if let path { files.close(path) } }
}

/// The caches of an engine, and the thread that writes their files: the loop never waits for a disk.
final class CacheFiles: Sendable {
    private struct File {
        var cache: Cache
        var users = 0
        /// Counts how often it was opened.
        var opened = 0
    }

    private struct State {
        var memory: Cache?
        var files: [String: File] = [:]
        var thread: Worker?
        var isStopped = false
    }

    private let state = Guarded(State())
    private let wake = cs_eventfd_create()
    private let isStopped = Atomic<Bool>(false)

    deinit { cs_close(wake) }

    /// The cache with this path. Reads its files, so not for the loop.
    func open(_ path: String?, _ engine: Engine) -> OpenCache {
        guard let path else {
            let cache = state.withLock { state in
                let cache = state.memory ?? Cache(path: nil)
                state.memory = cache
                return cache
            }
            return OpenCache(cache, nil, self)
        }
        let cache = state.withLock { state in
            var file = state.files[path] ?? File(cache: Cache(path: path))
            file.users += 1
            file.opened &+= 1
            state.files[path] = file
            return file.cache
        }
        startWriting(engine)
        engine.warn(about: cache.refresh())
        return OpenCache(cache, path, self)
    }

    /// One user less. The last one leaves the cache to the writing thread if something is to be written.
    fileprivate func close(_ path: String) {
        let isUnwritten = state.withLock { state in
            guard var file = state.files[path] else { return false }
            file.users -= 1
            let isUnwritten = file.cache.hasChanges
            state.files[path] = file.users == 0 && !isUnwritten ? nil : file
            return isUnwritten
        }
        if isUnwritten { changed() }
    }

    /// What was written for its last user, if nobody has come since. Also if that failed, which was told.
    private func letGo(_ path: String, _ written: File) {
        state.withLock { state in
            guard let file = state.files[path], file.users == 0, file.opened == written.opened else { return }
            state.files[path] = nil
        }
    }

    /// How many files are known.
    var count: Int { state.withLock { $0.files.count } }

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
            for (path, file) in state.withLock({ $0.files }) {
                engine.warn(about: file.cache.write())
                if file.users == 0 { letGo(path, file) }
            }
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
