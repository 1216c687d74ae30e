import Foundation
import SDP
import Testing
import Wire

@Suite struct Answers {
    @Test func answerChromium() throws {
        let answer = try Vectors.parse("chromium-offer").answer(Sample.local, origin: Sample.origin)
        #expect(
            lines(answer.text) == [
                "v=0", "o=- 42 1 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=ice-lite", "a=group:BUNDLE 0",
                "m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "c=IN IP4 0.0.0.0", "a=mid:0",
                "a=ice-ufrag:lrc1/AbC+", "a=ice-pwd:localpasswordlocalpassword", "a=ice-options:ice2 trickle",
                "a=fingerprint:" + Sample.fingerprintText, "a=setup:passive", "a=sctp-port:5000",
                "a=max-message-size:262144", "a=" + Sample.candidates[0], "a=" + Sample.candidates[1],
                "a=end-of-candidates",
            ])
        #expect(answer.text.hasSuffix("\r\n"))
        #expect(!answer.isDTLSClient)
        #expect(answer.remote.iceUfrag == "8870")
    }

    /// Each section of the offer is answered in its place, and only the data section has a port.
    @Test(arguments: Vectors.offers)
    func keepSectionsInOrder(name: String) throws {
        let offer = try Vectors.parse(name)
        let answer = try offer.answer(Sample.local, origin: Sample.origin)
        let parsed = try SessionDescription(parsing: answer.text)
        #expect(parsed.media.map(\.kind) == offer.media.map(\.kind))
        #expect(parsed.media.map(\.mid) == offer.media.map(\.mid))
        #expect(parsed.media.map(\.protocol) == offer.media.map(\.protocol))
        #expect(parsed.media.map(\.formats) == offer.media.map(\.formats))
        #expect(parsed.media.map(\.isRejected) == offer.media.map { !$0.isDataChannels })
        #expect(parsed.bundles == [offer.media.filter(\.isDataChannels).compactMap(\.mid)])
        let transport = try parsed.dataTransport()
        #expect(transport.iceUfrag == Sample.local.iceUfrag)
        #expect(transport.icePwd == Sample.local.icePwd)
        #expect(transport.fingerprints == Sample.local.fingerprints)
        #expect(transport.setup == .passive)
        #expect(transport.candidates == Sample.candidates)
        #expect(transport.isLite)
        #expect(transport.hasEndOfCandidates)
    }

    @Test func rejectMediaInTheRightForm() throws {
        let answer = try Vectors.parse("aiortc-media-offer").answer(Sample.local, origin: Sample.origin)
        let text = lines(answer.text)
        let audio = text.firstIndex(of: "m=audio 0 UDP/TLS/RTP/SAVPF 96 9 0 8")
        #expect(audio != nil)
        let section = Array(text[(audio ?? 0)...].prefix(4))
        #expect(section.dropFirst() == ["c=IN IP4 0.0.0.0", "a=mid:0", "a=inactive"])
        #expect(!answer.text.contains("extmap") && !answer.text.contains("rtpmap"))
    }

    @Test func rejectASecondDataSection() throws {
        let second = ["m=application 9 UDP/DTLS/SCTP webrtc-datachannel"] + Sample.complete.dropLast(2) + ["a=mid:1"]
        let offer = try SessionDescription(parsing: Sample.offer(lines: Sample.complete + second))
        let answer = try SessionDescription(parsing: offer.answer(Sample.local, origin: Sample.origin).text)
        #expect(answer.media.map(\.port) == [9, 0])
    }

    @Test func acceptTheSecondDataSectionIfTheFirstIsRejected() throws {
        let second = ["m=application 9 UDP/DTLS/SCTP webrtc-datachannel"] + Sample.complete.dropLast(2) + ["a=mid:1"]
        let text = Sample.offer(
            session: ["a=group:BUNDLE 1"], media: "m=application 0 UDP/DTLS/SCTP webrtc-datachannel",
            lines: ["a=mid:0"] + second)
        let answer = try SessionDescription(parsing: text).answer(Sample.local, origin: Sample.origin)
        let parsed = try SessionDescription(parsing: answer.text)
        #expect(answer.remote.mid == "1")
        #expect(answer.remote.mediaIndex == 1)
        #expect(parsed.media.map(\.port) == [0, 9])
        #expect(parsed.bundles == [["1"]])
    }

    @Test func rejectSectionsOfUnknownKind() throws {
        let text = Sample.offer(
            lines: Sample.complete + ["m=application 9 TCP/MSRP *", "a=mid:x", "m=fancy 9 a/b/c/d e.f g", "a=mid:y"])
        let answer = try SessionDescription(parsing: text).answer(Sample.local, origin: Sample.origin)
        #expect(answer.text.contains("m=application 0 TCP/MSRP *\r\n"))
        #expect(answer.text.contains("m=fancy 0 a/b/c/d e.f g\r\n"))
    }

    @Test func leaveOutWhatTheOfferLeavesOut() throws {
        let text = Sample.offer(session: [], lines: Sample.complete.filter { $0 != "a=mid:0" })
        let answer = try SessionDescription(parsing: text).answer(Sample.local, origin: Sample.origin)
        #expect(!answer.text.contains("a=mid") && !answer.text.contains("a=group"))
    }

    @Test func answerTheFormBeforeRFC8841InKind() throws {
        let answer = try Vectors.parse("aiortc-legacy-offer").answer(Sample.local, origin: Sample.origin)
        #expect(answer.text.contains("m=application 9 DTLS/SCTP 5000\r\n"))
        #expect(answer.text.contains("a=sctpmap:5000 webrtc-datachannel 1024\r\n"))
        #expect(!answer.text.contains("sctp-port"))
    }

    @Test(arguments: [
        ("actpass", SetupRole.passive, false, "passive"), ("actpass", .active, true, "active"),
        ("active", .passive, false, "passive"), ("active", .active, false, "passive"),
        ("passive", .passive, true, "active"), ("passive", .active, true, "active"),
    ])
    func settleWhoOpensDTLS(offered: String, preferred: SetupRole, isClient: Bool, answered: String) throws {
        let text = Sample.offer().replacingOccurrences(of: "setup:actpass", with: "setup:" + offered)
        let answer = try SessionDescription(parsing: text)
            .answer(Sample.local, origin: Sample.origin, preferring: preferred)
        #expect(answer.isDTLSClient == isClient)
        #expect(answer.text.contains("a=setup:\(answered)\r\n"))
    }

    @Test func countVersions() throws {
        var origin = Origin(id: .max, version: 7)
        #expect(origin.id == .max >> 1)
        origin.advance()
        let answer = try Vectors.parse("chromium-offer").answer(Sample.local, origin: origin)
        #expect(answer.text.contains("o=- 9223372036854775807 8 IN IP4 127.0.0.1\r\n"))
    }

    @Test func carryEveryFingerprintAndTheSCTPInit() throws {
        var local = Sample.local
        local.fingerprints.append(Fingerprint(hash: .sha512, digest: Array(repeating: 7, count: 64))!)
        local.sctpInit = "AQAAHtT3N2MAUAAA/////w=="
        let answer = try Vectors.parse("chromium-offer").answer(local, origin: Sample.origin)
        let transport = try SessionDescription(parsing: answer.text).dataTransport()
        #expect(transport.fingerprints == local.fingerprints)
        #expect(transport.sctpInit == local.sctpInit)
    }
}

@Suite struct NegotiationErrors {
    @Test func nameWhatIsMissing() throws {
        for (line, item) in [(Sample.ufrag, Item.iceUfrag), (Sample.password, .icePwd), (Sample.print, .fingerprint)] {
            let text = Sample.offer(lines: Sample.complete.filter { $0 != line })
            let error = try answerError(text)
            #expect(error == .missing(item, line: 6))
        }
    }

    @Test(arguments: [
        "m=audio 9 UDP/TLS/RTP/SAVPF 0", "m=application 0 UDP/DTLS/SCTP webrtc-datachannel",
        "m=application 9 TCP/MSRP *",
        "m=application 9 UDP/DTLS/SCTP bfcp", "m=application 9 UDP/TLS webrtc-datachannel",
        "m=video 9 UDP/DTLS/SCTP webrtc-datachannel",
    ])
    func sayThatThereIsNoDataSection(media: String) throws {
        let error = try answerError(Sample.offer(media: media))
        #expect(error == .noDataSection)
    }

    @Test func refuseHoldconn() throws {
        let error = try answerError(Sample.offer().replacingOccurrences(of: "setup:actpass", with: "setup:holdconn"))
        #expect(error == .setup(.holdconn))
    }

    /// Whatever the caller passes, it cannot add a line either.
    @Test func refuseLocalValuesThatWouldBreakALine() throws {
        func error(_ change: (inout LocalTransport) -> Void) throws -> NegotiationError? {
            var local = Sample.local
            change(&local)
            return try answerError(Sample.offer(), local: local)
        }
        let bad = "abcdefghijklmnopqrstuvwxyz\r\na=evil"
        #expect(try error { $0.iceUfrag = bad } == .invalidLocal(.iceUfrag))
        #expect(try error { $0.iceUfrag = "abc" } == .invalidLocal(.iceUfrag))
        #expect(try error { $0.icePwd = bad } == .invalidLocal(.icePwd))
        #expect(try error { $0.fingerprints = [] } == .invalidLocal(.fingerprint))
        #expect(try error { $0.iceOptions = [bad] } == .invalidLocal(.iceOptions))
        #expect(try error { $0.candidates = ["candidate:1" + bad] } == .invalidLocal(.candidate))
        #expect(try error { $0.candidates = ["end-of-candidates"] } == .invalidLocal(.candidate))
        #expect(try error { $0.sctpPort = 0 } == .invalidLocal(.sctpPort))
        #expect(try error { $0.sctpInit = bad } == .invalidLocal(.sctpInit))
    }
}

@Suite struct Offers {
    private func offer() throws -> Offer { try Offer(Sample.local, origin: Sample.origin) }

    private func accept(_ text: String) throws -> Result<Offer.Accepted, NegotiationError> {
        let answer = try SessionDescription(parsing: text)
        let offer = try offer()
        return Result { () throws(NegotiationError) in try offer.accept(answer) }
    }

    private func error(_ text: String) throws -> NegotiationError? {
        if case .failure(let error) = try accept(text) { error } else { nil }
    }

    @Test func areBundledAndActpass() throws {
        let text = try offer().text
        let parsed = try SessionDescription(parsing: text)
        #expect(parsed.bundles == [["0"]])
        #expect(parsed.media.map(\.formats) == [["webrtc-datachannel"]])
        let transport = try parsed.dataTransport()
        #expect(transport.setup == .actpass)
        #expect(transport.candidates == Sample.candidates)
    }

    @Test(arguments: Vectors.answers)
    func acceptAnswersOfBrowsers(name: String) throws {
        let accepted = try accept(Vectors.text(name)).get()
        #expect(!accepted.isDTLSClient)
    }

    @Test func meetTheirOwnAnswer() throws {
        for role in [SetupRole.active, .passive] {
            let answer = try SessionDescription(parsing: offer().text)
                .answer(Sample.local, origin: Sample.origin, preferring: role)
            let accepted = try accept(answer.text).get()
            #expect(accepted.isDTLSClient != answer.isDTLSClient)
            #expect(accepted.isDTLSClient == (role == .passive))
        }
    }

    @Test func refuseAnswersThatDoNotMatch() throws {
        let answer = Sample.offer().replacingOccurrences(of: "actpass", with: "active")
        #expect(try error(answer) == nil)
        #expect(try error(answer.replacingOccurrences(of: "active", with: "actpass")) == .setup(.actpass))
        #expect(try error(answer.replacingOccurrences(of: "active", with: "holdconn")) == .setup(.holdconn))
        #expect(try error(answer.replacingOccurrences(of: "a=mid:0", with: "a=mid:1")) == .mismatch(.mid, line: 6))
        #expect(
            try error(answer.replacingOccurrences(of: "BUNDLE 0", with: "BUNDLE 0 1")) == .mismatch(.group, line: 6))
        #expect(try error(answer.replacingOccurrences(of: "n 9 U", with: "n 0 U")) == .rejected)
        #expect(try error(answer.replacingOccurrences(of: "n 9 U", with: "n 0 U") + "a=bundle-only\r\n") == .rejected)
        #expect(try error(answer + "m=audio 9 RTP/AVP 0\r\n") == .mismatch(.media, line: 13))
        #expect(
            try error(answer.replacingOccurrences(of: "m=application", with: "m=audio")) == .mismatch(.media, line: 6))
        #expect(try error(answer.replacingOccurrences(of: " UDP/", with: " TCP/")) == .mismatch(.media, line: 6))
        #expect(try error("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n") == .noDataSection)
        let without = answer.replacingOccurrences(of: Sample.ufrag + "\r\n", with: "")
        #expect(try error(without) == .missing(.iceUfrag, line: 6))
    }

    /// RFC 3264 section 8, RFC 8829 section 5.2.2: sections stay where they are, whoever offers next.
    @Test(arguments: Vectors.offers)
    func keepTheSectionsOfEarlierOffers(name: String) throws {
        let first = try Vectors.parse(name)
        let data = try first.dataTransport()
        let layout = Layout(first, data: data)
        #expect(layout.mid == data.mid && layout.mediaIndex == data.mediaIndex)
        let later = try Offer(Sample.local, origin: Sample.origin, layout: layout)
        let parsed = try SessionDescription(parsing: later.text)
        #expect(parsed.media.map(\.kind) == first.media.map(\.kind))
        #expect(parsed.media.map(\.protocol) == first.media.map(\.protocol))
        #expect(parsed.media.map(\.mid) == first.media.map(\.mid))
        #expect(parsed.media.filter { !$0.isRejected }.count == 1)
        let transport = try parsed.dataTransport()
        #expect(transport.mediaIndex == data.mediaIndex && transport.setup == .actpass)
        let answer = try parsed.answer(Sample.local, origin: Sample.origin)
        let accepted = try later.accept(SessionDescription(parsing: answer.text))
        #expect(accepted.isDTLSClient)
        // One section more or less is no answer.
        #expect(throws: NegotiationError.self) {
            try later.accept(SessionDescription(parsing: answer.text + "m=audio 0 RTP/AVP 0\r\n"))
        }
    }

    @Test func takeASilentAnswererForActive() throws {
        let answer = Sample.offer().replacingOccurrences(of: "a=setup:actpass\r\n", with: "")
        #expect(try !accept(answer).get().isDTLSClient)
    }

    @Test func refuseAMidThatIsNoToken() {
        #expect(throws: NegotiationError.invalidLocal(.mid)) {
            try Offer(Sample.local, origin: Sample.origin, mid: "a b")
        }
    }
}
