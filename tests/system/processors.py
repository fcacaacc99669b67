"""Processors whose workers leave evidence in files."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from chronopype_mp import NetworkProcessor, NetworkStatus, TickProcessor

HELD_UP = 2
"""Ticks that a worker may miss because a busy machine did not let it run. A stall costs ten or
more. Tests marked ``quiet`` ask for every tick."""


class Scribe(TickProcessor):
    """Writes a line per tick: timestamp and the wall clock. The file is all incarnations'."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def note(self, line: str) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(fd, f"{line}\n".encode())
        finally:
            os.close(fd)

    def tick(self, timestamp: float) -> None:
        self.note(f"{timestamp!r} {time.time()!r}")


class BlockOnce(Scribe):
    """Blocks its event loop once, in its tenth tick."""

    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__(path)
        self.seconds = seconds
        self.count = 0

    def tick(self, timestamp: float) -> None:
        super().tick(timestamp)
        self.count += 1
        if self.count == 10:
            time.sleep(self.seconds)  # the fault under test


class Network(NetworkProcessor):
    """Connects at once; notes its hooks in a file."""

    LOGGER_NAME = "tests.network"

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.up = False

    @classmethod
    def logger(cls) -> logging.Logger:
        return logging.getLogger(cls.LOGGER_NAME)

    def note(self, line: str) -> None:
        with self.path.open("a") as file:
            file.write(f"{line}\n")

    async def check_network(self) -> NetworkStatus:
        return NetworkStatus.CONNECTED if self.up else NetworkStatus.NOT_CONNECTED

    async def start_network(self) -> None:
        self.up = True
        self.note("started")

    async def stop_network(self) -> None:
        self.note("stop begun")
        self.up = False
        self.note("stop ended")


def ticks_in(path: Path) -> list[float]:
    """Return the timestamps that a Scribe wrote."""
    return [float(line.split()[0]) for line in path.read_text().splitlines()]


def ran(ticks: Sequence[float], published: Sequence[float]) -> bool:
    """Whether these ticks are the published ones in their order, but for `HELD_UP` of them."""
    seen = set(ticks)
    few = len(published) - len(ticks) <= HELD_UP
    return few and list(ticks) == [at for at in published if at in seen]


def run_times_in(path: Path) -> list[float]:
    """Return the wall clock at each tick that a Scribe wrote."""
    return [float(line.split()[1]) for line in path.read_text().splitlines()]
