import Foundation
import Reload
import Testing
import Wire

@testable import Engine

/// The kill switch that throws itself.
@Suite struct Switching {
    /// Offers with a good token whose clients never come.
    private func fail(_ count: Int, _ client: Host, _ server: Host, token: String) throws -> [Bool] {
        try (0..<count).map { _ in
            let peer = try client.engine.createPeer(PeerConfiguration())
            try PeerReference(peer)?.offer(tag: 0)
            let offer = try client.next(.offer) { $0.peer == peer }.text.with(token: token)
            let handle = try server.answer(offer)
            let answer = try server.next(.answer) { $0.peer == handle }
            return answer.number == 1
        }
    }

    @Test func tripsAndIsTriedAgain() throws {
        let client = try Host()
        let server = try Host {
            $0.fastTimeout = .milliseconds(20)
            $0.trip.minimumAttempts = 4
            $0.trip.rearmAfter = .milliseconds(200)
        }
        let link = try Link.connected(client, server)
        #expect(try fail(4, client, server, token: link.token) == [true, true, true, true])
        let tripped = try server.next(.fastReload)
        #expect(tripped.detailKind == 1 && tripped.number == 2, "partial, tripped: \(tripped.text)")
        #expect(tripped.text.contains("4 of 4"))
        #expect(try fail(1, client, server, token: link.token) == [false])
        let rearmed = try server.next(.fastReload)
        #expect(rearmed.detailKind == 2 && rearmed.number == 1)
        #expect(try fail(1, client, server, token: link.token) == [true])
        let metrics = try server.engine.metrics()
        #expect(metrics.contains("reconnect_fast_reload_trips_total 1"))
    }

    /// A client that races leaves an answer unused each time; that says nothing against fast reload.
    @Test func theSlowerOfTwoWaysIsNoFailure() throws {
        let client = try Host()
        let server = try Trip.server {
            $0.fastTimeout = .milliseconds(20)
            $0.trip.minimumAttempts = 3
        }
        let trip = try Trip(client, server)
        _ = try trip.connect(.normal)
        var fast = 0
        for _ in 0..<8 {
            try trip.reference.connect()
            // The answer is lost; the ticket connects.
            let peer = try server.answer(try client.next(.signal).text)
            fast += Int(try server.next(.answer) { $0.peer == peer }.number)
            #expect(try trip.state(.connected).detailKind == Connector.Mode.zeroSignaling.rawValue)
        }
        #expect(fast >= 3)
        let deadline = Date(timeIntervalSinceNow: 0.2)
        while deadline.timeIntervalSinceNow > 0 { try server.take(milliseconds: 20) }
        #expect(try !server.engine.metrics().contains("reconnect_fast_reload_trips_total 1"))
    }

    @Test func theHostsWordCounts() throws {
        let (client, server) = (try Host(), try Host())
        let link = try Link.connected(client, server)
        for (setting, isFast) in [(FastReloadSetting.off, false), (.partial, false), (.on, true)] {
            server.engine.setFastReload(setting)
            let told = try server.next(.fastReload)
            #expect(told.detailKind == 0 && told.number == Int64(setting.rawValue))
            #expect(try fail(1, client, server, token: link.token) == [isFast])
        }
    }
}
