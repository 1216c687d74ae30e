import Wire

/// Everything needed to make the association, carried by the peer until it proves that it can be
/// reached (RFC 9260 section 5.1.3). Nothing is kept here in the meantime.
struct StateCookie: Equatable {
    var createdAt: Instant
    var lifetime: Duration
    /// Local tag and peer's tag of the association to be.
    var localTag: UInt32
    var peerTag: UInt32
    /// Tags of the association that existed when the INIT came; zero if none (section 5.2.2).
    var localTieTag: UInt32
    var peerTieTag: UInt32
    var localInitialTSN: TSN
    var peerInitialTSN: TSN
    var peerWindow: UInt32
    /// Streams the peer wants to send on, and takes.
    var peerOutboundStreams: UInt16
    var peerInboundStreams: UInt16
    var partialReliability: Bool
    var streamReset: Bool
    var zeroChecksum: Bool

    private static let magic: UInt32 = 0x5253_4331
    static let size = 4 + 8 + 8 + 4 * 4 + 4 * 3 + 2 * 2 + 4 + 8

    func sealed(with secret: SipHash) -> [UInt8] {
        var cookie = PacketBuilder()
        cookie.write(Self.magic)
        cookie.write(createdAt.nanoseconds)
        cookie.write(lifetime.nanoseconds)
        cookie.write(localTag)
        cookie.write(peerTag)
        cookie.write(localTieTag)
        cookie.write(peerTieTag)
        cookie.write(localInitialTSN.value)
        cookie.write(peerInitialTSN.value)
        cookie.write(peerWindow)
        cookie.write(peerOutboundStreams)
        cookie.write(peerInboundStreams)
        cookie.write((partialReliability ? 1 : 0) | (streamReset ? 2 : 0) | (zeroChecksum ? 4 : 0) as UInt32)
        let tag = secret.hash(cookie.bytes.span.bytes)
        cookie.write(tag)
        return cookie.bytes
    }
}

extension StateCookie {
    /// Opens a cookie; nil if this secret did not seal it.
    init?(_ bytes: RawSpan, secret: SipHash) {
        guard bytes.byteCount == Self.size, let body = bytes.slice(at: 0, count: Self.size - 8),
            let sealed = bytes.slice(at: Self.size - 8, count: 8)
        else { return nil }
        var expected = PacketBuilder()
        expected.write(secret.hash(body))
        let matches = sealed.equalsInConstantTime(expected.bytes.span.bytes)
        guard matches else { return nil }
        var reader = ByteReader(body)
        guard reader.read(UInt32.self) == Self.magic,
            let created = reader.read(Int64.self), let lifetime = reader.read(Int64.self),
            let localTag = reader.read(UInt32.self), let peerTag = reader.read(UInt32.self),
            let localTieTag = reader.read(UInt32.self), let peerTieTag = reader.read(UInt32.self),
            let localTSN = reader.read(UInt32.self), let peerTSN = reader.read(UInt32.self),
            let window = reader.read(UInt32.self),
            let outbound = reader.read(UInt16.self), let inbound = reader.read(UInt16.self),
            let flags = reader.read(UInt32.self)
        else { return nil }
        self.init(
            createdAt: Instant(nanoseconds: created), lifetime: Duration(nanoseconds: lifetime),
            localTag: localTag, peerTag: peerTag, localTieTag: localTieTag, peerTieTag: peerTieTag,
            localInitialTSN: TSN(localTSN), peerInitialTSN: TSN(peerTSN), peerWindow: window,
            peerOutboundStreams: outbound, peerInboundStreams: inbound,
            partialReliability: flags & 1 != 0, streamReset: flags & 2 != 0, zeroChecksum: flags & 4 != 0)
    }
}
