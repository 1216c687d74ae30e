public import Wire

/// Writes one message behind what `output` already holds. Attributes are appended in the order of
/// the calls; ``finish(_:_:to:)`` adds integrity and FINGERPRINT and the length. If anything did not
/// fit, finish takes the whole message back and answers false.
public struct MessageWriter {
    private let start: Int
    private let id: TransactionID
    private var fits = true

    public init(
        _ messageClass: MessageClass, method: UInt16 = MessageType.binding, id: TransactionID,
        to output: inout OutputRawSpan
    ) {
        start = output.byteCount
        self.id = id
        write(MessageType(messageClass, method: method).rawValue, to: &output)
        write(0 as UInt16, to: &output)
        write(magicCookie, to: &output)
        write(id.high, to: &output)
        write(id.low, to: &output)
    }

    public mutating func append(_ type: AttributeType, _ value: RawSpan, to output: inout OutputRawSpan) {
        guard value.byteCount <= Int(UInt16.max) else {
            fits = false
            return
        }
        header(type, value.byteCount, to: &output)
        fits = output.write(value) && fits
        fits = output.writeZeros(padded(value.byteCount) &- value.byteCount) && fits
    }

    public mutating func append(_ type: AttributeType, _ value: [UInt8], to output: inout OutputRawSpan) {
        append(type, value.span.bytes, to: &output)
    }

    /// An attribute without a value, as USE-CANDIDATE.
    public mutating func append(_ type: AttributeType, to output: inout OutputRawSpan) {
        header(type, 0, to: &output)
    }

    public mutating func append(_ type: AttributeType, _ value: UInt32, to output: inout OutputRawSpan) {
        header(type, 4, to: &output)
        write(value, to: &output)
    }

    public mutating func append(_ type: AttributeType, _ value: UInt64, to output: inout OutputRawSpan) {
        header(type, 8, to: &output)
        write(value, to: &output)
    }

    /// The XOR types are masked, others are written plain.
    public mutating func append(_ type: AttributeType, _ address: SocketAddress, to output: inout OutputRawSpan) {
        let mask = type.isMasked ? AddressMask(id) : .none
        header(type, address.ip.isIPv4 ? 8 : 20, to: &output)
        write(address.ip.isIPv4 ? 1 : 2 as UInt16, to: &output)
        write(address.port ^ mask.port, to: &output)
        if address.ip.isIPv4 {
            write(address.ip.v4Bits ^ mask.v4, to: &output)
        } else {
            write(address.ip.high ^ mask.high, to: &output)
            write(address.ip.low ^ mask.low, to: &output)
        }
    }

    /// ERROR-CODE with an empty reason, which nobody but people reads.
    public mutating func append(errorCode code: Int, to output: inout OutputRawSpan) {
        header(.errorCode, 4, to: &output)
        write(
            UInt32(truncatingIfNeeded: code / 100 & 7) << 8 | UInt32(truncatingIfNeeded: code % 100) & 0xFF, to: &output
        )
    }

    /// UNKNOWN-ATTRIBUTES for a response of code 420.
    public mutating func append(unknown types: UnknownAttributes, to output: inout OutputRawSpan) {
        header(.unknownAttributes, 2 &* types.count, to: &output)
        for index in 0..<types.count { write(types[index], to: &output) }
        if types.count & 1 == 1 { write(0 as UInt16, to: &output) }
    }

    /// Completes the message: integrity if there is a key, then FINGERPRINT if asked for.
    @discardableResult
    public mutating func finish(
        _ key: IntegrityKey?, _ algorithm: IntegrityAlgorithm = .sha1, fingerprint: Bool = true,
        to output: inout OutputRawSpan
    ) -> Bool {
        if let key, fits { appendIntegrity(key, algorithm, to: &output) }
        if fingerprint, fits { appendFingerprint(to: &output) }
        setLength(output.byteCount &- start &- headerSize, in: &output)
        guard fits else {
            output.removeLast(output.byteCount &- start)
            return false
        }
        return true
    }

    private mutating func appendIntegrity(
        _ key: IntegrityKey, _ algorithm: IntegrityAlgorithm, to output: inout OutputRawSpan
    ) {
        let words = algorithm == .sha1 ? 5 : 8
        let count = output.byteCount &- start
        let length = count &- headerSize &+ 4 &+ 4 &* words
        guard length <= Int(UInt16.max) else {
            fits = false
            return
        }
        let code = key.code(
            algorithm, over: output.bytes.extracting(droppingFirst: start), count: count, length: UInt16(length))
        header(algorithm == .sha1 ? .messageIntegrity : .messageIntegritySHA256, 4 &* words, to: &output)
        for index in 0..<words { write(code[index], to: &output) }
    }

    private mutating func appendFingerprint(to output: inout OutputRawSpan) {
        // RFC 8489 section 14.7: the length covers FINGERPRINT before the CRC is computed.
        setLength(output.byteCount &- start &- headerSize &+ 8, in: &output)
        let crc = crc32(output.bytes.extracting(droppingFirst: start))
        header(.fingerprint, 4, to: &output)
        write(crc ^ fingerprintMask, to: &output)
    }

    private mutating func setLength(_ length: Int, in output: inout OutputRawSpan) {
        guard length >= 0, length <= Int(UInt16.max) else {
            fits = false
            return
        }
        fits = output.overwrite(at: start &+ 2, with: UInt16(length)) && fits
    }

    private mutating func header(_ type: AttributeType, _ length: Int, to output: inout OutputRawSpan) {
        write(type.rawValue, to: &output)
        write(UInt16(truncatingIfNeeded: length), to: &output)
    }

    private mutating func write<Value: FixedWidthInteger & BitwiseCopyable>(
        _ value: Value, to output: inout OutputRawSpan
    ) {
        fits = output.write(value) && fits
    }
}

/// Writes the error response to a request, signed if there is a key: what refuses a peer at once
/// instead of leaving it to its timeouts. False if it did not fit.
@discardableResult
public func writeErrorResponse(
    code: Int, to request: borrowing Message, key: IntegrityKey?, into output: inout OutputRawSpan
) -> Bool {
    var writer = MessageWriter(.error, method: request.method, id: request.transactionID, to: &output)
    writer.append(errorCode: code, to: &output)
    if code == 420 { writer.append(unknown: request.unknownAttributes, to: &output) }
    return writer.finish(key, request.integrityAlgorithm ?? .sha1, to: &output)
}
