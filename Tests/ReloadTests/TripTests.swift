import Testing
import Wire

@testable import Reload

/// A trip and its clock, in seconds.
private struct Bench {
    var trip: Trip
    var now = 0.0
    var changes: [Trip.Change] = []

    init(_ change: (inout Trip.Configuration) -> Void = { _ in }) {
        var configuration = Trip.Configuration()
        change(&configuration)
        trip = Trip(configuration: configuration)
    }

    enum Outcome {
        case good
        case bad
        case shaky
    }

    /// One outcome now.
    mutating func add(_ outcome: Outcome, _ count: Int = 1) {
        for _ in 0..<count {
            trip.attempt(.at(now))
            switch outcome {
            case .good: trip.succeeded(.at(now))
            case .bad: trip.failed(.at(now))
            case .shaky:
                trip.succeeded(.at(now))
                trip.unstable(.at(now))
            }
        }
        poll()
    }

    /// Time passes; the timer is served when it is due.
    mutating func pass(_ seconds: Double) {
        let end = now + seconds
        var served = 0
        while let due = trip.nextTimeout, due <= .at(end) {
            now = max(now, Double(due.nanoseconds) / 1e9)
            trip.handleTimeout(due)
            poll()
            served += 1
            guard served < 100 else {
                Issue.record("the timer never rests")
                now = end
                return
            }
        }
        now = end
    }

    private mutating func poll() {
        if let change = trip.pollChange() { changes.append(change) }
        #expect(trip.pollChange() == nil)
    }

    /// Switched off by the trip at the moment?
    var pause: Double? {
        guard case .tripped(let until) = trip.state else { return nil }
        return (until - .at(now)).seconds
    }

    /// Trips an armed one.
    mutating func breakDown() {
        add(.bad, 20)
        #expect(pause != nil)
    }
}

@Suite struct TripWhenArmed {
    @Test func beginsArmed() {
        let bench = Bench()
        #expect(bench.trip.state == .armed)
        #expect(bench.trip.isOn)
        #expect(bench.trip.nextTimeout == nil)
    }

    /// Above 30 %, not at 30 %.
    @Test func tripsAboveTheFailureShare() {
        var bench = Bench()
        bench.add(.good, 14)
        bench.add(.bad, 6)
        #expect(bench.trip.state == .armed)
        bench.add(.bad)
        #expect(bench.pause == 60)
        #expect(!bench.trip.isOn)
        #expect(bench.changes == [.tripped("7 of 21 fast connects failed within 60 s")])
        #expect(bench.trip.trips == 1)
    }

    @Test func doesNotJudgeBeforeTheMinimum() {
        var bench = Bench()
        bench.add(.bad, 19)
        #expect(bench.trip.state == .armed)
        bench.add(.good)
        #expect(bench.pause == 60)
    }

    @Test func tripsAboveTheUnstableShare() {
        var bench = Bench()
        bench.add(.good, 16)
        bench.add(.shaky, 4)
        #expect(bench.trip.state == .armed)
        bench.trip.unstable(.at(0))
        bench.add(.good, 0)
        #expect(bench.changes == [.tripped("5 of 20 fast connections were unstable within 60 s")])
    }

    @Test func slidesItsWindow() {
        var bench = Bench()
        // One failure every 4 s: never more than 16 in a window, and never the minimum.
        for _ in 0..<500 {
            bench.add(.bad)
            bench.pass(4)
        }
        #expect(bench.trip.state == .armed)
        // Old failures do not count.
        bench.pass(60)
        bench.add(.bad, 6)
        bench.add(.good, 14)
        #expect(bench.trip.state == .armed)
        // Nor old successes for new failures.
        bench.pass(61)
        bench.add(.good, 100)
        bench.pass(61)
        bench.add(.bad, 20)
        #expect(bench.pause != nil)
    }

    /// What is counted stays for at least eleven twelfths of the window and at most for all of it.
    @Test func keepsOutcomesForTheWindow() {
        for offset in stride(from: 0.0, to: 5, by: 0.5) {
            var bench = Bench()
            bench.pass(offset)
            bench.add(.bad, 19)
            bench.pass(54.9)
            bench.add(.bad)
            #expect(bench.pause != nil, "offset \(offset)")
            bench = Bench()
            bench.pass(offset)
            bench.add(.bad, 19)
            bench.pass(60)
            bench.add(.bad)
            #expect(bench.pause == nil, "offset \(offset)")
        }
    }

    @Test func countsNoAttemptWithoutAnOutcome() {
        var bench = Bench()
        bench.add(.bad, 10)
        for _ in 0..<1000 { bench.trip.attempt(.at(0)) }
        bench.add(.good, 5)
        #expect(bench.trip.state == .armed)
        bench.add(.good, 5)
        #expect(bench.pause != nil)
    }

    /// A connection can become unstable when its success is out of the window: alone that says nothing.
    @Test func takesNoInstabilityWithoutSuccesses() {
        var bench = Bench { $0.window = .seconds(5) }
        bench.add(.good, 3)
        bench.pass(9)
        for _ in 0..<100 { bench.trip.unstable(.at(bench.now)) }
        #expect(bench.trip.state == .armed)
    }

    @Test func staysArmedIfDisabled() {
        var bench = Bench { $0.isEnabled = false }
        bench.add(.bad, 1000)
        bench.add(.shaky, 1000)
        #expect(bench.trip.state == .armed)
        #expect(bench.changes.isEmpty)
        #expect(bench.trip.nextTimeout == nil)
    }

    @Test func takesHundredPercentForNever() {
        var bench = Bench {
            $0.failurePercent = 100
            $0.unstablePercent = 100
        }
        bench.add(.bad, 100)
        bench.pass(100)
        bench.add(.shaky, 100)
        #expect(bench.trip.state == .armed)
    }
}

@Suite struct TripWhenTripped {
    @Test func goesOnAgainByItself() {
        var bench = Bench()
        bench.breakDown()
        #expect(bench.trip.nextTimeout == .at(60))
        bench.pass(59.9)
        #expect(!bench.trip.isOn)
        bench.pass(0.1)
        #expect(bench.trip.state == .probing)
        #expect(bench.trip.isOn)
        #expect(bench.changes.last == .rearmed)
    }

    /// A host that polls late is no worse off.
    @Test func goesOnAgainWithTheNextAttempt() {
        var bench = Bench()
        bench.breakDown()
        bench.now = 100
        bench.add(.good)
        #expect(bench.trip.state == .probing)
        #expect(bench.changes.last == .rearmed)
    }

    @Test func takesNoOutcomesOfWhatWasUnderWay() {
        var bench = Bench()
        bench.breakDown()
        bench.add(.bad, 100)
        bench.add(.shaky, 100)
        #expect(bench.pause == 60)
        #expect(bench.trip.trips == 1)
        bench.pass(60)
        bench.add(.bad, 6)
        #expect(bench.trip.state == .probing)
    }

    @Test func pausesTwiceAsLongEachTimeUpToSixteenfold() {
        var bench = Bench()
        var pauses: [Double] = []
        for _ in 0..<8 {
            bench.add(.bad, 20)
            pauses.append(bench.pause ?? 0)
            bench.pass(bench.pause ?? 0)
        }
        #expect(pauses == [60, 120, 240, 480, 960, 960, 960, 960])
        #expect(bench.trip.trips == 8)
    }

    @Test func isArmedByTheHost() {
        var bench = Bench()
        for _ in 0..<3 {
            bench.breakDown()
            bench.pass(bench.pause ?? 0)
        }
        bench.add(.bad, 20)
        bench.trip.reset(.at(bench.now))
        #expect(bench.trip.state == .armed)
        #expect(bench.trip.pollChange() == nil)
        bench.breakDown()
        #expect(bench.pause == 60)
    }
}

@Suite struct TripWhenProbing {
    private func probing() -> Bench {
        var bench = Bench()
        bench.breakDown()
        bench.pass(60)
        #expect(bench.trip.state == .probing)
        return bench
    }

    /// With seven failures no thirteen successes bring the share down to 30 % of twenty.
    @Test func tripsAsSoonAsItCannotGoWell() {
        var bench = probing()
        bench.add(.bad, 6)
        #expect(bench.trip.state == .probing)
        bench.add(.bad)
        #expect(bench.pause == 120)
        #expect(bench.changes.last == .tripped("7 of 7 fast connects failed within 60 s"))
    }

    @Test func tripsAsSoonAsTooManyAreUnstable() {
        var bench = probing()
        bench.add(.shaky, 4)
        #expect(bench.trip.state == .probing)
        bench.add(.shaky)
        #expect(bench.pause == 120)
    }

    /// Below half of 30 %: 2 of 20, not 3.
    @Test func isArmedBelowHalfOfTheFailureShare() {
        var bench = probing()
        bench.add(.bad, 3)
        bench.add(.good, 17)
        #expect(bench.trip.state == .probing)
        bench.add(.good)
        #expect(bench.trip.state == .armed)
        bench = probing()
        bench.add(.bad, 2)
        bench.add(.good, 17)
        #expect(bench.trip.state == .probing)
        bench.add(.good)
        #expect(bench.trip.state == .armed)
    }

    /// Below half of 20 %: 1 of 20, not 2.
    @Test func isArmedBelowHalfOfTheUnstableShare() {
        var bench = probing()
        bench.add(.shaky, 2)
        bench.add(.good, 18)
        #expect(bench.trip.state == .probing)
        bench.add(.good)
        #expect(bench.trip.state == .armed)
    }

    @Test func isArmedAfterAWindowWithFewAttempts() {
        var bench = probing()
        bench.add(.good, 3)
        bench.pass(59)
        #expect(bench.trip.state == .probing)
        bench.pass(1)
        #expect(bench.trip.state == .armed)
        bench = probing()
        bench.pass(60)
        #expect(bench.trip.state == .armed)
    }

    /// A window is not enough while the few attempts in it go wrong; when they are out of it, it is.
    @Test func staysProbingWhileTheShareIsBetween() {
        var bench = probing()
        bench.pass(30)
        bench.add(.bad)
        bench.add(.good)
        bench.pass(50)
        #expect(bench.trip.state == .probing)
        bench.pass(15)
        #expect(bench.trip.state == .armed)
    }

    @Test func forgetsThePausesAfterACalmWindow() {
        var bench = probing()
        bench.add(.good, 20)
        #expect(bench.trip.state == .armed)
        // Not calm yet: the next pause is the doubled one.
        bench.pass(59)
        bench.add(.bad, 20)
        #expect(bench.pause == 120)
        bench.pass(120)
        bench.add(.good, 20)
        bench.pass(60)
        #expect(bench.trip.nextTimeout == nil)
        bench.add(.bad, 20)
        #expect(bench.pause == 60)
    }

    @Test func isNoChangeForTheHostWhenItEndsWell() {
        var bench = probing()
        let before = bench.changes
        bench.add(.good, 20)
        bench.pass(120)
        #expect(bench.changes == before)
    }
}

@Suite struct TripHysteresis {
    /// Steady traffic for a day, an attempt a second; how often it tripped and the part of the time it was on.
    private func day(failing percent: Int, seed: UInt64) -> (trips: Int, on: Double) {
        var bench = Bench()
        var random = SeededGenerator(seed: seed)
        var on = 0
        let steps = 86_400
        for _ in 0..<steps {
            if bench.trip.isOn {
                on += 1
                bench.add(Int.random(in: 0..<100, using: &random) < percent ? .bad : .good)
            }
            bench.pass(1)
        }
        return (bench.trip.trips, Double(on) / Double(steps))
    }

    @Test(arguments: [1, 2, 3] as [UInt64]) func leavesAloneWhatWorks(seed: UInt64) {
        for percent in [0, 2, 5] {
            let day = day(failing: percent, seed: seed)
            #expect(day.trips == 0, "\(percent) %, seed \(seed)")
            #expect(day.on == 1, "\(percent) %, seed \(seed)")
        }
    }

    /// At the limit chance alone would make it trip each minute or two of the 1440. Pauses of 16 minutes leave 90, and
    /// a lucky row of twenty that arms it and makes pauses short again, some more.
    @Test(arguments: [1, 2, 3] as [UInt64]) func doesNotFlapAtTheLimit(seed: UInt64) {
        for percent in [28, 30, 32, 35] {
            let day = day(failing: percent, seed: seed)
            #expect(day.trips <= 150, "\(percent) %, seed \(seed): \(day)")
        }
    }

    /// What never works is tried for seconds in a quarter of an hour.
    @Test(arguments: [1, 2, 3] as [UInt64]) func keepsOffWhatIsBroken(seed: UInt64) {
        for percent in [60, 100] {
            let day = day(failing: percent, seed: seed)
            #expect(day.on < 0.02, "\(percent) %, seed \(seed): \(day)")
        }
    }

    /// After the fault is gone it is back within the pause.
    @Test func comesBackWhenTheFaultIsGone() {
        var bench = Bench()
        for _ in 0..<4 {
            bench.add(.bad, 20)
            bench.pass(bench.pause ?? 0)
        }
        bench.add(.good, 20)
        #expect(bench.trip.state == .armed)
        bench.pass(60)
        bench.add(.bad, 20)
        #expect(bench.pause == 60)
    }

    /// Whatever is told to it when: it answers, its timers are in the future, and the state follows its rules.
    @Test func keepsItsRules() {
        for seed in 0..<300 {
            var random = SeededGenerator(seed: UInt64(seed))
            var configuration = Trip.Configuration()
            configuration.window = .milliseconds(Int64.random(in: 1...5000, using: &random))
            configuration.rearmAfter = .milliseconds(Int64.random(in: 0...3000, using: &random))
            configuration.minimumAttempts = Int.random(in: -1...30, using: &random)
            configuration.failurePercent = Int.random(in: 0...100, using: &random)
            configuration.unstablePercent = Int.random(in: 0...100, using: &random)
            var trip = Trip(configuration: configuration)
            var now = Instant(nanoseconds: Int64.random(in: -1_000_000_000_000...1_000_000_000_000, using: &random))
            var wasOn = true
            for _ in 0..<1000 {
                now = now + .microseconds(Int64.random(in: -1000...200_000, using: &random))
                switch Int.random(in: 0..<40, using: &random) {
                case 0: trip.reset(now)
                case 1..<12: trip.failed(now)
                case 12..<24: trip.succeeded(now)
                case 24..<28: trip.unstable(now)
                case 28..<34: trip.attempt(now)
                default:
                    if let due = trip.nextTimeout {
                        now = max(now, due)
                        trip.handleTimeout(now)
                        if let next = trip.nextTimeout { #expect(next > now, "seed \(seed)") }
                    }
                }
                switch trip.pollChange() {
                case .tripped(let sentence):
                    #expect(!trip.isOn && !sentence.isEmpty, "seed \(seed)")
                case .rearmed: #expect(trip.isOn && !wasOn, "seed \(seed)")
                case nil: break
                }
                wasOn = trip.isOn
                if case .tripped(let until) = trip.state { #expect(trip.nextTimeout == until) }
            }
        }
    }

    @Test func survivesAbsurdClocks() {
        var trip = Trip()
        for nanoseconds in [Int64.min, 0, Int64.max, Int64.min, Int64.max - 1, 5] {
            let now = Instant(nanoseconds: nanoseconds)
            for _ in 0..<30 { trip.failed(now) }
            trip.handleTimeout(now)
            _ = trip.nextTimeout
        }
        var configuration = Trip.Configuration()
        configuration.window = .forever
        configuration.rearmAfter = .forever
        configuration.minimumAttempts = .max
        var endless = Trip(configuration: configuration)
        for _ in 0..<30 { endless.failed(.at(1)) }
        #expect(endless.state == .armed)
    }
}
