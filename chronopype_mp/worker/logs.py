"""A worker's log records, on their way to the coordinator's loggers of the same names."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque

from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.core.messages import LogLine
from chronopype_mp.worker.outbox import Outbox

__all__ = ["LogForwarder", "set_levels"]

RECORDS_KEPT = 1000
"""Records kept until the event loop sends them."""

LONGEST_LOG_MESSAGE = 8192
"""Characters of a message that travel."""


class LogForwarder(logging.Handler):
    """Hands records of any thread to the event loop, which sends them. Never blocks.

    Args:
        boot: whose records they are.
        outbox: belongs to the loop's thread.
        loop: the worker's.
    """

    def __init__(self, boot: WorkerBoot, outbox: Outbox, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._boot = boot
        self._outbox = outbox
        self._loop = loop
        self._thread = threading.get_ident()
        self._waiting: deque[LogLine] = deque()
        self._told = False

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record."""
        try:
            message = record.getMessage()
            if record.exc_info:
                message += "\n" + logging.Formatter().formatException(record.exc_info)
        except Exception:
            self.handleError(record)
            return
        if len(message) > LONGEST_LOG_MESSAGE:
            message = (
                message[:LONGEST_LOG_MESSAGE]
                + f"… ({len(message) - LONGEST_LOG_MESSAGE} more characters)"
            )
        if len(self._waiting) >= RECORDS_KEPT:
            self._outbox.lost += 1
            return
        self._waiting.append(
            LogLine(
                worker=self._boot.worker,
                incarnation=self._boot.incarnation,
                logger=record.name,
                level=record.levelno,
                message=message,
                created=record.created,
                pathname=record.pathname,
                lineno=record.lineno,
                function=record.funcName,
                thread=record.threadName,
            )
        )
        if threading.get_ident() == self._thread:
            self.send()
        elif not self._told and not self._loop.is_closed():
            self._told = True
            self._loop.call_soon_threadsafe(self.send)

    def send(self) -> None:
        """Send what is queued; in the loop's thread."""
        self._told = False
        while self._waiting:
            self._outbox.post_if_free(self._waiting.popleft())


def set_levels(levels: dict[str, int]) -> None:
    """Give the loggers of this process the levels that they have in the coordinator's."""
    for name, level in levels.items():
        logging.getLogger(name or None).setLevel(level)
