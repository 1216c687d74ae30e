import Wire

/// The record of ``SimulatedTransport``: a DTLS 1.2 header (RFC 6347 section 4.1), eight bytes where
/// AES-GCM has its explicit nonce, the body in the clear, and a checksum in the place of the tag.
struct SimulatedRecord: ~Escapable {
    static let overhead = headerLength + 8 + tagLength
    private static let headerLength = 13
    private static let tagLength = 16

    let sequence: UInt64
    let body: RawSpan
    private let covered: RawSpan
    private let tag: (UInt64, UInt64)

    /// Nil if the length is not that of the datagram.
    @_lifetime(copy datagram)
    init?(_ datagram: RawSpan) {
        let bodyLength = datagram.byteCount &- SimulatedRecord.overhead
        guard bodyLength >= 0,
            let sequence = datagram.load(bigEndianAt: SimulatedRecord.headerLength, as: UInt64.self),
            let length = datagram.load(bigEndianAt: 11, as: UInt16.self),
            Int(length) == datagram.byteCount &- SimulatedRecord.headerLength,
            let covered = datagram.slice(at: 0, count: datagram.byteCount &- SimulatedRecord.tagLength),
            let body = datagram.slice(at: SimulatedRecord.headerLength &+ 8, count: bodyLength),
            let first = datagram.load(bigEndianAt: covered.byteCount, as: UInt64.self),
            let second = datagram.load(bigEndianAt: covered.byteCount &+ 8, as: UInt64.self)
        else { return nil }
        self.sequence = sequence
        self.body = body
        self.covered = covered
        tag = (first, second)
    }

    func hasIntegrity(session: UInt64) -> Bool {
        let sum = SimulatedRecord.checksum(covered, key: session)
        return tag.0 == sum && tag.1 == ~sum
    }

    /// Appends one record. The caller has checked that there is room.
    static func write(
        _ type: UInt8, sequence: UInt64, session: UInt64, body: RawSpan, into output: inout OutputRawSpan
    ) {
        let start = output.byteCount
        output.write(type)
        output.write(0xFEFD as UInt16)
        output.write(UInt16(session == 0 ? 0 : 1))
        output.write(UInt16(truncatingIfNeeded: sequence >> 32))
        output.write(UInt32(truncatingIfNeeded: sequence))
        output.write(UInt16(truncatingIfNeeded: body.byteCount &+ 8 &+ tagLength))
        output.write(sequence)
        output.write(body)
        var sum: UInt64 = 0
        if let record = output.bytes.slice(at: start, count: output.byteCount &- start) {
            sum = checksum(record, key: session)
        }
        output.write(sum)
        output.write(~sum)
    }

    /// Eight bytes at a time, because a simulation spends much of its time here.
    static func checksum(_ bytes: RawSpan, key: UInt64) -> UInt64 {
        var sum = mix(key, UInt64(truncatingIfNeeded: bytes.byteCount))
        var offset = 0
        while let word = bytes.load(bigEndianAt: offset, as: UInt64.self) {
            sum = mix(sum, word)
            offset &+= 8
        }
        while offset < bytes.byteCount {
            sum = mix(sum, UInt64(bytes.byte(offset)) | 0x100)
            offset &+= 1
        }
        return sum
    }

    static func mix(_ left: UInt64, _ right: UInt64) -> UInt64 {
        var value = (left ^ right &* 0x9E37_79B9_7F4A_7C15) &+ 0x2545_F491_4F6C_DD1D
        value = (value ^ value >> 29) &* 0xBF58_476D_1CE4_E5B9
        return value ^ value >> 32
    }

    static func append(_ value: UInt64, to bytes: inout [UInt8]) {
        for shift in stride(from: UInt64(56), through: 0, by: -8) {
            bytes.append(UInt8(truncatingIfNeeded: value >> shift))
        }
    }
}

/// Which of the last 64 sequence numbers came already (RFC 6347 section 4.1.2.6).
struct ReplayWindow {
    private var highest: UInt64 = 0
    private var seen: UInt64 = 0

    /// False for a number that came before, or is too old to tell.
    mutating func accept(_ sequence: UInt64) -> Bool {
        if sequence > highest {
            let distance = sequence &- highest
            seen = distance >= 64 ? 1 : seen << distance | 1
            highest = sequence
            return true
        }
        let age = highest &- sequence
        guard age < 64, seen >> age & 1 == 0 else { return false }
        seen |= 1 << age
        return true
    }
}
