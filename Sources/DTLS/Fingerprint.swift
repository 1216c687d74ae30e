import Wire

/// The hash functions accepted for certificate fingerprints, weakest first.
/// RFC 8122 section 5 names more; MD2, MD5, SHA-1 and SHA-224 are refused.
public enum HashAlgorithm: Int, CaseIterable, Comparable, Sendable {
    case sha256
    case sha384
    case sha512

    public var byteCount: Int {
        switch self {
        case .sha256: 32
        case .sha384: 48
        case .sha512: 64
        }
    }

    /// The textual name of RFC 8122 section 5.
    public var name: String {
        switch self {
        case .sha256: "sha-256"
        case .sha384: "sha-384"
        case .sha512: "sha-512"
        }
    }

    /// RFC 8122 section 5: hash function names are compared without regard to case.
    public init?(name: String) {
        let lowercased = name.lowercased()
        guard let match = HashAlgorithm.allCases.first(where: { $0.name == lowercased }) else { return nil }
        self = match
    }

    public static func < (left: HashAlgorithm, right: HashAlgorithm) -> Bool { left.rawValue < right.rawValue }
}

/// The hash of a certificate, as `a=fingerprint` carries it (RFC 8122 section 5).
public struct Fingerprint: Hashable, Sendable {
    public let algorithm: HashAlgorithm
    /// Exactly as many bytes as the algorithm gives.
    public let bytes: [UInt8]

    /// Nil if the number of bytes is not the algorithm's.
    public init?(algorithm: HashAlgorithm, bytes: [UInt8]) {
        guard bytes.count == algorithm.byteCount else { return nil }
        self.algorithm = algorithm
        self.bytes = bytes
    }

    /// Parses the two parts of the attribute: `sha-256` and `AB:CD:...`. Lower-case digits are
    /// taken too. Nil for an unsupported hash function, a wrong length or other characters.
    public init?(algorithm name: String, value: String) {
        guard let algorithm = HashAlgorithm(name: name), value.utf8.count == algorithm.byteCount * 3 - 1 else {
            return nil
        }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(algorithm.byteCount)
        var digits: UInt8 = 0
        for (offset, character) in value.utf8.enumerated() {
            if offset % 3 == 2 {
                guard character == UInt8(ascii: ":") else { return nil }
                continue
            }
            guard let digit = character.hexadecimalValue else { return nil }
            digits = digits << 4 | digit
            if offset % 3 == 1 { bytes.append(digits) }
        }
        self.init(algorithm: algorithm, bytes: bytes)
    }

    /// Upper-case hexadecimal with colons.
    public var value: String {
        let digits = Array("0123456789ABCDEF".utf8)
        var text: [UInt8] = []
        text.reserveCapacity(bytes.count * 3)
        for byte in bytes {
            if !text.isEmpty { text.append(UInt8(ascii: ":")) }
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }
}

extension Fingerprint: CustomStringConvertible {
    public var description: String { algorithm.name + " " + value }
}

extension Collection<Fingerprint> {
    /// RFC 8122 section 5.1: of several fingerprints only those with the most preferred hash function
    /// that we support count, and the certificate must match one of these.
    public func strongest() -> [Fingerprint] {
        guard let best = map(\.algorithm).max() else { return [] }
        return filter { $0.algorithm == best }
    }
}
