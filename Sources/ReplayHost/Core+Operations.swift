public import Engine
import Replay
import Wire

/// Operations, one function each. What is absent is empty. A failure says what is wrong with the operation, and then it
/// was not taken; everything else is its outcome.
extension Core {
    public struct PublishOptions {
        public var flags: UInt32 = 0
        public var format: UInt32 = 0
        public var kind: UInt32 = 0
        public var lifetimeMilliseconds: UInt32 = 0
        public var negotiation: UInt64 = 0

        public init() {}

        func properties(key: RawSpan) throws(Failure) -> MessageProperties {
            guard flags & ~Flag.priority == 0 else { throw Failure(.invalidArgument, "flags is \(flags)") }
            guard format <= 2 else { throw Failure(.invalidArgument, "format is \(format)") }
            guard kind <= 3, let kind = MessageKind(rawValue: UInt8(truncatingIfNeeded: kind)) else {
                throw Failure(.invalidArgument, "kind is \(kind)")
            }
            var properties = MessageProperties(
                kind, isText: format != 2, isPriority: flags & Flag.priority != 0, negotiation: negotiation)
            if lifetimeMilliseconds != 0 { properties.lifetime = .milliseconds(Int64(lifetimeMilliseconds)) }
            if key.byteCount > 0 {
                guard key.byteCount <= 1_024 else { throw Failure(.invalidArgument, "key is longer than 1024 bytes") }
                properties.key = IdempotencyKey(hashing: key.copied())
            }
            return properties
        }
    }

    public func publish(
        room: RawSpan, user: RawSpan, to: RawSpan, data: RawSpan, key: RawSpan, _ options: PublishOptions, tag: UInt64
    ) throws(Failure) {
        var properties = try options.properties(key: key)
        let isTooLarge = data.byteCount > settings.rooms.maximumMessageSize
        if properties.isText, !isTooLarge, !data.isUTF8 { throw Failure(.invalidArgument, "data is not UTF-8") }
        guard !isTooLarge, let compressed = compressed(data) else {
            return try publish(room: room, user: user, to: to, data: data, isTooLarge: isTooLarge, properties, tag: tag)
        }
        properties.isCompressed = true
        try publish(
            room: room, user: user, to: to, data: compressed.span.bytes, isTooLarge: false, properties, tag: tag)
    }

    /// `data` as it is to be stored.
    @inline(__always)
    private func publish(
        room: RawSpan, user: RawSpan, to: RawSpan, data: RawSpan, isTooLarge: Bool, _ properties: MessageProperties,
        tag: UInt64
    ) throws(Failure) {
        guard case .memory(let store) = backend else {
            let name = try room.roomName()
            let sender = user.byteCount > 0 ? try user.userName("user") : nil
            let recipient = to.byteCount > 0 ? try to.userName("to") : nil
            promise()
            if isTooLarge { return refuse(.publish, tag, .messageTooLarge) }
            return store(
                .publish(room: name, from: sender, to: recipient, properties, payload: data.copied()), .publish, tag)
        }
        guard let id = store.room(named: room) else {
            try room.checkRoom()
            if user.byteCount > 0 { try user.checkUser("user") }
            if to.byteCount > 0 { try to.checkUser("to") }
            promise()
            return refuse(.publish, tag, .unknownRoom)
        }
        var sender: MemberID?
        var recipient: MemberID?
        if user.byteCount > 0 {
            sender = store.member(named: user, in: id)
            if sender == nil { try user.checkUser("user") }
        }
        if to.byteCount > 0 {
            recipient = store.member(named: to, in: id)
            if recipient == nil { try to.checkUser("to") }
        }
        promise()
        if user.byteCount > 0, sender == nil { return refuse(.publish, tag, .unknownUser) }
        if to.byteCount > 0, recipient == nil { return refuse(.publish, tag, .unknownRecipient) }
        if isTooLarge { return refuse(.publish, tag, .messageTooLarge) }
        do throws(Refusal) {
            put(
                .publish, tag,
                try store.publish(room: id, from: sender, to: recipient, properties, payload: data, now: now))
        } catch { refuse(.publish, tag, error) }
        takeLive(store)
    }

    public func join(
        room: RawSpan, user: RawSpan, position: RawSpan, token: RawSpan, flags: UInt32, tag: UInt64
    ) throws(Failure) {
        guard flags & ~Flag.resume == 0 else { throw Failure(.invalidArgument, "flags is \(flags)") }
        try room.checkRoom()
        try user.checkUser("user")
        var resume: Resume?
        if flags & Flag.resume != 0 {
            resume = Resume(token: ResumeToken(parsing: token), position: presented(position))
        }
        guard case .memory(let store) = backend else {
            let member = try membership(room, user)
            promise()
            return self.store(.join(member, resume: resume), .join, tag, resume?.position ?? .nothing)
        }
        promise()
        do throws(Refusal) {
            let (_, joined) = try store.join(room: room, user: user, resume: resume, into: &batch, now: now)
            takeLive(store)
            put(tag, joined, batch)
        } catch { refuse(.join, tag, error) }
    }

    public func recover(
        room: RawSpan, user: RawSpan, generation: UInt64, position: RawSpan, tag: UInt64
    ) throws(Failure) {
        let presented = presented(position)
        guard case .memory(let store) = backend else {
            let member = try membership(room, user)
            promise()
            return self.store(.recover(member, generation: generation, presented), .recover, tag, presented)
        }
        guard let member = try find(room, user, in: store, .recover, tag) else { return }
        do throws(Refusal) {
            let recovery = try store.recover(
                member, generation: generation, presented, into: &batch, now: now)
            takeLive(store)
            put(.recover, tag, recovery, batch)
        } catch { refuse(.recover, tag, error) }
    }

    public func acknowledge(
        room: RawSpan, user: RawSpan, generation: UInt64, position: RawSpan, tag: UInt64
    ) throws(Failure) {
        guard position.byteCount > 0 else { throw Failure(.invalidArgument, "position is missing") }
        let presented = presented(position)
        guard case .memory(let store) = backend else {
            let member = try membership(room, user)
            promise()
            return self.store(.acknowledge(member, generation: generation, presented), .acknowledge, tag, presented)
        }
        guard let member = try find(room, user, in: store, .acknowledge, tag) else { return }
        finish(.acknowledge, tag) { () throws(Refusal) in
            try store.acknowledge(member, generation: generation, presented, now: now)
            if case .unreadable = presented { throw .invalidMetrics }
        }
    }

    public func drop(room: RawSpan, user: RawSpan, generation: UInt64, tag: UInt64) throws(Failure) {
        guard case .memory(let store) = backend else {
            let member = try membership(room, user)
            promise()
            return self.store(.drop(member, generation: generation), .drop, tag)
        }
        guard let member = try find(room, user, in: store, .drop, tag) else { return }
        finish(.drop, tag) { () throws(Refusal) in try store.drop(member, generation: generation, now: now) }
    }

    public func leave(room: RawSpan, user: RawSpan, generation: UInt64, tag: UInt64) throws(Failure) {
        guard case .memory(let store) = backend else {
            let member = try membership(room, user)
            promise()
            return self.store(.leave(member, generation: generation), .leave, tag)
        }
        guard let member = try find(room, user, in: store, .leave, tag) else { return }
        finish(.leave, tag) { () throws(Refusal) in try store.leave(member, generation: generation, now: now) }
    }

    public func state(room: RawSpan, user: RawSpan, tag: UInt64) throws(Failure) {
        guard case .memory(let store) = backend else {
            let member = try membership(room, user)
            promise()
            return self.store(.state(member), .state, tag)
        }
        guard let member = try find(room, user, in: store, .state, tag) else { return }
        guard let state = store.state(member, now: now) else { return refuse(.state, tag, .unknownUser) }
        put(tag, state)
    }

    /// Negative: not known.
    public func quality(
        room: RawSpan, user: RawSpan, latency: Double, loss: Double, jitter: Double, bandwidth: Double, tag: UInt64
    ) throws(Failure) {
        func known(_ value: Double) -> Double? { value < 0 ? nil : value }
        let metrics = QualityMetrics(
            latencyMilliseconds: known(latency), lossPercent: known(loss), jitterMilliseconds: known(jitter),
            bandwidthKilobits: known(bandwidth))
        guard case .memory(let store) = backend else {
            let member = try membership(room, user)
            promise()
            return self.store(.quality(member, metrics), .quality, tag)
        }
        guard let member = try find(room, user, in: store, .quality, tag) else { return }
        do throws(Refusal) {
            put(tag, try store.quality(member, metrics, now: now))
        } catch { refuse(.quality, tag, error) }
    }

    public func subscribe(room: RawSpan, tag: UInt64) throws(Failure) {
        let name = try room.roomName()
        promise()
        let count = subscribers[name] ?? 0
        guard count > 0 || subscribers.count < settings.rooms.maximumRooms else {
            return refuse(.subscribe, tag, .tooManyRooms)
        }
        subscribers[name] = count &+ 1
        guard case .memory(let store) = backend else {
            if case .stored(let rooms) = backend { subscribe(name, tag: tag, isFirst: count == 0, to: rooms) }
            return
        }
        if count == 0 { store.subscribe(name, now: now) }
        takeLive(store)
        put(ReplayEvent(.subscribe, tag: tag))
    }

    public func unsubscribe(room: RawSpan, tag: UInt64) throws(Failure) {
        let name = try room.roomName()
        promise()
        var event = ReplayEvent(.unsubscribe, tag: tag)
        if let count = subscribers[name] {
            subscribers[name] = count > 1 ? count &- 1 : nil
            switch backend {
            case .memory(let store): if count == 1 { store.unsubscribe(name) }
            case .stored(let rooms): if count == 1 { unsubscribe(name, from: rooms) }
            }
        } else {
            event.status = Status.wrongState.rawValue
        }
        put(event)
    }

    // MARK: Parts

    func presented(_ text: RawSpan) -> Presented {
        guard text.byteCount > 0 else { return .nothing }
        do throws(PositionError) { return .position(try key.position(text)) } catch {
            if let known = try? previousKey?.position(text) { return .position(known) }
            return .unreadable(error)
        }
    }

    private func membership(_ room: RawSpan, _ user: RawSpan) throws(Failure) -> Membership {
        Membership(room: try room.roomName(), user: try user.userName("user"))
    }

    private func store(
        _ operation: Operation, _ kind: ReplayEvent.Kind, _ tag: UInt64, _ presented: Presented = .nothing
    ) {
        guard case .stored(let rooms) = backend else { return }
        submit(operation, kind, tag, presented, to: rooms)
    }

    /// nil: the outcome says that there is no such member.
    private func find(
        _ room: RawSpan, _ user: RawSpan, in store: MemoryStore, _ kind: ReplayEvent.Kind, _ tag: UInt64
    ) throws(Failure) -> MemberID? {
        let id = store.room(named: room)
        if let id, let member = store.member(named: user, in: id) {
            promise()
            return member
        }
        try room.checkRoom()
        try user.checkUser("user")
        promise()
        refuse(kind, tag, id == nil ? .unknownRoom : .unknownUser)
        return nil
    }

    private func finish(_ kind: ReplayEvent.Kind, _ tag: UInt64, _ body: () throws(Refusal) -> Void) {
        do throws(Refusal) {
            try body()
            put(ReplayEvent(kind, tag: tag))
        } catch { refuse(kind, tag, error) }
    }
}

extension RawSpan {
    var isUTF8: Bool {
        let bytes = Span<UInt8>(_bytes: self)
        return (try? UTF8Span(validating: bytes)) != nil
    }
}
