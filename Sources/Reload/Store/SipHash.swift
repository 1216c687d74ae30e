/// SipHash-2-4 (Aumasson and Bernstein, 2012): a hash that nobody can aim at without the key.
struct SipHash: Sendable {
    private let key: (UInt64, UInt64)

    init(key: (UInt64, UInt64)) { self.key = key }

    init(using random: inout some RandomNumberGenerator) { key = (random.next(), random.next()) }

    /// Hash of the words' bytes, little-endian, followed by `tail`, the last up to seven bytes.
    func hash(_ words: some Sequence<UInt64>, tail: some Sequence<UInt8> = EmptyCollection<UInt8>()) -> UInt64 {
        var state = State(key)
        var count: UInt64 = 0
        for word in words {
            state.absorb(word)
            count &+= 8
        }
        var last: UInt64 = 0
        var shift: UInt64 = 0
        for byte in tail {
            last |= UInt64(byte) << shift
            shift &+= 8
            count &+= 1
        }
        state.absorb(last | count << 56)
        return state.finish()
    }

    func hash(_ digest: TokenDigest) -> UInt64 {
        var state = State(key)
        state.absorb(digest.words.0)
        state.absorb(digest.words.1)
        state.absorb(digest.words.2)
        state.absorb(digest.words.3)
        state.absorb(32 << 56)
        return state.finish()
    }

    private struct State {
        var v0: UInt64
        var v1: UInt64
        var v2: UInt64
        var v3: UInt64

        init(_ key: (UInt64, UInt64)) {
            v0 = key.0 ^ 0x736f_6d65_7073_6575
            v1 = key.1 ^ 0x646f_7261_6e64_6f6d
            v2 = key.0 ^ 0x6c79_6765_6e65_7261
            v3 = key.1 ^ 0x7465_6462_7974_6573
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
            v1 = Self.rotated(v1, 13) ^ v0
            v0 = Self.rotated(v0, 32)
            v2 &+= v3
            v3 = Self.rotated(v3, 16) ^ v2
            v0 &+= v3
            v3 = Self.rotated(v3, 21) ^ v0
            v2 &+= v1
            v1 = Self.rotated(v1, 17) ^ v2
            v2 = Self.rotated(v2, 32)
        }

        private static func rotated(_ word: UInt64, _ bits: UInt64) -> UInt64 { word << bits | word >> (64 - bits) }
    }
}
