import Replay
import Storage

/// What this server hears from the others, and from itself, by way of the Redis server.
///
/// The order of a channel is the order of the scripts that publish on it. So a subscription is exact: when the channel
/// is subscribed, a script is asked to say on it where the room is; everything before that answer is history, everything
/// after it is live.
final class RedisLive: Sendable {
    private struct Subscription {
        /// What the channel was subscribed under, and whether the server has confirmed that.
        var channelToken: UInt64
        var isConfirmed = false
        /// What the room's position was asked for under.
        var token: UInt64
    }

    private struct State {
        var feed: LiveFeed
        var rooms: [RoomName: Subscription] = [:]
        var channels: [[UInt8]: RoomName] = [:]
        var lastToken: UInt64 = 0
        /// Some room's position could not be asked for.
        var isIncomplete = false
        var ask: (@Sendable (RoomName, String) -> Void)?
        var refusal: RedisError?
    }

    private let name: String
    private let state: Guarded<State>
    private let onEvent: @Sendable () -> Void

    /// `name` is this store's alone.
    init(_ configuration: Replay.Configuration, name: UInt64, onEvent: @escaping @Sendable () -> Void) {
        self.name = Hexadecimal.text(name)
        self.onEvent = onEvent
        state = Guarded(State(feed: LiveFeed(configuration)))
    }

    /// `ask` has the server say where a room is; if that fails, ``askAgain()``.
    func start(_ ask: @escaping @Sendable (RoomName, String) -> Void) { state.withLock { $0.ask = ask } }

    // MARK: On the store's thread

    /// The token to subscribe the channel under; nil if it is subscribed.
    func subscribe(_ room: RoomName, channel: [UInt8]) -> UInt64? {
        let (token, ask) = state.withLock { state in
            state.lastToken &+= 1
            let token = state.lastToken
            state.feed.subscribe(room)
            state.channels[channel] = room
            guard let known = state.rooms[room] else {
                state.rooms[room] = Subscription(channelToken: token, token: token)
                return (UInt64?.some(token), nil as (@Sendable (RoomName, String) -> Void)?)
            }
            state.rooms[room]?.token = token
            return (nil, known.isConfirmed ? state.ask : nil)
        }
        ask?(room, asking(room))
        return token
    }

    func unsubscribe(_ room: RoomName, channel: [UInt8]) {
        state.withLock { state in
            state.feed.unsubscribe(room)
            state.rooms[room] = nil
            state.channels[channel] = nil
        }
    }

    func pop() -> LiveEvent? { state.withLock { $0.feed.pop() } }

    var counters: LiveCounters { state.withLock { $0.feed.counters } }

    /// The server's words about a channel that it does not let this one hear.
    var refusal: RedisError? { state.withLock { $0.refusal } }

    var isIncomplete: Bool { state.withLock { $0.isIncomplete } }

    // MARK: On any thread

    private func asking(_ room: RoomName) -> String {
        name + Hexadecimal.text(state.withLock { $0.rooms[room]?.token ?? 0 })
    }

    func failed() {
        state.withLock { $0.isIncomplete = true }
        onEvent()
    }

    /// For all rooms whose position is not known.
    func askAgain() {
        let (rooms, ask) = state.withLock { state in
            state.isIncomplete = false
            return (state.rooms.filter { $0.value.isConfirmed && state.feed.isWaiting($0.key) }.map(\.key), state.ask)
        }
        for room in rooms { ask?(room, asking(room)) }
    }

    func heard(_ push: RedisPush) {
        var ask: (@Sendable (RoomName, String) -> Void)?
        var room: RoomName?
        var isRefused = false
        let isFirst = state.withLock { state in
            let wasEmpty = state.feed.isEmpty
            switch push {
            case .subscribed(let channel, let token):
                if let known = state.channels[channel], state.rooms[known]?.channelToken == token {
                    state.rooms[known]?.isConfirmed = true
                    room = known
                    ask = state.ask
                }
            case .message(let channel, let bytes):
                if let known = state.channels[channel] { take(bytes, known, &state) }
            case .refused(_, _, let error):
                state.refusal = error
                isRefused = true
            case .lost:
                for room in state.rooms.keys { state.rooms[room]?.isConfirmed = false }
                state.feed.interruptAll(.connectionLost)
            }
            return wasEmpty && !state.feed.isEmpty
        }
        if let room { ask?(room, asking(room)) }
        if isFirst || isRefused { onEvent() }
    }

    private func take(_ bytes: [UInt8], _ room: RoomName, _ state: inout State) {
        switch LiveLine(decoding: bytes, room: room) {
        case .message(let message): state.feed.receive(message)
        case .position(let position, let asked):
            // While nothing is known only the answer to the last question counts. Later every one is a check.
            let token = state.rooms[room].map { name + Hexadecimal.text($0.token) }
            if asked == token || !state.feed.isWaiting(room) { state.feed.announce(room, at: position) }
        case nil: break
        }
    }
}
