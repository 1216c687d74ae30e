import Glibc

/// A certificate authority of a test's own, and what it signed; gone with this object.
package final class Authority {
    package let folder: String

    package init() throws {
        var template = Array("/tmp/turn-authority-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Overdue(what: "a folder") }
        folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        try openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
            "/CN=test authority", "-keyout", folder + "/ca.key", "-out", path)
    }

    deinit {
        guard let open = opendir(folder) else { return }
        while let entry = readdir(open) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            unlink(folder + "/" + name)
        }
        closedir(open)
        rmdir(folder)
    }

    /// The authority's own certificate.
    package var path: String { folder + "/ca.pem" }

    /// A server's, for these names ("DNS:localhost,IP:127.0.0.1").
    package func certificate(_ name: String, for names: String) throws -> (pem: String, key: String) {
        let files = (pem: folder + "/\(name).pem", key: folder + "/\(name).key")
        try openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=\(name)", "-addext",
            "subjectAltName=\(names)", "-keyout", files.key, "-out", folder + "/\(name).csr")
        try openssl(
            "x509", "-req", "-in", folder + "/\(name).csr", "-CA", path, "-CAkey", folder + "/ca.key",
            "-CAcreateserial", "-days", "2", "-copy_extensions", "copy", "-out", files.pem)
        return files
    }

    private func openssl(_ arguments: String...) throws {
        var words = (["openssl"] + arguments).map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var files = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&files)
        defer { posix_spawn_file_actions_destroy(&files) }
        for descriptor in 0...2 as ClosedRange<Int32> {
            posix_spawn_file_actions_addopen(&files, descriptor, "/dev/null", O_RDWR, 0)
        }
        var process: pid_t = 0
        guard posix_spawnp(&process, "openssl", &files, nil, &words, environ) == 0 else {
            throw Overdue(what: "openssl, which is needed here")
        }
        var status: Int32 = 0
        waitpid(process, &status, 0)
        guard status == 0 else { throw Overdue(what: "openssl \(arguments[0]): \(status)") }
    }
}
