import Signaling
import Testing
import Wire

private let digest = (0..<32).map { _ in "AB" }.joined(separator: ":")
private let line = "candidate:1 1 udp 2130706431 2001:db8::1 4000 typ host"
private let ufrag = "lrc1/AAehICoElW7rLyYy170D8W"
private let password = "k4RWiZvJHAyQSbwo056KIfhYIJJq819sX3LrOQV5t6o"

private let ticket = Ticket(
    ufrag: ufrag, password: password, fingerprint: "sha-256 \(digest)", candidates: [line], maxMessageSize: 262_144,
    expires: 1_800_000_000_000)

private let members: [(name: String, json: String)] = [
    ("ufrag", #""\#(ufrag)""#), ("pwd", #""\#(password)""#), ("fingerprint", #""sha-256 \#(digest)""#),
    ("candidates", #"["\#(line)"]"#), ("sctpPort", "5000"), ("maxMessageSize", "262144"), ("expires", "1800000000000"),
]

/// The ticket with one member replaced, or left out.
private func json(_ name: String? = nil, _ replacement: String? = nil) -> String {
    let texts = members.compactMap { member -> String? in
        guard member.name == name else { return #""\#(member.name)":\#(member.json)"# }
        return replacement.map { #""\#(member.name)":\#($0)"# }
    }
    return "{" + texts.joined(separator: ",") + "}"
}

private func decodedTicket(_ text: String) -> Result<Ticket, SignalingError> {
    let bytes = Array(text.utf8)
    return Result { () throws(SignalingError) in try decodeTicket(bytes.span.bytes) }
}

private func decodedControl(
    _ text: String, limits: SignalingLimits = SignalingLimits()
) -> Result<ControlMessage, SignalingError> {
    decodedControl(Array(text.utf8), limits: limits)
}

private func decodedControl(
    _ bytes: [UInt8], limits: SignalingLimits = SignalingLimits()
) -> Result<ControlMessage, SignalingError> {
    Result { () throws(SignalingError) in try decodeControl(bytes.span.bytes, limits: limits) }
}

private func text(_ message: ControlMessage) throws -> String { String(decoding: try encode(message), as: UTF8.self) }

private func failure<Value>(_ result: Result<Value, SignalingError>) -> SignalingError? {
    if case .failure(let error) = result { error } else { nil }
}

@Suite struct TicketObjects {
    @Test func areReadAndWritten() throws {
        #expect(decodedTicket(json()) == .success(ticket))
        let bytes = try encode(ticket)
        #expect(String(decoding: bytes, as: UTF8.self) == json())
        var derived = ticket
        derived.derivesInit = true
        let text = String(decoding: try encode(derived), as: UTF8.self)
        #expect(text == json().dropLast() + #","derivedInit":true}"#)
        #expect(decodedTicket(text) == .success(derived))
    }

    @Test func keepTheirSecretsWhenPrinted() {
        var message = AnswerMessage(sdp: "v=0")
        message.ticket = ticket
        var text = ""
        dump(message, to: &text)
        dump(ControlMessage.ticket(ticket, sessionToken: nil), to: &text)
        text += "\(message) \(ticket) \(String(reflecting: ticket)) \(ControlMessage.ticket(ticket, sessionToken: nil))"
        let isShown = text.contains(password) || text.contains(ufrag)
        #expect(!isShown)
        #expect(text.contains("1 candidates"))
    }

    @Test func mayHaveMembersOfNewerServers() {
        let text = #"{"x":[{"y":1}],"derivedInit":null,"# + json().dropFirst()
        #expect(decodedTicket(text) == .success(ticket))
    }

    @Test func takeLimitsExactly() throws {
        var widest = ticket
        widest.ufrag = "lrc1/" + String(repeating: "+", count: 195)
        widest.password = String(repeating: "/", count: 256)
        widest.fingerprint = "SHA-512 " + (0..<64).map { _ in "0f" }.joined(separator: ":")
        widest.candidates = (0..<32).map { _ in "candidate:" + String(repeating: "x", count: 502) }
        widest.sctpPort = 65_535
        widest.maxMessageSize = 9_007_199_254_740_991
        widest.expires = 253_402_300_799_999
        let text = String(decoding: try encode(widest), as: UTF8.self)
        #expect(decodedTicket(text) == .success(widest))
        var least = ticket
        least.ufrag = "abcdefghij"
        least.password = String(repeating: "0", count: 22)
        least.fingerprint = "sha-384 " + (0..<48).map { _ in "00" }.joined(separator: ":")
        least.candidates = ["candidate:"]
        least.sctpPort = 1
        least.maxMessageSize = 0
        least.expires = 1
        let leastText = String(decoding: try encode(least), as: UTF8.self)
        #expect(decodedTicket(leastText) == .success(least))
    }

    @Test func needEveryMember() {
        for member in members {
            #expect(
                failure(decodedTicket(json(member.name))) == .member("ticket.\(member.name)", .missing),
                "\(member.name)")
        }
    }

    @Test func refuseWrongTypes() {
        for member in members {
            for wrong in ["null", "true", "{}", "1.5", "[[]]", "[1]", #"["a",null]"#] {
                #expect(
                    failure(decodedTicket(json(member.name, wrong)))
                        == .member("ticket.\(member.name)", .wrongType), "\(member.name): \(wrong)")
            }
            let swapped = member.json.hasPrefix("\"") ? "7" : "\"7\""
            #expect(
                failure(decodedTicket(json(member.name, swapped))) == .member("ticket.\(member.name)", .wrongType))
        }
        let text = json().dropLast() + #","derivedInit":1}"#
        #expect(failure(decodedTicket(String(text))) == .member("ticket.derivedInit", .wrongType))
        #expect(failure(decodedTicket("[]")) == .member("ticket", .wrongType))
    }

    @Test(
        arguments: [
            ("ufrag", #""lrc1/AAAA""#, .outOfRange), ("ufrag", #""\#(String(repeating: "A", count: 201))""#, .tooLong),
            ("ufrag", #""lrc1/AAAAA=""#, .forbiddenCharacter), ("ufrag", #""lrc1/AAAA:A""#, .forbiddenCharacter),
            ("ufrag", #""lrc1/AAAA\r\na=""#, .forbiddenCharacter), ("ufrag", #""lrc1/AAAAAä""#, .forbiddenCharacter),
            ("pwd", #""\#(String(repeating: "A", count: 21))""#, .outOfRange),
            ("pwd", #""\#(String(repeating: "A", count: 257))""#, .tooLong),
            ("pwd", #""\#(String(repeating: "A", count: 22))\n""#, .forbiddenCharacter),
            ("fingerprint", #""""#, .unknownValue), ("fingerprint", #""sha-256""#, .unknownValue),
            ("fingerprint", #""\#(digest)""#, .unknownValue),
            ("fingerprint", #""sha-256 \#(digest):AB""#, .unknownValue),
            ("fingerprint", #""sha-384 \#(digest)""#, .unknownValue),
            ("fingerprint", #""sha-1 \#(digest)""#, .unknownValue),
            ("fingerprint", #""sha-256  \#(digest.dropLast())""#, .unknownValue),
            ("fingerprint", #""sha-256 \#(digest.dropLast())G""#, .unknownValue),
            ("fingerprint", #""sha-256 \#(digest.dropLast())\n""#, .unknownValue),
            ("fingerprint", #""sha-256 \#(digest.replacing(":", with: "-"))""#, .unknownValue),
            ("fingerprint", #""\#(String(repeating: "A", count: 257))""#, .tooLong),
            ("candidates", "[]", .empty),
            ("candidates", "[\(Array(repeating: #""candidate:1""#, count: 33).joined(separator: ","))]", .tooLong),
            ("candidates", #"["candidate:\#(String(repeating: "1", count: 503))"]"#, .tooLong),
            ("candidates", #"["\#(line)","candidate:1\r\na=setup:active"]"#, .forbiddenCharacter),
            ("candidates", #"["candidate:ä"]"#, .forbiddenCharacter),
            ("candidates", #"["candidate:\u007f"]"#, .forbiddenCharacter),
            ("candidates", #"["a=candidate:1"]"#, .unknownValue), ("candidates", #"[""]"#, .unknownValue),
            ("sctpPort", "0", .outOfRange), ("sctpPort", "-1", .outOfRange), ("sctpPort", "65536", .outOfRange),
            ("maxMessageSize", "-1", .outOfRange), ("maxMessageSize", "9007199254740992", .outOfRange),
            ("expires", "0", .outOfRange), ("expires", "-1800000000000", .outOfRange),
            ("expires", "253402300800000", .outOfRange), ("expires", "9223372036854775807", .outOfRange),
        ] as [(String, String, SignalingError.MemberFault)])
    func refuseWhatDoesNotFit(name: String, value: String, fault: SignalingError.MemberFault) {
        #expect(failure(decodedTicket(json(name, value))) == .member("ticket.\(name)", fault))
    }

    /// Nothing is written that would not be read: neither a line end that would make a line of its own in a session
    /// description, nor a number a page cannot carry.
    @Test func areNotWrittenIfTheyWouldNotBeRead() {
        func fault(_ change: (inout Ticket) -> Void) -> SignalingError? {
            var wrong = ticket
            change(&wrong)
            return failure(Result { () throws(SignalingError) in try encode(wrong) })
        }
        #expect(fault { $0.candidates = ["candidate:1\r\na=x"] } == .member("ticket.candidates", .forbiddenCharacter))
        #expect(fault { $0.candidates = [] } == .member("ticket.candidates", .empty))
        #expect(fault { $0.maxMessageSize = .max } == .member("ticket.maxMessageSize", .outOfRange))
        #expect(fault { $0.expires = -1 } == .member("ticket.expires", .outOfRange))
        #expect(fault { $0.sctpPort = 0 } == .member("ticket.sctpPort", .outOfRange))
        #expect(fault { $0.ufrag += "=" } == .member("ticket.ufrag", .forbiddenCharacter))
        #expect(fault { $0.password = "short" } == .member("ticket.pwd", .outOfRange))
        #expect(fault { $0.fingerprint += "\n" } == .member("ticket.fingerprint", .unknownValue))
    }
}

@Suite struct TicketsInMessages {
    @Test func areAskedForByOffers() throws {
        var offer = OfferMessage(sdp: "v=0")
        offer.wantsTicket = true
        offer.derivesInit = true
        let text = #"{"type":"offer","sdp":"v=0","ticket":true,"derivedInit":true}"#
        #expect(decoded(text) == .success(.offer(offer)))
        #expect(String(decoding: try encode(.offer(offer)), as: UTF8.self) == text)
        for no in [#""ticket":false,"derivedInit":false"#, #""ticket":null,"derivedInit":null"#] {
            #expect(
                decoded(#"{"type":"offer","sdp":"v=0",\#(no)}"#) == .success(.offer(OfferMessage(sdp: "v=0"))))
        }
    }

    @Test func comeWithAnswers() throws {
        var answer = AnswerMessage(sdp: "v=0", connectionMode: .fast, sessionToken: "session-x")
        answer.ticket = ticket
        let text =
            #"{"type":"answer","sdp":"v=0","connectionMode":"fast","sessionToken":"session-x","ticket":\#(json())}"#
        #expect(decoded(text) == .success(.answer(answer)))
        #expect(String(decoding: try encode(.answer(answer)), as: UTF8.self) == text)
        #expect(
            decoded(#"{"type":"answer","sdp":"v=0","ticket":null}"#) == .success(.answer(AnswerMessage(sdp: "v=0"))))
    }

    @Test func areTypedErrorsIfMalformed() {
        for wrong in ["1", "\"true\"", "{}", "[]", json()] {
            #expect(failure(#"{"type":"offer","sdp":"v=0","ticket":\#(wrong)}"#) == .member("ticket", .wrongType))
            #expect(
                failure(#"{"type":"offer","sdp":"v=0","derivedInit":\#(wrong)}"#)
                    == .member("derivedInit", .wrongType))
        }
        for wrong in ["1", "\"lrc1/\"", "true", "[]", "false"] {
            #expect(failure(#"{"type":"answer","sdp":"v=0","ticket":\#(wrong)}"#) == .member("ticket", .wrongType))
        }
        #expect(
            failure(#"{"type":"answer","sdp":"v=0","ticket":\#(json("sctpPort", "0"))}"#)
                == .member("ticket.sctpPort", .outOfRange))
    }

    /// Where the format has no ticket, nobody looks at it.
    @Test func areIgnoredInCandidates() {
        #expect(decoded(#"{"candidate":null,"ticket":3}"#) == .success(.candidate(nil)))
    }
}

@Suite struct ControlMessages {
    @Test func areReadAndWritten() throws {
        let messages: [(ControlMessage, String)] = [
            (.ping(0), #"{"type":"ping","id":0}"#), (.pong(-1), #"{"type":"pong","id":-1}"#),
            (.ping(.max), #"{"type":"ping","id":9223372036854775807}"#),
            (.pong(.min), #"{"type":"pong","id":-9223372036854775808}"#),
            (.ticket(ticket, sessionToken: nil), #"{"type":"ticket","ticket":\#(json())}"#),
            (
                .ticket(ticket, sessionToken: "session-x"),
                #"{"type":"ticket","ticket":\#(json()),"sessionToken":"session-x"}"#
            ),
        ]
        for (message, expected) in messages {
            #expect(try text(message) == expected)
            #expect(decodedControl(expected) == .success(message))
        }
        #expect(decodedControl(#" {"x":{},"id":7,"type":"pong","ticket":1} "#) == .success(.pong(7)))
    }

    @Test(
        arguments: [
            ("", .malformed(line: 1, column: 1, .endOfInput)), ("[]", .notAnObject), ("7", .notAnObject),
            ("{}", .member("type", .missing)), (#"{"type":null}"#, .member("type", .missing)),
            (#"{"type":1}"#, .member("type", .wrongType)), (#"{"type":"pang"}"#, .member("type", .unknownValue)),
            (#"{"type":"offer","sdp":"v=0"}"#, .member("type", .unknownValue)),
            (#"{"type":"ping"}"#, .member("id", .missing)), (#"{"type":"ping","id":null}"#, .member("id", .wrongType)),
            (#"{"type":"ping","id":"1"}"#, .member("id", .wrongType)),
            (#"{"type":"ping","id":1.0}"#, .member("id", .wrongType)),
            (#"{"type":"ticket"}"#, .member("ticket", .missing)),
            (#"{"type":"ticket","ticket":null}"#, .member("ticket", .missing)),
            (#"{"type":"ticket","ticket":true}"#, .member("ticket", .wrongType)),
            (#"{"type":"ticket","ticket":{}}"#, .member("ticket.sctpPort", .missing)),
        ] as [(String, SignalingError)])
    func refuseWhatTheyAreNot(text: String, error: SignalingError) {
        #expect(failure(decodedControl(text)) == error)
    }

    @Test func areBounded() {
        let text = #"{"type":"ping","id":1}"#
        var limits = SignalingLimits()
        limits.control = text.utf8.count
        #expect(decodedControl(text, limits: limits) == .success(.ping(1)))
        #expect(failure(decodedControl(text + " ", limits: limits)) == .tooLarge)
        #expect(failure(decodedControl(String(repeating: " ", count: 65_537))) == .tooLarge)
        let token = String(repeating: "x", count: 1025)
        #expect(
            failure(decodedControl(#"{"type":"ticket","ticket":\#(json()),"sessionToken":"\#(token)"}"#))
                == .member("sessionToken", .tooLong))
    }

    /// The largest ticket there can be fits into one message.
    @Test func haveRoomForTheLargestTicket() throws {
        var widest = ticket
        // The characters that JSON writes as two.
        widest.candidates = (0..<32).map { _ in "candidate:" + String(repeating: "\"", count: 502) }
        let bytes = try encode(.ticket(widest, sessionToken: String(repeating: "x", count: 1024)))
        #expect(decodedControl(bytes) == .success(.ticket(widest, sessionToken: String(repeating: "x", count: 1024))))
    }

    /// Whatever comes out of a mutated message that is still taken comes back the same.
    @Test func surviveMutations() throws {
        let original = #"{"type":"ticket","ticket":\#(json()),"sessionToken":"session-x"}"#
        for seed in 0..<20_000 {
            var random = SeededGenerator(seed: UInt64(seed))
            var bytes = Array(original.utf8)
            mutate(&bytes, &random)
            guard case .success(let message) = decodedControl(bytes) else { continue }
            let again = try encode(message)
            #expect(decodedControl(again) == .success(message), "seed \(seed)")
        }
    }
}
