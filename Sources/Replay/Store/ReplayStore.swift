public import Wire

/// Names an operation whose outcome comes later. Chosen by the caller.
public struct OperationID: Hashable, Sendable {
    public let value: UInt64
    public init(_ value: UInt64) { self.value = value }
}

/// Where rooms are kept. The same operations give the same verdicts, wherever that is.
///
/// A store in this process's memory answers at once. One in a file or on another machine answers later: its thread or
/// its socket does the work, and the outcome is taken with ``pollOutcome()``. Operations of one room take effect in
/// the order in which they were submitted.
///
/// What every store does:
/// - A room has a ``Standing``; ``Standing/judge(_:acknowledged:isDegraded:)`` is the verdict up to the limits of one batch.
/// - `join` makes room and member as needed. A member that is known and shows its token stays the same person; without
///   it (``Configuration/needsToken``) the name is a new person with a new token, who gets nothing of what was sent to
///   the one before. Either way the generation is new, and the old one is stale from then on. Generations start at a
///   random number in each room or store, so that none comes twice.
/// - `publish` needs a room that somebody has joined, and a recipient who is a member. It first drops what is older
///   than ``Configuration/messageLifetime``, then replaces (a newer offer: the older offer and the candidates; a newer
///   answer: the older answer; of the same sender, recipient and negotiation), numbers and appends, then trims.
/// - Trimming: while there are more messages than the window, more bytes than ``Configuration/maximumRoomBytes``, or a
///   message that is four windows of numbers old, the oldest goes; the newest always stays. Offers, answers and priority
///   messages are put aside instead, at most ``Configuration/maximumKept`` and a quarter of the bytes; then the oldest
///   of those goes.
/// - A message that goes raises the floor to its number, unless its own lifetime had passed. A replaced one does not.
/// - A replay is everything after the place, put aside or not, that is for the member (to it or to all, not from it),
///   not replaced, and within its own lifetime; more than ``Configuration/maximumBatch`` or
///   ``Configuration/maximumBatchBytes`` is ``LossReason/limit``.
/// - `drop` keeps room and member for ``Configuration/stateLifetime``; the last member that leaves or is forgotten takes
///   the room along.
/// - `reset` gives a new epoch, no messages, and keeps the members. A store that finds itself behind a position that
///   it has signed (``ResumeProblem/futurePosition``: after a failover) resets the room.
/// - A subscribed room's messages come live, once each, in the order of their numbers, to every store that shares the
///   room, the publishing one included; an idempotent repetition does not.
public protocol ReplayStore: AnyObject {
    /// The outcome, or nil if ``pollOutcome()`` gives it later under `id`. A store that cannot do it at all answers
    /// ``Refusal/unavailable``.
    func submit(_ operation: Operation, id: OperationID, now: Instant) -> Outcome?

    func pollOutcome() -> (OperationID, Outcome)?

    /// From now on what is said in the room comes as ``LiveEvent``s: first ``LiveEvent/subscribed(_:at:)``. Subscribing
    /// again begins anew in the same way. Who counts subscribers is the caller.
    func subscribe(_ room: RoomName, now: Instant)

    /// Nothing of the room comes any more.
    func unsubscribe(_ room: RoomName)

    /// The next event of the subscribed rooms. Messages published here come like those of others.
    func pollLive() -> LiveEvent?

    var liveCounters: LiveCounters { get }

    func handleTimeout(now: Instant)

    var nextTimeout: Instant? { get }
}
