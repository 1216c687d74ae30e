import Testing
import Wire

@testable import Reload

func bytes(hex: String) -> [UInt8] {
    let digits = hex.compactMap(\.hexDigitValue)
    return stride(from: 0, to: digits.count - 1, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}

func bytes(_ range: ClosedRange<UInt8>) -> [UInt8] { Array(range) }

@Suite struct CipherVectors {
    let cipher = Cipher()

    /// RFC 5869 appendix A.1 to A.3.
    @Test func derivesAsRFC5869() {
        let small = [UInt8](repeating: 0x0B, count: 22)
        #expect(
            cipher.derive(42, from: small, salt: bytes(0x00...0x0C), info: bytes(0xF0...0xF9))
                == bytes(
                    hex: "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"))
        #expect(
            cipher.derive(82, from: bytes(0x00...0x4F), salt: bytes(0x60...0xAF), info: bytes(0xB0...0xFF))
                == bytes(
                    hex: """
                        b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09
                        da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87
                        """))
        #expect(
            cipher.derive(42, from: small, salt: [], info: [])
                == bytes(
                    hex: "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"))
    }

    /// A context that was used says nothing about the one before.
    @Test func keepsNothingOfTheDerivationBefore() {
        let first = cipher.derive(32, from: [1], salt: [], info: [])
        _ = cipher.derive(64, from: [2, 3], salt: [4], info: [5])
        #expect(cipher.derive(32, from: [1], salt: [], info: []) == first)
    }

    @Test func refusesToDeriveMoreThanRFC5869Allows() {
        #expect(cipher.derive(255 * 32, from: [1], salt: [], info: [])?.count == 255 * 32)
        #expect(cipher.derive(255 * 32 + 1, from: [1], salt: [], info: []) == nil)
        #expect(cipher.derive(0, from: [1], salt: [], info: []) == nil)
    }

    /// RFC 4231 sections 4.2 to 4.5, 4.7 and 4.8.
    @Test(arguments: [
        (
            [UInt8](repeating: 0x0B, count: 20), Array("Hi There".utf8),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        ),
        (
            Array("Jefe".utf8), Array("what do ya want for nothing?".utf8),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        ),
        (
            [UInt8](repeating: 0xAA, count: 20), [UInt8](repeating: 0xDD, count: 50),
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"
        ),
        (
            bytes(0x01...0x19), [UInt8](repeating: 0xCD, count: 50),
            "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"
        ),
        (
            [UInt8](repeating: 0xAA, count: 131), Array("Test Using Larger Than Block-Size Key - Hash Key First".utf8),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        ),
        (
            [UInt8](repeating: 0xAA, count: 131),
            Array(
                """
                This is a test using a larger than block-size key and a larger than block-size data. \
                The key needs to be hashed before being used by the HMAC algorithm.
                """.utf8),
            "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"
        ),
    ])
    func authenticatesAsRFC4231(key: [UInt8], message: [UInt8], code: String) {
        #expect(cipher.code(of: message, key: key) == bytes(hex: code))
        // Again with the same context, after another key.
        _ = cipher.code(of: [1], key: [2])
        #expect(cipher.code(of: message, key: key) == bytes(hex: code))
    }

    @Test func takesAnEmptyKeyForNoKeyAndNotForTheOneBefore() {
        _ = cipher.code(of: [1], key: [2])
        let empty = "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad"
        #expect(cipher.code(of: [], key: []) == bytes(hex: empty))
    }

    /// McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B, test cases 13, 14 and 16: AES-256 with
    /// nonces of 96 bits.
    @Test func sealsAsTheGCMSpecification() {
        let zeros = [UInt8](repeating: 0, count: 32)
        #expect(
            cipher.seal([], key: zeros, nonce: Array(zeros.prefix(12)), extra: [])
                == bytes(hex: "530f8afbc74536b9a963b4f1c4cb738b"))
        #expect(
            cipher.seal(Array(zeros.prefix(16)), key: zeros, nonce: Array(zeros.prefix(12)), extra: [])
                == bytes(hex: "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"))
        let key = bytes(hex: "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308")
        let nonce = bytes(hex: "cafebabefacedbaddecaf888")
        let extra = bytes(hex: "feedfacedeadbeeffeedfacedeadbeefabaddad2")
        let plaintext = bytes(
            hex: """
                d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
                1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39
                """)
        let sealed = bytes(
            hex: """
                522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa
                8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b
                """)
        #expect(cipher.seal(plaintext, key: key, nonce: nonce, extra: extra) == sealed)
        #expect(cipher.open(sealed, key: key, nonce: nonce, extra: extra) == plaintext)
        #expect(cipher.open(sealed, key: key, nonce: nonce, extra: []) == nil)
        #expect(cipher.open(sealed, key: key, nonce: nonce, extra: extra) == plaintext)
    }

    @Test func refusesWhatHasNotTheRightSize() {
        let key = [UInt8](repeating: 1, count: 32)
        let nonce = [UInt8](repeating: 2, count: 12)
        #expect(cipher.seal([1], key: Array(key.dropLast()), nonce: nonce, extra: []) == nil)
        #expect(cipher.seal([1], key: key, nonce: nonce + [0], extra: []) == nil)
        for count in 0...16 {
            #expect(cipher.open([UInt8](repeating: 0, count: count), key: key, nonce: nonce, extra: []) == nil)
        }
    }
}

@Suite struct Base64Texts {
    private func decoded(_ text: String) -> [UInt8]? {
        let bytes = Array(text.utf8)
        return Base64.bytes(bytes.span.bytes, from: 0)
    }

    /// RFC 4648 section 10, without the padding.
    @Test(arguments: [
        "": "", "f": "Zg", "fo": "Zm8", "foo": "Zm9v", "foob": "Zm9vYg", "fooba": "Zm9vYmE", "foobar": "Zm9vYmFy",
    ])
    func areThoseOfRFC4648(plain: String, text: String) {
        #expect(Base64.text(Array(plain.utf8)) == Array(text.utf8))
        #expect(decoded(text) == Array(plain.utf8))
        #expect(Base64.textCount(plain.utf8.count) == text.utf8.count)
    }

    @Test(arguments: [
        "A", "AAAAA",  // less than a byte
        "Zh", "Zm9", "Zm9vYh", "Zm9vYmF",  // pad bits
        "Zg==", "Zg=", "Zm9v=", "Zm9-", "Zm9_", "Zm 9v", "Zm9v\n", "Zm9ä",
    ])
    func haveOneFormOnly(text: String) { #expect(decoded(text) == nil) }

    @Test func roundTrip() {
        for seed in 0..<300 {
            var random = SeededGenerator(seed: UInt64(seed))
            let plain = random.bytes(seed)
            let text = Base64.text(plain)
            #expect(text.count == Base64.textCount(plain.count))
            #expect(Base64.bytes(text.span.bytes, from: 0) == plain, "seed \(seed)")
        }
    }
}
