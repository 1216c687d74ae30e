private import COpenSSL
import Wire

/// What is kept of a token: its SHA-256. Whoever reads the memory or a database of sessions learns no token from it.
/// A token has 192 random bits, so nothing slower than one hash is needed.
struct TokenDigest: Equatable, Sendable {
    let words: (UInt64, UInt64, UInt64, UInt64)

    init(words: (UInt64, UInt64, UInt64, UInt64)) { self.words = words }

    init(_ token: SessionToken) {
        var input = (token.words.0.bigEndian, token.words.1.bigEndian, token.words.2.bigEndian)
        var digest: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
        let isHashed = unsafe withUnsafeBytes(of: &input) { input in
            unsafe withUnsafeMutableBytes(of: &digest) { digest in
                unsafe stun_sha256(
                    input.bindMemory(to: UInt8.self).baseAddress, input.count,
                    digest.bindMemory(to: UInt8.self).baseAddress)
            }
        }
        guard isHashed == 1 else {
            // Without a hash no token can be recognised: this equals nothing.
            var random = SystemRandomNumberGenerator()
            words = (random.next(), random.next(), random.next(), random.next())
            return
        }
        words = (
            UInt64(bigEndian: digest.0), UInt64(bigEndian: digest.1), UInt64(bigEndian: digest.2),
            UInt64(bigEndian: digest.3)
        )
    }

    /// All words are compared before anything is decided: no early exit.
    static func == (left: TokenDigest, right: TokenDigest) -> Bool {
        let difference =
            (left.words.0 ^ right.words.0) | (left.words.1 ^ right.words.1)
            | (left.words.2 ^ right.words.2) | (left.words.3 ^ right.words.3)
        return difference == 0
    }

    /// For databases: base64url without padding, 43 characters.
    var key: String {
        let bytes = [words.0, words.1, words.2, words.3].flatMap { word in
            stride(from: 56, through: 0, by: -8).map { UInt8(truncatingIfNeeded: word >> UInt64($0)) }
        }
        return String(decoding: Base64.text(bytes, .url), as: UTF8.self)
    }
}

extension SipHash {
    func hash(_ digest: TokenDigest) -> UInt64 {
        hash([digest.words.0, digest.words.1, digest.words.2, digest.words.3])
    }
}
