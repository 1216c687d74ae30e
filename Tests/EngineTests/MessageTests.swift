import Testing
import Wire

@testable import Engine

@Suite struct Messages {
    /// What the answerer gets comes back to the offerer as it was.
    @Test(arguments: ["::1", "127.0.0.1"])
    func comeBackFromAnEcho(address: String) throws {
        let offerer = try Host { $0.addresses = [IPAddress(address)!] }
        let answerer = try Host { $0.addresses = [IPAddress(address)!] }
        let link = try Link.connected(offerer, answerer)
        let large = (0..<262_144).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        let messages: [(isText: Bool, bytes: [UInt8])] = [
            (true, Array("grüße".utf8)), (false, [0]), (true, []), (false, []), (false, large),
            (true, [UInt8](repeating: 0x61, count: 65_537)),
        ]
        for message in messages {
            #expect(send(link.channel, message.bytes, isText: message.isText) == .ok)
            let arrived = try answerer.next(.message)
            #expect(arrived.channel == link.remoteChannel && arrived.peer == link.answering)
            #expect(arrived.detailKind == (message.isText ? 1 : 2))
            #expect(arrived.bytes == message.bytes)
            #expect(send(link.remoteChannel, arrived.bytes, isText: arrived.detailKind == 1) == .ok)
            let back = try offerer.next(.message)
            #expect(
                back.channel == link.channel && back.bytes == message.bytes && back.detailKind == arrived.detailKind)
        }
        try PeerReference(link.offering)?.queryStatistics(tag: 9)
        let figures = try offerer.next(.statistics)
        #expect(figures.tag == 9 && figures.status == .ok)
        #expect(figures.bytes.count == 384)
        try link.close()
    }

    @Test func tagsAndFlagsOfChannels() throws {
        let (offerer, answerer) = (try Host(), try Host())
        var signaling = Link.Signaling()
        signaling.channel.label = "données"
        signaling.channel.subprotocol = "chat"
        signaling.channel.isOrdered = false
        signaling.channel.reliability = .retransmits(0)
        signaling.channel.tag = 77
        signaling.peer.tag = 5
        var link = Link(offerer, answerer)
        try link.negotiate(signaling)
        let own = try offerer.next(.channelOpen)
        #expect(own.tag == 77 && own.flags == Event.unordered | Event.partial && own.channel == link.channel)
        let remote = try answerer.next(.channelOpen)
        #expect(remote.tag == 0 && remote.flags == Event.unordered | Event.partial | Event.remote)
        #expect(remote.text == "données" && remote.extraText == "chat" && remote.number == own.number)
        #expect(try answerer.state(.connected, of: link.answering).tag == 5)
        // Closed by the one side, it ends at both, and its handles with it.
        #expect(ChannelReference(link.channel)?.close() == .ok)
        #expect(ChannelReference(link.channel)?.close() != .ok)
        #expect(try offerer.next(.channelClosed).tag == 77)
        #expect(try answerer.next(.channelClosed).status == .ok)
        #expect(send(link.channel, [1]) == .invalidHandle)
        #expect(send(remote.channel, [1]) == .invalidHandle)
    }

    /// More than the peer keeps for itself before there is a connection, and on several channels more than the
    /// association takes: all of it arrives, in order.
    @Test func sentBeforeTheConnectionArriveAllAndInOrder() throws {
        let (offerer, answerer) = (try Host(), try Host())
        var link = Link(offerer, answerer)
        var channels: [UInt64] = []
        // Through a look at the peer between its making and its offer.
        link.offering = try offerer.engine.createPeer(PeerConfiguration())
        let peer = try #require(PeerReference(link.offering))
        for number in 0..<3 {
            var configuration = ChannelConfiguration()
            configuration.label = "\(number)"
            channels.append(try peer.openChannel(configuration))
        }
        let count = 60
        for index in 0..<count {
            for channel in channels {
                #expect(send(channel, [UInt8](repeating: UInt8(index), count: 40_000)) == .ok)
            }
        }
        for channel in channels { #expect(ChannelReference(channel)?.close() == .ok) }
        try peer.offer(tag: 0)
        link.answering = try answerer.answer(try offerer.next(.offer).text)
        try peer.accept(Array(try answerer.next(.answer).text.utf8).span.bytes, tag: 0)
        var seen: [UInt64: Int] = [:]
        for _ in 0..<count * 3 {
            let event = try answerer.next(.message)
            #expect(event.bytes.count == 40_000 && event.bytes.first == UInt8(seen[event.channel, default: 0]))
            seen[event.channel, default: 0] += 1
        }
        #expect(seen.values.allSatisfy { $0 == count } && seen.count == 3)
        for _ in channels { #expect(try offerer.next(.channelClosed).status == .ok) }
    }

    @Test func waitForAHostThatDoesNotTakeThem() throws {
        let offerer = try Host { $0.sendHighWater = 1 << 20 }
        let answerer = try Host {
            $0.receiveWindow = 1 << 19
            $0.maximumMessageSize = 1 << 16
        }
        let link = try Link.connected(offerer, answerer)
        // The answering host does not poll: sooner or later nothing goes any more.
        var sent = 0
        var payload = [UInt8](repeating: 7, count: 16_384)
        func message(_ index: Int) -> [UInt8] {
            payload[0] = UInt8(truncatingIfNeeded: index)
            payload[1] = UInt8(truncatingIfNeeded: index >> 8)
            return payload
        }
        var isFull = false
        while !isFull {
            switch send(link.channel, message(sent)) {
            case .ok: sent += 1
            case .wouldBlock:
                // Full for now; it is for good if no room comes for a while.
                isFull = (try? offerer.next(.bufferedLow, seconds: 0.5)) == nil
            case let other:
                Issue.record("\(other)")
                return
            }
            try #require(sent < 5000)
        }
        // What is held for the host who does not take it is bounded by its window, give or take a message and what
        // SCTP received already.
        #expect(sent * payload.count < 24 << 20)
        // It takes them, and holds the batches back: still nothing is lost, and the sender waits.
        answerer.releasesAtOnce = false
        for index in 0..<20 { #expect(try answerer.next(.message).bytes.prefix(2) == message(index).prefix(2)) }
        answerer.releasesAtOnce = true
        answerer.release()
        for index in 20..<sent { #expect(try answerer.next(.message).bytes == message(index)) }
        _ = try offerer.next(.bufferedLow)
        #expect(send(link.channel, [1, 2, 3]) == .ok)
        #expect(try answerer.next(.message).bytes == [1, 2, 3])
    }

    /// What arrived before the end of a connection is the host's, however slowly it takes it.
    @Test func outliveTheConnection() throws {
        let offerer = try Host()
        let answerer = try Host {
            $0.receiveWindow = 1 << 16
            $0.maximumMessageSize = 1 << 16
        }
        let link = try Link.connected(offerer, answerer)
        let channel = try #require(ChannelReference(link.channel))
        channel.setLowWater(0)
        for index in 0..<14 { #expect(send(link.channel, [UInt8](repeating: UInt8(index), count: 8000)) == .ok) }
        while channel.buffered > 0 { _ = try offerer.next(.bufferedLow) }
        try PeerReference(link.offering)?.close()
        answerer.releasesAtOnce = false
        #expect(try answerer.state(.closed, of: link.answering).status == .peerGone)
        for index in 0..<14 { #expect(try answerer.next(.message).bytes.first == UInt8(index)) }
        answerer.release()
    }

    @Test func tooLargeForTheOtherSideAreRefused() throws {
        let offerer = try Host()
        let answerer = try Host { $0.maximumMessageSize = 1000 }
        let link = try Link.connected(offerer, answerer)
        #expect(send(link.channel, [UInt8](repeating: 1, count: 1001)) == .tooLarge)
        #expect(send(link.channel, [UInt8](repeating: 1, count: 1000)) == .ok)
        #expect(try answerer.next(.message).bytes.count == 1000)
    }

    @Test func ofTheLargestConfigurableSizeArrive() throws {
        let offerer = try Host()
        let answerer = try Host { $0.maximumMessageSize = Configuration.messageSizeLimit }
        let link = try Link.connected(offerer, answerer)
        let bytes = [UInt8](repeating: 0xA5, count: Configuration.messageSizeLimit)
        #expect(send(link.channel, bytes) == .ok)
        #expect(try answerer.next(.message).bytes == bytes)
        #expect(send(link.channel, bytes + [0]) == .tooLarge)
    }

    /// A message that goes out at once has been above the mark, too.
    @Test func everyFallToTheLowWaterMarkIsTold() throws {
        let (offerer, answerer) = (try Host(), try Host())
        let link = try Link.connected(offerer, answerer)
        ChannelReference(link.channel)?.setLowWater(0)
        for index in 0..<50 {
            #expect(send(link.channel, [UInt8(index)]) == .ok)
            #expect(try offerer.next(.bufferedLow).channel == link.channel)
        }
        #expect(ChannelReference(link.channel)?.buffered == 0)
    }

    /// The other side opens channels with long names, and the host does not ask: it costs no more than messages would.
    @Test func channelsOpenedByTheOtherSideCountAsMessagesDo() throws {
        let offerer = try Host()
        let answerer = try Host {
            $0.receiveWindow = 1 << 16
            $0.maximumMessageSize = 1 << 16
        }
        let link = try Link.connected(offerer, answerer)
        _ = try answerer.next(.session)
        let peer = try #require(PeerReference(link.offering))
        var configuration = ChannelConfiguration()
        configuration.label = String(repeating: "n", count: 8000)
        let count = 100
        for _ in 0..<count { _ = try peer.openChannel(configuration) }
        for _ in 0..<count { _ = try offerer.next(.channelOpen) }
        while answerer.engine.statistics().eventsQueued < 8 { try offerer.take(milliseconds: 1) }
        for _ in 0..<100 {
            #expect(answerer.engine.statistics().eventsQueued < 12)
            try offerer.take(milliseconds: 1)
        }
        for _ in 0..<count { #expect(try answerer.next(.channelOpen).text.utf8.count == 8000) }
    }

    @Test func comeThroughAServerThatOnlyAnswersChecks() throws {
        let (offerer, answerer) = (try Host(), try Host { $0.isLite = true })
        let link = try Link.connected(offerer, answerer)
        #expect(send(link.remoteChannel, [1]) == .ok && send(link.channel, [2]) == .ok)
        #expect(try offerer.next(.message).bytes == [1])
        #expect(try answerer.next(.message).bytes == [2])
    }

    @Test func goOverNegotiatedChannels() throws {
        let (offerer, answerer) = (try Host(), try Host())
        var channel = ChannelConfiguration()
        channel.negotiatedID = 7
        channel.tag = 70
        var signaling = Link.Signaling()
        signaling.channel = channel
        signaling.peer.channels = [channel]
        var link = Link(offerer, answerer)
        try link.negotiate(signaling)
        let remote = try answerer.next(.channelOpen)
        #expect(remote.tag == 70 && remote.number == 7 && remote.flags == 0)
        _ = try offerer.next(.channelOpen)
        #expect(send(link.channel, [1]) == .ok && send(remote.channel, [2]) == .ok)
        #expect(try answerer.next(.message).bytes == [1])
        #expect(try offerer.next(.message).bytes == [2])
    }
}
