/// The named timers of one protocol: `nextTimeout` is their minimum, and `expired` takes those that
/// are due one at a time.
public struct TimerTable<Name: CaseIterable & RawRepresentable & Sendable>: Sendable where Name.RawValue == Int {
    private var deadlines: [Instant]

    /// The raw values of `Name` must count up from zero, as those of an `enum Name: Int` do.
    public init() {
        deadlines = Array(repeating: .distantFuture, count: Name.allCases.count)
    }

    public subscript(_ name: Name) -> Instant? {
        get {
            guard deadlines.indices.contains(name.rawValue), deadlines[name.rawValue] != .distantFuture else {
                return nil
            }
            return deadlines[name.rawValue]
        }
        set {
            guard deadlines.indices.contains(name.rawValue) else { return }
            deadlines[name.rawValue] = newValue ?? .distantFuture
        }
    }

    public func isSet(_ name: Name) -> Bool { self[name] != nil }

    /// When the next timer is due; nil if none is set.
    public var nextTimeout: Instant? {
        var earliest = Instant.distantFuture
        for deadline in deadlines where deadline < earliest { earliest = deadline }
        return earliest == .distantFuture ? nil : earliest
    }

    /// Takes one timer that is due at `now`, the earliest first, and unsets it.
    public mutating func expired(at now: Instant) -> Name? {
        var earliest: Int?
        for index in deadlines.indices where deadlines[index] <= now && deadlines[index] != .distantFuture {
            if earliest.map({ deadlines[index] < deadlines[$0] }) ?? true { earliest = index }
        }
        guard let earliest else { return nil }
        deadlines[earliest] = .distantFuture
        return Name(rawValue: earliest)
    }

    public mutating func removeAll() {
        for index in deadlines.indices { deadlines[index] = .distantFuture }
    }
}
