import Testing
import Wire

@testable import ICE

@Suite struct CandidateTexts {
    @Test func hostCandidatesAreWrittenAndReadBack() {
        let candidates = Candidate.host([a4, address("fe80::1", 7), a6])
        #expect(candidates.map(\.address.ip.description) == ["2001:db8::1", "192.0.2.1", "fe80::1"])
        // RFC 8445 section 5.1.2.1, worked out by hand.
        #expect(candidates[0].priority == 2_130_706_431 && candidates[1].priority == 2_130_706_175)
        #expect(candidates[0].text.hasSuffix(" 1 udp 2130706431 2001:db8::1 1000 typ host"))
        for candidate in candidates { #expect(CandidateText(parsing: candidate.text) == .candidate(candidate)) }
        #expect(Set(candidates.map(\.foundation)).count == 3)
        let reflexive = Candidate(
            kind: .serverReflexive, address: address("203.0.113.9", 99), priority: 7, relatedAddress: a4)
        #expect(CandidateText(parsing: reflexive.text) == .candidate(reflexive))
    }

    @Test func theFormsOfOthersAreRead() {
        // Chromium, Firefox, pion, libdatachannel.
        let texts = [
            "a=candidate:1467250027 1 udp 2122260223 192.168.0.196 46243 typ host generation 0 ufrag x network-id 1 network-cost 10\r\n",
            "candidate:0 1 UDP 2122252543 192.168.0.196 46243 typ host",
            "foundation 1 udp 2130706431 192.168.0.196 46243 typ host",
            "candidate:1 1 UDP 2122317823 192.168.0.196 46243 typ host",
        ]
        for text in texts {
            guard case .candidate(let candidate) = CandidateText(parsing: text) else {
                Issue.record("\(text)")
                continue
            }
            #expect(candidate.address == address("192.168.0.196", 46243) && candidate.kind == .host)
        }
        let reflexive =
            "candidate:842163049 1 udp 1677729535 203.0.113.5 5000 typ srflx raddr 0.0.0.0 rport 0 generation 0"
        guard case .candidate(let candidate) = CandidateText(parsing: reflexive) else {
            Issue.record("srflx")
            return
        }
        #expect(candidate.kind == .serverReflexive && candidate.relatedAddress == SocketAddress(ip: .anyIPv4, port: 0))
    }

    @Test func uselessCandidatesAreToldApart() {
        let name = "4a2e8b3c-0d5f-4f37-9c6b-6f5d8f1c2b3a.local"
        func nameless(_ priority: UInt32) -> Candidate {
            Candidate(
                kind: .host, address: SocketAddress(ip: .anyIPv6, port: 51472), priority: priority, foundation: "1")
        }
        let cases: [(String, CandidateText)] = [
            ("candidate:1 1 udp 2113937151 \(name) 51472 typ host", .name(name, nameless(2_113_937_151))),
            ("candidate:1 1 udp 1 stun.example.org 51472 typ host", .name("stun.example.org", nameless(1))),
            ("candidate:1 1 tcp 1518280447 192.0.2.1 9 typ host", .ignored(.otherTransport)),
            ("candidate:1 1 tcp 1518280447 192.0.2.1 9 typ host tcptype both", .ignored(.otherTransport)),
            ("candidate:1 1 tcp 1518280447 192.0.2.1 0 typ host tcptype passive", .ignored(.unusableAddress)),
            ("candidate:1 1 udp 1 \(name) 0 typ host", .ignored(.unusableAddress)),
            ("candidate:1 1 ssltcp 1518280447 192.0.2.1 443 typ host", .ignored(.otherTransport)),
            ("candidate:1 2 udp 2113937151 192.0.2.1 51472 typ host", .ignored(.otherComponent)),
            ("candidate:1 1 udp 2113937151 192.0.2.1 51472 typ token", .ignored(.otherType)),
            ("candidate:1 1 udp 2113937151 192.0.2.1 0 typ host", .ignored(.unusableAddress)),
            ("candidate:1 1 udp 2113937151 0.0.0.0 9 typ host", .ignored(.unusableAddress)),
            ("candidate:1 1 udp 2113937151 ff02::1 9 typ host", .ignored(.unusableAddress)),
        ]
        for (text, expected) in cases { #expect(CandidateText(parsing: text) == expected, "\(text)") }
    }

    @Test(arguments: [
        "", "candidate:", "candidate:1", "candidate:1 1 udp 1 192.0.2.1 9 typ",
        "candidate:1 1 udp 1 192.0.2.1 9 host typ",
        "candidate:1 0 udp 1 192.0.2.1 9 typ host", "candidate:1 257 udp 1 192.0.2.1 9 typ host",
        "candidate:1 1 udp 0 192.0.2.1 9 typ host", "candidate:1 1 udp 4294967296 192.0.2.1 9 typ host",
        "candidate:1 1 udp -1 192.0.2.1 9 typ host", "candidate:1 1 udp +1 192.0.2.1 9 typ host",
        "candidate:1 1 udp 1 192.0.2.1 65536 typ host", "candidate:1 1 udp 1 192.0.2 x typ host",
        "ice-ufrag:1 1 udp 1 192.0.2.1 9 typ host",
        "candidate:a-b 1 udp 1 192.0.2.1 9 typ host", "candidate: 1 1 udp 1 192.0.2.1 9 typ host",
        "candidate:123456789012345678901234567890123 1 udp 1 192.0.2.1 9 typ host",
        "candidate:1 1 udp 1 a\u{1F600}.local 9 typ host", "candidate:1 1 udp 1 nodot 9 typ host",
    ])
    func brokenOnesAreRefused(text: String) {
        #expect(CandidateText(parsing: text) == .malformed)
    }

    @Test func longAndRandomTextsDoNoHarm() {
        #expect(CandidateText(parsing: String(repeating: "a ", count: 100_000)) == .malformed)
        var random = SeededGenerator(seed: 8839)
        let sample = Array(
            "candidate:1467250027 1 udp 2122260223 192.168.0.196 46243 typ srflx raddr 10.0.0.1 rport 9".utf8)
        for _ in 0..<20_000 {
            var bytes = sample
            for _ in 0..<Int.random(in: 1...8, using: &random) {
                bytes[Int.random(in: bytes.indices, using: &random)] = UInt8(truncatingIfNeeded: random.next())
            }
            _ = CandidateText(
                parsing: String(decoding: bytes.prefix(Int.random(in: 0...bytes.count, using: &random)), as: UTF8.self))
        }
    }

    @Test func credentialsHaveICECharactersAndLengths() {
        var random = SeededGenerator(seed: 1)
        for length in [4, 8, 256] {
            let made = Credentials(using: &random, ufragLength: length, passwordLength: 22)
            #expect(made.ufrag.utf8.count == length && made.password.utf8.count == 22)
            #expect(Credentials(ufrag: made.ufrag, password: made.password) == made)
        }
        #expect(Credentials(using: &random, ufragLength: -1, passwordLength: 10_000).password.utf8.count == 256)
        #expect(Set((0..<1000).map { _ in Credentials(using: &random).ufrag }).count == 1000)
        let password = String(repeating: "p", count: 22)
        for ufrag in ["abc", "ab:cd", "ab d", "ab=d", "äbcd", String(repeating: "a", count: 257), ""] {
            #expect(Credentials(ufrag: ufrag, password: password) == nil)
        }
        #expect(Credentials(ufrag: "a+/9", password: password) != nil)
        #expect(Credentials(ufrag: "abcd", password: String(password.dropLast())) == nil)
    }
}
