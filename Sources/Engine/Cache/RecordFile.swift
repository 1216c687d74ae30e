import Glibc
import Storage

/// Why a file of what is kept could not be read or written. It is never more than a warning.
enum RecordFileError: Error, Hashable, Sendable {
    case directoryMissing
    case unreadable(errno: Int32)
    case unwritable(errno: Int32)
    case diskFull
    /// A directory, a device or the like.
    case notAFile
    /// It belongs to another user, or others may read or change it.
    case foreign
    case tooLarge
    case malformed
    /// Another process has kept the lock for too long.
    case locked
}

extension RecordFileError: CustomStringConvertible {
    var description: String {
        switch self {
        case .directoryMissing: "its directory is missing"
        case .unreadable(let number): "it cannot be read: \(String(systemError: number))"
        case .unwritable(let number): "it cannot be written: \(String(systemError: number))"
        case .diskFull: "the disk is full"
        case .notAFile: "it is not a regular file"
        case .foreign: "it is not this user's alone"
        case .tooLarge: "it is too large"
        case .malformed: "it is not JSON of the expected shape"
        case .locked: "another process has locked it"
        }
    }
}

/// A small file that several processes read and replace.
struct RecordFile: Sendable {
    let path: String

    static let maximumBytes = 1 << 20
    /// In steps of ten milliseconds.
    private static let lockPatience = 200

    /// Tells one version of the file from another.
    struct Stamp: Equatable, Sendable {
        var inode: UInt64 = 0
        var size: Int64 = 0
        var seconds: Int64 = 0
        var nanoseconds: Int64 = 0
    }

    /// Nil if there is no file.
    func stamp() -> Stamp? {
        var status = stat()
        return unsafe stat(path, &status) == 0 ? Stamp(status) : nil
    }

    /// The bytes; nil if there is no file.
    func read() throws(RecordFileError) -> (bytes: [UInt8], stamp: Stamp)? {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
        guard descriptor >= 0 else {
            guard errno != ENOENT && errno != ENOTDIR else { return nil }
            throw .unreadable(errno: errno)
        }
        defer { close(descriptor) }
        return try read(descriptor)
    }

    private func read(_ descriptor: Int32) throws(RecordFileError) -> (bytes: [UInt8], stamp: Stamp) {
        var status = stat()
        guard unsafe fstat(descriptor, &status) == 0 else { throw .unreadable(errno: errno) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw .notAFile }
        guard status.st_uid == geteuid(), status.st_mode & (S_IRWXG | S_IRWXO) == 0 else { throw .foreign }
        guard status.st_size <= RecordFile.maximumBytes else { throw .tooLarge }
        var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
        var count = 0
        while count < bytes.count {
            let (offset, room) = (count, bytes.count - count)
            let result = unsafe bytes.withUnsafeMutableBytes { buffer in
                unsafe pread(descriptor, buffer.baseAddress.map { unsafe $0 + offset }, room, off_t(offset))
            }
            if result < 0, errno == EINTR { continue }
            guard result >= 0 else { throw .unreadable(errno: errno) }
            guard result > 0 else { break }
            count += result
        }
        bytes.removeLast(bytes.count - count)
        return (bytes, Stamp(status))
    }

    /// Replaces the file by what `merge` makes of its contents (an error: of why they cannot be used), while no other
    /// process does the same. Readers and crashes see the old contents or the new, never a part.
    func update(
        _ merge: (Result<[UInt8], RecordFileError>) throws(RecordFileError) -> [UInt8]
    ) throws(RecordFileError) -> Stamp {
        let locked = try lock()
        defer { close(locked) }
        let old: Result<[UInt8], RecordFileError>
        do throws(RecordFileError) {
            old = .success(try read(locked).bytes)
        } catch {
            // A file of this user's that cannot be used is replaced; somebody else's is left alone.
            if error == .notAFile || !isOwn(locked) { throw error }
            old = .failure(error)
        }
        return try replace(with: try merge(old))
    }

    private func isOwn(_ descriptor: Int32) -> Bool {
        var status = stat()
        return unsafe fstat(descriptor, &status) == 0 && status.st_uid == geteuid()
    }

    /// The file itself is the lock. Whoever gets it after the file was replaced has locked what nobody sees any more, and
    /// tries again.
    private func lock() throws(RecordFileError) -> Int32 {
        var isWaiting = 0
        while isWaiting < RecordFile.lockPatience {
            let descriptor = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0o600)
            guard descriptor >= 0 else { throw writeError(errno) }
            let isLocked = flock(descriptor, LOCK_EX | LOCK_NB) == 0
            // On file systems without locks the last writer wins.
            if isLocked || (errno != EWOULDBLOCK && errno != EINTR) {
                var (mine, there) = (stat(), stat())
                if unsafe fstat(descriptor, &mine) == 0, unsafe stat(path, &there) == 0, mine.st_ino == there.st_ino,
                    mine.st_dev == there.st_dev
                {
                    return descriptor
                }
                close(descriptor)
            } else {
                close(descriptor)
                usleep(10_000)
            }
            isWaiting += 1
        }
        throw .locked
    }

    private func replace(with bytes: [UInt8]) throws(RecordFileError) -> Stamp {
        do throws(AtomicFile.Failure) {
            return Stamp(try AtomicFile(path: path).replace(with: bytes.span.bytes))
        } catch {
            throw writeError(error.number)
        }
    }

    private func writeError(_ number: Int32) -> RecordFileError {
        switch number {
        case ENOENT, ENOTDIR: .directoryMissing
        case ENOSPC, EDQUOT, EFBIG: .diskFull
        case EISDIR, ENXIO: .notAFile
        default: .unwritable(errno: number)
        }
    }
}

extension RecordFile.Stamp {
    init(_ status: stat) {
        self.init(
            inode: UInt64(status.st_ino), size: Int64(status.st_size), seconds: Int64(status.st_mtim.tv_sec),
            nanoseconds: Int64(status.st_mtim.tv_nsec))
    }
}
