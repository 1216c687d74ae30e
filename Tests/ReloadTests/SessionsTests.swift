import Testing
import Wire

@testable import Reload

@Suite struct FastReloads {
    @Test func aFirstVisitIsNormalAndLeavesASession() {
        var scene = Scene()
        let decision = scene.decide(nil, at: .at(0))
        #expect(decision.mode == .normal)
        #expect(decision.reason == .noToken)
        #expect(decision.session == nil)
        #expect(scene.sessions.count == 0)
        let visit = scene.connect(decision.grant, type: .serverReflexive, at: .at(1))
        #expect(visit.arrival.kind == .first)
        #expect(visit.arrival.replaced == [])
        #expect(visit.arrival.isStored)
        let session = scene.sessions.session(visit.arrival.clientID)
        #expect(session?.connectionCount == 1)
        #expect(session?.preferredCandidateType == .serverReflexive)
        #expect(session?.lastAddress.port == 1)
        #expect(session?.isNewest(decision.grant.token) == true)
        #expect(session?.expires == nil)
    }

    @Test func aReloadIsFastAndTellsWhoCameBack() {
        var scene = Scene()
        let (token, id) = scene.pastVisit(at: .at(0), ended: .at(60))
        let decision = scene.decide(token, at: .at(61))
        #expect(decision.mode == .fast)
        #expect(decision.reason == nil)
        #expect(decision.requiredFingerprint == .of(1))
        #expect(decision.grant.clientID == id)
        #expect(decision.grant.token != token)
        let visit = scene.connect(decision.grant, type: .relay, at: .at(62))
        #expect(visit.arrival.kind == .returned(after: .seconds(2), count: 2))
        #expect(visit.arrival.clientID == id)
        #expect(scene.sessions.session(id)?.preferredCandidateType == .relay)
        #expect(scene.sessions.counters.fast == 1)
        #expect(scene.sessions.counters.hits == 1)
        #expect(scene.sessions.counters.normal == [.noToken: 1])
        #expect(scene.sessions.counters.returns == 1)
        #expect(scene.sessions.counters.firstConnections == 1)
    }

    @Test func lifetimeCountsFromTheEndOfTheConnection() {
        var scene = Scene()
        let first = scene.decide(nil, at: .at(0))
        let visit = scene.connect(first.grant, at: .at(0))
        // A page that stayed open for an hour reloads: its connection has not even been missed yet.
        let reload = scene.decide(first.grant.token, at: .at(3600))
        #expect(reload.mode == .fast)
        let second = scene.connect(reload.grant, at: .at(3601))
        #expect(second.arrival.replaced == [visit.peer])
        scene.sessions.disconnected(second.arrival.clientID, peer: second.peer, now: .at(7200))
        #expect(scene.decide(reload.grant.token, at: .at(7499.9)).mode == .fast)
        let late = scene.decide(reload.grant.token, at: .at(7500))
        #expect(late.mode == .normal)
        #expect(late.reason == .expired)
        #expect(scene.sessions.count == 0)
        #expect(scene.decide(reload.grant.token, at: .at(7501)).reason == .unknown)
        #expect(scene.sessions.counters.expired == 1)
        #expect(scene.sessions.counters.misses == 2)
    }

    @Test func lifetimeIsSettable() {
        var configuration = Sessions.Configuration()
        configuration.lifetime = .seconds(10)
        var scene = Scene(configuration: configuration)
        let (token, _) = scene.pastVisit(at: .at(0), ended: .at(0))
        #expect(scene.decide(token, at: .at(9.9)).mode == .fast)
        #expect(scene.decide(token, at: .at(10)).reason == .expired)
    }

    @Test func absenceCountsFromWhenTheClientWasLastHeard() {
        var scene = Scene()
        let first = scene.decide(nil, at: .at(0))
        let visit = scene.connect(first.grant, at: .at(0))
        scene.sessions.heard(from: visit.arrival.clientID, now: .at(100))
        scene.sessions.heard(from: visit.arrival.clientID, now: .at(50))
        let grant = scene.decide(first.grant.token, at: .at(101)).grant
        let zombie = scene.connect(grant, at: .at(102))
        #expect(zombie.arrival.kind == .returned(after: .seconds(2), count: 2))
        scene.sessions.disconnected(zombie.arrival.clientID, peer: zombie.peer, lastHeard: .at(110), now: .at(140))
        let third = scene.connect(scene.decide(grant.token, at: .at(150)).grant, at: .at(150))
        #expect(third.arrival.kind == .returned(after: .seconds(40), count: 3))
    }

    @Test func candidatesAreKeptWithinBounds() {
        let scene = Scene()
        let grant = scene.decide(nil, at: .at(0)).grant
        let many = (0..<40).map { "candidate:\($0)" } + [String(repeating: "x", count: 513)]
        let arrival = scene.sessions.connected(
            grant, peer: 1, fingerprint: .of(1), address: SocketAddress(ip: .anyIPv6, port: 1), candidateType: .host,
            candidates: many.reversed(), now: .at(0))
        let kept = scene.sessions.session(arrival.clientID)?.lastCandidates ?? []
        #expect(kept.count == 16)
        #expect(kept.first == "candidate:39")
    }
}

@Suite struct NormalAnswers {
    @Test(arguments: [
        "session-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "session-123", "x", String(repeating: "s", count: 1000),
    ])
    func goToUnknownTokens(text: String) {
        let scene = Scene()
        let decision = scene.decide(text: text, at: .at(0))
        #expect(decision.mode == .normal)
        #expect(decision.reason == .unknown)
        #expect(scene.sessions.counters.misses == 1)
    }

    @Test func goToAnEmptyToken() {
        let scene = Scene()
        #expect(scene.decide(text: "", at: .at(0)).reason == .noToken)
        #expect(scene.sessions.counters.misses == 0)
    }

    @Test func goToAnotherClientWithARealToken() {
        var scene = Scene()
        let (token, id) = scene.pastVisit(at: .at(0), ended: .at(1))
        let stolen = scene.decide(token, client: 2, at: .at(2))
        #expect(stolen.mode == .normal)
        #expect(stolen.reason == .otherFingerprint)
        #expect(stolen.session == nil)
        #expect(stolen.grant.clientID != id)
        let thief = scene.connect(stolen.grant, client: 2, at: .at(3))
        #expect(thief.arrival.kind == .first)
        #expect(thief.arrival.clientID != id)
        // The rightful client has lost nothing.
        #expect(scene.sessions.session(id)?.connectionCount == 1)
        #expect(scene.decide(token, at: .at(4)).mode == .fast)
    }

    /// An offer may name the victim's certificate beside its own; DTLS then shows which one it has.
    @Test func aThiefThatNamesBothCertificatesGetsASessionOfItsOwn() {
        var scene = Scene()
        let (token, id) = scene.pastVisit(at: .at(0), ended: .at(1))
        let grant = scene.decide(token, at: .at(2)).grant
        let victim = scene.connect(grant, at: .at(2))
        guard
            case .decided(let decision) = scene.sessions.decide(
                token: grant.token.text, fingerprints: [.of(2), .of(1)], now: .at(3))
        else { return }
        #expect(decision.mode == .fast)
        #expect(decision.requiredFingerprint == .of(1))
        let thief = scene.connect(decision.grant, client: 2, at: .at(4))
        #expect(thief.arrival.kind == .first)
        #expect(thief.arrival.clientID != id)
        #expect(thief.arrival.replaced == [])
        #expect(scene.sessions.session(id)?.live.map(\.peer) == [victim.peer])
        #expect(scene.sessions.session(id)?.lastSeen == .at(2))
        // The thief's token leads to the thief's session, with the thief's certificate only.
        #expect(scene.decide(decision.grant.token, client: 1, at: .at(5)).reason == .otherFingerprint)
        #expect(scene.decide(decision.grant.token, client: 2, at: .at(5)).grant.clientID == thief.arrival.clientID)
        #expect(scene.decide(grant.token, at: .at(5)).grant.clientID == id)
    }

    @Test func goToEveryoneWhileSwitchedOff() {
        var scene = Scene()
        let (token, id) = scene.pastVisit(at: .at(0), ended: .at(1))
        scene.sessions.configuration.fastReload = .off
        let off = scene.decide(token, at: .at(2))
        #expect(off.mode == .normal)
        #expect(off.reason == .disabled)
        #expect(off.grant.clientID != id)
        #expect(off.session == nil)
        // Kept, unused: switched on again it is there.
        scene.sessions.configuration.fastReload = .on
        #expect(scene.decide(token, at: .at(3)).mode == .fast)
    }

    @Test func keepTheSessionWhilePartlySwitchedOff() {
        var scene = Scene()
        let (token, id) = scene.pastVisit(at: .at(0), ended: .at(1))
        scene.sessions.configuration.fastReload = .sessionsOnly
        let decision = scene.decide(token, at: .at(2))
        #expect(decision.mode == .normal)
        #expect(decision.reason == .disabled)
        #expect(decision.grant.clientID == id)
        let visit = scene.connect(decision.grant, at: .at(3))
        #expect(visit.arrival.kind == .returned(after: .seconds(2), count: 2))
    }

    @Test func storeNothingForStrangers() {
        let scene = Scene()
        for number in 0..<10_000 {
            _ = scene.decide(nil, client: number, at: .at(Double(number)))
            _ = scene.decide(text: "session-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", client: number, at: .at(Double(number)))
        }
        #expect(scene.sessions.count == 0)
        #expect(scene.store.tokenCount == 0)
    }
}

@Suite struct Rotation {
    @Test func aLostAnswerDoesNotCostTheFastMode() {
        var scene = Scene()
        let (token, _) = scene.pastVisit(at: .at(0), ended: .at(1))
        for attempt in 0..<20 {
            #expect(scene.decide(token, at: .at(2 + Double(attempt))).mode == .fast)
        }
    }

    @Test func anAnswerThatArrivedButDidNotConnectDoesNotEither() {
        var scene = Scene()
        var (token, id) = scene.pastVisit(at: .at(0), ended: .at(1))
        // Reload after reload, each with the token of the answer before, none of them connected.
        for attempt in 0..<20 {
            let decision = scene.decide(token, at: .at(2 + Double(attempt)))
            #expect(decision.mode == .fast)
            token = decision.grant.token
        }
        #expect(scene.sessions.session(id)?.tokens.count == 5)
        #expect(scene.store.tokenCount == 5)
    }

    @Test func aConnectionEndsTheTokenItsClientCameWith() {
        var scene = Scene()
        let (old, id) = scene.pastVisit(at: .at(0), ended: .at(1))
        let decision = scene.decide(old, at: .at(2))
        let visit = scene.connect(decision.grant, at: .at(3))
        scene.sessions.disconnected(id, peer: visit.peer, now: .at(4))
        // Replayed, even by who knows the certificate's fingerprint.
        #expect(scene.decide(old, at: .at(5)).reason == .unknown)
        #expect(scene.decide(decision.grant.token, at: .at(5)).mode == .fast)
    }

    @Test func aReplayMovesNothing() {
        var scene = Scene()
        let (token, id) = scene.pastVisit(at: .at(0), ended: .at(1))
        let before = scene.sessions.session(id)
        for attempt in 0..<100 { _ = scene.decide(token, at: .at(2 + Double(attempt))) }
        let after = scene.sessions.session(id)
        #expect(after?.expires == before?.expires)
        #expect(after?.lastSeen == before?.lastSeen)
        #expect(after?.live == before?.live)
        #expect(after?.connectionCount == before?.connectionCount)
        #expect(after?.tokens.first == before?.tokens.first)
        #expect(scene.sessions.count == 1)
        // And does not keep the session alive.
        #expect(scene.decide(token, at: .at(301)).reason == .expired)
    }

    @Test func replaysCannotDriveOutTheTokenOfAnAnswerThatConnects() {
        var scene = Scene()
        let (token, id) = scene.pastVisit(at: .at(0), ended: .at(1))
        let decision = scene.decide(token, at: .at(2))
        for _ in 0..<100 { _ = scene.decide(token, at: .at(3)) }
        scene.connect(decision.grant, at: .at(4))
        #expect(scene.sessions.session(id)?.isNewest(decision.grant.token) == true)
        #expect(scene.decide(decision.grant.token, at: .at(5)).mode == .fast)
        #expect(scene.decide(token, at: .at(5)).reason == .unknown)
    }

    @Test func aSessionThatMadeRoomIsMadeAnewByItsConnection() {
        var scene = Scene()
        let (token, id) = scene.pastVisit(at: .at(0), ended: .at(1))
        let decision = scene.decide(token, at: .at(2))
        scene.sessions.forget(id)
        let visit = scene.connect(decision.grant, at: .at(3))
        #expect(visit.arrival.kind == .first)
        #expect(visit.arrival.clientID == id)
        #expect(scene.decide(decision.grant.token, at: .at(4)).mode == .fast)
    }
}

@Suite struct Takeover {
    @Test func aReturnReplacesTheZombie() {
        var scene = Scene()
        let first = scene.decide(nil, at: .at(0))
        let visit = scene.connect(first.grant, at: .at(0))
        let second = scene.connect(scene.decide(first.grant.token, at: .at(10)).grant, at: .at(11))
        #expect(second.arrival.replaced == [visit.peer])
        #expect(scene.sessions.counters.takeovers == 1)
        // The zombie's end, noticed later, changes nothing.
        scene.sessions.disconnected(second.arrival.clientID, peer: visit.peer, now: .at(12))
        let session = scene.sessions.session(second.arrival.clientID)
        #expect(session?.live.map(\.peer) == [second.peer])
        #expect(session?.expires == nil)
    }

    @Test func racingAttemptsOfOnePageLeaveEachOtherAlone() {
        for order in [[0, 1], [1, 0]] {
            var scene = Scene()
            let (token, id) = scene.pastVisit(at: .at(0), ended: .at(1))
            let grants = [scene.decide(token, at: .at(2)).grant, scene.decide(token, at: .at(2)).grant]
            let winner = scene.connect(grants[order[0]], at: .at(3))
            let loser = scene.connect(grants[order[1]], at: .at(3.1))
            #expect(winner.arrival.replaced == [])
            #expect(loser.arrival.replaced == [])
            // Whichever token the page kept is good.
            #expect(scene.decide(grants[0].token, at: .at(4)).mode == .fast)
            #expect(scene.decide(grants[1].token, at: .at(4)).mode == .fast)
            #expect(scene.decide(token, at: .at(4)).mode == .normal)
            scene.sessions.disconnected(id, peer: loser.peer, now: .at(5))
            #expect(scene.sessions.session(id)?.expires == nil)
            // The next reload takes over what is left.
            let next = scene.connect(scene.decide(grants[order[0]].token, at: .at(6)).grant, at: .at(7))
            #expect(next.arrival.replaced == [winner.peer])
        }
    }

    /// The page reloads while its first attempt is still under way; both come up.
    @Test func aReloadDuringAnAttemptTakesThatOver() {
        var scene = Scene()
        let (token, _) = scene.pastVisit(at: .at(0), ended: .at(1))
        let attempt = scene.decide(token, at: .at(2)).grant
        let reload = scene.decide(attempt.token, at: .at(3)).grant
        let zombie = scene.connect(attempt, at: .at(3.5))
        let visit = scene.connect(reload, at: .at(4))
        #expect(visit.arrival.replaced == [zombie.peer])
    }

    @Test func onePeerConnectingTwiceCountsOnce() {
        var scene = Scene()
        let grant = scene.decide(nil, at: .at(0)).grant
        let visit = scene.connect(grant, at: .at(0))
        let again = scene.connect(grant, peer: visit.peer, type: .relay, at: .at(5))
        #expect(again.arrival.kind == .repeated)
        #expect(again.arrival.replaced == [])
        let session = scene.sessions.session(visit.arrival.clientID)
        #expect(session?.connectionCount == 1)
        #expect(session?.preferredCandidateType == .relay)
    }

    @Test func overlappingConnectionsAreBounded() {
        var scene = Scene()
        let (token, id) = scene.pastVisit(at: .at(0), ended: .at(1))
        let grants = (0..<10).map { _ in scene.decide(token, at: .at(2)).grant }
        var replaced: [UInt64] = []
        for grant in grants { replaced += scene.connect(grant, at: .at(3)).arrival.replaced }
        #expect(scene.sessions.session(id)?.live.count == 4)
        #expect(replaced.count == 6)
        #expect(scene.sessions.session(id)?.tokens.count == 5)
    }

    @Test func theEndOfUnknownPeersIsNothing() {
        let scene = Scene()
        scene.sessions.disconnected(ClientID(5), peer: 1, now: .at(0))
        scene.sessions.heard(from: ClientID(5), now: .at(0))
        scene.sessions.forget(ClientID(5))
        #expect(scene.sessions.count == 0)
    }
}
