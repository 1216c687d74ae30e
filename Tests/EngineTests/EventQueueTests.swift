import Testing

@testable import Engine

@Suite struct EventQueues {
    private func append(_ numbers: Range<Int64>, to queue: EventQueue) {
        var events = numbers.map { number in
            var event = Event(.log)
            event.number = number
            return event
        }
        queue.append(&events)
        #expect(events.isEmpty)
    }

    private func take(_ max: Int, from queue: EventQueue) -> [Int64] {
        guard case .batch(let batch, let events) = queue.take(max: max) else { return [] }
        #expect(queue.release(batch)?.count == events.count)
        #expect(queue.release(batch) == nil)
        return events.map(\.number)
    }

    @Test func eventsComeInOrderInBatchesOfAnySize() throws {
        let queue = try #require(EventQueue())
        append(0..<5, to: queue)
        append(5..<8, to: queue)
        #expect(queue.count == 8)
        #expect(take(100, from: queue) == Array(0..<8))
        #expect(take(100, from: queue) == [])
        append(8..<20, to: queue)
        #expect(take(3, from: queue) == [8, 9, 10])
        append(20..<22, to: queue)
        // From what was taken in part, and on into what came later.
        #expect(take(10, from: queue) == Array(11..<21))
        append(22..<24, to: queue)
        #expect(queue.count == 3)
        #expect(take(1, from: queue) == [21])
        #expect(take(9, from: queue) == [22, 23])
        #expect(queue.count == 0)
    }
}
