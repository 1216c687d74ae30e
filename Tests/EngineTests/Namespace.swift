import Foundation

@_silgen_name("unshare")
private func unshare(_ flags: CInt) -> CInt
@_silgen_name("prctl")
private func prctl(_ option: CInt, _ first: UInt, _ second: UInt, _ third: UInt, _ fourth: UInt) -> CInt
@_silgen_name("gettid")
private func gettid() -> CInt

/// A thread with a network namespace of its own, which ends with it; sockets that are made there stay in it. Only root
/// has them.
final class Namespace: @unchecked Sendable {
    static let isPossible = geteuid() == 0 && access("/usr/sbin/ip", X_OK) == 0 && (try? Namespace.run { true }) == true
    static let canTranslate = isPossible && access("/usr/sbin/nft", X_OK) == 0

    private let lock = NSCondition()
    private var jobs: [() -> Void] = []
    private var isClosed = false
    /// By which ip(8) knows it.
    private(set) var thread: CInt = 0

    init() throws {
        let thread = Thread { [self] in work() }
        thread.start()
        self.thread = try run {
            // CLONE_NEWNET of unshare(2): this thread only.
            guard unshare(0x4000_0000) == 0 else { throw Missing(description: "no namespace: \(errno)") }
            return gettid()
        }
    }

    /// For one closure.
    static func run<Result: Sendable>(_ body: @escaping () throws -> Result) throws -> Result {
        let namespace = try Namespace()
        defer { namespace.close() }
        return try namespace.run(body)
    }

    /// Runs the closure there and waits for it.
    func run<Result>(_ body: @escaping () throws -> Result) throws -> Result {
        var result: Swift.Result<Result, any Error>?
        let done = DispatchSemaphore(value: 0)
        lock.withLock {
            jobs.append {
                result = Swift.Result { try body() }
                done.signal()
            }
            lock.signal()
        }
        done.wait()
        return try result!.get()
    }

    func close() {
        lock.withLock {
            isClosed = true
            lock.signal()
        }
    }

    private func work() {
        while true {
            let job: (() -> Void)? = lock.withLock {
                while jobs.isEmpty, !isClosed { lock.wait() }
                return jobs.isEmpty ? nil : jobs.removeFirst()
            }
            guard let job else { return }
            job()
        }
    }

    /// Commands of ip(8), in this thread's namespace.
    static func ip(_ commands: String...) throws { try ip(commands) }

    static func ip(_ commands: [String]) throws {
        try feed(commands.joined(separator: "\n"), to: "/usr/sbin/ip -batch -")
    }

    /// Commands of nft(8), likewise.
    static func nft(_ commands: String) throws { try feed(commands, to: "/usr/sbin/nft -f -") }

    /// Writes a setting under net/ of /proc/sys, likewise.
    static func set(_ name: String, _ value: Int) throws {
        guard let file = fopen("/proc/sys/net/\(name)", "w") else { throw Missing(description: "cannot set \(name)") }
        fputs("\(value)", file)
        guard fclose(file) == 0 else { throw Missing(description: "cannot set \(name)") }
    }

    private static func feed(_ text: String, to command: String) throws {
        // A child has the namespace of the thread that makes it.
        guard let pipe = popen(command, "w") else { throw Missing(description: "no pipe to \(command)") }
        fputs(text + "\n", pipe)
        let status = pclose(pipe)
        guard status == 0 else { throw Missing(description: "\(command): status \(status) for \(text.prefix(200))") }
    }
}

/// System calls that a thread gives up, as in a sandbox.
enum Sandbox {
    private struct Rule {
        var code: UInt16
        var ifTrue: UInt8 = 0
        var ifFalse: UInt8 = 0
        var value: UInt32
    }

    private struct Program {
        var count: UInt16
        var rules: UnsafePointer<Rule>
    }

    /// From here on this thread gets no socket of AF_NETLINK. False where that cannot be done.
    static func withoutNetlink() -> Bool {
        #if arch(x86_64)
            let socket: UInt32 = 41
        #else
            let socket: UInt32 = 198
        #endif
        // bpf(2) over struct seccomp_data: the call's number is at 0, its first argument at 16.
        let rules = [
            Rule(code: 0x20, value: 0), Rule(code: 0x15, ifFalse: 3, value: socket), Rule(code: 0x20, value: 16),
            Rule(code: 0x15, ifFalse: 1, value: 16), Rule(code: 0x06, value: 0x0005_0000 | UInt32(EAFNOSUPPORT)),
            Rule(code: 0x06, value: 0x7FFF_0000),
        ]
        return rules.withUnsafeBufferPointer { buffer in
            var program = Program(count: UInt16(buffer.count), rules: buffer.baseAddress!)
            return withUnsafePointer(to: &program) { pointer in
                // PR_SET_NO_NEW_PRIVS, then PR_SET_SECCOMP with SECCOMP_MODE_FILTER.
                prctl(38, 1, 0, 0, 0) == 0 && prctl(22, 2, UInt(bitPattern: pointer), 0, 0) == 0
            }
        }
    }
}
