import Synchronization

/// A number that only grows. Counting orders nothing else: these are statistics.
final class Counter: Sendable {
    private let value = Atomic<UInt64>(0)

    func count(_ amount: UInt64 = 1) { value.wrappingAdd(amount, ordering: .relaxed) }

    var reading: UInt64 { value.load(ordering: .relaxed) }
}

/// A number that goes up and down.
final class Gauge: Sendable {
    private let value: Atomic<Int>

    init(_ initial: Int = 0) { value = Atomic(initial) }

    func set(_ new: Int) { value.store(new, ordering: .relaxed) }

    var reading: Int { value.load(ordering: .relaxed) }
}

/// A counter for each value of a label.
final class CounterFamily<Label: MetricLabel>: Sendable {
    private let counters: [Counter] = Label.all.map { _ in Counter() }

    func count(_ label: Label) { self[label].count() }

    subscript(label: Label) -> Counter { counters[label.position] }

    var total: UInt64 { counters.reduce(0) { $0 &+ $1.reading } }
}
