"""The effect of a faulty worker on four healthy workers.

The healthy workers and the victim share a clock at 50 Hz for 6 s. After 1 s the victim has one of
these faults:

- It sleeps, computes or holds the GIL for 3 s.
- It is stopped by SIGSTOP. That is detected after 1 s; the process is killed and replaced.
- It crashes with a segmentation fault whenever it is READY, with a backoff of 0.2 s.

The figures of the four healthy workers are:

- largest gap: the longest time between two consecutive ticks of a worker, the worst of the four
- p99: over all ticks, the time from the deadline until the tick, or a later one in its place, was
  entered. Ticks that were dropped or not published therefore count as late.

The reference is the same run without a fault, in the same rounds. For the victim that computes
there is a second reference: no worker has a fault, but an unrelated process computes for the same
time. One core less makes ticks later, no matter which process uses it. The peer is chronopype with
five processors in one process, for the faults that do not end that process.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from benchmarks.bare import warm_up
from benchmarks.clock import make_clock, ticking
from benchmarks.measures import MeasurementError, latencies, percentiles
from benchmarks.probes import Arrivals, Probe
from benchmarks.report import OURS, Result, Sample, rows
from benchmarks.rounds import QUICK_REPEATS, Rounds, Runs, peer
from chronopype_mp import (
    BackoffPolicy,
    RealtimeClock,
    RestartBudget,
    Supervision,
    TickProcessor,
    WorkerError,
    WorkerHandle,
)
from chronopype_mp.events import WorkerReady
from chronopype_mp.testing import faults

__all__ = ["measure"]

REPEATS = 10
"""Twice as many as in other benchmarks. The p99 of a run is about the twelfth-latest of 1,200
ticks, and on a shared machine the kernel's own work delays about that many."""

TICK_SIZE = 0.02
HEALTHY = 4

PEER = "chronopype in process"

UNITS = {"largest gap": "ms", "p99": "ms"}


class Timing(NamedTuple):
    """Seconds before the fault, during the fault, and in total."""

    before: float
    held: float
    all: float


FULL, QUICK = Timing(1.0, 3.0, 6.0), Timing(0.05, 0.1, 0.3)


def _crash_in_a_loop(clock: RealtimeClock, victim: WorkerHandle) -> None:
    def crash_again(event: object) -> None:
        if isinstance(event, WorkerReady) and event.worker == victim.name:
            faults.crash(victim)

    clock.events.subscribe(crash_again)
    faults.crash(victim)


def _compute(held: float) -> subprocess.Popen[bytes]:
    # In its own session, like a worker, because the kernel distributes the cores by session.
    arguments = [sys.executable, "-c", COMPUTE, str(held)]
    return subprocess.Popen(arguments, start_new_session=True)


NO_FAULT = "no fault"
COMPUTES = "computes"
HOLDS = "holds the GIL"
STRANGER = "a stranger computes"

COMPUTE = """
import sys, time
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    pass
"""

Fault = Callable[[RealtimeClock, WorkerHandle, float], object]
"""Takes the clock, the victim and the duration of the fault in seconds."""

FAULTS: dict[str, Fault] = {
    "sleeps": lambda clock, victim, held: faults.block_loop(victim, held),
    COMPUTES: lambda clock, victim, held: faults.spin(victim, held),
    HOLDS: lambda clock, victim, held: faults.hold_gil(victim, held),
    "is stopped": lambda clock, victim, held: faults.stop(victim),
    "crashes in a loop": lambda clock, victim, held: _crash_in_a_loop(clock, victim),
}

HARMLESS: dict[str, Fault] = {
    NO_FAULT: lambda clock, victim, held: None,
    STRANGER: lambda clock, victim, held: _compute(held),
}
"""Cases without an effect on the victim."""

PEER_FAULTS = {NO_FAULT: "none", "sleeps": "sleep", COMPUTES: "spin", HOLDS: "gil"}
"""The names of the faults in the peer's program."""


async def _watch(fault: str, timing: Timing, directory: Path) -> Sample:
    policy = Supervision(
        loop_stall_timeout=1.0 if fault == "is stopped" else 10.0,
        stop_grace=1.0,
        backoff=BackoffPolicy(minimum=0.2, maximum=0.2),
        budget=RestartBudget(max_restarts=100_000),
    )
    paths = [directory / f"{number}" for number in range(HEALTHY)]
    async with make_clock(TICK_SIZE) as clock:
        victim = clock.add_processor(TickProcessor(), name="victim", supervision=policy)
        for path in paths:
            clock.add_processor(Probe(path), name=f"healthy-{path.name}")
        for handle in clock.workers:
            await handle.wait_ready()
        async with ticking(clock):
            await asyncio.sleep(5 * TICK_SIZE)
            begin = time.monotonic()
            await asyncio.sleep(timing.before)
            begun = (FAULTS | HARMLESS)[fault](clock, victim, timing.held)
            await asyncio.sleep(timing.all - timing.before)
            end = time.monotonic()
            await asyncio.sleep(5 * TICK_SIZE)
        with contextlib.suppress(WorkerError, ProcessLookupError):
            faults.resume(victim)  # otherwise leaving the clock would wait for it
    if isinstance(begun, subprocess.Popen):
        begun.wait()
    noticed = victim.statistics()
    if fault in FAULTS and not noticed.missed + noticed.lost + noticed.restarts:
        raise MeasurementError(f"the fault {fault!r} had no effect on the victim")
    return _sample([Arrivals.load(path.read_bytes()) for path in paths], begin, end)


def _sample(workers: list[list[tuple[float, float]]], begin: float, end: float) -> Sample:
    gaps, late = [], []
    numbers = range(math.ceil(begin / TICK_SIZE), math.floor(end / TICK_SIZE))
    deadlines = [(number * TICK_SIZE, number * TICK_SIZE) for number in numbers]
    for arrived in workers:
        entered = [begin, *(at for _, at in arrived if begin <= at < end), end]
        gaps += [later - sooner for sooner, later in pairwise(entered)]
        late += latencies(deadlines, arrived, end + 5 * TICK_SIZE)
    return {"largest gap": 1e3 * max(gaps), **percentiles(1e3 * each for each in late)}


def _run(fault: str, timing: Timing) -> Sample:
    # The output of a crashing worker is not of interest here.
    with (
        tempfile.TemporaryDirectory() as directory,
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        return asyncio.run(_watch(fault, timing, Path(directory)))


def measure(quick: bool) -> Result:
    """Return the rows."""
    warm_up()
    runs: Runs = {}
    timing = QUICK if quick else FULL
    for fault in (NO_FAULT, *FAULTS):
        runs[fault, OURS] = partial(_run, fault, timing)
        if fault == COMPUTES:
            runs[fault, STRANGER] = partial(_run, STRANGER, timing)
        if fault in PEER_FAULTS:
            runs[fault, PEER] = peer(
                quick,
                "chronopype_isolation",
                PEER_FAULTS[fault],
                names={"largest_gap_ms": "largest gap", "p99_ms": "p99"},
            )
    rounds = Rounds(runs, QUICK_REPEATS if quick else REPEATS)
    calm = rounds.of(NO_FAULT)
    found = rows(NO_FAULT, UNITS, calm, {NO_FAULT: calm, **rounds.others(NO_FAULT)})
    for fault in FAULTS:
        found += rows(fault, UNITS, rounds.of(fault), {NO_FAULT: calm, **rounds.others(fault)})
    return Result([row for row in found if row.subject != NO_FAULT], rounds.skipped)
