import CSystem
import DTLS
import Storage
import Wire

/// The files of an engine's certificates, and what it says when they cannot be used.
struct CertificateFiles: Sendable {
    private let current: CertificateFile
    private let previous: CertificateFile

    init(path: String) {
        current = CertificateFile(path: path)
        previous = CertificateFile(path: path + ".previous")
    }

    enum Loaded {
        case certificate(Certificate)
        /// A new one is needed.
        case missing
        case expired
    }

    func loadCurrent(_ wallClock: Int64, _ notes: inout CertificateStore.Notes) throws(Failure) -> Loaded {
        do throws(CertificateFileError) {
            let contents = try current.load(wallClock: wallClock)
            if contents.isReadableByOthers { notes.append(CertificateFiles.readable(current)) }
            return .certificate(contents.certificate)
        } catch {
            switch error {
            case .missing: return .missing
            case .expired: return .expired
            default: throw CertificateFiles.failure(error, path: current.path)
            }
        }
    }

    /// What is there now, if it can be used: perhaps another engine that shares the files has replaced it.
    func reload(_ wallClock: Int64) -> (current: Certificate?, previous: [Certificate]) {
        ((try? current.load(wallClock: wallClock))?.certificate, (try? previous.loadAll())?.certificates ?? [])
    }

    /// Calls `body` while no other engine changes the files.
    func locked<Result>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
        guard let lock = current.lock() else {
            throw Failure(.storage, "another engine is just replacing the certificate file \(current.path)")
        }
        defer { if lock >= 0 { cs_close(lock) } }
        return try body()
    }

    /// False if there is a file by now.
    func createCurrent(_ certificate: Certificate) throws(Failure) -> Bool {
        do throws(CertificateFileError) {
            return try current.create(certificate)
        } catch {
            throw CertificateFiles.failure(error, path: current.path)
        }
    }

    /// The replaced certificates, the last one first. Without them only old tickets are lost: never a failure.
    func loadPrevious(_ notes: inout CertificateStore.Notes) -> [Certificate] {
        do throws(CertificateFileError) {
            let contents = try previous.loadAll()
            if contents.isReadableByOthers { notes.append(CertificateFiles.readable(previous)) }
            if contents.isDamaged {
                notes.append((.warning, "[CERTIFICATE] Not all of the previous certificates can be read"))
            }
            return contents.certificates
        } catch {
            if error != .missing, error != .directoryMissing {
                let reason = CertificateFiles.failure(error, path: previous.path).detail
                notes.append((.warning, "[CERTIFICATE] The previous certificates are lost: \(reason)"))
            }
            return []
        }
    }

    func storeCurrent(_ certificate: Certificate) throws(Failure) {
        do throws(CertificateFileError) {
            try current.store(certificate)
        } catch {
            throw CertificateFiles.failure(error, path: current.path)
        }
    }

    func storePrevious(_ certificates: [Certificate]) throws(Failure) {
        do throws(CertificateFileError) {
            if certificates.isEmpty { try previous.remove() } else { try previous.store(certificates) }
        } catch {
            throw CertificateFiles.failure(error, path: previous.path)
        }
    }

    /// First the certificates that are to be replaced, so that none is lost whenever this ends; then the new one.
    func replace(with certificate: Certificate, previous replaced: [Certificate]) throws(Failure) {
        let before = try? previous.loadAll().certificates
        try storePrevious(replaced)
        do throws(Failure) {
            try storeCurrent(certificate)
        } catch {
            try? storePrevious(before ?? [])
            throw error
        }
    }

    private static func readable(_ file: CertificateFile) -> (LogLevel, String) {
        (.warning, "[CERTIFICATE] The file \(file.path) can be read by other users: its mode should be 0600")
    }

    private static func failure(_ error: CertificateFileError, path: String) -> Failure {
        return switch error {
        case .directoryMissing: Failure(.storage, "the directory of the certificate file \(path) does not exist")
        case .unreadable(let number) where Int(number) == CS_EACCES || Int(number) == CS_EPERM:
            Failure(.noPermission, "the certificate file \(path) cannot be read: \(String(systemError: number))")
        case .unreadable(let number):
            Failure(.certificateUnusable, "the certificate file \(path) cannot be read: \(String(systemError: number))")
        case .unwritable(let number) where Int(number) == CS_EACCES || Int(number) == CS_EPERM:
            Failure(.noPermission, "the certificate file \(path) cannot be written: \(String(systemError: number))")
        case .unwritable(let number):
            Failure(.storage, "the certificate file \(path) cannot be written: \(String(systemError: number))")
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
