import Storage

/// The secret that signs positions, where hosts do not choose one: the first server of a service puts its own into the
/// store, and all take what is there.
extension RedisReplayStore {
    /// `completion` is called once, on the client's thread or before this returns; nil: the server did not say.
    public func exchangeSecret(_ own: [UInt8], completion: @escaping @Sendable ([UInt8]?) -> Void) {
        let key = RedisArgument.text(configuration.prefix + "secret")
        // In one lane, so in this order.
        client.submit(["SET", key, .bytes(own), "NX"], deadline: configuration.timeout) { _ in }
        client.submit(["GET", key], deadline: configuration.timeout) { result in
            guard case .success(.bytes(let kept)) = result, kept.count >= 16 else { return completion(nil) }
            completion(kept)
        }
    }
}

extension SQLiteReplayStore {
    /// As Redis', in a table of its own; on the database's thread. Fails as the file does.
    public func exchangeSecret(
        _ own: [UInt8], completion: @escaping @Sendable (Result<[UInt8], SQLiteFailure>) -> Void
    ) {
        database.perform(.write) { connection throws(SQLiteFailure) -> [UInt8] in
            try connection.execute(
                "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT")
            try connection.execute("INSERT OR IGNORE INTO meta VALUES ('secret', ?)", [.bytes(own)])
            var kept: [UInt8] = []
            try connection.execute("SELECT value FROM meta WHERE name = 'secret'") { kept = $0.bytes(0) }
            return kept.count >= 16 ? kept : own
        } completion: {
            completion($0)
        }
    }
}
