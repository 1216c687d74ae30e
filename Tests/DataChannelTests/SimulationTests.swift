import DataChannel
import SCTP
import Testing
import Wire

/// Both ends open, send and close at random over a bad network.
@Suite struct Simulation {
    /// What one end sent on a channel that it opened.
    private struct Sent {
        var label: String
        var id: ChannelID
        var count: UInt32 = 0
        var isReliable: Bool
        var isOrdered: Bool
        var isClosed = false
    }

    @Test(arguments: UInt64(1)...60)
    func reliableMessagesArriveOnceAndEverythingCloses(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed &* 7919)
        let pair = Pair(seed: seed)
        pair.loss = [0, 0.05, 0.2].randomElement(using: &generator)!
        pair.duplication = 0.1
        pair.jitter = .milliseconds(20)
        var sent: [[Sent]] = [[], []]
        let ends = [pair.client, pair.server]
        func act(_ side: Int) throws {
            let channels = ends[side].channels
            switch Int.random(in: 0..<10, using: &generator) {
            case 0:
                let isReliable = Bool.random(using: &generator)
                let isOrdered = Bool.random(using: &generator)
                let label = "\(side)-\(sent[side].count)"
                let parameters = ChannelParameters(
                    label: label, ordered: isOrdered, reliability: isReliable ? .reliable : .retransmits(1))
                if let id = try? channels.open(parameters, now: pair.now) {
                    sent[side].append(Sent(label: label, id: id, isReliable: isReliable, isOrdered: isOrdered))
                }
            case 1:
                guard sent[side].count > 1, let index = sent[side].indices.randomElement(using: &generator) else {
                    return
                }
                sent[side][index].isClosed = true
                try? channels.close(sent[side][index].id, now: pair.now)
            default:
                guard let index = sent[side].indices.randomElement(using: &generator), !sent[side][index].isClosed
                else { return }
                let size = [4, 4, 100, 3000].randomElement(using: &generator)!
                var bytes = [UInt8](repeating: 0, count: size)
                let number = sent[side][index].count
                for place in 0..<4 { bytes[place] = UInt8(truncatingIfNeeded: number >> UInt32(24 - place * 8)) }
                try channels.send(sent[side][index].id, .binary, payload(bytes), now: pair.now)
                sent[side][index].count += 1
            }
        }
        if Bool.random(using: &generator) { try act(0) }
        pair.start()
        for _ in 0..<200 {
            try act(Int.random(in: 0...1, using: &generator))
            pair.run(for: .milliseconds(Int64.random(in: 0...30, using: &generator)))
        }
        for side in 0...1 {
            for index in sent[side].indices where !sent[side][index].isClosed {
                try? ends[side].channels.close(sent[side][index].id, now: pair.now)
            }
        }
        pair.run(for: .seconds(300)) { pair.client.channels.count == 0 && pair.server.channels.count == 0 }
        #expect(pair.client.channels.count == 0 && pair.server.channels.count == 0, "seed \(seed)")
        for side in 0...1 { check(sent[side], receivedBy: ends[1 - side], seed: seed) }
    }

    private func check(_ sent: [Sent], receivedBy end: End, seed: UInt64) {
        var labels: [ChannelID: String] = [:]
        var numbers: [String: [UInt32]] = [:]
        for event in end.seen {
            switch event {
            case .opened(let id, let label, _, true): labels[id] = label
            case .message(let id, _, let bytes):
                let number = bytes.prefix(4).reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
                if let label = labels[id] { numbers[label, default: []].append(number) }
            default: break
            }
        }
        #expect(Set(labels.values).count == labels.count, "seed \(seed)")
        for channel in sent {
            let received = numbers[channel.label] ?? []
            #expect(Set(received).count == received.count, "seed \(seed) \(channel.label): a message came twice")
            if channel.isOrdered {
                #expect(received == received.sorted(), "seed \(seed) \(channel.label): out of order")
            }
            if channel.isReliable {
                #expect(
                    received.sorted() == (0..<channel.count).map { $0 },
                    "seed \(seed) \(channel.label): \(received.count) of \(channel.count)")
            }
        }
    }
}
