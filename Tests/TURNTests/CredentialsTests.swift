import STUN
import Testing
import Wire

@testable import TURN

@Suite struct Credentials {
    /// The password that draft-uberti-behave-turn-rest's recipe gives; computed with `openssl dgst -sha1 -hmac`.
    @Test func timeLimitedOnesAreMadeAsCoturnWantsThem() {
        let made = RelayCredentials(secret: Array("north".utf8), user: "bob", expiry: 1_700_000_000)
        #expect(made.username == "1700000000:bob")
        #expect(made.password == "7tNSWpJ3gOxGfEgOjt+kaWhBC20=")
        let strong = RelayCredentials(
            secret: Array("north".utf8), user: "", expiry: 1_700_000_000, algorithm: .sha256)
        #expect(strong.username == "1700000000")
        #expect(strong.password == "bPm3umkFB1D/6To/diuRJFJIGuru3Y0PaHdhRgDLads=")
        #expect(RelayCredentials.expiry(ofUsername: made.username) == 1_700_000_000)
        #expect(RelayCredentials.expiry(ofUsername: "1700000000") == 1_700_000_000)
        for name in ["", "bob", "12:bob", "99999999999999999999:bob", "17000000x0:bob"] {
            #expect(RelayCredentials.expiry(ofUsername: name) == nil)
        }
        // An empty secret makes a useless password, and no harm.
        #expect(RelayCredentials(secret: [], user: "bob", expiry: 1).password.utf8.count == 28)
    }

    @Test func staleNoncesAreReplacedAtOnce() {
        let world = World()
        world.server.nonceLife = .seconds(60)
        world.allocate()
        world.permit()
        world.run(for: .seconds(7200))
        #expect(world.failures.isEmpty && world.client.isPermitted(World.peer.ip, now: world.now))
        #expect(world.client.statistics.staleNonces > 20)
    }

    @Test func endlessChallengesEnd() {
        let world = World()
        world.server.nonceIsAlwaysStale = true
        world.allocate()
        #expect(world.failures == [.challenges])
        #expect(world.server.count(MessageType.allocate) == 5)

        let later = World()
        later.allocate()
        later.server.nonceIsAlwaysStale = true
        _ = later.client.permit(World.peer.ip, now: later.now)
        later.flush()
        later.run(for: .seconds(5))
        #expect(later.events.last == .denied(World.peer.ip, code: 438))
        #expect(later.client.allocation != nil)
    }

    @Test func followsARealmThatChanges() {
        let world = World()
        world.server.nonceLife = .seconds(60)
        world.allocate()
        world.server.realm = "example.net"
        world.run(for: .seconds(1000))
        #expect(world.failures.isEmpty && world.client.allocation != nil)

        // Also where the server says it with 401.
        let other = World()
        other.allocate()
        other.server.realm = "example.net"
        other.client.probe(now: other.now)
        other.flush()
        other.run(for: .seconds(5))
        #expect(
            other.failures.isEmpty && !other.events.contains { if case .credentialsNeeded = $0 { true } else { false } }
        )
    }

    @Test(arguments: [("", [0, 2, 0, 0], true), ("obMatJos2AAAB", [0, 1, 0, 0, 0, 2, 0, 0], true)])
    func strongerAlgorithmsAreUsed(cookie: String, offered: [UInt8], isStrong: Bool) {
        let world = World()
        world.server.passwordAlgorithms = offered
        world.server.nonceCookie = cookie
        world.allocate()
        world.permit()
        #expect(world.client.allocation != nil && world.events.contains(.permitted(World.peer.ip)))
        #expect(world.client.authentication?.integrity == .sha256)
        #expect(world.client.authentication?.challenge.algorithm == .sha256)
        let last = world.server.requests.last!.bytes
        let algorithm = try? Message(last.span.bytes).integrityAlgorithm
        #expect(algorithm == .sha256)
    }

    @Test func namesAreHiddenWhereTheServerCan() throws {
        let world = World()
        world.server.passwordAlgorithms = [0, 1, 0, 0]
        world.server.nonceCookie = "obMatJos2AAAD"
        world.server.hidesUsername = true
        world.allocate()
        #expect(world.client.allocation != nil)
        for request in world.server.requests {
            let message = try Message(request.bytes.span.bytes)
            let name = copied(message.username)
            #expect(name == nil)
        }
    }

    /// RFC 8489 section 9.2.5: a nonce that promises algorithms comes with them, or somebody took them away.
    @Test func isNotTalkedIntoWeakerAlgorithms() {
        let world = World()
        world.server.nonceCookie = "obMatJos2AAAB"
        world.allocate()
        #expect(world.client.allocation == nil && world.failures == [.wrongCredentials])
        #expect(world.server.count(MessageType.allocate) == 1)

        let later = World()
        later.server.passwordAlgorithms = [0, 2, 0, 0]
        later.allocate()
        later.server.passwordAlgorithms = []
        later.server.nonceIsAlwaysStale = true
        _ = later.client.permit(World.peer.ip, now: later.now)
        later.flush()
        later.run(for: .seconds(5))
        #expect(later.server.count(MessageType.createPermission) == 1)
    }

    @Test func theHostIsToldBeforeCredentialsEnd() {
        var credentials = RelayCredentials(username: "alice", password: "secret")
        credentials.expires = Instant(nanoseconds: 0) + .seconds(1000)
        let world = World(credentials: credentials)
        world.allocate()
        world.run(for: .seconds(930))
        #expect(world.events.count == 1)
        world.run(for: .seconds(20))
        #expect(world.events.last == .credentialsNeeded(by: credentials.expires!))
        // Shortly before the end the allocation was given its whole life again.
        world.run(for: .seconds(60))
        #expect(world.client.allocationExpires! - world.now > .seconds(560))
    }

    private func world(until seconds: Int64) -> World {
        let world = World(
            credentials: RelayCredentials(
                username: "alice", password: "secret", expires: Instant(nanoseconds: 0) + .seconds(seconds)))
        world.allocate()
        world.permit()
        return world
    }

    @Test func newCredentialsKeepTheAllocation() {
        // The server lets another user have it.
        let world = world(until: 100)
        world.server.allowsOtherUsers = true
        world.server.users["bob"] = "other"
        world.run(for: .seconds(90))
        world.client.setCredentials(RelayCredentials(username: "bob", password: "other"), now: world.now)
        world.server.ended = ["alice"]
        world.run(for: .seconds(3600))
        #expect(world.failures.isEmpty && world.client.username == "bob")
        #expect(world.client.isPermitted(World.peer.ip, now: world.now))

        // Late: the server has refused the old ones.
        let late = self.world(until: 100)
        late.server.allowsOtherUsers = true
        late.server.users["bob"] = "other"
        late.server.ended = ["alice"]
        late.run(for: .seconds(500))
        let asked = late.events.filter { if case .credentialsNeeded = $0 { true } else { false } }
        #expect(asked.count == 2)
        late.client.setCredentials(RelayCredentials(username: "bob", password: "other"), now: late.now)
        late.flush()
        late.run(for: .seconds(3600))
        #expect(late.failures.isEmpty && late.client.isPermitted(World.peer.ip, now: late.now))

        // Never: the allocation ends.
        let never = self.world(until: 100)
        never.server.ended = ["alice"]
        never.run(for: .seconds(3600))
        #expect(never.failures == [.wrongCredentials] && never.client.nextTimeout == nil)
    }

    /// RFC 8656 section 5: the allocation is its user's. What takes the old name on, as coturn does, is not bothered.
    @Test func oldCredentialsAreUsedAsLongAsTheyAreTaken() {
        let world = world(until: 100)
        world.server.users["bob"] = "other"
        world.run(for: .seconds(90))
        world.client.setCredentials(RelayCredentials(username: "bob", password: "other"), now: world.now)
        world.run(for: .seconds(3600))
        #expect(world.failures.isEmpty && world.client.username == "alice")

        // It does not any more, and gives the allocation to nobody else: another one with the new name.
        world.server.ended = ["alice"]
        world.run(for: .seconds(600))
        #expect(world.failures == [.wrongCredentials])
        world.allocate()
        #expect(world.client.allocation == nil)
        world.move(42_000)
        world.run(for: .seconds(5))
        #expect(world.client.allocation != nil && world.client.username == "bob")
    }

    @Test func anotherPasswordOfTheSameUser() {
        let world = world(until: 100)
        world.run(for: .seconds(50))
        world.server.users["alice"] = "new"
        world.client.setCredentials(RelayCredentials(username: "alice", password: "new"), now: world.now)
        world.run(for: .seconds(3600))
        #expect(world.failures.isEmpty && world.client.allocation != nil)
    }

    @Test func namesBeyondAllLimitsAreRefused() {
        let long = RelayCredentials(username: String(repeating: "a", count: 70_000), password: "")
        let world = World(credentials: long)
        world.allocate()
        #expect(world.failures == [.wrongCredentials])

        let later = self.world(until: 100)
        later.server.allowsOtherUsers = true
        later.client.setCredentials(long, now: later.now)
        later.server.ended = ["alice"]
        for peer in 1...100 as ClosedRange<UInt32> { _ = later.client.permit(IPAddress(v4: peer), now: later.now) }
        later.flush()
        later.run(for: .seconds(700))
        #expect(later.failures == [.wrongCredentials])
    }
}
