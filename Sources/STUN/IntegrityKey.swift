private import COpenSSL
import Wire

/// The hash under a message's integrity attribute.
public enum IntegrityAlgorithm: Hashable, Sendable {
    /// MESSAGE-INTEGRITY: HMAC-SHA1.
    case sha1
    /// MESSAGE-INTEGRITY-SHA256.
    case sha256
}

/// A password (or long-term key) prepared for authenticating messages: made once, used per message
/// without allocation.
public final class IntegrityKey {
    private var state = stun_hmac_key()

    /// Short-term credentials (RFC 8489 section 9.1.1): the key is the password.
    public init(password: [UInt8]) {
        _ = unsafe password.withUnsafeBufferPointer { buffer in
            unsafe stun_hmac_prepare(&state, buffer.baseAddress, buffer.count)
        }
    }

    public convenience init(password: String) { self.init(password: Array(password.utf8)) }

    /// Long-term credentials (RFC 8489 section 9.2.2): the key is a hash of the three. Names and
    /// password must have been prepared by the caller if they are not ASCII (RFC 8265 OpaqueString).
    public convenience init(username: String, realm: String, password: String, algorithm: IntegrityAlgorithm) {
        self.init(
            username: Array(username.utf8), realm: Array(realm.utf8), password: Array(password.utf8),
            algorithm: algorithm)
    }

    /// The same with a realm as it came, which need not be text.
    public convenience init(username: [UInt8], realm: [UInt8], password: [UInt8], algorithm: IntegrityAlgorithm) {
        let colon = [UInt8(ascii: ":")]
        let text = username + colon + realm + colon + password
        self.init(password: algorithm == .sha1 ? md5(text) : sha256(text))
    }

    /// The code over the first `count` bytes of `message` with its length field read as `length`.
    func code(_ algorithm: IntegrityAlgorithm, over message: RawSpan, count: Int, length: UInt16) -> InlineArray<
        8, UInt32
    > {
        var words = InlineArray<8, UInt32>(repeating: 0)
        guard count >= 4, count <= message.byteCount else { return words }
        unsafe message.withUnsafeBytes { bytes in
            let base = unsafe bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
            var span = words.mutableSpan
            unsafe span.withUnsafeMutableBufferPointer { output in
                switch algorithm {
                case .sha1: unsafe stun_hmac_sha1(&state, base, count, length, output.baseAddress)
                case .sha256: unsafe stun_hmac_sha256(&state, base, count, length, output.baseAddress)
                }
            }
        }
        return words
    }
}

/// USERHASH (RFC 8489 section 14.4): names a user without naming them.
public func userhash(username: String, realm: String) -> [UInt8] {
    userhash(username: Array(username.utf8), realm: Array(realm.utf8))
}

func userhash(username: [UInt8], realm: [UInt8]) -> [UInt8] { sha256(username + [UInt8(ascii: ":")] + realm) }

/// HMAC of a text under a secret: what time-limited credentials are made with.
public func hmac(_ algorithm: IntegrityAlgorithm, key: [UInt8], _ text: [UInt8]) -> [UInt8] {
    var digest = [UInt8](repeating: 0, count: 32)
    _ = unsafe stun_hmac_once(algorithm == .sha256 ? 1 : 0, key, key.count, text, text.count, &digest)
    return algorithm == .sha256 ? digest : Array(digest[..<20])
}

private func md5(_ bytes: [UInt8]) -> [UInt8] {
    var digest = [UInt8](repeating: 0, count: 16)
    _ = unsafe stun_md5(bytes, bytes.count, &digest)
    return digest
}

private func sha256(_ bytes: [UInt8]) -> [UInt8] {
    var digest = [UInt8](repeating: 0, count: 32)
    _ = unsafe stun_sha256(bytes, bytes.count, &digest)
    return digest
}
