"""How late ticks are published under different loads of the owner's event loop.

Lateness is the time from a tick's deadline until the ticker thread passes it to the PUB socket. The
clock ticks one worker at 100 Hz, while the owner's loop

- is idle,
- computes for 5 ms of every 20 ms,
- is always blocked in `time.sleep`, which releases the GIL, or
- always computes, so the ticker thread waits for the GIL.

The reference is a loop of `asyncio.sleep` to the same deadlines that records when it wakes up. A
loop that never turns publishes nothing, so in the last two cases the reference is our own clock
with an idle loop. The peer is chronopype's RealtimeClock. Its lateness is that of the first
processor's tick.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable
from functools import partial

from benchmarks.bare import warm_up
from benchmarks.clock import make_clock, ticking
from benchmarks.measures import percentiles
from benchmarks.report import OURS, Result, Sample, rows
from benchmarks.rounds import QUICK_REPEATS, REPEATS, Rounds, Runs, peer
from benchmarks.stamping import StampingLauncher
from chronopype_mp import TickProcessor

__all__ = ["measure"]

TICK_SIZE = 0.01
SECONDS = 3.0
WARM_UP = 0.2

BUSY, PERIOD = 0.005, 0.02
"""Seconds. The peer's program uses the same values."""

UNITS = {"p50": "µs", "p99": "µs"}

IDLE, COMPUTING = "idle", "computing 5 of 20 ms"
BLOCKED, SPINNING = "blocked in time.sleep", "computing all the time"

Load = Callable[[float], Awaitable[None]]
"""The load of the owner's loop. Takes its duration in seconds."""


def _spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


async def _compute_now_and_then(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        _spin(BUSY)
        await asyncio.sleep(PERIOD - BUSY)


async def _block(seconds: float) -> None:
    block: Callable[[float], None] = time.sleep
    block(seconds)


async def _compute(seconds: float) -> None:
    _spin(seconds)


LOADS: dict[str, Load] = {
    IDLE: asyncio.sleep,
    COMPUTING: _compute_now_and_then,
    BLOCKED: _block,
    SPINNING: _compute,
}


async def _ours(load: Load, seconds: float) -> Sample:
    launcher = StampingLauncher()
    async with make_clock(TICK_SIZE, launcher) as clock:
        await clock.add_processor(TickProcessor()).wait_ready()
        async with ticking(clock):
            await asyncio.sleep(WARM_UP)
            begin = time.monotonic()
            await load(seconds)
            end = time.monotonic()
    return percentiles(
        1e6 * (published - deadline)
        for deadline, published in launcher.published.items()
        if begin <= deadline and published < end
    )


async def _asyncio_sleep(load: Load, seconds: float) -> Sample:
    late: list[float] = []

    async def tick() -> None:
        number = math.ceil(time.monotonic() / TICK_SIZE)
        while True:
            deadline = number * TICK_SIZE
            await asyncio.sleep(deadline - time.monotonic())
            now = time.monotonic()
            late.append(now - deadline)
            number = max(number + 1, math.ceil(now / TICK_SIZE))

    ticks = asyncio.create_task(tick())
    await load(seconds)
    ticks.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await ticks
    return percentiles(1e6 * each for each in late)


def measure(quick: bool) -> Result:
    """Return the rows."""
    seconds = 0.3 if quick else SECONDS
    warm_up()
    runs: Runs = {}
    for name, load in LOADS.items():
        runs[name, OURS] = partial(_run, _ours, load, seconds)
    for name, told in ((IDLE, "idle"), (COMPUTING, "busy")):
        runs[name, "asyncio.sleep loop"] = partial(_run, _asyncio_sleep, LOADS[name], seconds)
        runs[name, "chronopype RealtimeClock"] = peer(
            quick,
            "chronopype_jitter",
            str(TICK_SIZE),
            str(round(seconds / TICK_SIZE)),
            told,
            names={"median_us": "p50", "p99_us": "p99"},
        )
    rounds = Rounds(runs, QUICK_REPEATS if quick else REPEATS)
    found = [row for name in (IDLE, COMPUTING) for row in rounds.rows(name, UNITS)]
    for name in (BLOCKED, SPINNING):
        against_idle = rows(name, UNITS, rounds.of(name), {IDLE: rounds.of(IDLE)})
        found += [row for row in against_idle if row.case == name]
    return Result(found, rounds.skipped)


def _run(
    measured: Callable[[Load, float], Awaitable[Sample]], load: Load, seconds: float
) -> Sample:
    async def run() -> Sample:
        return await measured(load, seconds)

    return asyncio.run(run())
