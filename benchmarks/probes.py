"""The processors of the benchmarks. Imported in every worker: it imports little."""

from __future__ import annotations

import socket
import struct
import time
from array import array
from pathlib import Path

from chronopype_mp import TickProcessor

__all__ = ["STAMP", "Arrivals", "FirstTick", "Probe"]

STAMP = struct.Struct("!d")
"""A time or a timestamp on its way."""


class Arrivals:
    """When ticks were entered. Kept in memory while they come; our processors and the bare readers
    both note them by this."""

    def __init__(self) -> None:
        self._noted = array("d")

    def note(self, timestamp: float) -> None:
        """Note that the tick of that timestamp is entered now."""
        self._noted.extend((timestamp, time.monotonic()))

    def dump(self) -> bytes:
        """Return all of them."""
        return self._noted.tobytes()

    @staticmethod
    def load(dumped: bytes) -> list[tuple[float, float]]:
        """Return timestamp and time of entry (monotonic seconds) of each, in their order."""
        noted = array("d")
        noted.frombytes(dumped)
        return list(zip(noted[::2], noted[1::2], strict=True))


class Probe(TickProcessor):
    """Notes when its ticks are entered; writes that to a file when it is stopped.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        self.arrivals = Arrivals()

    def tick(self, timestamp: float) -> None:
        self.arrivals.note(timestamp)

    def stop(self) -> None:
        super().stop()
        self.path.write_bytes(self.arrivals.dump())


class FirstTick(TickProcessor):
    """Sends the time at which its first tick is entered to a datagram socket.

    Args:
        address: the socket's path.
    """

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address
        self.told = False

    def tick(self, timestamp: float) -> None:
        if not self.told:
            self.told = True
            now = STAMP.pack(time.monotonic())
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(now, self.address)
