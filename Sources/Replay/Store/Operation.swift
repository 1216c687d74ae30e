public import Wire

/// What a client presents of its position.
public enum Presented: Hashable, Sendable {
    case nothing
    case position(Position)
    case unreadable(PositionError)
}

extension PositionKey {
    /// The text of a client, however wrong.
    public func presented(_ text: String?) -> Presented {
        guard let text else { return .nothing }
        do { return .position(try position(text)) } catch { return .unreadable(error) }
    }
}

/// What a client comes back with.
public struct Resume: Equatable, Sendable {
    /// nil: it has none, or what it sent is not of a token's form.
    public var token: ResumeToken?
    public var position: Presented

    public init(token: ResumeToken?, position: Presented) {
        self.token = token
        self.position = position
    }
}

/// One user in one room, by names.
public struct Membership: Hashable, Sendable {
    public var room: RoomName
    public var user: UserName

    public init(room: RoomName, user: UserName) {
        self.room = room
        self.user = user
    }
}

/// Something to do, as a value: a store may do it at once, on another thread or on another machine.
public enum Operation: Sendable {
    /// `from` nil: the server itself; `to` nil: everybody.
    case publish(room: RoomName, from: UserName?, to: UserName?, MessageProperties, payload: [UInt8])
    /// A connection begins. With `resume`, it goes on where another one ended.
    case join(Membership, resume: Resume?)
    /// What came after the position, for a connection that has joined.
    case recover(Membership, generation: UInt64, Presented)
    /// The client has everything up to the position.
    case acknowledge(Membership, generation: UInt64, Presented)
    /// The connection ended; the user may come back.
    case drop(Membership, generation: UInt64)
    /// The user does not come back. The last one to leave takes the room along.
    case leave(Membership, generation: UInt64)
    case state(Membership)
    case quality(Membership, QualityMetrics)
    /// A new epoch, with nothing in it; members stay. nil: of all rooms.
    case reset(RoomName?, LossReason)
}

/// Why an operation did nothing.
public enum Refusal: Error, Hashable, Sendable {
    case unknownRoom
    case unknownUser
    /// The recipient is not a member, so nobody could ever come back for the message. Nothing was stored.
    case unknownRecipient
    /// A newer connection of the same user took over.
    case stale
    /// Larger than ``Configuration/maximumMessageSize``.
    case messageTooLarge
    case tooManyRooms
    case tooManyMembers
    /// Too many come back at once: try again after this time.
    case throttled(retryAfter: Duration)
    case invalidMetrics
    /// The store did not answer, and nothing else could.
    case unavailable
}

public struct Published: Hashable, Sendable {
    public let position: Position
    /// The key was seen before: this is the result of back then, and nothing was stored or is to be sent now.
    public let isDuplicate: Bool

    public init(position: Position, isDuplicate: Bool) {
        self.position = position
        self.isDuplicate = isDuplicate
    }
}

/// How a replay came out. The messages are beside it in a ``Batch``.
public struct Recovery: Hashable, Sendable {
    public var verdict: Verdict
    public var problem: ResumeProblem?
    /// Where the client is when it has taken the batch; whatever the verdict, it goes on from here.
    public var position: Position
    /// Messages for this client that are not in the batch because a newer one replaced them, or because their own
    /// lifetime passed; those that the store has forgotten altogether are not counted.
    public var skipped: Int

    public init(verdict: Verdict, problem: ResumeProblem? = nil, position: Position, skipped: Int = 0) {
        self.verdict = verdict
        self.problem = problem
        self.position = position
        self.skipped = skipped
    }
}

public struct Joined: Equatable, Sendable {
    /// Names this connection: whoever ends or acknowledges it says so with this number.
    public var generation: UInt64
    /// For the client only.
    public var token: ResumeToken
    /// The user was here before, and has not left since.
    public var isReconnection: Bool
    /// nil at the first connection. Zero if the old connection's end has not been noticed.
    public var disconnectDuration: Duration?
    /// The connection that this one takes over from, to be closed.
    public var replaced: UInt64?
    /// ``Verdict/fresh`` if nothing was presented.
    public var recovery: Recovery

    public init(
        generation: UInt64, token: ResumeToken, isReconnection: Bool, disconnectDuration: Duration?, replaced: UInt64?,
        recovery: Recovery
    ) {
        self.generation = generation
        self.token = token
        self.isReconnection = isReconnection
        self.disconnectDuration = disconnectDuration
        self.replaced = replaced
        self.recovery = recovery
    }
}

public struct UserState: Equatable, Sendable {
    public var isConnected: Bool
    public var lastSeen: Instant
    /// The highest number that the client is known to have, or was given.
    public var lastSequence: UInt64
    public var quality: Quality
    /// Since when the connection is gone; nil while connected.
    public var disconnectDuration: Duration?
    /// Connections of this user, the present one included.
    public var connections: Int

    public init(
        isConnected: Bool, lastSeen: Instant, lastSequence: UInt64, quality: Quality, disconnectDuration: Duration?,
        connections: Int
    ) {
        self.isConnected = isConnected
        self.lastSeen = lastSeen
        self.lastSequence = lastSequence
        self.quality = quality
        self.disconnectDuration = disconnectDuration
        self.connections = connections
    }
}

/// What came of an ``Operation``.
public enum Outcome: Sendable {
    case published(Published)
    case joined(Joined, Batch)
    case recovered(Recovery, Batch)
    case state(UserState)
    case quality(QualityReport)
    /// Acknowledged, dropped, left, reset.
    case done
    case refused(Refusal)
}
