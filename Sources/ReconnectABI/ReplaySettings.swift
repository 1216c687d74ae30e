import CReconnect
import Engine
import Replay
import ReplayHost
import Wire

extension Settings {
    init(_ config: reconnect_replay_config_t) throws(Failure) {
        self.init()
        try readLimits(config)
        try readStore(config)
        try readQuality(config)
    }

    private mutating func readLimits(_ config: reconnect_replay_config_t) throws(Failure) {
        func set<Value: BinaryInteger>(_ target: inout Int, _ value: Value, limit: Int = Int.max, _ name: StaticString)
            throws(Failure)
        {
            guard value != 0 else { return }
            guard let given = Int(exactly: value), given <= limit else {
                throw Failure(.invalidArgument, "\(name) is \(value); at most \(limit)")
            }
            target = given
        }
        func set(_ target: inout Duration, _ milliseconds: UInt32) {
            if milliseconds != 0 { target = .milliseconds(Int64(milliseconds)) }
        }
        try set(&rooms.window, config.window, limit: Settings.maximumWindow, "window")
        try set(&rooms.maximumWindow, config.max_window, limit: Settings.maximumWindow, "max_window")
        set(&rooms.messageLifetime, config.message_ttl_ms)
        rooms.stateLifetime = rooms.messageLifetime * 10
        set(&rooms.stateLifetime, config.state_ttl_ms)
        try set(
            &rooms.maximumMessageSize, config.max_message_size, limit: Settings.maximumMessageSize, "max_message_size")
        try set(&rooms.maximumRoomBytes, config.max_room_bytes, limit: 1 << 40, "max_room_bytes")
        try set(&rooms.maximumBytes, config.max_bytes, limit: 1 << 40, "max_bytes")
        try set(&rooms.maximumRooms, config.max_rooms, limit: 1 << 24, "max_rooms")
        try set(&rooms.maximumMembers, config.max_members, limit: 1 << 24, "max_members")
        try set(&rooms.maximumMembersPerRoom, config.max_members_per_room, limit: 1 << 24, "max_members_per_room")
        try set(&rooms.maximumKept, config.max_kept, limit: 1 << 10, "max_kept")
        try set(&rooms.maximumBatch, config.max_batch, limit: 1 << 20, "max_batch")
        try set(&rooms.maximumBatchBytes, config.max_batch_bytes, limit: Settings.maximumBatchBytes, "max_batch_bytes")
        try set(&rooms.recoveriesPerSecond, config.recoveries_per_second, "recoveries_per_second")
        try set(&rooms.recoveryBurst, config.recovery_burst, "recovery_burst")
        rooms.needsToken = config.trust_users == 0
        rooms.replaysKeptOnLoss = config.replay_kept_on_loss != 0
        try set(&rooms.maximumKeys, config.max_keys, limit: 1 << 10, "max_keys")
        set(&rooms.keyLifetime, config.key_ttl_ms)
        try set(&maximumPending, config.max_pending, limit: 1 << 24, "max_pending")
    }

    private mutating func readStore(_ config: reconnect_replay_config_t) throws(Failure) {
        func set(_ target: inout Duration, _ milliseconds: UInt32) {
            if milliseconds != 0 { target = .milliseconds(Int64(milliseconds)) }
        }
        store = try unsafe text(config.store, limit: 4096, "store")
        if store?.isEmpty == true { throw Failure(.invalidArgument, "store is empty") }
        if let text = try unsafe text(config.prefix, limit: 256, "prefix") { prefix = text }
        // A file answers as fast as its disk syncs: a slow one is no reason to go on without it.
        if store?.utf8.starts(with: "sqlite:".utf8) == true { storeTimeout = .seconds(5) }
        set(&storeTimeout, config.store_timeout_ms)
        guard let durability = Durability(rawValue: config.durability) else {
            throw Failure(.invalidArgument, "durability is \(config.durability)")
        }
        self.durability = durability
        set(&breaker.window, config.breaker_window_ms)
        if config.breaker_operations != 0 { breaker.minimumCalls = Int(config.breaker_operations) }
        guard config.breaker_percent <= 100 else {
            throw Failure(.invalidArgument, "breaker_percent is \(config.breaker_percent)")
        }
        if config.breaker_percent != 0 { breaker.failurePercent = Int(config.breaker_percent) }
        set(&breaker.openFor, config.breaker_open_ms)
        if let pointer = unsafe config.secret {
            guard config.secret_size >= 16, config.secret_size <= 256 else {
                throw Failure(.invalidArgument, "secret must have 16 to 256 bytes")
            }
            secret = unsafe Array(UnsafeRawBufferPointer(start: pointer, count: config.secret_size))
        } else if config.secret_size != 0 {
            throw Failure(.invalidArgument, "secret is NULL")
        }
        compresses = config.compression != 0
    }

    private mutating func readQuality(_ config: reconnect_replay_config_t) throws(Failure) {
        func limits(_ given: (Double, Double), _ known: (fair: Double, poor: Double), _ name: StaticString)
            throws(Failure) -> (fair: Double, poor: Double)
        {
            func limit(_ value: Double, _ known: Double) throws(Failure) -> Double {
                guard value.isFinite, value >= 0 else { throw Failure(.invalidArgument, "\(name) is \(value)") }
                return value == 0 ? known : value
            }
            return (try limit(given.0, known.fair), try limit(given.1, known.poor))
        }
        var quality = rooms.quality
        quality.latencyMilliseconds = try limits(config.latency_ms, quality.latencyMilliseconds, "latency_ms")
        quality.lossPercent = try limits(config.loss_percent, quality.lossPercent, "loss_percent")
        quality.jitterMilliseconds = try limits(config.jitter_ms, quality.jitterMilliseconds, "jitter_ms")
        quality.bandwidthKilobits = try limits(config.bandwidth_kbps, quality.bandwidthKilobits, "bandwidth_kbps")
        guard config.hysteresis.isFinite else { throw Failure(.invalidArgument, "hysteresis is \(config.hysteresis)") }
        if config.hysteresis != 0 { quality.hysteresis = max(config.hysteresis, 0) }
        rooms.quality = quality
    }
}
