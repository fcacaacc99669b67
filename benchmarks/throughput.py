"""Free-running ticks through 1, 2, 8 and 32 workers, as fast as the slowest worker runs them.

Our ticks are no-ops with everything that a tick includes: encoding, the account, statistics and
progress reports. A run ends when every worker has run every tick. "lost" counts ticks that were not
run. CPU is the CPU time of all processes, including the owner's, per delivery.

The references are:

- a bare PUB socket that sends a frame of the same size repeatedly, to processes that block in
  ``recv`` and count
- the same with zmq.asyncio in the processes
- one `multiprocess` pipe per process, written in turn

The peers are actors of Ray and of dask.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

import multiprocess

from benchmarks.bare import BareWorkers, start_process, warm_up
from benchmarks.counters import COUNTED, asyncio_counter, blocking_counter, pipe_counter
from benchmarks.free_running import FreeRunningClock
from benchmarks.measures import cpu_time
from benchmarks.readers import STOP, Reader
from benchmarks.report import OURS, Result, Sample
from benchmarks.rounds import QUICK_REPEATS, REPEATS, Rounds, Runs, peer
from chronopype_mp import ClockConfig, ClockMode, TickProcessor
from chronopype_mp.core.codec import encode_tick
from chronopype_mp.core.messages import Tick

__all__ = ["measure"]

WORKERS = (1, 2, 8, 32)
DELIVERIES = 800_000
"""Deliveries per run over all workers. They take about a second."""

SLOWER = {"zmq.asyncio": 10, "multiprocess pipes": 4}
"""The factor by which a reference gets fewer deliveries, so that it takes about as long."""

WARM_UP = 1000
"""Ticks."""

FRAME = encode_tick(Tick(100_000, 100_000.0))

UNITS = {"ticks": "1/s", "deliveries": "1/s", "CPU per delivery": "µs", "lost": "deliveries"}

PEERS = {"Ray actors": ("ray_throughput", 4000), "dask actors": ("dask_throughput", 1000)}
"""The peers' programs and their numbers of ticks."""


def _sample(workers: int, ticks: int, seconds: float, cpu: float, arrived: int) -> Sample:
    deliveries = ticks * workers
    return {
        "ticks": ticks / seconds,
        "deliveries": deliveries / seconds,
        "CPU per delivery": 1e6 * cpu / deliveries,
        "lost": float(deliveries - arrived),
    }


async def _ours(workers: int, ticks: int) -> Sample:
    config = ClockConfig(clock_mode=ClockMode.BACKTEST)
    async with FreeRunningClock(config, launcher="forkserver") as clock:
        handles = [clock.add_processor(TickProcessor()) for _ in range(workers)]
        for handle in handles:
            await handle.wait_ready()
        pids = [handle.pid for handle in handles if handle.pid is not None]
        await clock.run_til(WARM_UP)
        cpu, began = time.process_time() + sum(map(cpu_time, pids)), time.monotonic()
        await clock.run_til(WARM_UP + ticks)
        seconds = time.monotonic() - began
        cpu = time.process_time() + sum(map(cpu_time, pids)) - cpu
    run = sum(handle.statistics().run for handle in handles)
    return _sample(workers, ticks, seconds, cpu, run - WARM_UP * workers)


def _run_ours(workers: int, ticks: int) -> Sample:
    return asyncio.run(_ours(workers, ticks))


def _run_bare(counter: Reader, workers: int, ticks: int) -> Sample:
    with BareWorkers(counter, workers, queued=0) as bare:
        cpu, began = time.process_time(), time.monotonic()
        counted = [COUNTED.unpack(answer) for answer in bare.flood(FRAME, ticks)]
        seconds = time.monotonic() - began
        cpu = time.process_time() - cpu
    return _sample(
        workers, ticks, seconds, cpu + sum(c for _, c in counted), sum(n for n, _ in counted)
    )


def _run_pipes(workers: int, ticks: int) -> Sample:
    pipe = partial(multiprocess.get_context("forkserver").Pipe, duplex=False)
    frames, answers = [pipe() for _ in range(workers)], [pipe() for _ in range(workers)]
    processes = []
    for (reader, _), (_, writer) in zip(frames, answers, strict=True):
        processes.append(start_process(pipe_counter, reader, writer))
        reader.close()
        writer.close()
    for answer, _ in answers:
        answer.recv_bytes()
    sends: list[Callable[[bytes], None]] = [writer.send_bytes for _, writer in frames]
    cpu, began = time.process_time(), time.monotonic()
    for _ in range(ticks):
        for send in sends:
            send(FRAME)
    for send in sends:
        send(STOP)
    counted = [COUNTED.unpack(answer.recv_bytes()) for answer, _ in answers]
    seconds = time.monotonic() - began
    cpu = time.process_time() - cpu
    for (_, writer), (answer, _), process in zip(frames, answers, processes, strict=True):
        writer.close()
        answer.close()
        process.join()
        process.close()
    return _sample(
        workers, ticks, seconds, cpu + sum(c for _, c in counted), sum(n for n, _ in counted)
    )


def measure(quick: bool) -> Result:
    """Return the rows."""
    warm_up()
    runs: Runs = {}
    for workers in (1, 2) if quick else WORKERS:
        case = f"{workers} worker{'s' if workers > 1 else ''}"
        ticks = (20_000 if quick else DELIVERIES) // workers
        references: dict[str, Callable[[int, int], Sample]] = {
            "bare pyzmq": partial(_run_bare, blocking_counter),
            "zmq.asyncio": partial(_run_bare, asyncio_counter),
            "multiprocess pipes": _run_pipes,
        }
        runs[case, OURS] = partial(_run_ours, workers, ticks)
        for name, run in references.items():
            runs[case, name] = partial(run, workers, ticks // SLOWER.get(name, 1))
        for name, (program, peer_ticks) in PEERS.items():
            runs[case, name] = peer(
                quick,
                program,
                str(workers),
                str(peer_ticks // workers),
                names={"ticks_per_s": "ticks", "deliveries_per_s": "deliveries"},
            )
    return Rounds(runs, QUICK_REPEATS if quick else REPEATS).result(UNITS)
