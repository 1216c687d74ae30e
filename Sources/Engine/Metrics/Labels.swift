import Reload

/// The values of a label: all of them are written from the start, with 0.
protocol MetricLabel: Hashable, Sendable {
    static var all: [Self] { get }
    /// As in the text; lower case with underscores.
    var label: String { get }
}

extension MetricLabel where Self: CaseIterable {
    static var all: [Self] { Array(allCases) }
}

extension MetricLabel {
    /// Its place among all of them.
    var position: Int {
        Self.all.firstIndex(of: self) ?? 0
    }
}

extension MetricLabel where Self: RawRepresentable, RawValue == String {
    var label: String { snakeCase(rawValue) }
}

/// "otherFingerprint" as "other_fingerprint".
func snakeCase(_ name: String) -> String {
    var text = ""
    for character in name {
        if character.isUppercase { text += "_" }
        text += character.lowercased()
    }
    return text
}

/// How a connection came about; the numbers are `RECONNECT_MODE_...`.
enum ConnectionMode: UInt32, CaseIterable, MetricLabel {
    case normal = 0
    case fast = 1
    case zeroSignaling = 2

    init(_ mode: Reload.Mode) {
        self =
            switch mode {
            case .normal: .normal
            case .fast: .fast
            case .zeroSignaling: .zeroSignaling
            }
    }

    var label: String {
        switch self {
        case .normal: "normal"
        case .fast: "fast"
        case .zeroSignaling: "zero_signaling"
        }
    }
}

/// The version of the Internet protocol that a connection uses.
enum AddressFamily: String, CaseIterable, MetricLabel {
    case ipv6
    case ipv4

    init(isIPv6: Bool) { self = isIPv6 ? .ipv6 : .ipv4 }
}

/// As ``AddressFamily``, where there may be none yet: nothing was known to try.
enum AttemptedFamily: String, CaseIterable, MetricLabel {
    case ipv6
    case ipv4
    case none

    init(isIPv6: Bool?) {
        switch isIPv6 {
        case true?: self = .ipv6
        case false?: self = .ipv4
        case nil: self = .none
        }
    }
}

extension NormalReason: MetricLabel {}

extension CandidateType: MetricLabel {
    static let all: [CandidateType] = [.host, .serverReflexive, .peerReflexive, .relay]

    var label: String { rawValue }
}

extension FastReloadSetting: MetricLabel {
    static let all: [FastReloadSetting] = [.on, .partial, .off]

    var label: String {
        switch self {
        case .on: "on"
        case .partial: "partial"
        case .off: "off"
        }
    }
}

/// Why a ticket was refused: with a signed answer, or in the DTLS handshake.
enum TicketRefusal: String, CaseIterable, MetricLabel {
    /// 438.
    case expired
    /// 403: a kill switch.
    case disabled
    /// 403: the host has revoked the session.
    case revoked
    /// 400: of a kind that this version does not know.
    case unsupported
    /// The password was right, but the client does not hold the key of the certificate that the ticket is bound to.
    case otherFingerprint
    /// The certificate that the ticket names is not held any more.
    case otherCertificate
}

/// What became of a ticket.
enum TicketEvent: Sendable {
    case issued
    case accepted
    case refused(TicketRefusal)
    /// Without an answer: not of our keys, damaged, or too many from one source.
    case dropped
}

/// What the session store knew.
enum LookupResult: String, CaseIterable, MetricLabel {
    case hit
    case miss
    /// It did not answer, or not in time.
    case unavailable
}

/// Why a path came into use.
enum PathChange: String, CaseIterable, MetricLabel {
    case first
    case better
    case failover
    case restarted
    case moved
}

/// How far ICE restarts came.
enum RestartStage: String, CaseIterable, MetricLabel {
    case started
    case recovered
    case failed
    case paused
    case givenUp
}

/// Why a connection did not come about.
enum ConnectFailure: String, CaseIterable, MetricLabel {
    case ice
    case other
}

/// Why a connector went on to normal mode.
enum FallbackReason: String, CaseIterable, MetricLabel {
    case notCached
    case cacheStale
    case sessionUnknown
    case fastDisabled
    case networkChanged
    case signalingFailed
    case ticketRefused
    case iceFailed
    case dtlsFailed
    case timeout
    case other

    init(_ status: Status) {
        self =
            switch status {
            case .notCached: .notCached
            case .cacheStale: .cacheStale
            case .sessionUnknown: .sessionUnknown
            case .fastDisabled: .fastDisabled
            case .networkChanged: .networkChanged
            case .signalingFailed: .signalingFailed
            case .ticketRefused: .ticketRefused
            case .iceFailed, .consentExpired: .iceFailed
            case .dtlsFailed, .fingerprintMismatch: .dtlsFailed
            case .timeout: .timeout
            default: .other
            }
    }
}
