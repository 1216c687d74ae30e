import CSystem
import Wire

/// One connection of a ``RedisClient``, on the client's thread: connects, logs in, pipelines, and starts over.
final class RedisConnection {
    private enum Phase {
        case paused(until: Instant)
        case resolving(Resolution, deadline: Instant)
        case connecting(RedisLink, rest: ArraySlice<cs_endpoint>, deadline: Instant)
        case securing(RedisLink, deadline: Instant)
        case greeting(RedisLink, deadline: Instant)
        case up(RedisLink, since: Instant)
    }

    /// What became of things since it was last asked.
    struct Outcome {
        var commands = 0
        var bytes = 0
        var counters = RedisClient.Counters()
    }

    private let configuration: RedisClient.Configuration
    private let greeting: [(RedisGreeting.Step, [RedisArgument])]
    /// Of a connection that listens; nil: one for commands.
    private var subscriptions: RedisSubscriptions?
    private let wake: WakeDescriptor
    private var phase: Phase
    private var tls: TLSContext?
    /// A name that is still being looked up from an earlier attempt: there is never more than one such thread.
    private var pending: Resolution?
    private var sent = CommandQueue()
    private var output: [UInt8] = []
    private var written = 0
    private var input = [UInt8](repeating: 0, count: 65_536)
    private var lastProgress = Instant(nanoseconds: 0)
    private var failures = 0
    private var mayReadMore = false
    private(set) var state = RedisState.down(.notYetConnected)
    var outcome = Outcome()

    init(
        _ configuration: RedisClient.Configuration, wake: WakeDescriptor, now: Instant,
        subscriptions: RedisSubscriptions? = nil
    ) {
        var configuration = configuration
        if subscriptions != nil {
            configuration.scripts = []
            configuration.greeting = []
        }
        self.configuration = configuration
        self.subscriptions = subscriptions
        self.wake = wake
        greeting = RedisGreeting.commands(configuration)
        phase = .paused(until: now)
    }

    // MARK: Commands

    /// Only while ``state`` is up, or was when the command was taken.
    func send(_ bytes: [UInt8], deadline: Instant, completion: @escaping RedisClient.Completion, now: Instant) {
        guard case .up = phase else {
            finish(completion, size: bytes.count, .failure(.unavailable))
            return
        }
        enqueue(bytes, .command(completion), deadline: deadline, now: now)
        outcome.counters.commands += 1
    }

    /// Of a connection that listens.
    func subscribe(_ change: RedisSubscriptions.Change, now: Instant) {
        guard let command = subscriptions?.apply(change), case .up = phase else { return }
        subscribe(command, change.channel, change.token, now: now)
    }

    private func subscribe(_ command: [RedisArgument], _ channel: [UInt8], _ token: UInt64?, now: Instant) {
        enqueue(RedisEncoder.encode(command), .subscription(channel: channel, token: token), deadline: nil, now: now)
    }

    private func enqueue(_ bytes: [UInt8], _ purpose: CommandQueue.Purpose, deadline: Instant?, now: Instant) {
        if sent.isEmpty { lastProgress = now }
        sent.append(purpose, size: bytes.count, deadline: deadline)
        output.append(contentsOf: bytes)
    }

    private func finish(_ completion: RedisClient.Completion, size: Int, _ result: Result<RedisReply, RedisFailure>) {
        outcome.commands += 1
        outcome.bytes += size
        completion(result)
    }

    // MARK: Time

    /// Does what is due, and writes what waits.
    func advance(_ now: Instant) {
        while let completion = sent.popExpired(now) {
            outcome.counters.deadlines += 1
            completion(.failure(.deadline))
        }
        switch phase {
        case .paused(let until): if until <= now { start(now) }
        case .resolving(let resolution, let deadline): resolved(resolution, deadline, now)
        case .connecting(_, _, let deadline), .securing(_, let deadline), .greeting(_, let deadline):
            if deadline <= now { give(up: .cannotConnect("no answer in time"), now) }
        case .up: watch(now)
        }
        flush(now)
    }

    /// A server that owes an answer and is silent is as good as away; one that nobody asks is asked now and then.
    private func watch(_ now: Instant) {
        let silence = now - lastProgress
        if sent.isEmpty {
            if silence >= configuration.pingInterval {
                enqueue(RedisEncoder.encode(["PING"]), .ping, deadline: nil, now: now)
            }
        } else if silence >= configuration.silenceTimeout {
            give(up: .silent, now)
        } else if silence >= configuration.stallTimeout {
            state = .down(.silent)
        }
    }

    /// When to advance at the latest.
    func nextTimeout() -> Instant {
        let timer: Instant
        switch phase {
        case .paused(let until): timer = until
        case .resolving(_, let deadline), .connecting(_, _, let deadline), .securing(_, let deadline),
            .greeting(_, let deadline):
            timer = deadline
        case .up:
            let limit: Duration
            if sent.isEmpty {
                limit = configuration.pingInterval
            } else {
                limit = state == .up ? configuration.stallTimeout : configuration.silenceTimeout
            }
            timer = lastProgress + limit
        }
        return sent.nextDeadline.map { min($0, timer) } ?? timer
    }

    // MARK: Connecting

    private func start(_ now: Instant) {
        let deadline = now + configuration.connectTimeout
        switch configuration.address.endpoint {
        case .host(let host, let port):
            let resolution = pending ?? Resolution(host: host, port: port, wake: wake)
            pending = resolution
            phase = .resolving(resolution, deadline: deadline)
            resolved(resolution, deadline, now)
        case .sentinels(let sentinels):
            let question = SentinelQuestion(
                sentinels: sentinels, timeout: configuration.connectTimeout / Int64(sentinels.hosts.count + 1))
            let resolution = pending ?? Resolution(question, wake: wake)
            pending = resolution
            phase = .resolving(resolution, deadline: deadline)
            resolved(resolution, deadline, now)
        case .path(let path):
            var endpoint = cs_endpoint()
            let error = unsafe cs_unix_endpoint(path, &endpoint)
            guard error == 0 else { return give(up: .cannotConnect(String(systemError: -error)), now) }
            connect([endpoint][...], deadline, now)
        }
    }

    private func resolved(_ resolution: Resolution, _ deadline: Instant, _ now: Instant) {
        switch resolution.result {
        case .endpoints(let endpoints):
            pending = nil
            connect(endpoints[...], deadline, now)
        case .failed(let text):
            pending = nil
            give(up: .unknownHost(text), now)
        case nil:
            if deadline <= now { give(up: .unknownHost("no answer in time"), now) }
        }
    }

    /// Tries the endpoints in turn.
    private func connect(_ endpoints: ArraySlice<cs_endpoint>, _ deadline: Instant, _ now: Instant) {
        var rest = endpoints
        var reason = RedisDownReason.cannotConnect("no address")
        while let endpoint = rest.popFirst() {
            do throws(RedisDownReason) {
                let link = try RedisLink(
                    connectingTo: endpoint, maximumReplyBytes: configuration.maximumReplyBytes)
                phase = .connecting(link, rest: rest, deadline: deadline)
                return
            } catch {
                reason = error
            }
        }
        give(up: reason, now)
    }

    private func connected(_ link: RedisLink, _ rest: ArraySlice<cs_endpoint>, _ deadline: Instant, _ now: Instant) {
        if let failure = link.connectFailure() {
            if rest.isEmpty { give(up: .cannotConnect(failure), now) } else { connect(rest, deadline, now) }
            return
        }
        guard let settings = configuration.address.tls, case .host(let host, _) = configuration.address.endpoint else {
            return greet(link, deadline, now)
        }
        do throws(RedisDownReason) {
            let context: TLSContext
            if let made = tls { context = made } else { context = try TLSContext(settings) }
            tls = context
            guard link.startTLS(context, host: host) else { throw .tls("the host's name cannot be checked") }
            phase = .securing(link, deadline: deadline)
            secure(link, deadline, now)
        } catch {
            give(up: error, now)
        }
    }

    private func secure(_ link: RedisLink, _ deadline: Instant, _ now: Instant) {
        switch link.handshake() {
        case .done: greet(link, deadline, now)
        case .later: break
        case .closed: give(up: .tls("closed during the handshake"), now)
        case .failed(let text): give(up: .tls(text), now)
        }
    }

    private func greet(_ link: RedisLink, _ deadline: Instant, _ now: Instant) {
        phase = .greeting(link, deadline: deadline)
        for (step, command) in greeting {
            enqueue(RedisEncoder.encode(command), .greeting(step), deadline: nil, now: now)
        }
    }

    // MARK: Readiness

    /// What to wait for.
    var interest: cs_wait_entry {
        switch phase {
        case .paused, .resolving: return cs_wait_entry(fd: -1, want: 0, got: 0)
        case .connecting(let link, _, _): return cs_wait_entry(fd: link.fd, want: Int32(CS_WRITE), got: 0)
        case .securing(let link, _), .greeting(let link, _), .up(let link, _):
            let want = link.wantsWrite ? CS_READ | CS_WRITE : CS_READ
            return cs_wait_entry(fd: link.fd, want: Int32(want), got: 0)
        }
    }

    /// More may have come than was read in one turn.
    var isHungry: Bool { mayReadMore }

    func ready(_ now: Instant) {
        switch phase {
        case .paused, .resolving: break
        case .connecting(let link, let rest, let deadline): connected(link, rest, deadline, now)
        case .securing(let link, let deadline): secure(link, deadline, now)
        case .greeting(let link, _), .up(let link, _): read(link, now)
        }
    }

    private func flush(_ now: Instant) {
        let link: RedisLink
        switch phase {
        case .greeting(let greeted, _): link = greeted
        case .up(let open, _): link = open
        default: return
        }
        while written < output.count {
            let progress = unsafe output.withUnsafeBytes { bytes in
                unsafe link.write(UnsafeRawBufferPointer(rebasing: bytes[written...]))
            }
            switch progress {
            case .done(let count): written += count
            case .later:
                // What is out need not be kept until all is.
                if written >= 1 << 20 {
                    output.removeFirst(written)
                    written = 0
                }
                return
            case .closed: return give(up: .lost("closed by the server"), now)
            case .failed(let text): return give(up: .lost(text), now)
            }
        }
        output.removeAll(keepingCapacity: output.capacity <= 1 << 20)
        written = 0
    }

    /// Bounds how long one connection keeps the thread.
    private static let readsPerTurn = 16

    private func read(_ link: RedisLink, _ now: Instant) {
        mayReadMore = false
        for _ in 0..<Self.readsPerTurn {
            let progress = unsafe input.withUnsafeMutableBytes { unsafe link.read($0) }
            switch progress {
            case .done(let count):
                lastProgress = now
                guard take(link, count, now) else { return }
            case .later: return
            case .closed: return give(up: .lost("closed by the server"), now)
            case .failed(let text): return give(up: .lost(text), now)
            }
        }
        mayReadMore = true
    }

    /// False if the connection is no more.
    private func take(_ link: RedisLink, _ count: Int, _ now: Instant) -> Bool {
        let isFed = unsafe input.withUnsafeBytes { unsafe link.feed(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
        guard isFed else {
            give(up: .protocolViolation(link.problem), now)
            return false
        }
        while true {
            switch link.nextReply() {
            case .incomplete: return true
            case .violation(let text):
                give(up: .protocolViolation(text), now)
                return false
            case .reply(let reply):
                if let isFine = heard(reply, now) {
                    guard isFine else { return false }
                    continue
                }
                guard let entry = sent.popFirst() else {
                    give(up: .protocolViolation("a reply to nothing"), now)
                    return false
                }
                guard answered(entry, with: reply, link, now) else { return false }
            }
        }
    }

    /// nil if it answers a command.
    private func heard(_ reply: RedisReply, _ now: Instant) -> Bool? {
        guard let handler = subscriptions?.handler, case .up = phase else { return nil }
        switch RedisSubscriptions.hear(reply) {
        case .answer: return nil
        case .message(let channel, let bytes): handler(.message(channel: channel, bytes))
        case .nonsense:
            give(up: .protocolViolation("not a message of a channel"), now)
            return false
        }
        return true
    }

    private func answered(_ entry: CommandQueue.Entry, with reply: RedisReply, _ link: RedisLink, _ now: Instant)
        -> Bool
    {
        outcome.counters.replies += 1
        switch entry.purpose {
        case .greeting(let step):
            if let objection = RedisGreeting.objection(to: reply, at: step) {
                give(up: objection, now)
                return false
            }
            if case .ping = step { open(link, now) }
            return true
        case .command(let completion):
            if case .error(let error) = reply {
                finish(completion, size: entry.size, .failure(.server(error)))
                switch error.code {
                case "MOVED", "ASK": outcome.counters.redirections += 1
                case "READONLY":
                    // It was a master, and is a replica now: the other one is to be looked for.
                    give(up: .refused(code: error.code), now)
                    return false
                default: break
                }
            } else {
                finish(completion, size: entry.size, .success(reply))
            }
        case .expired:
            outcome.counters.lateReplies += 1
            outcome.commands += 1
            outcome.bytes += entry.size
        case .ping: break
        case .subscription(let channel, let token):
            if let token, let handler = subscriptions?.handler {
                if case .error(let error) = reply {
                    handler(.refused(channel: channel, token: token, error))
                } else {
                    handler(.subscribed(channel: channel, token: token))
                }
            }
        }
        state = .up
        return true
    }

    private func open(_ link: RedisLink, _ now: Instant) {
        outcome.counters.connects += 1
        phase = .up(link, since: now)
        state = .up
        for (channel, token) in subscriptions?.channels ?? [:] {
            subscribe(["SUBSCRIBE", .bytes(channel)], channel, token, now: now)
        }
    }

    // MARK: The end

    /// Closes the connection, fails what was sent, and pauses: longer each time, so that many clients do not come back
    /// at once.
    private func give(up reason: RedisDownReason, _ now: Instant) {
        if case .up(_, let since) = phase {
            outcome.counters.lostConnections += 1
            subscriptions?.handler(.lost)
            // One that comes up and breaks at once, again and again, is not tried in a tight loop.
            if now - since >= configuration.longestPause { failures = 0 }
        } else {
            outcome.counters.failedConnects += 1
        }
        if case .protocolViolation = reason { outcome.counters.violations += 1 }
        let doubled = configuration.firstPause * (1 << Int64(min(failures, 20)))
        failures = min(failures + 1, 1000)
        let longest = min(doubled, configuration.longestPause)
        let pause = longest / 2 + .nanoseconds(Int64.random(in: 0...max(longest.nanoseconds / 2, 0)))
        phase = .paused(until: now + pause)
        state = .down(reason)
        drop(.connectionLost)
    }

    func close() {
        phase = .paused(until: .distantFuture)
        state = .down(.closed)
        drop(.closed)
    }

    private func drop(_ failure: RedisFailure) {
        output = []
        written = 0
        mayReadMore = false
        for entry in sent.removeAll() {
            switch entry.purpose {
            case .command(let completion): finish(completion, size: entry.size, .failure(failure))
            case .expired:
                outcome.commands += 1
                outcome.bytes += entry.size
            case .greeting, .ping, .subscription: break
            }
        }
    }
}
