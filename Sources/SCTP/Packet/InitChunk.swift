import Wire

/// The contents of INIT and INIT ACK (RFC 9260 sections 3.3.2 and 3.3.3), as far as they are used
/// over DTLS: address parameters are ignored (RFC 8261 section 6.1).
struct InitChunk: Equatable {
    var tag: UInt32 = 0
    var window: UInt32 = 0
    var outboundStreams: UInt16 = 0
    var inboundStreams: UInt16 = 0
    var initialTSN = TSN(0)
    var partialReliability = false
    var streamReset = false
    var zeroChecksum = false
    /// State cookie of an INIT ACK.
    var cookie: [UInt8]?
    /// Asked-for extension of the cookie's life in milliseconds.
    var cookiePreservative: UInt32 = 0
    /// Parameters to report to the peer, each with its header and padding.
    var unrecognized: [UInt8] = []
    /// RFC 9260 section 3.3.2.1.4: a host name address ends the attempt.
    var hasHostName = false

    static let fixedSize = 16

    init() {}

    /// Reads what follows the chunk header; nil if it is malformed.
    init?(body: RawSpan) {
        var reader = ByteReader(body)
        guard let tag = reader.read(UInt32.self), let window = reader.read(UInt32.self),
            let outbound = reader.read(UInt16.self), let inbound = reader.read(UInt16.self),
            let tsn = reader.read(UInt32.self)
        else { return nil }
        self.tag = tag
        self.window = window
        outboundStreams = outbound
        inboundStreams = inbound
        initialTSN = TSN(tsn)
        guard let rest = body.slice(at: Self.fixedSize, count: body.byteCount - Self.fixedSize) else { return nil }
        var parameters = ParameterReader(rest)
        while let (type, value, whole) = parameters.next() {
            guard read(type, rest.extracting(value), rest.extracting(whole)) else { break }
        }
        if parameters.isMalformed { return nil }
    }

    /// False: stop reading the parameters of this chunk.
    private mutating func read(_ type: UInt16, _ value: RawSpan, _ whole: RawSpan) -> Bool {
        switch type {
        case ParameterType.stateCookie:
            cookie = value.copied()
        case ParameterType.cookiePreservative:
            cookiePreservative = value.load(bigEndianAt: 0) ?? 0
        case ParameterType.hostName:
            hasHostName = true
        case ParameterType.forwardTSNSupported:
            partialReliability = true
        case ParameterType.zeroChecksumAcceptable:
            zeroChecksum = value.load(bigEndianAt: 0) == dtlsErrorDetection
        case ParameterType.supportedExtensions:
            for offset in 0..<value.byteCount {
                switch value.load(bigEndianAt: offset, as: UInt8.self) {
                case ChunkType.reconfig: streamReset = true
                case ChunkType.forwardTSN: partialReliability = true
                default: break
                }
            }
        case ParameterType.ipv4Address, ParameterType.ipv6Address, ParameterType.supportedAddressTypes,
            ParameterType.ecnCapable, ParameterType.unrecognized:
            break
        default:
            // RFC 9260 section 3.2.1: the upper two bits of an unknown type say whether to stop (0) or
            // to skip it (1), and whether to report it.
            if type & 0x4000 != 0, unrecognized.count + whole.byteCount <= 512 {
                unrecognized.append(contentsOf: whole.copied())
                while unrecognized.count & 3 != 0 { unrecognized.append(0) }
            }
            return type & 0x8000 != 0
        }
        return true
    }

    /// What to send. The zero checksum parameter stands first, so that the last parameter is the one
    /// whose length needs no padding to be known.
    func write(to packet: inout PacketBuilder, type: UInt8) {
        packet.chunk(type) { chunk in
            chunk.write(tag)
            chunk.write(window)
            chunk.write(outboundStreams)
            chunk.write(inboundStreams)
            chunk.write(initialTSN.value)
            if let cookie { chunk.parameter(ParameterType.stateCookie) { $0.write(cookie) } }
            if cookiePreservative > 0 {
                chunk.parameter(ParameterType.cookiePreservative) { $0.write(cookiePreservative) }
            }
            if zeroChecksum { chunk.parameter(ParameterType.zeroChecksumAcceptable) { $0.write(dtlsErrorDetection) } }
            var reported = unrecognized.span.bytes
            while let length: UInt16 = reported.load(bigEndianAt: 2), length >= 4,
                let whole = reported.slice(at: 0, count: Int(length))
            {
                let copy = whole.copied()
                chunk.parameter(ParameterType.unrecognized) { $0.write(copy) }
                let used = min(padded(Int(length)), reported.byteCount)
                reported = reported.extracting(used..<reported.byteCount)
            }
            if partialReliability { chunk.parameter(ParameterType.forwardTSNSupported) }
            if streamReset || partialReliability {
                chunk.parameter(ParameterType.supportedExtensions) {
                    if streamReset { $0.write(ChunkType.reconfig) }
                    if partialReliability { $0.write(ChunkType.forwardTSN) }
                }
            }
        }
    }
}
