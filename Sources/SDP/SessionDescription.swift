import Wire

/// Who opens the DTLS association (RFC 4145 section 4, RFC 8842 section 5).
public enum SetupRole: String, Sendable {
    case active
    case passive
    case actpass
    case holdconn
}

/// Attributes that may stand at session level or in a media section.
public struct TransportAttributes: Hashable, Sendable {
    public var iceUfrag: String?
    public var icePwd: String?
    public var iceOptions: [String] = []
    /// Those with a hash this library takes, in the order of the description.
    public var fingerprints: [Fingerprint] = []
    public var setup: SetupRole?

    public init() {}
}

/// One `m=` section.
public struct MediaSection: Hashable, Sendable {
    /// The line of its `m=`, counted from 1.
    public var line: Int
    /// "application", "audio", "video"; a valid token.
    public var kind: String
    public var port: UInt16
    /// "UDP/DTLS/SCTP"; tokens joined by slashes.
    public var `protocol`: String
    /// Valid tokens.
    public var formats: [String]
    /// A valid token.
    public var mid: String?
    /// RFC 9143 section 6.
    public var isBundleOnly = false
    public var transport = TransportAttributes()
    public var sctpPort: UInt16?
    /// The port of `a=sctpmap:<port> webrtc-datachannel`, the form before RFC 8841.
    public var sctpmapPort: UInt16?
    public var maxMessageSize: UInt64?
    /// Text from "candidate:" on, without "a=". Visible ASCII and spaces; otherwise unchecked.
    public var candidates: [String] = []
    public var hasEndOfCandidates = false
    /// `a=sctp-init` as sent (base64), unchecked beyond its characters.
    public var sctpInit: String?

    public init(line: Int, kind: String, port: UInt16, protocol: String, formats: [String]) {
        self.line = line
        self.kind = kind
        self.port = port
        self.protocol = `protocol`
        self.formats = formats
    }

    /// RFC 3264 section 6: port zero rejects a section; in an offer with bundle-only it does not (RFC 9143 section 6).
    public var isRejected: Bool { port == 0 && !isBundleOnly }

    /// True for a section that carries WebRTC data channels, in any form RFC 8829 section 5.1.2 wants
    /// accepted: with the format of RFC 8841 section 4.3, or with a port as the format and `a=sctpmap`.
    public var isDataChannels: Bool {
        guard kind == "application" else { return false }
        switch `protocol` {
        case "UDP/DTLS/SCTP", "TCP/DTLS/SCTP", "DTLS/SCTP":
            return formats.first == "webrtc-datachannel" || sctpmapPort != nil
        default: return false
        }
    }
}

/// What this library reads from an offer or an answer (RFC 8866, RFC 8829). Everything else in the
/// text is skipped and never comes out again.
public struct SessionDescription: Hashable, Sendable {
    /// sess-id and sess-version of `o=`.
    public var sessionID: String
    public var sessionVersion: String
    public var isLite = false
    /// The mids of the BUNDLE groups (RFC 9143), one array a group.
    public var bundles: [[String]] = []
    public var transport = TransportAttributes()
    public var hasEndOfCandidates = false
    public var media: [MediaSection] = []

    /// Reads an offer or an answer. Lines may end in CRLF or in LF.
    public init(parsing bytes: RawSpan, limits: Limits = Limits()) throws(ParseError) {
        self = try DescriptionParser.parse(bytes, limits: limits)
    }

    public init(parsing text: String, limits: Limits = Limits()) throws(ParseError) {
        self = try DescriptionParser.parse(text.utf8.span.bytes, limits: limits)
    }

    init(sessionID: String, sessionVersion: String) {
        self.sessionID = sessionID
        self.sessionVersion = sessionVersion
    }
}
