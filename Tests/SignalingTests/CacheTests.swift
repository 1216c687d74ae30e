import Signaling
import Testing
import Wire

private func read(_ text: String) -> Result<CacheEntry, SignalingError> {
    let bytes = Array(text.utf8)
    return Result { () throws(SignalingError) in try decodeCacheEntry(bytes.span.bytes) }
}

private func fault(_ text: String) -> SignalingError? {
    if case .failure(let error) = read(text) { error } else { nil }
}

private let host6 = "candidate:1 1 udp 2130706431 2001:db8::1 50000 typ host"
private let reflexive4 = "candidate:2 1 UDP 1694498815 203.0.113.5 50000 typ srflx raddr 0.0.0.0 rport 0 generation 0"

/// An entry with one member changed; nil takes it away.
private func text(_ name: String = "", _ value: String? = nil) -> String {
    var members = [
        "ipv6HostCandidates": #"[{"candidate":"\#(host6)","sdpMid":"0","sdpMLineIndex":0}]"#,
        "ipv6SrflxCandidates": "[]",
        "ipv4SrflxCandidates": #"[{"candidate":"\#(reflexive4)"}]"#,
        "ipv4RelayCandidates": "[]",
        "lastSuccessfulProtocol": #""both""#,
        "timestamp": "1700000000000",
        "sessionId": #""session-abc_DEF-1""#,
    ]
    if !name.isEmpty { members[name] = value }
    return "{" + members.sorted { $0.key < $1.key }.map { "\"\($0.key)\":\($0.value)" }.joined(separator: ",") + "}"
}

@Suite struct CacheEntries {
    @Test func readWhatPagesWrite() throws {
        let entry = try read(text()).get()
        #expect(entry[.ipv6Host] == [CandidateInit(candidate: host6, sdpMid: "0", sdpMLineIndex: 0)])
        #expect(entry[.ipv4ServerReflexive].map(\.candidate) == [reflexive4])
        #expect(entry[.ipv4Host].isEmpty && entry.lastSuccessfulProtocol == .both)
        #expect(entry.timestamp == 1_700_000_000_000 && entry.sessionID == "session-abc_DEF-1")
        #expect(entry.lastConnectedIPv6 == nil)
        // Unknown members, null for what may be missing, a computed time.
        #expect(fault(text("somethingNew", #"{"a":[1]}"#)) == nil)
        #expect(fault(text("ipv4HostCandidates", "null")) == nil)
        #expect(fault(text("lastConnectedIPv6", "null")) == nil)
        #expect(try read(text("timestamp", "1700000000000.75")).get().timestamp == 1_700_000_000_000)
    }

    @Test func comeBackAsTheyWereWritten() throws {
        var entry = try read(text()).get()
        entry.lastConnectedIPv6 = false
        entry[.ipv6Relay] = [
            CandidateInit(
                candidate: "candidate:9 1 tcp 5 2001:db8::7 9 typ relay raddr :: rport 0 tcptype active",
                sdpMid: "data",
                usernameFragment: "abcd")
        ]
        let bytes = try encode(entry)
        #expect(try decodeCacheEntry(bytes.span.bytes) == entry)
        let written = String(decoding: bytes, as: UTF8.self)
        for list in CacheEntry.List.allCases { #expect(written.contains("\"\(list.rawValue)\":[")) }
    }

    static let faults: [(String, String?, String, SignalingError.MemberFault)] = [
        ("timestamp", nil, "timestamp", .missing),
        ("timestamp", #""1700000000000""#, "timestamp", .wrongType),
        ("timestamp", "-1", "timestamp", .outOfRange),
        ("timestamp", "1e300", "timestamp", .outOfRange),
        ("timestamp", "9223372036854775807", "timestamp", .outOfRange),
        ("timestamp", "null", "timestamp", .wrongType),
        ("sessionId", nil, "sessionId", .missing),
        ("sessionId", #""""#, "sessionId", .empty),
        ("sessionId", #""a b""#, "sessionId", .malformed),
        ("sessionId", #""a\nb""#, "sessionId", .malformed),
        ("sessionId", "\"" + String(repeating: "x", count: 257) + "\"", "sessionId", .tooLong),
        ("sessionId", "7", "sessionId", .wrongType),
        ("lastSuccessfulProtocol", #""ipv5""#, "lastSuccessfulProtocol", .unknownValue),
        ("lastSuccessfulProtocol", nil, "lastSuccessfulProtocol", .missing),
        ("lastConnectedIPv6", "1", "lastConnectedIPv6", .wrongType),
        ("ipv6HostCandidates", nil, "ipv6HostCandidates", .missing),
        ("ipv6HostCandidates", "null", "ipv6HostCandidates", .wrongType),
        ("ipv6HostCandidates", "{}", "ipv6HostCandidates", .wrongType),
        ("ipv6HostCandidates", "[7]", "ipv6HostCandidates[0]", .wrongType),
        ("ipv6HostCandidates", "[null]", "ipv6HostCandidates[0]", .wrongType),
        ("ipv6HostCandidates", "[{}]", "ipv6HostCandidates[0].candidate", .missing),
        ("ipv6HostCandidates", #"[{"candidate":7}]"#, "ipv6HostCandidates[0].candidate", .wrongType),
        ("ipv6HostCandidates", #"[{"candidate":""}]"#, "ipv6HostCandidates[0].candidate", .malformed),
        (
            "ipv6HostCandidates", #"[{"candidate":"\#(reflexive4)"}]"#, "ipv6HostCandidates[0].candidate", .misplaced
        ),
        ("ipv4HostCandidates", #"[{"candidate":"\#(host6)"}]"#, "ipv4HostCandidates[0].candidate", .misplaced),
        (
            "ipv6HostCandidates", #"[{"candidate":"\#(host6)","sdpMid":"a b"}]"#, "ipv6HostCandidates[0].sdpMid",
            .forbiddenCharacter
        ),
        (
            "ipv6HostCandidates", #"[{"candidate":"\#(host6)","sdpMLineIndex":65536}]"#,
            "ipv6HostCandidates[0].sdpMLineIndex", .outOfRange
        ),
        (
            "ipv6HostCandidates", #"[{"candidate":"\#(host6)","sdpMLineIndex":1.5}]"#,
            "ipv6HostCandidates[0].sdpMLineIndex", .wrongType
        ),
        (
            "ipv6HostCandidates", #"[{"candidate":"\#(host6)","usernameFragment":"abc"}]"#,
            "ipv6HostCandidates[0].usernameFragment", .malformed
        ),
        (
            "ipv6HostCandidates",
            "[" + Array(repeating: #"{"candidate":"\#(host6)"}"#, count: 33).joined(separator: ",")
                + "]", "ipv6HostCandidates", .tooMany
        ),
    ]

    @Test(arguments: faults)
    func nameTheMemberThatIsWrong(
        name: String, value: String?, path: String, expected: SignalingError.MemberFault
    ) {
        #expect(fault(text(name, value)) == .member(path, expected))
    }

    @Test func areBoundedAndObjects() {
        #expect(fault("[]") == .notAnObject)
        #expect(fault(text("pad", "\"" + String(repeating: "x", count: 65_536) + "\"")) == .tooLarge)
        for text in ["", "{", "nul", "\u{0}"] {
            guard case .malformed = fault(text) else {
                Issue.record("\(text)")
                continue
            }
        }
    }

    /// Whatever is in the bytes, it is refused or it is an entry that can be written.
    @Test func takeDamagedBytes() {
        let whole = Array(text("ipv6RelayCandidates", "[]").utf8)
        for seed in 0..<3000 as Range<UInt64> {
            var random = SeededGenerator(seed: seed)
            var bytes = whole
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let position = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0..<3, using: &random) {
                case 0: bytes[position] = UInt8.random(in: 0...255, using: &random)
                case 1: bytes.remove(at: position)
                default: bytes.insert(bytes[Int.random(in: 0..<bytes.count, using: &random)], at: position)
                }
            }
            if let entry = try? decodeCacheEntry(bytes.span.bytes) {
                let written = try? encode(entry)
                let again = written.flatMap { try? decodeCacheEntry($0.span.bytes) }
                #expect(again == entry, "seed \(seed)")
            }
        }
    }
}

@Suite struct CandidateLines {
    @Test(arguments: [
        host6, reflexive4, "a=" + host6,
        "candidate:842163049 1 udp 1677729535 198.51.100.7 41234 typ srflx raddr 10.0.0.1 rport 41234 generation 0 ufrag AbCd network-id 1 network-cost 10",
        "candidate:1 1 tcp 1518280447 192.0.2.4 9 typ host tcptype active generation 0",
        "candidate:1 256 udp 1 192.0.2.4 65535 typ prflx raddr 192.0.2.1 rport 1",
        "candidate:a+/9 1 udp 2147483647 2001:db8::2 1 typ relay raddr :: rport 0",
    ])
    func areTaken(line: String) { #expect(CandidateLine(parsing: line) != nil) }

    @Test(arguments: [
        "", "candidate:", "candidate: 1 udp 1 192.0.2.1 1 typ host", host6 + " ", " " + host6, host6 + " x",
        "candidate:1 0 udp 1 192.0.2.1 1 typ host", "candidate:1 257 udp 1 192.0.2.1 1 typ host",
        "candidate:1 1 udp 0 192.0.2.1 1 typ host", "candidate:1 1 udp 2147483648 192.0.2.1 1 typ host",
        "candidate:1 1 udp 99999999999 192.0.2.1 1 typ host", "candidate:1 1 udp -1 192.0.2.1 1 typ host",
        "candidate:1 1 udp 1 192.0.2.1 0 typ host", "candidate:1 1 udp 1 192.0.2.1 65536 typ host",
        "candidate:1 1 udp 1 192.0.2.1 01 typ host", "candidate:1 1 udp 1 192.0.2.256 1 typ host",
        "candidate:1 1 udp 1 0.0.0.0 1 typ host", "candidate:1 1 udp 1 :: 1 typ host",
        "candidate:1 1 udp 1 224.0.0.1 1 typ host", "candidate:1 1 udp 1 ff02::1 1 typ host",
        "candidate:1 1 udp 1 255.255.255.255 1 typ host",
        "candidate:1 1 udp 1 6e1f5bd1-3a64-4a52-8bd9-6de0ab1b4e0f.local 1 typ host",
        "candidate:1 1 udp 1 fe80::1%eth0 1 typ host", "candidate:1 1 udp 1 example.com 1 typ host",
        "candidate:1 1 sctp 1 192.0.2.1 1 typ host", "candidate:1 1 udp 1 192.0.2.1 1 typ any",
        "candidate:1 1 udp 1 192.0.2.1 1 typ host tcptype active",
        "candidate:1 1 tcp 1 192.0.2.1 1 typ host", "candidate:1 1 tcp 1 192.0.2.1 1 typ host tcptype what",
        "candidate:1 1 tcp 1 192.0.2.1 1 typ host tcptype so tcptype so",
        "candidate:1 1 udp 1 192.0.2.1 1 typ srflx raddr 192.0.2.1",
        "candidate:1 1 udp 1 192.0.2.1 1 typ srflx raddr nowhere rport 1",
        "candidate:1 1 udp 1 192.0.2.1 1 typ srflx generation 0 raddr 192.0.2.1 rport 1",
        "candidate:" + String(repeating: "1", count: 33) + " 1 udp 1 192.0.2.1 1 typ host",
        host6 + String(repeating: " a b", count: 17), host6 + " a " + String(repeating: "x", count: 500),
        host6 + "\r\n", host6 + "\u{0}", "candidate:ü 1 udp 1 192.0.2.1 1 typ host",
    ])
    func areRefused(line: String) { #expect(CandidateLine(parsing: line) == nil) }

    @Test func areReadInFull() throws {
        let line = try #require(CandidateLine(parsing: reflexive4))
        #expect(
            line.foundation == "2" && line.component == 1 && line.transport == .udp && line.priority == 1_694_498_815)
        #expect(line.address == SocketAddress(ip: IPAddress("203.0.113.5")!, port: 50000))
        #expect(line.kind == .serverReflexive && line.related == SocketAddress(ip: .anyIPv4, port: 0))
    }
}
