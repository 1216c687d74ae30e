/// SipHash-2-4 (Jean-Philippe Aumasson, Daniel J. Bernstein, "SipHash: a fast short-input PRF", INDOCRYPT 2012): a
/// keyed hash for short inputs. It authenticates what guards little, and places names in tables where nobody without
/// the key can aim.
@frozen
public struct SipHash: Sendable {
    @usableFromInline let key0: UInt64
    @usableFromInline let key1: UInt64

    /// The key's 16 bytes as two little-endian words.
    @inlinable
    public init(key0: UInt64, key1: UInt64) {
        self.key0 = key0
        self.key1 = key1
    }

    @inlinable
    public init(using random: inout some RandomNumberGenerator) {
        self.init(key0: random.next(), key1: random.next())
    }

    /// Hash of the words' bytes, little-endian.
    @inlinable
    public func hash<let count: Int>(_ words: InlineArray<count, UInt64>) -> UInt64 {
        var state = State(self)
        for index in words.indices { state.absorb(words[index]) }
        return state.finish(State.lastWord(length: count &* 8))
    }

    @inlinable
    public func hash(_ bytes: RawSpan) -> UInt64 {
        var state = State(self)
        return state.finish(bytes, length: bytes.byteCount)
    }

    /// Hash of the eight bytes of `word`, little-endian, and then `bytes`.
    @inlinable
    public func hash(_ bytes: RawSpan, after word: UInt64) -> UInt64 {
        var state = State(self)
        state.absorb(word)
        return state.finish(bytes, length: bytes.byteCount &+ 8)
    }

    @frozen
    @usableFromInline
    struct State {
        @usableFromInline var v0: UInt64
        @usableFromInline var v1: UInt64
        @usableFromInline var v2: UInt64
        @usableFromInline var v3: UInt64

        /// Section 2.1, "Initialization".
        @inlinable
        init(_ key: SipHash) {
            v0 = key.key0 ^ 0x736f_6d65_7073_6575
            v1 = key.key1 ^ 0x646f_7261_6e64_6f6d
            v2 = key.key0 ^ 0x6c79_6765_6e65_7261
            v3 = key.key1 ^ 0x7465_6462_7974_6573
        }

        /// "Compression": two rounds for each word.
        @inlinable
        @inline(__always)
        mutating func absorb(_ word: UInt64) {
            v3 ^= word
            round()
            round()
            v0 ^= word
        }

        /// Absorbs the bytes, the last of the input, and finishes. `length` is the whole input's.
        @inlinable
        mutating func finish(_ bytes: RawSpan, length: Int) -> UInt64 {
            var offset = 0
            while let word: UInt64 = bytes.load(bigEndianAt: offset) {
                absorb(word.byteSwapped)
                offset &+= 8
            }
            var last = Self.lastWord(length: length)
            var shift: UInt64 = 0
            while let byte: UInt8 = bytes.load(bigEndianAt: offset) {
                last |= UInt64(byte) &<< shift
                shift &+= 8
                offset &+= 1
            }
            return finish(last)
        }

        /// The last word begins with the bytes that fill no word, and ends with the length modulo 256.
        @inlinable
        static func lastWord(length: Int) -> UInt64 { UInt64(truncatingIfNeeded: length) &<< 56 }

        /// "Finalization": four rounds.
        @inlinable
        mutating func finish(_ last: UInt64) -> UInt64 {
            absorb(last)
            v2 ^= 0xFF
            for _ in 0..<4 { round() }
            return v0 ^ v1 ^ v2 ^ v3
        }

        @inlinable
        @inline(__always)
        mutating func round() {
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
