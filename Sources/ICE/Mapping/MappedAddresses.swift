import STUN
public import Wire

/// What a port is outside of the NATs in front of it, asked of several STUN servers at once from that very port
/// (RFC 8489 Binding without credentials), and kept open by asking again. One for a shared port, however many agents
/// use it. No I/O: give it datagrams and the time; after each call take ``pollTransmit(into:now:)`` and
/// ``pollEvent()`` until both are nil, and call ``handleTimeout(now:)`` when ``nextTimeout`` has come.
///
/// Every server is on its own: a silent one delays nothing. What counts is what most of them last said; while they
/// disagree, the first that was heard. Bounded: 16 servers with two addresses of each family.
public final class MappedAddresses {
    public struct Configuration: Sendable {
        /// First retransmission; each later one waits twice as long (RFC 8489 section 6.2.1).
        public var retransmission = Duration.milliseconds(250)
        /// Requests of one transaction (Rc of RFC 8489 section 6.2.1).
        public var transmissions = 7
        /// How long an answer to the last one is waited for, in first retransmission times (Rm, likewise).
        public var lastWait: Int64 = 16
        /// Between two transactions with one server, less a jitter of up to a tenth. Zero or less: 25 s.
        public var keepalive = Duration.seconds(25)
        /// Transactions in a row that a server may leave unanswered before what it said no longer counts.
        public var maximumSilences = 3
        /// A server that is silent for longer is asked less and less often, down to this.
        public var maximumPause = Duration.seconds(600)

        public init() {}
    }

    /// One address that the port has outside.
    public struct Mapped: Hashable, Sendable {
        public var address: SocketAddress
        /// The local address that the servers' answers came to; nil if that is not known.
        public var base: SocketAddress?
        /// Servers saw different addresses: the NAT maps by destination (RFC 4787 section 4.1), and others will
        /// probably not get through.
        public var isSymmetric: Bool

        public init(address: SocketAddress, base: SocketAddress? = nil, isSymmetric: Bool = false) {
            self.address = address
            self.base = base
            self.isSymmetric = isSymmetric
        }
    }

    public enum Event: Hashable, Sendable {
        /// ``mapped`` is another.
        case changed
    }

    public static let maximumServers = 32
    private static let addressesPerFamily = 2
    /// A change that one server reports makes the others be asked at once, but not more often than this.
    private static let askingAgain = Duration.seconds(5)

    /// At most one for each address family, IPv6 first. Empty for a family in which the port is the same outside.
    public private(set) var mapped: [Mapped] = []
    /// When ``handleTimeout(now:)`` must be called; nil if nothing is awaited.
    public private(set) var nextTimeout: Instant?
    /// Datagrams that looked like answers and were none to count.
    public private(set) var ignored: UInt64 = 0

    private let configuration: Configuration
    private var random: any RandomNumberGenerator
    private var probes: [Probe] = []
    private var byAddress: [SocketAddress: Int] = [:]
    private var local: Set<IPAddress>?
    private var hasChanged = false
    /// False: surely nothing is to be sent.
    private var hasToSend = false
    private var askedAgainAt = Instant(nanoseconds: .min)

    /// Some server has never answered, and its first answer is still waited for.
    public var isAsking: Bool {
        probes.contains { $0.answer == nil && $0.silences == 0 && $0.transaction != nil }
    }

    /// - Parameter random: must not be guessable: an answer is known by its transaction only.
    public init(_ configuration: Configuration = Configuration(), random: any RandomNumberGenerator) {
        self.configuration = configuration
        self.random = random
    }

    /// The servers to ask, each with all its addresses. Those that were there before stay as they are.
    public func setServers(_ servers: [[SocketAddress]], now: Instant) {
        var seen = Set<SocketAddress>()
        var wanted: [SocketAddress] = []
        for server in servers.prefix(MappedAddresses.maximumServers) {
            for isIPv6 in [true, false] {
                let usable = server.filter { $0.ip.isIPv6 == isIPv6 && $0.isReachable }
                for address in usable.prefix(MappedAddresses.addressesPerFamily) where seen.insert(address).inserted {
                    wanted.append(address)
                }
            }
        }
        guard wanted != probes.map(\.server) else { return }
        probes = wanted.map { address in byAddress[address].map { probes[$0] } ?? Probe(server: address) }
        byAddress = Dictionary(uniqueKeysWithValues: probes.indices.map { (probes[$0].server, $0) })
        for index in probes.indices where probes[index].isNew && isFamilyUsable(probes[index]) { begin(index, now) }
        judge()
    }

    /// All of the machine's addresses, offered or not. What was learned through one that is gone is forgotten at once;
    /// where there is a new one, the servers are asked again.
    public func setLocalAddresses(_ addresses: [IPAddress], now: Instant) {
        let before = local
        let after = Set(addresses)
        local = after
        let gone = before.map { $0.subtracting(after) } ?? []
        let new = before.map { after.subtracting($0) } ?? after
        guard before == nil || !gone.isEmpty || !new.isEmpty else { return }
        for index in probes.indices {
            let isIPv6 = probes[index].server.ip.isIPv6
            let isLost: Bool
            if let base = probes[index].answer?.base {
                isLost = gone.contains(base.ip)
            } else {
                isLost = gone.contains { $0.isIPv6 == isIPv6 }
            }
            if isLost { probes[index].forget() }
            guard isFamilyUsable(probes[index]) else {
                probes[index].stop()
                continue
            }
            let isWaiting = probes[index].transaction == nil
            if isLost || probes[index].isNew || isWaiting && new.contains(where: { $0.isIPv6 == isIPv6 }) {
                begin(index, now)
            }
        }
        judge()
    }

    /// The way out is another: what was learned in these families is forgotten, and asked anew.
    public func networkChanged(ipv4: Bool, ipv6: Bool, now: Instant) {
        for index in probes.indices where probes[index].server.ip.isIPv6 ? ipv6 : ipv4 {
            // Also an answer that is still under way says what was before.
            probes[index].forget()
            if isFamilyUsable(probes[index]) { begin(index, now) }
        }
        judge()
    }

    /// True if the datagram was the answer to one of the requests. `to`: where it arrived; nil or unspecified if that
    /// is not known.
    public func handle(datagram: RawSpan, from: SocketAddress, to: SocketAddress?, now: Instant) -> Bool {
        // Nobody but the one that was asked can answer.
        guard let index = byAddress[from], isMessage(datagram) else { return false }
        guard let message = try? Message(datagram), let transaction = probes[index].transaction,
            message.transactionID == transaction.id, message.method == MessageType.binding
        else {
            ignored &+= 1
            return false
        }
        switch message.messageClass {
        case .success:
            probes[index].transaction = nil
            guard let seen = MappedAddresses.seen(message, by: from) else {
                ignored &+= 1
                fail(index, now)
                break
            }
            let base = to.flatMap { $0.ip.isUnspecified ? nil : $0 }
            note(Probe.Answer(address: seen, base: base, at: now), from: index, now)
        case .error:
            // Neither is 300 (Try Alternate) followed (RFC 8489 section 10): without credentials a server could aim our
            // requests at anyone, and there are others.
            probes[index].transaction = nil
            fail(index, now)
        case .request, .indication:
            ignored &+= 1
            return false
        }
        judge()
        return true
    }

    /// Writes the next request; where to send it, or nil if there is none.
    public func pollTransmit(into output: inout OutputRawSpan, now: Instant) -> SocketAddress? {
        guard hasToSend else { return nil }
        for index in probes.indices {
            guard probes[index].transaction?.isToBeSent == true, let id = probes[index].transaction?.id else {
                continue
            }
            probes[index].transaction?.isToBeSent = false
            var writer = MessageWriter(.request, id: id, to: &output)
            guard writer.finish(nil, fingerprint: false, to: &output) else { return nil }
            return probes[index].server
        }
        hasToSend = false
        return nil
    }

    public func handleTimeout(now: Instant) {
        for index in probes.indices {
            if let transaction = probes[index].transaction {
                guard transaction.deadline <= now else { continue }
                if transaction.transmissions < configuration.transmissions {
                    sendAgain(index, now)
                } else {
                    probes[index].transaction = nil
                    fail(index, now)
                }
            } else if let due = probes[index].nextAt, due <= now {
                begin(index, now)
            }
        }
        judge()
    }

    public func pollEvent() -> Event? {
        guard hasChanged else { return nil }
        hasChanged = false
        return .changed
    }

    // MARK: Asking

    /// A family in which the machine has no address that leads anywhere is not asked in.
    private func isFamilyUsable(_ probe: Probe) -> Bool {
        guard let local else { return true }
        let isIPv6 = probe.server.ip.isIPv6
        return local.contains { ip in
            ip.isIPv6 == isIPv6 && !ip.isLinkLocal && (!ip.isLoopback || probe.server.ip.isLoopback)
        }
    }

    private func begin(_ index: Int, _ now: Instant) {
        probes[index].isNew = false
        probes[index].nextAt = nil
        probes[index].transaction = Probe.Transaction(
            id: TransactionID(using: &random), interval: configuration.retransmission,
            deadline: now + configuration.retransmission)
        if configuration.transmissions <= 1 {
            probes[index].transaction?.deadline = now + configuration.retransmission * configuration.lastWait
        }
    }

    private func sendAgain(_ index: Int, _ now: Instant) {
        guard var transaction = probes[index].transaction else { return }
        transaction.transmissions += 1
        transaction.isToBeSent = true
        transaction.interval = transaction.interval * 2
        // RFC 8489 section 6.2.1: after the last one it is a fixed time.
        let isLast = transaction.transmissions >= configuration.transmissions
        transaction.deadline =
            now + (isLast ? configuration.retransmission * configuration.lastWait : transaction.interval)
        probes[index].transaction = transaction
    }

    /// The transaction brought nothing.
    private func fail(_ index: Int, _ now: Instant) {
        probes[index].silences = min(probes[index].silences + 1, 64)
        let extra = max(0, probes[index].silences - configuration.maximumSilences)
        let pause = min(keepalive * (1 << Int64(min(extra, 10))), max(configuration.maximumPause, keepalive))
        probes[index].nextAt = now + jittered(pause)
    }

    private var keepalive: Duration { configuration.keepalive > .zero ? configuration.keepalive : .seconds(25) }

    private func jittered(_ duration: Duration) -> Duration {
        duration - duration / 1000 * Int64.random(in: 0...100, using: &random)
    }

    // MARK: Judging

    /// The address in the answer, if it can be the port's.
    private static func seen(_ message: borrowing Message, by server: SocketAddress) -> SocketAddress? {
        // RFC 8489 section 6.3.3: attributes that must be understood and are not end the transaction; but for those
        // two that servers of RFC 3489 add (SOURCE-ADDRESS and CHANGED-ADDRESS).
        for index in 0..<message.unknownAttributes.count {
            let type = message.unknownAttributes[index]
            guard type == 0x0004 || type == 0x0005 else { return nil }
        }
        // RFC 8489 section 14.1: the plain one is what old servers have, and what some NATs rewrite.
        guard let address = message.xorMappedAddress ?? message.mappedAddress, address.isReachable,
            !address.ip.isLoopback, !address.ip.isLinkLocal,
            // Through NAT64 a server sees another family; such an address is not this port's in its own.
            address.ip.isIPv6 == server.ip.isIPv6
        else { return nil }
        return address
    }

    private func note(_ answer: Probe.Answer, from index: Int, _ now: Instant) {
        let before = probes[index].answer
        probes[index].silences = 0
        probes[index].nextAt = now + jittered(keepalive)
        if before?.address == answer.address, before?.base == answer.base {
            // When it was first heard stays.
            probes[index].answer?.isCurrent = true
            return
        }
        probes[index].answer = answer
        let isOffered = before.map { before in mapped.contains { $0.address == before.address } } ?? false
        guard isOffered, before?.address != answer.address else { return }
        // The mapping changed: what the others said before no longer counts, and they are asked now.
        let mayAsk = now - askedAgainAt >= MappedAddresses.askingAgain
        if mayAsk { askedAgainAt = now }
        for other in probes.indices
        where other != index && probes[other].server.ip.isIPv6 == probes[index].server.ip.isIPv6 {
            probes[other].answer?.isCurrent = false
            if mayAsk, probes[other].transaction == nil, isFamilyUsable(probes[other]) { begin(other, now) }
        }
    }

    /// Works out ``mapped`` from what the servers said, and what is next.
    private func judge() {
        nextTimeout = nil
        for probe in probes {
            guard let due = probe.transaction?.deadline ?? probe.nextAt else { continue }
            nextTimeout = min(nextTimeout ?? due, due)
            hasToSend = hasToSend || probe.transaction?.isToBeSent == true
        }
        let judged = [true, false].compactMap { judge(isIPv6: $0) }
        guard judged != mapped else { return }
        mapped = judged
        hasChanged = true
    }

    private func judge(isIPv6: Bool) -> Mapped? {
        let answers = probes.compactMap { probe in
            probe.server.ip.isIPv6 == isIPv6 && probe.silences < max(1, configuration.maximumSilences)
                ? probe.answer : nil
        }.filter(\.isCurrent)
        guard let first = answers.min(by: { $0.at < $1.at }) else { return nil }
        var votes: [SocketAddress: Int] = [:]
        for answer in answers { votes[answer.address, default: 0] += 1 }
        let most = votes.values.max() ?? 0
        // Among equals: the one offered already, then the one heard first.
        let offered = mapped.first { $0.address.ip.isIPv6 == isIPv6 && votes[$0.address] == most }?.address
        let heard = answers.filter { votes[$0.address] == most }.min { $0.at < $1.at }
        let address = offered ?? heard?.address ?? first.address
        // The machine itself has that address: it is a host candidate, or left out as one.
        guard local?.contains(address.ip) != true else { return nil }
        let base = answers.filter { $0.address == address }.min { $0.at < $1.at }?.base
        return Mapped(address: address, base: base, isSymmetric: votes.count > 1)
    }
}

/// One address of one server.
private struct Probe {
    struct Transaction {
        var id: TransactionID
        var transmissions = 1
        var interval: Duration
        /// When to send again or, after the last transmission, when to give up.
        var deadline: Instant
        var isToBeSent = true
    }

    struct Answer {
        var address: SocketAddress
        var base: SocketAddress?
        /// When it was first given.
        var at: Instant
        /// False: another server has seen a change since.
        var isCurrent = true
    }

    let server: SocketAddress
    var isNew = true
    var transaction: Transaction?
    /// When the next transaction is to begin.
    var nextAt: Instant?
    /// Transactions without an answer since the last one with.
    var silences = 0
    var answer: Answer?

    init(server: SocketAddress) { self.server = server }

    mutating func forget() {
        answer = nil
        transaction = nil
        silences = 0
    }

    mutating func stop() {
        forget()
        nextAt = nil
        isNew = true
    }
}
