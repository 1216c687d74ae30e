// Two agents, a network between them and a host that does anything in any order, as the input says.
import ICE
import STUN
import Wire

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzICEOperations(_ data: UnsafePointer<UInt8>, _ size: Int) -> CInt {
    let bytes = unsafe UnsafeRawBufferPointer(start: data, count: min(size, 4096)).bytes
    let world = World(bytes.copied())
    world.run()
    return 0
}

private struct Datagram {
    var from: SocketAddress
    var to: SocketAddress
    var bytes: [UInt8]
    var transport = Transport.udp
}

private final class World {
    private let script: [UInt8]
    private var position = 0
    private var now = Instant(nanoseconds: 0)
    private var agents: [Agent] = []
    private let addresses: [SocketAddress]
    private var inFlight: [Datagram] = []
    private var random = SeededGenerator(seed: 7)
    private var storage = [UInt8](repeating: 0, count: 1200)

    init(_ script: [UInt8]) {
        self.script = script
        addresses = [
            SocketAddress(ip: IPAddress(v4: 0xC000_0201), port: 1),
            SocketAddress(ip: IPAddress(v4: 0xC633_6402), port: 2),
            SocketAddress(ip: IPAddress(high: 0x2001_0DB8_0000_0000, low: 1), port: 1),
            SocketAddress(ip: IPAddress(high: 0x2001_0DB8_0000_0000, low: 2), port: 2),
            SocketAddress(ip: IPAddress(v4: 0xCB00_7103), port: 3), SocketAddress(ip: .anyIPv6, port: 1),
        ]
        let flags = next()
        for side in 0..<2 {
            var configuration = Agent.Configuration(
                role: flags >> side & 1 == 0 ? .controlling : .controlled, isLite: flags >> (2 + side) & 1 == 1,
                credentials: Credentials(using: &random))
            configuration.maximumPairs = 8
            configuration.maximumPeerReflexive = 4
            configuration.maximumRemoteCandidates = 6
            configuration.maximumLocalCandidates = 5
            configuration.maximumEarlyCandidates = 4
            if flags & 0x10 != 0 { configuration.establishTimeout = .seconds(5) }
            configuration.relayOnly = flags & 0x20 != 0 && side == 0
            configuration.tricklesCandidates = flags & 0x40 != 0
            let candidates = Candidate.host([addresses[side], addresses[2 + side]])
            agents.append(
                Agent(configuration, localCandidates: candidates, random: SeededGenerator(seed: UInt64(side))))
        }
    }

    private func next() -> UInt8 {
        guard position < script.count else { return 0 }
        position += 1
        return script[position - 1]
    }

    private func address() -> SocketAddress { addresses[Int(next()) % addresses.count] }

    private func candidate() -> Candidate {
        let flags = next()
        let priority = UInt32(next()) << 24 | UInt32(next()) + 1
        let type: Candidate.TCPType? =
            switch flags & 7 {
            case 0: .active
            case 1: .passive
            case 2: .simultaneousOpen
            default: nil
            }
        let kind: Candidate.Kind = flags & 8 != 0 ? .relayed : .host
        return Candidate(kind: kind, address: address(), priority: priority, tcpType: type)
    }

    func run() {
        while position < script.count {
            let operation = next()
            if operation & 0x20 != 0 {
                move(operation & 0x0F, Int(operation >> 4 & 1))
            } else {
                act(operation & 0x0F, Int(operation >> 4 & 1))
            }
            for side in 0..<2 { drain(side) }
        }
        // Left alone, both come to rest, whatever was done to them.
        for _ in 0..<300 {
            guard let timeout = agents.compactMap(\.nextTimeout).min() else { break }
            now = max(now, timeout)
            for side in 0..<2 { expire(side) }
        }
    }

    private func act(_ operation: UInt8, _ side: Int) {
        let agent = agents[side]
        switch operation {
        case 0: wait(.milliseconds(Int64(next())))
        case 1: wait(.milliseconds(Int64(next()) * 100))
        case 2, 3, 4: if !inFlight.isEmpty { deliver(inFlight.removeFirst()) }
        case 5: if !inFlight.isEmpty { inFlight.removeFirst() }
        case 6: if !inFlight.isEmpty { deliver(inFlight[Int(next()) % inFlight.count]) }
        case 7: if !inFlight.isEmpty { damage(Int(next()) % inFlight.count) }
        case 8:
            agent.setRemote(
                agents[1 - side].credentials, isLite: agents[1 - side].isLite, renomination: next() & 1 == 1)
            for candidate in agents[1 - side].localCandidates { agent.addRemoteCandidate(candidate) }
            agent.start(now: now)
        case 9:
            let ufrag = [nil, agents[1 - side].credentials.ufrag, "gone", "new\(next())"][Int(next()) % 4]
            agent.addRemoteCandidate(candidate(), ufrag: ufrag)
        case 10: agent.remoteCandidatesComplete()
        case 11: agent.noteTraffic(Path(local: address(), remote: address()), now: now)
        case 12: agent.probe(now: now)
        case 13: agent.restart(Credentials(using: &random), now: now)
        case 14: signedRequest(side)
        default: raw(side)
        }
    }

    /// What happens to paths, addresses and generations.
    private func move(_ operation: UInt8, _ side: Int) {
        let agent = agents[side]
        switch operation {
        case 0: agent.addLocalCandidate(candidate(), now: now)
        case 1:
            let gone = address()
            agent.removeLocalCandidates(where: { $0.address == gone }, now: now)
        case 2: agent.localCandidatesComplete()
        case 3, 4: for _ in 0..<next() % 8 { agent.noteSent(now: now) }
        case 5: agent.networkChanged(now: now)
        case 6:
            if let path = agent.selectedPath { agent.connectionFailed(path, now: now) }
            agent.connectionFailed(Path(local: address(), remote: address(), transport: .tcp), now: now)
        case 7: agent.abandonRestart(now: now)
        case 8:
            let candidates = (0..<next() % 4).map { _ in candidate() }
            agent.restart(Credentials(using: &random), localCandidates: candidates, now: now)
        case 9:
            var timers = Agent.Timers()
            timers.heartbeat = next() & 1 == 0 ? nil : .milliseconds(Int64(next()) - 3)
            timers.standbyInterval = next() & 1 == 0 ? nil : .milliseconds(Int64(next()) - 3)
            timers.suspicion = .milliseconds(Int64(next()) - 3)
            timers.checkInterval = .milliseconds(Int64(next()) - 3)
            timers.disconnectedAfter = next() & 1 == 0 ? nil : .milliseconds(Int64(next()) * 10)
            timers.failedAfter = .milliseconds(Int64(next()) * 100)
            timers.patience = .milliseconds(Int64(next()) * 100)
            agent.setTimers(timers)
        case 10:
            if let path = agent.selectedPath {
                _ = agent.candidates(of: path)
                agent.noteTraffic(path, now: now)
            }
        case 11: agent.removeLocalCandidates(where: { _ in true }, now: now)
        case 12: if let path = agent.standbyPath { agent.noteTraffic(path, now: now) }
        case 13:
            // Both describe each other anew.
            for side in 0..<2 {
                agents[side].restart(Credentials(using: &random), now: now)
            }
            for side in 0..<2 {
                agents[side].setRemote(agents[1 - side].credentials, isLite: agents[1 - side].isLite)
                for candidate in agents[1 - side].localCandidates { agents[side].addRemoteCandidate(candidate) }
            }
        default: _ = (agent.isRestarting, agent.generationNumber, agent.selectionReason, agent.statistics)
        }
    }

    private func wait(_ span: Duration) {
        now = now + span
        for side in 0..<2 { expire(side) }
    }

    private func expire(_ side: Int) {
        guard let timeout = agents[side].nextTimeout, timeout <= now else { return }
        agents[side].handleTimeout(now: now)
        drain(side)
        // A timeout that stays where it is would keep a host busy for ever.
        precondition(agents[side].nextTimeout.map { $0 > now } ?? true)
    }

    private func drain(_ side: Int) {
        var count = 0
        while let datagram = transmit(side) {
            count += 1
            precondition(count < 500)
            if inFlight.count < 64 { inFlight.append(datagram) }
        }
        while agents[side].pollEvent() != nil { count += 1 }
        precondition(agents[side].localCandidates.count <= 6)
        _ = (agents[side].standbyPath, agents[side].selectedPath, agents[side].roundTrip, agents[side].reflexiveAddress)
    }

    private func transmit(_ side: Int) -> Datagram? {
        let (agent, now) = (agents[side], now)
        return storage.withUnsafeMutableBytes { buffer in
            var output = unsafe OutputRawSpan(buffer: buffer, initializedCount: 0)
            guard let transmit = agent.pollTransmit(into: &output, now: now) else { return nil }
            let count = unsafe output.finalize(for: buffer)
            return Datagram(
                from: transmit.from, to: transmit.to, bytes: unsafe Array(buffer[..<count]),
                transport: transmit.transport)
        }
    }

    private func deliver(_ datagram: Datagram) {
        let side = datagram.to.port == 1 ? 0 : 1
        _ = agents[side].handle(
            datagram: datagram.bytes.span.bytes, from: datagram.from, to: datagram.to, transport: datagram.transport,
            now: now)
        drain(side)
    }

    private func damage(_ index: Int) {
        if next() & 1 == 0 { inFlight[index].from = address() } else { inFlight[index].to = address() }
        let offset = Int(next())
        if inFlight[index].bytes.indices.contains(offset) { inFlight[index].bytes[offset] ^= next() }
    }

    /// A request that the agent must believe, with attributes of the script's choice.
    private func signedRequest(_ side: Int) {
        let credentials = agents[side].credentials
        let key = IntegrityKey(password: credentials.password)
        let (flags, id) = (next(), UInt64(next()))
        let (from, to) = (address(), address())
        var value = [UInt8](repeating: 0, count: Int(next() & 0x1F))
        for index in value.indices { value[index] = next() }
        let type = AttributeType(rawValue: UInt16(next()) << 8 | UInt16(next()))
        let bytes: [UInt8] = storage.withUnsafeMutableBytes { buffer in
            var output = unsafe OutputRawSpan(buffer: buffer, initializedCount: 0)
            var writer = MessageWriter(.request, id: TransactionID(high: 1, low: id), to: &output)
            let sender = flags & 1 == 0 ? agents[1 - side].credentials.ufrag : "else"
            writer.append(.username, Array("\(credentials.ufrag):\(sender)".utf8).span.bytes, to: &output)
            if flags & 2 != 0 { writer.append(.useCandidate, to: &output) }
            if flags & 4 != 0 { writer.append(.iceControlling, UInt64(flags) << 56, to: &output) }
            if flags & 8 != 0 { writer.append(.iceControlled, UInt64(flags) << 56, to: &output) }
            if flags & 16 != 0 { writer.append(.priority, UInt32(flags) << 24, to: &output) }
            if flags & 32 != 0 { writer.append(type, value.span.bytes, to: &output) }
            writer.finish(key, flags & 64 == 0 ? .sha1 : .sha256, to: &output)
            let count = unsafe output.finalize(for: buffer)
            return unsafe Array(buffer[..<count])
        }
        _ = agents[side].handle(datagram: bytes.span.bytes, from: from, to: to, now: now)
    }

    private func raw(_ side: Int) {
        let count = min(Int(next()), script.count - position)
        let bytes = Array(script[position..<position + count])
        position += count
        _ = agents[side].handle(datagram: bytes.span.bytes, from: address(), to: address(), now: now)
        _ = CandidateText(parsing: String(decoding: bytes, as: UTF8.self))
    }
}
