"""A worker's stdout and stderr: shown line by line, the last lines kept for its obituary."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import sys
from collections import deque

__all__ = ["KEPT_LINES", "OutputReader"]

KEPT_LINES = 50

CHUNK = 65536
"""Bytes read in one turn of the event loop from one pipe."""

LAST_READS = 32
"""Reads from one pipe in the end: twice what it holds at most. Somebody may write without end."""

LONGEST = 8192
"""Characters; a longer line is shown in pieces."""


class OutputReader:
    """Reads the two pipes of one process.

    Args:
        worker: its name, shown before each line.
        pipes: the readable ends of its stdout and stderr; closed in the end.

    Attributes:
        last: the last lines of both, oldest first.
    """

    def __init__(self, worker: str, pipes: tuple[int, int]) -> None:
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self.last: deque[str] = deque(maxlen=KEPT_LINES)
        self._partial = dict.fromkeys(pipes, "")
        self._is_error = dict(zip(pipes, (False, True), strict=True))
        # Bytes of a character may come in two reads.
        self._decoders = {fd: codecs.getincrementaldecoder("utf-8")("replace") for fd in pipes}
        for fd in pipes:
            os.set_blocking(fd, False)
            self._loop.add_reader(fd, self._read, fd)

    def _read(self, fd: int) -> bool:
        """Read once; return whether there may be more."""
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
        self._show(pieces + more, self._is_error[fd])
        return True

    def _show(self, lines: list[str], is_error: bool) -> None:
        if not lines:
            return
        self.last.extend(lines)
        stream = sys.stderr if is_error else sys.stdout
        # A reader of our own output that has gone away must not end the coordinator.
        with contextlib.suppress(OSError, ValueError):
            stream.write("".join(f"[{self._worker}] {line}\n" for line in lines))
            stream.flush()

    def _close(self, fd: int) -> None:
        self._loop.remove_reader(fd)
        rest = self._partial.pop(fd) + self._decoders[fd].decode(b"", final=True)
        if rest:
            self._show([rest], self._is_error[fd])
        os.close(fd)

    def finish(self) -> tuple[str, ...]:
        """Read what is left, close the pipes, return the last lines.

        A process that the worker left behind may keep a pipe open; that is not waited for.
        """
        for fd in list(self._partial):
            for _ in range(LAST_READS):
                if not self._read(fd):
                    break
        for fd in list(self._partial):
            self._close(fd)
        return tuple(self.last)


def _pieces(line: str) -> list[str]:
    """Return a line in pieces of at most `LONGEST` characters, an empty one as one piece."""
    return [line[start : start + LONGEST] for start in range(0, len(line), LONGEST)] or [""]
