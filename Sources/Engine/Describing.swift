import Peer
import SDP
import Signaling
import Wire

/// Reads what hosts hand in, on the host's own thread: a malformed message costs the loop nothing.
enum Describing {
    static func offer(_ bytes: RawSpan) throws(Failure) -> OfferMessage {
        switch try message(bytes) {
        case .offer(let offer): return offer
        case .answer, .candidate: throw Failure(.malformedJSON, "not a message of type \"offer\"")
        }
    }

    static func answer(_ bytes: RawSpan) throws(Failure) -> String {
        switch try message(bytes) {
        case .answer(let answer): return answer.sdp
        case .offer, .candidate: throw Failure(.malformedJSON, "not a message of type \"answer\"")
        }
    }

    /// Nil: there are no more candidates.
    static func candidate(_ bytes: RawSpan) throws(Failure) -> String? {
        let message = try message(bytes)
        switch message {
        case .candidate(let candidate): return message.isEndOfCandidates ? nil : candidate?.candidate
        case .offer, .answer: throw Failure(.malformedJSON, "not a candidate message")
        }
    }

    /// A message for a peer that negotiates by itself, its description parsed.
    static func signal(_ bytes: RawSpan) throws(Failure) -> PeerSignal {
        let message = try message(bytes)
        switch message {
        case .offer(let offer):
            return .offer(try description(offer.sdp), generation: offer.generation, isRestart: offer.iceRestart)
        case .answer(let answer): return .answer(try description(answer.sdp), generation: answer.generation)
        case .candidate(let candidate):
            let line = message.isEndOfCandidates ? nil : candidate?.candidate
            return .candidate(line: line, ufrag: candidate?.usernameFragment)
        }
    }

    static func description(_ sdp: String) throws(Failure) -> SessionDescription {
        do throws(ParseError) {
            return try SessionDescription(parsing: sdp)
        } catch {
            throw Failure(.malformedSDP, "\(error)")
        }
    }

    static func message(_ bytes: RawSpan) throws(Failure) -> SignalingMessage {
        do throws(SignalingError) {
            return try decode(bytes)
        } catch {
            throw Failure(.malformedJSON, "\(error)")
        }
    }

    static func json(offer sdp: String) throws(Failure) -> Payload {
        try encoded(.offer(OfferMessage(sdp: sdp)))
    }

    static func json(answer sdp: String, isFast: Bool, token: String, ticket: Ticket?) throws(Failure) -> Payload {
        var message = AnswerMessage(sdp: sdp, connectionMode: isFast ? .fast : .normal, sessionToken: token)
        message.ticket = ticket
        return try encoded(.answer(message))
    }

    /// A message of a peer that negotiates by itself. `index`: of the section that candidates belong to.
    static func json(_ signal: Peer.Signal, index: UInt16) throws(Failure) -> Payload {
        switch signal {
        case .offer(let sdp, let generation, let isRestart):
            return try encoded(.offer(OfferMessage(sdp: sdp, iceRestart: isRestart, generation: generation)))
        case .answer(let sdp, let generation):
            return try encoded(.answer(AnswerMessage(sdp: sdp, generation: generation)))
        case .candidate(let line, let mid, let ufrag):
            // W3C WebRTC section 4.8.1: no text stands for the end, and says of which generation.
            return try encoded(
                .candidate(
                    CandidateInit(candidate: line ?? "", sdpMid: mid, sdpMLineIndex: index, usernameFragment: ufrag)))
        }
    }

    private static func encoded(_ message: SignalingMessage) throws(Failure) -> Payload {
        do throws(SignalingError) {
            let json = try encode(message)
            return Payload.copying(json.span.bytes)
        } catch {
            throw Failure(.internalDefect, "cannot write the message as JSON: \(error)")
        }
    }
}
