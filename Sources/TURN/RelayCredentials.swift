import STUN
public import Wire

/// A user of a TURN server (RFC 8489 section 9.2: long-term credentials).
public struct RelayCredentials: Hashable, Sendable {
    /// Like the password already prepared where it is not ASCII (RFC 8265 OpaqueString). At most 508 bytes.
    public var username: String
    public var password: String
    /// When the server stops taking them, on the caller's clock; nil if they do not end.
    public var expires: Instant?

    public init(username: String, password: String, expires: Instant? = nil) {
        self.username = username
        self.password = password
        self.expires = expires
    }

    /// What coturn's `use-auth-secret` takes (draft-uberti-behave-turn-rest-00 section 2.2): the name says until when,
    /// and the password is the base64 of the name's HMAC under a secret that the server shares.
    ///
    /// - Parameters:
    ///   - secret: coturn's `static-auth-secret`.
    ///   - user: anything that helps to tell users apart in the server's log; empty for nothing.
    ///   - expiry: seconds since 1970.
    ///   - algorithm: SHA-1 is what coturn takes; SHA-256 is for servers that say so.
    ///   - expires: the same time as `expiry`, on the caller's clock.
    public init(
        secret: [UInt8], user: String, expiry: Int64, algorithm: IntegrityAlgorithm = .sha1, expires: Instant? = nil
    ) {
        let name = user.isEmpty ? "\(expiry)" : "\(expiry):\(user)"
        self.init(
            username: name, password: base64(hmac(algorithm, key: secret, Array(name.utf8))), expires: expires)
    }

    /// Until when a name made that way is good, in seconds since 1970; nil if it is none.
    public static func expiry(ofUsername username: String) -> Int64? {
        let digits = username.utf8.prefix { $0 != UInt8(ascii: ":") }
        guard (9...12).contains(digits.count), digits.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) else { return nil }
        return digits.reduce(0) { $0 * 10 + Int64($1 - 0x30) }
    }
}

private let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

/// RFC 4648 section 4, with its padding.
private func base64(_ bytes: [UInt8]) -> String {
    var text: [UInt8] = []
    for start in stride(from: 0, to: bytes.count, by: 3) {
        let group = bytes[start..<min(start + 3, bytes.count)]
        var bits = group.reduce(0 as UInt32) { $0 << 8 | UInt32($1) }
        bits <<= UInt32(8 * (3 - group.count))
        for digit in 0..<4 {
            text.append(
                digit <= group.count ? alphabet[Int(bits >> UInt32(18 - 6 * digit) & 63)] : UInt8(ascii: "="))
        }
    }
    return String(decoding: text, as: UTF8.self)
}
