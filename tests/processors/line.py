"""A NetworkProcessor for tests, which notes what is called."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.processors import NetworkProcessor, NetworkStatus
from chronopype_mp.processors.network_loop import NetworkChange, NetworkFailure, NetworkListener
from tests.waiting import Noticeboard, turns

CONNECTED = NetworkStatus.CONNECTED
NOT_CONNECTED = NetworkStatus.NOT_CONNECTED


class Line(NetworkProcessor):
    """A connection that works as soon as ``start_network`` has made it; notes what is called."""

    network_backoff = BackoffPolicy(minimum=0.01, maximum=0.02, jitter=0.0)
    start_network_timeout = 5.0
    stop_network_timeout = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.statuses: list[NetworkStatus] = []
        self.reasons: list[str] = []
        self.errors: list[str] = []
        self.reports: list[NetworkFailure] = []
        self.failures: list[tuple[str, BaseException]] = []
        self.stuck: list[str] = []
        self.ended: list[BaseException] = []
        self.client: object | None = None
        self.board = Noticeboard()
        self._listener = NetworkListener(self._seen, self._failed, self._seen_stuck, self._seen_end)

    def _seen(self, change: NetworkChange) -> None:
        assert change.status is self.network_status
        if self.statuses[-1:] != [change.status]:
            self.statuses.append(change.status)
            self.reasons.append(change.reason)
            if change.error is not None:
                self.errors.append(change.error)
        self.board.notify()

    def _failed(self, failure: NetworkFailure) -> None:
        self.reports.append(failure)
        self.failures.append((failure.hook, failure.error))
        self.board.notify()

    def _seen_stuck(self, hook: str) -> None:
        self.stuck.append(hook)
        self.board.notify()

    def _seen_end(self, reason: BaseException) -> None:
        self.ended.append(reason)
        self.board.notify()

    def note(self, call: str) -> None:
        self.calls.append(call)
        self.board.notify()

    @classmethod
    def logger(cls) -> logging.Logger:
        return logging.getLogger("tests.line")

    async def check_network(self) -> NetworkStatus:
        self.note("check")
        return NOT_CONNECTED if self.client is None else CONNECTED

    async def start_network(self) -> None:
        self.note("start")
        self.client = object()

    async def stop_network(self) -> None:
        self.note("stop")
        self.client = None

    def on_connected(self) -> None:
        self.note("on_connected")
        super().on_connected()

    def on_disconnected(self) -> None:
        self.note("on_disconnected")
        super().on_disconnected()

    async def until(self, condition: Callable[[], bool]) -> None:
        await self.board.until(condition)

    async def until_ready(self) -> None:
        """Wait for the connection, and let the loop come to its rest."""
        await self.board.until(lambda: self.network_status is CONNECTED)
        await turns()
        assert self.wants_ticks

    async def end(self) -> None:
        self.stop()
        await self.await_cleanup()


async def hang() -> None:
    """Stand for a hook that never ends; it is cancelled."""
    await asyncio.get_running_loop().create_future()
