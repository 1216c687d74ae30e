import Foundation
import Storage
import Synchronization
import Testing
import Wire

@testable import Engine

private func failure<Success>(_ body: () throws(Failure) -> Success) -> Failure? {
    do throws(Failure) {
        _ = try body()
        return nil
    } catch {
        return error
    }
}

private func onLoopback(_ configure: (inout Configuration) -> Void = { _ in }) -> Configuration {
    var configuration = Configuration()
    configuration.addresses = [IPAddress("127.0.0.1")!]
    configuration.logLevel = nil
    configure(&configuration)
    return configuration
}

@Suite struct EnginesLife {
    @Test func aPortInUseIsSaid() throws {
        let host = try Host()
        let taken = failure { () throws(Failure) in try Engine.create(onLoopback { $0.port = host.engine.portNumber }) }
        #expect(taken?.status == .portInUse)
        #expect(taken?.detail.contains("\(host.engine.portNumber)") == true)
    }

    @Test func anAddressOfAnotherMachineCannotBeBound() {
        let other = failure { () throws(Failure) in
            try Engine.create(onLoopback { $0.bindAddress = IPAddress("2001:db8::1") })
        }
        #expect(other?.status == .noAddress)
        let none = failure { () throws(Failure) in try Engine.create(onLoopback { $0.addresses = [] }) }
        #expect(none?.status == .noAddress)
    }

    @Test func theCertificateOutlivesTheEngine() throws {
        let path = "/tmp/certificate-\(UUID()).pem"
        defer { unlink(path) }
        let first = try Host { $0.certificatePath = path }.engine.fingerprint(.sha256)
        let second = try Host { $0.certificatePath = path }
        #expect(second.engine.fingerprint(.sha256) == first && first.hasPrefix("sha-256 "))
        #expect(try Host().engine.fingerprint(.sha256) != first)
        let unusable = failure { () throws(Failure) in
            try Engine.create(onLoopback { $0.certificatePath = "/none/here.pem" })
        }
        #expect(unusable?.status == .storage)
    }

    @Test func handlesEndWithTheEngine() throws {
        let (offerer, answerer) = (try Host(), try Host())
        let link = try Link.connected(offerer, answerer)
        let peer = try #require(PeerReference(link.offering))
        let channel = try #require(ChannelReference(link.channel))
        let handle = offerer.engine.handle
        #expect(Engine.find(handle) === offerer.engine)
        #expect(offerer.engine.destroy() == .ok)
        #expect(offerer.engine.destroy() == .invalidHandle)
        #expect(Engine.find(handle) == nil)
        #expect(PeerReference(link.offering) == nil && ChannelReference(link.channel) == nil)
        // Whoever looked them up before learns it, too.
        #expect(channel.send(isText: false, [1].span.bytes) != .ok)
        #expect(channel.close() != .ok)
        channel.setLowWater(1)
        #expect(failure { () throws(Failure) in try peer.offer(tag: 0) }?.status == .invalidHandle)
        #expect(failure { () throws(Failure) in try peer.close() }?.status == .invalidHandle)
        #expect(failure { () throws(Failure) in try peer.queryStatistics(tag: 0) }?.status == .invalidHandle)
        #expect(
            failure { () throws(Failure) in try peer.openChannel(ChannelConfiguration()) }?.status == .invalidHandle)
        #expect(
            failure { () throws(Failure) in try offerer.engine.createPeer(PeerConfiguration()) }?.status
                == .invalidHandle)
        #expect(offerer.engine.poll(max: 1, milliseconds: 0).status == .invalidHandle)
        // The other side was told.
        #expect(try answerer.state(.closed, of: link.answering).status == .peerGone)
    }

    @Test func numbersNeverGivenOutFindNothing() throws {
        let host = try Host()
        let peer = try host.engine.createPeer(PeerConfiguration())
        for number in [0, 1, .max, peer + 1 << 32, peer &- 1 << 32, peer ^ 0xFF_FFFF, host.engine.handle] as [UInt64] {
            #expect(PeerReference(number) == nil && ChannelReference(number) == nil)
        }
        #expect(Engine.find(peer) == nil)
    }

    @Test func aPollThatWaitsEndsWithTheEngine() throws {
        let configuration = onLoopback()
        for _ in 0..<20 {
            let engine = try Engine.create(configuration)
            let begun = DispatchSemaphore(value: 0)
            let statuses = Guarded<[Status]>([])
            concurrently(3) { index in
                guard index > 0 else {
                    begun.wait()
                    begun.wait()
                    #expect(engine.destroy() == .ok)
                    return
                }
                begun.signal()
                while true {
                    let (status, batch, events) = engine.poll(max: 8, milliseconds: -1)
                    if status != .ok { return statuses.withLock { $0.append(status) } }
                    if !events.isEmpty { _ = engine.release(batch) }
                }
            }
            #expect(statuses.withLock { $0 } == [.invalidHandle, .invalidHandle])
        }
    }

    @Test(arguments: [Int32.min, -2, 0, 1])
    func anyTimeoutOfAPollIsTaken(milliseconds: Int32) throws {
        let host = try Host()
        host.engine.setLogLevel(.debug)
        if milliseconds < 0 { try host.engine.setAddresses(nil) }
        let (status, batch, events) = host.engine.poll(max: .max, milliseconds: milliseconds)
        #expect(status == .ok)
        #expect(milliseconds >= 0 || !events.isEmpty)
        if !events.isEmpty { #expect(host.engine.release(batch) == .ok) }
        #expect(host.engine.release(batch) == .invalidArgument && host.engine.release(.max) == .invalidArgument)
    }

    @Test func connectorsAreLimitedLikePeers() throws {
        let host = try Host { $0.maximumPeers = 2 }
        let create = { () throws(Failure) in try host.engine.createConnector(ConnectorConfiguration()) }
        let connectors = try (0..<2).map { _ in try create() }
        let refused = try #require(failure(create))
        #expect(refused.status == .limit && refused.detail.contains("connectors"))
        // Nor has a configuration that is refused taken a place.
        try #require(ConnectorReference(connectors[0])).close()
        _ = try host.next(.connector) { $0.connector == connectors[0] && $0.number == ConnectorState.closed.rawValue }
        var nameless = ConnectorConfiguration()
        nameless.key = ""
        for _ in 0..<3 {
            #expect(
                failure { () throws(Failure) in try host.engine.createConnector(nameless) }?.status == .invalidArgument)
        }
        _ = try create()
        #expect(failure(create)?.status == .limit)
        // They do not count as peers.
        _ = try host.engine.createPeer(PeerConfiguration())
    }

    @Test func limitsAreKept() throws {
        let host = try Host {
            $0.maximumPeers = 3
            $0.maximumChannels = 2
        }
        let peers = try (0..<3).map { _ in try host.engine.createPeer(PeerConfiguration()) }
        #expect(failure { () throws(Failure) in try host.engine.createPeer(PeerConfiguration()) }?.status == .limit)
        let peer = try #require(PeerReference(peers[0]))
        for _ in 0..<2 { _ = try peer.openChannel(ChannelConfiguration()) }
        #expect(failure { () throws(Failure) in try peer.openChannel(ChannelConfiguration()) }?.status == .limit)
        var many = PeerConfiguration()
        many.channels = [ChannelConfiguration](repeating: ChannelConfiguration(), count: 3)
        try peer.close()
        #expect(try host.state(.closed, of: peers[0]).status == .ok)
        for _ in 0..<2 { #expect(try host.next(.channelClosed).peer == peers[0]) }
        // A peer that ended makes room for another.
        while failure({ () throws(Failure) in try host.engine.createPeer(many) })?.detail.contains("max_peers") == true
        {}
        #expect(
            failure { () throws(Failure) in try host.engine.createPeer(many) }?.detail.contains("max_channels") == true)
        #expect(host.engine.statistics().peers == 2)
        _ = try host.engine.createPeer(PeerConfiguration())
        #expect(host.engine.statistics().peers == 3)
    }

    @Test func theAddressesOfferedAreThoseSetLast() throws {
        let host = try Host { $0.logLevel = .debug }
        let line = try host.next(.log) { $0.text.hasPrefix("[CANDIDATE]") }
        #expect(line.number == 3)
        #expect(line.text.contains(/^\[CANDIDATE\] IPv6 Host=\d+ IPv6 srflx=0 IPv4 srflx=0 IPv4 relay=0$/))
        try host.engine.setAddresses([IPAddress("192.0.2.7")!, IPAddress("2001:db8::7")!, IPAddress("192.0.2.7")!])
        #expect(try host.next(.addresses).text == "2001:db8::7 192.0.2.7")
        host.engine.setLogLevel(nil)
        let peer = try host.engine.createPeer(PeerConfiguration())
        try PeerReference(peer)?.offer(tag: 0)
        let offer = try host.next(.offer).text
        #expect(offer.contains(" 2001:db8::7 ") && offer.contains(" 192.0.2.7 ") && !offer.contains(" 127.0.0.1 "))
        #expect(failure { () throws(Failure) in try host.engine.setAddresses([]) }?.status == .noAddress)
    }

    @Test func descriptionsOutOfTurnAreRefused() throws {
        let (offerer, answerer) = (try Host(), try Host())
        let link = try Link.connected(offerer, answerer)
        try PeerReference(link.offering)?.offer(tag: 4)
        let again = try offerer.next(.offer)
        #expect(again.status == .wrongState && again.tag == 4 && !again.text.isEmpty)
        let negotiatedTwice = try Host()
        var channel = ChannelConfiguration()
        channel.negotiatedID = 3
        var peer = PeerConfiguration()
        peer.channels = [channel, channel]
        let twice = try negotiatedTwice.engine.createPeer(peer)
        let refused = try negotiatedTwice.next(.channelClosed)
        #expect(refused.status == .limit && refused.peer == twice)
        #expect(negotiatedTwice.engine.statistics().peers == 1)
    }
}

/// What hosts do from several threads at once.
@Suite struct EnginesWithManyThreads {
    @Test func areMadeAndDestroyedAtOnce() throws {
        concurrently(4) { index in
            for round in 0..<15 {
                guard let engine = try? Engine.create(onLoopback()) else {
                    Issue.record("not created")
                    continue
                }
                let peer = try? engine.createPeer(PeerConfiguration())
                if round % 2 == 0, let peer { _ = try? PeerReference(peer)?.openChannel(ChannelConfiguration()) }
                if round % 3 == 0 { try? PeerReference(peer ?? 0)?.offer(tag: 1) }
                #expect(engine.destroy() == .ok)
                #expect(peer.flatMap { PeerReference($0) } == nil)
            }
        }
    }

    /// References that were looked up before are used while the engine goes.
    @Test func useHandlesWhileTheEngineIsDestroyed() throws {
        for round in 0..<15 {
            let engine = try Engine.create(
                onLoopback {
                    $0.maximumPeers = 20
                    $0.maximumChannels = 20
                })
            let peer = try engine.createPeer(PeerConfiguration())
            let channel = try #require(try PeerReference(peer)?.openChannel(ChannelConfiguration()))
            let handle = engine.handle
            concurrently(4) { index in
                switch index {
                case 0: #expect(Engine.find(handle)?.destroy() == .ok)
                case 1:
                    while let found = PeerReference(peer) {
                        _ = try? found.openChannel(ChannelConfiguration())
                        try? found.queryStatistics(tag: 1)
                    }
                case 2:
                    while let found = ChannelReference(channel) {
                        guard
                            found.send(isText: false, [UInt8](repeating: 1, count: round * 10).span.bytes)
                                != .invalidHandle
                        else { return }
                    }
                default:
                    while let found = Engine.find(handle) {
                        let (status, batch, events) = found.poll(max: 16, milliseconds: 1)
                        if status == .ok, !events.isEmpty { _ = found.release(batch) }
                        _ = try? found.createPeer(PeerConfiguration())
                        _ = found.statistics()
                    }
                }
            }
            #expect(PeerReference(peer) == nil && ChannelReference(channel) == nil)
        }
    }

    @Test func sendOnManyChannelsAndPollAtOnce() throws {
        let (offerer, answerer) = (try Host { $0.sendHighWater = 1 << 16 }, try Host { $0.receiveWindow = 1 << 18 })
        let link = try Link.connected(offerer, answerer)
        let peer = try #require(PeerReference(link.offering))
        let senders = 4
        let count = 400
        let channels = try (0..<senders).map { number in
            var configuration = ChannelConfiguration()
            configuration.tag = UInt64(number + 1)
            return try peer.openChannel(configuration)
        }
        let received = Guarded<[UInt64: [Int]]>([:])
        let arrived = Atomic<Int>(0)
        let (source, target) = (offerer.engine, answerer.engine)
        let end = Date(timeIntervalSinceNow: 60)
        concurrently(senders + 3) { index in
            switch index {
            case 0..<senders:
                var next = 0
                while next < count, Date() < end {
                    var bytes = [UInt8](repeating: 0, count: 1000)
                    bytes[0] = UInt8(truncatingIfNeeded: next)
                    bytes[1] = UInt8(truncatingIfNeeded: next >> 8)
                    switch send(channels[index], bytes) {
                    case .ok: next += 1
                    case .wouldBlock: _ = source.poll(max: 0, milliseconds: 1)
                    case let other:
                        Issue.record("\(other)")
                        return
                    }
                }
            case senders:
                while arrived.load(ordering: .relaxed) < senders * count, Date() < end {
                    let (_, batch, events) = source.poll(max: 4, milliseconds: 5)
                    if !events.isEmpty { _ = source.release(batch) }
                }
            default:
                // Two pollers of one engine: each batch is somebody's, whole.
                while arrived.load(ordering: .relaxed) < senders * count, Date() < end {
                    let (_, batch, events) = target.poll(max: 16, milliseconds: 5)
                    for event in events where event.kind == .message {
                        let bytes = event.bytes
                        received.withLock { $0[event.channel, default: []].append(Int(bytes[0]) | Int(bytes[1]) << 8) }
                        arrived.wrappingAdd(1, ordering: .relaxed)
                    }
                    if !events.isEmpty { _ = target.release(batch) }
                }
            }
        }
        let all = received.withLock { $0 }
        #expect(all.count == senders)
        for numbers in all.values { #expect(numbers.sorted() == Array(0..<count)) }
    }
}
