import CSystem
import Wire

/// What the threads that submit and the client's own thread share.
final class RedisShared: Sendable {
    struct Submission: Sendable {
        let bytes: [UInt8]
        let deadline: Instant
        let completion: RedisClient.Completion
    }

    struct Lane: Sendable {
        var isUp = false
        var waiting: [Submission] = []
        /// Under way: waiting here or sent.
        var commands = 0
        var bytes = 0
    }

    struct State: Sendable {
        var lanes: [Lane]
        var counters = RedisClient.Counters()
        var state = RedisState.down(.notYetConnected)
        var isClosed = false
        var isSleeping = false
        var channels: [RedisSubscriptions.Change] = []
    }

    let configuration: RedisClient.Configuration
    let state: Guarded<State>
    let wake: WakeDescriptor
    let laneCount: Int

    init(_ configuration: RedisClient.Configuration, wake: WakeDescriptor) {
        self.configuration = configuration
        self.wake = wake
        laneCount = min(max(configuration.lanes, 1), 16)
        state = Guarded(State(lanes: Array(repeating: Lane(), count: laneCount)))
    }

    func submit(_ command: [RedisArgument], lane: Int, deadline: Instant, completion: @escaping RedisClient.Completion)
    {
        let index = Int(UInt(bitPattern: lane) % UInt(laneCount))
        if let refusal = state.withLock({ self.refusal(&$0, index, size: 0) }) { return completion(.failure(refusal)) }
        let bytes = RedisEncoder.encode(command)
        guard bytes.count <= configuration.maximumBytes else { return completion(.failure(.tooLarge)) }
        let submission = Submission(bytes: bytes, deadline: deadline, completion: completion)
        var mustWake = false
        let refusal = state.withLock { state -> RedisFailure? in
            if let refusal = self.refusal(&state, index, size: bytes.count) { return refusal }
            state.lanes[index].waiting.append(submission)
            state.lanes[index].commands += 1
            state.lanes[index].bytes += bytes.count
            mustWake = state.isSleeping
            state.isSleeping = false
            return nil
        }
        if let refusal { return completion(.failure(refusal)) }
        if mustWake { wake.signal() }
    }

    func subscribe(_ change: RedisSubscriptions.Change) {
        let mustWake = state.withLock { state in
            guard !state.isClosed else { return false }
            state.channels.append(change)
            defer { state.isSleeping = false }
            return state.isSleeping
        }
        if mustWake { wake.signal() }
    }

    private func refusal(_ state: inout State, _ lane: Int, size: Int) -> RedisFailure? {
        let refusal: RedisFailure
        if state.isClosed {
            refusal = .closed
        } else if !state.lanes[lane].isUp {
            refusal = .unavailable
        } else if state.lanes[lane].commands >= configuration.maximumCommands
            || size > configuration.maximumBytes - state.lanes[lane].bytes
        {
            refusal = .overloaded
        } else {
            return nil
        }
        state.counters.refused += 1
        return refusal
    }

    func close() {
        state.withLock {
            $0.isClosed = true
            $0.isSleeping = false
        }
        wake.signal()
    }
}

/// The client's thread.
final class RedisLoop {
    private let shared: RedisShared
    private let onState: @Sendable (RedisState) -> Void
    /// Those of the lanes; then, once something was subscribed, the one that listens.
    private var connections: [RedisConnection]
    private let onPush: @Sendable (RedisPush) -> Void
    private var reported = RedisState.down(.notYetConnected)

    init(
        _ shared: RedisShared, onState: @escaping @Sendable (RedisState) -> Void,
        onPush: @escaping @Sendable (RedisPush) -> Void
    ) {
        self.shared = shared
        self.onState = onState
        self.onPush = onPush
        let now = Instant(nanoseconds: cs_monotonic_ns())
        connections = (0..<shared.laneCount).map { _ in
            RedisConnection(shared.configuration, wake: shared.wake, now: now)
        }
    }

    func run() {
        while takeSubmissions() {
            let now = Instant(nanoseconds: cs_monotonic_ns())
            for connection in connections { connection.advance(now) }
            settle()
            wait()
        }
        for connection in connections { connection.close() }
        let left = shared.state.withLock { state in
            let left = state.lanes.flatMap(\.waiting)
            for index in state.lanes.indices { state.lanes[index] = RedisShared.Lane() }
            state.state = .down(.closed)
            return left
        }
        for submission in left { submission.completion(.failure(.closed)) }
    }

    /// False when it is time to end.
    private func takeSubmissions() -> Bool {
        var taken: [[RedisShared.Submission]] = []
        var channels: [RedisSubscriptions.Change] = []
        let isClosed = shared.state.withLock { state in
            if state.isClosed { return true }
            for index in state.lanes.indices {
                var waiting: [RedisShared.Submission] = []
                swap(&waiting, &state.lanes[index].waiting)
                taken.append(waiting)
            }
            swap(&channels, &state.channels)
            return false
        }
        guard !isClosed else { return false }
        let now = Instant(nanoseconds: cs_monotonic_ns())
        for (connection, submissions) in zip(connections, taken) {
            for submission in submissions {
                connection.send(
                    submission.bytes, deadline: submission.deadline, completion: submission.completion, now: now)
            }
        }
        for change in channels { listener(now).subscribe(change, now: now) }
        return true
    }

    private func listener(_ now: Instant) -> RedisConnection {
        if connections.count > shared.laneCount { return connections[shared.laneCount] }
        let made = RedisConnection(
            shared.configuration, wake: shared.wake, now: now, subscriptions: RedisSubscriptions(onPush))
        connections.append(made)
        return made
    }

    /// Makes known what happened.
    private func settle() {
        let states = connections.prefix(shared.laneCount).map(\.state)
        let state = states.first { $0 != .up } ?? .up
        let outcomes = connections.map(\.outcome)
        shared.state.withLock { shared in
            for (index, outcome) in outcomes.enumerated() {
                shared.counters.add(outcome.counters)
                guard index < states.count else { continue }
                shared.lanes[index].commands -= outcome.commands
                shared.lanes[index].bytes -= outcome.bytes
                shared.lanes[index].isUp = states[index] == .up
            }
            shared.state = state
        }
        for connection in connections { connection.outcome = RedisConnection.Outcome() }
        guard state != reported else { return }
        reported = state
        onState(state)
    }

    private func wait() {
        let isIdle = shared.state.withLock { state in
            state.isSleeping = !state.isClosed && state.channels.isEmpty && state.lanes.allSatisfy(\.waiting.isEmpty)
            return state.isSleeping
        }
        let now = Instant(nanoseconds: cs_monotonic_ns())
        var entries = connections.map(\.interest)
        entries.append(cs_wait_entry(fd: shared.wake.fd, want: Int32(CS_READ), got: 0))
        let isBusy = !isIdle || connections.contains(where: \.isHungry)
        let timeout = connections.map { $0.nextTimeout() }.min() ?? now
        let limit = isBusy ? .zero : max(timeout - now, .zero)
        let ready = unsafe cs_wait_any(&entries, Int32(entries.count), limit.nanoseconds)
        shared.state.withLock { $0.isSleeping = false }
        guard ready >= 0 else { return }
        if let last = entries.last, last.got != 0 { shared.wake.clear() }
        let after = Instant(nanoseconds: cs_monotonic_ns())
        for (connection, entry) in zip(connections, entries) where entry.got != 0 || connection.isHungry {
            connection.ready(after)
        }
    }
}

extension RedisClient.Counters {
    fileprivate mutating func add(_ other: Self) {
        connects += other.connects
        failedConnects += other.failedConnects
        lostConnections += other.lostConnections
        violations += other.violations
        commands += other.commands
        replies += other.replies
        deadlines += other.deadlines
        lateReplies += other.lateReplies
        refused += other.refused
        scriptsReloaded += other.scriptsReloaded
        redirections += other.redirections
    }
}
