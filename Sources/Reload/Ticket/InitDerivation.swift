import Wire

/// What two libreconnect peers do without: the SCTP handshake. Each computes both INITs from what the
/// ticket's password and this connection's client say, so an association is up when DTLS is.
public enum InitDerivation {
    /// Seeds for the numbers in the client's and in the server's INIT (``DerivedGenerator``). The client's ICE user
    /// fragment is new for every connection, so no two connections with one ticket share a number. Not secret in the
    /// sense of keys: the INITs' numbers protect against strangers only until DTLS is up, and with DTLS nobody sees them.
    public static func seeds(password: String, clientUfrag: String) -> (client: [UInt8], server: [UInt8])? {
        let cipher = Cipher()
        func seed(_ side: String) -> [UInt8]? {
            cipher.derive(
                32, from: Array(password.utf8), salt: Array("libreconnect init".utf8),
                info: Array("\(side) \(clientUfrag)".utf8))
        }
        guard let client = seed("client"), let server = seed("server") else { return nil }
        return (client, server)
    }
}

/// Numbers that follow from a seed, the same on every machine, and that nobody guesses without it: the n-th four are
/// HMAC-SHA256(seed, n), big-endian.
public struct DerivedGenerator: RandomNumberGenerator {
    private let cipher = Cipher()
    private let seed: [UInt8]
    private var block: UInt64 = 0
    private var words: [UInt64] = []

    public init(seed: [UInt8]) { self.seed = seed }

    public mutating func next() -> UInt64 {
        if words.isEmpty { refill() }
        return words.popLast() ?? 0
    }

    private mutating func refill() {
        var message: [UInt8] = []
        message.append(bigEndian: block)
        block &+= 1
        let code = cipher.code(of: message, key: seed) ?? Array(repeating: 0, count: 32)
        let bytes = code.span.bytes
        words = [bytes.bigEndian(24, 8), bytes.bigEndian(16, 8), bytes.bigEndian(8, 8), bytes.bigEndian(0, 8)]
    }
}
