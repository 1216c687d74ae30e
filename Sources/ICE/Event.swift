public import Wire

/// What carries datagrams between two agents.
public enum Transport: Hashable, Sendable {
    case udp
    /// A TCP connection in which each datagram has its length before it (RFC 4571, RFC 6544).
    case tcp
}

/// Where datagrams go between two agents: from a local address to a remote one. The local address
/// may be unspecified, and then the routing table chooses. That of a relay is the relayed address, whatever
/// leads to the relay; that of a TCP connection this side opens has port 9 (RFC 6544 section 4.5).
public struct Path: Hashable, Sendable {
    public var local: SocketAddress
    public var remote: SocketAddress
    public var transport: Transport

    public init(local: SocketAddress, remote: SocketAddress, transport: Transport = .udp) {
        self.local = local
        self.remote = remote
        self.transport = transport
    }
}

/// A datagram to send.
public struct Transmit: Hashable, Sendable {
    public var from: SocketAddress
    public var to: SocketAddress
    public var transport: Transport

    public init(from: SocketAddress, to: SocketAddress, transport: Transport = .udp) {
        self.from = from
        self.to = to
        self.transport = transport
    }

    public init(_ path: Path) { self.init(from: path.local, to: path.remote, transport: path.transport) }
}

public enum Role: Hashable, Sendable {
    case controlling
    case controlled

    var opposite: Role { self == .controlling ? .controlled : .controlling }
}

/// Why an agent gave up. It stays that way until a restart.
public enum Failure: Hashable, Sendable {
    /// Every pair was tried, for as long as RFC 8863 asks for.
    case noPath
    /// Nothing was verified within ``Agent/Timers/establishTimeout``.
    case timeout
    /// The path in use was silent for ``Agent/Timers/failedAfter`` (RFC 7675 section 5.1).
    case consentExpired
    /// Both sides are Lite, so nobody checks.
    case bothLite
}

public enum Event: Hashable, Sendable {
    /// The first path of this generation on which the other side proved that it knows the password:
    /// DTLS may start there, without waiting for nomination.
    case verified(Path)
    /// The path to use from now on: nominated, or moved to because the other side moved.
    case selected(Path)
    /// The path in use is doubtful: it has been silent while traffic should have come, or its network has
    /// changed. It is being asked, and others are. Ends with ``trusted``, ``selected(_:)`` or, if
    /// ``disconnected`` came first, ``reconnected``.
    case suspected
    /// The path in use works after all.
    case trusted
    /// Nothing authenticated arrived on the path in use for ``Agent/Timers/disconnectedAfter``.
    case disconnected
    case reconnected
    /// The generation that ``Agent/restart(_:localCandidates:now:)`` began has a path of its own, on which the
    /// other side has proved itself and which is nominated. Comes after that path's ``selected(_:)``.
    case restarted(Path)
    case failed(Failure)
}

/// Why the path in use is not the one before.
public enum PathChange: Hashable, Sendable {
    /// There was none.
    case first
    /// One of higher priority or a more direct one.
    case better
    /// The one before was silent.
    case failover
    /// A restart found it.
    case restarted
    /// The other side moved to it.
    case moved
}

/// What became of a datagram.
public enum Disposition: Hashable, Sendable {
    case consumed
    /// Dropped and counted; nothing was kept and nothing will be answered.
    case ignored(Reason)

    public enum Reason: Hashable, Sendable, CaseIterable {
        /// For another protocol.
        case notSTUN
        case malformed
        /// STUN, and nothing ICE has a use for.
        case unexpected
        /// USERNAME is missing or names another agent.
        case otherUfrag
        /// The sender does not know the password, or the datagram was changed on its way.
        case badIntegrity
        /// A response to nothing asked, or to something answered before.
        case unmatched
        /// A transaction seen before, from another address.
        case replayed
        /// It came on a path that the policy does not allow.
        case forbidden
        /// The agent has failed or was closed.
        case closed
        /// More waits to be sent than is kept.
        case overloaded
    }
}
