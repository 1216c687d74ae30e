import ICE
public import Wire

/// A candidate that has a name in place of its address.
struct NamedCandidate {
    var name: String
    /// Of the description it belongs to.
    var ufrag: String
    var candidate: Candidate
}

/// Candidates as browsers write them for pages that may not know the machine's addresses: with a name that multicast DNS
/// (RFC 6762) knows.
extension Peer {
    static let maximumNames = 16

    func resolve(_ name: String, for candidate: Candidate) {
        guard configuration.resolvesNames, let ufrag = signaling.agreed?.remote.iceUfrag else { return }
        let isAsked = names.contains { $0.name == name }
        guard names.count < Peer.maximumNames else {
            malformedCandidates &+= 1
            return
        }
        guard !names.contains(where: { $0.name == name && $0.ufrag == ufrag && $0.candidate == candidate }) else {
            return
        }
        names.append(NamedCandidate(name: name, ufrag: ufrag, candidate: candidate))
        if !isAsked { emit(.resolve(name: name)) }
    }

    /// What a name of ``Event/resolve(name:)`` stands for; nil: nobody answered to it.
    public func resolved(name: String, ip: IPAddress?, now: Instant) {
        let waiting = names.filter { $0.name == name }
        names.removeAll { $0.name == name }
        guard !isClosed, let ip else { return }
        for named in waiting where named.ufrag == signaling.agreed?.remote.iceUfrag {
            if let candidate = named.candidate.resolved(ip) { takeCandidate(candidate) }
        }
        drainAgent(now: now)
    }
}
