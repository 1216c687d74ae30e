import CSystem
import DTLS

/// The engine's certificate: from its file, or made now.
enum CertificateStore {
    struct Found {
        var certificate: Certificate
        /// For the log, once there is one.
        var notes: [(LogLevel, String)] = []
    }

    static func certificate(path: String?) throws(Failure) -> Found {
        let wallClock = cs_unix_ns() / 1_000_000_000
        guard let path else {
            return Found(
                certificate: try make(wallClock), notes: [(.info, "[CERTIFICATE] Action=create Storage=memory")])
        }
        let file = CertificateFile(path: path)
        do throws(CertificateFileError) {
            let contents = try file.load(wallClock: wallClock)
            let days = max(0, contents.certificate.age(wallClock: wallClock).nanoseconds / 86_400_000_000_000)
            var found = Found(
                certificate: contents.certificate, notes: [(.info, "[CERTIFICATE] Action=load AgeDays=\(days)")])
            if contents.isReadableByOthers {
                found.notes.append(
                    (.warning, "[CERTIFICATE] The file can be read by other users: its mode should be 0600"))
            }
            return found
        } catch {
            switch error {
            case .missing: return try makeAndStore(file, wallClock, reason: "create")
            case .expired: return try makeAndStore(file, wallClock, reason: "replace-expired")
            default: throw failure(error, path: path)
            }
        }
    }

    private static func make(_ wallClock: Int64) throws(Failure) -> Certificate {
        do throws(CertificateError) {
            return try Certificate.make(wallClock: wallClock)
        } catch {
            throw Failure(.system, "cannot make a certificate: \(error)")
        }
    }

    private static func makeAndStore(_ file: CertificateFile, _ wallClock: Int64, reason: String) throws(Failure)
        -> Found
    {
        let certificate = try make(wallClock)
        do throws(CertificateFileError) {
            try file.store(certificate)
        } catch {
            throw failure(error, path: file.path)
        }
        return Found(certificate: certificate, notes: [(.info, "[CERTIFICATE] Action=\(reason) Storage=file")])
    }

    private static func failure(_ error: CertificateFileError, path: String) -> Failure {
        func system(_ number: Int32) -> String { unsafe String(cString: cs_error_text(number)) }
        return switch error {
        case .directoryMissing: Failure(.storage, "the directory of the certificate file \(path) does not exist")
        case .unreadable(let number) where Int(number) == CS_EACCES || Int(number) == CS_EPERM:
            Failure(.noPermission, "the certificate file \(path) cannot be read: \(system(number))")
        case .unreadable(let number):
            Failure(.certificateUnusable, "the certificate file \(path) cannot be read: \(system(number))")
        case .unwritable(let number) where Int(number) == CS_EACCES || Int(number) == CS_EPERM:
            Failure(.noPermission, "the certificate file \(path) cannot be written: \(system(number))")
        case .unwritable(let number):
            Failure(.storage, "the certificate file \(path) cannot be written: \(system(number))")
        case .diskFull: Failure(.storage, "the certificate file \(path) cannot be written: the disk is full")
        case .malformed:
            Failure(
                .certificateUnusable,
                "the certificate file \(path) does not hold a private key and its certificate in PEM")
        case .unsupportedKeyType: Failure(.certificateUnusable, "the key in \(path) is not ECDSA with the curve P-256")
        case .outOfResources: Failure(.noMemory, "no memory for the certificate")
        case .missing, .expired: Failure(.internalDefect, "\(error)")
        }
    }
}
