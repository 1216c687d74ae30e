import Wire

/// SipHash-2-4 (Aumasson and Bernstein, 2012): authenticates positions, and places names in tables where nobody
/// without the key can aim.
struct SipHash: Sendable {
    private let key0: UInt64
    private let key1: UInt64

    init(key0: UInt64, key1: UInt64) {
        self.key0 = key0
        self.key1 = key1
    }

    init(using random: inout some RandomNumberGenerator) {
        key0 = random.next()
        key1 = random.next()
    }

    /// Hash of 16 bytes, given as two little-endian words.
    func hash(_ first: UInt64, _ second: UInt64) -> UInt64 {
        var state = State(key0, key1)
        state.absorb(first)
        state.absorb(second)
        state.absorb(16 << 56)
        return state.finish()
    }

    /// Hash of the eight bytes of `scope`, little-endian, and then `bytes`.
    func hash(_ bytes: RawSpan, scope: UInt64) -> UInt64 {
        var state = State(key0, key1)
        state.absorb(scope)
        var offset = 0
        while let word: UInt64 = bytes.load(bigEndianAt: offset) {
            state.absorb(word.byteSwapped)
            offset &+= 8
        }
        var last = UInt64(truncatingIfNeeded: bytes.byteCount &+ 8) << 56
        var shift: UInt64 = 0
        while let byte: UInt8 = bytes.load(bigEndianAt: offset) {
            last |= UInt64(byte) &<< shift
            shift &+= 8
            offset &+= 1
        }
        state.absorb(last)
        return state.finish()
    }

    private struct State {
        var v0: UInt64
        var v1: UInt64
        var v2: UInt64
        var v3: UInt64

        init(_ key0: UInt64, _ key1: UInt64) {
            v0 = key0 ^ 0x736f_6d65_7073_6575
            v1 = key1 ^ 0x646f_7261_6e64_6f6d
            v2 = key0 ^ 0x6c79_6765_6e65_7261
            v3 = key1 ^ 0x7465_6462_7974_6573
        }

        mutating func absorb(_ word: UInt64) {
            v3 ^= word
            round()
            round()
            v0 ^= word
        }

        mutating func finish() -> UInt64 {
            v2 ^= 0xFF
            for _ in 0..<4 { round() }
            return v0 ^ v1 ^ v2 ^ v3
        }

        private mutating func round() {
            v0 &+= v1
            v1 = (v1 &<< 13 | v1 &>> 51) ^ v0
            v0 = v0 &<< 32 | v0 &>> 32
            v2 &+= v3
            v3 = (v3 &<< 16 | v3 &>> 48) ^ v2
            v0 &+= v3
            v3 = (v3 &<< 21 | v3 &>> 43) ^ v0
            v2 &+= v1
            v1 = (v1 &<< 17 | v1 &>> 47) ^ v2
            v2 = v2 &<< 32 | v2 &>> 32
        }
    }
}
