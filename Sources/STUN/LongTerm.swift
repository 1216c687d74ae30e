import Wire

/// What a server says that a client must answer with (RFC 8489 section 9.2): the realm and the nonce of a response of
/// code 401 or 438, and what the server can do.
public struct Challenge: Hashable, Sendable {
    public var realm: [UInt8]
    public var nonce: [UInt8]
    /// PASSWORD-ALGORITHMS as it came, to be sent back; empty if there was none.
    public var passwordAlgorithms: [UInt8]
    /// The strongest of those; nil without the attribute.
    public var algorithm: IntegrityAlgorithm?
    /// The user is to be named by USERHASH (RFC 8489 section 9.2.3).
    public var hidesUsername: Bool

    /// More bytes than RFC 8489 sections 14.9 and 14.10 allow a realm or a nonce are not kept.
    private static let longest = 763

    /// - Parameter realm: what holds if the response names none.
    ///
    /// Nil if the response is no challenge, or one that somebody on the way made weaker: RFC 8489 section 9.2.5 has the
    /// client not go on if the nonce promises password algorithms and none are offered.
    public init?(_ message: borrowing Message, realm known: [UInt8]? = nil) {
        guard let nonce = message.nonce, nonce.byteCount > 0, nonce.byteCount <= Challenge.longest else { return nil }
        if let realm = message.realm {
            guard realm.byteCount > 0, realm.byteCount <= Challenge.longest else { return nil }
            self.realm = realm.copied()
        } else {
            guard let known else { return nil }
            realm = known
        }
        self.nonce = nonce.copied()
        let features = SecurityFeatures(nonce: nonce)
        hidesUsername = features.hasUsernameAnonymity
        passwordAlgorithms = []
        algorithm = nil
        if let offered = message.value(of: .passwordAlgorithms), offered.byteCount <= 256 {
            algorithm = Challenge.strongest(offered)
            passwordAlgorithms = algorithm == nil ? [] : offered.copied()
        }
        guard algorithm != nil || !features.hasPasswordAlgorithms else { return nil }
    }

    /// RFC 8489 section 14.11: number, length of the parameters, parameters, padded; 1 is MD5 and 2 SHA-256, which
    /// both have none.
    private static func strongest(_ offered: RawSpan) -> IntegrityAlgorithm? {
        var offset = 0
        var best: IntegrityAlgorithm?
        while let header = offered.load(bigEndianAt: offset, as: UInt32.self) {
            let parameters = Int(header & 0xFFFF)
            switch (header >> 16, parameters) {
            case (2, 0): best = .sha256
            case (1, 0): best = best ?? .sha1
            default: break
            }
            offset = offset &+ 4 &+ padded(parameters)
        }
        return best
    }
}

/// What a nonce that begins with the nonce cookie says of its server (RFC 8489 section 9.2).
public struct SecurityFeatures: Hashable, Sendable {
    public var hasPasswordAlgorithms = false
    public var hasUsernameAnonymity = false

    public init(nonce: RawSpan) {
        let cookie: StaticString = "obMatJos2"
        guard nonce.byteCount >= 13 else { return }
        for offset in 0..<9 where unsafe nonce.byte(offset) != cookie.utf8Start[offset] { return }
        var bits: UInt32 = 0
        for offset in 9..<13 {
            guard let digit = SecurityFeatures.digit(nonce.byte(offset)) else { return }
            bits = bits << 6 | digit
        }
        // RFC 8489 section 18.1 and its sample in appendix B.1, whose "AAAC" is username anonymity.
        hasPasswordAlgorithms = bits & 1 != 0
        hasUsernameAnonymity = bits & 2 != 0
    }

    /// RFC 4648 section 4.
    private static func digit(_ character: UInt8) -> UInt32? {
        switch character {
        case 0x41...0x5A: UInt32(character) - 0x41
        case 0x61...0x7A: UInt32(character) - 0x61 + 26
        case 0x30...0x39: UInt32(character) - 0x30 + 52
        case 0x2B: 62
        case 0x2F: 63
        default: nil
        }
    }
}

/// A user's answer to a challenge: what goes into every request until the next one (RFC 8489 section 9.2.3).
public final class LongTermCredentials {
    public let username: String
    public let challenge: Challenge
    public let key: IntegrityKey
    private let name: [UInt8]

    /// - Parameter username: like the password, already prepared where it is not ASCII (RFC 8265 OpaqueString).
    public init(username: String, password: String, challenge: Challenge) {
        self.username = username
        self.challenge = challenge
        let user = Array(username.utf8)
        name =
            challenge.hidesUsername ? userhash(username: user, realm: challenge.realm) : user
        key = IntegrityKey(
            username: user, realm: challenge.realm, password: Array(password.utf8),
            algorithm: challenge.algorithm ?? .sha1)
    }

    /// The attribute that signs. RFC 8489 section 9.2.4: with password algorithms it is the stronger one.
    public var integrity: IntegrityAlgorithm { challenge.algorithm == nil ? .sha1 : .sha256 }

    /// Appends who it is, and completes the message.
    @discardableResult
    public func finish(_ writer: inout MessageWriter, fingerprint: Bool = false, to output: inout OutputRawSpan) -> Bool
    {
        writer.append(challenge.hidesUsername ? .userhash : .username, name, to: &output)
        writer.append(.realm, challenge.realm, to: &output)
        writer.append(.nonce, challenge.nonce, to: &output)
        if let algorithm = challenge.algorithm {
            writer.append(.passwordAlgorithms, challenge.passwordAlgorithms, to: &output)
            writer.append(.passwordAlgorithm, (algorithm == .sha256 ? 2 : 1) << 16 as UInt32, to: &output)
        }
        return writer.finish(key, integrity, fingerprint: fingerprint, to: &output)
    }

    /// Whether a response is from somebody who has the key, and signed as strongly as the request was.
    public func signed(_ message: borrowing Message) -> Bool {
        message.integrityAlgorithm == integrity && message.isAuthentic(key)
    }
}
