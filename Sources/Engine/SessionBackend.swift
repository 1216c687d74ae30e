import CSystem
import Reload
import Storage
import Wire

/// Carries the requests of a ``CachingStore`` to a database, and the answers back.
///
/// The loop calls ``pump(_:now:)`` after everything that touched its sessions, and after their timeouts. Completions come
/// on the database's thread, or within `pump`; they are to be pushed into the loop's inbox, from where they go to
/// ``CachingStore/complete(_:with:now:)``, followed by another pump and by `pollDecision`. State changes go the same way
/// to ``CachingStore/isAvailable``, true only while up.
final class SessionBackend: Sendable {
    struct Completion: Sendable {
        let id: LookupID
        let answer: BackendAnswer
    }

    enum State: Equatable, Sendable {
        case up
        /// With a sentence, in which there are no secrets.
        case down(String)
        /// Something for the log; up or down as before.
        case notice(String)
    }

    /// True for a file: what is asked before it is open waits, so that ``CachingStore/isAvailable`` may be set at once.
    let isFile: Bool
    private let records: any SessionRecords
    private let onCompletion: @Sendable (Completion) -> Void

    init(records: any SessionRecords, isFile: Bool = false, onCompletion: @escaping @Sendable (Completion) -> Void) {
        self.records = records
        self.isFile = isFile
        self.onCompletion = onCompletion
    }

    /// Opens what `text` names: "sqlite:PATH", "redis://...", "rediss://...", "redis+unix:PATH". Waits for nothing but the
    /// start of a thread. Fails only for a text that names nothing: a database that is away is reported by `onState`, and
    /// may come. `timeout`: how long an answer waits for the store. Both closures are called on other threads.
    static func open(
        _ text: String, prefix: String = "webrtc:reconnect:", timeout: Duration,
        onCompletion: @escaping @Sendable (Completion) -> Void, onState: @escaping @Sendable (State) -> Void
    ) throws(Failure) -> SessionBackend {
        let report: @Sendable (RecordsState) -> Void = { state in
            switch state {
            case .up: onState(.up)
            case .down(let reason): onState(.down(reason))
            case .notice(let text): onState(.notice(text))
            }
        }
        if let path = sqlitePath(text) {
            guard !path.isEmpty, !path.utf8.contains(0), path.utf8.count < 4096 else {
                throw Failure(.invalidArgument, "session_store: \"sqlite:\" without a usable path")
            }
            return SessionBackend(
                records: SQLiteSessions(path: path, onState: report), isFile: true, onCompletion: onCompletion)
        }
        guard prefix.utf8.count <= 512, !prefix.utf8.contains(0) else {
            throw Failure(.invalidArgument, "session_prefix: longer than 512 bytes")
        }
        let address: RedisAddress
        do throws(RedisAddress.ParseError) {
            address = try RedisAddress(parsing: text)
        } catch {
            throw Failure(.invalidArgument, "session_store: \(error)")
        }
        return SessionBackend(
            records: RedisSessions(address: address, prefix: prefix, loadTimeout: timeout, onState: report),
            onCompletion: onCompletion)
    }

    private static func sqlitePath(_ text: String) -> String? {
        let scheme = "sqlite:"
        guard text.utf8.starts(with: scheme.utf8) else { return nil }
        return String(text.dropFirst(scheme.count))
    }

    /// Hands on everything the store wants. On the loop's thread.
    func pump(_ store: CachingStore, now: Instant) {
        while let request = store.pollRequest(now: now) { carryOut(request) }
    }

    private func carryOut(_ request: BackendRequest) {
        let complete = onCompletion
        let answer: @Sendable (BackendAnswer) -> Void = { complete(Completion(id: request.id, answer: $0)) }
        switch request.operation {
        case .load(let key): records.load(key: key) { answer(Self.loaded($0)) }
        case .loadClient(let client): records.load(client: client.value) { answer(Self.loaded($0)) }
        case .save(let save):
            let write = SessionWrite(
                client: save.client.value, bytes: save.record, keys: save.keys, basedOn: save.basedOn,
                lifetime: save.lifetime)
            records.save(write) { answer(Self.saved($0)) }
        case .remove(let client):
            records.remove(client: client.value) { result in
                if case .success = result { answer(.removed) } else { answer(.unavailable) }
            }
        }
    }

    private static func loaded(_ result: Result<StoredSession?, RecordsFailure>) -> BackendAnswer {
        switch result {
        case .success(let stored): stored.map { .record(record($0)) } ?? .absent
        case .failure: .unavailable
        }
    }

    private static func saved(_ result: Result<SaveOutcome, RecordsFailure>) -> BackendAnswer {
        switch result {
        case .success(.saved(let version)): .saved(version: version)
        case .success(.conflict(let stored)): .conflict(record(stored))
        case .failure: .unavailable
        }
    }

    private static func record(_ stored: StoredSession) -> BackendRecord {
        BackendRecord(
            client: ClientID(stored.client), version: stored.version, bytes: stored.bytes,
            remaining: stored.remaining)
    }

    /// Waits for the database's thread; afterwards no closure is called any more. SQLite finishes what was handed to it.
    func close() { records.close() }
}
