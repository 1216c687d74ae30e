import Glibc
import Testing
import Wire

@testable import Engine

@Suite struct Streams {
    private let world = StreamWorld()
    private let recorder = StreamRecorder()

    private func connect(_ address: SocketAddress, from: String? = nil) throws -> Stream {
        try Stream.connect(
            to: address, from: from.flatMap { IPAddress($0) }, watch: world.table, owner: recorder, now: world.now)
    }

    /// A stream and what the system accepted at the other end.
    private func pair(_ ip: String = "127.0.0.1", receiveBuffer: Int32 = 0) throws -> (Stream, RawSocket) {
        let listener = RawSocket.listening(ip, receiveBuffer: receiveBuffer)
        let stream = try connect(listener.local)
        var other: RawSocket?
        try world.run("a connection") {
            other = other ?? listener.accepted()?.socket
            return other != nil && stream.isOpen
        }
        return (stream, try #require(other))
    }

    @Test(arguments: ["127.0.0.1", "::1"]) func carryBytesBothWays(_ ip: String) throws {
        let (stream, other) = try pair(ip)
        #expect(recorder.opened == 1 && stream.nextTimeout == nil)
        #expect(stream.local.ip == IPAddress(ip) && stream.local.port != 0)
        #expect(stream.put([1, 2, 3]) && stream.put([4]))
        #expect(other.read() == [], "nothing goes before the flush")
        stream.flush(now: world.now)
        try world.run("bytes") { other.read() == [1, 2, 3, 4] }
        other.write([9, 8])
        try world.run("an answer") { recorder.bytes == [9, 8] }
        #expect(stream.bytesSent == 4 && stream.bytesReceived == 2)
    }

    @Test func sendWhatWasWrittenBeforeTheyWereOpen() throws {
        let listener = RawSocket.listening()
        let stream = try connect(listener.local)
        #expect(stream.put([7, 7]))
        stream.flush(now: world.now)
        var other: RawSocket?
        try world.run("bytes") {
            other = other ?? listener.accepted()?.socket
            return other?.read() == [7, 7]
        }
    }

    @Test func comeFromTheAddressThatIsAskedFor() throws {
        let listener = RawSocket.listening()
        let stream = try connect(listener.local, from: "127.0.0.7")
        var other: (socket: RawSocket, remote: SocketAddress)?
        try world.run("a connection") {
            other = other ?? listener.accepted()
            return other != nil && stream.isOpen
        }
        #expect(other?.remote.ip == IPAddress("127.0.0.7") && other?.remote == stream.local)
    }

    @Test func sayThatNobodyListens() throws {
        let listener = RawSocket.listening()
        let address = listener.local
        close(listener.descriptor)
        let stream = try connect(address)
        try world.run("the end") { recorder.closed == 1 }
        #expect(stream.failure?.status == .turnUnreachable && recorder.opened == 0)
        #expect(recorder.failure?.detail == "cannot connect to \(address): Connection refused")
        #expect(world.table.count == 0)
    }

    @Test func giveUpAfterTenSeconds() throws {
        let listener = RawSocket.listening()
        let start = world.now
        let stream = try connect(listener.local)
        let due = try #require(stream.nextTimeout)
        #expect(due - start >= .seconds(10) && due - start < .seconds(60))
        stream.handleTimeout(now: due - .nanoseconds(1))
        #expect(!stream.isClosed)
        stream.handleTimeout(now: due)
        #expect(recorder.closed == 1 && recorder.failure?.status == .turnUnreachable)
        #expect(recorder.failure?.detail.contains("no answer within 10 s") == true)
        #expect(stream.nextTimeout == nil && world.table.count == 0)
    }

    @Test func dropWholeMessagesWhenTooMuchWaits() throws {
        let (stream, other) = try pair(receiveBuffer: 4096)
        var random = SeededGenerator(seed: 0x57)
        var sent: [UInt8] = []
        var refused = 0
        for number in 0..<100_000 {
            let message = [UInt8](
                repeating: UInt8(truncatingIfNeeded: number), count: Int.random(in: 1...9000, using: &random))
            if stream.put(message) { sent += message } else { refused += 1 }
            stream.flush(now: world.now)
            #expect(stream.waiting <= Stream.writeLimit)
            if refused == 50 { break }
        }
        #expect(refused == 50 && stream.waiting > Stream.writeLimit - 9000)
        var received: [UInt8] = []
        try world.run("all of it") {
            received += other.read() ?? []
            return received.count >= sent.count
        }
        #expect(received == sent)
        #expect(stream.waiting == 0 && stream.put([1]))
    }

    @Test func sendEverythingBeforeTheyFinish() throws {
        let (stream, other) = try pair(receiveBuffer: 4096)
        let message = (0..<200_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        #expect(stream.put(message))
        stream.finish(now: world.now)
        #expect(!stream.put([1]))
        var received: [UInt8] = []
        var isOver = false
        try world.run("the end") {
            if let bytes = other.read() { received += bytes } else { isOver = true }
            return isOver
        }
        #expect(received == message)
        // The other direction goes on.
        other.write([5])
        try world.run("an answer") { recorder.bytes == [5] }
        #expect(stream.isOpen)
    }

    @Test func endWithTheOtherSide() throws {
        let (stream, other) = try pair()
        other.write([1])
        other.finish()
        try world.run("the end") { recorder.closed == 1 }
        #expect(recorder.bytes == [1] && recorder.failure == nil && stream.isClosed)
        #expect(!stream.put([1]) && world.table.count == 0)
    }

    @Test func sayThatTheConnectionBroke() throws {
        var other: RawSocket?
        let stream: Stream
        (stream, other) = try pair()
        other?.reset()
        other = nil
        try world.run("the end") { recorder.closed == 1 }
        #expect(recorder.failure?.status == .turnLost && world.table.count == 0)
        #expect(recorder.failure?.detail == "the connection to \(stream.remote) broke: Connection reset by peer")
    }

    @Test func doNotRaiseSignals() throws {
        signal(SIGPIPE, SIG_DFL)
        var other: RawSocket?
        let stream: Stream
        (stream, other) = try pair()
        other?.reset()
        other = nil
        for _ in 0..<20 where !stream.isClosed {
            stream.put([UInt8](repeating: 0, count: 1000))
            stream.flush(now: world.now)
        }
        try world.run("the end") { recorder.closed == 1 }
        #expect(recorder.failure?.status == .turnLost, "\(String(describing: recorder.failure))")
    }

    @Test func mayBeClosedWhileTheyTell() throws {
        let (stream, other) = try pair()
        recorder.onBytes = { $0.close() }
        other.write([1])
        try world.run("the end") { stream.isClosed }
        #expect(recorder.closed == 0 && world.table.count == 0)
        try world.run("the end at the other side") { other.read() == nil }
    }

    @Test func endWithTheirLastReference() throws {
        let other: RawSocket
        do {
            let (_, second) = try pair()
            other = second
        }
        try world.run("the end at the other side") { other.read() == nil }
        #expect(world.table.count == 0)
    }

    @Test func doNotKeepTheLoopWaiting() throws {
        let (stream, other) = try pair()
        var sizes: [Int] = []
        recorder.onBytes = { _ in sizes.append(self.recorder.bytes.count - sizes.reduce(0, +)) }
        var rest = 2_000_000
        try world.run("all of it") {
            if rest > 0 { rest -= max(0, other.write([UInt8](repeating: 1, count: min(rest, 500_000)))) }
            return recorder.bytes.count == 2_000_000
        }
        #expect(sizes.allSatisfy { $0 <= Stream.readLimit })
        withExtendedLifetime(stream) {}
    }
}

@Suite struct SecureStreams {
    private let world = StreamWorld()
    private let recorder = StreamRecorder()

    private func connect(_ address: SocketAddress, _ host: String, _ trust: TLSTrust) throws -> Stream {
        try Stream.connect(
            to: address, security: .init(trust: trust, host: host), watch: world.table, owner: recorder, now: world.now)
    }

    /// Connects to a server with that certificate; what became of it.
    private func outcome(
        _ certificate: TestCertificate, _ host: String, _ trust: TLSTrust? = nil, maximumVersion: Int = 0
    ) throws -> (failure: Failure?, server: EchoTLSServer) {
        let server = EchoTLSServer(certificate, maximumVersion: maximumVersion)
        world.others.append { server.turn() }
        let stream = try connect(server.address, host, trust ?? certificate.trust())
        try world.run("an outcome, \(stream.state)") { recorder.opened + recorder.closed > 0 }
        #expect(recorder.opened + recorder.closed == 1)
        stream.close()
        return (recorder.failure, server)
    }

    @Test func carryBytesBothWays() throws {
        let certificate = TestCertificate("DNS:turn.example.org")
        let server = EchoTLSServer(certificate)
        world.others.append { server.turn() }
        let stream = try connect(server.address, "turn.example.org", certificate.trust())
        #expect(stream.put([1, 2]), "before it is open")
        stream.flush(now: world.now)
        try world.run("an echo, \(stream.state)") { recorder.bytes == [1, 2] }
        #expect(server.calledName == "turn.example.org" && server.version == "TLSv1.3" && recorder.opened == 1)
        // More than a record, than a buffer, than one turn reads.
        let message = (0..<250_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        #expect(stream.put(message))
        stream.flush(now: world.now)
        try world.run("a long echo") { recorder.bytes.count == 250_002 }
        #expect(Array(recorder.bytes.dropFirst(2)) == message)
        server.end()
        try world.run("the end") { recorder.closed == 1 }
        #expect(recorder.failure == nil && world.table.count == 0)
    }

    @Test func areBoundedToo() throws {
        let certificate = TestCertificate("DNS:turn.example.org")
        let server = EchoTLSServer(certificate)
        world.others.append { server.turn() }
        let stream = try connect(server.address, "turn.example.org", certificate.trust())
        try world.run("a connection") { stream.isOpen && server.isOpen }
        server.isAwake = false
        var sent: [UInt8] = []
        var refused = 0
        for number in 0..<100_000 where refused < 10 {
            let message = [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: 7000)
            if stream.put(message) { sent += message } else { refused += 1 }
            stream.flush(now: world.now)
        }
        // What is sealed is a little longer.
        #expect(refused == 10 && stream.waiting <= Stream.writeLimit + 8192)
        server.isAwake = true
        try world.run("all of it") { recorder.bytes.count >= sent.count }
        #expect(recorder.bytes == sent)
    }

    @Test func finishWhatWasWrittenBeforeTheyWereOpen() throws {
        let certificate = TestCertificate("DNS:turn.example.org")
        let server = EchoTLSServer(certificate)
        world.others.append { server.turn() }
        let stream = try connect(server.address, "turn.example.org", certificate.trust())
        #expect(stream.put([UInt8](repeating: 5, count: 50_000)))
        stream.finish(now: world.now)
        try world.run("the end, \(stream.state)") { recorder.closed == 1 }
        #expect(recorder.bytes.count == 50_000 && recorder.failure == nil && recorder.opened == 1)
    }

    @Test func acceptAnAddressInTheCertificate() throws {
        let (failure, server) = try outcome(TestCertificate("IP:127.0.0.1"), "127.0.0.1")
        #expect(failure == nil, "\(String(describing: failure))")
        // RFC 6066 section 3: never an address in numbers.
        #expect(server.calledName == nil)
    }

    @Test func acceptOneLabelForAStar() throws {
        #expect(try outcome(TestCertificate("DNS:*.example.org"), "turn.example.org").failure == nil)
    }

    @Test(arguments: [
        ("DNS:turn.example.org", "other.example.org"), ("DNS:turn.example.org", "127.0.0.1"),
        ("IP:127.0.0.2", "127.0.0.1"),
        ("DNS:*.example.org", "a.turn.example.org"), ("DNS:tu*.example.org", "turn.example.org"),
        ("DNS:127.0.0.1", "127.0.0.1"),
    ])
    func refuseAnotherName(_ names: String, _ host: String) throws {
        let (failure, server) = try outcome(TestCertificate(names), host)
        let problem = try #require(failure)
        #expect(problem.status == .turnTLSFailed)
        #expect(problem.detail == "TLS with \(host) at \(server.address): its certificate is for another name")
    }

    @Test func refuseAnUnknownAuthority() throws {
        let trust = try TestCertificate("DNS:a").trust()
        let failure = try #require(try outcome(TestCertificate("DNS:a"), "a", trust).failure)
        #expect(failure.status == .turnTLSFailed && failure.detail.contains("signed by an unknown authority"))
    }

    @Test func refuseTheWorldsAuthoritiesForATestCertificate() throws {
        let failure = try #require(try outcome(TestCertificate("DNS:a"), "a", TLSTrust(authorityPath: nil)).failure)
        #expect(failure.detail.contains("signed by an unknown authority"))
    }

    @Test func refuseAnExpiredCertificate() throws {
        let certificate = TestCertificate("DNS:a", from: -7200, until: -3600)
        let failure = try #require(try outcome(certificate, "a").failure)
        #expect(failure.status == .turnTLSFailed && failure.detail.hasSuffix("its certificate has expired"))
    }

    @Test func refuseACertificateOfTomorrow() throws {
        let certificate = TestCertificate("DNS:a", from: 86_400, until: 2 * 86_400)
        let failure = try #require(try outcome(certificate, "a").failure)
        #expect(failure.detail.hasSuffix("its certificate is not valid yet"))
    }

    @Test func refuseOldVersions() throws {
        let failure = try #require(try outcome(TestCertificate("DNS:a"), "a", maximumVersion: 0x0302).failure)
        #expect(failure.status == .turnTLSFailed)
        #expect(failure.detail.hasSuffix("it speaks no TLS of version 1.2 or later"), "\(failure.detail)")
    }

    @Test(arguments: ["HTTP/1.1 400 Bad Request\r\n\r\n", "\u{16}\u{4}hello hello", "\u{0}"])
    func sayThatItIsNotTLS(_ answer: String) throws {
        let listener = RawSocket.listening()
        let stream = try connect(listener.local, "a", TestCertificate("DNS:a").trust())
        var other: RawSocket?
        try world.run("the end, \(stream.state)") {
            if other == nil, let accepted = listener.accepted() {
                other = accepted.socket
                other?.write(Array(answer.utf8))
                if answer == "\u{0}" { other?.write([UInt8](repeating: 0, count: 100)) }
            }
            return recorder.closed == 1
        }
        #expect(recorder.failure?.status == .turnTLSFailed)
        #expect(recorder.failure?.detail.hasSuffix("what it answers is not TLS") == true, "\(recorder.failure!.detail)")
    }

    @Test func sayThatItClosedInTheHandshake() throws {
        let listener = RawSocket.listening()
        let stream = try connect(listener.local, "a", TestCertificate("DNS:a").trust())
        var other: RawSocket?
        try world.run("the end, \(stream.state)") {
            if other == nil, let accepted = listener.accepted() { other = accepted.socket }
            if other?.read()?.isEmpty == false { other?.finish() }
            return recorder.closed == 1
        }
        #expect(recorder.failure?.detail.hasSuffix("it closed the connection in the handshake") == true)
    }

    @Test func giveUpOnAServerThatSaysNothing() throws {
        let listener = RawSocket.listening()
        let stream = try connect(listener.local, "a", TestCertificate("DNS:a").trust())
        try world.run("the handshake") { if case .securing = stream.state { true } else { false } }
        stream.handleTimeout(now: try #require(stream.nextTimeout))
        #expect(recorder.failure?.status == .turnTLSFailed)
        #expect(recorder.failure?.detail.hasSuffix("no answer within 10 s") == true)
    }

    @Test func endWhenTheyAreGivenGarbage() throws {
        let certificate = TestCertificate("DNS:a")
        var random = SeededGenerator(seed: 0x7715)
        for _ in 0..<40 {
            // An alert or a part of the handshake by its first bytes, and then anything.
            let garbage =
                [UInt8.random(in: 21...22, using: &random), 3, 3]
                + (0..<Int.random(in: 3...400, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
            let listener = RawSocket.listening()
            let recorder = StreamRecorder()
            let stream = try Stream.connect(
                to: listener.local, security: .init(trust: certificate.trust(), host: "a"), watch: world.table,
                owner: recorder, now: world.now)
            var other: RawSocket?
            try world.run("the end, \(stream.state)") {
                if other == nil, let accepted = listener.accepted() {
                    other = accepted.socket
                    other?.write(garbage)
                    other?.finish()
                }
                return recorder.closed == 1
            }
            #expect(recorder.failure?.status == .turnTLSFailed && recorder.opened == 0)
        }
    }

    @Test func nameTheFileThatCannotBeRead() {
        let failure = #expect(throws: Failure.self) { try TLSTrust(authorityPath: "/nowhere/at/all.pem") }
        #expect(failure?.detail.hasPrefix("TLS of /nowhere/at/all.pem: cannot read the trusted certificates") == true)
    }

    @Test func refuseHostsThatCannotBeInACertificate() throws {
        let trust = try TestCertificate("DNS:a").trust()
        for host in ["", String(repeating: "a", count: 300)] {
            #expect(throws: Failure.self) {
                try self.connect(SocketAddress(ip: IPAddress("127.0.0.1")!, port: 9), host, trust)
            }
        }
    }
}
