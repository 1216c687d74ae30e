/// The results that hosts see; the numbers are those of `include/reconnect.h`, where they are explained.
public enum Status: Int32, Error, Sendable, CaseIterable {
    case ok = 0
    case invalidArgument = -1
    case invalidHandle = -2
    case tooSmall = -3
    case wouldBlock = -4
    case closed = -5
    case tooLarge = -6
    case limit = -7
    case malformedJSON = -8
    case malformedSDP = -9
    case unacceptable = -10
    case wrongState = -11
    case portInUse = -12
    case noPermission = -13
    case noDescriptors = -14
    case noMemory = -15
    case noAddress = -16
    case certificateUnusable = -17
    case storage = -18
    case forked = -19
    case system = -20
    case internalDefect = -21

    case peerGone = -40
    case replaced = -41
    case iceFailed = -42
    case consentExpired = -43
    case dtlsFailed = -44
    case fingerprintMismatch = -45
    case sctpFailed = -46
    case timeout = -47

    case notCached = -50
    case cacheStale = -51
    case sessionUnknown = -52
    case fastDisabled = -53
    case networkChanged = -54
    case overtaken = -55
    case signalingFailed = -56
    case ticketRefused = -57

    case channelRefused = -60

    case unknownRoom = -70
    case unknownUser = -71
    case unknownRecipient = -72
    case stale = -73
    case throttled = -74
    case unavailable = -75

    case turnUnreachable = -80
    case turnUnauthorized = -81
    case turnForbidden = -82
    case turnQuota = -83
    case turnTLSFailed = -84
    case turnLost = -85
    case turnMalformed = -86
    case turnRefused = -87
}

/// A status with the sentence that says what was wrong.
public struct Failure: Error, Sendable {
    public let status: Status
    public let detail: String

    public init(_ status: Status, _ detail: String = "") {
        self.status = status
        self.detail = detail
    }
}
