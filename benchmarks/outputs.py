"""Outputs from 1 and 8 workers to the owner, of 100 B and 10 kB, and ticks beside a flood of them.

Rates are measured with workers that emit as fast as the owner reads, and lose nothing. Latency is
the time from ``emit`` to the reader, at 1000 outputs per second. CPU is the CPU time of all
processes, including the owner's, per output.

The reference is one bare PUSH socket in each of as many processes, and a PULL socket in a blocking
loop. It sends each message on its own, and neither decodes nor counts.

Ticks are those of four workers at 100 Hz beside one that emits 100,000 outputs of 100 B per second.
Their lateness is the time from the deadline to the hook. The reference is the same without outputs.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from functools import partial
from pathlib import Path

import multiprocess
import zmq

from benchmarks.bare import start_process, warm_up
from benchmarks.clock import ticking
from benchmarks.emitting import WALL, Floods, Paced, bare_sender
from benchmarks.measures import cpu_time, percentiles
from benchmarks.probes import Arrivals, Probe
from benchmarks.report import OURS, Result, Sample, rows
from benchmarks.rounds import QUICK_REPEATS, REPEATS, Rounds, Runs
from chronopype_mp import ClockConfig, ClockMode, OutputPolicy, RealtimeClock

__all__ = ["measure"]

WORKERS = (1, 8)
SIZES = {"100 B": 100, "10 kB": 10_000}
BYTES = 40_000_000
"""Bytes of one run for the rate; and at most `MOST` outputs."""

MOST = 400_000
PACED = 2000

FLOOD = 100_000
"""Outputs per second beside which others tick."""

NEIGHBOURS = 4
TICK_SIZE = 0.01
SECONDS = 5.0

RATES = {"outputs": "1/s", "CPU per output": "µs"}
LATENCIES = {"p50": "µs", "p99": "µs"}

ALONE, BESIDE = "ticks without a flood", "ticks beside a flood"


def _clock(when_full: str) -> RealtimeClock:
    config = ClockConfig(
        clock_mode=ClockMode.REALTIME,
        tick_size=TICK_SIZE,
        start_time=asyncio.get_running_loop().time(),
        outputs=OutputPolicy(when_full=when_full),  # type: ignore[arg-type]
    )
    return RealtimeClock(config, launcher="forkserver")


async def _rate(workers: int, count: int, size: int) -> Sample:
    async with _clock("wait") as clock, clock.outputs("flood") as reader:
        handles = [clock.add_processor(Floods(count, size)) for _ in range(workers)]
        for handle in handles:
            await handle.wait_ready()
        pids = [handle.pid for handle in handles if handle.pid is not None]
        async with ticking(clock):
            await anext(reader)
            cpu, began = time.process_time() + sum(map(cpu_time, pids)), time.monotonic()
            for _ in range(workers * count - 1):
                await anext(reader)
            seconds = time.monotonic() - began
            cpu = time.process_time() + sum(map(cpu_time, pids)) - cpu
    return _sample(workers * count, seconds, cpu)


async def _latency(count: int, size: int) -> Sample:
    late: list[float] = []
    async with _clock("wait") as clock, clock.outputs("paced") as reader:
        await clock.add_processor(Paced(count, size)).wait_ready()
        async with ticking(clock):
            for _ in range(count):
                output = await anext(reader)
                late.append(time.time() - output.at)
    return percentiles(1e6 * each for each in late)


def _bare(workers: int, count: int, size: int, is_paced: bool) -> Sample:
    late: list[float] = []
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bare-"))
        context = stack.enter_context(zmq.Context())
        pull = stack.enter_context(context.socket(zmq.PULL))
        pull.bind(address := f"ipc://{directory}/up")
        pipe = partial(multiprocess.get_context("forkserver").Pipe, duplex=False)
        starts, answers = [pipe() for _ in range(workers)], [pipe() for _ in range(workers)]
        processes = [
            start_process(bare_sender, address, count, size, is_paced, go, ready)
            for (go, _), (_, ready) in zip(starts, answers, strict=True)
        ]
        for answer, _ in answers:
            answer.recv_bytes()
        for _, go in starts:
            go.send_bytes(b"go")
        pull.recv()
        cpu, began = time.process_time(), time.monotonic()
        for _ in range(workers * count - 1):
            message = pull.recv()
            if is_paced:
                late.append(time.time() - WALL.unpack_from(message)[0])
        seconds = time.monotonic() - began
        cpu = time.process_time() - cpu
        cpu += sum(WALL.unpack(answer.recv_bytes())[0] for answer, _ in answers)
        for connection in (each for pair in (*starts, *answers) for each in pair):
            connection.close()
        for process in processes:
            process.join()
            process.close()
    if is_paced:
        return percentiles(1e6 * each for each in late)
    return _sample(workers * count, seconds, cpu)


def _sample(outputs: int, seconds: float, cpu: float) -> Sample:
    return {"outputs": outputs / seconds, "CPU per output": 1e6 * cpu / outputs}


async def _ticks(seconds: float, rate: int) -> Sample:
    with tempfile.TemporaryDirectory() as directory:
        files = [Path(directory, str(number)) for number in range(NEIGHBOURS)]
        async with _clock("drop_oldest") as clock, clock.outputs() as reader:
            flood = Floods(int(2 * seconds * rate), 100, rate)
            handles = [clock.add_processor(each) for each in (flood, *map(Probe, files))]
            for handle in handles:
                await handle.wait_ready()
            async with ticking(clock):
                reading = asyncio.create_task(_read(reader))
                await asyncio.sleep(seconds)
                reading.cancel()
        return percentiles(
            1e6 * (entered - timestamp)
            for file in files
            for timestamp, entered in Arrivals.load(file.read_bytes())
        )


async def _read(reader: object) -> None:
    async for _ in reader:  # type: ignore[attr-defined]
        pass


def _run_rate(workers: int, count: int, size: int) -> Sample:
    return asyncio.run(_rate(workers, count, size))


def _run_latency(count: int, size: int) -> Sample:
    return asyncio.run(_latency(count, size))


def _run_ticks(seconds: float, rate: int) -> Sample:
    return asyncio.run(_ticks(seconds, rate))


def measure(quick: bool) -> Result:
    """Return the rows."""
    warm_up()
    runs: Runs = {}
    rates: list[str] = []
    paced: list[str] = []
    for label, size in SIZES.items():
        for workers in WORKERS[:1] if quick else WORKERS:
            case = f"{workers} worker{'s' if workers > 1 else ''} to the owner, {label}"
            count = (20_000 if quick else min(MOST, BYTES // size)) // workers
            runs[case, OURS] = partial(_run_rate, workers, count, size)
            runs[case, "bare PUSH/PULL"] = partial(_bare, workers, count, size, False)
            rates.append(case)
        case = f"latency, {label}"
        runs[case, OURS] = partial(_run_latency, 200 if quick else PACED, size)
        runs[case, "bare PUSH/PULL"] = partial(_bare, 1, 200 if quick else PACED, size, True)
        paced.append(case)
    seconds = 0.5 if quick else SECONDS
    runs[ALONE, OURS] = partial(_run_ticks, seconds, 0)
    runs[BESIDE, OURS] = partial(_run_ticks, seconds, FLOOD)
    rounds = Rounds(runs, QUICK_REPEATS if quick else REPEATS)
    found = [row for case in rates for row in rounds.rows(case, RATES)]
    found += [row for case in paced for row in rounds.rows(case, LATENCIES)]
    against = rows(BESIDE, LATENCIES, rounds.of(BESIDE), {ALONE: rounds.of(ALONE)})
    return Result(found + [row for row in against if row.case == BESIDE], rounds.skipped)
