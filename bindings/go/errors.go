package reconnect

// #include <reconnect.h>
import "C"

import (
	"time"
	"unsafe"
)

// Status is a number of the library that says how a call ended or why something closed. A number is never
// given a second meaning.
type Status int32

// The statuses of reconnect.h.
const (
	StatusOK                  Status = C.RECONNECT_OK
	StatusInvalidArgument     Status = C.RECONNECT_INVALID_ARGUMENT
	StatusInvalidHandle       Status = C.RECONNECT_INVALID_HANDLE
	StatusTooSmall            Status = C.RECONNECT_TOO_SMALL
	StatusWouldBlock          Status = C.RECONNECT_WOULD_BLOCK
	StatusClosed              Status = C.RECONNECT_CLOSED
	StatusTooLarge            Status = C.RECONNECT_TOO_LARGE
	StatusLimit               Status = C.RECONNECT_LIMIT
	StatusMalformedJSON       Status = C.RECONNECT_MALFORMED_JSON
	StatusMalformedSDP        Status = C.RECONNECT_MALFORMED_SDP
	StatusUnacceptable        Status = C.RECONNECT_UNACCEPTABLE
	StatusWrongState          Status = C.RECONNECT_WRONG_STATE
	StatusPortInUse           Status = C.RECONNECT_PORT_IN_USE
	StatusNoPermission        Status = C.RECONNECT_NO_PERMISSION
	StatusNoDescriptors       Status = C.RECONNECT_NO_DESCRIPTORS
	StatusNoMemory            Status = C.RECONNECT_NO_MEMORY
	StatusNoAddress           Status = C.RECONNECT_NO_ADDRESS
	StatusCertificateUnusable Status = C.RECONNECT_CERTIFICATE_UNUSABLE
	StatusStorage             Status = C.RECONNECT_STORAGE
	StatusForked              Status = C.RECONNECT_FORKED
	StatusSystem              Status = C.RECONNECT_SYSTEM
	StatusInternal            Status = C.RECONNECT_INTERNAL
	StatusPeerGone            Status = C.RECONNECT_PEER_GONE
	StatusReplaced            Status = C.RECONNECT_REPLACED
	StatusICEFailed           Status = C.RECONNECT_ICE_FAILED
	StatusConsentExpired      Status = C.RECONNECT_CONSENT_EXPIRED
	StatusDTLSFailed          Status = C.RECONNECT_DTLS_FAILED
	StatusFingerprintMismatch Status = C.RECONNECT_FINGERPRINT_MISMATCH
	StatusSCTPFailed          Status = C.RECONNECT_SCTP_FAILED
	StatusTimeout             Status = C.RECONNECT_TIMEOUT
	StatusNotCached           Status = C.RECONNECT_NOT_CACHED
	StatusCacheStale          Status = C.RECONNECT_CACHE_STALE
	StatusSessionUnknown      Status = C.RECONNECT_SESSION_UNKNOWN
	StatusFastDisabled        Status = C.RECONNECT_FAST_DISABLED
	StatusNetworkChanged      Status = C.RECONNECT_NETWORK_CHANGED
	StatusOvertaken           Status = C.RECONNECT_OVERTAKEN
	StatusSignalingFailed     Status = C.RECONNECT_SIGNALING_FAILED
	StatusTicketRefused       Status = C.RECONNECT_TICKET_REFUSED
	StatusChannelRefused      Status = C.RECONNECT_CHANNEL_REFUSED
	StatusUnknownRoom         Status = C.RECONNECT_UNKNOWN_ROOM
	StatusUnknownUser         Status = C.RECONNECT_UNKNOWN_USER
	StatusUnknownRecipient    Status = C.RECONNECT_UNKNOWN_RECIPIENT
	StatusStale               Status = C.RECONNECT_STALE
	StatusThrottled           Status = C.RECONNECT_THROTTLED
	StatusUnavailable         Status = C.RECONNECT_UNAVAILABLE
	StatusTURNUnreachable     Status = C.RECONNECT_TURN_UNREACHABLE
	StatusTURNUnauthorized    Status = C.RECONNECT_TURN_UNAUTHORIZED
	StatusTURNForbidden       Status = C.RECONNECT_TURN_FORBIDDEN
	StatusTURNQuota           Status = C.RECONNECT_TURN_QUOTA
	StatusTURNTLSFailed       Status = C.RECONNECT_TURN_TLS_FAILED
	StatusTURNLost            Status = C.RECONNECT_TURN_LOST
	StatusTURNMalformed       Status = C.RECONNECT_TURN_MALFORMED
	StatusTURNRefused         Status = C.RECONNECT_TURN_REFUSED
)

// String is the name of the status, for example "INVALID_HANDLE"; "UNKNOWN" for a number that the library
// does not know.
func (s Status) String() string {
	return C.GoString(C.reconnect_status_name(C.reconnect_status_t(s)))
}

// Text is a sentence for the status, for people.
func (s Status) Text() string {
	return C.GoString(C.reconnect_status_text(C.reconnect_status_t(s)))
}

// Error is a failed call, or the reason why a peer or a channel closed.
type Error struct {
	// Status says what kind of failure it is.
	Status Status
	// Detail is a sentence that says what exactly was wrong; possibly empty.
	Detail string
	// RetryAfter is when to come again after ErrThrottled; it differs for each. Otherwise 0.
	RetryAfter time.Duration

	cause error // of the program's own: what its Signaler returned
}

// Unwrap is the error of the program's own Signaler that led to this one, if there is one.
func (e *Error) Unwrap() error { return e.cause }

// Error is the status's name with the detail, or with the status's own sentence if there is none; then what led to it.
func (e *Error) Error() string {
	detail := e.Detail
	if detail == "" {
		detail = e.Status.Text()
	}
	text := "reconnect: " + e.Status.String() + ": " + detail
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

// Is tells [errors.Is] that errors of the same status are the same, whatever their details.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other.Status == e.Status && (other.Detail == "" || other.Detail == e.Detail)
}

// The failures of calls, for [errors.Is]. An error of a call may carry a detail besides.
var (
	// ErrInvalidArgument: a value is out of range, a text is not UTF-8 or contains a zero byte.
	ErrInvalidArgument error = &Error{Status: StatusInvalidArgument}
	// ErrInvalidHandle: the engine, peer or channel is closed, or not open yet.
	ErrInvalidHandle error = &Error{Status: StatusInvalidHandle}
	// ErrWouldBlock: the channel's send queue is full and nothing was taken; a [BufferedLowEvent] follows.
	ErrWouldBlock error = &Error{Status: StatusWouldBlock}
	// ErrClosed: the channel or peer is closing.
	ErrClosed error = &Error{Status: StatusClosed}
	// ErrTooLarge: the message is larger than the receiver accepts.
	ErrTooLarge error = &Error{Status: StatusTooLarge}
	// ErrLimit: there are as many peers, connectors, channels, rooms or members as the configuration allows.
	ErrLimit error = &Error{Status: StatusLimit}
	// ErrMalformedJSON: the detail names the member, or line and column.
	ErrMalformedJSON error = &Error{Status: StatusMalformedJSON}
	// ErrMalformedSDP: the detail names the line.
	ErrMalformedSDP error = &Error{Status: StatusMalformedSDP}
	// ErrUnacceptable: a valid description that cannot be accepted; the detail says why.
	ErrUnacceptable error = &Error{Status: StatusUnacceptable}
	// ErrWrongState: for example a second answer.
	ErrWrongState error = &Error{Status: StatusWrongState}
	// ErrPortInUse: the UDP port is taken.
	ErrPortInUse error = &Error{Status: StatusPortInUse}
	// ErrNoPermission: for the port, or the certificate file.
	ErrNoPermission error = &Error{Status: StatusNoPermission}
	// ErrNoDescriptors: the process's or the system's limit of open files is reached.
	ErrNoDescriptors error = &Error{Status: StatusNoDescriptors}
	// ErrNoMemory: there is not enough memory.
	ErrNoMemory error = &Error{Status: StatusNoMemory}
	// ErrNoAddress: an address is not an IP address, or none is left to offer.
	ErrNoAddress error = &Error{Status: StatusNoAddress}
	// ErrCertificateUnusable: the file is unreadable, malformed or of another key type.
	ErrCertificateUnusable error = &Error{Status: StatusCertificateUnusable}
	// ErrStorage: a file could not be written.
	ErrStorage error = &Error{Status: StatusStorage}
	// ErrForked: called in a child process of the one that made the engine.
	ErrForked error = &Error{Status: StatusForked}
	// ErrSystem: another error of the operating system; the detail names it.
	ErrSystem error = &Error{Status: StatusSystem}
	// ErrInternal: a defect of the library; please report it.
	ErrInternal error = &Error{Status: StatusInternal}
)

// The reasons why a peer or a channel closed, for [errors.Is].
var (
	// ErrPeerGone: the other side closed properly (close_notify or ABORT).
	ErrPeerGone error = &Error{Status: StatusPeerGone}
	// ErrReplaced: the peer's session came back with a new peer, which took over.
	ErrReplaced error = &Error{Status: StatusReplaced}
	// ErrICEFailed: no path was found in time.
	ErrICEFailed error = &Error{Status: StatusICEFailed}
	// ErrConsentExpired: the path went silent for too long (RFC 7675).
	ErrConsentExpired error = &Error{Status: StatusConsentExpired}
	// ErrDTLSFailed: the handshake failed; the detail says how.
	ErrDTLSFailed error = &Error{Status: StatusDTLSFailed}
	// ErrFingerprintMismatch: the other side's certificate is not the one it announced (RFC 8122).
	ErrFingerprintMismatch error = &Error{Status: StatusFingerprintMismatch}
	// ErrSCTPFailed: the association was aborted or its retransmissions ran out.
	ErrSCTPFailed error = &Error{Status: StatusSCTPFailed}
	// ErrTimeout: connecting took longer than the configuration's ConnectTimeout.
	ErrTimeout error = &Error{Status: StatusTimeout}
	// ErrChannelRefused: the other side broke the channel protocol (RFC 8832).
	ErrChannelRefused error = &Error{Status: StatusChannelRefused}
)

// The reasons of connectors: why an attempt was not made or failed, for [errors.Is].
var (
	// ErrNotCached: nothing is known of an earlier connection.
	ErrNotCached error = &Error{Status: StatusNotCached}
	// ErrCacheStale: what is known is older than MaxCacheAge.
	ErrCacheStale error = &Error{Status: StatusCacheStale}
	// ErrSessionUnknown: the other side answered normally, since it does not know the session.
	ErrSessionUnknown error = &Error{Status: StatusSessionUnknown}
	// ErrFastDisabled: fast reload is switched off, or tripped.
	ErrFastDisabled error = &Error{Status: StatusFastDisabled}
	// ErrNetworkChanged: the machine's addresses changed since.
	ErrNetworkChanged error = &Error{Status: StatusNetworkChanged}
	// ErrOvertaken: another attempt was connected first.
	ErrOvertaken error = &Error{Status: StatusOvertaken}
	// ErrSignalingFailed: a message could not be exchanged, or no answer came.
	ErrSignalingFailed error = &Error{Status: StatusSignalingFailed}
	// ErrTicketRefused: the other side refused the ticket, which has expired or is of keys that it no longer has.
	ErrTicketRefused error = &Error{Status: StatusTicketRefused}
)

// Why a TURN server gives no relay, in [TURNEvent], for [errors.Is].
var (
	// ErrTURNUnreachable: its name is not known, it refuses connections, or it does not answer.
	ErrTURNUnreachable error = &Error{Status: StatusTURNUnreachable}
	// ErrTURNUnauthorized: it does not take the credentials, or there are none.
	ErrTURNUnauthorized error = &Error{Status: StatusTURNUnauthorized}
	// ErrTURNForbidden: not for this user or this address.
	ErrTURNForbidden error = &Error{Status: StatusTURNForbidden}
	// ErrTURNQuota: too many allocations; tried again later.
	ErrTURNQuota error = &Error{Status: StatusTURNQuota}
	// ErrTURNTLSFailed: the handshake failed, or the certificate is not the server's.
	ErrTURNTLSFailed error = &Error{Status: StatusTURNTLSFailed}
	// ErrTURNLost: it was there, and the server or the connection to it is gone.
	ErrTURNLost error = &Error{Status: StatusTURNLost}
	// ErrTURNMalformed: what it answers is not TURN.
	ErrTURNMalformed error = &Error{Status: StatusTURNMalformed}
	// ErrTURNRefused: another error code, which the detail names.
	ErrTURNRefused error = &Error{Status: StatusTURNRefused}
)

// Why an operation of a replay buffer did nothing, for [errors.Is].
var (
	// ErrUnknownRoom: nobody has joined the room, or the last one left.
	ErrUnknownRoom error = &Error{Status: StatusUnknownRoom}
	// ErrUnknownUser: the user is not a member of the room.
	ErrUnknownUser error = &Error{Status: StatusUnknownUser}
	// ErrUnknownRecipient: likewise the recipient; nobody could ever come back for the message.
	ErrUnknownRecipient error = &Error{Status: StatusUnknownRecipient}
	// ErrStale: a newer connection of the same user took over.
	ErrStale error = &Error{Status: StatusStale}
	// ErrThrottled: too many come back at once; the error's RetryAfter says when to come again.
	ErrThrottled error = &Error{Status: StatusThrottled}
	// ErrUnavailable: the store did not answer, and nothing else could.
	ErrUnavailable error = &Error{Status: StatusUnavailable}
)

// failure makes the error of a status: nil for StatusOK. Those without a detail that a sender meets in normal
// operation are not allocated.
func failure(status C.reconnect_status_t, detail string) error {
	switch Status(status) {
	case StatusOK:
		return nil
	case StatusWouldBlock:
		if detail == "" {
			return ErrWouldBlock
		}
	}
	return &Error{Status: Status(status), Detail: detail}
}

// detailText is a buffer for the sentence of a failed call.
type detailText [512]C.char

func (d *detailText) String() string {
	d[len(d)-1] = 0
	return C.GoString((*C.char)(unsafe.Pointer(&d[0])))
}

// Version is the version of the library that is in use, for example "0.1.0".
func Version() string {
	return C.GoString(C.reconnect_version_string())
}
