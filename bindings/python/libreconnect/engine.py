"""Engines, peers and channels for programs that block: plain threads, no event loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Union

from ._core import (
    BaseAnswer,
    BaseChannel,
    BaseConnection,
    BaseConnector,
    BaseEngine,
    BasePeer,
    Core,
    Data,
    Result,
    Template,
    check,
    is_offer,
    peer_statistics,
)
from ._waiting import WaitingThreads
from .config import ChannelConfig, Config, ConnectorConfig, PeerConfig
from .errors import InvalidHandleError, PeerGoneError
from .events import (
    EngineEvent,
    MessageEvent,
    Mode,
    PeerSignalEvent,
    PeerStatistics,
)


class Channel(BaseChannel["Peer"]):
    """One data channel (RFC 8831). It ends with its ChannelClosedEvent."""

    def send(self, data: Data) -> None:
        """Sends one message, possibly empty: str as text, everything else as binary. It is copied.

        Raises WouldBlockError if the queue is at its high-water mark (nothing was taken; a BufferedLowEvent follows),
        TooLargeError if the message is larger than the other side accepts, ClosedError or InvalidHandleError if the
        channel is closing, closed, or not open yet.
        """
        status = self._send(data)
        if status:
            check(status)

    def pause_reading(self) -> None:
        """Stops the delivery of the channel's messages. What then arrives waits in the library; when the peer's
        receive_window is full, the other side stops sending. Messages that poll() has already begun to take may
        still come, as do all other events. The end of the channel delivers what is waiting."""
        self._core.pause(self)

    def resume_reading(self) -> None:
        """Takes up the delivery of the channel's messages again."""
        if self._core.resume(self):
            self.peer.engine._wake()


class Peer(BasePeer[Channel]):
    """One WebRTC connection. It ends with its PeerStateEvent of state CLOSED."""

    engine: Engine
    """The engine that the peer belongs to."""

    def offer(self, timeout: float | None = 10) -> str:
        """Makes the offer, JSON {"type":"offer","sdp":...}, with all candidates in it. Waits for it. Raises
        WrongStateError if the peer negotiates by itself."""
        return self.engine._wait_for(self._start_offer(), timeout).check().data.decode()

    def accept(self, answer: str | bytes, timeout: float | None = 10) -> None:
        """Takes the answer to the offer, JSON as in Answer.json; then the peer connects. Waits until the answer is
        found to fit the offer. Raises MalformedJSONError, MalformedSDPError, UnacceptableError, WrongStateError."""
        self.engine._wait_for(self._start_accept(answer), timeout).check()

    def statistics(self, timeout: float | None = 10) -> PeerStatistics:
        """Asks for the peer's figures and waits for them."""
        return peer_statistics(self.engine._wait_for(self._start_statistics(), timeout).check())


Signaling = Callable[[str], Union[str, bytes]]
"""Sends an offer, JSON {"type":"offer",...}, to the server, and returns its answer. It is called in a thread of its
own."""


class Connection(BaseConnection[Peer]):
    """What a connector's connect has led to."""


class Connector(BaseConnector[Peer]):
    """Makes and remakes the connection of a client to one server, the fastest way that works: with the ticket that the
    server gave out during the last connection, nothing being exchanged beforehand; with one exchange and the session
    token; or with one exchange in normal mode. What is needed to come back is kept in its cache, only from connections
    that worked. A context manager: its end closes the connector."""

    engine: Engine
    """The engine that the connector belongs to."""

    def __init__(
        self, core: Core[Peer, Channel], tag: int, template: Template, engine: Engine, signaling: Signaling | None
    ) -> None:
        super().__init__(core, tag, template, signaling is not None)
        self.engine = engine
        self._signaling = signaling

    def __enter__(self) -> Connector:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def connect(self, timeout: float | None = 60) -> Connection:
        """Connects, or connects again: a peer that is up stays so until its successor is, then closes with
        ReplacedError. Waits until the channels of the configuration are open.

        Without a signaling function another thread serves the engine's SignalEvents meanwhile. After a TimeoutError the
        attempts go on, and a ConnectorEvent tells what becomes of them. Raises WrongStateError while a connect is under
        way, InvalidHandleError after close(), or the reason why no attempt worked.
        """
        with self.engine._turn:
            tag = self._start_connect()
        result = self.engine._wait_for(tag, timeout).check()
        peer = self.peer
        if peer is None:
            raise PeerGoneError("the connection is lost already")
        return Connection(peer, Mode(result.number), result.duration_ns / 1e9)

    def _signal(self, exchange: int, message: str) -> None:
        if is_offer(message):
            threading.Thread(target=self._exchange, args=(exchange, message), daemon=True).start()

    def _exchange(self, exchange: int, offer: str) -> None:
        assert self._signaling is not None
        try:
            answer = self._signaling(offer)
        except Exception as error:
            self._failed(exchange, error)
        else:
            self._answered(exchange, answer)


Event = Union[EngineEvent[Peer, Channel, Connector], MessageEvent[Channel], PeerSignalEvent[Peer]]
"""Everything that can happen."""


class Answer(BaseAnswer[Peer]):
    """An answered offer."""


class Engine(BaseEngine[Peer, Channel], WaitingThreads):
    """Owns one UDP port, one certificate and one thread, and all peers on that port.

    Making one blocks for the certificate's file and key only, and raises PortInUseError, NoPermissionError,
    NoAddressError, NoDescriptorsError, CertificateUnusableError, StorageError, SystemFailureError or
    InvalidArgumentError. All methods may be called from all threads. A context manager: its end closes the engine.
    """

    def __init__(self, config: Config | None = None, *, _from_environment: bool = False) -> None:
        super().__init__()
        WaitingThreads.__init__(self)
        self._results: dict[int, Result] = {}
        self._native = Core(config or Config(), self._make_peer, Channel, self._keep_result, _from_environment)
        self._port = self._core.port()
        try:
            self._begin(self._core.descriptor())
        except OSError:
            self._core.destroy()
            raise

    @classmethod
    def from_env(cls, config: Config | None = None) -> Engine:
        """Makes an engine, and what `config` leaves at its default is taken from the environment: ENABLE_FAST_RELOAD
        ("false", "0", "no" or "off"; "partial"), STUN_URLS (separated by commas), REDIS_URL (the session_store), ICE_MODE
        ("turn-only" or "relay"; "all"), and TURN_URLS (separated by commas) with TURN_USERNAME and TURN_PASSWORD, or with
        TURN_SECRET. A value that cannot be used raises InvalidArgumentError, with its name in the detail."""
        return cls(config, _from_environment=True)

    def _make_peer(self, core: Core[Peer, Channel], tag: int) -> Peer:
        peer = Peer(core, tag)
        peer.engine = self
        return peer

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            self.close()

    def close(self) -> None:
        """Closes all peers (the other sides are told), stops the thread, closes the port. Calls that wait in other
        threads raise InvalidHandleError. A second close does nothing."""
        if self._end():
            self._core.destroy()

    def fileno(self) -> int:
        """The descriptor that polls readable while events wait, for select and its kin. Never read from it."""
        return self._descriptor

    def answer(self, offer: str | bytes, config: PeerConfig | None = None, timeout: float | None = 10) -> Answer:
        """Answers an offer, JSON {"type":"offer","sdp":...,"sessionToken":...}, and makes a peer. The token of a live
        session, from the client to whom it was given, gives Mode.FAST.

        Waits for the answer, usually less than a millisecond; TimeoutError closes the peer. Raises
        MalformedJSONError, MalformedSDPError, UnacceptableError, LimitError, NoAddressError.
        """
        peer, tag = self._core.start_answer(offer, config or PeerConfig())
        try:
            result = self._wait_for(tag, timeout).check()
        except BaseException:
            self._core.forget_peer(peer)
            peer.close()
            raise
        return Answer(peer, result.data.decode(), Mode(result.number), result.duration_ns / 1e9)

    def create_peer(self, config: PeerConfig | None = None) -> Peer:
        """Makes a peer. Open its channels, then call its offer(); or with Negotiation.POLITE or IMPOLITE carry its
        PeerSignalEvents to the other side, and begin with restart() if that does not."""
        return self._core.create_peer(config or PeerConfig())

    def connector(self, config: ConnectorConfig | None = None, signaling: Signaling | None = None) -> Connector:
        """Makes a connector, which does nothing until its connect(). With `signaling` it exchanges offers and answers by
        itself; otherwise they are SignalEvents. A cache file that cannot be used is a warning in the log, never an
        error. Raises InvalidArgumentError or LimitError."""
        with self._turn:
            self._require_open()
            return self._core.add_connector(
                config or ConnectorConfig(), lambda tag, template: Connector(self._core, tag, template, self, signaling)
            )

    def poll(self, timeout: float | None = None) -> list[Event]:
        """What has happened, in order. Waits up to `timeout` seconds for the first event: 0 does not wait, None
        waits without limit. Empty after the time ran out. Raises InvalidHandleError once the engine is closed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._turn:
            while True:
                self._require_open()
                events = self._core.take()
                if self._results:
                    self._turn.notify_all()
                if events:
                    return events
                if not self._core.has_backlog() and not self._wait(deadline):
                    return []

    def events(self) -> Iterator[Event]:
        """All that happens, until the engine is closed."""
        while True:
            try:
                events = self.poll()
            except InvalidHandleError:
                return
            yield from events

    # ------------------------------------------------------------------ waiting

    def _require_open(self) -> None:
        if not self._open:
            raise InvalidHandleError("the engine is closed")

    def _wake(self) -> None:
        with self._turn:
            if self._open:
                self._interrupt()
            self._turn.notify_all()

    def _keep_result(self, tag: int, result: Result) -> None:
        self._results[tag] = result

    def _wait_for(self, tag: int, timeout: float | None) -> Result:
        """Waits for the event of a call."""
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            with self._turn:
                while True:
                    self._require_open()
                    if tag not in self._results and self._core.take_results():
                        self._turn.notify_all()
                    if tag in self._results:
                        return self._results[tag]
                    if self._core.has_backlog():
                        self._turn.notify_all()
                    if not self._wait(deadline):
                        raise TimeoutError("the engine did not answer in time")
        finally:
            with self._turn:
                self._core.forget_call(tag)
                self._results.pop(tag, None)


__all__ = ["Answer", "Channel", "ChannelConfig", "Connection", "Connector", "Engine", "Event", "Peer", "Signaling"]
