"""The time from publishing a tick to its hook, and the CPU time per tick in the worker.

One worker is paced at 10, 100 and 500 Hz. The publisher records the time before it sends, and the
consumer records the time when it enters the tick. Both read CLOCK_MONOTONIC, which is the same in
all processes. CPU is the CPU time of the whole worker process, including its beats and its guard,
per tick.

There are three references:

- a bare process that reads a SUB socket in an asyncio loop through the socket's file descriptor
- a bare process that blocks in ``recv``
- our own worker with uvloop

The bare processes are fed by a PUB socket paced on the same grid. They record what our worker
records.
"""

from __future__ import annotations

import asyncio
import importlib.util
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.bare import BareWorkers, warm_up
from benchmarks.clock import make_clock, ticking
from benchmarks.measures import cpu_time, latencies, percentiles
from benchmarks.probes import Arrivals, Probe
from benchmarks.readers import Reader, asyncio_reader, blocking_reader
from benchmarks.report import OURS, Result, Sample
from benchmarks.rounds import QUICK_REPEATS, REPEATS, Rounds, Runs, SkipError
from benchmarks.stamping import StampingLauncher

__all__ = ["measure"]

RATES = {10: 10.2, 100: 4.0, 500: 3.0}
"""Ticks per second, and seconds to run: enough for p99 at 10 Hz and p99.9 at 500 Hz."""

WARM_UP = 0.3
SETTLING = 0.1
"""Seconds of ticks before and after the measured stretch."""

UNITS = {"p50": "µs", "p99": "µs", "p99.9": "µs", "CPU per tick": "µs"}

READERS = {"bare asyncio reader": asyncio_reader, "blocking reader": blocking_reader}


class Stretch(NamedTuple):
    """The measured stretch: begin and end on the monotonic clock, and the worker's CPU time."""

    begin: float
    end: float
    cpu: float

    def sample(self, published: dict[float, float], arrived: list[tuple[float, float]]) -> Sample:
        """Return the figures for the ticks that were published in the stretch."""
        due = [each for each in published.items() if self.begin <= each[1] < self.end]
        found = latencies(due, arrived, self.end + SETTLING)
        sample = percentiles(1e6 * latency for latency in found)
        return {**sample, "CPU per tick": 1e6 * self.cpu / len(due)}


async def _ours(
    rate: int, seconds: float, path: Path, launcher: StampingLauncher, event_loop: str
) -> Stretch:
    async with make_clock(1 / rate, launcher, event_loop=event_loop) as clock:
        handle = clock.add_processor(Probe(path))
        await handle.wait_ready()
        pid = handle.pid
        assert pid is not None
        async with ticking(clock):
            await asyncio.sleep(WARM_UP)
            begin, before = time.monotonic(), cpu_time(pid)
            await asyncio.sleep(seconds)
            stretch = Stretch(begin, time.monotonic(), cpu_time(pid) - before)
            await asyncio.sleep(SETTLING)
    return stretch


def _run_ours(rate: int, seconds: float, event_loop: str = "asyncio") -> Sample:
    if importlib.util.find_spec(event_loop) is None:
        raise SkipError(f"pip install 'chronopype-mp[{event_loop}]'")
    launcher = StampingLauncher()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "arrivals")
        stretch = asyncio.run(_ours(rate, seconds, path, launcher, event_loop))
        return stretch.sample(launcher.published, Arrivals.load(path.read_bytes()))


def _run_bare(reader: Reader, rate: int, seconds: float) -> Sample:
    with BareWorkers(reader, 1) as workers:
        (pid,) = workers.pids
        workers.pace(1 / rate, WARM_UP)
        begin, before = time.monotonic(), cpu_time(pid)
        workers.pace(1 / rate, seconds)
        stretch = Stretch(begin, time.monotonic(), cpu_time(pid) - before)
        workers.pace(1 / rate, SETTLING)
        (arrived,) = workers.stop()
    return stretch.sample(workers.published, arrived)


def measure(quick: bool) -> Result:
    """Return the rows."""
    rates = {500: 0.3} if quick else RATES
    warm_up()
    runs: Runs = {}
    for rate, seconds in rates.items():
        runs[f"{rate} Hz", OURS] = partial(_run_ours, rate, seconds)
        for name, reader in READERS.items():
            runs[f"{rate} Hz", name] = partial(_run_bare, reader, rate, seconds)
        runs[f"{rate} Hz", "our worker with uvloop"] = partial(_run_ours, rate, seconds, "uvloop")
    return Rounds(runs, QUICK_REPEATS if quick else REPEATS).result(UNITS)
