import Testing
import Wire

@Suite struct KeyedHash {
    /// Key 00..0f.
    private static let hash = SipHash(key0: 0x0706_0504_0302_0100, key1: 0x0F0E_0D0C_0B0A_0908)

    /// The hashes of the inputs that are empty, 00, 00..01 and so on, as the reference implementation gives them. That of
    /// 00..0e is the paper's example (appendix A).
    private static let vectors: [UInt64] = [
        0x726F_DB47_DD0E_0E31, 0x74F8_39C5_93DC_67FD, 0x0D6C_8009_D9A9_4F5A, 0x8567_6696_D7FB_7E2D,
        0xCF27_94E0_2771_87B7, 0x1876_5564_CD99_A68D, 0xCBC9_466E_58FE_E3CE, 0xAB02_00F5_8B01_D137,
        0x93F5_F579_9A93_2462, 0x9E00_82DF_0BA9_E4B0, 0x7A5D_BBC5_94DD_B9F3, 0xF4B3_2F46_226B_ADA7,
        0x751E_8FBC_860E_E5FB, 0x14EA_5627_C084_3D90, 0xF723_CA90_8E7A_F2EE, 0xA129_CA61_49BE_45E5,
        0x3F2A_CC7F_57C2_9BDB,
    ]

    @Test func givesTheReferencesVectors() {
        for (count, expected) in Self.vectors.enumerated() {
            let input = Array(0..<UInt8(count))
            let hash = Self.hash.hash(input.span.bytes)
            #expect(hash == expected, "\(count) bytes")
        }
    }

    @Test func wordsAreTheirBytes() {
        #expect(Self.hash.hash([]) == Self.vectors[0])
        #expect(Self.hash.hash([0x0706_0504_0302_0100]) == Self.vectors[8])
        #expect(Self.hash.hash([0x0706_0504_0302_0100, 0x0F0E_0D0C_0B0A_0908]) == Self.vectors[16])
    }

    @Test func aWordBeforeTheBytesIsPartOfTheInput() {
        for (count, expected) in Self.vectors.enumerated().dropFirst(8) {
            let rest = Array(8..<UInt8(count))
            let hash = Self.hash.hash(rest.span.bytes, after: 0x0706_0504_0302_0100)
            #expect(hash == expected, "8 and \(count - 8) bytes")
        }
    }

    /// `head -c 256 /dev/zero | openssl mac -macopt hexkey:000102030405060708090a0b0c0d0e0f -macopt size:8 -in - SIPHASH`
    @Test func theLengthCountsModulo256() {
        let zeros = [UInt8](repeating: 0, count: 256)
        let hash = Self.hash.hash(zeros.span.bytes)
        #expect(hash == 0x7408_248D_2694_D61C)
    }

    @Test func keysAreDrawnInOrder() {
        var (random, same) = (SeededGenerator(seed: 1), SeededGenerator(seed: 1))
        let drawn = SipHash(using: &random)
        let made = SipHash(key0: same.next(), key1: same.next())
        #expect(drawn.hash([5]) == made.hash([5]))
    }
}
