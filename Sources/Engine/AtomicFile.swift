import Glibc

/// A file that is written as a whole: readers and crashes see the old contents or the new, never a part. Only its owner
/// may read what is written.
struct AtomicFile: Sendable {
    let path: String

    /// The system's error number.
    struct Failure: Error {
        let number: Int32
    }

    /// Replaces the file, whether there is one or not. A symbolic link is replaced, not followed. Answers the status of
    /// the new file.
    @discardableResult
    func replace(with bytes: RawSpan) throws(Failure) -> stat {
        let (temporary, status) = try writeTemporary(bytes)
        try rename(temporary)
        return status
    }

    /// False, and nothing changed, if there is a file.
    func create(with bytes: RawSpan) throws(Failure) -> Bool {
        let (temporary, _) = try writeTemporary(bytes)
        if unsafe link(temporary, path) == 0 {
            unsafe unlink(temporary)
            syncDirectory()
            return true
        }
        if errno == EEXIST {
            unsafe unlink(temporary)
            return false
        }
        // Not every file system has links.
        try rename(temporary)
        return true
    }

    /// Deletes the file, if it is there.
    func remove() throws(Failure) {
        guard unsafe unlink(path) != 0 else { return syncDirectory() }
        guard errno == ENOENT else { throw Failure(number: errno) }
    }

    var directory: String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    private func rename(_ temporary: String) throws(Failure) {
        guard unsafe Glibc.rename(temporary, path) == 0 else {
            let reason = errno
            unsafe unlink(temporary)
            throw Failure(number: reason)
        }
        syncDirectory()
    }

    /// A name is safe only when the directory is. Some file systems cannot do that; the file is there anyway.
    private func syncDirectory() {
        let descriptor = unsafe open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { return }
        fsync(descriptor)
        close(descriptor)
    }

    /// The bytes, safely on the disk, under another name in the same directory.
    private func writeTemporary(_ bytes: RawSpan) throws(Failure) -> (path: String, status: stat) {
        let (temporary, descriptor) = try createTemporary()
        var status = stat()
        do throws(Failure) {
            defer { close(descriptor) }
            try write(bytes, to: descriptor)
            guard fsync(descriptor) == 0, unsafe fstat(descriptor, &status) == 0 else { throw Failure(number: errno) }
        } catch {
            unsafe unlink(temporary)
            throw error
        }
        return (temporary, status)
    }

    /// A new file that only its owner may read.
    private func createTemporary() throws(Failure) -> (path: String, descriptor: Int32) {
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<16 {
            let temporary = path + "." + String(generator.next(), radix: 16)
            let descriptor = unsafe open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
            if descriptor >= 0 { return (temporary, descriptor) }
            guard errno == EEXIST else { throw Failure(number: errno) }
        }
        throw Failure(number: EEXIST)
    }

    private func write(_ bytes: RawSpan, to descriptor: Int32) throws(Failure) {
        var offset = 0
        while offset < bytes.byteCount {
            let result = unsafe bytes.withUnsafeBytes { buffer in
                unsafe Glibc.write(descriptor, buffer.baseAddress.map { unsafe $0 + offset }, buffer.count - offset)
            }
            if result < 0, errno == EINTR { continue }
            guard result > 0 else { throw Failure(number: result == 0 ? ENOSPC : errno) }
            offset += result
        }
    }
}
