import CSystem
public import Wire

/// A connection to a Redis server, on a thread of its own.
///
/// Commands are pipelined: any number up to the bounds may be under way, and each gets its own reply. While there is no
/// connection they fail at once: nothing queues up for a server that is away. Connecting is tried again for ever, with
/// growing pauses.
public final class RedisClient: Sendable {
    public typealias Completion = @Sendable (Result<RedisReply, RedisFailure>) -> Void

    public struct Configuration: Sendable {
        public var address: RedisAddress
        /// Connections. Commands of one lane share one, and are carried out in order.
        public var lanes = 1
        /// Loaded into the server at each connect, so that the first EVALSHA finds them.
        public var scripts: [RedisScript] = []
        /// Said at each connect before anything else is; whatever the server answers.
        public var greeting: [[RedisArgument]] = []
        /// Commands and bytes under way, per lane.
        public var maximumCommands = 8192
        public var maximumBytes = 16 << 20
        public var maximumReplyBytes = 4 << 20
        /// Name, TCP, TLS and login together.
        public var connectTimeout = Duration.seconds(3)
        /// A server that owes a reply and sends nothing for so long counts as down, until it goes on ...
        public var stallTimeout = Duration.milliseconds(500)
        /// ... and after so long the connection is given up.
        public var silenceTimeout = Duration.seconds(5)
        /// An idle connection is tried this often.
        public var pingInterval = Duration.seconds(5)
        public var firstPause = Duration.milliseconds(50)
        public var longestPause = Duration.seconds(2)

        public init(address: RedisAddress) { self.address = address }
    }

    /// For metrics.
    public struct Counters: Equatable, Sendable {
        public var connects = 0
        public var failedConnects = 0
        public var lostConnections = 0
        public var violations = 0
        public var commands = 0
        public var replies = 0
        public var deadlines = 0
        public var lateReplies = 0
        public var refused = 0
        public var scriptsReloaded = 0
        /// MOVED and ASK: this is not a client for a cluster.
        public var redirections = 0
    }

    private let shared: RedisShared?
    private let worker = Guarded<Worker?>(nil)

    /// `onState` is called on the client's thread, at each change. Where the system has no descriptor or thread left, the
    /// client stays down.
    ///
    /// `onPush` is called there too, with what comes on subscribed channels; it must be short, and may submit.
    public init(
        _ configuration: Configuration, onState: @escaping @Sendable (RedisState) -> Void = { _ in },
        onPush: @escaping @Sendable (RedisPush) -> Void = { _ in }
    ) {
        guard let wake = WakeDescriptor() else {
            shared = nil
            onState(.down(.cannotConnect("no descriptor is left")))
            return
        }
        let shared = RedisShared(configuration, wake: wake)
        self.shared = shared
        // The thread does not hold the client: without an owner it ends.
        let started = Worker { RedisLoop(shared, onState: onState, onPush: onPush).run() }
        worker.withLock { $0 = started }
        if started == nil { onState(.down(.cannotConnect("no thread can be started"))) }
    }

    deinit {
        shared?.close()
        worker.withLock { $0.take() }?.detach()
    }

    public var state: RedisState { shared?.state.withLock { $0.state } ?? .down(.notYetConnected) }

    public var counters: Counters { shared?.state.withLock { $0.counters } ?? Counters() }

    /// Sends a command. `completion` is called exactly once: on the client's thread, or, if the command cannot be sent
    /// at all, on the caller's before this returns. It must be short, and may submit.
    public func submit(
        _ command: [RedisArgument], lane: Int = 0, deadline: Duration, completion: @escaping Completion
    ) {
        guard let shared else { return completion(.failure(.unavailable)) }
        let limit = Instant(nanoseconds: cs_monotonic_ns()) + deadline
        shared.submit(command, lane: lane, deadline: limit, completion: completion)
    }

    /// Runs a script by its digest; one that the server has forgotten is sent whole. Then it runs later than commands
    /// submitted after it.
    public func run(
        _ script: RedisScript, keys: [RedisArgument], arguments: [RedisArgument] = [], lane: Int = 0,
        deadline: Duration, completion: @escaping Completion
    ) {
        guard let shared else { return completion(.failure(.unavailable)) }
        let limit = Instant(nanoseconds: cs_monotonic_ns()) + deadline
        let rest = [.integer(Int64(keys.count))] + keys + arguments
        shared.submit(["EVALSHA", .text(script.digest)] + rest, lane: lane, deadline: limit) { [weak shared] result in
            guard case .failure(.server(let error)) = result, error.code == "NOSCRIPT", let shared else {
                return completion(result)
            }
            shared.state.withLock { $0.counters.scriptsReloaded += 1 }
            shared.submit(
                ["EVAL", .text(script.source)] + rest, lane: lane, deadline: limit, completion: completion)
        }
    }

    /// Messages of the channel come to the push handler, on a connection that is made for the purpose; again after it
    /// was lost. `token` tells one subscription of a channel from another.
    public func subscribe(_ channel: [UInt8], token: UInt64 = 0) {
        shared?.subscribe(RedisSubscriptions.Change(channel: channel, token: token))
    }

    public func unsubscribe(_ channel: [UInt8]) {
        shared?.subscribe(RedisSubscriptions.Change(channel: channel, token: nil))
    }

    /// Closes the connections and waits for the thread; afterwards no completion is called any more. What is under way
    /// fails. On the client's own thread it does not wait.
    public func close() {
        shared?.close()
        worker.withLock { $0.take() }?.join()
    }
}
