"""The effect of a faulty processor on its neighbours in chronopype.

chronopype_isolation.py none|sleep|spin|gil|crash

Four healthy processors and a victim share a clock with a tick size of 20 ms for 6 s. In its tick
after one second the victim sleeps for 3 s, computes for 3 s, holds the GIL for 3 s, or calls
``os._exit``. That call ends the whole process, so the clock runs in a child process.

- ``largest_gap_ms`` is the longest time between two ticks of a healthy processor.
- ``p99_ms`` is the p99 of the lateness of all boundaries of the run. Lateness is the time from the
  boundary until a healthy processor entered a tick with this timestamp or a later one. A boundary
  that the clock skipped therefore counts as late.
- ``survived`` is 1 if the process survived. If not, there are no other figures.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from multiprocessing.connection import Connection

from chronopype.clocks import ClockMode, RealtimeClock
from chronopype.clocks.config import ClockConfig
from chronopype.processors.base import TickProcessor

TICK = 0.02
RUN = 6.0
BEFORE = 1.0
HELD = 3.0
"""Seconds, all of them."""

HEALTHY = 4


def spin() -> None:
    """Compute for 3 s."""
    until = time.perf_counter() + HELD
    while time.perf_counter() < until:
        pass


FAULTS: dict[str, Callable[[], None]] = {
    "none": lambda: None,
    "sleep": lambda: time.sleep(HELD),
    "spin": spin,
    "gil": lambda: ctypes.PyDLL(None).usleep(int(1e6 * HELD)),
    "crash": lambda: os._exit(1),
}


class Healthy(TickProcessor):
    """Records the timestamp and the time of entry of each tick."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[float, float]] = []

    def tick(self, timestamp: float) -> None:
        self.seen.append((timestamp, time.time()))


class Victim(TickProcessor):
    """Performs the fault once."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self._act = FAULTS[fault]
        self._due = time.time() + BEFORE

    def tick(self, timestamp: float) -> None:
        if timestamp >= self._due:
            self._due = float("inf")
            self._act()


async def run(fault: str) -> list[Healthy]:
    """Run the clock and return the healthy processors. A failure in a tick is raised."""
    now = time.time()
    clock = RealtimeClock(
        ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=TICK, start_time=now)
    )
    healthy = [Healthy() for _ in range(HEALTHY)]
    # The victim is in the middle: two processors before it and two after it.
    for processor in [*healthy[:2], Victim(fault), *healthy[2:]]:
        clock.add_processor(processor)
    async with clock:
        await clock.run_til(now + RUN)
    return healthy


def latenesses(seen: list[tuple[float, float]]) -> list[float]:
    """Return the lateness of every boundary after the first tick, s, including skipped ones."""
    found: list[float] = []
    for (before, _), (timestamp, entered) in pairwise(seen):
        skipped = round((timestamp - before) / TICK)
        found += [entered - (timestamp - TICK * back) for back in range(skipped)]
    return found


def report(writer: Connection, fault: str) -> None:
    """Send the figures. This is the child's main function."""
    healthy = asyncio.run(run(fault))
    gaps = [later[1] - sooner[1] for one in healthy for sooner, later in pairwise(one.seen)]
    late = [lateness for one in healthy for lateness in latenesses(one.seen)]
    writer.send(
        {
            "survived": 1.0,
            "largest_gap_ms": 1e3 * max(gaps),
            "p99_ms": 1e3 * statistics.quantiles(late, n=100)[98],
        }
    )


def main() -> None:
    """Print the figures."""
    fault = sys.argv[1]
    reader, writer = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("spawn").Process(target=report, args=(writer, fault))
    child.start()
    writer.close()
    try:
        figures = reader.recv()
    except EOFError:
        figures = {"survived": 0.0}
    child.join()
    if child.exitcode != 0 and fault != "crash":
        sys.exit(f"the clock failed with {fault}, status {child.exitcode}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
