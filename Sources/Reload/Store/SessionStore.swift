import Wire

/// Names a look-up that has not been answered yet.
public struct LookupID: Hashable, Sendable {
    public let value: UInt64
    public init(_ value: UInt64) { self.value = value }
}

public enum StoreAnswer: Sendable {
    case session(Session)
    case absent
    /// The answer comes from ``SessionStore/pollCompletion()`` under this name.
    case pending(LookupID)
    case unavailable
}

/// Where sessions are kept.
///
/// A look-up by token may answer later: that is the only question a client's return depends on, and a
/// store in a file or on another machine has to ask there. Everything else is fire and forget: `save`
/// and `remove` take effect here at once and elsewhere when they can, and a store that cannot is
/// "unavailable", which costs the fast mode and nothing else. A store that asks elsewhere does no I/O
/// itself: the engine carries its requests out and feeds the results back in.
///
/// Sessions found by `find` or saved here must be answered by `session(_:)` from memory until they
/// expire or are removed; the memory for it is bounded.
public protocol SessionStore: AnyObject {
    var count: Int { get }

    /// The session that has `token`. It may have expired.
    func find(_ token: SessionToken, now: Instant) -> StoreAnswer

    func session(_ client: ClientID) -> Session?

    /// Inserts or replaces. False if the session is new and there is no room.
    func save(_ session: Session, now: Instant) -> Bool

    func remove(_ client: ClientID)

    /// Removes what has expired, a bounded number at a time.
    func sweep(now: Instant) -> Int

    /// When to sweep next.
    var nextTimeout: Instant? { get }

    func pollCompletion() -> (LookupID, StoreAnswer)?

    /// The client is about to come back by other means than a token: ``session(_:)`` should soon know what is known
    /// anywhere. Never answered.
    func prefetch(_ client: ClientID)
}

extension SessionStore {
    public func prefetch(_ client: ClientID) {}
}
