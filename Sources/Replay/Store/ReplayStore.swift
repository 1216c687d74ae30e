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
public protocol ReplayStore: AnyObject {
    /// The outcome, or nil if ``pollOutcome()`` gives it later under `id`. A store that cannot do it at all answers
    /// ``Refusal/unavailable``.
    func submit(_ operation: Operation, id: OperationID, now: Instant) -> Outcome?

    func pollOutcome() -> (OperationID, Outcome)?

    func handleTimeout(now: Instant)

    var nextTimeout: Instant? { get }
}
