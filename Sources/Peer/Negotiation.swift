public import DTLS
import ICE
public import SDP
import Wire

extension Peer {
    /// Answers an offer; the connection may begin from now on. `origin` is a random number for `o=`.
    public func answer(_ offer: SessionDescription, now: Instant) throws(DescriptionError) -> String {
        guard case .idle = negotiation, role == .answerer else {
            throw .wrongState("this peer has its description already")
        }
        let answer: SDP.Answer
        do throws(NegotiationError) {
            answer = try offer.answer(
                localTransport(), origin: Origin(id: random.next()),
                preferring: configuration.prefersActive ? .active : .passive)
        } catch {
            throw .unacceptable("\(error)")
        }
        try take(answer.remote, isDTLSClient: answer.isDTLSClient, now: now)
        return answer.text
    }

    /// The offer to send, with all candidates in it.
    public func makeOffer() throws(DescriptionError) -> String {
        guard case .idle = negotiation, role == .offerer else {
            throw .wrongState("this peer has its description already")
        }
        do throws(NegotiationError) {
            let offer = try SDP.Offer(localTransport(), origin: Origin(id: random.next()))
            negotiation = .offered(offer)
            return offer.text
        } catch {
            throw .unacceptable("\(error)")
        }
    }

    public func accept(_ answer: SessionDescription, now: Instant) throws(DescriptionError) {
        guard case .offered(let offer) = negotiation else {
            throw .wrongState("there is no offer that waits for an answer")
        }
        let accepted: SDP.Offer.Accepted
        do throws(NegotiationError) {
            accepted = try offer.accept(answer)
        } catch {
            throw .unacceptable("\(error)")
        }
        try take(accepted.remote, isDTLSClient: accepted.isDTLSClient, now: now)
    }

    /// A candidate of the other side that came after its description; nil: there are no more.
    public func addRemoteCandidate(_ text: String?) throws(DescriptionError) {
        guard case .done = negotiation else { throw .wrongState("candidates come after the description") }
        guard let text else { return agent.remoteCandidatesComplete() }
        switch CandidateText(parsing: text) {
        case .candidate(let candidate): add(candidate)
        case .name, .ignored, .malformed: break
        }
    }

    /// The other side's fingerprints with the strongest hash it announced. DTLS proves one of them.
    public var announcedFingerprints: [DTLS.Fingerprint] {
        guard case .done(let remote) = negotiation else { return [] }
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
        guard case .done(let remote) = negotiation else { return nil }
        // RFC 8841 section 6.1: zero means any size.
        return remote.maxMessageSize == 0 ? .max : Int(clamping: remote.maxMessageSize)
    }

    private func localTransport() -> LocalTransport {
        let own = provider.localFingerprint(.sha256)
        let fingerprint = SDP.Fingerprint(hash: .sha256, digest: own.bytes)
        var local = LocalTransport(
            iceUfrag: credentials.ufrag, icePwd: credentials.password, fingerprints: fingerprint.map { [$0] } ?? [])
        local.isLite = isLite
        local.candidates = candidates.map(\.text)
        local.hasEndOfCandidates = true
        local.maxMessageSize = UInt64(configuration.maximumMessageSize)
        return local
    }

    private func add(_ candidate: Candidate) {
        if remoteCandidates.count < 32 { remoteCandidates.append(candidate) }
        agent.addRemoteCandidate(candidate)
    }

    func take(_ remote: DataTransport, isDTLSClient: Bool, now: Instant) throws(DescriptionError) {
        guard let theirs = Credentials(ufrag: remote.iceUfrag, password: remote.icePwd) else {
            throw .unacceptable("the ICE credentials are malformed")
        }
        guard remote.fingerprints.contains(where: { DTLS.Fingerprint(announced: $0) != nil }) else {
            throw .unacceptable("no fingerprint with sha-256, sha-384 or sha-512")
        }
        negotiation = .done(remote)
        transportRole = isDTLSClient ? .client : .server
        data.describe(remote: remote)
        agent.setRemote(theirs, isLite: remote.isLite)
        for text in remote.candidates {
            if case .candidate(let candidate) = CandidateText(parsing: text) { add(candidate) }
        }
        if remote.hasEndOfCandidates { agent.remoteCandidatesComplete() }
        agent.start(now: now)
        deadline = now + configuration.connectTimeout
        // An offerer's first check may be verified before the answer is there; DTLS has waited for it.
        if transportRole == .client { _ = startedTransport(now: now) }
    }
}
