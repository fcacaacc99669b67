"""The processors of the benchmarks. Every worker imports this module, so it imports little."""

from __future__ import annotations

import socket
import struct
import time
from array import array
from pathlib import Path

from chronopype_mp import TickProcessor

__all__ = ["STAMP", "Arrivals", "FirstTick", "Probe"]

STAMP = struct.Struct("!d")
"""The encoding of a time or a timestamp."""


class Arrivals:
    """Records when ticks were entered, in memory. Our processors and the bare readers use it."""

    def __init__(self) -> None:
        self._noted = array("d")

    def note(self, timestamp: float) -> None:
        """Record that the tick with this timestamp is entered now."""
        self._noted.extend((timestamp, time.monotonic()))

    def dump(self) -> bytes:
        """Return all records as bytes."""
        return self._noted.tobytes()

    @staticmethod
    def load(dumped: bytes) -> list[tuple[float, float]]:
        """Return the timestamp and the time of entry (monotonic seconds) of each tick, in order."""
        noted = array("d")
        noted.frombytes(dumped)
        return list(zip(noted[::2], noted[1::2], strict=True))


class Probe(TickProcessor):
    """Records when its ticks are entered, and writes the records to a file when it stops.

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
    """Sends the time of entry of its first tick to a datagram socket.

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
