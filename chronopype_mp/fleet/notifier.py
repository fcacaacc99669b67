"""Sends notices to a webhook and a command. The queue and each send are bounded."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import urllib.parse
from collections import deque
from collections.abc import Coroutine
from typing import Self

import msgspec

from chronopype_mp.core.worker_events import Event
from chronopype_mp.fleet.alerts import Alerts, Notice
from chronopype_mp.fleet.schema import NotifySettings
from chronopype_mp.guarded_log import GuardedLogger
from chronopype_mp.timing import loop_time

__all__ = ["Notifier"]

logger = GuardedLogger("chronopype_mp.fleet")

LONGEST_QUEUE = 100

LAST_MOMENT = 1.0
"""Seconds in addition to the timeout, so that what is given up is logged."""


class Notifier:
    """Sends notices while it is entered. Leaving sends what is left, for ``timeout`` at most.

    Args:
        fleet: the fleet's name.
        settings: where to, and how often.
    """

    def __init__(self, fleet: str, settings: NotifySettings) -> None:
        self._fleet = fleet
        self._settings = settings
        self._queue: deque[Notice] = deque()
        self._changed = asyncio.Event()
        self._is_leaving = False

    async def __aenter__(self) -> Self:
        """Start the task that sends."""
        settings = self._settings
        self._alerts = Alerts(settings.disconnected_after, settings.per_minute, loop_time())
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(_log_end)
        return self

    async def __aexit__(self, *details: object) -> None:
        """Wait for what is being sent; then give it up."""
        self._is_leaving = True
        self._changed.set()
        try:
            await asyncio.wait({self._task}, timeout=self._settings.timeout + LAST_MOMENT)
        finally:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def take(self, event: Event) -> None:
        """Take an event of the clock; in the event loop."""
        self._put(self._alerts.take(event, loop_time()))

    def _put(self, notices: list[Notice]) -> None:
        for notice in notices:
            if len(self._queue) < LONGEST_QUEUE:
                self._queue.append(notice)
            else:
                self._alerts.suppress(notice)
        self._changed.set()

    async def _run(self) -> None:
        while not (self._is_leaving and not self._queue):
            self._changed.clear()
            if not self._queue:
                await self._wait()
            self._put(self._alerts.overdue(loop_time()))
            if self._queue:
                await self._send(self._queue.popleft())

    async def _wait(self) -> None:
        """Wait for a notice, or until a worker has not been connected for too long."""
        deadline = self._alerts.next_deadline()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._changed.wait()

    async def _send(self, notice: Notice) -> None:
        content = msgspec.json.encode({"fleet": self._fleet, **msgspec.structs.asdict(notice)})
        sends = []
        if self._settings.webhook is not None:
            sends.append(self._guarded("webhook", _post(self._settings.webhook, content)))
        if self._settings.command:
            sends.append(self._guarded("command", _execute(self._settings.command, content)))
        await asyncio.gather(*sends)

    async def _guarded(self, what: str, send: Coroutine[object, object, None]) -> None:
        """Send within the timeout; log what goes wrong, without the address and its secrets."""
        try:
            async with asyncio.timeout(self._settings.timeout):
                await send
        except TimeoutError:
            problem = f"it took longer than {self._settings.timeout:g} s and was given up"
            logger.warning("fleet %r: notify.%s failed: %s", self._fleet, what, problem)
        except Exception as error:  # whatever a server or a program may do
            problem = error.strerror or "" if isinstance(error, OSError) else str(error)
            kind = type(error).__name__
            logger.warning("fleet %r: notify.%s failed: %s: %s", self._fleet, what, kind, problem)


def _log_end(task: asyncio.Task[None]) -> None:
    """Log a fault of this module, after which nothing is sent any more."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("no more notifications are sent", exc_info=error)


async def _post(url: str, content: bytes) -> None:
    """Send a POST request with JSON. Redirects are not followed.

    Raises:
        ValueError: the status is none from 200 to 299.
        OSError: there is no connection.
    """
    parts = urllib.parse.urlsplit(url)
    context = ssl.create_default_context() if parts.scheme == "https" else None
    port = parts.port or (80 if context is None else 443)
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=context)
    try:
        target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        head = (
            f"POST {target} HTTP/1.1\r\nHost: {parts.netloc.rpartition('@')[2]}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
            "Connection: close\r\n\r\n"
        )
        writer.write(head.encode() + content)
        await writer.drain()
        words = (await reader.readline()).split()
        if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].startswith(b"2"):
            raise ValueError(f"the server answered {b' '.join(words[:2])!r}")
    finally:
        writer.transport.abort()


async def _execute(command: tuple[str, ...], content: bytes) -> None:
    """Run a command with JSON on its standard input. Cancelling kills it, with its children.

    Raises:
        ValueError: its exit status is not 0.
        OSError: it cannot be run.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        await process.communicate(content)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    if process.returncode:
        raise ValueError(f"exit status {process.returncode}")
