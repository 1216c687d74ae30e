import Wire

/// SipHash-2-4: a keyed hash for short inputs. It authenticates the state cookie: a peer that has
/// already passed DTLS has the handshake's lifetime to guess 64 bits.
struct SipHash {
    let key0: UInt64
    let key1: UInt64

    func hash(_ bytes: RawSpan) -> UInt64 {
        var v0 = key0 ^ 0x736f_6d65_7073_6575
        var v1 = key1 ^ 0x646f_7261_6e64_6f6d
        var v2 = key0 ^ 0x6c79_6765_6e65_7261
        var v3 = key1 ^ 0x7465_6462_7974_6573

        func round() {
            v0 = v0 &+ v1
            v1 = (v1 << 13 | v1 >> 51) ^ v0
            v0 = v0 << 32 | v0 >> 32
            v2 = v2 &+ v3
            v3 = (v3 << 16 | v3 >> 48) ^ v2
            v0 = v0 &+ v3
            v3 = (v3 << 21 | v3 >> 43) ^ v0
            v2 = v2 &+ v1
            v1 = (v1 << 17 | v1 >> 47) ^ v2
            v2 = v2 << 32 | v2 >> 32
        }

        var offset = 0
        while let word: UInt64 = bytes.load(bigEndianAt: offset) {
            v3 ^= word.byteSwapped
            round()
            round()
            v0 ^= word.byteSwapped
            offset &+= 8
        }
        var last = UInt64(truncatingIfNeeded: bytes.byteCount) << 56
        var shift: UInt64 = 0
        while let byte: UInt8 = bytes.load(bigEndianAt: offset) {
            last |= UInt64(byte) << shift
            shift &+= 8
            offset &+= 1
        }
        v3 ^= last
        round()
        round()
        v0 ^= last
        v2 ^= 0xFF
        for _ in 0..<4 { round() }
        return v0 ^ v1 ^ v2 ^ v3
    }
}
