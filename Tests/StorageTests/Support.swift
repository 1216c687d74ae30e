import Foundation
import Glibc
import Testing
import Wire

@testable import Storage

typealias Span = Wire.Duration

/// Something that did not come within a limit that is far beyond what it takes.
struct Overdue: Error, CustomStringConvertible {
    let what: String
    var description: String { "overdue: \(what)" }
}

let patience: TimeInterval = 30

/// What other threads report, to be waited for.
final class Journal<Element: Sendable>: @unchecked Sendable {
    private let condition = NSCondition()
    private var entries: [Element] = []

    func append(_ entry: Element) {
        condition.lock()
        entries.append(entry)
        condition.broadcast()
        condition.unlock()
    }

    var all: [Element] {
        condition.lock()
        defer { condition.unlock() }
        return entries
    }

    /// The entries, as soon as they are as wanted.
    @discardableResult
    func wait(_ what: String = "entries", until isEnough: ([Element]) -> Bool) throws -> [Element] {
        let limit = Date(timeIntervalSinceNow: patience)
        condition.lock()
        defer { condition.unlock() }
        while !isEnough(entries) {
            guard condition.wait(until: limit) else { throw Overdue(what: "\(what); so far \(entries.suffix(5))") }
        }
        return entries
    }
}

/// Starts something that answers once, and waits for the answer.
func answer<Value: Sendable>(_ start: (@escaping @Sendable (Value) -> Void) -> Void) throws -> Value {
    let journal = Journal<Value>()
    start { journal.append($0) }
    return try journal.wait("an answer") { !$0.isEmpty }[0]
}

/// A directory of this test's own.
final class Scratch {
    let path: String

    init() throws {
        var template = Array("/tmp/storage-test-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Overdue(what: "a directory") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { path + "/" + name }
}

/// A child process, ended at the latest with this object.
final class Child: @unchecked Sendable {
    private(set) var pid: pid_t = 0

    init(_ name: String, _ arguments: [String]) throws {
        let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin"
        let found = path.split(separator: ":").map { "\($0)/\(name)" }.first { (file: String) in access(file, X_OK) == 0
        }
        guard let program = found else { throw Overdue(what: "\(name), which is not installed and is needed here") }
        var words = ([program] + arguments).map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        for descriptor: Int32 in [0, 1, 2] {
            posix_spawn_file_actions_addopen(&actions, descriptor, "/dev/null", O_RDWR, 0)
        }
        let error = posix_spawn(&pid, program, &actions, nil, &words, environ)
        guard error == 0 else { throw Overdue(what: "\(name): error \(error)") }
    }

    deinit { kill() }

    func kill() {
        guard pid > 0 else { return }
        Glibc.kill(pid, SIGKILL)
        wait()
    }

    @discardableResult
    func wait() -> Int32 {
        guard pid > 0 else { return 0 }
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0, errno == EINTR {}
        pid = 0
        return status
    }

    /// False if it has ended by itself.
    var isRunning: Bool {
        guard pid > 0 else { return false }
        var status: Int32 = 0
        guard waitpid(pid, &status, WNOHANG) != 0 else { return true }
        pid = 0
        return false
    }
}

/// A listening socket on the loopback interface.
final class Listener: @unchecked Sendable {
    let fd: Int32
    let port: UInt16

    init() throws {
        let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | 0o2000000, 0)
        self.fd = fd
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isBound = withUnsafeMutablePointer(to: &name) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { name in
                bind(fd, name, length) == 0 && listen(fd, 16) == 0 && getsockname(fd, name, &length) == 0
            }
        }
        guard isBound else { throw Overdue(what: "a port") }
        port = UInt16(bigEndian: name.sin_port)
    }

    deinit { Glibc.close(fd) }

    /// Answers the connections one after the other, each on the same thread, until there are no more to come.
    func serve(_ handler: @escaping @Sendable (_ number: Int, _ fd: Int32) -> Void) {
        // Holds the listener: its descriptor must not become another one's meanwhile.
        Thread.detachNewThread { [self] in
            for number in 0... {
                let accepted = accept(fd, nil, nil)
                guard accepted >= 0 else { return }
                handler(number, accepted)
                Glibc.close(accepted)
            }
        }
    }

    /// Ends `serve`.
    func stop() { shutdown(fd, Int32(SHUT_RDWR)) }

    static func send(_ text: String, to fd: Int32) {
        let bytes = Array(text.utf8)
        var sent = 0
        while sent < bytes.count {
            let done = bytes.withUnsafeBytes {
                Glibc.send(fd, $0.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL))
            }
            guard done > 0 else { return }
            sent += done
        }
    }

    /// What has come; nil at the end.
    static func receive(from fd: Int32) -> String? {
        var bytes = [UInt8](repeating: 0, count: 65536)
        let count = recv(fd, &bytes, bytes.count, 0)
        return count > 0 ? String(decoding: bytes.prefix(count), as: UTF8.self) : nil
    }

    /// Waits for the other side to go.
    static func drain(_ fd: Int32) { while receive(from: fd) != nil {} }
}

/// A Redis server of this test's own.
final class RedisServer: @unchecked Sendable {
    let scratch: Scratch
    private(set) var port: UInt16 = 0
    private let arguments: [String]
    private let portOption: String
    private var child: Child?

    init(_ arguments: [String] = [], portOption: String = "--port", scratch: Scratch? = nil) throws {
        self.scratch = try scratch ?? Scratch()
        self.arguments = arguments
        self.portOption = portOption
        port = try Listener().port
        try start()
    }

    func start() throws {
        let none = portOption == "--port" ? [] : ["--port", "0"]
        child = try Child(
            "redis-server",
            [
                portOption, String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir",
                scratch.path,
            ]
                + none + arguments)
    }

    func kill() { child?.kill() }

    func address(_ credentials: String = "") throws -> RedisAddress {
        try RedisAddress(parsing: "redis://\(credentials)127.0.0.1:\(port)")
    }
}

/// A client with what it said about its state.
struct Connected {
    let client: RedisClient
    let states = Journal<RedisState>()

    init(_ address: RedisAddress, _ change: (inout RedisClient.Configuration) -> Void = { _ in }) {
        var configuration = RedisClient.Configuration(address: address)
        configuration.stallTimeout = .seconds(20)
        configuration.silenceTimeout = .seconds(40)
        change(&configuration)
        client = RedisClient(configuration) { [states] in states.append($0) }
    }

    func waitUntilUp() throws { try states.wait("up") { $0.last == .up } }

    @discardableResult
    func waitUntilDown(after count: Int = 0, _ isThis: @escaping (RedisDownReason) -> Bool = { _ in true }) throws
        -> RedisDownReason
    {
        let states = try states.wait("down") { states in
            states.dropFirst(count).contains {
                guard case .down(let reason) = $0 else { return false }
                return isThis(reason)
            }
        }
        for case .down(let reason) in states.dropFirst(count) where isThis(reason) { return reason }
        throw Overdue(what: "down")
    }

    func reply(_ command: RedisArgument..., deadline: Span = .seconds(20)) throws -> Result<RedisReply, RedisFailure> {
        try answer { client.submit(command, deadline: deadline, completion: $0) }
    }
}
