"""The library's statuses, and one exception for each of them."""

from __future__ import annotations

import enum
from typing import ClassVar


class Status(enum.IntEnum):
    """How a call ended, or why a peer or a channel closed: the numbers of reconnect.h."""

    OK = 0
    INVALID_ARGUMENT = -1
    INVALID_HANDLE = -2
    TOO_SMALL = -3
    WOULD_BLOCK = -4
    CLOSED = -5
    TOO_LARGE = -6
    LIMIT = -7
    MALFORMED_JSON = -8
    MALFORMED_SDP = -9
    UNACCEPTABLE = -10
    WRONG_STATE = -11
    PORT_IN_USE = -12
    NO_PERMISSION = -13
    NO_DESCRIPTORS = -14
    NO_MEMORY = -15
    NO_ADDRESS = -16
    CERTIFICATE_UNUSABLE = -17
    STORAGE = -18
    FORKED = -19
    SYSTEM = -20
    INTERNAL = -21
    PEER_GONE = -40
    REPLACED = -41
    ICE_FAILED = -42
    CONSENT_EXPIRED = -43
    DTLS_FAILED = -44
    FINGERPRINT_MISMATCH = -45
    SCTP_FAILED = -46
    TIMEOUT = -47
    NOT_CACHED = -50
    CACHE_STALE = -51
    SESSION_UNKNOWN = -52
    FAST_DISABLED = -53
    NETWORK_CHANGED = -54
    OVERTAKEN = -55
    SIGNALING_FAILED = -56
    TICKET_REFUSED = -57
    CHANNEL_REFUSED = -60
    UNKNOWN_ROOM = -70
    UNKNOWN_USER = -71
    UNKNOWN_RECIPIENT = -72
    STALE = -73
    THROTTLED = -74
    UNAVAILABLE = -75
    TURN_UNREACHABLE = -80
    TURN_UNAUTHORIZED = -81
    TURN_FORBIDDEN = -82
    TURN_QUOTA = -83
    TURN_TLS_FAILED = -84
    TURN_LOST = -85
    TURN_MALFORMED = -86
    TURN_REFUSED = -87


class ReconnectError(Exception):
    """A failed call, or the reason why a peer or a channel closed.

    `status` is the library's number (a `Status` if this package knows it), `detail` a sentence that says what
    exactly was wrong, possibly empty.
    """

    default_status: ClassVar[int] = Status.INTERNAL

    def __init__(self, detail: str = "", status: int | None = None) -> None:
        number = self.default_status if status is None else status
        try:
            self.status: int = Status(number)
        except ValueError:
            self.status = number
        self.detail = detail
        super().__init__(detail)

    @property
    def name(self) -> str:
        """The status's name as in reconnect.h, for example "MALFORMED_SDP"."""
        return self.status.name if isinstance(self.status, Status) else "UNKNOWN"

    def __str__(self) -> str:
        text = self.detail or (self.__doc__ or "").splitlines()[0]
        return f"{self.name}: {text}"


class InvalidArgumentError(ReconnectError, ValueError):
    """A value is out of range, a text is not UTF-8 or contains a zero byte."""

    default_status = Status.INVALID_ARGUMENT


class InvalidHandleError(ReconnectError):
    """The engine, peer or channel is closed, or not open yet."""

    default_status = Status.INVALID_HANDLE


class TooSmallError(ReconnectError):
    """A buffer was too small."""

    default_status = Status.TOO_SMALL


class WouldBlockError(ReconnectError):
    """The channel's send queue is full and nothing was taken; a BufferedLowEvent follows."""

    default_status = Status.WOULD_BLOCK


class ClosedError(ReconnectError):
    """The channel or peer is closing."""

    default_status = Status.CLOSED


class TooLargeError(ReconnectError):
    """The message is larger than the receiver accepts."""

    default_status = Status.TOO_LARGE


class LimitError(ReconnectError):
    """There are as many peers, connectors or channels as the configuration allows."""

    default_status = Status.LIMIT


class MalformedJSONError(ReconnectError, ValueError):
    """The JSON is malformed; the detail names the member, or line and column."""

    default_status = Status.MALFORMED_JSON


class MalformedSDPError(ReconnectError, ValueError):
    """The SDP is malformed; the detail names the line."""

    default_status = Status.MALFORMED_SDP


class UnacceptableError(ReconnectError, ValueError):
    """A valid description that cannot be accepted; the detail says why."""

    default_status = Status.UNACCEPTABLE


class WrongStateError(ReconnectError):
    """The call does not fit the state, for example a second answer."""

    default_status = Status.WRONG_STATE


class PortInUseError(ReconnectError):
    """The UDP port is taken."""

    default_status = Status.PORT_IN_USE


class NoPermissionError(ReconnectError):
    """No permission for the port, or the certificate file."""

    default_status = Status.NO_PERMISSION


class NoDescriptorsError(ReconnectError):
    """The process's or the system's limit of open files is reached."""

    default_status = Status.NO_DESCRIPTORS


class NoMemoryError(ReconnectError):
    """There is not enough memory."""

    default_status = Status.NO_MEMORY


class NoAddressError(ReconnectError):
    """An address is not an IP address, or none is left to offer."""

    default_status = Status.NO_ADDRESS


class CertificateUnusableError(ReconnectError):
    """The certificate file is unreadable, malformed or of another key type."""

    default_status = Status.CERTIFICATE_UNUSABLE


class StorageError(ReconnectError):
    """A file could not be written."""

    default_status = Status.STORAGE


class ForkedError(ReconnectError):
    """Called in a child process of the one that made the engine."""

    default_status = Status.FORKED


class SystemFailureError(ReconnectError):
    """Another error of the operating system; the detail names it."""

    default_status = Status.SYSTEM


class InternalError(ReconnectError):
    """A defect of the library; please report it."""

    default_status = Status.INTERNAL


class PeerGoneError(ReconnectError):
    """The other side closed properly (close_notify or ABORT)."""

    default_status = Status.PEER_GONE


class ReplacedError(ReconnectError):
    """The peer's session came back with a new peer, which took over."""

    default_status = Status.REPLACED


class ICEFailedError(ReconnectError):
    """No path was found in time."""

    default_status = Status.ICE_FAILED


class ConsentExpiredError(ReconnectError):
    """The path went silent for too long (RFC 7675)."""

    default_status = Status.CONSENT_EXPIRED


class DTLSFailedError(ReconnectError):
    """The handshake failed; the detail says how."""

    default_status = Status.DTLS_FAILED


class FingerprintMismatchError(ReconnectError):
    """The other side's certificate is not the one it announced (RFC 8122)."""

    default_status = Status.FINGERPRINT_MISMATCH


class SCTPFailedError(ReconnectError):
    """The association was aborted or its retransmissions ran out."""

    default_status = Status.SCTP_FAILED


class ConnectTimeoutError(ReconnectError):
    """Connecting took longer than the configuration's connect_timeout."""

    default_status = Status.TIMEOUT


class NotCachedError(ReconnectError):
    """Nothing is known of an earlier connection."""

    default_status = Status.NOT_CACHED


class CacheStaleError(ReconnectError):
    """What is known of an earlier connection is older than the configuration's max_cache_age."""

    default_status = Status.CACHE_STALE


class SessionUnknownError(ReconnectError):
    """The other side answered normally: it does not know the session."""

    default_status = Status.SESSION_UNKNOWN


class FastDisabledError(ReconnectError):
    """Fast reload is switched off, or tripped."""

    default_status = Status.FAST_DISABLED


class NetworkChangedError(ReconnectError):
    """The machine's addresses changed since."""

    default_status = Status.NETWORK_CHANGED


class OvertakenError(ReconnectError):
    """Another attempt was connected first."""

    default_status = Status.OVERTAKEN


class SignalingFailedError(ReconnectError):
    """A message could not be exchanged, or no answer came. Its __cause__ is what the signaling raised."""

    default_status = Status.SIGNALING_FAILED


class TicketRefusedError(ReconnectError):
    """The other side refused the ticket, which has expired or is of keys that it no longer has."""

    default_status = Status.TICKET_REFUSED


class ChannelRefusedError(ReconnectError):
    """The other side broke the channel protocol (RFC 8832)."""

    default_status = Status.CHANNEL_REFUSED


class UnknownRoomError(ReconnectError):
    """Nobody has joined the room, or the last one has left it."""

    default_status = Status.UNKNOWN_ROOM


class UnknownUserError(ReconnectError):
    """The user is not a member of the room."""

    default_status = Status.UNKNOWN_USER


class UnknownRecipientError(ReconnectError):
    """The recipient is not a member of the room: nobody could ever come back for the message."""

    default_status = Status.UNKNOWN_RECIPIENT


class StaleError(ReconnectError):
    """A newer connection of the same user took over."""

    default_status = Status.STALE


class ThrottledError(ReconnectError):
    """Too many come back at once: again after `retry_after` seconds, which differ from one to the next."""

    default_status = Status.THROTTLED
    retry_after: float = 0.0


class UnavailableError(ReconnectError):
    """The store did not answer, and nothing else could."""

    default_status = Status.UNAVAILABLE


class TURNUnreachableError(ReconnectError):
    """The TURN server's name is not known, it refuses connections, or it does not answer."""

    default_status = Status.TURN_UNREACHABLE


class TURNUnauthorizedError(ReconnectError):
    """The TURN server does not take the credentials, or there are none."""

    default_status = Status.TURN_UNAUTHORIZED


class TURNForbiddenError(ReconnectError):
    """The TURN server gives nothing to this user or this address."""

    default_status = Status.TURN_FORBIDDEN


class TURNQuotaError(ReconnectError):
    """The TURN server has too many allocations; it is tried again later."""

    default_status = Status.TURN_QUOTA


class TURNTLSFailedError(ReconnectError):
    """The handshake with the TURN server failed, or the certificate is not the server's."""

    default_status = Status.TURN_TLS_FAILED


class TURNLostError(ReconnectError):
    """The relay was there, and the server or the connection to it is gone."""

    default_status = Status.TURN_LOST


class TURNMalformedError(ReconnectError):
    """What the server answers is not TURN."""

    default_status = Status.TURN_MALFORMED


class TURNRefusedError(ReconnectError):
    """The TURN server refused with another error code, which the detail names."""

    default_status = Status.TURN_REFUSED


class LibraryNotFoundError(ImportError):
    """libreconnect.so was not found, or is not one that this package can use; the text names all that was tried."""


_by_status: dict[int, type[ReconnectError]] = {kind.default_status: kind for kind in ReconnectError.__subclasses__()}


def error_for(status: int, detail: str = "") -> ReconnectError:
    """The exception of a status that is not OK."""
    return _by_status.get(status, ReconnectError)(detail, status)


def reason_for(status: int, detail: str = "") -> ReconnectError | None:
    """The reason of a closing: None for OK."""
    return None if status == Status.OK else error_for(status, detail)
