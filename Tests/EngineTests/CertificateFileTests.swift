import DTLS
import Glibc
import Testing

@testable import Engine

private let wallClock: Int64 = 1_800_000_000

/// A directory that is gone after the test.
final class Directory {
    let path: String

    init() {
        var template = Array("/tmp/certificate-XXXXXX".utf8CString)
        mkdtemp(&template)
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit {
        for name in names { unlink(path + "/" + name) }
        rmdir(path)
    }

    var names: [String] {
        guard let directory = opendir(path) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }

    func write(_ text: String, to name: String, mode: mode_t = 0o600) {
        let descriptor = open(path + "/" + name, O_WRONLY | O_CREAT | O_TRUNC, mode)
        let bytes = Array(text.utf8)
        _ = Glibc.write(descriptor, bytes, bytes.count)
        close(descriptor)
    }
}

private func failure<Success>(_ body: () throws(CertificateFileError) -> Success) -> CertificateFileError? {
    do throws(CertificateFileError) {
        _ = try body()
        return nil
    } catch {
        return error
    }
}

@Suite struct CertificateFiles {
    private let directory = Directory()
    private var file: CertificateFile { CertificateFile(path: directory.path + "/certificate.pem") }

    @Test func keepTheCertificateForTheOwnerOnly() throws {
        let certificate = try Certificate.make(wallClock: wallClock)
        try file.store(certificate)
        let loaded = try file.load(wallClock: wallClock)
        #expect(loaded.certificate.fingerprint(.sha256) == certificate.fingerprint(.sha256))
        #expect(!loaded.isReadableByOthers)
        var status = stat()
        #expect(stat(file.path, &status) == 0 && status.st_mode & 0o777 == 0o600)
        #expect(directory.names == ["certificate.pem"])
    }

    @Test func areReplaced() throws {
        try file.store(try Certificate.make(wallClock: wallClock))
        let second = try Certificate.make(wallClock: wallClock)
        try file.store(second)
        #expect(try file.load(wallClock: wallClock).certificate.fingerprint(.sha256) == second.fingerprint(.sha256))
        #expect(directory.names == ["certificate.pem"])
    }

    @Test func tellThatOthersCanReadThem() throws {
        try file.store(try Certificate.make(wallClock: wallClock))
        chmod(file.path, 0o640)
        #expect(try file.load(wallClock: wallClock).isReadableByOthers)
    }

    @Test func sayWhatIsWrong() throws {
        #expect(failure { () throws(CertificateFileError) in try file.load(wallClock: wallClock) } == .missing)
        let lost = CertificateFile(path: directory.path + "/none/certificate.pem")
        let certificate = try Certificate.make(wallClock: wallClock, lifetime: .seconds(10))
        #expect(failure { () throws(CertificateFileError) in try lost.load(wallClock: wallClock) } == .directoryMissing)
        #expect(failure { () throws(CertificateFileError) in try lost.store(certificate) } == .directoryMissing)
        let itself = CertificateFile(path: directory.path)
        #expect(
            failure { () throws(CertificateFileError) in try itself.load(wallClock: wallClock) }
                == .unreadable(errno: EINVAL))
        #expect(
            failure { () throws(CertificateFileError) in try itself.store(certificate) } == .unwritable(errno: EISDIR))
        try file.store(certificate)
        #expect(failure { () throws(CertificateFileError) in try file.load(wallClock: wallClock + 10) } == .expired)
        directory.write("nothing", to: "certificate.pem")
        #expect(failure { () throws(CertificateFileError) in try file.load(wallClock: wallClock) } == .malformed)
        directory.write(String(repeating: "a", count: 100_000), to: "certificate.pem")
        #expect(failure { () throws(CertificateFileError) in try file.load(wallClock: wallClock) } == .malformed)
        #expect(directory.names == ["certificate.pem"])
    }
}
