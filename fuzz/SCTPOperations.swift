// Sequences of calls on two associations with a path between them that the input controls: what is
// sent, lost, held back, repeated, damaged, and how time passes. Whatever the input does, nothing may
// trap, memory keeps to its bound, no message comes twice, and reliable ones are undamaged.

import SCTP
import Wire

private final class Operations {
    let ends: [Association]
    var now = Instant(nanoseconds: 1_000_000_000)
    var inFlight: [[[UInt8]]] = [[], []]
    var buffer = [UInt8](repeating: 0, count: 2048)
    var sent = [0 as UInt32, 0]
    var seen: [Set<UInt32>] = [[], []]
    var restarted = false

    init(_ flavor: UInt8) {
        var configuration = Association.Configuration()
        configuration.receiveBuffer = flavor & 1 != 0 ? 4_000 : 100_000
        configuration.maximumMessageSize = 2_000
        configuration.sendBuffer = 30_000
        configuration.maximumPacketSize = flavor & 2 != 0 ? 256 : 1163
        configuration.zeroChecksum = flavor & 4 != 0
        ends = [
            Association(configuration: configuration, random: SeededGenerator(seed: 3)),
            Association(configuration: configuration, random: SeededGenerator(seed: 4)),
        ]
    }

    func drain(_ index: Int) {
        for _ in 0..<10_000 {
            let end = ends[index]
            let time = now
            let count: Int = buffer.withUnsafeMutableBytes { bytes in
                var output = OutputRawSpan(buffer: bytes, initializedCount: 0)
                let any = end.pollTransmit(into: &output, now: time)
                let written = output.finalize(for: bytes)
                return any ? written : 0
            }
            guard count > 0 else { return }
            if inFlight[1 - index].count < 64 { inFlight[1 - index].append(Array(buffer[0..<count])) }
        }
        fatalError("endless packets")
    }

    func take(_ index: Int) {
        while let event = ends[index].pollEvent() {
            switch event {
            case .restarted:
                restarted = true
            case .message(let message):
                let bytes = message.payload.copied()
                precondition(bytes.count >= 4, "a message that nobody sent")
                let number = bytes[0..<4].reduce(0 as UInt32) { $0 << 8 | UInt32($1) }
                precondition(number < sent[1 - index], "a message that nobody sent")
                precondition(bytes[4...].allSatisfy { $0 == UInt8(truncatingIfNeeded: number) }, "a damaged message")
                precondition(seen[index].insert(number).inserted || restarted, "a message came twice")
            default:
                break
            }
        }
        drain(index)
    }

    func send(_ index: Int, _ kind: UInt8, _ size: UInt8) {
        let number = sent[index]
        var bytes: [UInt8] = [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: number >> $0) }
        bytes += [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: Int(size) * 7)
        let reliability: Association.Reliability =
            switch kind >> 2 & 3 {
            case 0: .retransmits(UInt32(kind >> 4 & 3))
            case 1: .lifetime(.milliseconds(Int64(kind)))
            default: .reliable
            }
        do throws(Association.SendError) {
            try ends[index].send(
                stream: UInt16(kind & 3), protocolIdentifier: 53, payload: .copying(bytes.span.bytes),
                ordered: kind & 0x80 == 0, reliability: reliability, now: now)
            sent[index] += 1
        } catch {}
        drain(index)
    }

    func deliver(_ index: Int, at place: Int, keeps: Bool, damage: Int?) {
        guard !inFlight[index].isEmpty else { return }
        let position = place % inFlight[index].count
        var bytes = inFlight[index][position]
        if !keeps { inFlight[index].remove(at: position) }
        // Damage only where checksums find it.
        if let damage, !ends[index].features.zeroChecksumReceive { bytes[damage % bytes.count] ^= 0x40 }
        ends[index].handle(packet: bytes.span.bytes, now: now)
        drain(index)
    }
}

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzSCTPOperations(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    guard let start, count > 1, count < 4096 else { return 0 }
    let input = Array(UnsafeBufferPointer(start: start, count: count))
    let run = Operations(input[0])
    var offset = 1
    func next() -> UInt8 {
        guard offset < input.count else { return 0 }
        offset += 1
        return input[offset - 1]
    }
    while offset < input.count {
        let operation = next()
        let index = Int(operation & 1)
        switch operation >> 1 & 15 {
        case 0: run.ends[index].connect(now: run.now)
        case 1, 2: run.send(index, next(), next())
        case 3, 4: run.deliver(index, at: 0, keeps: false, damage: nil)
        case 5: run.deliver(index, at: Int(next()), keeps: false, damage: nil)
        case 6: run.deliver(index, at: Int(next()), keeps: true, damage: nil)
        case 7: run.deliver(index, at: 0, keeps: false, damage: Int(next()))
        case 8: if !run.inFlight[index].isEmpty { run.inFlight[index].removeFirst() }
        case 9: run.take(index)
        case 10: run.now = run.now + .milliseconds(Int64(next()) * 4)
        case 11: if let timeout = run.ends[index].nextTimeout { run.now = max(run.now, timeout) }
        case 12: run.ends[index].resetStreams([UInt16(next() & 3), 2], now: run.now)
        case 13:
            while !run.inFlight[index].isEmpty { run.deliver(index, at: 0, keeps: false, damage: nil) }
        case 14: run.ends[index].setBufferedAmountLowThreshold(stream: UInt16(next() & 3), bytes: Int(next()))
        default:
            switch next() & 7 {
            case 0: run.ends[index].shutdown(now: run.now)
            case 1: run.ends[index].abort(now: run.now)
            case 2: run.ends[index].maximumPacketSize = 256 + Int(next()) * 3
            default: run.take(index)
            }
        }
        run.drain(index)
        for end in run.ends {
            if let timeout = end.nextTimeout, timeout <= run.now { end.handleTimeout(now: run.now) }
            let statistics = end.statistics
            precondition(statistics.receiveBufferUsed >= 0 && statistics.receiveBufferUsed <= 202_000)
            precondition(statistics.sendBufferUsed >= 0 && statistics.sendBufferUsed <= 30_000)
        }
    }
    run.take(0)
    run.take(1)
    return 0
}
