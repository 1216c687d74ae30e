private import COpenSSL

/// AES-256-GCM, HMAC-SHA256 and HKDF-SHA256, with OpenSSL's contexts made once. nil means that OpenSSL
/// refused (no memory, or an algorithm that is switched off), or that what should be opened is not authentic.
final class Cipher {
    static let keySize = Int(SEAL_KEY_SIZE)
    static let nonceSize = Int(SEAL_NONCE_SIZE)
    static let tagSize = Int(SEAL_TAG_SIZE)
    static let hashSize = Int(SEAL_HASH_SIZE)

    private let context: OpaquePointer?

    init() { unsafe context = seal_context_new() }

    deinit { unsafe seal_context_free(context) }

    func seal(_ plaintext: [UInt8], key: [UInt8], nonce: [UInt8], extra: [UInt8]) -> [UInt8]? {
        guard let context = unsafe context, key.count == Self.keySize, nonce.count == Self.nonceSize else { return nil }
        return Self.filled(plaintext.count + Self.tagSize) { output in
            unsafe seal_encrypt(context, key, nonce, extra, extra.count, plaintext, plaintext.count, output)
        }
    }

    func open(_ sealed: [UInt8], key: [UInt8], nonce: [UInt8], extra: [UInt8]) -> [UInt8]? {
        guard let context = unsafe context, key.count == Self.keySize, nonce.count == Self.nonceSize,
            sealed.count > Self.tagSize
        else { return nil }
        return Self.filled(sealed.count - Self.tagSize) { output in
            unsafe seal_decrypt(context, key, nonce, extra, extra.count, sealed, sealed.count, output)
        }
    }

    /// RFC 2104.
    func code(of message: [UInt8], key: [UInt8]) -> [UInt8]? {
        guard let context = unsafe context else { return nil }
        return Self.filled(Self.hashSize) { output in
            unsafe seal_hmac(context, key, key.count, message, message.count, output)
        }
    }

    /// RFC 5869, extract and expand.
    func derive(_ count: Int, from secret: [UInt8], salt: [UInt8], info: [UInt8]) -> [UInt8]? {
        guard let context = unsafe context, count > 0, count <= 255 * Self.hashSize else { return nil }
        return Self.filled(count) { output in
            unsafe seal_hkdf(
                context, salt, salt.count, secret, secret.count, info, info.count, output, count)
        }
    }

    /// `count` bytes as `write` leaves them; nil if it fails.
    private static func filled(_ count: Int, _ write: (UnsafeMutablePointer<UInt8>) -> Bool) -> [UInt8]? {
        var isWritten = false
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
            unsafe buffer.initialize(repeating: 0)
            initialized = count
            guard let start = buffer.baseAddress else { return }
            isWritten = write(start)
        }
        return isWritten ? bytes : nil
    }
}
