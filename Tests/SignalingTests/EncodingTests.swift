import Signaling
import Testing
import Wire

@Suite struct Encoding {
    static let messages: [(SignalingMessage, String)] = [
        (.offer(OfferMessage(sdp: "v=0\r\n")), #"{"type":"offer","sdp":"v=0\r\n"}"#),
        (
            .offer(OfferMessage(sdp: "v=0", sessionToken: "session-x", iceRestart: true)),
            #"{"type":"offer","sdp":"v=0","sessionToken":"session-x","iceRestart":true}"#
        ),
        (
            .answer(AnswerMessage(sdp: "v=0", connectionMode: .fast, sessionToken: "session-y")),
            #"{"type":"answer","sdp":"v=0","connectionMode":"fast","sessionToken":"session-y"}"#
        ),
        (.answer(AnswerMessage(sdp: "v=0")), #"{"type":"answer","sdp":"v=0","connectionMode":"normal"}"#),
        (
            .offer(OfferMessage(sdp: "v=0", iceRestart: true, generation: .max)),
            #"{"type":"offer","sdp":"v=0","iceRestart":true,"generation":4294967295}"#
        ),
        (
            .answer(AnswerMessage(sdp: "v=0", generation: 0)),
            #"{"type":"answer","sdp":"v=0","connectionMode":"normal","generation":0}"#
        ),
        (.candidate(nil), #"{"candidate":null}"#),
        (
            .candidate(CandidateInit(candidate: "candidate:1", sdpMid: "0", sdpMLineIndex: 0, usernameFragment: "f")),
            #"{"candidate":{"candidate":"candidate:1","sdpMid":"0","sdpMLineIndex":0,"usernameFragment":"f"}}"#
        ),
    ]

    @Test(arguments: messages)
    func writesTheFormat(message: SignalingMessage, text: String) throws {
        let bytes = try encode(message)
        #expect(String(decoding: bytes, as: UTF8.self) == text)
        #expect(decoded(bytes) == .success(message))
    }

    @Test func escapesWhatJSONWantsEscaped() throws {
        let message = SignalingMessage.offer(OfferMessage(sdp: "\"\\/\u{1}\u{7F}\t😀\u{2028}"))
        let bytes = try encode(message)
        #expect(decoded(bytes) == .success(message))
        let hasControl = bytes.contains { $0 < 0x20 }
        #expect(!hasControl)
    }

    @Test func writesAStandaloneCandidate() throws {
        let bytes = try encode(CandidateInit(candidate: "candidate:1", sdpMLineIndex: 2))
        #expect(String(decoding: bytes, as: UTF8.self) == #"{"candidate":"candidate:1","sdpMLineIndex":2}"#)
    }

    private static func text(_ random: inout SeededGenerator) -> String {
        let scalars = "az09 \r\n\"\\/{}äß€😀:=".unicodeScalars.map { $0 }
        var text = "v"
        for _ in 0..<Int.random(in: 0...40, using: &random) {
            text.unicodeScalars.append(scalars.randomElement(using: &random) ?? "x")
        }
        return text
    }

    @Test func roundTripsAnyMessage() throws {
        for seed in 0..<2000 {
            var random = SeededGenerator(seed: UInt64(seed))
            let token = Bool.random(using: &random) ? Self.text(&random) : nil
            let message: SignalingMessage
            switch Int.random(in: 0..<3, using: &random) {
            case 0:
                message = .offer(
                    OfferMessage(
                        sdp: Self.text(&random), sessionToken: token, iceRestart: Bool.random(using: &random),
                        generation: Bool.random(using: &random) ? UInt32.random(in: 0 ... .max, using: &random) : nil))
            case 1:
                message = .answer(
                    AnswerMessage(
                        sdp: Self.text(&random), connectionMode: Bool.random(using: &random) ? .fast : .normal,
                        sessionToken: token))
            default:
                message = .candidate(
                    CandidateInit(
                        candidate: "candidate:\(random.next())", sdpMid: token,
                        sdpMLineIndex: UInt16.random(in: 0...UInt16.max, using: &random)))
            }
            let bytes = try encode(message)
            #expect(decoded(bytes) == .success(message), "seed \(seed)")
        }
    }

    /// Whatever comes out of a mutated message that is still taken comes back the same.
    @Test func survivesMutations() throws {
        for seed in 0..<20_000 {
            var random = SeededGenerator(seed: UInt64(seed))
            var bytes = Array(Self.messages[seed % Self.messages.count].1.utf8)
            mutate(&bytes, &random)
            guard case .success(let message) = decoded(bytes) else { continue }
            let again = try encode(message)
            #expect(decoded(again) == .success(message), "seed \(seed)")
        }
    }
}

/// One to three changes of the kind that JSON notices.
func mutate(_ bytes: inout [UInt8], _ random: inout SeededGenerator) {
    for _ in 0..<Int.random(in: 1...3, using: &random) where !bytes.isEmpty {
        let at = Int.random(in: 0..<bytes.count, using: &random)
        switch Int.random(in: 0..<4, using: &random) {
        case 0: bytes[at] = UInt8.random(in: 0...255, using: &random)
        case 1: bytes.remove(at: at)
        case 2: bytes.insert(Array("{}[]\",:\\".utf8).randomElement(using: &random) ?? 0, at: at)
        default: bytes.removeSubrange(at...)
        }
    }
}
