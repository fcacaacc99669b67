"""The cost of a tick inside a worker, from one decoded tick to the next.

The benchmark runs in one process without sockets. A worker's dispatcher gets frames of ticks and
runs them with its account, statistics and timeout. A frame has 100 ticks, as in a free run, or one
with a deadline, as from a paced clock.

The reference is a loop that only awaits the processor's ``async_tick``. The default ``async_tick``
calls the plain ``tick``.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import NamedTuple

from benchmarks.report import OURS, Result, Sample
from benchmarks.rounds import QUICK_REPEATS, REPEATS, Rounds, Runs
from chronopype_mp import TickProcessor
from chronopype_mp.coordinator.ticker import BURST
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


class Case(NamedTuple):
    """The type of the processor, and the number of ticks in a frame."""

    kind: type[TickProcessor]
    frame: int


CASES = {
    "tick": Case(TickProcessor, BURST),
    "tick that comes alone": Case(TickProcessor, 1),
    "async_tick that does not suspend": Case(Awaits, BURST),
    "async_tick that suspends": Case(Suspends, BURST),
}


async def _ours(case: Case, timestamps: list[float]) -> float:
    starts = range(0, len(timestamps), case.frame)
    frames = [(start + 1, timestamps[start : start + case.frame]) for start in starts]
    rules = TickRules(processor_timeout=1.0, max_retries=3, stats_window_size=100, every_tick=True)
    is_paced = case.frame == 1
    recorder = TickRecorder(rules.stats_window_size, time.time, 0.0 if is_paced else None)
    dispatcher = TickDispatcher(case.kind(), rules, recorder, _fail)
    task = asyncio.create_task(dispatcher.run())
    await asyncio.sleep(0)
    began = time.perf_counter_ns()
    for seq, frame in frames:
        dispatcher.offer(seq, frame)
    await dispatcher.settle()
    taken = time.perf_counter_ns() - began
    task.cancel()
    await asyncio.wait({task})
    assert recorder.counters.success_count == len(timestamps)
    return taken / len(timestamps)


async def _bare(case: Case, timestamps: list[float]) -> float:
    hook = case.kind().async_tick
    began = time.perf_counter_ns()
    for timestamp in timestamps:
        await hook(timestamp)
    return (time.perf_counter_ns() - began) / len(timestamps)


def _fail(error: BaseException, printed: str, timestamp: float, timeout: bool) -> None:
    raise error


def _run_ours(case: Case, timestamps: list[float]) -> Sample:
    return {"cost per tick": asyncio.run(_ours(case, timestamps))}


def _run_bare(case: Case, timestamps: list[float]) -> Sample:
    return {"cost per tick": asyncio.run(_bare(case, timestamps))}


def measure(quick: bool) -> Result:
    """Return the rows."""
    timestamps = [float(number) for number in range(1000 if quick else TICKS)]
    runs: Runs = {}
    for name, case in CASES.items():
        runs[name, OURS] = partial(_run_ours, case, timestamps)
        runs[name, BARE] = partial(_run_bare, case, timestamps)
    return Rounds(runs, QUICK_REPEATS if quick else REPEATS).result(UNITS)
