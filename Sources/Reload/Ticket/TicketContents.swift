import Wire

/// What a server writes into a ticket for itself; nobody else can read it.
public struct TicketContents: Equatable, Sendable {
    /// The session that goes on.
    public var clientID: ClientID
    /// The one certificate the ticket can be used with: a SHA-256 digest, for others no ticket is issued.
    public var fingerprint: ClientFingerprint
    /// Unix time in seconds.
    public var expires: Int64
    /// Which of the server's certificates the client expects; its meaning is the caller's.
    public var certificate: UInt8
    /// The largest message the client takes; 0: any.
    public var maximumMessageSize: UInt32
    /// Both sides derive the SCTP INITs, see ``InitDerivation``.
    public var derivesInit: Bool

    public init(
        clientID: ClientID, fingerprint: ClientFingerprint, expires: Int64, certificate: UInt8,
        maximumMessageSize: UInt32, derivesInit: Bool
    ) {
        self.clientID = clientID
        self.fingerprint = fingerprint
        self.expires = expires
        self.certificate = certificate
        self.maximumMessageSize = maximumMessageSize
        self.derivesInit = derivesInit
    }
}

/// What became of a ticket that somebody showed.
public enum OpenedTicket: Equatable, Sendable {
    case contents(TicketContents)
    /// Authentic, but its time is over.
    case expired(TicketContents)
    /// Authentic, but of a newer library with the same secret; or not a ticket of this version at all.
    case unknownVersion
    /// Not sealed with a key that is accepted here: made up, damaged, of another server, or far too old.
    case forged
}

/// The sealed bytes, all numbers big-endian:
///
///     clientID 8 | fingerprint 32 | expires 4 | maximumMessageSize 4 | certificate 1 | flags 1
extension TicketContents {
    static let byteCount = 50
    private static let derivesInitFlag: UInt8 = 1

    /// nil if it cannot be written: a digest of another size, or a time that 32 bits do not hold (before
    /// 1970, after 2106).
    func encoded() -> [UInt8]? {
        guard fingerprint.digest.count == 32, let expires = UInt32(exactly: expires) else { return nil }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Self.byteCount)
        bytes.append(bigEndian: clientID.value)
        bytes += fingerprint.digest
        bytes.append(bigEndian: expires)
        bytes.append(bigEndian: maximumMessageSize)
        bytes.append(certificate)
        bytes.append(derivesInit ? Self.derivesInitFlag : 0)
        return bytes
    }

    /// nil for flags this version does not know: to ignore one could be to ignore a restriction.
    init?(decoding bytes: [UInt8]) {
        guard bytes.count == Self.byteCount, bytes[49] & ~Self.derivesInitFlag == 0,
            let fingerprint = ClientFingerprint(digest: Array(bytes[8..<40]))
        else { return nil }
        let text = bytes.span.bytes
        self.init(
            clientID: ClientID(text.bigEndian(0, 8)), fingerprint: fingerprint, expires: Int64(text.bigEndian(40, 4)),
            certificate: bytes[48], maximumMessageSize: UInt32(truncatingIfNeeded: text.bigEndian(44, 4)),
            derivesInit: bytes[49] & Self.derivesInitFlag != 0)
    }
}

extension [UInt8] {
    mutating func append(bigEndian value: some FixedWidthInteger & UnsignedInteger) {
        var shift = value.bitWidth
        while shift > 0 {
            shift -= 8
            append(UInt8(truncatingIfNeeded: value >> shift))
        }
    }
}

extension RawSpan {
    /// The number of up to eight bytes at `offset`; bytes outside count as zero.
    func bigEndian(_ offset: Int, _ count: Int) -> UInt64 {
        var value: UInt64 = 0
        for index in offset..<offset + count { value = value << 8 | UInt64(byte(index)) }
        return value
    }
}
