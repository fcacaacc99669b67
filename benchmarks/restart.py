"""From the SIGKILL of a worker to READY again, against a bare start by the same forkserver.

Both are measured in turn, in one run. The bare start is a process of `multiprocess` whose target
makes the same processor and says so through a pipe: no sockets, no event loop, no supervision.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from multiprocessing.connection import Connection

import multiprocess

from benchmarks.report import Row, row
from chronopype_mp import (
    BackoffPolicy,
    ClockConfig,
    ClockMode,
    RealtimeClock,
    RestartBudget,
    Supervision,
    TickProcessor,
)
from chronopype_mp.events import WorkerReady
from chronopype_mp.testing import EventRecorder

__all__ = ["measure"]

POLICY = Supervision(
    backoff=BackoffPolicy(minimum=0.01), budget=RestartBudget(max_restarts=100_000), healthy_after=0
)
"""With ``healthy_after=0`` each restart is a first one."""


class Idle(TickProcessor):
    """Does nothing."""


def _bare(writer: Connection) -> None:
    Idle().start(0.0)
    writer.send_bytes(b"ready")


def _bare_start() -> float:
    """Return how long a bare start takes, ms."""
    context = multiprocess.get_context("forkserver")
    reader, writer = context.Pipe(duplex=False)
    began = time.perf_counter()
    process = context.Process(target=_bare, args=(writer,), daemon=True)
    process.start()
    writer.close()
    reader.recv_bytes()
    taken = time.perf_counter() - began
    process.join()
    reader.close()
    return 1000 * taken


async def _measure(repeats: int) -> tuple[list[float], list[float]]:
    ours, bare = [], []
    config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.1)
    async with RealtimeClock(config, supervision=POLICY, launcher="forkserver") as clock:
        events = EventRecorder(clock.events)
        handle = clock.add_processor(Idle(), name="victim")
        await handle.wait_ready()
        _bare_start()  # the first one is not like the others
        for number in range(repeats):
            bare.append(_bare_start())
            began = time.perf_counter()
            os.kill(handle.pid or 0, signal.SIGKILL)
            await events.wait_for(WorkerReady, worker="victim", incarnation=number + 2)
            ours.append(1000 * (time.perf_counter() - began))
    return ours, bare


def measure(quick: bool) -> list[Row]:
    """Return the rows."""
    ours, bare = asyncio.run(_measure(3 if quick else 30))
    return [
        row("SIGKILL to READY again", "first restart", "ms", ours, "bare forkserver start", bare),
        row("bare forkserver start", "start", "ms", bare, "bare forkserver start", bare),
    ]
