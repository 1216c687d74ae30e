import Testing
import Wire

@testable import Peer

@Suite struct RestartSchedules {
    private let start = Instant(nanoseconds: 1_000_000_000)

    private func schedule(attempts: Int = 3) -> RestartSchedule {
        RestartSchedule(
            RestartSchedule.Settings(
                timeout: .seconds(5), attempts: attempts, pause: .milliseconds(250) ... .seconds(3)))
    }

    @Test func beginsAtOnceThenAfterPausesAndGivesUp() {
        for seed in 0..<200 {
            var random = SeededGenerator(seed: UInt64(seed))
            var schedule = schedule()
            var now = start
            #expect(schedule.need(now: now) == .begin)
            for attempt in 1...3 {
                #expect(schedule.attempt == UInt32(attempt))
                // Asked again meanwhile: nothing new.
                #expect(schedule.need(now: now) == nil && schedule.ask(now: now) == nil)
                #expect(schedule.nextTimeout == now + .seconds(5))
                #expect(schedule.handleTimeout(now: now + .milliseconds(4999)) == nil)
                now = now + .seconds(5)
                #expect(schedule.handleTimeout(now: now) == .timedOut)
                let after = schedule.attemptFailed(now: now, using: &random)
                guard attempt < 3 else {
                    #expect(after == .giveUp)
                    break
                }
                #expect(after == nil)
                let due = schedule.nextTimeout ?? .distantFuture
                #expect(due >= now + .milliseconds(250) && due <= now + .seconds(3), "seed \(seed)")
                now = due
                #expect(schedule.handleTimeout(now: now) == .begin)
            }
            #expect(schedule.phase == .exhausted && schedule.nextTimeout == nil && !schedule.isActive)
            #expect(schedule.need(now: now) == nil)
            #expect(schedule.duration(now: now) >= .seconds(15))
            // The host may begin again, and so does a path that came back and is lost again.
            var other = schedule
            #expect(schedule.ask(now: now) == .begin && schedule.attempt == 1)
            other.relieve()
            #expect(other.need(now: now) == .begin && other.attempt == 1)
        }
    }

    @Test func pausesAreSpreadOverTheWholeRange() {
        var random = SeededGenerator(seed: 5)
        var pauses: [Int64] = []
        for _ in 0..<300 {
            var schedule = schedule()
            _ = schedule.need(now: start)
            _ = schedule.attemptFailed(now: start, using: &random)
            pauses.append(((schedule.nextTimeout ?? start) - start).milliseconds)
        }
        #expect((pauses.min() ?? 0) < 300 && (pauses.max() ?? 0) > 2900)
    }

    @Test func waitsForTheNetwork() {
        var random = SeededGenerator(seed: 1)
        var schedule = schedule()
        #expect(schedule.setOnline(false, now: start) == nil)
        #expect(schedule.need(now: start) == .paused)
        #expect(schedule.nextTimeout == nil && schedule.isActive)
        let back = start + .seconds(100)
        #expect(schedule.setOnline(true, now: back) == .begin)
        #expect(schedule.attempt == 1 && schedule.duration(now: back) == .seconds(100))
        // What fails without a network does not count.
        #expect(schedule.setOnline(false, now: back) == nil)
        #expect(schedule.handleTimeout(now: back + .seconds(5)) == .timedOut)
        #expect(schedule.attemptFailed(now: back + .seconds(5), using: &random) == .paused)
        #expect(schedule.setOnline(true, now: back + .seconds(6)) == .begin)
        #expect(schedule.attempt == 1)
        // An attempt that began before the network changed is begun again.
        #expect(schedule.setOnline(false, now: back + .seconds(7)) == nil)
        #expect(schedule.setOnline(true, now: back + .seconds(8)) == .begin)
        // In a pause between attempts too, and after the last one.
        _ = schedule.attemptFailed(now: back + .seconds(9), using: &random)
        #expect(schedule.setOnline(false, now: back + .seconds(9)) == .paused)
        #expect(schedule.setOnline(true, now: back + .seconds(10)) == .begin)
    }

    @Test func anOnlineNetworkIsNoReasonByItself() {
        var schedule = schedule()
        _ = schedule.setOnline(false, now: start)
        #expect(schedule.setOnline(true, now: start) == nil)
        #expect(schedule.phase == .idle)
    }

    @Test func successForgetsWhatFailed() {
        var random = SeededGenerator(seed: 2)
        var schedule = schedule()
        _ = schedule.need(now: start)
        _ = schedule.attemptFailed(now: start, using: &random)
        _ = schedule.handleTimeout(now: start + .seconds(3))
        #expect(schedule.attempt == 2)
        schedule.succeeded()
        #expect(schedule.phase == .idle && schedule.attempt == 0 && !schedule.isNeeded)
    }

    @Test func aPathThatAnswersAgainEndsPausesAndNotAttempts() {
        var random = SeededGenerator(seed: 3)
        var schedule = schedule()
        _ = schedule.need(now: start)
        schedule.relieve()
        #expect(schedule.isUnderway)
        #expect(schedule.attemptFailed(now: start, using: &random) == nil)
        #expect(schedule.phase == .idle)
        _ = schedule.need(now: start)
        _ = schedule.attemptFailed(now: start, using: &random)
        schedule.relieve()
        #expect(schedule.phase == .idle)
        // What the host wants, it gets.
        _ = schedule.ask(now: start)
        schedule.relieve()
        _ = schedule.attemptFailed(now: start, using: &random)
        schedule.relieve()
        #expect(schedule.isActive)
    }

    @Test func theOtherSidesAttemptCounts() {
        var random = SeededGenerator(seed: 4)
        var schedule = schedule(attempts: 2)
        schedule.otherSideBegan(now: start)
        #expect(schedule.isUnderway && schedule.attempt == 1)
        // It fails, and nothing is wrong here: theirs to repeat.
        #expect(schedule.attemptFailed(now: start, using: &random) == nil)
        #expect(schedule.phase == .idle)
        _ = schedule.need(now: start)
        _ = schedule.attemptFailed(now: start, using: &random)
        schedule.otherSideBegan(now: start)
        #expect(schedule.attempt == 2)
        // Theirs met ours: one attempt.
        schedule.otherSideBegan(now: start + .seconds(1))
        #expect(schedule.attempt == 2 && schedule.nextTimeout == start + .seconds(6))
        #expect(schedule.attemptFailed(now: start, using: &random) == .giveUp)
    }

    @Test func noAttemptsMeansNoneByItself() {
        var schedule = schedule(attempts: 0)
        #expect(schedule.need(now: start) == nil)
        #expect(!schedule.isActive)
        #expect(schedule.ask(now: start) == .begin)
    }
}
