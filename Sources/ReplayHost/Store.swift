import CSystem
import Engine
import Replay
import ReplayStores
import Storage
import Wire

/// The database behind a buffer.
enum Database {
    case redis(RedisReplayStore)
    case sqlite(SQLiteReplayStore)

    var store: any ReplayStore {
        switch self {
        case .redis(let store): store
        case .sqlite(let store): store
        }
    }

    /// Waits for its thread; afterwards it calls nobody any more. SQLite finishes what was handed to it.
    func close() {
        switch self {
        case .redis(let store): store.close()
        case .sqlite(let store): store.close()
        }
    }
}

/// What a database's thread has to tell: taken under the buffer's lock, at the next occasion.
final class DatabaseNews: Sendable {
    private struct State {
        var secret: [UInt8]?
        /// A connection is new: what was kept there may be another server's, or gone.
        var isFresh = false
        var reason = ""
        var isAside: String?
    }

    private let state = Guarded(State())

    func found(_ secret: [UInt8]) { state.withLock { $0.secret = secret } }
    func takeSecret() -> [UInt8]? { state.withLock { $0.secret.take() } }

    func up() { state.withLock { $0.isFresh = true } }
    func down(_ reason: String) { state.withLock { $0.reason = reason } }
    func putAside(_ path: String) { state.withLock { $0.isAside = path } }

    func takeFresh() -> Bool {
        state.withLock { state in
            defer { state.isFresh = false }
            return state.isFresh
        }
    }

    func takeAside() -> String? { state.withLock { $0.isAside.take() } }

    /// Why the database was last away; without secrets.
    var reason: String { state.withLock { $0.reason } }
}

extension Database {
    private static let sqliteScheme = "sqlite:"
    /// Opening a large file checks it first.
    private static let longestOpening = Duration.seconds(30)

    /// Opens what `settings` name. `wake`: there is something to take.
    static func open(
        _ text: String, _ settings: Settings, _ news: DatabaseNews, wake: WakeDescriptor
    ) throws(Failure) -> Database {
        if text.utf8.starts(with: sqliteScheme.utf8) {
            return try openFile(String(text.dropFirst(sqliteScheme.count)), settings, news, wake: wake)
        }
        let address: RedisAddress
        do throws(RedisAddress.ParseError) {
            address = try RedisAddress(parsing: text)
        } catch { throw Failure(.invalidArgument, "store: \(error)") }
        guard !settings.prefix.utf8.contains(where: { $0 < 0x20 || $0 == 0x7B || $0 == 0x7D }) else {
            throw Failure(.invalidArgument, "prefix has a brace or a control character")
        }
        var redis = RedisReplayStore.Configuration(
            redis: RedisClient.Configuration(address: address), rooms: settings.rooms)
        redis.prefix = settings.prefix
        redis.timeout = settings.longestWait
        redis.redis.maximumCommands = max(redis.redis.maximumCommands, settings.maximumPending)
        redis.redis.maximumBytes = max(redis.redis.maximumBytes, 2 &* settings.rooms.maximumMessageSize)
        let store = RedisReplayStore(
            redis, random: SystemRandomNumberGenerator(), onOutcome: { wake.signal() },
            onState: { state in
                switch state {
                case .up: news.up()
                case .down(let reason): news.down(reason.description)
                }
                wake.signal()
            })
        return .redis(store)
    }

    private static func openFile(
        _ path: String, _ settings: Settings, _ news: DatabaseNews, wake: WakeDescriptor
    ) throws(Failure) -> Database {
        guard !path.isEmpty, !path.utf8.contains(0), path.utf8.count < 4096 else {
            throw Failure(.invalidArgument, "store: \"sqlite:\" without a usable path")
        }
        var file = SQLiteReplayStore.Configuration(path: path, rooms: settings.rooms)
        file.isDurable = settings.durability == .durable
        let store = SQLiteReplayStore(
            file, random: SystemRandomNumberGenerator(), onOutcome: { wake.signal() },
            onState: { state in
                switch state {
                case .up: break
                case .down(let failure): news.down(failure.description)
                case .replaced(let aside): news.putAside(aside)
                }
                wake.signal()
            })
        return .sqlite(store)
    }

    /// The secret that all servers with this store share. Waits for a file until it is open; for a server only for as long
    /// as operations do, and takes its own meanwhile.
    func secret(_ own: [UInt8], _ settings: Settings, _ news: DatabaseNews, wake: WakeDescriptor) throws(Failure)
        -> [UInt8]
    {
        switch self {
        case .sqlite(let store):
            let answer = Answer<Result<[UInt8], SQLiteFailure>>()
            store.exchangeSecret(own) { answer.give($0) }
            switch answer.wait(Self.longestOpening) {
            case .success(let kept): return kept
            case .failure(let failure):
                throw Failure(.storage, "store: the file cannot be used: \(failure.description)")
            case nil: throw Failure(.storage, "store: the file does not open")
            }
        case .redis(let store):
            let limit = Instant(nanoseconds: cs_monotonic_ns()) + settings.storeTimeout
            while store.state != .up {
                let left = limit - Instant(nanoseconds: cs_monotonic_ns())
                guard left > .zero else { return own }
                _ = cs_wait_readable(wake.fd, Int32(clamping: left.milliseconds &+ 1))
                wake.clear()
            }
            _ = news.takeFresh()
            let answer = Answer<[UInt8]?>()
            exchange(store, own, news, wake) { answer.give($0) }
            return answer.wait(settings.storeTimeout).flatMap { $0 } ?? own
        }
    }

    /// Asks again: the server may be another one, or may have forgotten.
    func exchangeAgain(_ own: [UInt8], _ news: DatabaseNews, wake: WakeDescriptor) {
        guard case .redis(let store) = self else { return }
        exchange(store, own, news, wake) { _ in }
    }

    private func exchange(
        _ store: RedisReplayStore, _ own: [UInt8], _ news: DatabaseNews, _ wake: WakeDescriptor,
        _ completion: @escaping @Sendable ([UInt8]?) -> Void
    ) {
        store.exchangeSecret(own) { kept in
            if let kept {
                news.found(kept)
                wake.signal()
            }
            completion(kept)
        }
    }
}

/// One value from another thread.
private final class Answer<Value: Sendable>: Sendable {
    private let value = Guarded<Value?>(nil)
    private let wake = WakeDescriptor()

    func give(_ given: Value) {
        value.withLock { $0 = given }
        wake?.signal()
    }

    /// nil: not in time.
    func wait(_ duration: Duration) -> Value? {
        guard let wake else { return nil }
        let limit = Instant(nanoseconds: cs_monotonic_ns()) + duration
        while true {
            if let given = value.withLock({ $0 }) { return given }
            let left = limit - Instant(nanoseconds: cs_monotonic_ns())
            guard left > .zero else { return nil }
            _ = cs_wait_readable(wake.fd, Int32(clamping: left.milliseconds &+ 1))
            wake.clear()
        }
    }
}
