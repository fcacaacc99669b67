"""The time from the SIGKILL of a worker to its detection, to READY and to the first tick.

A clock at 1 kHz has one worker, which is killed several times. A sample is the median of the kills.
The worker itself records when its first tick is entered, so that figure contains the wait for the
next tick, 0.5 ms on average. There are two cases:

- The worker is killed after it has run for a while, when the launcher has a spare process.
- It is killed again at once, when there is no spare process.

The reference is a bare start by the same forkserver: a process of `multiprocess` that creates the
same processor, starts it and reports through a pipe. It has no sockets, no event loop and no
supervision, and no death has to be detected first. The peers are Ray (``max_restarts``), circus and
supervisord, from the SIGKILL until the replacement answers.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import statistics
import tempfile
import time
from functools import partial

import multiprocess

from benchmarks.bare import start_process, warm_up
from benchmarks.clock import make_clock, ticking
from benchmarks.probes import STAMP, FirstTick
from benchmarks.readers import start_and_say_so
from benchmarks.report import OURS, Result, Sample, rows
from benchmarks.rounds import QUICK_REPEATS, REPEATS, Rounds, Runs, peer
from chronopype_mp import BackoffPolicy, RestartBudget, Supervision
from chronopype_mp.events import Event, WorkerDied, WorkerReady
from chronopype_mp.launchers.process import STANDBY_AFTER
from chronopype_mp.testing import EventRecorder

__all__ = ["measure"]

TICK_SIZE = 0.001
KILLS = 6

LIVES = {"SIGKILL": 2 * STANDBY_AFTER, "SIGKILL again at once": 0.0}
"""The cases, with the seconds that each worker runs before it is killed."""

POLICY = Supervision(
    backoff=BackoffPolicy(minimum=0.01), budget=RestartBudget(max_restarts=100_000), healthy_after=0
)
"""With ``healthy_after=0`` each restart counts as the first one, which is immediate."""

BARE = "bare forkserver start"
PEERS = {
    "Ray max_restarts": "ray_restart",
    "circus": "circus_restart",
    "supervisord": "supervisord_restart",
}

PATIENCE = 30.0
"""Seconds to wait for a restart."""

UNITS = {"time": "ms"}
DETECTED, READY, FIRST_TICK = "detected", "READY", "first tick"


def _bare(starts: int) -> Sample:
    return {"time": statistics.median(_bare_start() for _ in range(starts))}


def _bare_start() -> float:
    """Return the duration of a bare start, ms."""
    reader, writer = multiprocess.get_context("forkserver").Pipe(duplex=False)
    began = time.monotonic()
    process = start_process(start_and_say_so, writer)
    writer.close()
    reader.recv_bytes()
    taken = time.monotonic() - began
    process.join()
    reader.close()
    return 1e3 * taken


async def _ours(kills: int, life: float, ticks: socket.socket) -> Sample:
    loop = asyncio.get_running_loop()
    seen: dict[type[Event], float] = {}
    found: dict[str, list[float]] = {DETECTED: [], READY: [], FIRST_TICK: []}
    async with make_clock(TICK_SIZE, supervision=POLICY) as clock:
        clock.events.subscribe(lambda event: seen.update({type(event): time.monotonic()}))
        events = EventRecorder(clock.events)
        handle = clock.add_processor(FirstTick(ticks.getsockname()))
        await handle.wait_ready()
        async with ticking(clock), asyncio.timeout(kills * PATIENCE):
            await loop.sock_recv(ticks, STAMP.size)
            for number in range(kills):
                await asyncio.sleep(life)
                began = time.monotonic()
                os.kill(handle.pid or 0, signal.SIGKILL)
                (first,) = STAMP.unpack(await loop.sock_recv(ticks, STAMP.size))
                # The worker's READY report may still be in transit.
                await events.wait_for(WorkerReady, incarnation=number + 2)
                found[DETECTED].append(seen[WorkerDied] - began)
                found[READY].append(seen[WorkerReady] - began)
                found[FIRST_TICK].append(first - began)
    return {name: 1e3 * statistics.median(times) for name, times in found.items()}


def _run_ours(kills: int, life: float) -> Sample:
    with (
        tempfile.TemporaryDirectory() as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ticks,
    ):
        ticks.setblocking(False)
        ticks.bind(os.path.join(directory, "ticks"))
        return asyncio.run(_ours(kills, life, ticks))


def measure(quick: bool) -> Result:
    """Return the rows."""
    warm_up()
    kills = 2 if quick else KILLS
    runs: Runs = {}
    for case, life in LIVES.items():
        runs[case, OURS] = partial(_run_ours, kills, life)
        runs[case, BARE] = partial(_bare, kills)
    first = next(iter(LIVES))
    for name, program in PEERS.items():
        runs[first, name] = peer(quick, program, names={"restart_ms": "time"})
    rounds = Rounds(runs, QUICK_REPEATS if quick else REPEATS)
    found = []
    for case in LIVES:
        for stage in (DETECTED, READY, FIRST_TICK):
            ours = [{"time": sample[stage]} for sample in rounds.of(case)]
            found += rows(f"{case} to {stage}", UNITS, ours, rounds.others(case))
    # The others have only one figure. It is reported once, with our total time.
    whole = [row for row in found if row.subject == OURS or f"to {FIRST_TICK}" in row.case]
    return Result(whole, rounds.skipped)
