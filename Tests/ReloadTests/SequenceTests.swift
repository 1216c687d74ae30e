import Testing
import Wire

@testable import Reload

/// Clients that come, go, race, replay and steal in any order: what must hold always.
@Suite struct AnySequence {
    private struct Visit {
        let grant: Grant
        let client: Int
        var peer: UInt64?
        var id: ClientID?
    }

    @Test func keepsItsPromises() {
        for seed in 0..<150 {
            var random = SeededGenerator(seed: UInt64(seed))
            var scene = Scene(seed: UInt64(seed), capacity: 6)
            var visits: [Visit] = []
            var now = Instant.at(1)
            for _ in 0..<300 {
                let client = Int.random(in: 0..<8, using: &random)
                switch Int.random(in: 0..<10, using: &random) {
                case 0...3:
                    let token = visits.randomElement(using: &random)?.grant.token
                    let decision = scene.decide(Bool.random(using: &random) ? token : nil, client: client, at: now)
                    if let session = decision.session {
                        #expect(session.clientFingerprint == .of(client), "seed \(seed): another client's session")
                    }
                    #expect((decision.mode == .fast) == (decision.reason == nil), "seed \(seed)")
                    visits.append(Visit(grant: decision.grant, client: client))
                case 4...6:
                    guard let index = visits.indices.randomElement(using: &random), visits[index].peer == nil else {
                        break
                    }
                    let visit = scene.connect(visits[index].grant, client: visits[index].client, at: now)
                    visits[index].peer = visit.peer
                    visits[index].id = visit.arrival.clientID
                    #expect(!visit.arrival.replaced.contains(visit.peer), "seed \(seed): replaced itself")
                    for other in visit.arrival.replaced {
                        let owner = visits.first { $0.peer == other }
                        #expect(owner?.client == visits[index].client, "seed \(seed): took over from another client")
                    }
                    guard visit.arrival.isStored else { break }
                    // Fast mode is there for the token of a connection that is up.
                    let again = scene.decide(visits[index].grant.token, client: visits[index].client, at: now)
                    #expect(again.mode == .fast, "seed \(seed)")
                case 7...8:
                    guard let visit = visits.randomElement(using: &random), let peer = visit.peer, let id = visit.id
                    else { break }
                    scene.sessions.disconnected(id, peer: peer, now: now)
                default:
                    now = now + .milliseconds(Int64.random(in: 0...200_000, using: &random))
                    scene.sessions.handleTimeout(now: now)
                }
                now = now + .milliseconds(1)
                #expect(scene.sessions.count <= 6, "seed \(seed): over the bound")
                #expect(scene.store.tokenCount <= 6 * 5, "seed \(seed): tokens left behind")
            }
            // Everybody leaves: nothing may stay behind.
            for visit in visits {
                if let peer = visit.peer, let id = visit.id { scene.sessions.disconnected(id, peer: peer, now: now) }
            }
            scene.sessions.handleTimeout(now: now + .seconds(400))
            scene.sessions.handleTimeout(now: now + .seconds(4000))
            #expect(scene.sessions.count == 0, "seed \(seed): a session stayed")
            #expect(scene.store.tokenCount == 0, "seed \(seed): a token stayed")
            #expect(scene.sessions.nextTimeout == nil, "seed \(seed): a timer stayed")
        }
    }
}
