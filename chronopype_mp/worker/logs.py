"""Forwards a worker's log records to the coordinator's loggers of the same names."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
import threading
from collections import deque

import msgspec

from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.core.codec import FrameError, decode_report, encode_report
from chronopype_mp.core.error_text import LONGEST_NAME, LONGEST_TRACEBACK, name_of, shortened
from chronopype_mp.core.messages import LogLine
from chronopype_mp.core.rate import TokenBucket
from chronopype_mp.timing import monotonic
from chronopype_mp.worker.outbox import Outbox

__all__ = ["LogForwarder", "set_levels"]

RECORDS_PER_SECOND = 1000.0
"""Records of one worker that are sent, with bursts of as many. Further ones are only counted."""

RECORD_BYTES_PER_SECOND = 1_000_000.0
"""Bytes of their texts, about."""

RECORD_BYTES_AT_ONCE = 8_000_000.0

RECORDS_KEPT = 1000
"""Records that wait for the event loop to send them."""

RECORDS_AT_ONCE = 100
"""Records of forked children that one turn of the event loop takes."""

LONGEST_LOG_MESSAGE = 8192
"""Bytes of a message that are sent."""

LONGEST_PATH = 4096
"""Bytes of a record's ``pathname``."""

LONGEST_STACK = 8192
"""Bytes of a record's ``stack_info``."""

LONGEST_EXTRA = 8192
"""Bytes of one field that the program has added to a record."""

EXTRA_BYTES = 16_384
"""Bytes of all these fields together, about. Those that come later are cut to `SHORT_EXTRA`."""

SHORT_EXTRA = 64
"""Bytes that each of these fields may have in any case."""

EXTRA_FIELDS = 50
"""Fields of a record that the program has added, at most."""

OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Fields of every record."""


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
        self._rate = TokenBucket(RECORDS_PER_SECOND, monotonic())
        self._bytes = TokenBucket(RECORD_BYTES_PER_SECOND, monotonic(), RECORD_BYTES_AT_ONCE)
        self._told = False
        self._lock_of_channel = threading.Lock()
        self._channel: tuple[socket.socket, socket.socket] | None = None

    def prepare_fork(self) -> None:
        """Make the channel by which forked children pass their records on; in any thread."""
        with self._lock_of_channel:
            if self._channel is not None:
                return
            kind = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
            try:
                self._channel = ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
            except OSError:
                return  # too many open files: records go to stderr
        for end in (ours, theirs):
            end.setblocking(False)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(
                self._loop.add_reader, ours.fileno(), self._take_from_children
            )

    def handle(self, record: logging.LogRecord) -> bool:
        """Filter and queue a record; a filter that raises is reported as logging does."""
        try:
            return super().handle(record)
        except Exception:
            self.handleError(record)
            return False

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record; a forked child, which may not use the sockets, passes it on."""
        if os.getpid() != self._pid:
            self._pass_on(record)
            return
        # Before the record is formatted: a flood must cost as little as possible.
        if len(self._waiting) >= RECORDS_KEPT or not self._rate.take(1, monotonic()):
            self._outbox.lost += 1
            return
        try:
            line = self._line(record)
        except Exception:
            self.handleError(record)
            return
        if not self._affords(line):
            self._outbox.lost += 1
            return
        self._waiting.append(line)
        if threading.get_ident() == self._thread:
            self.send()
        elif not self._told:
            self._told = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.send)

    def _affords(self, line: LogLine) -> bool:
        """Whether the texts of a record are within the limit of bytes; they count from now on."""
        texts = (line.message, line.exception or "", line.stack or "", *line.extra.values())
        size = sum(map(len, texts))
        return self._bytes.take(size, monotonic()) == size

    def _pass_on(self, record: logging.LogRecord) -> None:
        """Send a record to the worker; if it cannot take it, write it to stderr."""
        try:
            frame = encode_report(self._line(record))
        except Exception:
            self.handleError(record)
            return
        if self._channel is not None:
            with contextlib.suppress(OSError):  # the channel is full, or the worker has ended
                self._channel[1].send(frame)
                return
        if logging.lastResort is not None and record.levelno >= logging.lastResort.level:
            logging.lastResort.handle(record)

    def _take_from_children(self) -> None:
        if self._channel is None:
            return
        for _ in range(RECORDS_AT_ONCE):
            try:
                line = decode_report(self._channel[0].recv(1 << 20))
            except BlockingIOError:
                return
            except FrameError:
                self._outbox.lost += 1
            else:
                if (
                    isinstance(line, LogLine)
                    and self._rate.take(1, monotonic())
                    and self._affords(line)
                ):
                    self._outbox.post_if_free(line)
                else:
                    self._outbox.lost += 1

    def end(self) -> None:
        """Send what is queued and take no more from children. Call it in the loop's thread."""
        self.send()
        self._take_from_children()
        if self._channel is not None:
            self._loop.remove_reader(self._channel[0].fileno())
            for end in self._channel:
                end.close()

    def _line(self, record: logging.LogRecord) -> LogLine:
        """Return a record as it travels; its fields may be anything, so they are converted."""
        message = record.getMessage()
        if len(message) > LONGEST_LOG_MESSAGE:
            left_out = len(message) - LONGEST_LOG_MESSAGE
            message = f"{message[:LONGEST_LOG_MESSAGE]}… ({left_out} more characters)"
        exception = record.exc_text
        if record.exc_info and not exception:
            exception = logging.Formatter().formatException(record.exc_info)
        return self._boot.report(
            LogLine,
            logger=shortened(str(record.name), LONGEST_NAME),
            level=int(record.levelno),
            message=message,
            created=float(record.created),
            pathname=shortened(str(record.pathname), LONGEST_PATH),
            lineno=int(record.lineno),
            function=_text(record.funcName, LONGEST_NAME),
            thread=_text(record.threadName, LONGEST_NAME),
            thread_id=record.thread if isinstance(record.thread, int) else None,
            task=_text(getattr(record, "taskName", None), LONGEST_NAME),
            process=self._pid,
            exception=_text(exception, LONGEST_TRACEBACK),
            stack=_text(record.stack_info, LONGEST_STACK),
            extra=_extra(record),
        )

    def send(self) -> None:
        """Send what is queued. Call it in the loop's thread."""
        self._told = False
        while self._waiting:
            self._outbox.post_if_free(self._waiting.popleft())


def _text(value: object, longest: int) -> str | None:
    return None if value is None else shortened(str(value), longest)


def _extra(record: logging.LogRecord) -> dict[str, msgspec.Raw]:
    """Return what the program has added to a record, such as by ``extra``, as it is now."""
    added: dict[str, msgspec.Raw] = {}
    room = EXTRA_BYTES
    for name, value in vars(record).items():
        if name not in OWN_FIELDS and isinstance(name, str) and len(added) < EXTRA_FIELDS:
            encoded = _encoded(value, min(max(room, SHORT_EXTRA), LONGEST_EXTRA))
            added[shortened(name, LONGEST_NAME)] = msgspec.Raw(encoded)
            room -= len(encoded)
    return added


def _encoded(value: object, longest: int) -> bytes:
    """Encode a field; what msgpack does not know, or is too long, travels as text."""
    try:
        encoded = msgspec.msgpack.encode(value)
        msgspec.msgpack.decode(encoded)  # refuses what is nested too deeply
        if len(encoded) <= longest:
            return encoded
    except Exception:  # attributes of a user's object may raise anything
        pass
    try:
        text = str(value)
    except Exception as error:
        text = f"{name_of(type(value))}, which cannot be printed ({name_of(type(error))})"
    text = shortened(text, longest)
    return msgspec.msgpack.encode(text.encode(errors="backslashreplace").decode())


def set_levels(levels: dict[str, int]) -> None:
    """Set the levels of this process's loggers to those in the coordinator's process."""
    for name, level in levels.items():
        logging.getLogger(name or None).setLevel(level)
