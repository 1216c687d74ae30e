import DataChannel
import Testing
import Wire

@testable import Peer

@Suite struct LargeAndSmallMessages {
    private static let sizes = [1, 1200, 16_384, 30, 65_536, 5, 700, 262_000, 12, 2, 1201, 4000]

    /// The bytes of the message with this number: its number, then a pattern of its own.
    private static func bytes(_ number: Int) -> [UInt8] {
        let size = sizes[number % sizes.count]
        return (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ number) }
    }

    /// One side sends, the other echoes at once: every message comes back whole and in order, although large ones need
    /// hundreds of packets and small ones ride between them.
    @Test(arguments: 1...12)
    func comeBackInOrder(seed: UInt64) throws {
        let loss = [0, 0.005, 0.02, 0.05][Int(seed % 4)]
        let weather = Weather(
            loss: loss, duplication: loss, delay: .milliseconds(1), jitter: .milliseconds(Int64(seed % 3)))
        let simulation = Simulation(seed: seed, weather: weather)
        let id = try simulation.offerer.openChannel(ChannelParameters(label: "a"), now: simulation.now)
        try simulation.negotiate()
        #expect(simulation.run(for: .seconds(30)) { $0.opened(1).count == 1 })
        let remote = try #require(simulation.opened(1).first).id
        let count = 36
        var sent = 0
        var waiting: [Payload] = []
        var taken = 0
        func push() {
            while sent < count {
                guard
                    (try? simulation.offerer.send(
                        id, isText: false, Payload.copying(Self.bytes(sent).span.bytes), now: simulation.now)) != nil
                else { break }
                sent += 1
            }
            let messages = simulation.payloads(1)
            waiting += messages[taken...]
            taken = messages.count
            while let first = waiting.first {
                guard (try? simulation.answerer.send(remote, isText: false, first, now: simulation.now)) != nil else {
                    break
                }
                waiting.removeFirst()
            }
        }
        let isDone = simulation.run(for: .seconds(600)) { simulation in
            push()
            return simulation.payloads(0).count >= count
        }
        #expect(isDone, "seed \(seed): \(simulation.payloads(0).count) of \(count) came back")
        let echoes = simulation.payloads(0).map { $0.copied() }
        let wrong = echoes.indices.first { echoes[$0] != Self.bytes($0) }
        #expect(wrong == nil, "seed \(seed): message \(wrong ?? 0) came back as another")
    }
}

extension Simulation {
    func payloads(_ index: Int) -> [Payload] {
        channelEvents[index].compactMap { if case .message(_, _, let payload) = $0 { payload } else { nil } }
    }
}
