import COpenSSL
import Testing
import Wire

@testable import DTLS

/// Clients with other settings than ours.
@Suite struct ForeignPeers {
    /// Runs the handshake of our server with a client that `configure` sets up; gives the server and the client's state.
    private func handshake(
        certificate: Certificate? = certificates.client, _ configure: (OpaquePointer) -> Void
    ) throws -> (server: OpenSSLTransport, client: (state: dtls_state_t, alert: UInt8)) {
        let context = try #require(SSL_CTX_new(DTLS_method()))
        defer { SSL_CTX_free(context) }
        if let certificate {
            SSL_CTX_use_certificate(context, certificate.certificate)
            SSL_CTX_use_PrivateKey(context, certificate.key)
        }
        configure(context)
        let server = try #require(
            OpenSSLTransport(
                context: contexts.server, role: .server,
                expectedFingerprints: [certificates.client.fingerprint(.sha256)]))
        let client = try #require(dtls_new(context, false, 1200, 1_000_000))
        defer { dtls_free(client) }
        server.start(now: realNow())
        dtls_start(client)
        var buffer = [UInt8](repeating: 0, count: 4000)
        var isQuiet = false
        while !isQuiet {
            isQuiet = true
            while case let length = dtls_poll_transmit(client, &buffer, 4000), length > 0 {
                server.receive(Array(buffer.prefix(length)), now: realNow())
                isQuiet = false
            }
            while let datagram = server.transmit() {
                _ = dtls_receive(client, datagram, datagram.count)
                isQuiet = false
            }
        }
        return (server, (dtls_state(client), dtls_alert(client)))
    }

    @Test func connectWithDefaultSettings() throws {
        let (server, client) = try handshake { _ in }
        #expect(server.state == .connected && client.state == DTLS_CONNECTED)
    }

    @Test func withoutACertificateAreRefused() throws {
        let (server, client) = try handshake(certificate: nil) { _ in }
        #expect(server.state == .failed(.noCertificate))
        #expect(client.state == DTLS_FAILED && client.alert == 40)
    }

    @Test(arguments: [
        "ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-AES128-CCM8", "ECDHE-RSA-AES128-GCM-SHA256",
        "AES128-GCM-SHA256",
    ])
    func withoutOurKindOfCipherAreRefused(ciphers: String) throws {
        let (server, client) = try handshake { context in
            #expect(SSL_CTX_set_cipher_list(context, ciphers) == 1)
        }
        #expect(server.state == .failed(.protocolError("no shared cipher")))
        #expect(client.state == DTLS_FAILED && client.alert == 40)
    }

    @Test func withChaChaFirstGetIt() throws {
        let (server, _) = try handshake { context in
            SSL_CTX_set_cipher_list(context, "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256")
        }
        #expect(server.negotiated?.cipher == "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")
        let sealed = output(500) { span in
            let plaintext = [UInt8](repeating: 1, count: 100)
            return server.seal(plaintext.span.bytes, into: &span)
        }
        #expect(sealed.map { $0.count <= 100 + server.recordOverhead } == true)
    }

    @Test func ofDTLS10AreRefused() throws {
        let (server, client) = try handshake { context in
            SSL_CTX_set_security_level(context, 0)
            SSL_CTX_ctrl(context, SSL_CTRL_SET_MIN_PROTO_VERSION, Int(DTLS1_VERSION), nil)
            SSL_CTX_ctrl(context, SSL_CTRL_SET_MAX_PROTO_VERSION, Int(DTLS1_VERSION), nil)
        }
        guard case .failed(.protocolError) = server.state else {
            Issue.record("\(server.state)")
            return
        }
        #expect(client.state == DTLS_FAILED)
    }

    @Test func withAnRSACertificateConnect() throws {
        let key = try #require(makeRSAKey())
        let certificate = try #require(X509_new())
        defer { certificate_free(key, certificate) }
        X509_set_pubkey(certificate, key)
        ASN1_TIME_set(X509_getm_notBefore(certificate), 1_000_000_000)
        ASN1_TIME_set(X509_getm_notAfter(certificate), 4_000_000_000)
        X509_sign(certificate, key, EVP_sha256())
        var digest = [UInt8](repeating: 0, count: 64)
        #expect(certificate_digest(certificate, 256, &digest) == 32)
        let (server, _) = try handshake(certificate: nil) { context in
            SSL_CTX_use_certificate(context, certificate)
            SSL_CTX_use_PrivateKey(context, key)
        }
        // Only the fingerprint is wrong: an older peer's RSA certificate is taken for what it is.
        #expect(server.state == .failed(.fingerprintMismatch))
        #expect(server.peerFingerprint?.bytes == Array(digest.prefix(32)))
    }

    private func makeRSAKey() -> OpaquePointer? {
        let context = EVP_PKEY_CTX_new_from_name(nil, "RSA", nil)
        defer { EVP_PKEY_CTX_free(context) }
        var key: OpaquePointer?
        EVP_PKEY_keygen_init(context)
        EVP_PKEY_CTX_set_rsa_keygen_bits(context, 2048)
        EVP_PKEY_generate(context, &key)
        return key
    }
}
