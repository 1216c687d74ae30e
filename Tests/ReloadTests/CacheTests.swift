import Signaling
import Testing
import Wire

@testable import Reload

@Suite struct CachedCandidates {
    static let sdp = """
        v=0\r
        o=- 1 1 IN IP4 0.0.0.0\r
        s=-\r
        t=0 0\r
        a=group:BUNDLE data\r
        m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r
        c=IN IP4 0.0.0.0\r
        a=candidate:1 1 udp 2122260223 192.0.2.7 50000 typ host generation 0\r
        a=candidate:2 1 udp 41885439 198.51.100.9 3478 typ relay raddr 203.0.113.1 rport 1\r
        a=candidate:3 1 udp 1686052607 203.0.113.1 50000 typ srflx raddr 192.0.2.7 rport 50000\r
        a=candidate:4 1 udp 2122262783 2001:db8::7 50000 typ host\r
        a=candidate:4 1 udp 2122262783 2001:db8::7 50000 typ host\r
        a=candidate:5 1 udp 1686052863 2001:db8::99 50000 typ srflx raddr :: rport 0\r
        a=candidate:6 1 udp 2122262783 4a52-8bd9.local 50000 typ host\r
        a=candidate:7 1 udp 2122262783 2001:db8::8 0 typ host\r
        a=candidate:8 nonsense\r
        a=mid:data\r
        a=end-of-candidates\r

        """

    private func extracted(_ sdp: String) -> CacheEntry {
        var entry = CacheEntry(lastSuccessfulProtocol: .ipv4, timestamp: 0, sessionID: "session-a")
        entry.addCandidates(ofSDP: sdp)
        return entry
    }

    @Test func areFoundInAnyDescription() {
        let entry = extracted(CachedCandidates.sdp)
        #expect(CacheEntry.List.allCases.map { entry[$0].count } == [1, 1, 1, 1, 0, 1])
        #expect(
            entry[.ipv6Host] == [
                CandidateInit(
                    candidate: "candidate:4 1 udp 2122262783 2001:db8::7 50000 typ host", sdpMid: "data",
                    sdpMLineIndex: 0)
            ])
        // With bare line feeds, in a second section, without a section.
        #expect(extracted(CachedCandidates.sdp.replacing("\r", with: "")) == entry)
        let second = extracted("m=audio 9 x\r\na=mid:0\r\n" + CachedCandidates.sdp.dropFirst(4))
        #expect(second[.ipv6Host].first?.sdpMLineIndex == 1 && second[.ipv6Host].first?.sdpMid == "data")
        #expect(extracted("a=candidate:4 1 udp 1 2001:db8::7 50000 typ host")[.ipv6Host].first?.sdpMLineIndex == nil)
        #expect(extracted("").lists.isEmpty)
    }

    @Test func areBounded() {
        let lines = (1...5000).map { "a=candidate:1 1 udp 1 2001:db8::\(String($0, radix: 16)) 1 typ host" }
        #expect(extracted(lines.joined(separator: "\n"))[.ipv6Host].count == CacheEntry.maximumCandidates)
    }

    @Test func areTriedIPv6FirstAndRelaysLast() {
        let entry = extracted(CachedCandidates.sdp)
        func addresses(_ hasIPv6: Bool) -> [String] {
            entry.injectionOrder(hasIPv6: hasIPv6).map { String($0.candidate.split(separator: " ")[4]) }
        }
        #expect(addresses(true) == ["2001:db8::7", "2001:db8::99", "192.0.2.7", "203.0.113.1", "198.51.100.9"])
        #expect(addresses(false) == ["192.0.2.7", "203.0.113.1", "198.51.100.9"])
        #expect(entry.count(isIPv6: true) == 2 && entry.count(isIPv6: false) == 3)
    }

    @Test func areGoodForFiveMinutes() {
        var entry = extracted("")
        entry.timestamp = 1000
        func validity(_ wallClock: Int64) -> CacheValidity {
            entry.validity(wallClock: wallClock, maximumAge: .seconds(300))
        }
        #expect(validity(1000) == .fresh(age: .zero) && validity(301_000) == .fresh(age: .seconds(300)))
        #expect(validity(301_001) == .stale(age: .milliseconds(300_001)))
        #expect(validity(999) == .fromTheFuture && validity(.min) == .fromTheFuture)
        #expect(!validity(.max).isFresh)
    }
}

@Suite struct KeptRecords {
    @Test func areForgottenFromTheOldestOn() {
        var records = KeyedRecords<CacheEntry>()
        for index in 0..<1100 {
            records.set("\(index)", .sample(at: Int64((index * 7) % 1100)))
        }
        #expect(records.records.count == 1024)
        #expect(records.records.values.map(\.timestamp).min()! >= 70)
        // The newest to come stays even if it says that it is old.
        records.set("late", .sample(at: 0))
        #expect(records["late"] != nil && records.records.count == 1024)
        records.set(String(repeating: "k", count: 257), .sample(at: 5))
        records.set("", .sample(at: 5))
        #expect(records.records.count == 1024)
    }
}
