import ICE
import SDP
import Wire

/// What an exchange of descriptions agreed on.
struct Agreement {
    /// Of ICE; both sides have the same number.
    var generation: UInt32
    var local: Credentials
    var remote: DataTransport
}

/// An offer of ours that has no answer yet (RFC 8829 section 3.2: have-local-offer). There is no have-remote-offer:
/// offers are answered in the call that hands them in.
struct OpenOffer {
    let offer: SDP.Offer
    let generation: UInt32
    let credentials: Credentials
    let isRestart: Bool
    /// For the last time.
    var sent: Instant
}

/// Where the exchange of descriptions stands.
struct SignalingState {
    /// Nil: stable.
    var open: OpenOffer?
    /// By the latest exchange that is complete.
    var agreed: Agreement?
    /// By the one that the path in use comes from: behind ``agreed`` while a restart has no path.
    var settled: Agreement?
    var layout = Layout()
    /// Ours: one id, and a version that grows with every description (RFC 8829 section 5.2.2).
    var origin: Origin?
    /// Of the latest description of theirs that was taken.
    var remoteOrigin: RemoteOrigin?
    /// Our answer to the offer of that version, for a copy of it.
    var lastAnswer: LastAnswer?
    /// The highest number of a generation that was ever offered, by either side.
    var highestGeneration: UInt32 = 0
    /// The other side may hold a generation that was given up here: only new credentials bring both together.
    var needsNewGeneration = false
    var wantsExchange = false
    var wantsRestart = false
    /// When an offer that restarts nothing is offered again.
    var retry = Instant.distantFuture
    var tries = 0
    /// RFC 8829 section 4.1.10.1 has a rollback for it: the offer of the other side that was not answered last.
    var isIgnoring = false
    /// Of the other side's descriptions that count no more, the newest last.
    private(set) var formerUfrags: [String] = []
    /// Candidates that came before their description, the oldest first.
    private var early: [EarlyCandidate] = []

    struct RemoteOrigin {
        var id: String
        var version: UInt64
    }

    struct LastAnswer {
        var version: UInt64
        var text: String
        var generation: UInt32
        var ufrag: String
    }

    struct EarlyCandidate {
        var line: String?
        var ufrag: String?
    }

    var isStable: Bool { open == nil }

    /// How old a description is among those of its sender. RFC 3264 section 8: the version of `o=` grows with every
    /// description; another id is another sender, of which nothing is known.
    enum Age { case newer, same, older, unknown }

    func age(of description: SessionDescription) -> Age {
        guard let remoteOrigin, remoteOrigin.id == description.sessionID,
            let version = UInt64(description.sessionVersion)
        else { return .unknown }
        return version > remoteOrigin.version ? .newer : version == remoteOrigin.version ? .same : .older
    }

    mutating func note(_ description: SessionDescription) {
        remoteOrigin = UInt64(description.sessionVersion).map { RemoteOrigin(id: description.sessionID, version: $0) }
    }

    mutating func nextOrigin(_ random: inout some RandomNumberGenerator) -> Origin {
        var next = origin ?? Origin(id: random.next(), version: 0)
        next.advance()
        origin = next
        return next
    }

    // MARK: Candidates before their time

    static let maximumEarly = 64

    mutating func keep(_ line: String?, ufrag: String?) {
        if early.count >= SignalingState.maximumEarly { early.removeFirst() }
        early.append(EarlyCandidate(line: line, ufrag: ufrag))
    }

    /// Those of a description that has come, and those that say nothing of theirs.
    mutating func takeEarly(_ ufrag: String) -> [EarlyCandidate] {
        let taken = early.filter { $0.ufrag == nil || $0.ufrag == ufrag }
        early.removeAll { $0.ufrag == nil || $0.ufrag == ufrag }
        return taken
    }

    /// From now on candidates of this description are none.
    mutating func forget(ufrag: String) {
        guard !formerUfrags.contains(ufrag) else { return }
        if formerUfrags.count >= 16 { formerUfrags.removeFirst() }
        formerUfrags.append(ufrag)
        early.removeAll { $0.ufrag == ufrag }
    }

    mutating func remember(ufrag: String) { formerUfrags.removeAll { $0 == ufrag } }
}
