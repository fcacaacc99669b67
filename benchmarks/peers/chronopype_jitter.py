"""The lateness of chronopype's ticks: chronopype_jitter.py TICK_SIZE TICKS idle|busy.

A tick's lateness is the wall-clock time when ``tick`` is entered, minus the tick's timestamp.
chronopype aligns the timestamp to a multiple of the tick size (s). With ``busy``, another coroutine
in the same loop computes for 5 ms of every 20 ms.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time

from chronopype.clocks import ClockMode, RealtimeClock
from chronopype.clocks.config import ClockConfig
from chronopype.processors.base import TickProcessor

BUSY, PERIOD = 0.005, 0.020
"""Seconds."""


class Lateness(TickProcessor):
    """Records the lateness of its ticks, s."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def tick(self, timestamp: float) -> None:
        self.seen.append(time.time() - timestamp)


async def compute_now_and_then() -> None:
    """Hold the loop for 5 ms of every 20 ms."""
    while True:
        until = time.perf_counter() + BUSY
        while time.perf_counter() < until:
            pass
        await asyncio.sleep(PERIOD - BUSY)


async def run(tick_size: float, ticks: int, busy: bool) -> list[float]:
    """Return the lateness of every tick except the first, which does not wait for a boundary."""
    other = asyncio.create_task(compute_now_and_then()) if busy else None
    processor = Lateness()
    now = time.time()
    config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=tick_size, start_time=now)
    clock = RealtimeClock(config)
    clock.add_processor(processor)
    async with clock:
        await clock.run_til(now + ticks * tick_size)
    if other is not None:
        other.cancel()
    return processor.seen[1:]


def main() -> None:
    """Print the figures."""
    seen = asyncio.run(run(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "busy"))
    figures = {
        "median_us": 1e6 * statistics.median(seen),
        "p99_us": 1e6 * statistics.quantiles(seen, n=100)[98],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
