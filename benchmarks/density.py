"""Start time, memory, missed ticks and coordinator CPU, for 10 to 1000 workers at 1 and 10 Hz.

All workers are started concurrently, and ticked once all are ready. The figures are:

- start: time from the first start until all workers are ready, divided by their number
- USS and PSS of the median worker, read after the ticks
- ticks missed: percentage of the due ticks
- coordinator CPU: CPU time of the owner's process while it ticks, per worker per second

The reference is the same number of bare workers. A bare worker is a process from the same
forkserver with the same preloaded modules. It has only what a worker needs on the wire: an asyncio
loop, a SUB socket for ticks and a PUSH socket back. It has no processor and no second thread, and
sends no reports while it runs. The reference's coordinator CPU is therefore the cost of publishing
alone.

Our spawn launcher and Ray's actors are measured only with the smallest number of workers. A few
spawned workers take a second of CPU, and each Ray actor takes 40 MB.
"""

from __future__ import annotations

import asyncio
import resource
import time
from functools import partial

import psutil

from benchmarks.bare import BareWorkers, warm_up
from benchmarks.clock import make_clock, ticking
from benchmarks.measures import footprint
from benchmarks.readers import asyncio_reader
from benchmarks.report import OURS, Result, Sample
from benchmarks.rounds import QUICK_REPEATS, REPEATS, Rounds, Runs, SkipError, peer
from chronopype_mp import Supervision, TickProcessor

__all__ = ["measure"]

COUNTS = (10, 100, 500, 1000)
RATES = {1: 4.0, 10: 3.0}
"""Ticks per second, and the seconds to run at each rate."""

POLICY = Supervision(start_timeout=600.0, loop_stall_timeout=60.0, stop_grace=60.0)
"""All workers start and stop at the same time, so the last one waits for all the others."""

FDS, MEMORY = 10, 16e6
"""The needs of one worker at most: file descriptors of the owner, and bytes of memory."""

UNITS = {
    "start": "ms",
    "USS": "MB",
    "PSS": "MB",
    "ticks missed": "%",
    "coordinator CPU": "µs/s",
}


async def _ours(count: int, rate: int, seconds: float, launcher: str) -> Sample:
    async with make_clock(1 / rate, launcher, POLICY) as clock:
        began = time.monotonic()
        handles = [clock.add_processor(TickProcessor(), name=f"w{n}") for n in range(count)]
        for handle in handles:
            await handle.wait_ready()
        start = time.monotonic() - began
        async with ticking(clock):
            await asyncio.sleep(1 / rate)
            before, began = time.process_time(), time.monotonic()
            await asyncio.sleep(seconds)
            cpu = (time.process_time() - before) / (time.monotonic() - began)
        memory = footprint([handle.pid for handle in handles if handle.pid is not None])
        skipped = clock.position.skipped
    accounts = [handle.statistics() for handle in handles]
    due = sum(each.published for each in accounts) + skipped * count
    return {
        **_sample(count, start, cpu, due, sum(each.run for each in accounts)),
        **memory,
    }


def _run_ours(count: int, rate: int, seconds: float, launcher: str = "forkserver") -> Sample:
    _make_room(count)
    return asyncio.run(_ours(count, rate, seconds, launcher))


def _run_bare(count: int, rate: int, seconds: float) -> Sample:
    _make_room(count)
    with BareWorkers(asyncio_reader, count) as workers:
        workers.pace(1 / rate, 1 / rate)
        before, began = time.process_time(), time.monotonic()
        workers.pace(1 / rate, seconds)
        cpu = (time.process_time() - before) / (time.monotonic() - began)
        memory = footprint(workers.pids)
        run = sum(len(arrived) for arrived in workers.stop())
    due = len(workers.published) * count
    return {**_sample(count, workers.start, cpu, due, run), **memory}


def _sample(count: int, start: float, cpu: float, due: int, run: int) -> Sample:
    return {
        "start": 1e3 * start / count,
        "ticks missed": 100.0 * (due - run) / due,
        "coordinator CPU": 1e6 * cpu / count,
    }


def _make_room(count: int) -> None:
    """Raise this process's limit of file descriptors. Skip a case that exceeds the machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 256 + FDS * count
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise SkipError(
            f"{count} workers need about {needed} file descriptors, but the limit is {hard}"
        )
    if soft != resource.RLIM_INFINITY and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    if psutil.virtual_memory().available < MEMORY * count:
        raise SkipError(
            f"{count} workers may need {MEMORY * count / 1e9:.0f} GB, more than is available"
        )


def measure(quick: bool) -> Result:
    """Return the rows."""
    counts = (5,) if quick else COUNTS
    rates = {10: 0.3} if quick else RATES
    warm_up()
    runs: Runs = {}
    for count in counts:
        for rate, seconds in rates.items():
            case = f"{count} workers at {rate} Hz"
            runs[case, OURS] = partial(_run_ours, count, rate, seconds)
            runs[case, "bare forkserver worker"] = partial(_run_bare, count, rate, seconds)
    least, rate = counts[0], next(iter(rates))
    case = f"{least} workers at {rate} Hz"
    runs[case, "spawn launcher"] = partial(_run_ours, least, rate, rates[rate], "spawn")
    runs[case, "Ray actor"] = peer(
        quick, "ray_density", str(least), names={"start_ms": "start", "uss_mb": "USS"}
    )
    return Rounds(runs, QUICK_REPEATS if quick else REPEATS).result(UNITS)
