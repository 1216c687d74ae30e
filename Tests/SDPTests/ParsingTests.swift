import Foundation
import SDP
import Testing
import Wire

@Suite struct Parsing {
    @Test(arguments: Vectors.offers + Vectors.answers)
    func readsDescriptionsOfOthers(name: String) throws {
        let description = try Vectors.parse(name)
        let transport = try description.dataTransport()
        #expect(transport.iceUfrag.utf8.count >= 4)
        #expect(transport.icePwd.utf8.count >= 22)
        #expect(!transport.fingerprints.isEmpty)
        #expect(transport.sctpPort == 5000)
        #expect(transport.setup == (name.hasSuffix("answer") ? .active : .actpass))
        #expect(transport.mid != nil)
        #expect(transport.candidates.isEmpty == Vectors.withoutCandidates.contains(name))
    }

    @Test(arguments: Vectors.offers + Vectors.answers)
    func takesEitherLineEnd(name: String) throws {
        let text = Vectors.text(name).replacingOccurrences(of: "\r\n", with: "\n")
        let withLF = try SessionDescription(parsing: text)
        let withCRLF = try SessionDescription(parsing: text.replacingOccurrences(of: "\n", with: "\r\n"))
        let withoutLast = try SessionDescription(parsing: String(text.dropLast()))
        let withBlankLines = try SessionDescription(parsing: text + "\r\n\n\r\n")
        #expect(withLF == withCRLF)
        #expect(withLF == withoutLast)
        #expect(withLF == withBlankLines)
    }

    @Test func readsChromium() throws {
        let transport = try Vectors.parse("chromium-snap-icedtls-offer").dataTransport()
        #expect(transport.iceUfrag == "9Mcs")
        #expect(transport.icePwd == "orxowZgXeEPTh3B0nS/UQGHZ")
        #expect(transport.iceOptions == ["trickle", "sped", "googspedv1"])
        #expect(transport.supportsTrickle)
        #expect(transport.maxMessageSize == 262_144)
        #expect(transport.sctpInit == "AQAAHtT3N2MAUAAA/////yOvcKTAAAAEgAgABoLA")
        #expect(transport.candidates.count == 1)
        #expect(transport.candidates[0].hasPrefix("candidate:1692364944 1 udp 2113937151 dc38b1a9-"))
        #expect(!transport.hasEndOfCandidates)
        #expect(!transport.isLite)
        #expect(transport.fingerprints[0].digest.prefix(3) == [0x3A, 0xDC, 0x8E])
    }

    @Test func readsFirefoxFingerprintAndOptionsOfTheSession() throws {
        let transport = try Vectors.parse("firefox-offer").dataTransport()
        #expect(transport.fingerprints.map(\.digest.first) == [0x55])
        #expect(transport.iceOptions == ["trickle"])
        #expect(transport.maxMessageSize == 1_073_741_823)
        #expect(transport.candidates.count == 2)
        #expect(transport.hasEndOfCandidates)
    }

    @Test func readsAllThreeFingerprintsOfAiortc() throws {
        let transport = try Vectors.parse("aiortc-offer").dataTransport()
        #expect(transport.fingerprints.map(\.hash) == [.sha256, .sha384, .sha512])
        #expect(transport.fingerprints.map(\.digest.count) == [32, 48, 64])
    }

    @Test func readsTheFormBeforeRFC8841() throws {
        let transport = try Vectors.parse("aiortc-legacy-offer").dataTransport()
        #expect(transport.sctpPort == 5000)
        #expect(transport.maxMessageSize == 65_536)
    }

    @Test func readsOptionsSeparatedByCommas() throws {
        let transport = try Vectors.parse("libdatachannel-offer").dataTransport()
        #expect(transport.iceOptions == ["ice2", "trickle"])
    }

    @Test func takesTheTransportOfTheBundleWhereTheDataSectionHasNone() throws {
        let description = try Vectors.parse("bundle-only-offer")
        #expect(description.media.map(\.port) == [9, 0, 0])
        let transport = try description.dataTransport()
        #expect(transport.mediaIndex == 2)
        #expect(transport.mid == "2")
        #expect(transport.iceUfrag == description.media[0].transport.iceUfrag)
        #expect(transport.fingerprints == description.media[0].transport.fingerprints)
        #expect(transport.candidates == description.media[0].candidates)
        #expect(transport.setup == .actpass)
    }

    @Test func prefersTheDataSectionsOwnTransportToTheBundles() throws {
        let other = [
            "m=audio 9 UDP/TLS/RTP/SAVPF 0", "a=mid:a", "a=ice-ufrag:otherone", "a=ice-pwd:zzzzzzzzzzzzzzzzzzzzzzzz",
            "a=candidate:9 1 udp 1 192.0.2.9 9 typ host", "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        ]
        let text = Sample.offer(session: ["a=group:BUNDLE a 0"] + other.dropLast(), lines: Sample.complete)
        let transport = try SessionDescription(parsing: text).dataTransport()
        #expect(transport.iceUfrag == "abcd")
        #expect(transport.candidates == [])
    }

    @Test func takesDefaultsOfTheRFCs() throws {
        let text = Sample.offer(lines: [Sample.ufrag, Sample.password, Sample.print])
        let transport = try SessionDescription(parsing: text).dataTransport()
        #expect(transport.sctpPort == 5000)
        #expect(transport.maxMessageSize == 65_536)
        #expect(transport.setup == nil)
        #expect(transport.mid == nil)
    }

    @Test func takesAttributesOfTheSession() throws {
        let text = Sample.offer(
            session: [
                "a=ice-lite", Sample.ufrag, Sample.password, Sample.print, "a=setup:passive", "a=ice-options:ice2",
                "a=end-of-candidates",
            ], lines: [])
        let transport = try SessionDescription(parsing: text).dataTransport()
        #expect(transport.isLite)
        #expect(transport.iceUfrag == "abcd")
        #expect(transport.setup == .passive)
        #expect(transport.iceOptions == ["ice2"])
        #expect(transport.hasEndOfCandidates)
    }

    @Test func ignoresFingerprintsOfOtherHashes() throws {
        let sha1 = "a=fingerprint:sha-1 " + Array(repeating: "AB", count: 20).joined(separator: ":")
        let lower = "a=fingerprint:SHA-256 " + Array(repeating: "ab", count: 32).joined(separator: ":")
        let text = Sample.offer(lines: [Sample.ufrag, Sample.password, sha1, "a=fingerprint:md5 xyz", lower])
        let transport = try SessionDescription(parsing: text).dataTransport()
        #expect(transport.fingerprints.count == 1)
        #expect(transport.fingerprints[0].digest == Array(repeating: 0xAB, count: 32))
    }

    @Test func seesARestartInNewCredentials() throws {
        let first = try Vectors.parse("chromium-offer").dataTransport()
        var second = first
        #expect(!second.restartsICE(since: first))
        second.icePwd += "x"
        #expect(second.restartsICE(since: first))
    }

    @Test func neverGivesMoreThanUInt64ForASize() throws {
        let text = Sample.offer(lines: Sample.complete + ["a=max-message-size:99999999999999999999999"])
        #expect(try SessionDescription(parsing: text).dataTransport().maxMessageSize == .max)
    }
}

@Suite struct ParseErrors {
    @Test(arguments: [
        ("", 1, ParseError.Reason.missing(.version)),
        ("\r\n\r\n", 1, .missing(.version)),
        ("v=1\r\n", 1, .invalid(.version)),
        ("o=- 1 1 IN IP4 127.0.0.1\r\nv=0\r\n", 1, .missing(.version)),
        ("v=0\r\n", 2, .missing(.origin)),
        ("v=0\r\nv=0\r\n", 2, .duplicate(.version)),
        ("v=0\r\no=- 1\r\n", 2, .invalid(.origin)),
        ("v=0\r\no=- 1 1 IN IP4 127.0.0.1 7\r\n", 2, .invalid(.origin)),
        ("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\n", 3, .missing(.sessionName)),
        ("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\n", 4, .missing(.timing)),
        ("v=0\r\n\r\ns=-\r\n", 2, .malformedLine),
        ("v=0\r\nhello\r\n", 2, .malformedLine),
        ("v=0\r\nV=0\r\n", 2, .malformedLine),
        ("v=0\r\nx=1\r\n", 2, .unknownType),
        ("v=0\r\ns=a\rb\r\n", 2, .forbiddenByte),
        ("v=0\r\ns=a\0b\r\n", 2, .forbiddenByte),
        ("v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n", 2, .missing(.origin)),
        ("v=0\r\na=mid:0\r\n", 2, .missing(.origin)),
    ])
    func nameTheLine(text: String, line: Int, reason: ParseError.Reason) {
        #expect(parseError(text) == ParseError(line: line, reason: reason))
    }

    /// Lines that are wrong as the last, number 7, of an otherwise good description.
    static let badLines: [(String, ParseError.Reason)] = [
        ("a=mid:", ParseError.Reason.invalid(.mid)), ("a=mid:a b", .invalid(.mid)), ("a=mid:ä", .invalid(.mid)),
        ("a=mid:" + String(repeating: "m", count: 65), .invalid(.mid)),
        ("a=ice-ufrag:abc", .invalid(.iceUfrag)), ("a=ice-ufrag:abc-", .invalid(.iceUfrag)),
        ("a=ice-ufrag:" + String(repeating: "u", count: 257), .invalid(.iceUfrag)),
        ("a=ice-pwd:tooshort", .invalid(.icePwd)), ("a=ice-pwd:abcdefghijklmnopqrstu ", .invalid(.icePwd)),
        ("a=fingerprint:sha-256", .invalid(.fingerprint)), ("a=fingerprint:sha-256 00:01", .invalid(.fingerprint)),
        ("a=fingerprint:sha-512 \(Sample.fingerprintText.dropFirst(8))", .invalid(.fingerprint)),
        (
            "a=fingerprint:" + Sample.fingerprintText.replacingOccurrences(of: ":1F", with: ":1G"),
            .invalid(.fingerprint)
        ),
        (
            "a=fingerprint:" + Sample.fingerprintText.replacingOccurrences(of: ":1F", with: "-1F"),
            .invalid(.fingerprint)
        ),
        ("a=fingerprint:" + Sample.fingerprintText + " x", .invalid(.fingerprint)),
        ("a=setup:sometimes", .invalid(.setup)), ("a=setup:ACTIVE", .invalid(.setup)),
        ("a=sctp-port:0", .invalid(.sctpPort)), ("a=sctp-port:65536", .invalid(.sctpPort)),
        ("a=sctp-port:-1", .invalid(.sctpPort)), ("a=sctp-port:", .invalid(.sctpPort)),
        ("a=sctpmap:x webrtc-datachannel", .invalid(.sctpmap)), ("a=sctpmap:5000", .invalid(.sctpmap)),
        ("a=max-message-size:1k", .invalid(.maxMessageSize)), ("a=max-message-size", .invalid(.maxMessageSize)),
        ("a=candidate:", .invalid(.candidate)), ("a=candidate:1 1 udp 1 ä 1 typ host", .invalid(.candidate)),
        ("a=candidate:" + String(repeating: "c", count: 1024), .invalid(.candidate)),
        ("a=sctp-init:a b", .invalid(.sctpInit)), ("a=sctp-init:", .invalid(.sctpInit)),
        ("m=application", .invalid(.media)), ("m=application 9", .invalid(.media)),
        ("m=application x UDP/DTLS/SCTP 1", .invalid(.media)),
        ("m=application 65536 UDP/DTLS/SCTP 1", .invalid(.media)),
        ("m=application 9/x UDP/DTLS/SCTP 1", .invalid(.media)), ("m=app:lication 9 UDP/DTLS/SCTP 1", .invalid(.media)),
        ("m=application 9 UDP//SCTP 1", .invalid(.media)), ("m=application 9 /UDP 1", .invalid(.media)),
        ("m=application 9 UDP/ 1", .invalid(.media)), ("m=audio 9 RTP/AVP", .missing(.format)),
        ("m=audio 9 RTP/AVP 0 (", .invalid(.format)), ("m=audio 9 RTP/AVP 0\t1", .invalid(.format)),
        ("t=0 0", .duplicate(.timing)), ("s=-", .duplicate(.sessionName)),
        ("o=- 1 1 IN IP4 127.0.0.1", .duplicate(.origin)),
    ]

    @Test(arguments: badLines)
    func nameTheAttribute(line: String, reason: ParseError.Reason) {
        let text = Sample.offer(lines: [line])
        #expect(parseError(text) == ParseError(line: 7, reason: reason))
    }

    @Test(arguments: [
        ("a=mid:0", Item.mid), (Sample.ufrag, .iceUfrag), (Sample.password, .icePwd), ("a=setup:active", .setup),
        ("a=sctp-port:1", .sctpPort), ("a=max-message-size:1", .maxMessageSize), ("a=sctp-init:AAAA", .sctpInit),
        ("a=sctpmap:1 webrtc-datachannel", .sctpmap),
    ])
    func nameSecondOnes(line: String, item: Item) {
        #expect(parseError(Sample.offer(lines: [line, line])) == ParseError(line: 8, reason: .duplicate(item)))
    }

    @Test func refuseTwoSectionsWithOneMid() {
        let text = Sample.offer(lines: Sample.complete + ["m=audio 9 RTP/AVP 0", "a=mid:0"])
        #expect(parseError(text) == ParseError(line: 14, reason: .duplicate(.mid)))
    }

    @Test func boundEverything() {
        var limits = Limits()
        limits.bytes = 100
        #expect(parseError(Sample.offer(), limits: limits)?.reason == .tooLarge)
        limits = Limits()
        limits.lines = 5
        #expect(parseError(Sample.offer(), limits: limits) == ParseError(line: 6, reason: .tooManyLines))
        limits = Limits()
        let long = "a=x:" + String(repeating: "y", count: 4093)
        #expect(parseError(Sample.offer(lines: [long])) == ParseError(line: 7, reason: .lineTooLong))
        #expect(parseError(Sample.offer(lines: [String(long.dropLast())])) == nil)
        let media = Array(repeating: "m=audio 9 RTP/AVP 0", count: 64)
        #expect(parseError(Sample.offer(lines: media))?.reason == .tooMany(.media))
        #expect(parseError(Sample.offer(lines: Array(media.dropLast()))) == nil)
        let candidates = Array(repeating: "a=candidate:1 1 udp 1 192.0.2.1 1 typ host", count: 257)
        #expect(parseError(Sample.offer(lines: candidates))?.reason == .tooMany(.candidate))
        #expect(parseError(Sample.offer(lines: Array(candidates.dropLast()))) == nil)
        let prints = Array(repeating: Sample.print, count: 17)
        #expect(parseError(Sample.offer(lines: prints))?.reason == .tooMany(.fingerprint))
        #expect(parseError(Sample.offer(lines: Array(prints.dropLast()))) == nil)
        let formats = "m=audio 9 RTP/AVP " + Array(repeating: "0", count: 257).joined(separator: " ")
        #expect(parseError(Sample.offer(lines: [formats]))?.reason == .tooMany(.format))
        let options = "a=ice-options:" + Array(repeating: "o", count: 17).joined(separator: " ")
        #expect(parseError(Sample.offer(lines: [options]))?.reason == .tooMany(.iceOptions))
        let groups = Array(repeating: "a=group:BUNDLE 0", count: 65)
        #expect(parseError(Sample.offer(session: groups))?.reason == .tooMany(.group))
    }

    @Test func saysSoInWords() {
        #expect(parseError("v=0\r\na=x")?.description == "line 2: missing o=")
        #expect(ParseError(line: 3, reason: .invalid(.iceUfrag)).description == "line 3: invalid ice-ufrag")
    }
}
