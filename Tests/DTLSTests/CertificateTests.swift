import COpenSSL
import Testing
import Wire

@testable import DTLS

private let wallClock: Int64 = 1_800_000_000

private func decode(_ text: String, at time: Int64 = wallClock) -> Result<Certificate, CertificateError> {
    do throws(CertificateError) {
        return .success(try Certificate.decode(pem: Array(text.utf8).span.bytes, wallClock: time))
    } catch {
        return .failure(error)
    }
}

private func pem(_ certificate: Certificate) -> String {
    certificate.withPEM { String(decoding: $0.copied(), as: UTF8.self) } ?? ""
}

private func error(_ result: Result<Certificate, CertificateError>) -> CertificateError? {
    if case .failure(let error) = result { return error }
    return nil
}

@Suite struct Certificates {
    @Test func surviveTheWayThroughPEM() throws {
        let original = try Certificate.make(wallClock: wallClock)
        let copy = try decode(pem(original)).get()
        for algorithm in HashAlgorithm.allCases {
            #expect(copy.fingerprint(algorithm) == original.fingerprint(algorithm))
        }
        #expect(copy.notBefore == wallClock - 86_400 && copy.notAfter == wallClock + 365 * 86_400)
        #expect(copy.age(wallClock: wallClock) == .seconds(86_400))
        #expect(copy.remaining(wallClock: wallClock) == .seconds(365 * 86_400))
        let context = try Context(certificate: copy)
        let client = OpenSSLTransport(
            context: context, role: .client, expectedFingerprints: [certificates.server.fingerprint(.sha256)])!
        let server = OpenSSLTransport(
            context: contexts.server, role: .server, expectedFingerprints: [original.fingerprint(.sha384)])!
        let link = Link(client, server)
        link.start(now: realNow())
        #expect(link.isConnected)
    }

    @Test func areAllDifferent() throws {
        let one = try Certificate.make(wallClock: wallClock)
        let other = try Certificate.make(wallClock: wallClock)
        #expect(one.fingerprint(.sha256) != other.fingerprint(.sha256))
    }

    @Test func sayNothingOfTheirKey() throws {
        let certificate = try Certificate.make(wallClock: wallClock)
        var dumped = ""
        dump(certificate, to: &dumped)
        for text in ["\(certificate)", String(reflecting: certificate), dumped] {
            #expect(!text.contains("PRIVATE") && !text.contains("key"))
        }
    }

    @Test func expire() throws {
        let text = pem(try Certificate.make(wallClock: wallClock, lifetime: .seconds(100)))
        #expect(error(decode(text, at: wallClock + 99)) == nil)
        #expect(error(decode(text, at: wallClock + 100)) == .expired)
    }

    @Test func keyAndCertificateMayComeInEitherOrder() throws {
        let text = pem(try Certificate.make(wallClock: wallClock))
        let cut = try #require(text.range(of: "-----BEGIN CERTIFICATE"))
        let turned = text[cut.lowerBound...] + text[..<cut.lowerBound]
        #expect(error(decode(String(turned))) == nil)
        #expect(error(decode("Some words before.\n" + text)) == nil)
        #expect(error(decode(String(text[cut.lowerBound...]))) == .noPrivateKey)
        #expect(error(decode(String(text[..<cut.lowerBound]))) == .noCertificate)
    }

    @Test func ofAnotherKeyAreRefused() throws {
        let one = pem(try Certificate.make(wallClock: wallClock))
        let other = pem(try Certificate.make(wallClock: wallClock))
        let cut = try #require(one.range(of: "-----BEGIN CERTIFICATE"))
        let otherCut = try #require(other.range(of: "-----BEGIN CERTIFICATE"))
        #expect(error(decode(String(one[..<cut.lowerBound]) + String(other[otherCut.lowerBound...]))) == .keyMismatch)
    }

    @Test(arguments: [
        "", "x", "-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    ])
    func brokenTextIsRefused(text: String) {
        #expect(error(decode(text)) == .noPrivateKey)
    }

    @Test func cutOrChangedTextIsRefusedOrWhole() throws {
        let original = try Certificate.make(wallClock: wallClock)
        let text = Array(pem(original).utf8)
        for length in stride(from: 0, to: text.count - 2, by: 7) {
            #expect(error(decode(String(decoding: text[..<length], as: UTF8.self))) != nil)
        }
        var generator = SeededGenerator(seed: 3)
        for _ in 0..<300 {
            var changed = text
            changed[Int.random(in: 0..<text.count, using: &generator)] ^= UInt8.random(in: 1...127, using: &generator)
            _ = decode(String(decoding: changed, as: UTF8.self))
        }
    }

    @Test(arguments: [("RSA", 2048), ("P-384", 384)])
    func otherKeysAreRefused(kind: String, bits: Int) throws {
        let key = kind == "RSA" ? try rsaKey(bits) : try ellipticKey(kind)
        let certificate = X509_new()
        defer { certificate_free(key, certificate) }
        X509_set_pubkey(certificate, key)
        ASN1_TIME_set(X509_getm_notBefore(certificate), Int(wallClock))
        ASN1_TIME_set(X509_getm_notAfter(certificate), Int(wallClock + 100))
        X509_sign(certificate, key, EVP_sha256())
        var length = 0
        let text = try #require(certificate_encode(key, certificate, &length))
        defer { certificate_free_pem(text, length) }
        let string = String(decoding: UnsafeBufferPointer(start: text, count: length), as: UTF8.self)
        #expect(error(decode(string)) == .unsupportedKeyType)
    }

    private func rsaKey(_ bits: Int) throws -> OpaquePointer {
        try generateKey("RSA") { EVP_PKEY_CTX_set_rsa_keygen_bits($0, Int32(bits)) }
    }
    private func ellipticKey(_ group: String) throws -> OpaquePointer {
        try generateKey("EC") { EVP_PKEY_CTX_set_group_name($0, group) }
    }

    private func generateKey(_ kind: String, _ configure: (OpaquePointer) -> Int32) throws -> OpaquePointer {
        let context = try #require(EVP_PKEY_CTX_new_from_name(nil, kind, nil))
        defer { EVP_PKEY_CTX_free(context) }
        EVP_PKEY_keygen_init(context)
        #expect(configure(context) > 0)
        var key: OpaquePointer?
        EVP_PKEY_generate(context, &key)
        return try #require(key)
    }

    /// A passphrase must not be asked for at the terminal of the host.
    @Test func encryptedKeysAreRefused() throws {
        let certificate = try Certificate.make(wallClock: wallClock)
        let output = BIO_new(BIO_s_mem())
        defer { BIO_free(output) }
        var passphrase = Array("secret".utf8CString)
        let length = Int32(passphrase.count - 1)
        PEM_write_bio_PKCS8PrivateKey(output, certificate.key, EVP_aes_128_cbc(), &passphrase, length, nil, nil)
        var bytes = [UInt8](repeating: 0, count: 4000)
        let count = BIO_read(output, &bytes, 4000)
        #expect(
            error(decode(String(decoding: bytes.prefix(Int(count)), as: UTF8.self) + pem(certificate))) == .noPrivateKey
        )
    }
}

@Suite struct Fingerprints {
    @Test func areWrittenAndReadAsTheAttributeHasThem() {
        let text = (0..<32).map { ["0", "A"][$0 % 2] + String($0 % 16, radix: 16).uppercased() }.joined(separator: ":")
        let fingerprint = Fingerprint(algorithm: "SHA-256", value: text)
        #expect(fingerprint?.value == text && fingerprint?.algorithm == .sha256)
        #expect(fingerprint?.description == "sha-256 " + text)
        #expect(Fingerprint(algorithm: "sha-256", value: text.lowercased()) == fingerprint)
    }

    @Test func brokenOnesAreRefused() {
        let good = certificates.client.fingerprint(.sha256).value
        for (algorithm, value) in [
            ("sha-1", good), ("sha-384", good), ("", good), ("sha-256", ""), ("sha-256", good + ":00"),
            ("sha-256", String(good.dropLast())), ("sha-256", String(good.dropLast()) + "G"),
            ("sha-256", good.replacingColons()), ("sha-256", " " + good.dropLast()),
            ("sha-256", String(good.dropLast(2)) + "é"),
        ] {
            #expect(Fingerprint(algorithm: algorithm, value: value) == nil, "\(algorithm) \(value)")
        }
        #expect(Fingerprint(algorithm: .sha256, bytes: [1]) == nil)
    }
}

extension String {
    fileprivate func replacingColons() -> String { String(map { $0 == ":" ? "-" : $0 }) }

    fileprivate func range(of needle: String) -> Range<Index>? {
        var start = startIndex
        while start < endIndex {
            if self[start...].hasPrefix(needle) { return start..<index(start, offsetBy: needle.count) }
            start = index(after: start)
        }
        return nil
    }
}

@Suite struct TicketSecrets {
    /// An independent implementation of HKDF over the private number made the secret.
    private let text = """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgXNq9izO+QghRwK6C
        19zS3gA9QMGt043U79vWKqxfSlahRANCAAR8lcwWsYM0q97cL9v1so+zPP3FeEuX
        m95bfdNhKb9PqJ2isYliNRkvsRz5G+Az8Nlcmiea2Z1J3sp4pDp+UBfh
        -----END PRIVATE KEY-----
        -----BEGIN CERTIFICATE-----
        MIIBZjCCAQygAwIBAgIBATAKBggqhkjOPQQDAjARMQ8wDQYDVQQDDAZXZWJSVEMw
        IBcNMjYxMTIxMDMzODU3WhgPMjEyNjEwMjgwMzM4NTdaMBExDzANBgNVBAMMBldl
        YlJUQzBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABHyVzBaxgzSr3twv2/Wyj7M8
        /cV4S5eb3lt902Epv0+onaKxiWI1GS+xHPkb4DPw2VyaJ5rZnUneynikOn5QF+Gj
        UzBRMB0GA1UdDgQWBBSrkhCoBmpfTNtxzqC9KSBokhx4qzAfBgNVHSMEGDAWgBSr
        khCoBmpfTNtxzqC9KSBokhx4qzAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMC
        A0gAMEUCIQCOOY+TvyCDWgqmZjUBmBnh4SkKEiNIS3EzwMXw9+8d4AIgHvkWl2M2
        kz3YtJrUj/FkpeUlsH1TbEgL3h4FBpe6lDw=
        -----END CERTIFICATE-----
        """

    @Test func areThoseOfHKDF() throws {
        let certificate = try decode(text).get()
        let secret = try certificate.deriveTicketSecret()
        #expect(
            secret.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
                == "f25dc34deb4b65cbfc9879691bdc54f7c8c3b7ec545b2671aa8a80cc833d69d2")
    }

    @Test func belongToTheKey() throws {
        let one = try Certificate.make(wallClock: wallClock)
        let other = try Certificate.make(wallClock: wallClock)
        let secret = try one.deriveTicketSecret()
        #expect(secret.count == 32)
        #expect(try one.deriveTicketSecret() == secret)
        #expect(try other.deriveTicketSecret() != secret)
        // The same in another process.
        #expect(try decode(pem(one)).get().deriveTicketSecret() == secret)
    }
}
