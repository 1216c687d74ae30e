import Coturn
import Glibc
import ICE
import TURN
import Testing
import Wire

@testable import Engine

/// Relays of a port, against coturn on the loopback interface.
@Suite(.serialized) struct Relays {
    @Test func carriesData() throws {
        let server = try RealServer([])
        let left = try RelayHost([turnServer(server.url())])
        let right = try RelayHost([turnServer(server.url())])
        try left.exchange(with: right)
        let relayed = try left.relayed()
        #expect(left.group.owns(relayed))
        #expect(left.group.transport(of: relayed)?.server == server.endpoint(.udp))
        let candidate = left.group.candidates[0]
        #expect(candidate.kind == .relayed && candidate.base == nil)
        #expect(candidate.relatedAddress == SocketAddress(ip: IPAddress("127.0.0.1")!, port: left.port.number))
        #expect(left.group.reflexive == [candidate.relatedAddress])
        // After some datagrams there is a channel: 4 bytes more for each instead of 36.
        #expect(left.group.overhead(from: relayed, to: try right.relayed(), now: monotonicTime()) == 4)
        let statistics = left.environment.statistics()[0]
        #expect(statistics.url == server.url() && statistics.held == 1 && statistics.allocations == 1)
        #expect(statistics.sent >= 20 && statistics.received >= 20 && statistics.roundTrip != nil)
        left.group.close(now: monotonicTime())
        try left.run("the end") { $0.group.isClosed }
        #expect(left.losses == [relayed] && left.group.candidates.isEmpty)
    }
}
