"""What goes into replay buffers and what comes out of them. Times are seconds, sizes are bytes."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, fields
from typing import Any, Union

from .errors import ReconnectError
from .events import LogEvent, Message


class Durability(enum.IntEnum):
    """When an outcome comes from rooms in SQLite."""

    DURABLE = 0
    """After its transaction is on the disk."""
    RELAXED = 1
    """Before: what it says survives the process, not the loss of power."""


class MessageKind(enum.IntEnum):
    """What a message is to a WebRTC negotiation. A newer offer replaces the older one of the same sender, recipient and
    negotiation, and its candidates; a newer answer the older answer."""

    OTHER = 0
    OFFER = 1
    ANSWER = 2
    CANDIDATE = 3


class Verdict(enum.IntEnum):
    """What became of a return."""

    FRESH = 1
    """It came without a position."""
    RECOVERED = 2
    """Everything that was missed is in the outcome."""
    RECOVERED_EMPTY = 3
    """Nothing was missed."""
    LOST = 4
    """Something cannot be proven to be there: the client must begin anew."""


class LossReason(enum.IntEnum):
    """Why Verdict.LOST, or why live messages may be missing."""

    EPOCH = 1
    """The position is of another incarnation of the room, or of no room."""
    TRIMMED = 2
    """Dropped for limits of count or bytes."""
    EXPIRED = 3
    """Became too old."""
    LIMIT = 4
    """More than one outcome may carry (max_batch, max_batch_bytes); of a GapEvent: nobody took the live messages."""
    STORE = 5
    """The store did not answer."""
    DEGRADED = 6
    """Messages went around the store while it was away."""


class PositionProblem(enum.IntEnum):
    """What was wrong with what a client presented."""

    MALFORMED = 1
    FORGED = 2
    FOREIGN = 3
    """Of another incarnation, or another room."""
    FUTURE = 4
    """After the last message."""
    WRONG_TOKEN = 5


class Quality(enum.IntEnum):
    """How good a connection is."""

    UNKNOWN = 0
    GOOD = 1
    FAIR = 2
    POOR = 3


class StoreState(enum.IntEnum):
    """Where the store of a replay buffer stands."""

    AWAY = 0
    """Left alone; rooms are numbered in this process."""
    PRESENT = 1
    PROBED = 2
    """One operation tries it."""


@dataclass(frozen=True)
class ReplayConfig:
    """How a replay buffer works. Zero, empty and None mean the default."""

    window: int = 0
    """Messages kept per room; default 50, at most 65536."""
    max_window: int = 0
    """Rooms whose clients stay away longer than the window lasts get a larger one, up to this; 0: windows do not
    adapt."""
    message_ttl: float = 0
    """How long a message is kept; default 300."""
    state_ttl: float = 0
    """How long rooms and users are remembered after their last sign of life; default ten times message_ttl, never less
    than it."""
    max_message_size: int = 0
    """Default 65536, at most 16777216."""
    max_room_bytes: int = 0
    """Of messages, per room; default 1048576."""
    max_bytes: int = 0
    """Of messages of all rooms, overhead included; default 268435456. The rooms that were least recently used lose
    theirs first."""
    max_rooms: int = 0
    """Default 1048576."""
    max_members: int = 0
    """Users of all rooms; default 1048576."""
    max_members_per_room: int = 0
    """Default 10000."""
    max_kept: int = 0
    """Offers, answers and priority messages kept beside the window; default 16."""
    max_batch: int = 0
    """Messages that one outcome may carry; more is LossReason.LIMIT; default 1000."""
    max_batch_bytes: int = 0
    """Default 4194304."""
    recoveries_per_second: int = 0
    """Admitted over all rooms, the others raise ThrottledError; 0: no limit."""
    recovery_burst: int = 0
    """Admitted at once; default 1000."""
    trust_users: bool = False
    """The program has authenticated the user: no token is needed to resume."""
    replay_kept_on_loss: bool = False
    """Verdict.LOST replays the latest offers, answers and priority messages."""
    max_keys: int = 0
    """Idempotency keys remembered per room; default 64."""
    key_ttl: float = 0
    """Default 300."""
    store: str | None = None
    """Where rooms are kept. None: in memory. "sqlite:PATH": a file, made (mode 0600) if missing.
    "redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]", "rediss://..." with TLS, "redis+unix:PATH": shared by several
    processes. A store that is away, slow or broken never holds up a message, and never leads to a false
    Verdict.RECOVERED."""
    prefix: str | None = None
    """Of keys in Redis; default "webrtc:reconnect:"."""
    store_timeout: float = 0
    """An operation is done without the store when that has answered nothing for so long, or not this one for a hundred
    times as long (but for 5 seconds, if this is less); default 0.05, and 5 with SQLite."""
    durability: Durability = Durability.DURABLE
    breaker_window: float = 0
    """The store is left alone when breaker_percent of at least breaker_operations failed over this time; default 10."""
    breaker_operations: int = 0
    """Default 20."""
    breaker_percent: int = 0
    """Default 50."""
    breaker_open: float = 0
    """How long, before one operation tries again; default 1."""
    secret: bytes | None = field(default=None, repr=False)
    """Signs positions: 16 to 256 bytes, the same in processes that share a store; None: a random one, kept in the
    store."""
    compression: bool = False
    """Messages above 200 bytes are kept compressed where that saves a tenth (Zstandard, RFC 8878)."""
    max_pending: int = 0
    """Operations handed in whose outcomes were not taken; default 100000."""
    latency_ms: tuple[float, float] = (0, 0)
    """Quality: above the first is fair, above the second poor; default 150, 400."""
    loss_percent: tuple[float, float] = (0, 0)
    """Default 1, 5."""
    jitter_ms: tuple[float, float] = (0, 0)
    """Default 30, 75."""
    bandwidth_kbps: tuple[float, float] = (0, 0)
    """Below the first is fair, below the second poor; default 1000, 300."""
    hysteresis: float = 0
    """Better only if better than the limit by this share; default 0.1; negative: 0."""


@dataclass(frozen=True)
class Publication:
    """A message to publish. The room, the sender and the recipient are texts of 1 to 256 bytes without control
    characters; the room's has no braces either."""

    room: str
    data: str | bytes | bytearray | memoryview
    """str goes as text, everything else as binary; possibly empty."""
    user: str | None = None
    """The sender, a member of the room, who never gets it back; None: the server itself."""
    to: str | None = None
    """The only recipient, a member of the room; None: everybody."""
    kind: MessageKind = MessageKind.OTHER
    negotiation: int = 0
    """Names the peer connection, where two users have several."""
    key: str | bytes | None = None
    """The same key by the same user in the same room is the same message: a second one is not stored."""
    lifetime: float = 0
    """Worth nothing after so many seconds, and then not missed; 0: message_ttl."""
    priority: bool = False
    """Kept beside the window, as offers and answers are."""


# The classes below are made by the thousand: slots by hand, because Python 3.9's dataclass does not make them.


class _Record:
    """What slots take from a frozen dataclass: copies and pickles."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, each.name) for each in fields(self))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Published(_Record):
    """A stored message."""

    __slots__ = ("degraded", "duplicate", "position", "sequence")

    sequence: int
    """Its number in the room."""
    position: str
    """Stands for everything up to it."""
    duplicate: bool
    """Its key was used before: this is the outcome of back then, and nothing was stored."""
    degraded: bool
    """Done without the store."""


@dataclass(frozen=True)
class ReplayedMessage(_Record):
    """A message of the past."""

    __slots__ = ("data", "kind", "negotiation", "sequence")

    sequence: int
    data: Message
    """str if it was published as text, otherwise bytes."""
    kind: MessageKind
    negotiation: int


@dataclass(frozen=True)
class Recovery(_Record):
    """What a connection has missed.

    `position` is for the client to keep once it has all `messages`: it stands for all of them."""

    __slots__ = ("degraded", "messages", "position", "problem", "reason", "sequence", "skipped", "verdict")

    verdict: Verdict
    reason: LossReason | None
    """Why it is lost; None if it is not."""
    problem: PositionProblem | None
    """What was wrong with the position or the token; None if nothing was."""
    messages: tuple[ReplayedMessage, ...]
    """In order. Never the user's own, never those to others."""
    skipped: int
    """Messages for this client that are not among them because a newer one replaced them or their lifetime passed."""
    sequence: int
    """Of the last message before `position`: live messages with a higher number are yet to be delivered."""
    position: str
    degraded: bool
    """Done without the store."""

    @property
    def recovered(self) -> bool:
        """Nothing is missing."""
        return self.verdict is Verdict.RECOVERED or self.verdict is Verdict.RECOVERED_EMPTY


@dataclass(frozen=True)
class Joined(Recovery):
    """A connection that has begun, and what its user has missed."""

    __slots__ = ("away", "generation", "reconnection", "replaced", "token")

    token: str
    """Goes to the client, with the position: what it comes back with. Never for logs."""
    generation: int
    """Stands for this connection in all further calls."""
    reconnection: bool
    """The user was here before and has not left."""
    away: float
    """For how many seconds it had no connection; 0 if it is no reconnection."""
    replaced: int
    """The generation that this one takes over from, whose connection the program closes; 0: none."""

    def __repr__(self) -> str:
        reason = f", reason={self.reason.name}" if self.reason is not None else ""
        return (
            f"Joined(verdict={self.verdict.name}{reason}, messages={len(self.messages)}, sequence={self.sequence}, "
            f"generation={self.generation}, reconnection={self.reconnection}, replaced={self.replaced})"
        )


@dataclass(frozen=True)
class UserState(_Record):
    """What is known of a user in a room."""

    __slots__ = ("away", "connected", "connections", "last_seen", "last_sequence", "quality")

    last_sequence: int
    """The highest that the client is known to have, or was given."""
    last_seen: float
    """Unix time."""
    away: float
    """For how many seconds it has had no connection; 0 while it has one."""
    connected: bool
    quality: Quality
    connections: int
    """Of this user so far, the present one included."""


@dataclass(frozen=True)
class QualityReport(_Record):
    """What a client's figures mean."""

    __slots__ = ("quality", "recommendations")

    quality: Quality
    recommendations: tuple[str, ...]
    """Sentences for people."""


@dataclass(frozen=True)
class LiveMessage(_Record):
    """A message of a room that is subscribed to, whichever process published it. It goes to `to`, or to everybody but
    `user`: to each client whose last sequence is lower than the message's."""

    __slots__ = ("data", "kind", "negotiation", "position", "room", "sequence", "to", "user")

    room: str
    user: str | None
    """The sender; None: the server."""
    to: str | None
    """The only recipient; None: everybody."""
    data: Message
    """str if it was published as text, otherwise bytes."""
    kind: MessageKind
    negotiation: int
    sequence: int
    position: str
    """For the clients to keep, also for those that it does not go to."""


@dataclass(frozen=True)
class GapEvent(_Record):
    """Live messages of a room may be missing: each of its clients is to recover from its last position."""

    __slots__ = ("reason", "room")

    room: str
    reason: LossReason | None


@dataclass(frozen=True)
class ReplayStoreEvent(_Record):
    """The store of a replay buffer has come or gone."""

    __slots__ = ("detail", "state")

    state: StoreState
    detail: str
    """A sentence."""


@dataclass(frozen=True)
class ReturnedEvent(_Record):
    """A connection that began while the store was away was taken over by it, if `error` is None. Otherwise the store
    did not take it, and it must join again."""

    __slots__ = ("error", "generation", "position", "reason", "replaced", "room", "token", "user", "verdict")

    room: str
    user: str
    error: ReconnectError | None
    generation: int
    """The new one."""
    replaced: int
    """The one that it had."""
    token: str
    position: str
    verdict: Verdict
    """For the client, with `reason`."""
    reason: LossReason | None

    def __repr__(self) -> str:
        return (
            f"ReturnedEvent(room={self.room!r}, user={self.user!r}, error={self.error!r}, "
            f"generation={self.generation}, replaced={self.replaced}, verdict={self.verdict.name})"
        )


RoomEvent = Union[LiveMessage, GapEvent, ReturnedEvent]
"""What happens in a room."""

ReplayEvent = Union[LiveMessage, GapEvent, ReplayStoreEvent, ReturnedEvent, LogEvent]
"""Everything that can happen in a replay buffer."""


@dataclass(frozen=True)
class ReplayStatistics:
    """Counters since the buffer was made; those marked "now" are gauges."""

    store: StoreState
    """Now."""
    rooms: int
    """Now; in memory."""
    members: int
    """Now; in memory."""
    bytes_held: int
    """Now; of messages in memory, overhead included."""
    published: int
    duplicates: int
    joins: int
    fresh: int
    recovered: int
    recovered_empty: int
    lost: dict[LossReason, int]
    """By reason."""
    messages_replayed: int
    messages_live: int
    gaps: int
    throttled: int
    store_operations: int
    """Given to a store that is not memory."""
    store_failures: int
    """Failed, or not answered in time."""
    without_store: int
    """Done without it."""
    events_queued: int
    """Now, in the library."""
