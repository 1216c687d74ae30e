private import COpenSSL

/// The first half of SHA-256, as two words.
enum SHA256 {
    static func hash(_ bytes: [UInt8]) -> (UInt64, UInt64) {
        var digest = [UInt8](repeating: 0, count: 32)
        _ = unsafe stun_sha256(bytes, bytes.count, &digest)
        let span = digest.span.bytes
        return (span.load(bigEndianAt: 0) ?? 0, span.load(bigEndianAt: 8) ?? 0)
    }
}
