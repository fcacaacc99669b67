"""The workers' stdout and stderr: read whatever the owner does, shown line by line, counted.

One thread reads all pipes, so that a worker which prints much does not block while the owner's
event loop does; another one writes, so that a stdout that nobody reads blocks nobody either. The
last lines of each process are kept for its obituary.
"""

from __future__ import annotations

import codecs
import logging
import os
import queue
import selectors
import sys
import threading
from collections import deque
from collections.abc import Callable

from chronopype_mp.timing import monotonic

__all__ = ["KEPT_LINES", "OutputPump", "WorkerOutput"]

logger = logging.getLogger("chronopype_mp.coordinator")

KEPT_LINES = 50

CHUNK = 65536
"""Bytes read in one turn from one pipe."""

LAST_READS = 32
"""Reads from one pipe in the end: twice what it holds at most. Somebody may write without end."""

LONGEST = 8192
"""Characters; a longer line is shown, and counted, in pieces."""

SHOWN_PER_SECOND = 1000.0
"""Lines of one process; the rest is counted."""

CALM_AFTER = 0.5
"""Seconds without a line left out after which a storm is over: how many there were is told."""

WAITING = 2_000_000
"""Characters that wait to be written; what comes on top of them is left out."""

STUCK_AFTER = 1.0
"""Seconds after which a stdout that takes nothing is left behind."""


class WorkerOutput:
    """The output of one process.

    Args:
        worker: its name, shown before each line.
        pipes: the readable ends of its stdout and stderr; closed in the end.
        pump: who reads them.
        clock: the time in seconds.

    Attributes:
        last: the last lines of both, oldest first.
        lines: how many there were so far.
        not_shown: how many of them were not shown.
    """

    def __init__(
        self, worker: str, pipes: tuple[int, int], pump: OutputPump, clock: Callable[[], float]
    ) -> None:
        self.last: deque[str] = deque(maxlen=KEPT_LINES)
        self.lines = 0
        self.not_shown = 0
        self._worker = worker
        self._pump = pump
        self._clock = clock
        self._lock = threading.Lock()
        self._partial = dict.fromkeys(pipes, "")
        self._is_error = dict(zip(pipes, (False, True), strict=True))
        # Bytes of a character may come in two reads.
        self._decoders = {fd: codecs.getincrementaldecoder("utf-8")("replace") for fd in pipes}
        self._allowed = SHOWN_PER_SECOND
        self._refilled_at = self._left_out_at = clock()
        self._left_out_of_stderr = False
        self._told = 0

    def read(self, fd: int) -> bool:
        """Read once from a pipe; return whether lines were left out that were not told of yet."""
        with self._lock:
            # It may have been closed since it was seen to be readable.
            if fd in self._partial:
                self._read(fd)
            return self.not_shown > self._told

    def tell_if_calm(self) -> bool:
        """Tell of what was left out, if that is over; return whether there is nothing to tell."""
        with self._lock:
            self._tell_if_calm()
            return self.not_shown == self._told or not self._partial

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
            self._tell()
            return tuple(self.last)

    def _read(self, fd: int) -> bool:
        """Read once; return whether there may be more."""
        try:
            chunk = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            self._close(fd)
            return False
        lines = (self._partial[fd] + self._decoders[fd].decode(chunk)).split("\n")
        if max(map(len, lines)) > LONGEST:
            lines = [piece for line in lines for piece in _pieces(line)]
        self._partial[fd] = lines.pop()
        if lines:
            self._take(lines, self._is_error[fd])
        return True

    def _close(self, fd: int) -> None:
        self._pump.forget(fd)
        rest = self._partial.pop(fd) + self._decoders[fd].decode(b"", final=True)
        if rest:
            self._take([rest], self._is_error[fd])
        os.close(fd)

    def _take(self, lines: list[str], is_error: bool) -> None:
        self._tell_if_calm()
        self.last.extend(lines)
        self.lines += len(lines)
        shown = lines[: self._allow(len(lines))]
        text = "".join(f"[{self._worker}] {line}\n" for line in shown)
        if text and not self._pump.show(text, is_error):
            shown = []
        if len(shown) < len(lines):
            self.not_shown += len(lines) - len(shown)
            self._left_out_at = self._clock()
            self._left_out_of_stderr = is_error

    def _allow(self, wanted: int) -> int:
        """Return how many lines may be shown now: a token bucket."""
        now = self._clock()
        refill = (now - self._refilled_at) * SHOWN_PER_SECOND
        self._refilled_at = now
        self._allowed = min(SHOWN_PER_SECOND, self._allowed + refill)
        granted = min(wanted, int(self._allowed))
        self._allowed -= granted
        return granted

    def _tell_if_calm(self) -> None:
        if self._clock() - self._left_out_at >= CALM_AFTER:
            self._tell()

    def _tell(self) -> None:
        """Say how many lines were not shown since this was said last."""
        count = self.not_shown - self._told
        if count:
            text = f"[{self._worker}] … {count:,} lines not shown\n"
            if self._pump.show(text, self._left_out_of_stderr):
                self._told = self.not_shown


class OutputPump:
    """Reads the output of all processes of a coordinator, from `start` to `close`.

    Args:
        clock: the time in seconds, for what is shown per second.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._texts: queue.SimpleQueue[tuple[str, bool] | None] = queue.SimpleQueue()
        self._waiting = 0
        self._open = True
        self._abandoned = False
        self._reader = threading.Thread(
            target=self._read, name="chronopype_mp output reader", daemon=True
        )
        self._writer = threading.Thread(
            target=self._write, name="chronopype_mp output writer", daemon=True
        )

    def start(self) -> None:
        """Start both threads."""
        self._reader.start()
        self._writer.start()

    def watch(self, worker: str, pipes: tuple[int, int]) -> WorkerOutput:
        """Read the pipes of a process from now on.

        After `close`, when a process comes late, `WorkerOutput.finish` alone reads them.
        """
        for fd in pipes:
            os.set_blocking(fd, False)
        output = WorkerOutput(worker, pipes, self, self._clock)
        with self._lock:
            if self._open:
                for fd in pipes:
                    self._selector.register(fd, selectors.EVENT_READ, output)
        return output

    def forget(self, fd: int) -> None:
        """Read a pipe no longer; whoever calls closes it."""
        with self._lock:
            if self._open and fd in self._selector.get_map():
                self._selector.unregister(fd)

    def show(self, text: str, is_error: bool) -> bool:
        """Have a text written; return False if too much waits already."""
        with self._lock:
            if not self._open or self._waiting + len(text) > WAITING:
                return False
            self._waiting += len(text)
        self._texts.put((text, is_error))
        return True

    def close(self) -> None:
        """Write what waits, unless nobody takes it, and end both threads.

        All outputs must have ended. Takes `STUCK_AFTER` at most; a thread that is stuck in a write
        ends with that.
        """
        with self._lock:
            self._open = False
        os.write(self._wake_write, b"\0")
        self._reader.join()
        self._texts.put(None)
        self._writer.join(STUCK_AFTER)
        self._abandoned = True
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _read(self) -> None:
        stormy: set[WorkerOutput] = set()
        while self._open:
            stormy |= self._turn(CALM_AFTER if stormy else None)
            stormy = {output for output in stormy if not output.tell_if_calm()}

    def _turn(self, timeout: float | None) -> set[WorkerOutput]:
        """Read each readable pipe once; return those outputs of which lines were left out."""
        # In between, others register and unregister pipes: epoll allows that.
        ready = [key for key, _ in self._selector.select(timeout) if key.data is not None]
        return {key.data for key in ready if key.data.read(key.fd)}

    def _write(self) -> None:
        while not self._abandoned and (item := self._texts.get()) is not None:
            text, is_error = item
            # Looked up each time: notebooks, tests and redirect_stdout replace it.
            stream = sys.stderr if is_error else sys.stdout
            if stream is not None:  # as it is in a program that was started without
                try:
                    stream.write(text)
                    stream.flush()
                except Exception:
                    # Its reader has gone away, or it was replaced by something that fails.
                    logger.debug("a worker's output cannot be shown", exc_info=True)
            with self._lock:
                self._waiting -= len(text)


def _pieces(line: str) -> list[str]:
    """Return a line in pieces of at most `LONGEST` characters, an empty one as one piece."""
    return [line[start : start + LONGEST] for start in range(0, len(line), LONGEST)] or [""]
