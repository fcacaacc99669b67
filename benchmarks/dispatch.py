"""What a tick costs inside a worker, from the tick that has been decoded to the next one.

In one process, without sockets: the dispatcher of a worker is given a batch of ticks, with its
account, statistics and timeout; the cost is that per tick.

Reference: a loop that awaits a coroutine function that does the same, and nothing else.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial

from benchmarks.report import OURS, Result, Sample
from benchmarks.rounds import QUICK_REPEATS, REPEATS, Rounds, Runs
from chronopype_mp import TickProcessor
from chronopype_mp.core.boot import TickRules
from chronopype_mp.core.state import TickRecorder
from chronopype_mp.worker.dispatch import TickDispatcher

__all__ = ["measure"]

TICKS = 100_000

BARE = "bare await loop"

UNITS = {"cost per tick": "ns"}


class Awaits(TickProcessor):
    """Has an ``async_tick`` that does not suspend."""

    async def async_tick(self, timestamp: float) -> None:
        """Do nothing."""


class Suspends(TickProcessor):
    """Has an ``async_tick`` that suspends once."""

    async def async_tick(self, timestamp: float) -> None:
        """Let the event loop turn."""
        await asyncio.sleep(0)


CASES: dict[str, type[TickProcessor]] = {
    "tick": TickProcessor,
    "async_tick that does not suspend": Awaits,
    "async_tick that suspends": Suspends,
}


async def _ours(kind: type[TickProcessor], timestamps: list[float]) -> float:
    rules = TickRules(processor_timeout=1.0, max_retries=3, stats_window_size=100, every_tick=True)
    recorder = TickRecorder(rules.stats_window_size, time.time)
    dispatcher = TickDispatcher(kind(), rules, recorder, _fail)
    task = asyncio.create_task(dispatcher.run())
    await asyncio.sleep(0)
    began = time.perf_counter_ns()
    dispatcher.offer(1, timestamps)
    await dispatcher.settle()
    taken = time.perf_counter_ns() - began
    task.cancel()
    await asyncio.wait({task})
    assert recorder.counters.success_count == len(timestamps)
    return taken / len(timestamps)


async def _bare(kind: type[TickProcessor], timestamps: list[float]) -> float:
    hook = kind().async_tick
    began = time.perf_counter_ns()
    for timestamp in timestamps:
        await hook(timestamp)
    return (time.perf_counter_ns() - began) / len(timestamps)


def _fail(error: Exception, printed: str, timestamp: float, timeout: bool) -> None:
    raise error


def _run_ours(kind: type[TickProcessor], timestamps: list[float]) -> Sample:
    return {"cost per tick": asyncio.run(_ours(kind, timestamps))}


def _run_bare(kind: type[TickProcessor], timestamps: list[float]) -> Sample:
    return {"cost per tick": asyncio.run(_bare(kind, timestamps))}


def measure(quick: bool) -> Result:
    """Return the rows."""
    timestamps = [float(number) for number in range(1000 if quick else TICKS)]
    runs: Runs = {}
    for case, kind in CASES.items():
        runs[case, OURS] = partial(_run_ours, kind, timestamps)
        runs[case, BARE] = partial(_run_bare, kind, timestamps)
    return Rounds(runs, QUICK_REPEATS if quick else REPEATS).result(UNITS)
