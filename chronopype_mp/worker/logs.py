"""Forwards a worker's log records to the coordinator's loggers of the same names."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections import deque

from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.core.messages import LogLine
from chronopype_mp.worker.outbox import Outbox

__all__ = ["LogForwarder", "set_levels"]

RECORDS_KEPT = 1000
"""Records that wait for the event loop to send them."""

LONGEST_LOG_MESSAGE = 8192
"""Characters of a message that are sent."""


class LogForwarder(logging.Handler):
    """Passes records of any thread to the event loop, which sends them. Never blocks.

    Args:
        boot: whose records they are.
        outbox: where to; used in the loop's thread only.
        loop: the worker's.
    """

    def __init__(self, boot: WorkerBoot, outbox: Outbox, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._boot = boot
        self._outbox = outbox
        self._loop = loop
        self._pid = os.getpid()
        self._thread = threading.get_ident()
        self._waiting: deque[LogLine] = deque()
        self._told = False

    def handle(self, record: logging.LogRecord) -> bool:
        """Filter and queue a record; a filter that raises is reported as logging does."""
        try:
            return super().handle(record)
        except Exception:
            self.handleError(record)
            return False

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record. In a forked child, which may not use the sockets, it goes to stderr."""
        if os.getpid() != self._pid:
            if logging.lastResort is not None and record.levelno >= logging.lastResort.level:
                logging.lastResort.handle(record)
            return
        try:
            line = self._line(record)
        except Exception:
            self.handleError(record)
            return
        if len(self._waiting) >= RECORDS_KEPT:
            self._outbox.lost += 1
            return
        self._waiting.append(line)
        if threading.get_ident() == self._thread:
            self.send()
        elif not self._told:
            self._told = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.send)

    def _line(self, record: logging.LogRecord) -> LogLine:
        """Return a record as it travels; its fields may be anything, so they are converted."""
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + logging.Formatter().formatException(record.exc_info)
        if len(message) > LONGEST_LOG_MESSAGE:
            left_out = len(message) - LONGEST_LOG_MESSAGE
            message = f"{message[:LONGEST_LOG_MESSAGE]}… ({left_out} more characters)"
        return self._boot.report(
            LogLine,
            logger=str(record.name),
            level=int(record.levelno),
            message=message,
            created=float(record.created),
            pathname=str(record.pathname),
            lineno=int(record.lineno),
            function=None if record.funcName is None else str(record.funcName),
            thread=None if record.threadName is None else str(record.threadName),
        )

    def send(self) -> None:
        """Send what is queued. Call it in the loop's thread."""
        self._told = False
        while self._waiting:
            self._outbox.post_if_free(self._waiting.popleft())


def set_levels(levels: dict[str, int]) -> None:
    """Set the levels of this process's loggers to those in the coordinator's process."""
    for name, level in levels.items():
        logging.getLogger(name or None).setLevel(level)
