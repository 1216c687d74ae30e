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
    /// What peers that negotiate by themselves have told, and to whom.
    private var letters: [(to: Int, signal: Peer.Signal)] = []
    private var negotiates = false
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
        negotiates = flags & 8 != 0
        configuration.resolvesNames = flags & 16 != 0
        configuration.timers.restartAttempts = 3
        for side in 0..<2 {
            // Two of a kind do not come to agree, and must not harm themselves.
            if negotiates { configuration.style = flags >> (6 + UInt8(side)) & 1 == 0 ? .polite : .impolite }
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
        letters = []
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
        case 24: if flag { try? peers[side].restart(now: now, reason: "script") } else { begin(side) }
        case 25: for _ in 0...(next() & 7) where !letters.isEmpty { hand(letters.removeFirst()) }
        case 26: disturb(Int(next()))
        case 27: change(side, flag)
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
        while let event = peers[side].pollEvent() {
            switch event {
            case .signal(let signal): if letters.count < 64 { letters.append((1 - side, signal)) }
            case .resolve(let name): peers[side].resolved(name: name, ip: addresses[1 - side].ip, now: now)
            case .ufragsChanged: precondition((1...3).contains(peers[side].localUfrags.count))
            default: break
            }
        }
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

    private func begin(_ side: Int) { try? peers[side].negotiate(now: now) }

    private func hand(_ letter: (to: Int, signal: Peer.Signal)) {
        let peer = peers[letter.to]
        switch letter.signal {
        case .offer(let sdp, let generation, let isRestart):
            guard let parsed = try? SessionDescription(parsing: sdp) else { return }
            try? peer.receive(offer: parsed, generation: generation, isRestart: isRestart, now: now)
        case .answer(let sdp, let generation):
            guard let parsed = try? SessionDescription(parsing: sdp) else { return }
            try? peer.receive(answer: parsed, generation: generation, now: now)
        case .candidate(let line, _, let ufrag): try? peer.receive(candidate: line, ufrag: ufrag, now: now)
        }
        drain(letter.to)
    }

    /// A letter that is lost, doubled, late, sent back, of no generation, or has a line too few or changed.
    private func disturb(_ choice: Int) {
        guard !letters.isEmpty else { return }
        let index = choice % letters.count
        switch next() & 7 {
        case 0: letters.remove(at: index)
        case 1: if letters.count < 64 { letters.append(letters[index]) }
        case 2: letters.append(letters.remove(at: index))
        case 3: letters[index].to = 1 - letters[index].to
        default:
            switch letters[index].signal {
            case .offer(let sdp, let generation, let isRestart):
                let generation = next() & 1 == 0 ? generation : generation &+ UInt32(next()) &* 0x0101_0101
                letters[index].signal = .offer(sdp: damaged(sdp), generation: generation, isRestart: !isRestart)
            case .answer(let sdp, let generation):
                letters[index].signal = .answer(sdp: damaged(sdp), generation: generation)
            case .candidate(let line, let mid, let ufrag):
                let text = String(decoding: (0..<Int(next() & 31)).map { _ in next() }, as: UTF8.self)
                letters[index].signal = .candidate(
                    line: next() & 1 == 0 ? text : line.map { $0 + text }, mid: mid,
                    ufrag: next() & 1 == 0 ? ufrag : text)
            }
        }
    }

    private func damaged(_ sdp: String) -> String {
        var lines = sdp.split(separator: "\r\n").map(String.init)
        guard !lines.isEmpty else { return sdp }
        let index = Int(next()) % lines.count
        switch next() & 3 {
        case 0: lines.remove(at: index)
        case 1: lines.insert(lines[index], at: index)
        case 2:
            var bytes = Array(lines[index].utf8)
            if !bytes.isEmpty { bytes[Int(next()) % bytes.count] ^= next() & 31 }
            lines[index] = String(decoding: bytes, as: UTF8.self)
        default: break
        }
        return lines.joined(separator: "\r\n") + "\r\n"
    }

    /// The machine's network.
    private func change(_ side: Int, _ flag: Bool) {
        let choice = next()
        let extra = SocketAddress(ip: addresses[side].ip, port: 100 + UInt16(choice & 3))
        switch choice >> 4 & 7 {
        case 0: peers[side].addLocalCandidate(Candidate.host([extra])[0], now: now)
        case 1: peers[side].removeLocalCandidates(where: { $0.address == extra }, now: now)
        case 2: peers[side].removeLocalCandidates(where: { _ in true }, now: now)
        case 3: peers[side].addLocalCandidate(Candidate.host([addresses[side]])[0], now: now)
        case 4: peers[side].localCandidatesComplete(now: now)
        case 5:
            if let path = peers[side].selectedPath { peers[side].connectionFailed(path, now: now) }
        case 6:
            var timers = Peer.Timers()
            timers.restart = .milliseconds(Int64(choice & 15) * 100)
            timers.restartAttempts = Int(choice & 3)
            timers.standbyInterval = flag ? nil : .milliseconds(Int64(choice & 15))
            peers[side].setTimers(timers, now: now)
        default: peers[side].networkChanged(isOnline: flag, now: now)
        }
    }

    private func negotiate() {
        if negotiates {
            begin(0)
            return drain(0)
        }
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
            while !letters.isEmpty { hand(letters.removeFirst()) }
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
