"""The workers' stdout and stderr: read whatever the owner does, shown line by line, counted.

One thread reads all pipes, so that a worker which prints much does not block while the owner's
event loop does; another one writes, so that a stdout that nobody reads blocks nobody either. The
last lines of each process are kept for its obituary.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import queue
import selectors
import sys
import threading
import time
from collections import deque

__all__ = ["KEPT_LINES", "OutputPump", "WorkerOutput"]

KEPT_LINES = 50

CHUNK = 65536
"""Bytes read in one turn from one pipe."""

LAST_READS = 32
"""Reads from one pipe in the end: twice what it holds at most. Somebody may write without end."""

LONGEST = 8192
"""Characters; a longer line is shown in pieces."""

SHOWN_PER_SECOND = 1000.0
"""Lines of one process; the rest is counted."""

WAITING = 1000
"""Pieces of text that wait to be written; past that they are counted as not shown."""

STUCK_AFTER = 1.0
"""Seconds after which a stdout that takes nothing is left behind."""


class WorkerOutput:
    """The output of one process.

    Args:
        worker: its name, shown before each line.
        pipes: the readable ends of its stdout and stderr; closed in the end.
        pump: who reads them.

    Attributes:
        last: the last lines of both, oldest first.
        lines: how many there were so far.
        not_shown: how many of them were not shown.
    """

    def __init__(self, worker: str, pipes: tuple[int, int], pump: OutputPump) -> None:
        self.worker = worker
        self.last: deque[str] = deque(maxlen=KEPT_LINES)
        self.lines = 0
        self.not_shown = 0
        self._told = 0
        self._pump = pump
        self._lock = threading.Lock()
        self._partial = dict.fromkeys(pipes, "")
        self._is_error = dict(zip(pipes, (False, True), strict=True))
        # Bytes of a character may come in two reads.
        self._decoders = {fd: codecs.getincrementaldecoder("utf-8")("replace") for fd in pipes}
        self._allowed = SHOWN_PER_SECOND
        self._refilled_at = time.monotonic()

    def read(self, fd: int) -> bool:
        """Read once from a pipe; return whether there may be more."""
        with self._lock:
            return fd in self._partial and self._read(fd)

    def _read(self, fd: int) -> bool:
        try:
            chunk = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            self._close(fd)
            return False
        text = self._partial[fd] + self._decoders[fd].decode(chunk)
        *lines, rest = text.split("\n")
        pieces = [piece for line in lines for piece in _pieces(line)]
        *more, self._partial[fd] = _pieces(rest)
        self._take(pieces + more, self._is_error[fd])
        return True

    def _take(self, lines: list[str], is_error: bool) -> None:
        if not lines:
            return
        self.last.extend(lines)
        self.lines += len(lines)
        now = time.monotonic()
        refill = (now - self._refilled_at) * SHOWN_PER_SECOND
        self._allowed = min(SHOWN_PER_SECOND, self._allowed + refill)
        self._refilled_at = now
        shown = lines[: int(self._allowed)]
        self._allowed -= len(shown)
        if shown and self.not_shown > self._told:
            self._tell(is_error)
        text = "".join(f"[{self.worker}] {line}\n" for line in shown)
        if text and not self._pump.show(text, is_error):
            shown = []
        self.not_shown += len(lines) - len(shown)

    def _tell(self, is_error: bool) -> None:
        """Say how many lines were not shown since this was said last."""
        count = self.not_shown - self._told
        if self._pump.show(f"[{self.worker}] … {count:,} lines not shown\n", is_error):
            self._told = self.not_shown

    def _close(self, fd: int) -> None:
        self._pump.forget(fd)
        rest = self._partial.pop(fd) + self._decoders[fd].decode(b"", final=True)
        if rest:
            self._take([rest], self._is_error[fd])
        os.close(fd)

    def finish(self) -> tuple[str, ...]:
        """Read what is left, close the pipes, return the last lines.

        A process that the worker left behind may keep a pipe open; that is not waited for.
        """
        with self._lock:
            for fd in list(self._partial):
                for _ in range(LAST_READS):
                    if not self._read(fd):
                        break
            for fd in list(self._partial):
                self._close(fd)
            if self.not_shown > self._told:
                self._tell(False)
            return tuple(self.last)


class OutputPump:
    """Reads the output of all processes of a coordinator; `close` ends it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._texts: queue.Queue[tuple[str, bool] | None] = queue.Queue(WAITING)
        self._open = True
        self._abandoned = False
        self._reader = threading.Thread(
            target=self._read, name="chronopype_mp output reader", daemon=True
        )
        self._writer = threading.Thread(
            target=self._write, name="chronopype_mp output writer", daemon=True
        )
        self._reader.start()
        self._writer.start()

    def watch(self, worker: str, pipes: tuple[int, int]) -> WorkerOutput:
        """Read the pipes of a process from now on."""
        output = WorkerOutput(worker, pipes, self)
        with self._lock:
            for fd in pipes:
                os.set_blocking(fd, False)
                self._selector.register(fd, selectors.EVENT_READ, output)
        self._wake()
        return output

    def forget(self, fd: int) -> None:
        """Read a pipe no longer; whoever calls closes it."""
        with self._lock, contextlib.suppress(KeyError):
            self._selector.unregister(fd)

    def show(self, text: str, is_error: bool) -> bool:
        """Have a text written; return False if too much waits already."""
        try:
            self._texts.put_nowait((text, is_error))
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        """Write what waits, unless nobody takes it, and end both threads.

        All outputs must have ended.
        """
        self._open = False
        self._wake()
        self._reader.join()
        with contextlib.suppress(queue.Full):
            self._texts.put(None, timeout=STUCK_AFTER)
            self._writer.join(STUCK_AFTER)
        self._abandoned = True
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _wake(self) -> None:
        os.write(self._wake_write, b"\0")

    def _read(self) -> None:
        while self._open:
            for key, _ in self._selector.select():
                if key.data is None:
                    os.read(self._wake_read, 4096)
                else:
                    key.data.read(key.fd)

    def _write(self) -> None:
        while not self._abandoned and (item := self._texts.get()) is not None:
            text, is_error = item
            stream = sys.stderr if is_error else sys.stdout
            # A reader of our own output that has gone away must not end the coordinator.
            with contextlib.suppress(OSError, ValueError):
                stream.write(text)
                stream.flush()
            self._texts.task_done()


def _pieces(line: str) -> list[str]:
    """Return a line in pieces of at most `LONGEST` characters, an empty one as one piece."""
    return [line[start : start + LONGEST] for start in range(0, len(line), LONGEST)] or [""]
