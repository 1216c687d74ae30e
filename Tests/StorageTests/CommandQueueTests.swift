import Testing
import Wire

@testable import Storage

@Suite struct CommandQueues {
    /// Against a plain list: whatever comes in, each command is answered or expires, once.
    @Test(arguments: [1, 2, 3, 4, 5, 6, 7, 8])
    func behaveAsAListDoes(seed: UInt64) {
        struct Known {
            let number: Int
            let deadline: Instant
            var isExpired = false
        }
        var random = SeededGenerator(seed: seed)
        var queue = CommandQueue()
        var known: [Known] = []
        let expired = Journal<Int>()
        var now = Instant(nanoseconds: 0)
        for number in 0..<20_000 {
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<5:
                let deadline =
                    now + .milliseconds(Int64.random(in: 1...(number % 3 == 0 ? 100_000 : 50), using: &random))
                queue.append(.command({ _ in expired.append(number) }), size: number, deadline: deadline)
                known.append(Known(number: number, deadline: deadline))
            case 5..<9:
                let entry = queue.popFirst()
                let expected = known.isEmpty ? nil : known.removeFirst()
                #expect(entry?.size == expected?.number, "seed \(seed)")
                if case .expired? = entry?.purpose {
                    #expect(expected?.isExpired == true, "seed \(seed)")
                } else {
                    #expect(expected?.isExpired != true, "seed \(seed)")
                }
            default:
                now = now + .milliseconds(Int64.random(in: 0...100, using: &random))
                let before = expired.all.count
                while let completion = queue.popExpired(now) { completion(.failure(.deadline)) }
                var due: Set<Int> = []
                for index in known.indices where !known[index].isExpired && known[index].deadline <= now {
                    known[index].isExpired = true
                    due.insert(known[index].number)
                }
                #expect(Set(expired.all.dropFirst(before)) == due, "seed \(seed)")
            }
            #expect(queue.count == known.count, "seed \(seed)")
        }
        #expect(queue.removeAll().map(\.size) == known.map(\.number), "seed \(seed)")
        #expect(queue.isEmpty)
        #expect(queue.nextDeadline == nil)
    }
}
