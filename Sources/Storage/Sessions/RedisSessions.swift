public import Wire

/// Records of sessions in Redis, for several servers.
///
///     {prefix}{sessions}:client:{client, hexadecimal}   hash: v (version), d (record), k (the keys that find it)
///     {prefix}{sessions}:token:{key}                    the client
///
/// The braces around the word "sessions" are literal. A look-up by token is one round trip in one script, and goes from
/// one key to another whose name it only then learns; in a cluster both must be on one node, and nothing that is known
/// beforehand ties a token to its client. So all sessions of a prefix share a slot; some hundred thousand of a kilobyte
/// each are little for a node, and engines that want more use several prefixes.
///
/// Every key expires by itself (PX), by the server's clock.
public final class RedisSessions: SessionRecords {
    private let client: RedisClient
    private let base: String
    private let loadTimeout: Duration
    private let saveTimeout: Duration

    /// `loadTimeout`: nobody waits longer for a look-up.
    public init(
        address: RedisAddress, prefix: String, loadTimeout: Duration, saveTimeout: Duration = .seconds(2),
        onState: @escaping @Sendable (RecordsState) -> Void
    ) {
        base = prefix + "{sessions}:"
        self.loadTimeout = loadTimeout
        self.saveTimeout = saveTimeout
        var configuration = RedisClient.Configuration(address: address)
        configuration.scripts = [Self.loadScript, Self.loadClientScript, Self.saveScript, Self.removeScript]
        client = RedisClient(configuration) { state in
            switch state {
            case .up: onState(.up)
            case .down(let reason): onState(.down("\(reason)"))
            }
        }
    }

    public var counters: RedisClient.Counters { client.counters }

    private func key(_ client: UInt64) -> RedisArgument { .text(base + "client:" + String(client, radix: 16)) }

    // MARK: Loading

    private static let loadScript = RedisScript(
        """
        local client = redis.call('GET', KEYS[1])
        if not client then return false end
        local key = ARGV[1] .. client
        local record = redis.call('HMGET', key, 'v', 'd')
        if not record[1] or not record[2] then return false end
        return {client, record[1], record[2], redis.call('PTTL', key)}
        """)

    private static let loadClientScript = RedisScript(
        """
        local record = redis.call('HMGET', KEYS[1], 'v', 'd')
        if not record[1] or not record[2] then return false end
        return {ARGV[1], record[1], record[2], redis.call('PTTL', KEYS[1])}
        """)

    public func load(
        key: String, completion: @escaping @Sendable (Result<StoredSession?, RecordsFailure>) -> Void
    ) {
        client.run(
            Self.loadScript, keys: [.text(base + "token:" + key)], arguments: [.text(base + "client:")],
            deadline: loadTimeout
        ) { completion(Self.loaded($0)) }
    }

    public func load(
        client: UInt64, completion: @escaping @Sendable (Result<StoredSession?, RecordsFailure>) -> Void
    ) {
        self.client.run(
            Self.loadClientScript, keys: [key(client)], arguments: [.text(String(client, radix: 16))],
            deadline: loadTimeout
        ) { completion(Self.loaded($0)) }
    }

    private static func loaded(_ result: Result<RedisReply, RedisFailure>) -> Result<StoredSession?, RecordsFailure> {
        guard case .success(let reply) = result else { return .failure(.unavailable) }
        if reply.isNull { return .success(nil) }
        return stored(reply).map { .success($0) } ?? .failure(.unavailable)
    }

    private static func stored(_ reply: RedisReply) -> StoredSession? {
        guard let parts = reply.arrayValue, parts.count == 4, let name = parts[0].bytesValue,
            let client = UInt64(String(decoding: name, as: UTF8.self), radix: 16),
            let number = parts[1].bytesValue, let version = UInt64(String(decoding: number, as: UTF8.self)),
            let bytes = parts[2].bytesValue, let remaining = parts[3].integerValue
        else { return nil }
        return StoredSession(
            client: client, version: version, bytes: bytes, remaining: .milliseconds(max(remaining, 0)))
    }

    // MARK: Writing

    private static let saveScript = RedisScript(
        """
        local known = redis.call('HMGET', KEYS[1], 'v', 'd', 'k')
        if known[1] and known[2] and known[1] ~= ARGV[2] then
            return {ARGV[1], known[1], known[2], redis.call('PTTL', KEYS[1])}
        end
        local kept = {}
        for index = 7, #ARGV do kept[ARGV[index]] = true end
        for name in string.gmatch(known[3] or '', '%S+') do
            local key = ARGV[6] .. name
            if not kept[name] and redis.call('GET', key) == ARGV[1] then redis.call('DEL', key) end
        end
        redis.call('HSET', KEYS[1], 'v', ARGV[3], 'd', ARGV[4], 'k', table.concat(ARGV, ' ', 7))
        redis.call('PEXPIRE', KEYS[1], ARGV[5])
        for index = 2, #KEYS do redis.call('SET', KEYS[index], ARGV[1], 'PX', ARGV[5]) end
        return 1
        """)

    private static let removeScript = RedisScript(
        """
        local names = redis.call('HGET', KEYS[1], 'k')
        for name in string.gmatch(names or '', '%S+') do
            local key = ARGV[2] .. name
            if redis.call('GET', key) == ARGV[1] then redis.call('DEL', key) end
        end
        return redis.call('DEL', KEYS[1])
        """)

    public func save(
        _ write: SessionWrite, completion: @escaping @Sendable (Result<SaveOutcome, RecordsFailure>) -> Void
    ) {
        let version = write.basedOn &+ 1
        let milliseconds = max(write.lifetime.milliseconds, 1)
        client.run(
            Self.saveScript, keys: [key(write.client)] + write.keys.map { .text(base + "token:" + $0) },
            arguments: [
                .text(String(write.client, radix: 16)), .text(String(write.basedOn)), .text(String(version)),
                .bytes(write.bytes), .integer(milliseconds), .text(base + "token:"),
            ] + write.keys.map { .text($0) }, deadline: saveTimeout
        ) { result in
            switch result {
            case .success(.integer(1)): completion(.success(.saved(version: version)))
            case .success(let reply):
                completion(Self.stored(reply).map { .success(.conflict($0)) } ?? .failure(.unavailable))
            case .failure: completion(.failure(.unavailable))
            }
        }
    }

    public func remove(client: UInt64, completion: @escaping @Sendable (Result<Void, RecordsFailure>) -> Void) {
        self.client.run(
            Self.removeScript, keys: [key(client)],
            arguments: [.text(String(client, radix: 16)), .text(base + "token:")], deadline: saveTimeout
        ) { result in
            if case .success = result { completion(.success(())) } else { completion(.failure(.unavailable)) }
        }
    }

    public func close() { client.close() }
}
