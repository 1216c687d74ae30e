public import DTLS
import Glibc
import Wire

/// Why a certificate file could not be read or written.
public enum CertificateFileError: Error, Hashable, Sendable {
    /// There is no such file. Make a certificate and store it.
    case missing
    /// The directory of the file is missing.
    case directoryMissing
    /// The file exists and cannot be read; the system's error number says why.
    case unreadable(errno: Int32)
    /// The file cannot be written; the system's error number says why.
    case unwritable(errno: Int32)
    case diskFull
    /// The file has no key and certificate in PEM, or they do not belong together.
    case malformed
    /// The key is not ECDSA with the curve P-256.
    case unsupportedKeyType
    /// The certificate's validity is over. Make a new one.
    case expired
    case outOfResources
}

/// A certificate with its private key in a file, so that the fingerprint outlives the process.
public struct CertificateFile: Sendable {
    /// Enough for a key and a certificate many times over.
    private static let maximumSize = 64 * 1024

    public struct Contents: Sendable {
        public var certificate: Certificate
        /// Group or others may read the private key. Worth a warning to the operator.
        public var isReadableByOthers: Bool
    }

    public let path: String

    public init(path: String) { self.path = path }

    private var file: AtomicFile { AtomicFile(path: path) }

    /// - Parameter wallClock: seconds since 1970, to tell whether the certificate is over.
    public func load(wallClock: Int64) throws(CertificateFileError) -> Contents {
        try withText { text, isReadableByOthers throws(CertificateFileError) in
            let certificate = try decode(text, wallClock: wallClock)
            return Contents(certificate: certificate, isReadableByOthers: isReadableByOthers)
        }
    }

    /// Several certificates, whatever their age.
    struct List: Sendable {
        var certificates: [Certificate] = []
        /// A part of the file could not be used.
        var isDamaged = false
        var isReadableByOthers: Bool
    }

    func loadAll() throws(CertificateFileError) -> List {
        try withText { text, isReadableByOthers throws(CertificateFileError) in
            var list = List(isReadableByOthers: isReadableByOthers)
            var begin = 0
            while begin < text.byteCount {
                let end = endOfCertificate(text, from: begin)
                do throws(CertificateFileError) {
                    list.certificates.append(try decode(text.extracting(begin..<end), wallClock: .min))
                } catch {
                    list.isDamaged = true
                }
                begin = end
            }
            return list
        }
    }

    /// Behind the line that ends the next certificate, or the end of the text.
    private func endOfCertificate(_ text: RawSpan, from begin: Int) -> Int {
        let mark: StaticString = "-----END CERTIFICATE-----\n"
        let length = mark.utf8CodeUnitCount
        var index = begin
        while index + length <= text.byteCount {
            let isMark = unsafe text.extracting(index..<index + length).withUnsafeBytes { bytes in
                unsafe memcmp(bytes.baseAddress!, mark.utf8Start, length) == 0
            }
            if isMark { return index + length }
            index += 1
        }
        return text.byteCount
    }

    private func withText<Result>(
        _ body: (RawSpan, _ isReadableByOthers: Bool) throws(CertificateFileError) -> Result
    ) throws(CertificateFileError) -> Result {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw readError(errno) }
        defer { close(descriptor) }
        var status = stat()
        guard unsafe fstat(descriptor, &status) == 0 else { throw .unreadable(errno: errno) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw .unreadable(errno: EINVAL) }
        guard status.st_size <= CertificateFile.maximumSize else { throw .malformed }

        var text = [UInt8](repeating: 0, count: CertificateFile.maximumSize)
        defer { erase(&text) }
        var count = 0
        while count < text.count {
            let room = text.count - count
            let result = unsafe text.withUnsafeMutableBytes { unsafe read(descriptor, $0.baseAddress! + count, room) }
            if result < 0, errno == EINTR { continue }
            guard result >= 0 else { throw .unreadable(errno: errno) }
            guard result > 0 else { break }
            count += result
        }
        return try body(text.span.bytes.extracting(0..<count), status.st_mode & (S_IRWXG | S_IRWXO) != 0)
    }

    private func decode(_ text: RawSpan, wallClock: Int64) throws(CertificateFileError) -> Certificate {
        do throws(CertificateError) {
            return try Certificate.decode(pem: text, wallClock: wallClock)
        } catch {
            switch error {
            case .noPrivateKey, .noCertificate, .keyMismatch: throw .malformed
            case .unsupportedKeyType: throw .unsupportedKeyType
            case .expired: throw .expired
            case .outOfResources: throw .outOfResources
            }
        }
    }

    /// Replaces the file: readers and crashes see the old contents or the new, never a part.
    public func store(_ certificate: Certificate) throws(CertificateFileError) { try store([certificate]) }

    func store(_ certificates: [Certificate]) throws(CertificateFileError) {
        var text: [UInt8] = []
        // Never moved while it grows: no copy of a key stays behind.
        text.reserveCapacity(CertificateFile.maximumSize)
        defer { erase(&text) }
        for certificate in certificates {
            let isComplete: Bool? = certificate.withPEM { pem in
                guard text.count + pem.byteCount <= CertificateFile.maximumSize else { return false }
                unsafe pem.withUnsafeBytes { unsafe text.append(contentsOf: $0) }
                return true
            }
            guard isComplete == true else { throw .outOfResources }
        }
        try write { file throws(AtomicFile.Failure) in _ = try file.replace(with: text.span.bytes) }
    }

    /// As ``store(_:)``, but answers false and changes nothing if there is a file: somebody else was faster.
    func create(_ certificate: Certificate) throws(CertificateFileError) -> Bool {
        let result: Result<Bool, CertificateFileError>? = certificate.withPEM { text in
            do throws(CertificateFileError) {
                return .success(try write { file throws(AtomicFile.Failure) in try file.create(with: text) })
            } catch {
                return .failure(error)
            }
        }
        guard let result else { throw .outOfResources }
        return try result.get()
    }

    /// Deletes the file, if it is there.
    func remove() throws(CertificateFileError) {
        try write { file throws(AtomicFile.Failure) in try file.remove() }
    }

    private func write<Result>(
        _ body: (AtomicFile) throws(AtomicFile.Failure) -> Result
    ) throws(CertificateFileError) -> Result {
        do throws(AtomicFile.Failure) {
            return try body(file)
        } catch {
            switch error.number {
            case ENOENT, ENOTDIR: throw .directoryMissing
            case ENOSPC, EDQUOT: throw .diskFull
            default: throw .unwritable(errno: error.number)
            }
        }
    }

    /// Tells the engines that share the file apart: one at a time changes it. The lock ends with the descriptor, which
    /// is negative where the file system has no locks. Nil: another one has it.
    func lock() -> Int32? {
        let descriptor = unsafe open(file.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0, flock(descriptor, LOCK_EX | LOCK_NB) != 0, errno == EWOULDBLOCK else {
            return descriptor
        }
        close(descriptor)
        return nil
    }

    private func readError(_ number: Int32) -> CertificateFileError {
        guard number == ENOENT || number == ENOTDIR else { return .unreadable(errno: number) }
        return directoryExists ? .missing : .directoryMissing
    }

    private var directoryExists: Bool {
        var status = stat()
        return unsafe stat(file.directory, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
    }

    private func erase(_ text: inout [UInt8]) {
        unsafe text.withUnsafeMutableBytes { bytes in
            if let base = bytes.baseAddress { unsafe explicit_bzero(base, bytes.count) }
        }
    }
}
