"""Processors that do harm to their own worker, most of them in its first incarnation only."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from chronopype_mp import NetworkStatus, TickProcessor
from tests.system.processors import Network, Scribe

__all__ = [
    "BlocksWithChildren",
    "CannotBeLoaded",
    "CannotBeMade",
    "DiesInTick",
    "HangsInStop",
    "LastWords",
    "SleepsInCheck",
    "SleepsInStart",
    "SleepsInTick",
    "SlowToMake",
    "SpinsInTick",
    "Uncaught",
    "WillNotBeCancelled",
    "harmed_at",
]

FOR_EVER = 9999.0
"""Seconds."""


def first_time(path: Path) -> bool:
    """Whether no incarnation has asked before; notes the wall clock of the first."""
    try:
        fd = os.open(path.with_suffix(".once"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    os.write(fd, repr(time.time()).encode())
    os.close(fd)
    return True


def harmed_at(path: Path) -> float:
    """Return the wall clock at the harm, seconds."""
    return float(path.with_suffix(".once").read_text())


class Uncaught(BaseException):
    """No Exception, so that no handler of hooks takes it."""


class DiesInTick(Scribe):
    """Raises what nobody catches."""

    def tick(self, timestamp: float) -> None:
        super().tick(timestamp)
        if first_time(self.path):
            raise Uncaught("nobody catches this")


class LastWords(Scribe):
    """Fails in its first tick, and has the process exit right after it, in every incarnation."""

    def tick(self, timestamp: float) -> None:
        asyncio.get_running_loop().call_soon(sys.exit, 3)
        raise RuntimeError(f"last words of {os.getpid()}")


class CannotBeMade(TickProcessor):
    """Its constructor raises."""

    def __init__(self) -> None:
        raise LookupError("no such exchange")


class SlowToMake(TickProcessor):
    """Its constructor takes long."""

    def __init__(self) -> None:
        super().__init__()
        time.sleep(FOR_EVER)  # the fault under test


class SleepsInTick(Scribe):
    """Blocks the loop in C."""

    def tick(self, timestamp: float) -> None:
        super().tick(timestamp)
        if first_time(self.path):
            time.sleep(FOR_EVER)  # the fault under test


class SpinsInTick(Scribe):
    """Blocks the loop in Python."""

    def tick(self, timestamp: float) -> None:
        super().tick(timestamp)
        if first_time(self.path):
            while True:
                pass


class SleepsInCheck(Network):
    """Blocks the loop in its check."""

    async def check_network(self) -> NetworkStatus:
        if first_time(self.path):
            time.sleep(FOR_EVER)  # noqa: ASYNC251 – the fault under test
        return await super().check_network()


class SleepsInStart(Network):
    """Blocks the loop while it connects."""

    async def start_network(self) -> None:
        if first_time(self.path):
            time.sleep(FOR_EVER)  # noqa: ASYNC251 – the fault under test
        await super().start_network()


class WillNotBeCancelled(Network):
    """Its check neither returns nor lets itself be cancelled; it notes its ticks."""

    ticks_while_disconnected = True
    check_network_timeout = 0.5

    def tick(self, timestamp: float) -> None:
        self.note(f"{timestamp!r} {time.time()!r}")

    async def check_network(self) -> NetworkStatus:
        if not first_time(self.path):
            return NetworkStatus.CONNECTED
        while True:
            try:
                await asyncio.sleep(FOR_EVER)  # the fault under test
            except asyncio.CancelledError:
                continue

    async def start_network(self) -> None:
        """Nothing to note between the ticks."""

    async def stop_network(self) -> None:
        """Nothing to note between the ticks."""


class HangsInStop(Network):
    """Does not take its connection down."""

    stop_network_timeout = FOR_EVER

    async def stop_network(self) -> None:
        self.note("stop begun")
        await asyncio.sleep(FOR_EVER)  # the fault under test


class BlocksWithChildren(Scribe):
    """Starts a child, and one in a session of its own, then blocks the loop."""

    def tick(self, timestamp: float) -> None:
        if first_time(self.path):
            for new_session in (False, True):
                child = subprocess.Popen(["sleep", str(FOR_EVER)], start_new_session=new_session)
                self.note(str(child.pid))
            time.sleep(FOR_EVER)  # the fault under test


class CannotBeLoaded(TickProcessor):
    """Can be packed by its owner, but not loaded by a worker."""

    def __setstate__(self, state: object) -> None:
        raise LookupError("no such venue")
