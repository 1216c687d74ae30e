import DataChannel
import SCTP
import Testing
import Wire

@Suite struct Opening {
    @Test func inBandOpensAtBothEnds() throws {
        let pair = Pair()
        let parameters = ChannelParameters(
            label: "chat", subprotocol: "v1", ordered: false, reliability: .retransmits(3), priority: 512)
        let id = try pair.client.channels.open(parameters, now: pair.now)
        pair.start()
        pair.settle()
        #expect(pair.client.seen == [.connected, .opened(id, "chat", stream: 0, isRemote: false)])
        #expect(pair.server.seen.count == 2)
        let remote = try #require(pair.server.openedIDs.first)
        #expect(pair.server.seen.last == .opened(remote, "chat", stream: 0, isRemote: true))
        #expect(pair.server.parameters[remote] == parameters)
    }

    @Test func streamsAreNumberedByTheRole() throws {
        let pair = Pair()
        for label in ["a", "b"] {
            _ = try pair.client.channels.open(ChannelParameters(label: label), now: pair.now)
            _ = try pair.server.channels.open(ChannelParameters(label: label), now: pair.now)
        }
        pair.start()
        pair.settle()
        _ = try pair.server.channels.open(ChannelParameters(label: "c"), now: pair.now)
        pair.settle()
        func streams(_ end: End, remote: Bool) -> [UInt16] {
            end.seen.compactMap { if case .opened(_, _, let stream, remote) = $0 { stream } else { nil } }
        }
        #expect(streams(pair.client, remote: false) == [0, 2] && streams(pair.server, remote: true) == [0, 2])
        #expect(streams(pair.server, remote: false) == [1, 3, 5] && streams(pair.client, remote: true) == [1, 3, 5])
    }

    @Test func openAndDataRideWithTheHandshake() throws {
        let pair = Pair()
        let id = try pair.client.channels.open(ChannelParameters(label: "chat"), now: pair.now)
        try pair.client.channels.send(id, .text, payload("early"), now: pair.now)
        #expect(pair.client.channels.bufferedAmount(id) == 5)
        let start = pair.now
        pair.start()
        pair.run { !pair.server.messages.isEmpty }
        // INIT, INIT ACK, COOKIE ECHO with data: one and a half round trips.
        #expect(pair.server.messages == [Array("early".utf8)])
        #expect(pair.now - start <= pair.delay * 3)
    }

    @Test func openGoesBeforeTheMessagesThatWaited() throws {
        let pair = Pair()
        let first = try pair.client.channels.open(ChannelParameters(), now: pair.now)
        let second = try pair.client.channels.open(ChannelParameters(), now: pair.now)
        for id in [second, first, second] { try pair.client.channels.send(id, .binary, payload([1]), now: pair.now) }
        pair.start(serverHasChannels: false)
        pair.settle()
        for stream: UInt16 in [0, 2] {
            let identifiers = pair.server.raw.compactMap {
                if case .message(let message) = $0, message.stream == stream { message.protocolIdentifier } else { nil }
            }
            #expect(identifiers == (stream == 0 ? [50, 53] : [50, 53, 53]))
        }
    }

    @Test func negotiatedChannelsSendNoControlMessages() throws {
        let pair = Pair()
        let atClient = try pair.client.channels.open(ChannelParameters(label: "a"), negotiatedStream: 7, now: pair.now)
        let atServer = try pair.server.channels.open(ChannelParameters(label: "b"), negotiatedStream: 7, now: pair.now)
        try pair.client.channels.send(atClient, .binary, payload([1]), now: pair.now)
        pair.start()
        pair.settle()
        try pair.server.channels.send(atServer, .binary, payload([2]), now: pair.now)
        pair.settle()
        #expect(
            pair.client.channelEvents == [
                .opened(atClient, "a", stream: 7, isRemote: false), .message(atClient, .binary, [2]),
            ])
        #expect(
            pair.server.channelEvents == [
                .opened(atServer, "b", stream: 7, isRemote: false), .message(atServer, .binary, [1]),
            ])
        #expect(pair.client.association.statistics.messagesSent == 1)
    }

    @Test func messagesWaitForANegotiatedChannelThatIsOpenedLater() throws {
        let pair = Pair()
        let atClient = try pair.client.channels.open(ChannelParameters(), negotiatedStream: 0, now: pair.now)
        pair.start()
        for number in UInt8(1)...5 {
            try pair.client.channels.send(atClient, .binary, payload([number]), now: pair.now)
        }
        pair.settle()
        #expect(pair.server.seen == [.connected])
        let atServer = try pair.server.channels.open(ChannelParameters(), negotiatedStream: 0, now: pair.now)
        pair.settle()
        #expect(pair.server.messages == [[1], [2], [3], [4], [5]] && pair.server.openedIDs == [atServer])
    }

    @Test func usedStreamsAndTooLongTextsAreRefused() throws {
        let pair = Pair()
        let channels = pair.client.channels
        _ = try channels.open(ChannelParameters(), negotiatedStream: 4, now: pair.now)
        #expect(
            failure { () throws(ChannelError) in try channels.open(.init(), negotiatedStream: 4, now: pair.now) }
                == .streamUnavailable)
        #expect(
            failure { () throws(ChannelError) in try channels.open(.init(), negotiatedStream: 65535, now: pair.now) }
                == .streamUnavailable)
        let long = ChannelParameters(label: String(repeating: "x", count: 65536))
        #expect(failure { () throws(ChannelError) in try channels.open(long, now: pair.now) } == .parameterTooLong)
        #expect(
            failure { () throws(ChannelError) in
                try channels.send(ChannelID(number: 99), .text, payload("a"), now: pair.now)
            } == .unknownChannel)
        #expect(channels.count == 1)
    }

    @Test func longestLabelAndProtocolArrive() throws {
        let pair = Pair()
        let parameters = ChannelParameters(
            label: String(repeating: "l", count: 65535), subprotocol: String(repeating: "p", count: 65535))
        _ = try pair.client.channels.open(parameters, now: pair.now)
        pair.start()
        pair.settle()
        #expect(pair.server.parameters.values.first == parameters)
    }

    @Test func limitHoldsForBothSides() throws {
        var limited = ChannelSet.Configuration()
        limited.maximumChannels = 3
        let pair = Pair(server: limited)
        let ids = try (0..<5).map { try pair.client.channels.open(ChannelParameters(label: "\($0)"), now: pair.now) }
        pair.start()
        pair.settle()
        #expect(pair.server.openedIDs.count == 3 && pair.server.channels.count == 3)
        #expect(pair.server.channels.counters.refusedOpens == 2)
        #expect(pair.client.closes == [.closed(ids[3], .remote), .closed(ids[4], .remote)])
        #expect(
            failure { () throws(ChannelError) in try pair.server.channels.open(.init(), now: pair.now) }
                == .tooManyChannels)
        // One gone, one more may come.
        try pair.client.channels.close(ids[0], now: pair.now)
        pair.settle()
        _ = try pair.client.channels.open(ChannelParameters(label: "again"), now: pair.now)
        pair.settle()
        #expect(pair.server.channels.count == 3 && pair.server.openedIDs.count == 4)
    }

    @Test func streamsBeyondThoseOfTheAssociationAreUnavailable() throws {
        var few = Association.Configuration()
        few.inboundStreams = 4
        let pair = Pair(serverAssociation: few)
        let fits = try pair.client.channels.open(ChannelParameters(), negotiatedStream: 3, now: pair.now)
        let beyond = try pair.client.channels.open(ChannelParameters(), negotiatedStream: 9, now: pair.now)
        pair.start()
        pair.settle()
        #expect(pair.client.openedIDs == [fits] && pair.client.closes == [.closed(beyond, .streamUnavailable)])
        _ = try pair.client.channels.open(ChannelParameters(), now: pair.now)
        _ = try pair.client.channels.open(ChannelParameters(), now: pair.now)
        #expect(
            failure { () throws(ChannelError) in try pair.client.channels.open(.init(), now: pair.now) }
                == .streamUnavailable)
    }
}

/// A pair with one open channel.
private func openChannel(
    _ parameters: ChannelParameters = ChannelParameters(label: "chat"), seed: UInt64 = 1,
    channels: ChannelSet.Configuration = .init(), association: Association.Configuration = .init()
) throws -> (pair: Pair, client: ChannelID, server: ChannelID) {
    let pair = Pair(seed: seed, client: channels, server: channels, association: association)
    let id = try pair.client.channels.open(parameters, now: pair.now)
    pair.start()
    pair.settle()
    let remote = try #require(pair.server.openedIDs.first)
    pair.client.seen.removeAll()
    pair.server.seen.removeAll()
    return (pair, id, remote)
}

@Suite struct Messages {
    @Test func textBinaryAndEmptyOnesArriveAsTheyAre() throws {
        let (pair, atClient, atServer) = try openChannel()
        let large = (0..<(1 << 18)).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        let all: [(MessageKind, [UInt8])] = [
            (.text, Array("hällo".utf8)), (.binary, [0, 255]), (.text, []), (.binary, []), (.binary, [0]),
            (.binary, large),
            (.text, [0xFF]),
        ]
        for (kind, bytes) in all {
            try pair.client.channels.send(atClient, kind, payload(bytes), now: pair.now)
            try pair.server.channels.send(atServer, kind, payload(bytes), now: pair.now)
        }
        pair.settle()
        #expect(pair.server.seen == all.map { .message(atServer, $0, $1) })
        #expect(pair.client.seen == all.map { .message(atClient, $0, $1) })
    }

    @Test func largerOnesThanThePeerTakesAreRefused() throws {
        let (pair, atClient, _) = try openChannel()
        let tooLarge = payload([UInt8](repeating: 1, count: 1 << 18 + 1))
        #expect(
            failure { () throws(ChannelError) in
                try pair.client.channels.send(atClient, .binary, tooLarge, now: pair.now)
            } == .tooLarge)
        pair.settle()
        #expect(pair.server.seen == [])
    }

    @Test func bufferedAmountFallsToTheThreshold() throws {
        let (pair, atClient, _) = try openChannel()
        try pair.client.channels.setBufferedAmountLowThreshold(atClient, bytes: 10_000)
        for _ in 0..<20 {
            try pair.client.channels.send(
                atClient, .binary, payload([UInt8](repeating: 1, count: 10_000)), now: pair.now)
        }
        #expect(pair.client.channels.bufferedAmount(atClient) == 200_000)
        pair.run { !pair.client.seen.isEmpty }
        #expect(pair.client.seen == [.low(atClient)])
        #expect(pair.client.channels.bufferedAmount(atClient) <= 10_000)
        pair.settle()
        #expect(pair.client.seen == [.low(atClient)] && pair.client.channels.bufferedAmount(atClient) == 0)
        #expect(pair.server.messages.count == 20)
    }

    @Test func aFullSendBufferSaysWhenToGoOn() throws {
        var small = Association.Configuration()
        small.sendBuffer = 100_000
        let (pair, atClient, _) = try openChannel(association: small)
        var sent = 0
        while sent < 1000,
            failure({ () throws(ChannelError) in
                try pair.client.channels.send(
                    atClient, .binary, payload([UInt8](repeating: 1, count: 1000)), now: pair.now)
            }) == nil
        { sent += 1 }
        #expect(sent > 50 && sent < 101)
        pair.run { pair.client.seen.contains(.sendBufferAvailable) }
        try pair.client.channels.send(atClient, .binary, payload([1]), now: pair.now)
        pair.settle()
        #expect(pair.server.messages.count == sent + 1)
    }

    @Test func pendingOnesBeforeTheAssociationAreBounded() throws {
        var configuration = ChannelSet.Configuration()
        configuration.maximumPendingBytes = 10_000
        let pair = Pair(client: configuration)
        let id = try pair.client.channels.open(ChannelParameters(), now: pair.now)
        var sent = 0
        while sent < 100,
            failure({ () throws(ChannelError) in
                try pair.client.channels.send(id, .binary, payload([UInt8](repeating: 1, count: 1000)), now: pair.now)
            }) == nil
        { sent += 1 }
        #expect(sent == 10)
        pair.start()
        pair.settle()
        #expect(pair.server.messages.count == 10 && pair.client.seen.contains(.sendBufferAvailable))
    }

    /// RFC 8832 section 6.
    @Test func unorderedOnesAreSentOrderedUntilTheAcknowledgement() throws {
        let pair = Pair()
        let id = try pair.client.channels.open(ChannelParameters(ordered: false), now: pair.now)
        pair.start(serverHasChannels: false)
        try pair.client.channels.send(id, .binary, payload([1]), now: pair.now)
        pair.settle()
        func received() -> [(ordered: Bool, identifier: UInt32)] {
            pair.server.raw.compactMap {
                if case .message(let message) = $0 { (message.ordered, message.protocolIdentifier) } else { nil }
            }
        }
        #expect(received().map(\.identifier) == [50, 53] && received().map(\.ordered) == [true, true])
        try pair.server.association.send(stream: 0, protocolIdentifier: 50, payload: payload([2]), now: pair.now)
        pair.settle()
        try pair.client.channels.send(id, .binary, payload([2]), now: pair.now)
        pair.settle()
        #expect(received().map(\.ordered) == [true, true, false])
    }

    @Test func anyMessageCountsAsAcknowledgement() throws {
        let pair = Pair()
        let id = try pair.client.channels.open(ChannelParameters(ordered: false), now: pair.now)
        pair.start(serverHasChannels: false)
        pair.settle()
        try pair.server.association.send(stream: 0, protocolIdentifier: 51, payload: payload("x"), now: pair.now)
        pair.settle()
        try pair.client.channels.send(id, .binary, payload([2]), now: pair.now)
        pair.settle()
        guard case .message(let message) = pair.server.raw.last else {
            Issue.record("no message")
            return
        }
        #expect(!message.ordered)
    }

    @Test func deprecatedAndUnknownIdentifiersAreTolerated() throws {
        let pair = Pair()
        pair.start(serverHasChannels: false)
        pair.settle()
        let id = try pair.client.channels.open(ChannelParameters(), negotiatedStream: 1, now: pair.now)
        for identifier: UInt32 in [52, 54, 0, 99, 58, 53] {
            try pair.server.association.send(
                stream: 1, protocolIdentifier: identifier, payload: payload([UInt8(identifier)]), now: pair.now)
        }
        pair.settle()
        #expect(
            pair.client.channelEvents.dropFirst() == [
                .message(id, .binary, [52]), .message(id, .text, [54]), .message(id, .binary, [53]),
            ])
        #expect(pair.client.channels.counters.droppedMessages == 3)
    }
}

@Suite struct Closing {
    @Test func fromEitherSideEndsBothAfterWhatWasSent() throws {
        for clientCloses in [true, false] {
            let (pair, atClient, atServer) = try openChannel()
            let closer = clientCloses ? pair.client : pair.server
            let other = clientCloses ? pair.server : pair.client
            let (closerID, otherID) = clientCloses ? (atClient, atServer) : (atServer, atClient)
            try closer.channels.send(closerID, .binary, payload([UInt8](repeating: 7, count: 100_000)), now: pair.now)
            try closer.channels.close(closerID, now: pair.now)
            #expect(
                failure { () throws(ChannelError) in
                    try closer.channels.send(closerID, .text, payload("late"), now: pair.now)
                } == .closed)
            pair.settle()
            #expect(other.messages.count == 1 && other.seen.last == .closed(otherID, .remote))
            #expect(closer.seen == [.closed(closerID, .local)])
            #expect(pair.client.channels.count == 0 && pair.server.channels.count == 0)
            #expect(
                failure { () throws(ChannelError) in try closer.channels.close(closerID, now: pair.now) }
                    == .unknownChannel)
        }
    }

    @Test func fromBothSidesAtOnce() throws {
        let (pair, atClient, atServer) = try openChannel()
        try pair.client.channels.close(atClient, now: pair.now)
        try pair.client.channels.close(atClient, now: pair.now)
        try pair.server.channels.close(atServer, now: pair.now)
        pair.settle()
        #expect(pair.client.seen == [.closed(atClient, .local)] && pair.server.seen == [.closed(atServer, .local)])
    }

    @Test func whatComesAfterClosingIsDropped() throws {
        let (pair, atClient, atServer) = try openChannel()
        try pair.server.channels.send(atServer, .text, payload("crossing"), now: pair.now)
        try pair.client.channels.close(atClient, now: pair.now)
        pair.settle()
        #expect(pair.client.seen == [.closed(atClient, .local)] && pair.client.channels.counters.droppedMessages == 1)
    }

    @Test func streamsAreUsedAgainOnlyAfterBothDirectionsAreReset() throws {
        let (pair, atClient, _) = try openChannel()
        try pair.client.channels.close(atClient, now: pair.now)
        #expect(
            failure { () throws(ChannelError) in
                try pair.client.channels.open(.init(), negotiatedStream: 0, now: pair.now)
            } == .streamUnavailable)
        pair.settle()
        let again = try pair.client.channels.open(ChannelParameters(label: "again"), negotiatedStream: 0, now: pair.now)
        let atServer = try pair.server.channels.open(
            ChannelParameters(label: "again"), negotiatedStream: 0, now: pair.now)
        #expect(again != atClient)
        try pair.client.channels.send(again, .text, payload("new"), now: pair.now)
        try pair.server.channels.send(atServer, .text, payload("new too"), now: pair.now)
        pair.settle()
        #expect(pair.server.seen.last == .message(atServer, .text, Array("new".utf8)))
        #expect(pair.client.seen.last == .message(again, .text, Array("new too".utf8)))
    }

    @Test func aPeerThatDoesNotResetItsSideKeepsTheStream() throws {
        let pair = Pair()
        let id = try pair.client.channels.open(ChannelParameters(), negotiatedStream: 3, now: pair.now)
        pair.start(serverHasChannels: false)
        pair.settle()
        try pair.client.channels.close(id, now: pair.now)
        pair.settle()
        #expect(pair.client.closes == [.closed(id, .local)])
        try pair.server.association.send(stream: 3, protocolIdentifier: 53, payload: payload([1]), now: pair.now)
        pair.settle()
        #expect(pair.client.messages == [] && pair.client.channels.counters.droppedMessages == 1)
        #expect(
            failure { () throws(ChannelError) in
                try pair.client.channels.open(.init(), negotiatedStream: 3, now: pair.now)
            } == .streamUnavailable)
        pair.server.association.resetStreams([3], now: pair.now)
        pair.settle()
        #expect(
            failure { () throws(ChannelError) in
                try pair.client.channels.open(.init(), negotiatedStream: 3, now: pair.now)
            } == nil)
        #expect(pair.client.closes.count == 1)
    }

    /// The peer has seen both resets, our side not yet the answer to its own.
    @Test func aNewChannelOnTheStreamWaitsForTheOldOnesEnd() throws {
        let pair = Pair()
        let open = { ControlMessage.open(ChannelParameters(label: $0)).encoded()! }
        pair.start(serverHasChannels: false)
        pair.settle()
        try pair.server.association.send(stream: 1, protocolIdentifier: 50, payload: open("old"), now: pair.now)
        pair.settle()
        let old = try #require(pair.client.openedIDs.first)
        pair.client.polls = false
        pair.server.association.resetStreams([1], now: pair.now)
        pair.settle()
        try pair.server.association.send(stream: 1, protocolIdentifier: 50, payload: open("new"), now: pair.now)
        try pair.server.association.send(stream: 1, protocolIdentifier: 51, payload: payload("hello"), now: pair.now)
        pair.settle()
        pair.client.polls = true
        pair.settle()
        let new = try #require(pair.client.openedIDs.last)
        #expect(
            pair.client.channelEvents.dropFirst() == [
                .closed(old, .remote), .opened(new, "new", stream: 1, isRemote: true),
                .message(new, .text, Array("hello".utf8)),
            ])
        // And it is acknowledged.
        let last = pair.server.raw.last { if case .message = $0 { true } else { false } }
        guard case .message(let message) = last else {
            Issue.record("no acknowledgement")
            return
        }
        #expect(message.payload.copied() == [2] && message.stream == 1)
    }

    @Test func beforeThereIsAnAssociation() throws {
        let pair = Pair()
        let id = try pair.client.channels.open(ChannelParameters(), now: pair.now)
        try pair.client.channels.send(id, .text, payload("never"), now: pair.now)
        try pair.client.channels.close(id, now: pair.now)
        pair.start()
        pair.settle()
        #expect(pair.client.seen.contains(.closed(id, .local)) && pair.client.channels.count == 0)
        #expect(pair.server.seen == [.connected])
    }

    @Test func beforeTheAssociationConnects() throws {
        let pair = Pair()
        let id = try pair.client.channels.open(ChannelParameters(label: "short"), now: pair.now)
        try pair.client.channels.send(id, .text, payload("last words"), now: pair.now)
        pair.start()
        try pair.client.channels.close(id, now: pair.now)
        pair.settle()
        #expect(pair.client.closes == [.closed(id, .local)])
        #expect(pair.server.messages == [Array("last words".utf8)] && pair.server.closes.count == 1)
    }

    @Test func aPeerThatStartsAnewEndsAllAndGetsNewOnes() throws {
        let (pair, atClient, _) = try openChannel()
        pair.restartServer(seed: 77)
        pair.settle()
        #expect(pair.client.seen == [.closed(atClient, .associationEnded)])
        let again = try pair.client.channels.open(ChannelParameters(label: "again"), now: pair.now)
        try pair.client.channels.send(again, .text, payload("hello"), now: pair.now)
        pair.settle()
        #expect(pair.client.openedIDs == [again] && pair.server.messages == [Array("hello".utf8)])
    }

    @Test func endOfTheAssociationEndsAll() throws {
        let (pair, atClient, atServer) = try openChannel()
        pair.client.association.abort(now: pair.now)
        pair.settle()
        #expect(pair.client.seen == [.closed(atClient, .associationEnded), .over])
        #expect(pair.server.seen == [.closed(atServer, .associationEnded), .over])
        #expect(failure { () throws(ChannelError) in try pair.client.channels.open(.init(), now: pair.now) } == .closed)
    }
}

/// What a broken or hostile peer may send: here the server is a bare association.
@Suite struct Violations {
    private func connected(_ configuration: ChannelSet.Configuration = .init()) -> Pair {
        let pair = Pair(client: configuration)
        pair.start(serverHasChannels: false)
        pair.settle()
        return pair
    }

    private func open(_ label: String = "x") -> Payload {
        ControlMessage.open(ChannelParameters(label: label)).encoded()!
    }

    private func send(_ pair: Pair, stream: UInt16, _ payload: Payload, as identifier: UInt32 = 50) throws {
        try pair.server.association.send(
            stream: stream, protocolIdentifier: identifier, payload: payload, now: pair.now)
        pair.settle()
    }

    private func resets(_ pair: Pair) -> [UInt16] {
        var all: [UInt16] = []
        for event in pair.server.raw { if case .streamsReset(let streams) = event { all += streams } }
        return all
    }

    @Test func openOnOurStreamsIsRefused() throws {
        let pair = connected()
        try send(pair, stream: 4, open())
        #expect(pair.client.channelEvents == [] && resets(pair) == [4])
        #expect(pair.client.channels.counters.refusedOpens == 1 && pair.client.channels.count == 0)
    }

    @Test(
        arguments: [[3], [3, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0xFF]] as [[UInt8]])
    func malformedOpenIsRefused(bytes: [UInt8]) throws {
        let pair = connected()
        try send(pair, stream: 1, payload(bytes))
        #expect(pair.client.channelEvents == [] && resets(pair) == [1])
        // When both directions are reset the stream is as good as new.
        pair.server.association.resetStreams([1], now: pair.now)
        pair.settle()
        try send(pair, stream: 1, open("good"))
        #expect(pair.client.openedIDs.count == 1)
    }

    @Test func aRefusedStreamMayBeUsedAgainAtOnce() throws {
        let pair = connected()
        try send(pair, stream: 1, payload([3]))
        pair.client.polls = false
        pair.server.association.resetStreams([1], now: pair.now)
        pair.settle()
        try send(pair, stream: 1, open("good"))
        pair.client.polls = true
        pair.settle()
        #expect(pair.client.openedIDs.count == 1)
    }

    @Test func secondOpenClosesTheChannel() throws {
        let pair = connected()
        try send(pair, stream: 1, open())
        let id = try #require(pair.client.openedIDs.first)
        try send(pair, stream: 1, open())
        #expect(resets(pair) == [1])
        pair.server.association.resetStreams([1], now: pair.now)
        pair.settle()
        #expect(pair.client.closes == [.closed(id, .protocolViolation)])
    }

    @Test func strayAndUnknownControlMessagesAreIgnored() throws {
        let pair = connected()
        for bytes: [UInt8] in [[2], [0], [77, 1]] { try send(pair, stream: 1, payload(bytes)) }
        #expect(pair.client.channelEvents == [] && resets(pair) == [])
        #expect(pair.client.channels.counters.ignoredControlMessages == 3)
    }

    @Test func dataThatNobodyOpensForIsBounded() throws {
        var configuration = ChannelSet.Configuration()
        configuration.maximumEarlyBytes = 2000
        let pair = connected(configuration)
        for _ in 0..<20 { try send(pair, stream: 1, payload([UInt8](repeating: 0, count: 500)), as: 53) }
        #expect(resets(pair) == [1] && pair.client.channels.counters.droppedMessages == 17)
        #expect(pair.client.channelEvents == [])
    }

    @Test func resetsOfUnusedStreamsDoNothing() throws {
        let pair = connected()
        try send(pair, stream: 5, payload([1]), as: 53)
        pair.server.association.resetStreams([5], now: pair.now)
        pair.settle()
        _ = try pair.client.channels.open(ChannelParameters(), negotiatedStream: 5, now: pair.now)
        pair.settle()
        #expect(pair.client.messages == [] && pair.client.channels.count == 1)
    }

    @Test func manyOpensAreBounded() throws {
        var configuration = ChannelSet.Configuration()
        configuration.maximumChannels = 10
        let pair = connected(configuration)
        for stream in stride(from: UInt16(1), to: 400, by: 2) {
            try pair.server.association.send(stream: stream, protocolIdentifier: 50, payload: open(), now: pair.now)
        }
        pair.run(for: .seconds(20))
        #expect(pair.client.channels.count == 10 && pair.client.channels.counters.refusedOpens == 190)
        #expect(Set(resets(pair)).count == 190)
    }
}
