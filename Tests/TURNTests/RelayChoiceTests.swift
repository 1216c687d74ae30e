import TURN
import Testing
import Wire

@Suite struct Choosing {
    private let now = Instant(nanoseconds: 1_000_000_000)

    private func choice(_ names: String...) -> RelayChoice<String> {
        var choice = RelayChoice<String>()
        choice.setServers(names.map { ($0, .zero) })
        return choice
    }

    @Test func theHostsOrderHoldsUntilSomethingIsMeasured() {
        #expect(choice("a", "b", "c").order(now: now) == ["a", "b", "c"])
        #expect(choice("a", "b", "a").servers == ["a", "b"])
        #expect(choice().order(now: now).isEmpty && choice().next(excluding: [], now: now) == nil)
        #expect(choice().race(3, now: now).isEmpty)
    }

    @Test func fasterServersComeFirst() {
        var choice = choice("a", "b", "c")
        choice.succeeded("a", roundTrip: .milliseconds(200))
        choice.succeeded("b", roundTrip: .milliseconds(20))
        #expect(choice.order(now: now) == ["b", "c", "a"])
        for _ in 0..<6 { choice.measured("b", roundTrip: .milliseconds(500)) }
        #expect(choice.order(now: now) == ["c", "a", "b"])
        choice.networkChanged()
        #expect(choice.order(now: now) == ["a", "b", "c"])
    }

    @Test func aRetryTakesAnotherServer() {
        var choice = choice("a", "b")
        choice.failed("a", .timeout, now: now)
        #expect(choice.order(now: now) == ["b", "a"])
        #expect(choice.next(excluding: ["b"], now: now) == "a")
        #expect(choice.next(excluding: ["a", "b"], now: now) == nil)
        // Its time has come, but not its trust.
        #expect(choice.order(now: now + .seconds(31)) == ["b", "a"])
        choice.failed("b", .quotaReached, now: now)
        #expect(choice.order(now: now + .seconds(31)) == ["a", "b"])
        choice.succeeded("b", roundTrip: nil)
        #expect(choice.order(now: now + .seconds(31)) == ["b", "a"])
    }

    @Test func whoFailsOftenWaitsLonger() {
        var choice = choice("a", "b")
        for _ in 0..<100 { choice.failed("a", .timeout, now: now) }
        choice.failed("b", .timeout, now: now + .seconds(560))
        #expect(choice.order(now: now + .seconds(580)) == ["b", "a"])
        #expect(choice.order(now: now + .seconds(599)) == ["b", "a"])
        #expect(choice.score("a")! > choice.score("b")! && choice.score("c") == nil)
    }

    @Test func otherCredentialsMakeAServerGoodAgain() {
        var choice = choice("a", "b")
        choice.failed("a", .wrongCredentials, now: now)
        #expect(choice.order(now: now + .seconds(599)) == ["b", "a"])
        choice.forgive("a")
        #expect(choice.order(now: now) == ["a", "b"])
    }

    @Test func slowerKindsComeLater() {
        var choice = RelayChoice<String>()
        choice.setServers([("tls", .milliseconds(60)), ("tcp", .milliseconds(30)), ("udp", .zero)])
        #expect(choice.order(now: now) == ["udp", "tcp", "tls"])
        choice.failed("udp", .timeout, now: now)
        #expect(choice.race(5, now: now).map(\.server) == ["tcp", "tls"])
        #expect(choice.race(5, now: now).map(\.after) == [.zero, .milliseconds(50)])
        choice.failed("tcp", .timeout, now: now)
        choice.failed("tls", .wrongCredentials, now: now)
        // Nobody else is there.
        #expect(choice.race(5, now: now).map(\.server) == ["udp"] || choice.race(5, now: now).map(\.server) == ["tcp"])
    }

    @Test func serversThatStayKeepWhatIsKnown() {
        var choice = choice("a", "b")
        choice.succeeded("a", roundTrip: .milliseconds(500))
        choice.setServers([("c", .zero), ("a", .zero)])
        #expect(choice.order(now: now) == ["c", "a"])
        choice.setServers((0..<100).map { ("\($0)", .zero) })
        #expect(choice.servers.count == 32)
    }

    @Test func pausesMayBeTheCallers() {
        var choice = choice("a", "b")
        for seconds in [1, 2, 4, 5, 5] as [Int64] {
            choice.failed("a", pause: .seconds(1), limit: .seconds(5), now: now)
            #expect(choice.pausedUntil("a", now: now) == now + .seconds(seconds))
        }
        #expect(choice.pausedUntil("a", now: now + .seconds(5)) == nil && choice.pausedUntil("b", now: now) == nil)
        choice.failed("b", pause: .zero, limit: .seconds(5), now: now)
        #expect(choice.pausedUntil("b", now: now) == nil && choice.pausedUntil("c", now: now) == nil)
        #expect(choice.roundTrip("a") == nil)
        choice.succeeded("a", roundTrip: .milliseconds(7))
        #expect(choice.roundTrip("a") == .milliseconds(7) && choice.pausedUntil("a", now: now) == nil)
    }
}
