import DataChannel
import SCTP
import Testing
import Wire

@testable import Peer

/// Hosts that open and close channels and send on them, and know what must arrive.
///
/// A message says in its first bytes who sent it, on which channel and as which one of that; the rest follows from
/// these, and so does whether it is text. An empty message stands for the number at which it was sent.
final class Traffic {
    enum Style: Int, CaseIterable {
        case ordered, unordered, retransmits, retransmitsUnordered, lifetime, negotiated

        var parameters: ChannelParameters {
            switch self {
            case .ordered, .negotiated: ChannelParameters()
            case .unordered: ChannelParameters(ordered: false)
            case .retransmits: ChannelParameters(reliability: .retransmits(1))
            case .retransmitsUnordered: ChannelParameters(ordered: false, reliability: .retransmits(0))
            case .lifetime: ChannelParameters(ordered: false, reliability: .lifetime(.milliseconds(200)))
            }
        }

        var isReliable: Bool { parameters.reliability == .reliable }
    }

    /// One channel, as the side sees it that opened it, and as the other one does.
    final class Line {
        let number: Int
        let opener: Int
        let style: Style
        var ids: [ChannelID?] = [nil, nil]
        var isOpen = [false, false]
        /// By this host's own call.
        var isClosedByHost = [false, false]
        var isEnded = [false, false]
        /// By each side; and what came of it to the other one.
        var sent = [0, 0]
        var empties = [0, 0]
        var seen: [Set<Int>] = [[], []]
        var seenEmpties = [0, 0]
        var next = [0, 0]

        init(number: Int, opener: Int, style: Style) {
            self.number = number
            self.opener = opener
            self.style = style
        }

        var label: String { "\(number) \(opener)" }

        /// Everything that `side` sent must arrive: the other host did not close the channel under it.
        func isOwed(by side: Int) -> Bool { style.isReliable && !isClosedByHost[1 - side] }

        func isComplete(from side: Int) -> Bool {
            !isOwed(by: side) || seen[side].count + seenEmpties[side] == sent[side]
        }
    }

    let simulation: Simulation
    var lines: [Line] = []
    var failures: [String] = []
    private var byID: [[ChannelID: Line]] = [[:], [:]]
    private var cursor = [0, 0]

    init(_ simulation: Simulation) { self.simulation = simulation }

    private func fail(_ sentence: String) {
        if failures.count < 5 { failures.append(sentence) }
    }

    // MARK: Hosts

    func open(_ side: Int, _ style: Style) {
        let line = Line(number: lines.count, opener: side, style: style)
        var parameters = style.parameters
        parameters.label = line.label
        for index in style == .negotiated ? [0, 1] : [side] {
            do throws(ChannelError) {
                let id = try simulation.peers[index].openChannel(
                    parameters, negotiatedStream: style == .negotiated ? UInt16(1000 + line.number) : nil,
                    now: simulation.now)
                line.ids[index] = id
                byID[index][id] = line
            } catch {
                return fail("open: \(error)")
            }
        }
        lines.append(line)
    }

    private static let pattern = (0..<4096).map { UInt8(truncatingIfNeeded: $0) }

    private static func isEmpty(_ number: Int) -> Bool { number % 11 == 5 }

    private func content(_ line: Line, _ side: Int, _ number: Int) -> [UInt8] {
        if Traffic.isEmpty(number) { return [] }
        let size = [7, 20, 150, 700, 3000][(number &* 7 &+ line.number) % 5]
        var bytes = [
            UInt8(side), UInt8(truncatingIfNeeded: line.number), UInt8(truncatingIfNeeded: number >> 8),
            UInt8(truncatingIfNeeded: number),
        ]
        let first = (number &* 13 &+ line.number) & 255
        bytes += Traffic.pattern[first..<first + size]
        return bytes
    }

    func send(_ side: Int, _ line: Line) {
        guard let id = line.ids[side], !line.isClosedByHost[side], !line.isEnded[side], line.sent[side] < 60_000 else {
            return
        }
        let number = line.sent[side]
        let bytes = content(line, side, number)
        do throws(ChannelError) {
            try simulation.peers[side].send(
                id, isText: number % 2 == 0, Payload.copying(bytes.span.bytes), now: simulation.now)
            line.sent[side] += 1
            if bytes.isEmpty { line.empties[side] += 1 }
        } catch {
            // The other side may have closed it a moment ago, and its host has not taken the event yet.
            switch error {
            case .bufferFull, .closed, .unknownChannel: break
            default: fail("send on \(line.label): \(error)")
            }
        }
    }

    func close(_ side: Int, _ line: Line) {
        guard let id = line.ids[side], line.isOpen[side], !line.isEnded[side], !line.isClosedByHost[side] else {
            return
        }
        line.isClosedByHost[side] = true
        try? simulation.peers[side].closeChannel(id, now: simulation.now)
    }

    // MARK: What arrives

    func check() {
        for side in 0..<2 {
            let events = simulation.channelEvents[side]
            for event in events[cursor[side]...] {
                switch event {
                case .opened(let opened): note(opened, at: side)
                case .message(let id, let isText, let payload): note(payload, isText, id, at: side)
                case .closed(let id, _): end(id, at: side)
                }
            }
            cursor[side] = events.count
            checkMemory(side)
        }
    }

    private func checkMemory(_ side: Int) {
        let peer = simulation.peers[side]
        guard let statistics = peer.data.association?.statistics else { return }
        let limit =
            2 * max(peer.configuration.receiveBuffer, peer.configuration.maximumMessageSize + 4096)
            + peer.configuration.maximumMessageSize
        if statistics.receiveBufferUsed > limit {
            fail("\(statistics.receiveBufferUsed) bytes received and held, not \(limit)")
        }
        if statistics.sendBufferUsed > (16 << 20) + (64 << 10) { fail("\(statistics.sendBufferUsed) bytes to be sent") }
        if peer.verifiedRemotes.count > 16 || peer.remoteCandidates.count > 32 { fail("too many addresses") }
    }

    private func note(_ opened: ChannelOpened, at side: Int) {
        if opened.isRemote {
            guard let line = lines.first(where: { $0.label == opened.parameters.label && $0.opener != side }),
                line.ids[side] == nil, line.style != .negotiated
            else { return fail("opened twice or by nobody: \(opened.parameters.label)") }
            var expected = line.style.parameters
            expected.label = line.label
            if opened.parameters != expected { fail("other parameters: \(opened.parameters)") }
            line.ids[side] = opened.id
            byID[side][opened.id] = line
        }
        guard let line = byID[side][opened.id], !line.isOpen[side], !line.isEnded[side] else {
            return fail("opened out of turn")
        }
        line.isOpen[side] = true
    }

    private func end(_ id: ChannelID, at side: Int) {
        guard let line = byID[side][id], !line.isEnded[side] else { return fail("closed out of turn") }
        line.isEnded[side] = true
        if !line.isClosedByHost[0], !line.isClosedByHost[1], !simulation.peers[side].isClosed {
            fail("\(line.label) closed by nobody")
        }
        let sender = 1 - side
        if !simulation.peers[side].isClosed, line.isOwed(by: sender), line.isClosedByHost[sender],
            !line.isComplete(from: sender)
        {
            fail("\(line.label) \(line.style) closed before everything arrived at \(side)")
        }
    }

    private func note(_ payload: Payload, _ isText: Bool, _ id: ChannelID, at side: Int) {
        guard let line = byID[side][id], line.isOpen[side], !line.isEnded[side] else {
            return fail("a message out of turn")
        }
        let sender = 1 - side
        let bytes = payload.copied()
        let number: Int
        if bytes.isEmpty {
            line.seenEmpties[sender] += 1
            if line.seenEmpties[sender] > line.empties[sender] { fail("an empty message twice on \(line.label)") }
            guard line.style.isReliable, line.style != .unordered else { return }
            number = line.next[sender]
            if !Traffic.isEmpty(number) { return fail("an empty message before \(number) on \(line.label)") }
        } else {
            guard bytes.count >= 4 else { return fail("a message too short") }
            number = Int(bytes[2]) << 8 | Int(bytes[3])
            if number >= line.sent[sender] || bytes != content(line, sender, number) {
                return fail("altered on \(line.label)")
            }
            if !line.seen[sender].insert(number).inserted { fail("\(number) twice on \(line.label) \(line.style)") }
        }
        if isText != (number % 2 == 0) { fail("of another kind: \(number) on \(line.label)") }
        guard line.style.parameters.ordered else { return }
        let isInOrder = line.style.isReliable ? number == line.next[sender] : number >= line.next[sender]
        if !isInOrder { fail("\(number) instead of \(line.next[sender]) on \(line.label) \(line.style)") }
        line.next[sender] = number + 1
    }

    var isComplete: Bool {
        lines.allSatisfy { line in
            (0..<2).allSatisfy { side in
                line.isComplete(from: side) && (line.isEnded[side] || line.isOpen[side])
                    && (line.isEnded[side] || !line.isClosedByHost[0] && !line.isClosedByHost[1])
            }
        }
    }

    var state: String {
        lines.map { line in
            "\(line.label) \(line.style) sent \(line.sent) seen \(line.seen.map(\.count))+\(line.seenEmpties) open \(line.isOpen) "
                + "closed \(line.isClosedByHost) ended \(line.isEnded)"
        }.joined(separator: "\n")
    }
}
