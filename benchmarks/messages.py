"""Messages from 1 and 8 workers to 1 and 8 others, and ticks beside a flood of them.

Each publisher has a topic of its own, and each subscriber gets all topics. Publishers emit as fast
as their messages are sent. The rate is that of deliveries, from the first to the last one at each
subscriber, added up. "lost" counts those that subscribers did not get because they were slower.
Latency is the time from ``emit`` to ``on_message``, at 1000 messages per second. CPU is the CPU
time of all processes, including the owner's, per delivery.

The reference is a bare PUB socket in each of as many processes, SUB sockets in blocking loops, and
libzmq's proxy in a thread of the owner. Its queues have no bound, so it loses nothing. It sends
each message on its own, and neither decodes nor counts.

Ticks are those of four workers at 100 Hz beside one that publishes 100,000 messages of 100 B per
second to another one. Their lateness is the time from the deadline to the hook. The reference is
the same without messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import multiprocess
import zmq

from benchmarks.bare import start_process, warm_up
from benchmarks.clock import make_clock, ticking
from benchmarks.emitting import WALL
from benchmarks.measures import cpu_time, percentiles
from benchmarks.messaging import (
    RECEIVED,
    Publishes,
    Subscribes,
    bare_publisher,
    bare_subscriber,
)
from benchmarks.probes import Arrivals, Probe
from benchmarks.report import OURS, Result, Sample, rows
from benchmarks.rounds import QUICK_REPEATS, REPEATS, Rounds, Runs

__all__ = ["measure"]

PAIRS = ((1, 1), (1, 8), (8, 8))
"""Publishers and subscribers."""

SIZES = {"100 B": 100, "10 kB": 10_000}
BYTES = 100_000_000
"""Bytes delivered in one run for the rate; and at most `MOST` deliveries."""

MOST = 400_000
PACED = 2000

FLOOD = 100_000
"""Messages per second beside which others tick."""

NEIGHBOURS = 4
TICK_SIZE = 0.01
SECONDS = 5.0

RATES = {"deliveries": "1/s", "CPU per delivery": "µs", "lost": "deliveries"}
LATENCIES = {"p50": "µs", "p99": "µs"}
BARE = "bare XSUB/XPUB proxy"
ALONE, BESIDE = "ticks without a flood", "ticks beside a flood"


async def _ours(publishers: int, subscribers: int, count: int, size: int, paced: bool) -> Sample:
    async with make_clock(TICK_SIZE) as clock, clock.outputs("figures") as reader:
        added = [
            *(clock.add_processor(Subscribes(publishers)) for _ in range(subscribers)),
            *(
                clock.add_processor(Publishes(number, count, size, is_paced=paced))
                for number in range(publishers)
            ),
        ]
        for handle in added:
            await handle.wait_ready()
        pids = [handle.pid for handle in added if handle.pid is not None]
        cpu = time.process_time() + sum(map(cpu_time, pids))
        async with ticking(clock):
            figures = [(await anext(reader)).payload for _ in range(subscribers)]
            cpu = time.process_time() + sum(map(cpu_time, pids)) - cpu
    if paced:
        return percentiles(1e6 * late for _, _, _, times in figures for late in times)
    return _sample(publishers * count, cpu, [(n, began, end) for n, began, end, _ in figures])


def _sample(sent: int, cpu: float, figures: list[tuple[int, float, float]]) -> Sample:
    """Return the rates.

    Args:
        sent: messages of all publishers.
        cpu: CPU time, seconds.
        figures: of each subscriber how many messages it got, and from when to when.
    """
    arrived = sum(count for count, _, _ in figures)
    return {
        "deliveries": sum(count / (end - began) for count, began, end in figures),
        "CPU per delivery": 1e6 * cpu / arrived,
        "lost": float(sent * len(figures) - arrived),
    }


def _bare(publishers: int, subscribers: int, count: int, size: int, paced: bool) -> Sample:
    with tempfile.TemporaryDirectory(prefix="bare-") as directory:
        context = zmq.Context()
        addresses = f"ipc://{directory}/in", f"ipc://{directory}/out"
        proxy = threading.Thread(target=_forward, args=(context, *addresses))
        proxy.start()
        try:
            return _bare_sample(publishers, subscribers, count, size, paced, addresses)
        finally:
            context.term()
            proxy.join()


def _forward(context: zmq.Context[Any], arriving: str, leaving: str) -> None:
    with context.socket(zmq.XSUB) as xsub, context.socket(zmq.XPUB) as xpub:
        for socket, address in ((xsub, arriving), (xpub, leaving)):
            socket.setsockopt(zmq.SNDHWM, 0)
            socket.setsockopt(zmq.RCVHWM, 0)
            socket.setsockopt(zmq.LINGER, 0)
            socket.bind(address)
        with contextlib.suppress(zmq.ContextTerminated):
            zmq.proxy(xsub, xpub)


def _bare_sample(
    publishers: int,
    subscribers: int,
    count: int,
    size: int,
    paced: bool,
    addresses: tuple[str, str],
) -> Sample:
    pipe = partial(multiprocess.get_context("forkserver").Pipe, duplex=False)
    starts, answers = [pipe() for _ in range(publishers)], [pipe() for _ in range(publishers)]
    figures, times = [pipe() for _ in range(subscribers)], [pipe() for _ in range(subscribers)]
    processes = [
        start_process(bare_subscriber, addresses[1], publishers, paced, answer, late)
        for (_, answer), (_, late) in zip(figures, times, strict=True)
    ]
    for answer, _ in figures:
        answer.recv_bytes()
    time.sleep(0.3)  # nothing tells when the proxy has their subscriptions
    processes += [
        start_process(bare_publisher, addresses[0], subscribers, count, size, paced, go, answer)
        for (go, _), (_, answer) in zip(starts, answers, strict=True)
    ]
    for answer, _ in answers:
        answer.recv_bytes()
    cpu = time.process_time()
    for _, go in starts:
        go.send_bytes(b"go")
    cpu_of_others = sum(WALL.unpack(answer.recv_bytes())[0] for answer, _ in answers)
    found = [RECEIVED.unpack(answer.recv_bytes()) for answer, _ in figures]
    cpu = time.process_time() - cpu + cpu_of_others + sum(each[3] for each in found)
    late = b"".join(answer.recv_bytes() for answer, _ in times)
    for _, go in starts:
        go.send_bytes(b"end")
    for process in processes:
        process.join()
        process.close()
    for connection in (each for pair in (*starts, *answers, *figures, *times) for each in pair):
        connection.close()
    if paced:
        return percentiles(1e6 * each for (each,) in WALL.iter_unpack(late))
    return _sample(publishers * count, cpu, [each[:3] for each in found])


async def _ticks(seconds: float, rate: int) -> Sample:
    with tempfile.TemporaryDirectory() as directory:
        files = [Path(directory, str(number)) for number in range(NEIGHBOURS)]
        async with make_clock(TICK_SIZE) as clock:
            count = int(2 * seconds * rate)
            flood = Publishes(0, count, 100, rate or 1000)
            added = (Subscribes(1), flood, *map(Probe, files))
            for handle in [clock.add_processor(each) for each in added]:
                await handle.wait_ready()
            async with ticking(clock):
                await asyncio.sleep(seconds)
        return percentiles(
            1e6 * (entered - timestamp)
            for file in files
            for timestamp, entered in Arrivals.load(file.read_bytes())
        )


def _run_ours(publishers: int, subscribers: int, count: int, size: int, paced: bool) -> Sample:
    return asyncio.run(_ours(publishers, subscribers, count, size, paced))


def _run_ticks(seconds: float, rate: int) -> Sample:
    return asyncio.run(_ticks(seconds, rate))


def measure(quick: bool) -> Result:
    """Return the rows."""
    warm_up()
    runs: Runs = {}
    rates: list[str] = []
    paced: list[str] = []
    for label, size in SIZES.items():
        for publishers, subscribers in PAIRS[:1] if quick else PAIRS:
            case = f"{publishers} to {subscribers}, {label}"
            deliveries = 20_000 if quick else min(MOST, BYTES // size)
            arguments = publishers, subscribers, deliveries // publishers // subscribers, size
            runs[case, OURS] = partial(_run_ours, *arguments, False)
            runs[case, BARE] = partial(_bare, *arguments, False)
            rates.append(case)
        case = f"latency, {label}"
        count = 200 if quick else PACED
        runs[case, OURS] = partial(_run_ours, 1, 1, count, size, True)
        runs[case, BARE] = partial(_bare, 1, 1, count, size, True)
        paced.append(case)
    seconds = 0.5 if quick else SECONDS
    runs[ALONE, OURS] = partial(_run_ticks, seconds, 0)
    runs[BESIDE, OURS] = partial(_run_ticks, seconds, FLOOD)
    rounds = Rounds(runs, QUICK_REPEATS if quick else REPEATS)
    found = [row for case in rates for row in rounds.rows(case, RATES)]
    found += [row for case in paced for row in rounds.rows(case, LATENCIES)]
    against = rows(BESIDE, LATENCIES, rounds.of(BESIDE), {ALONE: rounds.of(ALONE)})
    return Result(found + [row for row in against if row.case == BESIDE], rounds.skipped)
