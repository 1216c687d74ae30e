import Testing
import Wire

@testable import Engine

/// The texts are those of the log format.
@Suite struct LogLines {
    @Test func ofConnects() {
        #expect(
            LogLine.connect(
                session: "sess-123", mode: .fast, isIPv6: true, duration: .milliseconds(287), result: .success)
                == "[FAST_RELOAD] Session=sess-123 Mode=fast Protocol=ipv6 Duration=287ms Result=success")
        #expect(
            LogLine.connect(
                session: "sess-125", mode: .fast, isIPv6: true, duration: .milliseconds(2100), result: .fallback)
                == "[FAST_RELOAD] Session=sess-125 Mode=fast Protocol=ipv6 Duration=2100ms Result=fallback")
        #expect(
            LogLine.connect(
                session: "sess-126", mode: .normal, isIPv6: false, duration: .milliseconds(1850), result: .success)
                == "[NORMAL] Session=sess-126 Mode=normal Protocol=ipv4 Duration=1850ms Result=success")
        #expect(
            LogLine.connect(session: nil, mode: .zeroSignaling, isIPv6: nil, duration: .zero, result: .failure)
                == "[FAST_RELOAD] Session=none Mode=zero-signaling Protocol=none Duration=0ms Result=failure")
    }

    @Test func ofTheCache() {
        #expect(
            LogLine.cacheLoad(age: .milliseconds(45_900), isValid: true, ipv6: 2, ipv4: 1, lastProtocol: "ipv6")
                == "[CACHE] Action=load Age=45s Valid=true IPv6=2 IPv4=1 Protocol=ipv6")
    }

    @Test func ofCandidates() {
        #expect(
            LogLine.candidates(ipv6Host: 2, ipv6Reflexive: 1, ipv4Reflexive: 1, ipv4Relay: 0)
                == "[CANDIDATE] IPv6 Host=2 IPv6 srflx=1 IPv4 srflx=1 IPv4 relay=0")
        #expect(
            LogLine.candidate(type: "host", address: SocketAddress(ip: IPAddress("2001:db8::1")!, port: 50000))
                == "[ICE] Candidate: Type=host, Protocol=udp, Address=2001:db8::1:50000")
        #expect(
            LogLine.candidate(type: "srflx", address: SocketAddress(ip: IPAddress("203.0.113.5")!, port: 4000))
                == "[ICE] Candidate: Type=srflx, Protocol=udp, Address=203.0.113.5:4000")
    }

    @Test func ofCertificates() {
        let line = LogLine.certificate
        #expect(line(.create(isOnDisk: false)) == "[CERTIFICATE] Action=create Storage=memory")
        #expect(
            line(.load(age: .seconds(3 * 86_400 - 1), previous: 1)) == "[CERTIFICATE] Action=load AgeDays=2 Previous=1")
        #expect(line(.rotate(isOnDisk: true, previous: 2)) == "[CERTIFICATE] Action=rotate Storage=file Previous=2")
        #expect(line(.replaceExpired(isOnDisk: true)) == "[CERTIFICATE] Action=replace-expired Storage=file")
        #expect(line(.retire(previous: 0)) == "[CERTIFICATE] Action=retire Previous=0")
    }

    @Test func showTheBeginningOfTokensOnly() {
        #expect(LogLine.shown(session: "session-ABCDEFGHIJKLMNOPQRSTUV") == "ABCDEFGH")
        #expect(LogLine.shown(session: "ABCDEFGH") == "ABCDEFGH")
        #expect(LogLine.shown(session: "short") == "short")
        #expect(LogLine.shown(session: "session-") == "none")
        #expect(LogLine.shown(session: "") == "none")
        let line = LogLine.connect(
            session: "session-0123456789", mode: .fast, isIPv6: true, duration: .zero, result: .success)
        #expect(line.contains("Session=01234567 ") && !line.contains("012345678"))
    }

    @Test func cannotBeForged() {
        #expect(LogLine.shown(session: "a\nb c\u{0}é=\"") == "a?b?c??=")
        let line = LogLine.cacheLoad(
            age: .zero, isValid: false, ipv6: 0, ipv4: 0, lastProtocol: "ipv4\n[NORMAL] Session=x")
        #expect(line.hasSuffix("Protocol=ipv4?[NO"))
    }
}
