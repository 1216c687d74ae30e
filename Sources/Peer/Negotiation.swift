public import DTLS
import ICE
public import SDP
import Wire

/// Descriptions exchanged by the host, and what both ways of exchanging them share.
extension Peer {
    /// Answers an offer; the connection may begin from now on. `origin` is a random number for `o=`.
    public func answer(_ offer: SessionDescription, now: Instant) throws(DescriptionError) -> String {
        guard isUndescribed, role == .answerer else {
            throw .wrongState("this peer has its description already")
        }
        let answer = try makeAnswer(to: offer, credentials)
        try check(answer.remote)
        adopt(answer.remote, generation: 0, credentials, isDTLSClient: answer.isDTLSClient, now: now)
        return answer.text
    }

    /// The offer to send, with all candidates in it.
    public func makeOffer() throws(DescriptionError) -> String {
        guard isUndescribed, role == .offerer else {
            throw .wrongState("this peer has its description already")
        }
        let offer = try makeOffer(credentials)
        signaling.open = OpenOffer(
            offer: offer, generation: 0, credentials: credentials, isRestart: false, sent: created)
        return offer.text
    }

    public func accept(_ answer: SessionDescription, now: Instant) throws(DescriptionError) {
        guard configuration.style == .manual, let open = signaling.open else {
            throw .wrongState("there is no offer that waits for an answer")
        }
        let accepted = try accept(answer, to: open)
        try check(accepted.remote)
        signaling.open = nil
        adopt(accepted.remote, generation: 0, credentials, isDTLSClient: accepted.isDTLSClient, now: now)
    }

    /// A candidate of the other side that came after its description; nil: there are no more.
    public func addRemoteCandidate(_ text: String?) throws(DescriptionError) {
        guard configuration.style == .manual, signaling.agreed != nil else {
            throw .wrongState("candidates come after the description")
        }
        takeCandidate(text)
    }

    private var isUndescribed: Bool {
        configuration.style == .manual && signaling.open == nil && signaling.agreed == nil
    }

    /// The other side's fingerprints with the strongest hash it announced. DTLS proves one of them.
    public var announcedFingerprints: [DTLS.Fingerprint] {
        guard let remote = signaling.agreed?.remote else { return [] }
        return remote.fingerprints.compactMap { DTLS.Fingerprint(announced: $0) }.strongest()
    }

    /// What the other side has shown to be its own: of several announced fingerprints the one its certificate has, by
    /// SHA-256 if there is a choice. Nil until it is authenticated.
    public var provenFingerprint: DTLS.Fingerprint? {
        guard milestones.authenticated != nil else { return nil }
        let announced = announcedFingerprints
        return announced.count == 1 ? announced[0] : transport?.peerFingerprint
    }

    /// The largest message the other side takes.
    public var remoteMessageLimit: Int? {
        guard let remote = signaling.agreed?.remote else { return nil }
        // RFC 8841 section 6.1: zero means any size.
        return remote.maxMessageSize == 0 ? .max : Int(clamping: remote.maxMessageSize)
    }

    // MARK: Texts

    func makeOffer(_ own: Credentials) throws(DescriptionError) -> SDP.Offer {
        let origin = nextOrigin()
        do throws(NegotiationError) {
            return try SDP.Offer(localTransport(own), origin: origin, layout: signaling.layout)
        } catch {
            throw .unacceptable("\(error)")
        }
    }

    func makeAnswer(to offer: SessionDescription, _ own: Credentials) throws(DescriptionError) -> SDP.Answer {
        // RFC 8842 section 5.5: an association that is there keeps its roles.
        let isActive = transportRole.map { $0 == .client } ?? configuration.prefersActive
        let origin = nextOrigin()
        do throws(NegotiationError) {
            return try offer.answer(localTransport(own), origin: origin, preferring: isActive ? .active : .passive)
        } catch {
            throw .unacceptable("\(error)")
        }
    }

    func accept(_ answer: SessionDescription, to open: OpenOffer) throws(DescriptionError) -> SDP.Offer.Accepted {
        do throws(NegotiationError) {
            return try open.offer.accept(answer)
        } catch {
            throw .unacceptable("\(error)")
        }
    }

    private func nextOrigin() -> Origin {
        var generator = random
        defer { random = generator }
        return signaling.nextOrigin(&generator)
    }

    private func localTransport(_ own: Credentials) -> LocalTransport {
        let certificate = provider.localFingerprint(.sha256)
        let fingerprint = SDP.Fingerprint(hash: .sha256, digest: certificate.bytes)
        var local = LocalTransport(
            iceUfrag: own.ufrag, icePwd: own.password, fingerprints: fingerprint.map { [$0] } ?? [])
        local.isLite = isLite
        // Not a standard, and what libwebrtc calls it: the latest nomination counts, so that a path can be left at once.
        if !isLite { local.iceOptions.append("renomination") }
        local.candidates = candidates.map { text(of: $0) }
        local.hasEndOfCandidates = configuration.style == .manual || candidatesAreComplete
        local.maxMessageSize = UInt64(configuration.maximumMessageSize)
        return local
    }

    // MARK: Taking a description

    /// Whether a connection can come of it, or the one there is can go on with it. Changes nothing.
    func check(_ remote: DataTransport) throws(DescriptionError) {
        guard Credentials(ufrag: remote.iceUfrag, password: remote.icePwd) != nil else {
            throw .unacceptable("the ICE credentials are malformed")
        }
        guard remote.fingerprints.contains(where: { DTLS.Fingerprint(announced: $0) != nil }) else {
            throw .unacceptable("no fingerprint with sha-256, sha-384 or sha-512")
        }
        guard let known = signaling.agreed?.remote else { return }
        // RFC 8842 section 5.1: another certificate, or another port of SCTP, would be another association.
        guard isSameCertificate(remote.fingerprints, as: known.fingerprints) else {
            throw .unacceptable("another fingerprint: a new DTLS association is not supported")
        }
        guard remote.sctpPort == known.sctpPort else {
            throw .unacceptable("another SCTP port: a new SCTP association is not supported")
        }
    }

    private func isSameCertificate(_ announced: [SDP.Fingerprint], as known: [SDP.Fingerprint]) -> Bool {
        if Set(announced) == Set(known) { return true }
        guard let proven = provenFingerprint else { return false }
        return announced.contains { DTLS.Fingerprint(announced: $0) == proven }
    }

    /// Takes what both sides agree on now. The checks are done.
    func adopt(
        _ remote: DataTransport, generation: UInt32, _ own: Credentials, isDTLSClient: Bool, now: Instant
    ) {
        guard let theirs = Credentials(ufrag: remote.iceUfrag, password: remote.icePwd) else { return }
        let known = signaling.agreed
        var remote = remote
        // What is authenticated stays what it was.
        if let known { remote.fingerprints = known.remote.fingerprints }
        signaling.agreed = Agreement(generation: generation, local: own, remote: remote)
        signaling.highestGeneration = max(signaling.highestGeneration, generation)
        if let known, known.remote.iceUfrag != remote.iceUfrag { signaling.forget(ufrag: known.remote.iceUfrag) }
        signaling.remember(ufrag: remote.iceUfrag)
        if transport == nil { transportRole = isDTLSClient ? .client : .server }
        data.describe(remote: remote)
        if known.map({ remote.restartsICE(since: $0.remote) }) ?? true {
            remoteCandidates = []
            agent.setRemote(theirs, isLite: remote.isLite, renomination: remote.iceOptions.contains("renomination"))
        }
        for text in remote.candidates { takeCandidate(text) }
        if remote.hasEndOfCandidates { takeCandidate(nil) }
        for candidate in signaling.takeEarly(remote.iceUfrag) { takeCandidate(candidate.line) }
        if known == nil {
            agent.start(now: now)
            deadline = now + configuration.connectTimeout
        }
        // A check may have been verified before the answer is there; and an exchange that was not completed may have left
        // the other role. DTLS has waited.
        guard case .connecting = phase else { return }
        if signaling.settled == nil { signaling.settled = signaling.agreed }
        if transportRole == .client { _ = startedTransport(now: now) }
    }

    /// Of the description that was taken last.
    func takeCandidate(_ text: String?) {
        guard let text, !text.isEmpty else { return agent.remoteCandidatesComplete() }
        switch CandidateText(parsing: text) {
        case .candidate(let candidate): takeCandidate(candidate)
        case .name(let name, let candidate): resolve(name, for: candidate)
        case .ignored: break
        case .malformed: malformedCandidates &+= 1
        }
    }

    func takeCandidate(_ candidate: Candidate) {
        if remoteCandidates.count < 32, !remoteCandidates.contains(candidate) { remoteCandidates.append(candidate) }
        agent.addRemoteCandidate(candidate)
    }
}
