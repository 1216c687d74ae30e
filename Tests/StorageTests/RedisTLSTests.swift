import Testing

@testable import Storage

/// A certificate authority of this test's own, and what it signed.
private struct Certificates {
    let scratch: Scratch

    init() throws {
        scratch = try Scratch()
        try openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
            "/CN=test authority", "-keyout", file("ca.key"), "-out", file("ca.pem"))
        try sign("server", "subjectAltName=DNS:localhost,IP:127.0.0.1")
        try sign("stranger", "subjectAltName=DNS:elsewhere.example")
        try sign("client", "subjectAltName=DNS:client")
    }

    func file(_ name: String) -> String { scratch.file(name) }

    private func sign(_ name: String, _ extensions: String) throws {
        try openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=\(name)", "-addext",
            extensions, "-keyout", file(name + ".key"), "-out", file(name + ".csr"))
        try openssl(
            "x509", "-req", "-in", file(name + ".csr"), "-CA", file("ca.pem"), "-CAkey", file("ca.key"),
            "-CAcreateserial", "-days", "2", "-copy_extensions", "copy", "-out", file(name + ".pem"))
    }

    private func openssl(_ arguments: String...) throws {
        let status = try Child("openssl", arguments).wait()
        guard status == 0 else { throw Overdue(what: "openssl \(arguments[0]): \(status)") }
    }

    func server(_ name: String, clients: String = "no") throws -> RedisServer {
        try RedisServer(
            [
                "--tls-cert-file", file(name + ".pem"), "--tls-key-file", file(name + ".key"), "--tls-ca-cert-file",
                file("ca.pem"), "--tls-auth-clients", clients,
            ], portOption: "--tls-port")
    }
}

@Suite(.serialized) struct RedisOverTLS {
    private func client(_ text: String) throws -> Connected { Connected(try RedisAddress(parsing: text)) }

    private func isTLS(_ reason: RedisDownReason) -> Bool { if case .tls = reason { true } else { false } }

    @Test func serversAreVerified() throws {
        let certificates = try Certificates()
        let server = try certificates.server("server")
        for host in ["localhost", "127.0.0.1"] {
            let redis = try client("rediss://\(host):\(server.port)?ca=\(certificates.file("ca.pem"))")
            defer { redis.client.close() }
            try redis.waitUntilUp()
            let large = [UInt8](repeating: 7, count: 2 << 20)
            #expect(try redis.reply("SET", "k", .bytes(large)) == .success(.status("OK")))
            #expect(try redis.reply("GET", "k") == .success(.bytes(large)))
            let replies = Journal<RedisReply?>()
            for _ in 0..<2000 {
                redis.client.submit(["INCR", .text(host)], deadline: .seconds(20)) { replies.append(try? $0.get()) }
            }
            #expect(try replies.wait { $0.count >= 2000 } == (1...2000).map { .integer($0) })
        }
        // The system does not trust this test's authority.
        let distrusting = try client("rediss://localhost:\(server.port)")
        defer { distrusting.client.close() }
        try distrusting.waitUntilDown { isTLS($0) }
        // No TLS spoken there.
        let plain = try client("redis://localhost:\(server.port)")
        defer { plain.client.close() }
        try plain.waitUntilDown()
    }

    @Test func aCertificateOfAnotherNameIsRefused() throws {
        let certificates = try Certificates()
        let server = try certificates.server("stranger")
        for host in ["localhost", "127.0.0.1"] {
            let redis = try client("rediss://\(host):\(server.port)?ca=\(certificates.file("ca.pem"))")
            defer { redis.client.close() }
            try redis.waitUntilDown { isTLS($0) }
            #expect(redis.client.counters.connects == 0)
        }
    }

    @Test func clientsHaveCertificatesWhereTheyAreWanted() throws {
        let certificates = try Certificates()
        let server = try certificates.server("server", clients: "yes")
        let base = "rediss://localhost:\(server.port)?ca=\(certificates.file("ca.pem"))"
        let known = try client(
            base + "&cert=\(certificates.file("client.pem"))&key=\(certificates.file("client.key"))")
        defer { known.client.close() }
        try known.waitUntilUp()
        let unknown = try client(base)
        defer { unknown.client.close() }
        try unknown.waitUntilDown()
        for wrong in [
            "&cert=/nowhere&key=\(certificates.file("client.key"))",
            "&cert=\(certificates.file("client.pem"))&key=\(certificates.file("server.key"))",
        ] {
            let broken = try client(base + wrong)
            defer { broken.client.close() }
            try broken.waitUntilDown { isTLS($0) }
        }
    }

    @Test func somethingElseOnThePort() throws {
        let listener = try Listener()
        listener.serve { _, fd in
            Listener.send("-ERR plain text\r\n", to: fd)
            Listener.drain(fd)
        }
        defer { listener.stop() }
        let redis = try client("rediss://localhost:\(listener.port)")
        defer { redis.client.close() }
        try redis.waitUntilDown { isTLS($0) }
    }
}
