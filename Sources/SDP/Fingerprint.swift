import Wire

/// A certificate fingerprint (RFC 8122 section 5) of a hash this library takes. Others, such as
/// sha-1, are ignored when parsed.
public struct Fingerprint: Hashable, Sendable {
    public enum Hash: String, Sendable, CaseIterable {
        case sha256 = "sha-256"
        case sha384 = "sha-384"
        case sha512 = "sha-512"

        public var byteCount: Int {
            switch self {
            case .sha256: 32
            case .sha384: 48
            case .sha512: 64
            }
        }
    }

    public let hash: Hash
    /// As many bytes as the hash has.
    public let digest: [UInt8]

    /// nil if `digest` has another length than the hash.
    public init?(hash: Hash, digest: [UInt8]) {
        guard digest.count == hash.byteCount else { return nil }
        self.hash = hash
        self.digest = digest
    }
}

extension Fingerprint: CustomStringConvertible {
    /// RFC 8122 section 5: pairs of upper-case hexadecimal digits, separated by colons.
    public var description: String {
        let digits = Array("0123456789ABCDEF".utf8)
        var text = Array(hash.rawValue.utf8)
        text.reserveCapacity(text.count + digest.count * 3)
        var separator = UInt8(ascii: " ")
        for byte in digest {
            text.append(separator)
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
            separator = UInt8(ascii: ":")
        }
        return String(decoding: text, as: UTF8.self)
    }
}

extension Fingerprint {
    /// The value of `a=fingerprint` standing alone; nil if it is malformed or of a hash that is not taken.
    public init?(parsing text: String) {
        guard case .fingerprint(let parsed) = Self.parse(text.utf8.span.bytes) else { return nil }
        self = parsed
    }

    enum Parsed: Equatable {
        case fingerprint(Fingerprint)
        case unknownHash
        case malformed
    }

    /// The value of `a=fingerprint`.
    static func parse(_ value: RawSpan) -> Parsed {
        var position = 0
        guard let name = value.field(from: &position), let digits = value.field(from: &position),
            value.field(from: &position) == nil, value.isToken(name, maximum: 32)
        else { return .malformed }
        let hashName = value.text(name).lowercased()
        guard let hash = Hash(rawValue: hashName) else { return .unknownHash }
        guard digits.count == hash.byteCount * 3 - 1 else { return .malformed }
        var digest: [UInt8] = []
        digest.reserveCapacity(hash.byteCount)
        for index in 0..<hash.byteCount {
            let at = digits.lowerBound + index * 3
            guard let high = value.byte(at).hexadecimalValue, let low = value.byte(at + 1).hexadecimalValue,
                index == 0 || value.byte(at - 1) == UInt8(ascii: ":")
            else { return .malformed }
            digest.append(high << 4 | low)
        }
        guard let fingerprint = Fingerprint(hash: hash, digest: digest) else { return .malformed }
        return .fingerprint(fingerprint)
    }
}
