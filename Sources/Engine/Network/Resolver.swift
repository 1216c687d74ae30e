import CSystem
import ICE
import Storage
import Wire

/// Turns names of servers into addresses, each name on a thread of its own that lives as long as the system's resolver
/// takes: the loop never waits, a name that hangs delays no other, and nobody waits for such a thread at the end.
final class Resolver {
    static let interval = Duration.seconds(300)
    /// After a name had no address; doubles up to ``interval``.
    static let firstRetry = Duration.seconds(5)
    private static let addressesPerName = 16

    /// The addresses that the names have, as far as they are known, in the order of the names.
    var servers: [[SocketAddress]] {
        names.map { name in name.addresses.map { SocketAddress(ip: $0, port: name.server.port) } }
    }
    /// Whether this name was looked up, and has no address.
    func hasFailed(_ index: Int) -> Bool {
        names.indices.contains(index) && names[index].addresses.isEmpty && names[index].failures > 0
    }
    /// Readable when there are results; nil if no name needs to be looked up.
    var descriptor: Int32? { mailbox?.descriptor }

    private struct Name {
        let server: ServerAddress
        /// False: an address as it is.
        let needsLookup: Bool
        var addresses: [IPAddress] = []
        var isUnderWay = false
        /// Asked for while it was under way: things may have changed since it began.
        var isWantedAgain = false
        var failures = 0
        var dueAt: Instant?
    }

    private var names: [Name]
    private let mailbox: Mailbox?
    private let lookUp: @Sendable (String) -> [IPAddress]

    /// Begins at once. `lookUp`: for tests; called on other threads.
    init(
        _ servers: [ServerAddress], now: Instant,
        lookUp: @escaping @Sendable (String) -> [IPAddress] = { Resolver.system($0) }
    ) {
        names = servers.prefix(MappedAddresses.maximumServers).map { server in
            let literal = IPAddress(server.host)
            return Name(server: server, needsLookup: literal == nil, addresses: literal.map { [$0] } ?? [])
        }
        self.lookUp = lookUp
        mailbox = names.contains(where: \.needsLookup) ? Mailbox() : nil
        refresh(now: now)
    }

    /// Looks all names up again: the network is another.
    func refresh(now: Instant) {
        for index in names.indices where names[index].needsLookup {
            names[index].failures = 0
            start(index, now)
        }
    }

    var nextTimeout: Instant? {
        var next: Instant?
        for name in names {
            if let due = name.dueAt { next = min(next ?? due, due) }
        }
        return next
    }

    func handleTimeout(now: Instant) {
        for index in names.indices {
            if let due = names[index].dueAt, due <= now { start(index, now) }
        }
    }

    /// Takes what the threads have found. True if ``servers`` is another.
    func readable(now: Instant) -> Bool {
        guard let mailbox else { return false }
        var changed = false
        for result in mailbox.take() where names.indices.contains(result.index) {
            names[result.index].isUnderWay = false
            if names[result.index].isWantedAgain {
                names[result.index].isWantedAgain = false
                start(result.index, now)
            } else {
                schedule(result.index, found: !result.addresses.isEmpty, now)
            }
            // A name server that is away for a moment takes no address away.
            guard !result.addresses.isEmpty, result.addresses != names[result.index].addresses else { continue }
            names[result.index].addresses = result.addresses
            changed = true
        }
        return changed
    }

    private func schedule(_ index: Int, found: Bool, _ now: Instant) {
        names[index].failures = found ? 0 : min(names[index].failures + 1, 16)
        let pause = found ? Resolver.interval : Resolver.firstRetry * (1 << Int64(names[index].failures - 1))
        names[index].dueAt = now + min(pause, Resolver.interval)
    }

    private func start(_ index: Int, _ now: Instant) {
        guard !names[index].isUnderWay else {
            names[index].isWantedAgain = true
            return
        }
        guard let mailbox,
            Lookup(index: index, name: names[index].server.host, mailbox: mailbox, lookUp: lookUp).start()
        else { return schedule(index, found: false, now) }
        names[index].isUnderWay = true
        names[index].dueAt = nil
    }

    static func system(_ name: String) -> [IPAddress] {
        withUnsafeTemporaryAllocation(of: cs_address.self, capacity: addressesPerName) { buffer in
            let count = unsafe cs_resolve(name, buffer.baseAddress, Int32(addressesPerName))
            return unsafe buffer.prefix(max(0, Int(count))).map { IPAddress($0) }
        }
    }
}

/// Where threads leave what they found. Lives until the last of them is done.
private final class Mailbox: Sendable {
    struct Result {
        let index: Int
        let addresses: [IPAddress]
    }

    let descriptor: Int32
    private let results = Guarded<[Result]>([])

    init?() {
        descriptor = cs_eventfd_create()
        guard descriptor >= 0 else { return nil }
    }

    deinit { cs_close(descriptor) }

    func put(_ result: Result) {
        results.withLock { $0.append(result) }
        cs_eventfd_signal(descriptor)
    }

    func take() -> [Result] {
        cs_eventfd_clear(descriptor)
        return results.withLock { results in
            defer { results = [] }
            return results
        }
    }
}

/// One name on its way.
private final class Lookup: Sendable {
    private let index: Int
    private let name: String
    private let mailbox: Mailbox
    private let lookUp: @Sendable (String) -> [IPAddress]

    init(index: Int, name: String, mailbox: Mailbox, lookUp: @escaping @Sendable (String) -> [IPAddress]) {
        self.index = index
        self.name = name
        self.mailbox = mailbox
        self.lookUp = lookUp
    }

    /// False if there is no thread to be had.
    func start() -> Bool {
        guard let worker = Worker({ self.run() }) else { return false }
        worker.detach()
        return true
    }

    private func run() { mailbox.put(Mailbox.Result(index: index, addresses: lookUp(name))) }
}
