"""The file to which a worker writes its stacks, read from outside.

The worker's end is `chronopype_mp.worker.watchdog`.
"""

from __future__ import annotations

import contextlib
import os
import struct

from chronopype_mp.core.boot import STACKS_HEADER
from chronopype_mp.timing import SYSTEM_TIME

__all__ = ["StacksFile"]

LONGEST_STACKS = 262_144
"""Bytes of stacks to keep."""


class StacksFile:
    """The stacks file of one process.

    Args:
        path: of the file, which the process creates; "" if it has none.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def size(self) -> int:
        """Return how many bytes of stacks there are."""
        try:
            return max(0, os.stat(self._path).st_size - STACKS_HEADER.size)
        except OSError:
            return 0

    def silent_for(self) -> float | None:
        """Return the seconds since Python code last ran in the process; None if unknown."""
        try:
            with open(self._path, "rb") as file:
                (ran_at,) = STACKS_HEADER.unpack(file.read(STACKS_HEADER.size))
        except (OSError, struct.error):
            return None
        return max(0.0, SYSTEM_TIME.monotonic() - float(ran_at))

    def take(self, offset: int) -> str | None:
        """Return the stacks and remove the file.

        Args:
            offset: where the stacks begin that the process was asked for, in bytes. They say more
                about its end than those before, which are returned only if it wrote no more.
        """
        stacks = ""
        with contextlib.suppress(OSError):
            with open(self._path, "rb") as file:
                everything = file.read()[STACKS_HEADER.size :]
            written = everything[offset:] or everything
            if len(written) > LONGEST_STACKS:
                # faulthandler writes the newest thread first; the event loop's thread is the last.
                half = LONGEST_STACKS // 2
                written = written[:half] + b"\n...\n" + written[-half:]
            stacks = written.decode(errors="replace")
            os.unlink(self._path)
        return stacks or None
