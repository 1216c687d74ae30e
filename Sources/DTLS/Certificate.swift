internal import COpenSSL
public import Wire

/// Why a certificate could not be made or read.
public enum CertificateError: Error, Hashable, Sendable {
    /// There is no private key in the text, or it is damaged or encrypted.
    case noPrivateKey
    /// There is no certificate in the text, or it is damaged.
    case noCertificate
    /// The key is not ECDSA with the curve P-256.
    case unsupportedKeyType
    /// The certificate belongs to another key.
    case keyMismatch
    /// The certificate's validity is over. Make a new one.
    case expired
    /// No memory or no random bytes.
    case outOfResources
}

/// A self-signed certificate with its private key (ECDSA P-256), as WebRTC uses them: what
/// authenticates it is its fingerprint in the session description. Immutable; one serves all
/// connections of an engine. The private key never leaves but through ``withPEM(_:)``.
public final class Certificate: @unchecked Sendable {
    let key: OpaquePointer
    let certificate: OpaquePointer

    /// Validity in seconds since 1970.
    public let notBefore: Int64
    public let notAfter: Int64

    /// When it was made, if ``make(wallClock:lifetime:)`` made it: in seconds since 1970.
    public var made: Int64 { notBefore.addingReportingOverflow(Certificate.backdating).partialValue }

    /// How long before its making validity begins, for clocks that disagree.
    private static let backdating: Int64 = 86_400

    private let sha256: Fingerprint
    private let sha384: Fingerprint
    private let sha512: Fingerprint

    /// Takes over both.
    private init(key: OpaquePointer, certificate: OpaquePointer) throws(CertificateError) {
        var begin: Int64 = 0
        var end: Int64 = 0
        guard unsafe certificate_validity(certificate, &begin, &end) == 1,
            let sha256 = Certificate.digest(certificate, .sha256),
            let sha384 = Certificate.digest(certificate, .sha384),
            let sha512 = Certificate.digest(certificate, .sha512)
        else {
            unsafe certificate_free(key, certificate)
            throw .noCertificate
        }
        unsafe self.key = key
        unsafe self.certificate = certificate
        notBefore = begin
        notAfter = end
        self.sha256 = sha256
        self.sha384 = sha384
        self.sha512 = sha512
    }

    deinit { unsafe certificate_free(key, certificate) }

    private static func digest(_ certificate: OpaquePointer, _ algorithm: HashAlgorithm) -> Fingerprint? {
        var bytes = [UInt8](repeating: 0, count: 64)
        let count = unsafe certificate_digest(certificate, Int32(algorithm.byteCount * 8), &bytes)
        return Fingerprint(algorithm: algorithm, bytes: Array(bytes.prefix(count)))
    }

    /// Makes a new key and certificate.
    /// - Parameters:
    ///   - wallClock: seconds since 1970. Validity begins a day before, for clocks that disagree.
    ///   - lifetime: how long it is valid.
    public static func make(
        wallClock: Int64, lifetime: Duration = .seconds(365 * 86_400)
    ) throws(CertificateError) -> Certificate {
        var key: OpaquePointer?
        var certificate: OpaquePointer?
        let end = wallClock.addingReportingOverflow(lifetime.nanoseconds / 1_000_000_000)
        let status = unsafe certificate_make(
            max(wallClock, backdating) - backdating, end.overflow ? wallClock : end.partialValue, &key, &certificate)
        guard status == 0, let key = unsafe key, let certificate = unsafe certificate else { throw .outOfResources }
        return try unsafe Certificate(key: key, certificate: certificate)
    }

    /// Reads the first private key and the first certificate of a PEM text.
    /// - Parameter wallClock: seconds since 1970; a certificate that is over throws ``CertificateError/expired``.
    public static func decode(pem: RawSpan, wallClock: Int64) throws(CertificateError) -> Certificate {
        var key: OpaquePointer?
        var certificate: OpaquePointer?
        let status = unsafe pem.withUnsafeBytes { text in
            unsafe certificate_decode(text.baseAddress, text.count, &key, &certificate)
        }
        switch Int(status) {
        case 0: break
        case CERTIFICATE_NO_KEY: throw .noPrivateKey
        case CERTIFICATE_NONE: throw .noCertificate
        case CERTIFICATE_KEY_TYPE: throw .unsupportedKeyType
        case CERTIFICATE_KEY_MISMATCH: throw .keyMismatch
        default: throw .outOfResources
        }
        guard let key = unsafe key, let certificate = unsafe certificate else { throw .outOfResources }
        let decoded = try unsafe Certificate(key: key, certificate: certificate)
        guard !decoded.isExpired(wallClock: wallClock) else { throw .expired }
        return decoded
    }

    /// Hands the private key and the certificate to `body` as PEM text, which is overwritten afterwards.
    public func withPEM<Result, Failure: Error>(
        _ body: (RawSpan) throws(Failure) -> Result
    ) throws(Failure) -> Result? {
        var length = 0
        guard let text = unsafe certificate_encode(key, certificate, &length) else { return nil }
        defer { unsafe certificate_free_pem(text, length) }
        let bytes = unsafe UnsafeRawBufferPointer(start: text, count: length)
        return try body(unsafe bytes.bytes)
    }

    /// 32 bytes from which the keys of tickets can be derived: engines with the same certificate have the same. They
    /// say nothing about the private key.
    public func deriveTicketSecret() throws(CertificateError) -> [UInt8] {
        var secret = [UInt8](repeating: 0, count: 32)
        guard unsafe certificate_derive(key, "libreconnect ticket", &secret, secret.count) == 1 else {
            throw .outOfResources
        }
        return secret
    }

    public func fingerprint(_ algorithm: HashAlgorithm) -> Fingerprint {
        switch algorithm {
        case .sha256: sha256
        case .sha384: sha384
        case .sha512: sha512
        }
    }

    public func isExpired(wallClock: Int64) -> Bool { wallClock >= notAfter }

    /// How long it has been valid, and how long it stays so; negative when over or not begun.
    public func age(wallClock: Int64) -> Duration {
        .seconds(1) * (wallClock.subtractingReportingOverflow(notBefore).partialValue)
    }
    public func remaining(wallClock: Int64) -> Duration {
        .seconds(1) * (notAfter.subtractingReportingOverflow(wallClock).partialValue)
    }
}

extension Certificate: CustomStringConvertible, CustomReflectable {
    public var description: String { "certificate " + sha256.description }
    public var customMirror: Mirror { Mirror(self, children: []) }
}
