import Foundation
import Reload
import Testing
import Wire

@testable import Engine

/// A client with a connector, and the server it connects to.
struct Trip {
    let client: Host
    let server: Host
    var connector: UInt64 = 0
    let tag: UInt64 = 77

    static func chat(tag: UInt64 = 0) -> ChannelConfiguration {
        var channel = ChannelConfiguration()
        channel.label = "chat"
        channel.negotiatedID = 1
        channel.tag = tag
        return channel
    }

    init(
        _ client: Host, _ server: Host, _ configure: (inout ConnectorConfiguration) -> Void = { _ in }
    ) throws {
        self.client = client
        self.server = server
        var configuration = ConnectorConfiguration()
        configuration.tag = tag
        configuration.peer.tag = 78
        configuration.peer.channels = [Trip.chat(tag: 79)]
        configure(&configuration)
        connector = try client.engine.createConnector(configuration)
    }

    static func server(_ configure: (inout Configuration) -> Void = { _ in }) throws -> Host {
        try Host { configuration in
            configuration.returningPeer.channels = [chat()]
            configure(&configuration)
        }
    }

    var reference: ConnectorReference {
        get throws { try #require(ConnectorReference(connector)) }
    }

    /// Carries the next offer and its answer. The peer that the server made.
    @discardableResult
    func exchange(isDead: Bool = false, _ change: (String) -> String = { $0 }) throws -> UInt64 {
        let offer = try client.next(.signal) { $0.connector == connector }
        #expect(offer.tag == tag)
        var configuration = PeerConfiguration()
        configuration.channels = [Trip.chat()]
        let peer = try server.answer(offer.text, configuration, tag: 5)
        let answer = try server.next(.answer) { $0.peer == peer }
        try #require(answer.status == .ok, "\(answer.text)")
        if isDead { try PeerReference(peer)?.close() }
        let text = change(answer.text)
        try reference.message(Array(text.utf8).span.bytes, exchange: offer.number)
        return peer
    }

    func attempt(_ outcome: Connector.Report.Outcome, _ mode: Connector.Mode) throws -> Event {
        try client.next(.attempt) {
            $0.connector == connector && $0.number == outcome.rawValue && $0.detailKind == mode.rawValue
        }
    }

    func state(_ state: ConnectorState) throws -> Event {
        try client.next(.connector) { $0.connector == connector && $0.number == state.rawValue }
    }

    /// Connects by signaling; the client's peer.
    @discardableResult
    func connect(_ mode: Connector.Mode) throws -> Event {
        try reference.connect()
        if mode != .zeroSignaling { try exchange() }
        let connected = try state(.connected)
        #expect(connected.detailKind == mode.rawValue && connected.status == .ok && connected.tag == tag)
        _ = try attempt(.won, mode)
        return connected
    }

    /// Waits until something is kept under the key, or nothing.
    func cache() throws -> String { try reference.cacheEntry() }
}

@Suite struct Connectors {
    @Test func connectNormallyThenFast() throws {
        let trip = try Trip(try Host(), try Trip.server()) { $0.usesTickets = false }
        #expect(try trip.cache() == "")
        let first = try trip.connect(.normal)
        #expect(try trip.attempt(.skipped, .fast).status == .notCached)
        // The peer is told from here on: its states, its channel, with their tags.
        #expect(try trip.client.next(.peerState) { $0.peer == first.peer }.number == PeerState.connecting.rawValue)
        #expect(try trip.client.next(.peerState) { $0.peer == first.peer }.tag == 78)
        let channel = try trip.client.next(.channelOpen) { $0.peer == first.peer }
        #expect(channel.tag == 79 && channel.text == "chat")
        #expect(send(channel.channel, [1, 2]) == .ok)
        #expect(try trip.server.next(.message).bytes == [1, 2])
        let kept = try trip.cache()
        #expect(kept.contains("127.0.0.1") && kept.contains("\"lastSuccessfulProtocol\":\"ipv4\""))

        let second = try trip.connect(.fast)
        #expect(second.peer != first.peer)
        #expect(try trip.client.state(.closed, of: first.peer).status == .replaced)
        #expect(try trip.server.next(.session) { $0.number == 2 }.flags & Event.returned != 0)
        #expect(try trip.cache() != kept)
    }

    @Test func connectWithoutSignaling() throws {
        let trip = try Trip(try Host(), try Trip.server())
        let first = try trip.connect(.normal)
        // The signaling server is stopped: nobody carries the offer.
        let second = try trip.connect(.zeroSignaling)
        #expect(try trip.attempt(.stopped, .fast).status == .overtaken)
        #expect(try trip.client.state(.closed, of: first.peer).status == .replaced)
        let channel = try trip.client.next(.channelOpen) { $0.peer == second.peer }
        #expect(send(channel.channel, [7]) == .ok)
        #expect(try trip.server.next(.message).bytes == [7])
        // And again, with what that connection brought.
        let third = try trip.connect(.zeroSignaling)
        #expect(third.peer != second.peer)
    }

    @Test func tellWhyTheyFail() throws {
        let trip = try Trip(try Host(), try Trip.server()) { $0.usesTickets = false }
        let connection = try trip.connect(.normal)
        try PeerReference(connection.peer)?.close()
        #expect(try trip.state(.lost).peer == connection.peer)
        let before = try trip.cache()
        try trip.reference.connect()
        #expect(throws: Failure.self) { try trip.reference.connect() }
        for mode in [Connector.Mode.fast, .normal] {
            _ = try trip.attempt(.started, mode)
            try trip.reference.signalingFailed(exchange: try trip.client.next(.signal).number)
            #expect(try trip.attempt(.failed, mode).status == .signalingFailed)
        }
        let failed = try trip.state(.failed)
        #expect(failed.status == .signalingFailed && failed.peer == 0)
        // The session was not even asked for.
        #expect(try trip.cache() == before)
        try trip.connect(.fast)
    }

    @Test func goOnNormallyWhereTheSessionIsUnknown() throws {
        let (client, first, second) = (try Host(), try Trip.server(), try Trip.server())
        let home = try Trip(client, first) { $0.usesTickets = false }
        try home.connect(.normal)
        let away = try Trip(client, second) { $0.usesTickets = false }
        // Both have the same key.
        try away.connect(.normal)
        #expect(try away.attempt(.failed, .fast).status == .sessionUnknown)
    }

    @Test func fallBackWhenAFastAnswerLeadsNowhere() throws {
        let trip = try Trip(try Host(), try Trip.server()) {
            $0.usesTickets = false
            $0.fastTimeout = .milliseconds(200)
        }
        try trip.connect(.normal)
        let kept = try trip.cache()
        try trip.reference.connect()
        try trip.exchange(isDead: true)
        #expect(try trip.attempt(.failed, .fast).status == .timeout)
        #expect(try trip.cache() == "")
        try trip.exchange()
        #expect(try trip.state(.connected).detailKind == Connector.Mode.normal.rawValue)
        let again = try trip.cache()
        #expect(again != "" && again != kept)
        // An answer of somebody in between: the handshake fails, and the token is not used again.
        try trip.reference.connect()
        try trip.exchange { $0.replacing(#/sha-256 (..):/#, with: "sha-256 00:") }
        #expect(try trip.attempt(.failed, .fast).status == .fingerprintMismatch)
        try trip.exchange()
        #expect(try trip.state(.connected).detailKind == Connector.Mode.normal.rawValue)
    }

    /// A host that hears that the connector is connected knows the peer and its channels.
    @Test func tellThePeerBeforeTheyTellThatTheyAreConnected() throws {
        let trip = try Trip(try Host(), try Trip.server()) { $0.peer.channels.append(ChannelConfiguration()) }
        for mode in [Connector.Mode.normal, .zeroSignaling, .zeroSignaling] {
            try trip.reference.connect()
            if mode == .normal { try trip.exchange() }
            var seen: [Event] = []
            while seen.last?.kind != .connector {
                let event = try trip.client.next()
                if [.attempt, .peerState, .channelOpen, .connector].contains(event.kind) { seen.append(event) }
            }
            let peer = try #require(seen.last?.peer)
            #expect(seen.last?.number == ConnectorState.connected.rawValue && seen.last?.detailKind == mode.rawValue)
            let told = seen.drop { $0.kind != .attempt || $0.number != Connector.Report.Outcome.won.rawValue }
            #expect(
                told.filter { $0.peer == peer }.map(\.kind) == [
                    .peerState, .peerState, .channelOpen, .channelOpen, .connector,
                ])
            #expect(!seen.dropLast(told.count).contains { $0.peer == peer })
        }
    }

    @Test func refuseMalformedMessagesAndIgnoreLateOnes() throws {
        let trip = try Trip(try Host(), try Trip.server()) { $0.usesTickets = false }
        try trip.reference.connect()
        func message(_ text: String, _ exchange: Int64) throws {
            try trip.reference.message(Array(text.utf8).span.bytes, exchange: exchange)
        }
        for text in ["", "{", "[]", "{}", #"{"type":"offer","sdp":"v=0"}"#, #"{"type":"answer","sdp":"nonsense"}"#] {
            #expect(throws: Failure.self) { try message(text, 1) }
        }
        try message(#"{"candidate":null}"#, 1)
        try message(#"{"candidate":null}"#, 99)
        try trip.reference.signalingFailed(exchange: 99)
        try trip.reference.signalingFailed(exchange: .min)
        try trip.exchange()
        #expect(try trip.state(.connected).status == .ok)
    }

    @Test func takeCandidatesBeforeAndAfterTheAnswer() throws {
        let trip = try Trip(try Host(), try Trip.server()) { $0.usesTickets = false }
        try trip.reference.connect()
        func candidate(_ address: String) throws {
            let text = #"{"candidate":{"candidate":"candidate:7 1 udp 1 \#(address) 9 typ host","sdpMid":"0"}}"#
            try trip.reference.message(Array(text.utf8).span.bytes, exchange: 1)
        }
        try candidate("192.0.2.1")
        let offer = try trip.client.next(.signal)
        #expect(offer.number == 1)
        var configuration = PeerConfiguration()
        configuration.channels = [Trip.chat()]
        let peer = try trip.server.answer(offer.text, configuration)
        let answer = try trip.server.next(.answer) { $0.peer == peer }
        try trip.reference.message(answer.bytes.span.bytes, exchange: 1)
        try candidate("2001:db8::1")
        // A second answer is nobody's.
        try trip.reference.message(answer.bytes.span.bytes, exchange: 1)
        _ = try trip.state(.connected)
        let kept = try trip.cache()
        #expect(kept.contains(" 192.0.2.1 ") && kept.contains(" 127.0.0.1 "))
        // What is of an exchange that is over changes nothing.
        try candidate("2001:db8::2")
        try trip.connect(.fast)
        #expect(try !trip.cache().contains("2001:db8::2"))
    }

    @Test func failWithAnAnswerThatDoesNotFit() throws {
        let trip = try Trip(try Host(), try Trip.server()) { $0.usesTickets = false }
        try trip.reference.connect()
        try trip.exchange { $0.replacing("a=setup:passive", with: "a=setup:actpass") }
        #expect(try trip.attempt(.failed, .normal).status == .unacceptable)
        #expect(try trip.state(.failed).status == .unacceptable)
        #expect(try trip.cache() == "")
        try trip.connect(.normal)
    }

    @Test func forget() throws {
        let trip = try Trip(try Host(), try Trip.server())
        try trip.connect(.normal)
        #expect(try trip.cache() != "")
        try trip.reference.forget()
        #expect(try trip.cache() == "")
        let again = try trip.connect(.normal)
        #expect(again.status == .ok)
    }

    @Test func endWithTheirLastEvent() throws {
        let trip = try Trip(try Host(), try Trip.server())
        let connection = try trip.connect(.normal)
        let reference = try trip.reference
        try reference.close()
        #expect(throws: Failure.self) { try reference.close() }
        _ = try trip.state(.closed)
        #expect(ConnectorReference(trip.connector) == nil)
        _ = try trip.client.state(.closed, of: connection.peer)
        // While an attempt is under way, too.
        let other = try Trip(trip.client, trip.server) { $0.key = "other" }
        try other.reference.connect()
        _ = try other.client.next(.signal) { $0.connector == other.connector }
        try other.reference.close()
        #expect(try other.attempt(.stopped, .normal).status == .closed)
        _ = try other.state(.closed)
        // Nothing of that peer was ever told.
        #expect(try trip.client.drained().allSatisfy { $0.peer == 0 || $0.peer == connection.peer })
    }

    @Test func hideTheirAttempts() throws {
        let trip = try Trip(try Host(), try Trip.server())
        let first = try trip.connect(.normal)
        // Both connect; one of them wins, and the other is never seen.
        try trip.reference.connect()
        try trip.exchange()
        let second = try trip.state(.connected)
        _ = try trip.client.state(.closed, of: first.peer)
        let channel = try trip.client.next(.channelOpen) { $0.peer == second.peer }
        #expect(send(channel.channel, [3]) == .ok)
        #expect(try trip.server.next(.message).bytes == [3])
        #expect(try trip.client.drained().allSatisfy { [0, first.peer, second.peer].contains($0.peer) })
        #expect(trip.client.engine.statistics().peers == 1)
    }

    @Test func hearQuicklyThatTheirTicketIsRefused() throws {
        let server = try Trip.server()
        let trip = try Trip(try Host(), server) {
            $0.policy = .fallback
            // What ends the attempt is the server's word.
            $0.fastTimeout = .seconds(1000)
        }
        let connection = try trip.connect(.normal)
        try PeerReference(connection.peer)?.close()
        _ = try trip.state(.lost)
        server.engine.setFastReload(.off)
        _ = try server.next(.fastReload)
        try trip.reference.connect()
        #expect(try trip.attempt(.failed, .zeroSignaling).status == .ticketRefused)
        try trip.exchange()
        #expect(try trip.attempt(.failed, .fast).status == .sessionUnknown)
        #expect(try trip.state(.connected).detailKind == Connector.Mode.normal.rawValue)
    }

    @Test func findAnotherServerWhereTheirsIsGone() throws {
        let client = try Host()
        let trip = try Trip(client, try Trip.server()) { $0.fastTimeout = .milliseconds(300) }
        let connection = try trip.connect(.normal)
        #expect(trip.server.engine.destroy() == .ok)
        _ = try trip.state(.lost)
        _ = try client.state(.closed, of: connection.peer)
        try trip.reference.connect()
        // What the first server gave out leads nowhere; the second one answers the offer.
        let second = try Trip.server()
        let offer = try client.next(.signal)
        var configuration = PeerConfiguration()
        configuration.channels = [Trip.chat()]
        let peer = try second.answer(offer.text, configuration)
        let answer = try second.next(.answer) { $0.peer == peer }
        try trip.reference.message(answer.bytes.span.bytes, exchange: offer.number)
        #expect(try trip.state(.connected).detailKind == Connector.Mode.normal.rawValue)
        #expect(try trip.attempt(.failed, .fast).status == .sessionUnknown)
    }

    @Test func doNothingFastWhereThatIsSwitchedOff() throws {
        let trip = try Trip(try Host(), try Trip.server())
        try trip.connect(.normal)
        let kept = try trip.cache()
        trip.client.engine.setFastReload(.partial)
        try trip.reference.connect()
        #expect(try trip.attempt(.skipped, .zeroSignaling).status == .notCached)
        _ = try trip.attempt(.skipped, .fast)
        #expect(try trip.attempt(.skipped, .zeroSignaling).status == .fastDisabled)
        #expect(try trip.attempt(.skipped, .fast).status == .fastDisabled)
        #expect(try trip.cache() == kept)
    }

    @Test func seeThatTheNetworkHasChanged() throws {
        let trip = try Trip(try Host(), try Trip.server()) { $0.usesTickets = false }
        try trip.connect(.normal)
        try trip.client.engine.setAddresses([IPAddress("127.0.0.1")!, IPAddress("127.0.0.2")!])
        _ = try trip.client.next(.addresses)
        try trip.reference.connect()
        _ = try trip.attempt(.skipped, .fast)
        #expect(try trip.attempt(.skipped, .fast).status == .networkChanged)
        #expect(try trip.cache() == "")
    }

    @Test func writeTheLinesOfTheLog() throws {
        let client = try Host { $0.logLevel = .info }
        let trip = try Trip(client, try Trip.server()) { $0.usesTickets = false }
        func line(_ start: String) throws -> String { try client.next(.log) { $0.text.hasPrefix(start) }.text }
        try trip.connect(.normal)
        let token = try #require(try trip.cache().member("sessionId"))
        let shown = String(token.dropFirst("session-".count).prefix(8))
        #expect(
            try line("[NORMAL]").wholeMatch(
                of: #/\[NORMAL\] Session=(.{8}) Mode=normal Protocol=ipv4 Duration=\d+ms Result=success/#)?.1
                == shown[...])
        try trip.connect(.fast)
        #expect(
            try line("[CACHE]").wholeMatch(
                of: #/\[CACHE\] Action=load Age=\d+s Valid=true IPv6=0 IPv4=1 Protocol=ipv4/#) != nil)
        #expect(
            try line("[FAST_RELOAD]").contains(#/ Mode=fast Protocol=ipv4 Duration=\d+ms Result=success$/#))
        let metrics = client.engine.series.client
        #expect(metrics.cacheHits.reading == 1 && metrics.cacheMisses.reading == 1)
        #expect(metrics.fastAttempts[.ipv4].reading == 1 && metrics.connections[.fast, .ipv4].reading.count == 1)
        #expect(metrics.fallbacks[AttemptedFamily(isIPv6: nil).position][.notCached].reading == 1)
        for event in try client.drained() where event.kind == .log { #expect(!event.text.contains(token)) }
    }

    @Test func keepIPv6First() throws {
        func both(_ configuration: inout Configuration) {
            configuration.addresses = [IPAddress("127.0.0.1")!, IPAddress("::1")!]
        }
        // Not every machine that runs tests has IPv6.
        guard let client = try? Host({ both(&$0) }), let server = try? Trip.server({ both(&$0) }),
            (try? AddressBook.interfaces())?.contains(where: { $0.isIPv6 && !$0.isLinkLocal }) == true
        else { return }
        let trip = try Trip(client, server)
        for mode in [Connector.Mode.normal, .zeroSignaling] {
            try trip.connect(mode)
            let kept = try trip.cache()
            #expect(kept.contains(" ::1 ") && kept.contains(" 127.0.0.1 "))
            #expect(kept.member("lastSuccessfulProtocol") == "ipv6" && kept.contains("\"lastConnectedIPv6\":true"))
        }
    }

    /// What the server sends as soon as it can: none of it is lost, and none comes too early.
    @Test(arguments: 1...20)
    func deliverWhatCameBeforeTheyWon(turn: Int) throws {
        let trip = try Trip(try Host(), try Trip.server())
        let first = try trip.connect(.normal)
        _ = try trip.server.next(.channelOpen)
        try trip.reference.connect()
        // The server talks as soon as it can, perhaps before the client's side is done.
        let opened = try trip.server.next(.channelOpen)
        for number in 0..<50 as Range<UInt8> { #expect(send(opened.channel, [number]) == .ok) }
        let connected = try trip.state(.connected)
        #expect(connected.peer != first.peer)
        for number in 0..<50 as Range<UInt8> {
            #expect(try trip.client.next(.message) { $0.peer == connected.peer }.bytes == [number])
        }
    }

    @Test func mayBeManyAtOnce() throws {
        let (client, server) = (try Host(), try Trip.server())
        let trips = try (0..<20).map { index in
            try Trip(client, server) { $0.key = "key \(index)" }
        }
        for round in 0..<2 {
            for trip in trips { try trip.reference.connect() }
            if round == 0 { for trip in trips { try trip.exchange() } }
            for trip in trips { #expect(try trip.state(.connected).status == .ok) }
        }
        for trip in trips { try trip.reference.close() }
        for trip in trips { _ = try trip.state(.closed) }
    }

    @Test func areRefusedTheControlChannelsID() throws {
        let client = try Host()
        var configuration = ConnectorConfiguration()
        var channel = ChannelConfiguration()
        channel.negotiatedID = 255
        configuration.peer.channels = [channel]
        #expect(throws: Failure.self) { try client.engine.createConnector(configuration) }
        configuration.usesTickets = false
        _ = try client.engine.createConnector(configuration)
        configuration.key = ""
        #expect(throws: Failure.self) { try client.engine.createConnector(configuration) }
    }
}
