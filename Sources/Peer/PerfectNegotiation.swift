public import ICE
public import SDP
public import Wire

/// Negotiation by the peer itself: its messages come as ``Event/signal(_:)``.
extension Peer {
    /// Begins, or negotiates again, unless something is under way that does the same.
    public func negotiate(now: Instant) throws(DescriptionError) {}

    /// Restarts ICE (RFC 8445 section 9): a path of a new generation is looked for, and the one in use stays until there
    /// is one. Before there is a connection, begins.
    public func restart(now: Instant, reason: String) throws(DescriptionError) {}

    /// Takes an offer. `generation` and `isRestart` are those of the message, if it has them. Refused offers change
    /// nothing; duplicates, replays, and the offer of the side that gives way are no errors.
    public func receive(
        offer: SessionDescription, generation: UInt32?, isRestart: Bool, now: Instant
    ) throws(DescriptionError) {}

    /// Takes an answer. One to an offer that is no longer there is no error, and changes nothing.
    public func receive(answer: SessionDescription, generation: UInt32?, now: Instant) throws(DescriptionError) {}

    /// Takes a candidate; nil or empty: there are no more. `ufrag`: RTCIceCandidateInit's usernameFragment. Candidates
    /// that come before their description wait for it; those of an earlier generation are ignored.
    public func receive(candidate line: String?, ufrag: String?, now: Instant) throws(DescriptionError) {}

    /// What a name of ``Event/resolve(name:)`` stands for; nil: nobody answered to it.
    public func resolved(name: String, ip: IPAddress?, now: Instant) {}

    /// A candidate of ours that is new: checked, and told to the other side.
    public func addLocalCandidate(_ candidate: Candidate, now: Instant) {}

    /// Candidates of ours that are gone.
    public func removeLocalCandidates(where gone: (Candidate) -> Bool, now: Instant) {}

    /// All candidates of ours are there, as far as is known. The other side is told once per generation.
    public func localCandidatesComplete(now: Instant) {}

    /// The machine's network is another one, or is gone, or is back. Call it after the candidates were changed.
    public func networkChanged(isOnline: Bool, now: Instant) {}

    /// What carried this path has ended: a TCP connection that closed, a relay that is gone.
    public func connectionFailed(_ path: Path, now: Instant) {}

    public func setTimers(_ timers: Timers, now: Instant) {}

    /// All user fragments that checks for this peer may name.
    public var localUfrags: [String] { [credentials.ufrag] }

    /// Of our data section, for RTCIceCandidateInit.
    public var dataSectionIndex: UInt16 { 0 }
}
