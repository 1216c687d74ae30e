import Wire

/// Who has which name on the local link (RFC 6762), without sockets: each name is asked for once, whoever wants it.
///
/// After each call take ``pollTransmit(into:)`` and ``pollEvent()`` until there is nothing, and keep ``nextTimeout``.
final class MulticastQuestions {
    struct Settings {
        var maximumPending = 64
        var maximumKnown = 256
        var maximumAddresses = 8
        /// When a question is repeated, after it was asked first.
        var repeats: [Duration] = [.seconds(1), .seconds(3)]
        var patience = Duration.seconds(5)
        var longestLifetime = Duration.seconds(60)
        init() {}
    }

    enum Reply: Equatable {
        case known([IPAddress])
        /// An event will tell.
        case asked
        /// Not a name that may be asked for here.
        case refused
        /// Too many names are asked for now.
        case tooMany
    }

    /// What became of a name; no addresses: nobody has it.
    struct Event: Equatable {
        /// In lower case, as ``MulticastMessage/name(_:)`` gives it.
        var name: String
        var addresses: [IPAddress]
    }

    struct Statistics: Equatable {
        var questionsSent: UInt64 = 0
        var resolved: UInt64 = 0
        var failed: UInt64 = 0
        /// Names that were not asked for because of what they are, or how many.
        var refused: UInt64 = 0
        var malformed: UInt64 = 0
        /// Well-formed, and of no use: questions, answers to others, from a wrong port or with a wrong number.
        var ignored: UInt64 = 0
    }

    /// RFC 6762 section 3.
    static let port: UInt16 = 5353

    private struct Pending {
        var id: UInt16
        var askedAt: Instant
        var repeated = 0
        var due: Instant
    }

    private struct Known {
        var addresses: [IPAddress]
        var until: Instant
    }

    private let settings: Settings
    private var random: any RandomNumberGenerator
    private var pending: [String: Pending] = [:]
    private var known: [String: Known] = [:]
    private var outbox = Queue<(name: String, type: MulticastMessage.RecordType)>()
    private var events = Queue<Event>()
    private(set) var statistics = Statistics()

    init(_ settings: Settings = Settings(), random: any RandomNumberGenerator) {
        self.settings = settings
        self.random = random
    }

    /// Nothing is asked for: no socket is needed.
    var isIdle: Bool { pending.isEmpty }

    func ask(_ text: String, now: Instant) -> Reply {
        guard let name = MulticastMessage.name(text) else {
            statistics.refused &+= 1
            return .refused
        }
        if let found = known[name], found.until > now { return .known(found.addresses) }
        if pending[name] != nil { return .asked }
        guard pending.count < settings.maximumPending else {
            statistics.refused &+= 1
            return .tooMany
        }
        let id = UInt16(truncatingIfNeeded: random.next())
        let due = now + (settings.repeats.first ?? settings.patience)
        pending[name] = Pending(id: id, askedAt: now, due: due)
        queue(name)
        return .asked
    }

    private func queue(_ name: String) {
        for type in MulticastMessage.RecordType.allCases { outbox.append((name, type)) }
    }

    /// The next packet for all interfaces, both groups. False: none.
    func pollTransmit(into output: inout OutputRawSpan) -> Bool {
        while let next = outbox.popFirst() {
            guard let question = pending[next.name],
                MulticastMessage.writeQuestion(next.name, next.type, id: question.id, to: &output)
            else { continue }
            statistics.questionsSent &+= 1
            return true
        }
        return false
    }

    func pollEvent() -> Event? { events.popFirst() }

    /// `isToGroup`: it was sent to the multicast group, not to us alone.
    func handle(_ message: RawSpan, from: SocketAddress, isToGroup: Bool, now: Instant) {
        // RFC 6762 section 6: responses from another port must be ignored.
        guard from.port == MulticastQuestions.port else {
            statistics.ignored &+= 1
            return
        }
        switch MulticastMessage.read(message) {
        case .malformed: statistics.malformed &+= 1
        case .other: statistics.ignored &+= 1
        case .response(let id, let records): take(records, isToGroup ? nil : id, now)
        }
    }

    /// `id`: of a response to us alone, which repeats the question's (RFC 6762 section 6.7); others carry none (18.1).
    private func take(_ records: [MulticastMessage.Record], _ id: UInt16?, _ now: Instant) {
        var found: [String: Known] = [:]
        for record in records {
            guard let question = pending[record.name], id == nil || id == question.id, record.lifetime > .zero,
                MulticastQuestions.isUsable(record.address)
            else { continue }
            let until = now + min(record.lifetime, settings.longestLifetime)
            var entry = found[record.name] ?? Known(addresses: [], until: until)
            guard !entry.addresses.contains(record.address), entry.addresses.count < settings.maximumAddresses else {
                continue
            }
            entry.addresses.append(record.address)
            entry.until = min(entry.until, until)
            found[record.name] = entry
        }
        if found.isEmpty { statistics.ignored &+= 1 }
        for (name, entry) in found.sorted(by: { $0.key < $1.key }) {
            pending[name] = nil
            remember(name, entry, now)
            statistics.resolved &+= 1
            events.append(Event(name: name, addresses: entry.addresses))
        }
    }

    private func remember(_ name: String, _ entry: Known, _ now: Instant) {
        if known.count >= settings.maximumKnown {
            known = known.filter { $0.value.until > now }
            if known.count >= settings.maximumKnown, let first = known.min(by: { $0.value.until < $1.value.until }) {
                known[first.key] = nil
            }
        }
        known[name] = entry
    }

    /// A link-local IPv6 address means nothing without its interface, which a candidate cannot name.
    private static func isUsable(_ ip: IPAddress) -> Bool {
        !ip.isUnspecified && !ip.isMulticast && !(ip.isIPv6 && ip.isLinkLocal)
    }

    // MARK: Time

    var nextTimeout: Instant? { pending.values.lazy.map(\.due).min() }

    func handleTimeout(now: Instant) {
        for (name, question) in pending.filter({ $0.value.due <= now }).sorted(by: { $0.key < $1.key }) {
            guard now - question.askedAt < settings.patience else {
                pending[name] = nil
                statistics.failed &+= 1
                events.append(Event(name: name, addresses: []))
                continue
            }
            var next = question
            next.repeated += 1
            let after = next.repeated < settings.repeats.count ? settings.repeats[next.repeated] : settings.patience
            next.due = question.askedAt + after
            pending[name] = next
            queue(name)
        }
    }

    /// The network is another: what was known may be wrong, and what is asked for is asked for again.
    func networkChanged() {
        known = [:]
        for name in pending.keys.sorted() { queue(name) }
    }
}
