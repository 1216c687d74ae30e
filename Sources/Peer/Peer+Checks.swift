extension Peer {
    /// The other side has answered a check with an error, and nothing else yet. The error was signed with its password.
    public var isRefused: Bool { milestones.verified == nil && agent.statistics.errorsReceived > 0 }
}
