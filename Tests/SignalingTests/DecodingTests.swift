import Signaling
import Testing
import Wire

func decoded(_ text: String, limits: SignalingLimits = SignalingLimits()) -> Result<SignalingMessage, SignalingError> {
    let bytes = Array(text.utf8)
    return decoded(bytes, limits: limits)
}

func decoded(_ bytes: [UInt8], limits: SignalingLimits = SignalingLimits()) -> Result<SignalingMessage, SignalingError>
{
    Result { () throws(SignalingError) in try decode(bytes.span.bytes, limits: limits) }
}

func failure(_ text: String, limits: SignalingLimits = SignalingLimits()) -> SignalingError? {
    if case .failure(let error) = decoded(text, limits: limits) { error } else { nil }
}

@Suite struct Decoding {
    @Test func readsOffers() {
        #expect(decoded(#"{"type":"offer","sdp":"v=0\r\n"}"#) == .success(.offer(OfferMessage(sdp: "v=0\r\n"))))
        #expect(
            decoded(#"{"sessionToken":"session-x","sdp":"v=0","type":"offer","iceRestart":true}"#)
                == .success(.offer(OfferMessage(sdp: "v=0", sessionToken: "session-x", iceRestart: true))))
        #expect(
            decoded(#" { "type" : "offer" , "sdp" : "ä\u00e4\ud83d\ude00", "iceRestart":false } "#)
                == .success(.offer(OfferMessage(sdp: "ää😀"))))
    }

    @Test func readsAnswers() {
        #expect(
            decoded(#"{"type":"answer","sdp":"v=0","connectionMode":"fast","sessionToken":"session-y"}"#)
                == .success(.answer(AnswerMessage(sdp: "v=0", connectionMode: .fast, sessionToken: "session-y"))))
        #expect(
            decoded(#"{"type":"answer","sdp":"v=0"}"#)
                == .success(.answer(AnswerMessage(sdp: "v=0", connectionMode: .normal))))
    }

    @Test func readsCandidates() {
        let line = "candidate:1 1 udp 1 192.0.2.1 9 typ host"
        #expect(
            decoded(#"{"candidate":{"candidate":"\#(line)","sdpMid":"0","sdpMLineIndex":0,"usernameFragment":"ab"}}"#)
                == .success(
                    .candidate(CandidateInit(candidate: line, sdpMid: "0", sdpMLineIndex: 0, usernameFragment: "ab"))))
        #expect(
            decoded(#"{"type":"candidate","candidate":{"candidate":"\#(line)","sdpMid":null,"sdpMLineIndex":65535}}"#)
                == .success(.candidate(CandidateInit(candidate: line, sdpMLineIndex: 65535))))
    }

    @Test func readsBothFormsOfTheEndOfCandidates() throws {
        for text in [#"{"candidate":null}"#, #"{"candidate":{"candidate":"","sdpMid":"0"}}"#, #"{"candidate":{}}"#] {
            let message = try decoded(text).get()
            #expect(message.isEndOfCandidates)
        }
        #expect(decoded(#"{"candidate":null}"#) == .success(.candidate(nil)))
    }

    @Test func ignoresUnknownMembers() {
        let text = #"{"type":"offer","x":{"y":[1,2.5,null,{"z":[]}]},"sdp":"v=0","connectionMode":7,"candidate":3}"#
        #expect(decoded(text) == .success(.offer(OfferMessage(sdp: "v=0"))))
    }

    @Test func takesNullForMissingWhereMissingIsAllowed() {
        #expect(
            decoded(#"{"type":"offer","sdp":"v=0","sessionToken":null,"iceRestart":null}"#)
                == .success(.offer(OfferMessage(sdp: "v=0"))))
        #expect(decoded(#"{"type":null,"candidate":null}"#) == .success(.candidate(nil)))
    }

    @Test func readsAStandaloneCandidate() throws {
        let text = Array(#"{"candidate":"candidate:1","sdpMid":"0"}"#.utf8)
        let candidate = try decodeCandidate(text.span.bytes)
        #expect(candidate == CandidateInit(candidate: "candidate:1", sdpMid: "0"))
        let nothing = try decodeCandidate(Array("null".utf8).span.bytes)
        #expect(nothing == nil)
    }
}

@Suite struct DecodingErrors {
    static let members: [(String, String, SignalingError.MemberFault)] = [
        (#"{}"#, "type", .missing),
        (#"{"sdp":"v=0"}"#, "type", .missing),
        (#"{"type":"rollback"}"#, "type", .unknownValue),
        (#"{"type":"Offer","sdp":"v=0"}"#, "type", .unknownValue),
        (#"{"type":1,"sdp":"v=0"}"#, "type", .wrongType),
        (#"{"type":"offer"}"#, "sdp", .missing),
        (#"{"type":"offer","sdp":null}"#, "sdp", .wrongType),
        (#"{"type":"offer","sdp":7}"#, "sdp", .wrongType),
        (#"{"type":"offer","sdp":["v=0"]}"#, "sdp", .wrongType),
        (#"{"type":"offer","sdp":""}"#, "sdp", .empty),
        (#"{"type":"offer","sdp":"v=0","sessionToken":{}}"#, "sessionToken", .wrongType),
        (#"{"type":"offer","sdp":"v=0","sessionToken":17}"#, "sessionToken", .wrongType),
        (#"{"type":"offer","sdp":"v=0","iceRestart":"true"}"#, "iceRestart", .wrongType),
        (#"{"type":"offer","sdp":"v=0","iceRestart":1}"#, "iceRestart", .wrongType),
        (#"{"type":"offer","sdp":"v=0","generation":"1"}"#, "generation", .wrongType),
        (#"{"type":"offer","sdp":"v=0","generation":1.0}"#, "generation", .wrongType),
        (#"{"type":"offer","sdp":"v=0","generation":-1}"#, "generation", .outOfRange),
        (#"{"type":"answer","sdp":"v=0","generation":4294967296}"#, "generation", .outOfRange),
        (#"{"type":"answer","sdp":"v=0","connectionMode":"quick"}"#, "connectionMode", .unknownValue),
        (#"{"type":"answer","sdp":"v=0","connectionMode":true}"#, "connectionMode", .wrongType),
        (#"{"type":"candidate"}"#, "candidate", .missing),
        (#"{"candidate":"candidate:1"}"#, "candidate", .wrongType),
        (#"{"candidate":[]}"#, "candidate", .wrongType),
        (#"{"candidate":{"candidate":5}}"#, "candidate.candidate", .wrongType),
        (#"{"candidate":{"candidate":"a\r\na=evil"}}"#, "candidate.candidate", .forbiddenCharacter),
        (#"{"candidate":{"candidate":"ä"}}"#, "candidate.candidate", .forbiddenCharacter),
        (#"{"candidate":{"candidate":"x","sdpMid":0}}"#, "candidate.sdpMid", .wrongType),
        (#"{"candidate":{"candidate":"x","sdpMLineIndex":"0"}}"#, "candidate.sdpMLineIndex", .wrongType),
        (#"{"candidate":{"candidate":"x","sdpMLineIndex":0.0}}"#, "candidate.sdpMLineIndex", .wrongType),
        (#"{"candidate":{"candidate":"x","sdpMLineIndex":-1}}"#, "candidate.sdpMLineIndex", .outOfRange),
        (#"{"candidate":{"candidate":"x","sdpMLineIndex":65536}}"#, "candidate.sdpMLineIndex", .outOfRange),
        (#"{"candidate":{"candidate":"x","usernameFragment":[]}}"#, "candidate.usernameFragment", .wrongType),
    ]

    @Test(arguments: members)
    func nameTheMember(text: String, member: String, fault: SignalingError.MemberFault) {
        #expect(failure(text) == .member(member, fault))
    }

    @Test func nameTheMemberThatIsTooLong() {
        let long = String(repeating: "x", count: 131_073)
        #expect(failure(#"{"type":"offer","sdp":"\#(long)"}"#) == .member("sdp", .tooLong))
        #expect(failure(#"{"type":"offer","sdp":"\#(long.dropLast())"}"#) == nil)
        let token = String(repeating: "x", count: 1025)
        #expect(failure(#"{"type":"offer","sdp":"v","sessionToken":"\#(token)"}"#) == .member("sessionToken", .tooLong))
        #expect(failure(#"{"candidate":{"candidate":"\#(token)"}}"#) == .member("candidate.candidate", .tooLong))
        #expect(failure(#"{"candidate":{"sdpMid":"\#(token)"}}"#) == .member("candidate.sdpMid", .tooLong))
        let huge = String(repeating: " ", count: 262_144) + "{}"
        #expect(failure(huge) == .tooLarge)
    }

    static let malformed: [(String, Int, SignalingError.Malformation)] = [
        ("", 1, .endOfInput), ("{", 1, .endOfInput), ("{\"type\":\"offer\",\n\"sdp\":}", 2, .syntax),
        ("{} x", 1, .trailingBytes), ("{}{}", 1, .trailingBytes),
        (#"{"type":"offer","type":"answer","sdp":"v=0"}"#, 1, .duplicateMember),
        (#"{"x":{"a":1,"a":2},"candidate":null}"#, 1, .duplicateMember),
        (#"{"type":"offer","sdp":"a\u0000b"}"#, 1, .nulCharacter),
        (#"{"type\u0000":"offer"}"#, 1, .nulCharacter),
        (#"{"x":1e999}"#, 1, .numberOverflow), (#"{"x":99999999999999999999}"#, 1, .numberOverflow),
        (#"{"sdp":"\ud800"}"#, 1, .syntax), ("{\"sdp\":\"\n\"}", 1, .syntax), ("\u{FEFF}{}", 1, .syntax),
        ("{'type':'offer'}", 1, .syntax), (#"{"a":01}"#, 1, .syntax), (#"{"a":NaN}"#, 1, .syntax),
    ]

    @Test(arguments: malformed)
    func nameTheLine(text: String, line: Int, reason: SignalingError.Malformation) {
        guard case .malformed(let foundLine, let column, let found) = failure(text) else {
            Issue.record("not refused as malformed: \(text)")
            return
        }
        #expect(foundLine == line)
        #expect(column >= 1)
        #expect(found == reason)
    }

    @Test(
        arguments: [
            [0x7B, 0x22, 0x61, 0x22, 0x3A, 0x22, 0xFF, 0x22, 0x7D],
            [0x7B, 0x22, 0x61, 0x22, 0x3A, 0x22, 0xC0, 0x80, 0x22, 0x7D],
            [0x7B, 0x22, 0xED, 0xA0, 0x80, 0x22, 0x3A, 0x31, 0x7D], [0x7B, 0x22, 0x61, 0x22, 0x3A, 0x22, 0xC3],
        ] as [[UInt8]])
    func refuseWhatIsNotUTF8(bytes: [UInt8]) {
        guard case .failure(.malformed(_, _, let reason)) = decoded(bytes) else {
            Issue.record("not refused")
            return
        }
        #expect(reason == .invalidUTF8)
    }

    @Test func refuseNULBytes() {
        for text in ["{\"a\":\"x\0y\"}", "{\0}", "\0{}", "{}\0"] {
            guard case .malformed = failure(text) else {
                Issue.record("not refused")
                continue
            }
        }
    }

    @Test(arguments: ["[]", "null", "7", "\"offer\"", "true", "1.5"])
    func refuseWhatIsNoObject(text: String) {
        #expect(failure(text) == .notAnObject)
    }

    @Test func boundTheDepth() {
        let deep = #"{"candidate":null,"x":"# + String(repeating: "[", count: 100_000)
        guard case .malformed(_, _, .tooDeep) = failure(deep) else {
            Issue.record("not refused")
            return
        }
        let shallow =
            #"{"candidate":null,"x":"# + String(repeating: "[", count: 1000) + String(repeating: "]", count: 1000) + "}"
        #expect(failure(shallow) == nil)
    }

    /// An error goes to logs and back to the peer: it must not repeat what came.
    @Test func repeatNothingOfTheMessage() {
        for text in ["{\"session-SECRET", #"{"a":SECRET}"#, #"{"type":"SECRET"}"#, #"{"SECRET":1,"SECRET":2}"#] {
            let error = failure(text)
            #expect(error != nil)
            let words = error.map { "\($0)" } ?? ""
            let hasSecret = words.contains("SECRET")
            #expect(!hasSecret)
        }
    }
}
