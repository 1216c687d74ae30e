/// The type of an attribute (RFC 8489 section 18.3 and the registry that section 18.3 starts).
public struct AttributeType: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt16
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    public static let mappedAddress = AttributeType(rawValue: 0x0001)
    public static let username = AttributeType(rawValue: 0x0006)
    public static let messageIntegrity = AttributeType(rawValue: 0x0008)
    public static let errorCode = AttributeType(rawValue: 0x0009)
    public static let unknownAttributes = AttributeType(rawValue: 0x000A)
    public static let realm = AttributeType(rawValue: 0x0014)
    public static let nonce = AttributeType(rawValue: 0x0015)
    public static let messageIntegritySHA256 = AttributeType(rawValue: 0x001C)
    public static let passwordAlgorithm = AttributeType(rawValue: 0x001D)
    public static let userhash = AttributeType(rawValue: 0x001E)
    public static let xorMappedAddress = AttributeType(rawValue: 0x0020)
    public static let software = AttributeType(rawValue: 0x8022)
    public static let alternateServer = AttributeType(rawValue: 0x8023)
    public static let fingerprint = AttributeType(rawValue: 0x8028)

    /// RFC 8489 section 18.3: what may be ignored.
    public static let passwordAlgorithms = AttributeType(rawValue: 0x8002)
    public static let alternateDomain = AttributeType(rawValue: 0x8003)

    // RFC 8656 section 18.
    public static let channelNumber = AttributeType(rawValue: 0x000C)
    public static let lifetime = AttributeType(rawValue: 0x000D)
    public static let xorPeerAddress = AttributeType(rawValue: 0x0012)
    public static let data = AttributeType(rawValue: 0x0013)
    public static let xorRelayedAddress = AttributeType(rawValue: 0x0016)
    public static let requestedAddressFamily = AttributeType(rawValue: 0x0017)
    public static let evenPort = AttributeType(rawValue: 0x0018)
    public static let requestedTransport = AttributeType(rawValue: 0x0019)
    public static let dontFragment = AttributeType(rawValue: 0x001A)
    public static let reservationToken = AttributeType(rawValue: 0x0022)
    public static let additionalAddressFamily = AttributeType(rawValue: 0x8000)
    public static let addressErrorCode = AttributeType(rawValue: 0x8001)
    /// What those two were before they had numbers, and are to coturn before 4.7.
    public static let draftAdditionalAddressFamily = AttributeType(rawValue: 0x8032)
    public static let draftAddressErrorCode = AttributeType(rawValue: 0x8033)
    public static let icmp = AttributeType(rawValue: 0x8004)

    /// RFC 8016 section 4.1.
    public static let mobilityTicket = AttributeType(rawValue: 0x8030)

    // RFC 8445 section 16.1.
    public static let priority = AttributeType(rawValue: 0x0024)
    public static let useCandidate = AttributeType(rawValue: 0x0025)
    public static let iceControlled = AttributeType(rawValue: 0x8029)
    public static let iceControlling = AttributeType(rawValue: 0x802A)

    /// The number of a nomination (draft-thatcher-ice-renomination); the highest one counts.
    public static let nomination = AttributeType(rawValue: 0xC001)

    // DTLS inside STUN: one DTLS datagram, and what of the other side's has arrived.
    public static let dtlsInSTUN = AttributeType(rawValue: 0xC070)
    public static let dtlsInSTUNAcknowledgement = AttributeType(rawValue: 0xC071)

    /// Addresses that are XORed with the header (RFC 8489 section 14.2, RFC 8656 sections 18.3 and 18.5).
    var isMasked: Bool { self == .xorMappedAddress || self == .xorPeerAddress || self == .xorRelayedAddress }

    /// RFC 8489 section 14: a receiver that does not know one of these cannot process the message.
    public var isComprehensionRequired: Bool { rawValue < 0x8000 }

    /// Whether this module knows what the attribute means. Only asked of those that must be understood. What only
    /// relays use is not among them: nobody else may take it.
    var isKnown: Bool {
        switch self {
        case .mappedAddress, .username, .messageIntegrity, .errorCode, .unknownAttributes, .realm, .nonce,
            .messageIntegritySHA256, .passwordAlgorithm, .userhash, .xorMappedAddress, .priority, .useCandidate:
            true
        default: false
        }
    }
}
