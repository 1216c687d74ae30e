"""A replay buffer without waiting: operations, outcomes and events. The blocking and the asyncio interface stand on
it."""

from __future__ import annotations

import ctypes
import enum
import itertools
import math
import re
from collections.abc import Sequence
from typing import Any, Optional, TypeVar, Union

from . import _abi, _library
from ._core import DETAIL, check, read_text
from .config import LogLevel, native_milliseconds, native_number, native_secret, native_text
from .errors import InvalidArgumentError, InvalidHandleError, ReconnectError, Status, ThrottledError, error_for
from .events import LogEvent
from .replay_events import (
    GapEvent,
    Joined,
    LiveMessage,
    LossReason,
    MessageKind,
    PositionProblem,
    Publication,
    Published,
    Quality,
    QualityReport,
    Recovery,
    ReplayConfig,
    ReplayedMessage,
    ReplayEvent,
    ReplayStatistics,
    ReplayStoreEvent,
    ReturnedEvent,
    StoreState,
    UserState,
    Verdict,
)

BATCH = 64
"""Events taken with one call."""
MAX_NAME = 256

EnumT = TypeVar("EnumT", bound=enum.IntEnum)

Texts = tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes]
"""Room, user, recipient, data, position, token and key."""

Outcome = Union[Published, Joined, Recovery, UserState, QualityReport, None]
Taken = tuple[int, Outcome, Optional[ReconnectError]]
"""The outcome of an operation: its tag, what came of it, and why nothing did."""

_CONTROL = re.compile("[\x00-\x1f\x7f]")
_BRACES = re.compile("[\x00-\x1f\x7f{}]")
_KINDS = {int(kind): kind for kind in MessageKind}
_VERDICTS = {int(verdict): verdict for verdict in Verdict}
_REASONS = {int(reason): reason for reason in LossReason}
_PROBLEMS = {int(problem): problem for problem in PositionProblem}
_QUALITIES = {int(quality): quality for quality in Quality}

_MESSAGE_SIZE = _abi.REPLAY_MESSAGE.size
_EVENT_SIZE = _abi.REPLAY_EVENT.size
_OPERATION_SIZE = _abi.REPLAY_OPERATION.size
_string_at = ctypes.string_at


class Operation:
    """One operation, checked and copied: what the program does to its arguments afterwards changes nothing."""

    __slots__ = ("flags", "format", "generation", "kind", "lifetime", "measures", "negotiation", "tag", "texts", "type")

    def __init__(self, type: int, texts: Texts, generation: int = 0, flags: int = 0) -> None:
        self.type = type
        self.texts = texts
        self.generation = generation
        self.flags = flags
        self.tag = 0
        self.negotiation = self.format = self.kind = self.lifetime = 0
        self.measures = (0.0, 0.0, 0.0, 0.0)


# ---------------------------------------------------------------- arguments


def name_bytes(what: str, name: str, forbidden: re.Pattern[str] = _CONTROL) -> bytes:
    """UTF-8 of the name of a room or user."""
    if not isinstance(name, str):
        raise TypeError(f"{what} must be str, not {type(name).__name__}")
    if forbidden.search(name) is not None:
        raise InvalidArgumentError(
            f"{what} contains a control character{' or a brace' if forbidden is _BRACES else ''}"
        )
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError(f"{what} contains a surrogate") from None
    if not 1 <= len(encoded) <= MAX_NAME:
        raise InvalidArgumentError(f"{what} must have 1 to {MAX_NAME} bytes, not {len(encoded)}")
    return encoded


def room_bytes(room: str) -> bytes:
    return name_bytes("room", room, _BRACES)


def _payload(what: str, data: str | bytes | bytearray | memoryview) -> tuple[bytes, int]:
    """The bytes of a message, and their format."""
    if isinstance(data, str):
        try:
            return data.encode(), _abi.TEXT
        except UnicodeEncodeError:
            raise InvalidArgumentError(f"{what} contains a surrogate") from None
    if isinstance(data, bytes):
        return data, _abi.BINARY
    if isinstance(data, (bytearray, memoryview)):
        return bytes(data), _abi.BINARY
    raise TypeError(f"{what} must be str or bytes, not {type(data).__name__}")


def _presented(what: str, text: str | bytes | None) -> bytes:
    """What a client presents, however wrong: the library judges it."""
    if text is None:
        return b""
    if isinstance(text, str):
        return text.encode("utf-8", "surrogatepass")
    if isinstance(text, bytes):
        return text
    raise TypeError(f"{what} must be str, not {type(text).__name__}")


def _number(what: str, value: int, bits: int = 64) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{what} must be int, not {type(value).__name__}")
    return native_number(what, value, bits)


def _measure(what: str, value: float | None) -> float:
    """A figure that a client measured; None: not known."""
    if value is None:
        return -1.0
    if not isinstance(value, (int, float)):
        raise TypeError(f"{what} must be a number, not {type(value).__name__}")
    if not (math.isfinite(value) and value >= 0):
        raise InvalidArgumentError(f"{what} is out of range: {value}")
    return float(value)


def publish(publication: Publication) -> Operation:
    data, format = _payload("data", publication.data)
    user, to, key = publication.user, publication.to, publication.key
    operation = Operation(
        _abi.REPLAY_PUBLISH,
        (
            room_bytes(publication.room),
            b"" if user is None else name_bytes("user", user),
            b"" if to is None else name_bytes("to", to),
            data,
            b"",
            b"",
            b"" if key is None else _payload("key", key)[0],
        ),
        flags=_abi.REPLAY_PRIORITY if publication.priority else 0,
    )
    operation.format = format
    if publication.kind:
        operation.kind = _number("kind", publication.kind, 32)
    if publication.negotiation:
        operation.negotiation = _number("negotiation", publication.negotiation)
    if publication.lifetime:
        operation.lifetime = native_milliseconds("lifetime", publication.lifetime)
    return operation


def join(room: str, user: str, position: str | bytes | None, token: str | bytes | None) -> Operation:
    texts = (room_bytes(room), name_bytes("user", user), b"", b"", *_shown(position, token), b"")
    resume = position is not None or token is not None
    return Operation(_abi.REPLAY_JOIN, texts, flags=_abi.REPLAY_RESUME if resume else 0)


def _shown(position: str | bytes | None, token: str | bytes | None) -> tuple[bytes, bytes]:
    return _presented("position", position), _presented("token", token)


def of_connection(type: int, room: str, user: str, generation: int, position: str | bytes | None = None) -> Operation:
    """RECOVER, ACKNOWLEDGE, DROP, LEAVE."""
    shown = _presented("position", position)
    texts = (room_bytes(room), name_bytes("user", user), b"", b"", shown, b"", b"")
    return Operation(type, texts, _number("generation", generation))


def state(room: str, user: str) -> Operation:
    return Operation(_abi.REPLAY_STATE_OF, (room_bytes(room), name_bytes("user", user), b"", b"", b"", b"", b""))


def quality(
    room: str,
    user: str,
    latency_ms: float | None,
    loss_percent: float | None,
    jitter_ms: float | None,
    bandwidth_kbps: float | None,
) -> Operation:
    texts = (room_bytes(room), name_bytes("user", user), b"", b"", b"", b"", b"")
    operation = Operation(_abi.REPLAY_QUALITY, texts)
    operation.measures = (
        _measure("latency_ms", latency_ms),
        _measure("loss_percent", loss_percent),
        _measure("jitter_ms", jitter_ms),
        _measure("bandwidth_kbps", bandwidth_kbps),
    )
    return operation


def of_room(type: int, room: str) -> Operation:
    """SUBSCRIBE, UNSUBSCRIBE."""
    return Operation(type, (room_bytes(room), b"", b"", b"", b"", b"", b""))


def _pair(what: str, value: Sequence[float]) -> Any:
    if len(value) != 2:
        raise InvalidArgumentError(f"{what} must be two numbers")
    return (ctypes.c_double * 2)(*value)


def native_config(config: ReplayConfig) -> _abi.ReplayConfig:
    native = _abi.ReplayConfig()
    native.struct_size = ctypes.sizeof(native)
    for name in (
        "window",
        "max_window",
        "max_message_size",
        "max_rooms",
        "max_members",
        "max_members_per_room",
        "max_kept",
        "max_batch",
        "max_batch_bytes",
        "recoveries_per_second",
        "recovery_burst",
        "max_keys",
        "durability",
        "breaker_operations",
        "breaker_percent",
        "max_pending",
    ):
        setattr(native, name, _number(name, getattr(config, name), 32))
    for name in ("max_room_bytes", "max_bytes"):
        setattr(native, name, _number(name, getattr(config, name)))
    for name in ("message_ttl", "state_ttl", "key_ttl", "store_timeout", "breaker_window", "breaker_open"):
        setattr(native, f"{name}_ms", native_milliseconds(name, getattr(config, name)))
    for name in ("trust_users", "replay_kept_on_loss", "compression"):
        setattr(native, name, bool(getattr(config, name)))
    for name in ("latency_ms", "loss_percent", "jitter_ms", "bandwidth_kbps"):
        setattr(native, name, _pair(name, getattr(config, name)))
    native.hysteresis = config.hysteresis
    native.store = native_text("store", config.store)
    native.prefix = native_text("prefix", config.prefix)
    native.secret = native_secret("secret", config.secret)
    native.secret_size = len(config.secret or b"")
    return native


# ------------------------------------------------------------------- the core


class ReplayCore:
    """A replay buffer. `take` must not be called by two threads at once; everything else may."""

    def __init__(self, config: ReplayConfig, from_environment: bool = False) -> None:
        self.library = _library.load()
        self.handle = _abi.ReplayHandle(0)
        self.tags = itertools.count(1)
        self._batch = ctypes.create_string_buffer(BATCH * _EVENT_SIZE)
        self._view = memoryview(self._batch)
        self._count = ctypes.c_size_t()
        self._count_pointer = ctypes.byref(self._count)
        native, detail = native_config(config), ctypes.create_string_buffer(DETAIL)
        create = self.library.reconnect_replay_create
        if from_environment:
            create = self.library.reconnect_replay_create_from_env
        check(create(ctypes.byref(native), ctypes.byref(self.handle), detail, DETAIL), detail)

    def destroy(self) -> None:
        self.library.reconnect_replay_destroy(self.handle)

    def descriptor(self) -> int:
        number = ctypes.c_int()
        check(self.library.reconnect_replay_event_fd(self.handle, ctypes.byref(number)))
        return number.value

    def metrics(self) -> str:
        return read_text(lambda *buffer: self.library.reconnect_replay_metrics(self.handle, *buffer), 16384)

    def statistics(self) -> ReplayStatistics:
        native = _abi.ReplayStatistics()
        native.struct_size = ctypes.sizeof(native)
        check(self.library.reconnect_replay_statistics(self.handle, ctypes.byref(native)))
        names = (name for name, _ in _abi.ReplayStatistics._fields_[1:])  # type: ignore[misc]
        values = {name: getattr(native, name) for name in names}
        values["store"] = _known(StoreState, values["store"], StoreState.AWAY)
        values["lost"] = {reason: native.lost[reason] for reason in LossReason}
        return ReplayStatistics(**values)

    def submit(self, operations: Sequence[Operation]) -> tuple[int, int, str]:
        """Hands in operations. Returns how many were taken, and the status and its detail of the next one."""
        parts: list[bytes] = []
        for operation in operations:
            parts += operation.texts
        blob = b"".join(parts)
        # All texts lie in one block, at whose address the library reads them during the call.
        texts = ctypes.c_char_p(blob)
        at: int = ctypes.c_void_p.from_buffer(texts).value or 0
        pack, records = _abi.REPLAY_OPERATION.pack, []
        for operation in operations:
            room, user, to, data, position, token, key = map(len, operation.texts)
            at_to = (at_user := at + room) + user
            at_position = (at_data := at_to + to) + data
            at_key = (at_token := at_position + position) + token
            records.append(
                pack(
                    operation.type,
                    operation.flags,
                    operation.tag,
                    *(at, room, at_user, user, at_to, to, at_data, data),
                    *(at_position, position, at_token, token, at_key, key),
                    operation.generation,
                    operation.negotiation,
                    operation.format,
                    operation.kind,
                    operation.lifetime,
                    0,
                    *operation.measures,
                )
            )
            at = at_key + key
        taken, detail = ctypes.c_size_t(), ctypes.create_string_buffer(DETAIL)
        status = self.library.reconnect_replay_submit(
            self.handle, b"".join(records), _OPERATION_SIZE, len(records), ctypes.byref(taken), detail, DETAIL
        )
        if status == Status.OK:
            return len(records), status, ""
        if status not in (Status.INVALID_ARGUMENT, Status.TOO_LARGE, Status.WOULD_BLOCK):
            check(status, detail)
        return taken.value, status, detail.value.decode("utf-8", "replace")

    def take(self, maximum: int = BATCH) -> list[Taken | ReplayEvent]:
        """What has happened, in order, without waiting: outcomes as tuples, and events. At most BATCH; fewer mean that
        there was no more."""
        status = self.library.reconnect_replay_poll(
            self.handle, self._batch, _EVENT_SIZE, maximum, 0, self._count_pointer
        )
        if status:
            if status == Status.INVALID_HANDLE:
                raise InvalidHandleError("the replay buffer is closed")
            check(status)
        count = self._count.value
        if not count:
            return []
        found: list[Taken | ReplayEvent] = []
        batch = 0
        try:
            for index in range(count):
                event = _abi.REPLAY_EVENT.unpack_from(self._view, index * _EVENT_SIZE)
                batch = event[3]
                taken = _convert(event)
                if taken is not None:
                    found.append(taken)
        finally:
            self.library.reconnect_replay_release(self.handle, batch)
        return found


def _known(kind: type[EnumT], number: int, otherwise: EnumT) -> EnumT:
    """A member of an enumeration, also if a later library has members that this package does not know."""
    try:
        return kind(number)
    except ValueError:
        return otherwise


def _text(address: int, size: int) -> str:
    return _string_at(address, size).decode("utf-8", "replace") if size else ""


def _data(address: int, size: int, format: int) -> str | bytes:
    if not size:
        return "" if format == _abi.TEXT else b""
    data = _string_at(address, size)
    return data.decode("utf-8", "replace") if format == _abi.TEXT else data


def _messages(address: int, count: int) -> tuple[ReplayedMessage, ...]:
    if not count:
        return ()
    return tuple(
        [
            ReplayedMessage(sequence, _data(data, size, format), _KINDS.get(kind, MessageKind.OTHER), negotiation)
            for sequence, data, size, negotiation, format, kind in _abi.REPLAY_MESSAGE.iter_unpack(
                _string_at(address, count * _MESSAGE_SIZE)
            )
        ]
    )


def _convert(event: tuple[Any, ...]) -> Taken | ReplayEvent | None:
    (type, status, tag, _, sequence, generation, replaced, flags, verdict, reason, problem, messages, count) = event[
        :13
    ]
    (skipped, position, position_size, token, token_size, data, size, room, room_size, user, user_size) = event[13:24]
    (to, to_size, state, away_ms, retry_after_ms, format, kind, quality, negotiation, number) = event[24:]
    if type < _abi.REPLAY_EVENT_MESSAGE:
        if status:
            error = error_for(status, _text(data, size))
            if isinstance(error, ThrottledError):
                error.retry_after = retry_after_ms / 1000
            return tag, None, error
        if type == _abi.REPLAY_PUBLISH:
            published = Published(
                sequence,
                _text(position, position_size),
                flags & _abi.REPLAY_DUPLICATE != 0,
                flags & _abi.REPLAY_DEGRADED != 0,
            )
            return tag, published, None
        if type == _abi.REPLAY_JOIN or type == _abi.REPLAY_RECOVER:
            common = (
                _VERDICTS.get(verdict, Verdict.LOST),
                _REASONS.get(reason),
                _PROBLEMS.get(problem),
                _messages(messages, count),
                skipped,
                sequence,
                _text(position, position_size),
                flags & _abi.REPLAY_DEGRADED != 0,
            )
            if type == _abi.REPLAY_RECOVER:
                return tag, Recovery(*common), None
            reconnection = flags & _abi.REPLAY_RECONNECTION != 0
            joined = Joined(*common, _text(token, token_size), generation, reconnection, away_ms / 1000, replaced)
            return tag, joined, None
        if type == _abi.REPLAY_STATE_OF:
            return tag, _state(state), None
        if type == _abi.REPLAY_QUALITY:
            report = QualityReport(
                _QUALITIES.get(quality, Quality.UNKNOWN), tuple(_text(data, size).split("\n") if size else ())
            )
            return tag, report, None
        return tag, None, None
    if type == _abi.REPLAY_EVENT_MESSAGE:
        return LiveMessage(
            _text(room, room_size),
            _text(user, user_size) or None,
            _text(to, to_size) or None,
            _data(data, size, format),
            _KINDS.get(kind, MessageKind.OTHER),
            negotiation,
            sequence,
            _text(position, position_size),
        )
    if type == _abi.REPLAY_EVENT_GAP:
        return GapEvent(_text(room, room_size), _REASONS.get(reason))
    if type == _abi.REPLAY_EVENT_STORE:
        return ReplayStoreEvent(_known(StoreState, number, StoreState.AWAY), _text(data, size))
    if type == _abi.REPLAY_EVENT_RETURNED:
        return ReturnedEvent(
            _text(room, room_size),
            _text(user, user_size),
            error_for(status, _text(data, size)) if status else None,
            generation,
            replaced,
            _text(token, token_size),
            _text(position, position_size),
            _VERDICTS.get(verdict, Verdict.LOST),
            _REASONS.get(reason),
        )
    if type == _abi.REPLAY_EVENT_LOG:
        return LogEvent(_known(LogLevel, number, LogLevel.DEBUG), _text(data, size))
    return None  # of a later version


def _state(address: int) -> UserState | None:
    if not address:
        return None
    record = _string_at(address, _abi.REPLAY_STATE.size)
    last_sequence, seen_ms, gone_ms, connected, quality, connections = _abi.REPLAY_STATE.unpack(record)
    return UserState(
        last_sequence,
        seen_ms / 1000,
        gone_ms / 1000,
        bool(connected),
        _QUALITIES.get(quality, Quality.UNKNOWN),
        connections,
    )
