import Wire

/// Seals what a server wants to know of a client that comes back without signaling into the text the
/// client comes back with: its ICE user fragment.
///
///     ufrag = "lrc1/" base64(header | nonce 12 | sealed contents 50 | tag 16)        117 characters
///     header = epoch 4 | secret 2
///     pwd = base64(HMAC-SHA256(k2, ufrag))                                           43 characters
///
/// The header is readable, and authenticated: it says with which keys the rest was sealed. Each secret gives
/// an AES-256-GCM key k and a password key k2 per epoch (HKDF, RFC 5869), so keys change by themselves
/// every ``Configuration/rotation`` seconds, and old ones are made again when one of their tickets comes.
/// Servers that share a secret, and their clocks within an epoch, accept each other's tickets.
///
/// Nothing is remembered of a ticket: two servers, or one before and after a restart, need no store for it.
/// The memory is that of ``cachedKeys`` keys, however many tickets come.
public final class TicketKeys {
    public struct Configuration: Sendable {
        /// Seconds for which a key seals. The same for all servers that share secrets.
        public var rotation: Int64 = 3600
        /// Seconds: no ticket is valid longer. One that is expired is told from a forged one for as long again.
        public var maximumLifetime: Int64 = 7 * 86_400

        public init() {}
    }

    /// More secrets than this are not looked at, nor are shorter ones.
    public static let maximumSecrets = 8
    public static let minimumSecretSize = 16
    static let cachedKeys = 256

    private let rotation: Int64
    private let maximumLifetime: Int64
    private let cipher = Cipher()
    private var secrets: [Secret] = []
    private var cache: [EpochKeys?] = Array(repeating: nil, count: TicketKeys.cachedKeys)
    /// For tests: how many keys were derived.
    private(set) var derivations = 0

    private struct Secret {
        let bytes: [UInt8]
        /// Names the secret in tickets. Two secrets with the same one (1 in 65 536) do not get into each
        /// other's way when opening; only the first one's passwords are known then.
        let id: UInt16
    }

    private struct EpochKeys {
        let secret: Int
        let epoch: UInt32
        let sealing: [UInt8]
        let password: [UInt8]
    }

    /// The first secret seals, all open. Without any, nothing is sealed and everything is forged.
    public init(secrets: [[UInt8]], configuration: Configuration = Configuration()) {
        let bounds: ClosedRange<Int64> = 1...1 << 32
        rotation = min(max(configuration.rotation, bounds.lowerBound), bounds.upperBound)
        maximumLifetime = min(max(configuration.maximumLifetime, bounds.lowerBound), bounds.upperBound)
        setSecrets(secrets)
    }

    /// Replaces the secrets. What was sealed with one that is no longer among them is forged from now on.
    public func setSecrets(_ secrets: [[UInt8]]) {
        cache = Array(repeating: nil, count: Self.cachedKeys)
        self.secrets = secrets.prefix(Self.maximumSecrets).compactMap { bytes in
            guard bytes.count >= Self.minimumSecretSize else { return nil }
            return Self.id(of: bytes, cipher).map { Secret(bytes: bytes, id: $0) }
        }
    }

    static func id(of secret: [UInt8], _ cipher: Cipher) -> UInt16? {
        let id = cipher.derive(2, from: secret, salt: Self.salt, info: Array("id".utf8))
        return id.map { UInt16($0[0]) << 8 | UInt16($0[1]) }
    }

    /// The user fragment and the password of a ticket; the nonce comes from `random`. nil if there is no secret,
    /// if the fingerprint is not SHA-256's, or if the ticket would be expired already or live longer than the
    /// configuration allows.
    public func seal(
        _ contents: TicketContents, wallClock: Int64, using random: inout some RandomNumberGenerator
    ) -> (ufrag: String, password: String)? {
        guard wallClock >= 0, contents.expires > wallClock, contents.expires - wallClock <= maximumLifetime,
            let plaintext = contents.encoded()
        else { return nil }
        return seal(plaintext: plaintext, wallClock: wallClock, using: &random)
    }

    func seal(
        plaintext: [UInt8], wallClock: Int64, using random: inout some RandomNumberGenerator
    ) -> (ufrag: String, password: String)? {
        guard let epoch = UInt32(exactly: wallClock / rotation), let secret = secrets.first,
            let keys = keys(0, epoch)
        else { return nil }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Self.byteCount)
        bytes.append(bigEndian: epoch)
        bytes.append(bigEndian: secret.id)
        let nonce = random.bytes(Cipher.nonceSize)
        guard
            let sealed = cipher.seal(plaintext, key: keys.sealing, nonce: nonce, extra: Self.prefix + bytes)
        else { return nil }
        bytes += nonce
        bytes += sealed
        let ufrag = Self.prefix + Base64.text(bytes)
        guard let password = password(of: ufrag, keys) else { return nil }
        return (String(decoding: ufrag, as: UTF8.self), String(decoding: password, as: UTF8.self))
    }

    /// The password that goes with a user fragment, for the integrity of a check: whoever knows it was given the
    /// ticket. Says nothing about whether the ticket is authentic; ``open(_:wallClock:)`` does. nil if the text has not
    /// the form of a ticket, or names a secret or an epoch that is not accepted.
    public func password(for ufrag: RawSpan, wallClock: Int64) -> [UInt8]? {
        guard let bytes = Self.bytes(of: ufrag) else { return nil }
        let (epoch, id) = Self.header(bytes)
        guard accepts(epoch, wallClock), let index = secrets.firstIndex(where: { $0.id == id }),
            let keys = keys(index, epoch)
        else { return nil }
        return password(of: Self.prefix + Array(ufrag: ufrag, from: Self.prefix.count), keys)
    }

    /// Opens a ticket. `.unknownVersion` and `.expired` are for tickets that this server, or one with its secret,
    /// has issued; a text with another version's prefix is `.unknownVersion` too, but has no password here.
    public func open(_ ufrag: RawSpan, wallClock: Int64) -> OpenedTicket {
        guard let bytes = Self.bytes(of: ufrag) else { return Self.hasOtherVersion(ufrag) ? .unknownVersion : .forged }
        let (epoch, id) = Self.header(bytes)
        guard accepts(epoch, wallClock) else { return .forged }
        let nonce = Array(bytes[Self.headerSize..<Self.headerSize + Cipher.nonceSize])
        let sealed = Array(bytes[(Self.headerSize + Cipher.nonceSize)...])
        let extra = Self.prefix + bytes[..<Self.headerSize]
        for index in secrets.indices where secrets[index].id == id {
            guard let keys = keys(index, epoch),
                let plaintext = cipher.open(sealed, key: keys.sealing, nonce: nonce, extra: extra)
            else { continue }
            guard let contents = TicketContents(decoding: plaintext) else { return .unknownVersion }
            return contents.expires > wallClock ? .contents(contents) : .expired(contents)
        }
        return .forged
    }
}

/// Epochs and their keys.
extension TicketKeys {
    private static let salt = Array("libreconnect ticket".utf8)

    /// One epoch ahead is another server's clock; more is made up. So is one so old that none of its tickets can
    /// have been valid for a whole lifetime.
    private func accepts(_ epoch: UInt32, _ wallClock: Int64) -> Bool {
        guard wallClock >= 0 else { return false }
        let oldest = wallClock &- maximumLifetime &- maximumLifetime
        return Int64(epoch) <= wallClock / rotation + 1 && Int64(epoch) >= oldest / rotation
    }

    private func keys(_ index: Int, _ epoch: UInt32) -> EpochKeys? {
        let slot = (Int(epoch) &* secrets.count &+ index) % Self.cachedKeys
        if let keys = cache[slot], keys.secret == index, keys.epoch == epoch { return keys }
        var info = Array("keys".utf8)
        info.append(bigEndian: epoch)
        derivations &+= 1
        guard
            let bytes = cipher.derive(
                Cipher.keySize + Cipher.hashSize, from: secrets[index].bytes, salt: Self.salt, info: info)
        else { return nil }
        let keys = EpochKeys(
            secret: index, epoch: epoch, sealing: Array(bytes[..<Cipher.keySize]),
            password: Array(bytes[Cipher.keySize...]))
        cache[slot] = keys
        return keys
    }

    private func password(of ufrag: [UInt8], _ keys: EpochKeys) -> [UInt8]? {
        cipher.code(of: ufrag, key: keys.password).map { Base64.text($0) }
    }
}

/// The text.
extension TicketKeys {
    private static let prefix = Array("lrc1/".utf8)
    private static let headerSize = 6
    private static let byteCount = headerSize + Cipher.nonceSize + TicketContents.byteCount + Cipher.tagSize
    /// Of every user fragment that is a ticket of this version.
    public static let ufragLength = prefix.count + Base64.textCount(byteCount)

    /// True if the text looks like a ticket, of whatever version: "lrc", a digit, "/", and not too short. Cheap.
    public static func isTicket(_ ufrag: RawSpan) -> Bool {
        guard ufrag.byteCount >= 10 else { return false }
        for index in 0..<3 where ufrag.byte(index) != prefix[index] { return false }
        return (0x30...0x39).contains(ufrag.byte(3)) && ufrag.byte(4) == prefix[4]
    }

    private static func hasOtherVersion(_ ufrag: RawSpan) -> Bool { isTicket(ufrag) && ufrag.byte(3) != prefix[3] }

    private static func bytes(of ufrag: RawSpan) -> [UInt8]? {
        guard ufrag.byteCount == ufragLength, isTicket(ufrag), !hasOtherVersion(ufrag) else { return nil }
        return Base64.bytes(ufrag, from: prefix.count)
    }

    private static func header(_ bytes: [UInt8]) -> (epoch: UInt32, secret: UInt16) {
        let header = bytes.span.bytes
        return (
            UInt32(truncatingIfNeeded: header.bigEndian(0, 4)), UInt16(truncatingIfNeeded: header.bigEndian(4, 2))
        )
    }
}

extension [UInt8] {
    fileprivate init(ufrag: RawSpan, from start: Int) {
        self.init()
        reserveCapacity(ufrag.byteCount)
        for index in start..<Swift.max(start, ufrag.byteCount) { append(ufrag.byte(index)) }
    }
}
