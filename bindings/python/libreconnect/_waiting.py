"""How threads, and tasks of an event loop, wait for what the library has."""

from __future__ import annotations

import asyncio
import os
import select
import threading
import time


class WaitingThreads:
    """Threads that wait for one descriptor: one of them for the descriptor, all others for that one."""

    _descriptor: int

    def __init__(self) -> None:
        self._open = False
        self._turn = threading.Condition()
        self._waiting: int | None = None  # the thread that waits for the descriptor

    def _begin(self, descriptor: int) -> None:
        """From here on there is something to wait for, until _end()."""
        self._wake_in, self._wake_out = os.pipe()
        os.set_blocking(self._wake_in, False)
        os.set_blocking(self._wake_out, False)
        self._descriptor = descriptor
        self._open = True

    def _end(self) -> bool:
        """Nobody waits any more when this returns. False if that was so already."""
        with self._turn:
            if not self._open:
                return False
            self._open = False
            self._interrupt()
            while self._waiting not in (None, threading.get_ident()):
                self._turn.wait()
            self._turn.notify_all()
            os.close(self._wake_in)
            os.close(self._wake_out)
        return True

    def _interrupt(self) -> None:
        """The thread that waits for the descriptor goes on. Called with the lock."""
        try:
            os.write(self._wake_out, b"w")
        except BlockingIOError:
            pass  # there are enough wake-ups in the pipe

    def _wait(self, deadline: float | None) -> bool:
        """Waits until something may have come; False if the deadline is over. Called with the lock, which is free while
        waiting."""
        remaining = None if deadline is None else deadline - time.monotonic()
        if remaining is not None and remaining <= 0:
            return False
        if self._waiting is not None:
            self._turn.wait(remaining)
            return True
        self._waiting = threading.get_ident()
        self._turn.release()
        try:
            poller = select.poll()
            poller.register(self._descriptor, select.POLLIN)
            poller.register(self._wake_in, select.POLLIN)
            woken = poller.poll(None if remaining is None else remaining * 1000)
        finally:
            self._turn.acquire()
            self._waiting = None
            self._turn.notify_all()
        if self._open and any(descriptor == self._wake_in for descriptor, _ in woken):
            os.read(self._wake_in, 4096)
        return True


def wake_all(waiters: set[asyncio.Future[None]]) -> None:
    """All of wait_in() go on."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()


async def wait_in(waiters: set[asyncio.Future[None]]) -> None:
    """Waits for the next wake_all()."""
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiters.add(waiter)
    try:
        await waiter
    finally:
        waiters.discard(waiter)
