public import Engine

extension Settings {
    /// `REDIS_URL`, where the host names no store.
    public mutating func readEnvironment() throws(Failure) {
        guard store == nil else { return }
        store = try redisURLFromEnvironment()
    }
}
