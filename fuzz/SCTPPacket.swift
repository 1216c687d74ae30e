// Packets from a peer against an association in every state.
//
// Input: the first byte chooses the state, then records of a two-byte length (big endian) and the
// packet behind ports and tag: those are filled in, and so is the checksum, since random bytes would
// never get past them. A length with its top bit set is a pause instead, in milliseconds.

import SCTP
import Wire

private let established = 0
private let cookieWait = 1
private let idle = 2

private func drain(_ association: Association, _ now: Instant) {
    var buffer = [UInt8](repeating: 0, count: 2048)
    for _ in 0..<10_000 {
        let more: Bool = buffer.withUnsafeMutableBytes { bytes in
            var output = OutputRawSpan(buffer: bytes, initializedCount: 0)
            let any = association.pollTransmit(into: &output, now: now)
            _ = output.finalize(for: bytes)
            return any
        }
        if !more { break }
    }
    while let event = association.pollEvent() { _ = event }
}

/// CRC32C, bit by bit: the fuzzer's own, so that it needs nothing but the public modules.
private func checksum(_ bytes: [UInt8]) -> UInt32 {
    var state: UInt32 = 0xFFFF_FFFF
    for byte in bytes {
        state ^= UInt32(byte)
        for _ in 0..<8 { state = state >> 1 ^ (state & 1 != 0 ? 0x82F6_3B78 : 0) }
    }
    return ~state
}

private func packet(_ body: ArraySlice<UInt8>, tag: UInt32) -> [UInt8] {
    var bytes: [UInt8] = [0x13, 0x88, 0x13, 0x88]
    for shift in [24, 16, 8, 0] as [UInt32] { bytes.append(UInt8(truncatingIfNeeded: tag >> shift)) }
    bytes += [0, 0, 0, 0]
    bytes += body
    let sum = checksum(bytes)
    for place in 0..<4 { bytes[8 + place] = UInt8(truncatingIfNeeded: sum >> UInt32(8 * place)) }
    return bytes
}

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzSCTPPacket(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    guard let start, count > 1 else { return 0 }
    let input = Array(UnsafeBufferPointer(start: start, count: count))
    var configuration = Association.Configuration()
    configuration.receiveBuffer = 20_000
    configuration.maximumMessageSize = 5_000
    configuration.sendBuffer = 50_000
    let association = Association(configuration: configuration, random: SeededGenerator(seed: 1))
    let peer = Association(configuration: configuration, random: SeededGenerator(seed: 2))
    var now = Instant(nanoseconds: 1_000_000_000)
    let tag = association.initChunk[4..<8].reduce(0 as UInt32) { $0 << 8 | UInt32($1) }

    switch Int(input[0] & 3) {
    case established:
        let remote = peer.initChunk
        _ = association.establish(remoteInit: remote.span.bytes, now: now)
    case cookieWait:
        association.connect(now: now)
    default:
        break
    }
    for stream in 0..<4 as Range<UInt16> {
        let payload = Payload.allocate(capacity: 3000)
        let bytes = [UInt8](repeating: 0x55, count: stream == 3 ? 3000 : 40)
        payload.append(bytes.span.bytes)
        try? association.send(
            stream: stream, protocolIdentifier: 53, payload: payload, ordered: stream != 1,
            reliability: stream == 2 ? .retransmits(1) : .reliable, now: now)
    }
    if input[0] & 4 != 0 { association.resetStreams([1, 2], now: now) }
    if input[0] & 8 != 0 { association.shutdown(now: now) }
    drain(association, now)

    var offset = 1
    while offset + 2 <= input.count {
        let length = Int(input[offset]) << 8 | Int(input[offset + 1])
        offset += 2
        if length & 0x8000 != 0 {
            now = now + .milliseconds(Int64(length & 0x7FFF))
            association.handleTimeout(now: now)
        } else {
            let end = min(offset + length, input.count)
            let body = input[offset..<end]
            offset = end
            let isInit = body.first == 1
            let bytes = packet(body, tag: isInit ? 0 : tag)
            association.handle(packet: bytes.span.bytes, now: now)
        }
        drain(association, now)
        let statistics = association.statistics
        precondition(statistics.receiveBufferUsed >= 0 && statistics.receiveBufferUsed <= 2 * 20_000 + 5_000)
        precondition(statistics.sendBufferUsed >= 0 && statistics.bytesInFlight >= 0)
    }
    return 0
}
