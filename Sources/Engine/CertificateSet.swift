import DTLS
import Wire

/// The certificates an engine holds at one time: the one that new peers get, and those it replaced, for as long as
/// tickets name them. An immutable value.
struct CertificateSet: Sendable {
    /// How many replaced certificates are kept at most.
    static let previousLimit = 2

    let current: DTLS.Context
    /// The last one first.
    let previous: [DTLS.Context]

    /// Ready for handshakes.
    init(current: Certificate, previous: [Certificate]) throws(Failure) {
        self.current = try CertificateSet.context(of: current)
        var contexts: [DTLS.Context] = []
        for certificate in previous { contexts.append(try CertificateSet.context(of: certificate)) }
        self.previous = contexts
    }

    /// Certificates are told apart by the first byte of their SHA-256 digest: no two of a set have the same.
    func context(identifiedBy identifier: UInt8) -> DTLS.Context? {
        all.first { $0.certificate.identifier == identifier }
    }

    /// The current one first.
    var all: [DTLS.Context] { [current] + previous }

    /// The current one first.
    var certificates: [Certificate] { all.map(\.certificate) }

    private static func context(of certificate: Certificate) throws(Failure) -> DTLS.Context {
        do throws(TransportFailure) {
            return try DTLS.Context(certificate: certificate)
        } catch {
            throw Failure(.system, "cannot set up DTLS: \(error)")
        }
    }
}

extension Certificate {
    /// The first byte of the SHA-256 digest.
    var identifier: UInt8 { fingerprint(.sha256).bytes.first ?? 0 }
}

/// A set that takes the place of another.
struct CertificateChange: Sendable {
    var set: CertificateSet
    /// True if the current certificate is another one.
    var isRotation: Bool
    /// True if it was to be another one, and could not be made.
    var isFailure = false
    var notes: [(LogLevel, String)]
}
