import Wire

/// The ufrag and password of one side for one ICE generation (RFC 8445 section 5.3).
public struct Credentials: Hashable, Sendable {
    public let ufrag: String
    public let password: String

    /// RFC 8839 section 5.4: ufrags have 4 to 256 ice-chars, passwords 22 to 256. Nil for others.
    public init?(ufrag: String, password: String) {
        guard Credentials.isValid(ufrag, 4...256), Credentials.isValid(password, 22...256) else { return nil }
        self.ufrag = ufrag
        self.password = password
    }

    /// Random ones. RFC 8445 section 5.3 asks for at least 24 bits of randomness in the ufrag and 128
    /// in the password; eight and 24 characters carry 48 and 144. More of the ufrag makes collisions
    /// between the peers of one port rarer.
    public init(using random: inout some RandomNumberGenerator, ufragLength: Int = 8, passwordLength: Int = 24) {
        ufrag = Credentials.text(min(max(ufragLength, 4), 256), &random)
        password = Credentials.text(min(max(passwordLength, 22), 256), &random)
    }

    private static func isValid(_ text: String, _ lengths: ClosedRange<Int>) -> Bool {
        lengths.contains(text.utf8.count) && text.utf8.allSatisfy(\.isICECharacter)
    }

    private static func text(_ length: Int, _ random: inout some RandomNumberGenerator) -> String {
        var characters: [UInt8] = []
        characters.reserveCapacity(length)
        while characters.count < length {
            var bits = random.next()
            for _ in 0..<min(10, length - characters.count) {
                characters.append(Base64Alphabet.standard.digit(UInt8(truncatingIfNeeded: bits)))
                bits >>= 6
            }
        }
        return String(decoding: characters, as: UTF8.self)
    }
}
