import Reload
import Testing
import Wire

@testable import Engine

@Suite struct RevocationTests {
    private func client(_ number: Int) -> ClientID { ClientID(UInt64(number)) }
    private func second(_ number: Int) -> Instant { Instant(nanoseconds: Int64(number) * 1_000_000_000) }

    @Test func endWithTheLastTicket() {
        var revoked = Revocations(capacity: 4)
        revoked.insert(client(1), until: second(10), now: second(0))
        #expect(revoked.contains(client(1), now: second(9)) && !revoked.contains(client(2), now: second(9)))
        #expect(!revoked.contains(client(1), now: second(10)))
        revoked.insert(client(2), until: second(20), now: second(10))
        #expect(revoked.count == 1)
    }

    @Test func beginAnewWhenTheyAreRepeated() {
        var revoked = Revocations(capacity: 2)
        revoked.insert(client(1), until: second(10), now: second(0))
        revoked.insert(client(2), until: second(11), now: second(1))
        revoked.insert(client(1), until: second(12), now: second(2))
        #expect(revoked.contains(client(1), now: second(11)) && revoked.count == 2)
        // Now the other one ends first.
        revoked.insert(client(3), until: second(13), now: second(3))
        #expect(!revoked.contains(client(2), now: second(4)) && revoked.contains(client(1), now: second(4)))
    }

    /// A search for the oldest would take hours here.
    @Test func giveUpTheOldestAtTheLimit() {
        let (limit, lifetime) = (100_000, 1_000_000)
        var revoked = Revocations(capacity: limit)
        for number in 0..<(3 * limit) {
            revoked.insert(client(number), until: second(number + lifetime), now: second(number))
        }
        let now = second(3 * limit)
        #expect(revoked.count == limit)
        #expect(!revoked.contains(client(2 * limit - 1), now: now) && revoked.contains(client(2 * limit), now: now))
        // Always the same one: neither more room nor another one's end.
        for turn in 0..<limit {
            revoked.insert(client(3 * limit - 1), until: second(3 * limit + lifetime + turn), now: now)
        }
        #expect(revoked.count == limit && revoked.contains(client(2 * limit), now: now))
        // All others have ended.
        revoked.insert(client(0), until: second(9 * lifetime), now: second(3 * limit + lifetime))
        #expect(revoked.count == 2)
    }
}
