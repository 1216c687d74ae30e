public import Signaling
public import Wire

/// Whether an entry may still be used.
public enum CacheValidity: Hashable, Sendable {
    case fresh(age: Duration)
    case stale(age: Duration)
    /// The clock was set back since, or somebody else wrote it.
    case fromTheFuture

    public var isFresh: Bool {
        if case .fresh = self { true } else { false }
    }

    public var age: Duration {
        switch self {
        case .fresh(let age), .stale(let age): age
        case .fromTheFuture: .zero
        }
    }
}

extension CacheEntry {
    /// - Parameter wallClock: Unix time in milliseconds.
    public func validity(wallClock: Int64, maximumAge: Duration) -> CacheValidity {
        guard timestamp <= wallClock else { return .fromTheFuture }
        let (difference, overflow) = wallClock.subtractingReportingOverflow(timestamp)
        let age = overflow ? Duration.forever : .milliseconds(difference)
        return age <= maximumAge ? .fresh(age: age) : .stale(age: age)
    }

    /// All candidates in the order in which they are tried: IPv6 before IPv4, direct before relayed. IPv6 only where the
    /// machine has it; there it comes first even if IPv4 worked last.
    public func injectionOrder(hasIPv6: Bool) -> [CandidateInit] {
        List.allCases.flatMap { list in list.isIPv6 && !hasIPv6 ? [] : self[list] }
    }

    public func count(isIPv6: Bool) -> Int {
        List.allCases.reduce(0) { $1.isIPv6 == isIPv6 ? $0 + self[$1].count : $0 }
    }

    /// Adds a candidate to its list, unless it is there, is of no list, or the list is full.
    public mutating func add(_ candidate: CandidateInit) {
        guard let line = CandidateLine(parsing: candidate.candidate), let list = List(line),
            self[list].count < CacheEntry.maximumCandidates
        else { return }
        let isKnown = self[list].contains { known in
            let other = CandidateLine(parsing: known.candidate)
            return other?.address == line.address && other?.transport == line.transport
                && other?.component == line.component
        }
        if !isKnown { self[list].append(candidate) }
    }

    /// Adds the candidates of any session description, whoever wrote it: only its sections, mids and candidates are looked
    /// at. What is no candidate that can be kept is passed over.
    public mutating func addCandidates(ofSDP text: String) {
        var section: (index: UInt16?, mid: String?, lines: [Substring]) = (nil, nil, [])
        func flush(_ entry: inout CacheEntry) {
            for line in section.lines {
                entry.add(CandidateInit(candidate: String(line), sdpMid: section.mid, sdpMLineIndex: section.index))
            }
        }
        for line in text.utf8.split(whereSeparator: { $0 == 0x0A || $0 == 0x0D }).lazy.map(Substring.init) {
            if line.hasPrefix("m=") {
                flush(&self)
                section = (section.index.map { $0 == .max ? $0 : $0 + 1 } ?? 0, nil, [])
            } else if line.hasPrefix("a=mid:") {
                let mid = line.dropFirst("a=mid:".count)
                if (1...64).contains(mid.utf8.count), mid.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) {
                    section.mid = String(mid)
                }
            } else if line.hasPrefix("a=candidate:"), section.lines.count < 256 {
                section.lines.append(line.dropFirst(2))
            }
        }
        flush(&self)
    }
}
