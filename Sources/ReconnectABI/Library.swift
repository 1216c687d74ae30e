// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The names are those of the header.

public import CReconnect
import Engine

/// Texts that live as long as the process.
private func constant(_ text: StaticString) -> UnsafePointer<CChar> {
    unsafe UnsafeRawPointer(text.utf8Start).assumingMemoryBound(to: CChar.self)
}

@implementation @_cdecl("reconnect_version")
public func reconnect_version() -> UInt32 {
    UInt32(RECONNECT_VERSION_MAJOR) << 16 | UInt32(RECONNECT_VERSION_MINOR)
}

@implementation @_cdecl("reconnect_version_string")
public func reconnect_version_string() -> UnsafePointer<CChar>! { unsafe constant("0.1.0") }

@implementation @_cdecl("reconnect_status_name")
public func reconnect_status_name(_ status: reconnect_status_t) -> UnsafePointer<CChar>! {
    unsafe constant(Status(rawValue: status)?.name ?? "UNKNOWN")
}

@implementation @_cdecl("reconnect_status_text")
public func reconnect_status_text(_ status: reconnect_status_t) -> UnsafePointer<CChar>! {
    unsafe constant(Status(rawValue: status)?.sentence ?? "unknown status")
}

extension Status {
    var name: StaticString {
        switch self {
        case .ok: "OK"
        case .invalidArgument: "INVALID_ARGUMENT"
        case .invalidHandle: "INVALID_HANDLE"
        case .tooSmall: "TOO_SMALL"
        case .wouldBlock: "WOULD_BLOCK"
        case .closed: "CLOSED"
        case .tooLarge: "TOO_LARGE"
        case .limit: "LIMIT"
        case .malformedJSON: "MALFORMED_JSON"
        case .malformedSDP: "MALFORMED_SDP"
        case .unacceptable: "UNACCEPTABLE"
        case .wrongState: "WRONG_STATE"
        case .portInUse: "PORT_IN_USE"
        case .noPermission: "NO_PERMISSION"
        case .noDescriptors: "NO_DESCRIPTORS"
        case .noMemory: "NO_MEMORY"
        case .noAddress: "NO_ADDRESS"
        case .certificateUnusable: "CERTIFICATE_UNUSABLE"
        case .storage: "STORAGE"
        case .forked: "FORKED"
        case .system: "SYSTEM"
        case .internalDefect: "INTERNAL"
        case .peerGone: "PEER_GONE"
        case .replaced: "REPLACED"
        case .iceFailed: "ICE_FAILED"
        case .consentExpired: "CONSENT_EXPIRED"
        case .dtlsFailed: "DTLS_FAILED"
        case .fingerprintMismatch: "FINGERPRINT_MISMATCH"
        case .sctpFailed: "SCTP_FAILED"
        case .timeout: "TIMEOUT"
        case .notCached: "NOT_CACHED"
        case .cacheStale: "CACHE_STALE"
        case .sessionUnknown: "SESSION_UNKNOWN"
        case .fastDisabled: "FAST_DISABLED"
        case .networkChanged: "NETWORK_CHANGED"
        case .overtaken: "OVERTAKEN"
        case .signalingFailed: "SIGNALING_FAILED"
        case .ticketRefused: "TICKET_REFUSED"
        case .channelRefused: "CHANNEL_REFUSED"
        case .unknownRoom: "UNKNOWN_ROOM"
        case .unknownUser: "UNKNOWN_USER"
        case .unknownRecipient: "UNKNOWN_RECIPIENT"
        case .stale: "STALE"
        case .throttled: "THROTTLED"
        case .unavailable: "UNAVAILABLE"
        case .turnUnreachable: "TURN_UNREACHABLE"
        case .turnUnauthorized: "TURN_UNAUTHORIZED"
        case .turnForbidden: "TURN_FORBIDDEN"
        case .turnQuota: "TURN_QUOTA"
        case .turnTLSFailed: "TURN_TLS_FAILED"
        case .turnLost: "TURN_LOST"
        case .turnMalformed: "TURN_MALFORMED"
        case .turnRefused: "TURN_REFUSED"
        }
    }

    var sentence: StaticString {
        switch self {
        case .ok: "success"
        case .invalidArgument: "an argument is NULL, out of range, or a struct of the wrong size"
        case .invalidHandle: "the handle is closed or was never given out"
        case .tooSmall: "the buffer is too small"
        case .wouldBlock: "the send queue is full; wait for the buffered-low event"
        case .closed: "the channel or peer is closing"
        case .tooLarge: "the message is larger than the other side accepts"
        case .limit: "the configured limit is reached"
        case .malformedJSON: "the message is not JSON of the expected shape"
        case .malformedSDP: "the session description is malformed"
        case .unacceptable: "the session description cannot be accepted"
        case .wrongState: "the call does not fit what was called before"
        case .portInUse: "the port is in use"
        case .noPermission: "permission denied"
        case .noDescriptors: "the limit of open files is reached"
        case .noMemory: "out of memory"
        case .noAddress: "not an IP address of this machine, or none to offer"
        case .certificateUnusable: "the certificate file cannot be used"
        case .storage: "a file could not be written"
        case .forked: "called in a child process after fork"
        case .system: "the operating system reported an error"
        case .internalDefect: "a defect of the library"
        case .peerGone: "the other side closed the connection"
        case .replaced: "the session came back with a new peer"
        case .iceFailed: "no network path was found"
        case .consentExpired: "the network path went silent"
        case .dtlsFailed: "the DTLS handshake failed"
        case .fingerprintMismatch: "the other side's certificate is not the announced one"
        case .sctpFailed: "the SCTP association failed"
        case .timeout: "connecting took too long"
        case .notCached: "nothing is known of an earlier connection"
        case .cacheStale: "what is known of the earlier connection is too old"
        case .sessionUnknown: "the other side does not know the session any more"
        case .fastDisabled: "fast reload is switched off"
        case .networkChanged: "the network changed since the last connection"
        case .overtaken: "another attempt was connected first"
        case .signalingFailed: "the signaling messages could not be exchanged"
        case .ticketRefused: "the other side refused the ticket"
        case .channelRefused: "the other side broke the data channel protocol"
        case .unknownRoom: "nobody is in the room"
        case .unknownUser: "the user is not a member of the room"
        case .unknownRecipient: "the recipient is not a member of the room"
        case .stale: "a newer connection of the same user took over"
        case .throttled: "too many come back at once"
        case .unavailable: "the store did not answer"
        case .turnUnreachable: "the TURN server does not answer"
        case .turnUnauthorized: "the TURN server does not take the credentials"
        case .turnForbidden: "the TURN server gives nothing to this user"
        case .turnQuota: "the TURN server has no room for another relay"
        case .turnTLSFailed: "TLS with the TURN server failed"
        case .turnLost: "the relay is gone"
        case .turnMalformed: "the TURN server's answers make no sense"
        case .turnRefused: "the TURN server refused"
        }
    }
}
