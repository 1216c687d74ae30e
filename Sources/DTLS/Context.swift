internal import COpenSSL
public import Wire

/// What all connections of an engine share: the certificate, cipher suites and the rules of the handshake.
///
/// DTLS 1.2, and 1.3 where the OpenSSL at run time has it; ephemeral keys over X25519, P-256 and P-384;
/// AEAD ciphers only; both sides show a certificate; no renegotiation, tickets, resumption, compression
/// or HelloVerifyRequest (ICE has validated the path).
public final class Context: SecureTransportProvider, @unchecked Sendable {
    public let certificate: Certificate
    let pointer: OpaquePointer

    public init(certificate: Certificate) throws(TransportFailure) {
        guard let pointer = unsafe dtls_context_new(certificate.certificate, certificate.key) else {
            throw .outOfResources
        }
        self.certificate = certificate
        unsafe self.pointer = pointer
    }

    deinit { unsafe SSL_CTX_free(pointer) }

    public func localFingerprint(_ algorithm: HashAlgorithm) -> Fingerprint { certificate.fingerprint(algorithm) }

    public func makeTransport(
        role: TransportRole, expectedFingerprints: [Fingerprint], mtu: Int, initialRetransmission: Duration
    ) -> (any SecureTransport)? {
        OpenSSLTransport(
            context: self, role: role, expectedFingerprints: expectedFingerprints, mtu: mtu,
            initialRetransmission: initialRetransmission)
    }
}
