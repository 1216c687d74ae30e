import Wire

typealias TSN = SerialNumber<UInt32>
typealias StreamSequence = SerialNumber<UInt16>

/// Chunk types (RFC 9260 section 3.2, RFC 3758, RFC 6525). Constants rather than an enum: the
/// bytes are a peer's.
enum ChunkType {
    static let data: UInt8 = 0
    static let initiation: UInt8 = 1
    static let initiationAck: UInt8 = 2
    static let sack: UInt8 = 3
    static let heartbeat: UInt8 = 4
    static let heartbeatAck: UInt8 = 5
    static let abort: UInt8 = 6
    static let shutdown: UInt8 = 7
    static let shutdownAck: UInt8 = 8
    static let error: UInt8 = 9
    static let cookieEcho: UInt8 = 10
    static let cookieAck: UInt8 = 11
    static let shutdownComplete: UInt8 = 14
    static let reconfig: UInt8 = 130
    static let forwardTSN: UInt8 = 192
}

enum DataFlag {
    static let end: UInt8 = 1
    static let beginning: UInt8 = 2
    static let unordered: UInt8 = 4
    static let immediate: UInt8 = 8
    static let whole: UInt8 = 3
}

/// The T bit of ABORT and SHUTDOWN COMPLETE: the verification tag is the receiver's own, reflected.
let reflectedTagFlag: UInt8 = 1

enum ParameterType {
    static let heartbeatInfo: UInt16 = 1
    static let ipv4Address: UInt16 = 5
    static let ipv6Address: UInt16 = 6
    static let stateCookie: UInt16 = 7
    static let unrecognized: UInt16 = 8
    static let cookiePreservative: UInt16 = 9
    static let hostName: UInt16 = 11
    static let supportedAddressTypes: UInt16 = 12
    static let outgoingReset: UInt16 = 13
    static let incomingReset: UInt16 = 14
    static let associationReset: UInt16 = 15
    static let reconfigResponse: UInt16 = 16
    static let addOutgoingStreams: UInt16 = 17
    static let addIncomingStreams: UInt16 = 18
    static let ecnCapable: UInt16 = 0x8000
    static let zeroChecksumAcceptable: UInt16 = 0x8001
    static let supportedExtensions: UInt16 = 0x8008
    static let forwardTSNSupported: UInt16 = 0xC000
}

/// Error causes (RFC 9260 section 3.3.10).
enum ErrorCause {
    static let invalidStream: UInt16 = 1
    static let missingParameter: UInt16 = 2
    static let staleCookie: UInt16 = 3
    static let outOfResource: UInt16 = 4
    static let unresolvableAddress: UInt16 = 5
    static let unrecognizedChunk: UInt16 = 6
    static let invalidParameter: UInt16 = 7
    static let unrecognizedParameters: UInt16 = 8
    static let noUserData: UInt16 = 9
    static let cookieWhileShuttingDown: UInt16 = 10
    static let userAbort: UInt16 = 12
    static let protocolViolation: UInt16 = 13
}

/// Re-configuration results (RFC 6525 section 4.4).
enum ResetResult {
    static let nothingToDo: UInt32 = 0
    static let performed: UInt32 = 1
    static let denied: UInt32 = 2
    static let badSequenceNumber: UInt32 = 5
    static let inProgress: UInt32 = 6
}

/// RFC 9653 section 8: the error detection method "SCTP over DTLS".
let dtlsErrorDetection: UInt32 = 1

let commonHeaderSize = 12
let dataHeaderSize = 16

@inline(__always)
func padded(_ length: Int) -> Int { (length &+ 3) & ~3 }
