"""Reads the workers' stdout and stderr, shows them line by line and counts the lines.

One thread reads all pipes. A worker that prints a lot is therefore not blocked by a blocked event
loop of the owner. A second thread writes. A stdout that nobody reads therefore blocks neither the
workers nor the owner. The last lines of each process are kept for its dossier.
"""

from __future__ import annotations

import codecs
import os
import queue
import selectors
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import TextIO

from chronopype_mp.core.rate import TokenBucket
from chronopype_mp.guarded_log import GuardedLogger
from chronopype_mp.timing import monotonic, sleep

__all__ = ["KEPT_LINES", "OutputPump", "WorkerOutput"]

logger = GuardedLogger("chronopype_mp.coordinator")

KEPT_LINES = 50

CHUNK = 65536
"""Bytes per read from a pipe."""

LAST_READS = 32
"""Last reads from a pipe at the end of a process: twice the capacity of a pipe.

The number is bounded because a process that the worker left behind may write for ever."""

LONGEST = 8192
"""Characters. A longer line is shown and counted in pieces."""

SHOWN_PER_SECOND = 1000.0
"""Lines of one process per second. Further lines are only counted."""

CALM_AFTER = 0.5
"""Seconds without an omitted line, after which the number of omitted lines is reported."""

WAITING = 500_000
"""Characters of one process that may be queued for writing: at most 2 MB. Further lines are
omitted."""

PAUSE = 0.005
"""Seconds between two reads while lines are omitted. A flood is then read in large pieces, which
costs the owner little. It is slowed down only if it fills a pipe in that time."""

GIVE_UP_WRITER_AFTER = 1.0
"""Seconds to wait for a stdout that accepts nothing when the pump closes."""


class WorkerOutput:
    """The output of one process.

    Args:
        worker: the worker's name, shown before each line.
        pipes: the readable ends of its stdout and stderr. `finish` closes them.
        pump: the pump that reads them.
        clock: returns the time in seconds.

    Attributes:
        last: the last lines of both streams, oldest first.
        lines: the number of lines so far.
        not_shown: the number of lines that were omitted.
        waiting: characters that are queued for writing; for the pump's own use.
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
        # The bytes of one character can be split between two reads.
        self._decoders = {fd: codecs.getincrementaldecoder("utf-8")("replace") for fd in pipes}
        self._rate = TokenBucket(SHOWN_PER_SECOND, clock())
        self._left_out_at = clock()
        self.waiting = 0
        self._left_out_of_stderr = False
        self._told = 0

    def read(self, fd: int) -> bool:
        """Read once from a pipe. Return whether omitted lines are not yet reported."""
        with self._lock:
            # The pipe may have been closed since the selector returned it.
            if fd in self._partial:
                self._read(fd)
            return self.not_shown > self._told

    def tell_if_calm(self) -> bool:
        """Report omitted lines if the flood is over. Return whether nothing is left to report."""
        with self._lock:
            self._tell_if_calm()
            return self.not_shown == self._told or not self._partial

    def finish(self) -> tuple[str, ...]:
        """Read what is left, close the pipes and return the last lines.

        This does not wait for processes that the worker left behind and that keep a pipe open.
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
        """Read once. Return whether there may be more."""
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
        shown = lines[: self._rate.take(len(lines), self._clock())]
        text = "".join(f"[{self._worker}] {line}\n" for line in shown)
        if text and not self._pump.show(self, text, is_error):
            shown = []
        if len(shown) < len(lines):
            self.not_shown += len(lines) - len(shown)
            self._left_out_at = self._clock()
            self._left_out_of_stderr = is_error

    def _tell_if_calm(self) -> None:
        if self._clock() - self._left_out_at >= CALM_AFTER:
            self._tell()

    def _tell(self) -> None:
        """Report how many lines were omitted since the last report."""
        count = self.not_shown - self._told
        if count:
            text = f"[{self._worker}] … {count:,} lines not shown\n"
            if self._pump.show(self, text, self._left_out_of_stderr):
                self._told = self.not_shown


class OutputPump:
    """Reads the output of all processes of a coordinator, from `start` to `close`.

    Args:
        on_failure: called in the thread that ends because of an error.
        clock: returns the time in seconds, for the limit on lines per second.
    """

    def __init__(
        self,
        on_failure: Callable[[BaseException], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._on_failure = on_failure
        self._clock = clock
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._texts: queue.SimpleQueue[tuple[WorkerOutput, str, bool] | None] = queue.SimpleQueue()
        self._open = True
        self._abandoned = False
        self._reader = self._thread(self._read, "chronopype_mp output reader")
        self._writer = self._thread(self._write, "chronopype_mp output writer")

    def start(self) -> None:
        """Start both threads."""
        self._reader.start()
        self._writer.start()

    def watch(self, worker: str, pipes: tuple[int, int]) -> WorkerOutput:
        """Read the pipes of a process from now on.

        After `close`, only `WorkerOutput.finish` reads them.
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
        """Stop reading a pipe. The caller closes it."""
        with self._lock:
            if self._open and fd in self._selector.get_map():
                self._selector.unregister(fd)

    def show(self, output: WorkerOutput, text: str, is_error: bool) -> bool:
        """Queue a text for writing. Return False if too much of that output is queued already."""
        with self._lock:
            if not self._open or output.waiting + len(text) > WAITING:
                return False
            output.waiting += len(text)
        self._texts.put((output, text, is_error))
        return True

    def close(self) -> None:
        """Write what is queued and end both threads.

        Call this after all outputs have finished. It waits for the writer for at most
        `GIVE_UP_WRITER_AFTER` seconds. A writer that is stuck in a write ends when it returns.
        """
        with self._lock:
            self._open = False
        os.write(self._wake_write, b"\0")
        self._reader.join()
        self._texts.put(None)
        self._writer.join(GIVE_UP_WRITER_AFTER)
        self._abandoned = True
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _thread(self, work: Callable[[], None], name: str) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                self._on_failure(error)

        return threading.Thread(target=run, name=name, daemon=True)

    def _read(self) -> None:
        stormy: set[WorkerOutput] = set()
        while self._open:
            if stormy:
                sleep(PAUSE)
            stormy |= self._turn(CALM_AFTER if stormy else None)
            stormy = {output for output in stormy if not output.tell_if_calm()}

    def _turn(self, timeout: float | None) -> set[WorkerOutput]:
        """Read each readable pipe once. Return the outputs with unreported omitted lines."""
        # Other threads register and unregister pipes meanwhile, which epoll allows.
        ready = [key for key, _ in self._selector.select(timeout) if key.data is not None]
        return {key.data for key in ready if key.data.read(key.fd)}

    def _write(self) -> None:
        while not self._abandoned and (item := self._texts.get()) is not None:
            output, text, is_error = item
            # Looked up each time, because notebooks, tests and redirect_stdout replace it.
            stream = sys.stderr if is_error else sys.stdout
            if stream is not None:  # None in a program that was started without a stdout
                try:
                    _write(stream, text)
                    stream.flush()
                except Exception:
                    # The reader has gone, or the stream was replaced by one that fails.
                    logger.debug("cannot write a worker's output", exc_info=True)
            with self._lock:
                output.waiting -= len(text)


def _write(stream: TextIO, text: str) -> None:
    """Write a text; characters that the stream cannot encode are escaped."""
    try:
        stream.write(text)
    except UnicodeEncodeError as error:
        encoding = getattr(stream, "encoding", None) or error.encoding
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def _pieces(line: str) -> list[str]:
    """Split a line into pieces of at most `LONGEST` characters. An empty line is one piece."""
    return [line[start : start + LONGEST] for start in range(0, len(line), LONGEST)] or [""]
