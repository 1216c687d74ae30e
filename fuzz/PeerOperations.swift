// Two peers with the stand-in for DTLS, a network between them and hosts that do anything in any order, as the input says.
import DTLS
import DataChannel
import ICE
import Peer
import SDP
import Wire

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzPeerOperations(_ data: UnsafePointer<UInt8>, _ size: Int) -> CInt {
    let bytes = unsafe UnsafeRawBufferPointer(start: data, count: min(size, 2048)).bytes
    let world = World(bytes.copied())
    world.run()
    return 0
}

private struct Datagram {
    var from: SocketAddress
    var to: SocketAddress
    var bytes: [UInt8]
}

private final class World {
    private let script: [UInt8]
    private var position = 0
    private var now = Instant(nanoseconds: 1_000_000_000)
    private var peers: [Peer] = []
    /// Where the network shows each side.
    private var shown: [SocketAddress]
    private let addresses: [SocketAddress]
    private var inFlight: [Datagram] = []
    private var channels: [[ChannelID]] = [[], []]
    private var held = 0
    private var storage = [UInt8](repeating: 0, count: 2048)
    private let packets = PacketBuffer(capacity: 1 << 16)
    private static let window = 20_000

    init(_ script: [UInt8]) {
        self.script = script
        addresses = (1...2).map {
            SocketAddress(ip: IPAddress(high: 0x2001_0DB8_0000_0000, low: UInt64($0)), port: UInt16($0))
        }
        shown = addresses
        let flags = next()
        var configuration = Peer.Configuration()
        configuration.isLite = flags & 1 != 0
        configuration.prefersActive = flags & 2 != 0
        configuration.maximumMessageSize = flags & 4 != 0 ? 200 : 5000
        configuration.receiveBuffer = World.window
        configuration.maximumChannels = 6
        configuration.connectTimeout = .seconds(20)
        for side in 0..<2 {
            peers.append(
                Peer(
                    role: side == 0 ? .offerer : .answerer, configuration: configuration,
                    candidates: Candidate.host([addresses[side]]), provider: SimulatedContext(seed: UInt64(side)),
                    packets: packets, random: SeededGenerator(seed: UInt64(side) + 7), now: now))
        }
    }

    private func next() -> UInt8 {
        guard position < script.count else { return 0 }
        position += 1
        return script[position - 1]
    }

    func run() {
        while position < script.count {
            let operation = next()
            act(operation & 0x1F, Int(operation >> 5 & 1), flag: operation & 0x40 != 0)
            for side in 0..<2 { drain(side) }
        }
        // Left alone, both come to rest: they find out that nobody answers, and end.
        inFlight = []
        for _ in 0..<3000 {
            guard let timeout = peers.compactMap(\.nextTimeout).min() else { break }
            now = max(now, timeout)
            for side in 0..<2 { expire(side) }
            inFlight = []
        }
    }

    private func act(_ operation: UInt8, _ side: Int, flag: Bool) {
        switch operation {
        case 0, 1: wait(.milliseconds(Int64(next())))
        case 2: wait(.milliseconds(Int64(next()) * 100))
        case 3: now = now - .milliseconds(Int64(next() & 31))
        case 4, 5, 6: for _ in 0...(next() & 15) where !inFlight.isEmpty { deliver(inFlight.removeFirst()) }
        case 7: if !inFlight.isEmpty { inFlight.removeFirst() }
        case 8: if !inFlight.isEmpty { deliver(inFlight[Int(next()) % inFlight.count]) }
        case 9: if !inFlight.isEmpty { damage(Int(next()) % inFlight.count) }
        case 10: negotiate()
        case 11: describe(side)
        case 12, 13: open(side, flag)
        case 14, 15, 16, 17: send(side, flag)
        case 18: closeChannel(side)
        case 19: shown[side].port = 100 + UInt16(next() & 3)
        case 20: take(side, most: Int(next()))
        case 21: if flag, next() == 0 { peers[side].close(now: now) }
        case 22: candidate(side)
        case 23: connect()
        default: raw(side)
        }
    }

    private func wait(_ span: Duration) {
        now = now + span
        for side in 0..<2 { expire(side) }
    }

    private func expire(_ side: Int) {
        guard let timeout = peers[side].nextTimeout, timeout <= now else { return }
        peers[side].handleTimeout(now: now)
        drain(side)
        // A timeout that stays where it is would keep a host busy for ever.
        for _ in 0..<4 {
            guard let again = peers[side].nextTimeout, again <= now else { return }
            peers[side].handleTimeout(now: now)
            drain(side)
        }
        precondition(peers[side].nextTimeout.map { $0 > now } ?? true)
    }

    private func drain(_ side: Int) {
        while peers[side].pollEvent() != nil {}
        var count = 0
        while let datagram = transmit(side) {
            count += 1
            precondition(count < 2000)
            precondition(datagram.bytes.count <= 1200)
            if inFlight.count < 200 { inFlight.append(datagram) }
        }
        let peer = peers[side]
        _ = (peer.isClosed, peer.isConnected, peer.selectedPath, peer.statistics, peer.roundTrip)
        _ = (peer.announcedFingerprints, peer.provenFingerprint, peer.remoteMessageLimit)
    }

    private func transmit(_ side: Int) -> Datagram? {
        let (peer, now, from) = (peers[side], now, shown[side])
        return storage.withUnsafeMutableBytes { buffer in
            var output = unsafe OutputRawSpan(buffer: buffer, initializedCount: 0)
            guard let transmit = peer.pollTransmit(into: &output, now: now) else { return nil }
            let count = unsafe output.finalize(for: buffer)
            return Datagram(from: from, to: transmit.to, bytes: unsafe Array(buffer[..<count]))
        }
    }

    private func deliver(_ datagram: Datagram) {
        guard let side = shown.firstIndex(of: datagram.to) else { return }
        _ = peers[side].handle(datagram: datagram.bytes.span.bytes, from: datagram.from, to: addresses[side], now: now)
        drain(side)
    }

    private func damage(_ index: Int) {
        let offset = Int(next())
        if inFlight[index].bytes.indices.contains(offset) { inFlight[index].bytes[offset] ^= next() }
    }

    // MARK: Signaling

    private func negotiate() {
        guard let offer = try? peers[0].makeOffer(), let parsed = try? SessionDescription(parsing: offer),
            let answer = try? peers[1].answer(parsed, now: now), let parsed = try? SessionDescription(parsing: answer)
        else { return }
        try? peers[0].accept(parsed, now: now)
    }

    /// A description with a line that the script has changed.
    private func describe(_ side: Int) {
        guard let offer = try? peers[0].makeOffer() else { return }
        var lines = offer.split(separator: "\r\n").map(String.init)
        let index = Int(next()) % max(lines.count, 1)
        let text = String(decoding: (0..<Int(next() & 31)).map { _ in next() }, as: UTF8.self)
        if next() & 1 == 0 { lines[index] = text } else { lines.insert(text, at: index) }
        guard let parsed = try? SessionDescription(parsing: lines.joined(separator: "\r\n") + "\r\n") else { return }
        if let answer = try? peers[1].answer(parsed, now: now), let answer = try? SessionDescription(parsing: answer) {
            try? peers[0].accept(answer, now: now)
        }
    }

    private func candidate(_ side: Int) {
        let text = String(decoding: (0..<Int(next() & 63)).map { _ in next() }, as: UTF8.self)
        try? peers[side].addRemoteCandidate(text.isEmpty ? nil : text)
    }

    /// What well-behaved hosts on a good network do, so that the script need not find it by itself.
    private func connect() {
        negotiate()
        for _ in 0..<60 {
            for side in 0..<2 { drain(side) }
            while !inFlight.isEmpty { deliver(inFlight.removeFirst()) }
            wait(.milliseconds(20))
        }
    }

    // MARK: Channels

    private func open(_ side: Int, _ isNegotiated: Bool) {
        let flags = next()
        let parameters = ChannelParameters(
            label: String(repeating: "l", count: Int(flags >> 5)), ordered: flags & 1 == 0,
            reliability: flags & 2 == 0
                ? .reliable : flags & 4 == 0 ? .retransmits(UInt32(flags >> 4 & 3)) : .lifetime(.milliseconds(100)))
        let stream = isNegotiated ? UInt16(next()) &* 257 : nil
        if let id = try? peers[side].openChannel(parameters, negotiatedStream: stream, now: now) {
            channels[side].append(id)
        }
    }

    private func channel(_ side: Int) -> ChannelID {
        let index = Int(next())
        return channels[side].isEmpty ? ChannelID(number: UInt32(index)) : channels[side][index % channels[side].count]
    }

    private func send(_ side: Int, _ isText: Bool) {
        let id = channel(side)
        let payload = Payload.copying([UInt8](repeating: 0x61, count: Int(next()) * Int(next() & 31)).span.bytes)
        try? peers[side].send(id, isText: isText, payload, now: now)
        _ = peers[side].bufferedAmount(id)
    }

    private func closeChannel(_ side: Int) { try? peers[side].closeChannel(channel(side), now: now) }

    private func take(_ side: Int, most: Int) {
        for _ in 0...most {
            guard let event = peers[side].pollChannelEvent(now: now) else { return }
            switch event {
            case .opened(let opened):
                if opened.isRemote, channels[side].count < 100 { channels[side].append(opened.id) }
            case .message(_, _, let payload): precondition(payload.count <= 16 << 20)
            case .closed(let id, _): channels[side].removeAll { $0 == id }
            }
        }
    }

    private func raw(_ side: Int) {
        let count = min(Int(next()), script.count - position)
        let bytes = Array(script[position..<position + count])
        position += count
        _ = peers[side].handle(datagram: bytes.span.bytes, from: shown[1 - side], to: addresses[side], now: now)
    }
}
