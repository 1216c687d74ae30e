import Testing

@testable import Wire

@Suite struct AddressText {
    @Test(arguments: [
        ("::", "::"), ("::1", "::1"), ("2001:db8::1", "2001:db8::1"), ("2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("fe80::1:2", "fe80::1:2"), ("::ffff:1.2.3.4", "1.2.3.4"), ("1.2.3.4", "1.2.3.4"),
        ("255.255.255.255", "255.255.255.255"),
        ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"), ("1:0:3:4:5:6:7:8", "1:0:3:4:5:6:7:8"), ("1::", "1::"), ("::8", "::8"),
        ("1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:102:304"), ("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"),
    ])
    func parsesAndPrintsCanonically(text: String, canonical: String) {
        #expect(IPAddress(text)?.description == canonical)
    }

    @Test(arguments: [
        "", ":", ":::", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1..2.3", "1.2.3.4 ", "g::", "1::2::3",
        "12345::",
        "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "1:", ":1", "fe80::1%eth0", "[::1]", "::1.2.3",
        "1:2:3:4:5:6:7:1.2.3.4",
    ])
    func refusesWhatIsNoAddress(text: String) {
        #expect(IPAddress(text) == nil)
    }

    @Test func classifiesAddresses() {
        #expect(IPAddress("127.0.0.1")!.isLoopback && IPAddress("::1")!.isLoopback && !IPAddress("::2")!.isLoopback)
        #expect(
            IPAddress("fe80::1")!.isLinkLocal && IPAddress("169.254.1.1")!.isLinkLocal
                && !IPAddress("fec0::1")!.isLinkLocal)
        #expect(
            IPAddress("10.0.0.1")!.isPrivate && IPAddress("fd00::1")!.isPrivate && !IPAddress("2001:db8::1")!.isPrivate)
        #expect(IPAddress("224.0.0.1")!.isMulticast && IPAddress("ff02::1")!.isMulticast)
        #expect(SocketAddress(ip: IPAddress("::1")!, port: 9).description == "[::1]:9")
    }
}

@Suite struct Numbers {
    @Test func serialNumbersWrapAround() {
        let high = SerialNumber<UInt32>(0xFFFF_FFFF)
        #expect(high.precedes(high.next) && !high.next.precedes(high))
        #expect(high.next == SerialNumber(0) && high.advanced(by: 5).distance(from: high) == 5)
        #expect(
            !SerialNumber<UInt16>(0).precedes(SerialNumber(0x8000))
                && !SerialNumber<UInt16>(0x8000).precedes(SerialNumber(0)))
        #expect(SerialNumber<UInt16>(0).precedes(SerialNumber(0x7FFF)))
    }

    @Test func spansOfTimeSaturate() {
        #expect(Duration.seconds(.max) == .forever)
        #expect(Duration.forever + .seconds(1) == .forever)
        #expect(Instant.distantFuture + .seconds(1) == .distantFuture)
        #expect(Duration.seconds(-4) / 0 == .forever && Duration.nanoseconds(.min) * -1 == .forever)
        #expect(Duration.milliseconds(1500).milliseconds == 1500 && Duration.milliseconds(1500).seconds == 1.5)
    }
}

@Suite struct Bytes {
    @Test func readerStopsAtTheEnd() {
        let bytes: [UInt8] = [1, 2, 3, 4, 5]
        var reader = ByteReader(bytes.span.bytes)
        let first = reader.read(UInt16.self)
        let tooLong = reader.read(UInt32.self)
        let (position, remaining) = (reader.position, reader.remaining)
        let rest = reader.read(count: 3)?.byteCount
        let past = reader.read(UInt8.self)
        let skipped = reader.skip(1) || reader.skip(-1)
        #expect(first == 0x0102 && tooLong == nil && position == 2 && remaining == 3)
        #expect(rest == 3 && past == nil && !skipped)
    }

    @Test func outputStopsAtItsCapacity() {
        var storage = [UInt8](repeating: 0, count: 6)
        storage.withUnsafeMutableBytes { buffer in
            var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
            let results = [
                output.write(0x0102_0304 as UInt32), output.write(1 as UInt32), output.write([9, 8]), output.write([7]),
                output.write([]), output.overwrite(at: 1, with: 0xAABB as UInt16),
                output.overwrite(at: 5, with: 0 as UInt16),
            ]
            #expect(results == [true, false, true, false, true, true, false])
            let count = output.finalize(for: buffer)
            #expect(count == 6)
        }
        #expect(storage == [1, 0xAA, 0xBB, 4, 9, 8])
    }

    @Test func payloadKeepsToItsCapacity() {
        let payload = Payload.allocate(capacity: 4)
        func append(_ bytes: [UInt8]) -> Bool { payload.append(bytes.span.bytes) }
        #expect(append([1, 2, 3]) && !append([4, 5]) && append([4]))
        #expect(payload.copied() == [1, 2, 3, 4] && payload.room == 0)
        #expect(Payload.allocate(capacity: -3).count == 0)
    }

    @Test func comparesInConstantTime() {
        func equal(_ left: [UInt8], _ right: [UInt8]) -> Bool { left.span.bytes.equalsInConstantTime(right.span.bytes) }
        #expect(equal([1, 2], [1, 2]) && equal([], []))
        #expect(!equal([1, 2], [1, 3]) && !equal([1], [1, 3]))
    }
}

private enum Timer: Int, CaseIterable { case retransmit, acknowledge, heartbeat }

@Suite struct Timers {
    @Test func expireEarliestFirstAndOnce() {
        var timers = TimerTable<Timer>()
        #expect(timers.nextTimeout == nil)
        timers[.heartbeat] = Instant(nanoseconds: 5)
        timers[.retransmit] = Instant(nanoseconds: 9)
        #expect(timers.nextTimeout == Instant(nanoseconds: 5))
        #expect(timers.expired(at: Instant(nanoseconds: 4)) == nil)
        #expect(timers.expired(at: Instant(nanoseconds: 10)) == .heartbeat)
        #expect(timers.expired(at: Instant(nanoseconds: 10)) == .retransmit)
        #expect(timers.expired(at: Instant(nanoseconds: 10)) == nil)
    }
}

@Suite struct Queues {
    @Test func keepsOrderWhileGrowing() {
        var queue = Queue<Int>()
        var expected = 0
        var next = 0
        for round in 0..<200 {
            for _ in 0..<(round % 13) {
                queue.append(next)
                next += 1
            }
            for _ in 0..<(round % 7) where !queue.isEmpty {
                #expect(queue.popFirst() == expected)
                expected += 1
            }
        }
        #expect(Array(queue) == Array(expected..<next) && queue.count == next - expected)
        while let value = queue.popFirst() {
            #expect(value == expected)
            expected += 1
        }
        #expect(expected == next && queue.popFirst() == nil)
    }

    @Test func letsGoOfABurst() {
        var queue = Queue(0..<5000)
        #expect(queue.first == 0)
        for number in 0..<5000 { #expect(queue.popFirst() == number) }
        #expect(queue.isEmpty && queue.first == nil && queue.storage.isEmpty)
    }

    @Test func letsGoOfWhatWasTaken() {
        final class Element {}
        var element: Element? = Element()
        weak let watched = element
        var queue = Queue([element, nil])
        element = nil
        #expect(watched != nil)
        _ = queue.popFirst()
        #expect(watched == nil && queue.count == 1)
        queue.removeAll()
        #expect(queue.isEmpty)
    }
}
