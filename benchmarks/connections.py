"""Memory of workers with ready-made processors, with and without ``preload``.

Half of the workers are ``http``, the others ``websocket``. Their memory is read while all of them
are connected to servers in the owner's process. Each run has a process of its own: all clocks of a
process share a forkserver, and with it what any of them has preloaded.

The reference is the same fleet without ``preload``: every worker imports the libraries by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from benchmarks.clock import make_clock, ticking
from benchmarks.measures import footprint
from benchmarks.report import OURS, Result, Sample
from benchmarks.rounds import QUICK_REPEATS, REPEATS, Rounds, Runs, SkipError
from chronopype_mp import NetworkStatus, ProcessorSpec
from chronopype_mp.events import NetworkChanged
from chronopype_mp.launchers import ForkserverLauncher
from chronopype_mp.testing import EventRecorder
from workers import Url
from workers._base import Options
from workers.http import HttpOptions
from workers.websocket import WebSocketOptions

__all__ = ["measure"]

COUNT = 40
QUICK_COUNT = 2

PRELOAD = ("workers.http", "workers.websocket", "aiohttp", "websockets.asyncio.client")

REFERENCE = "without preload"

UNITS = {"start": "ms", "USS": "MB", "PSS": "MB"}

LIMIT = 120.0
"""Seconds for all workers to be connected."""


@contextlib.asynccontextmanager
async def _servers() -> AsyncIterator[list[tuple[str, Options]]]:
    """Run an HTTP and a WebSocket server; yield the targets and options of their clients."""
    from aiohttp import web
    from websockets.asyncio.server import serve
    from websockets.exceptions import ConnectionClosed

    async def answer(request: Any) -> web.Response:
        return web.Response(text="1.0")

    async def feed(connection: Any) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await connection.send("1.0")
                await asyncio.sleep(0.5)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with serve(feed, "127.0.0.1", 0) as server:
            http_port = runner.addresses[0][1]
            port = next(iter(server.sockets)).getsockname()[1]
            http = HttpOptions(url=Url(f"http://127.0.0.1:{http_port}/"), topic="a")
            websocket = WebSocketOptions(url=Url(f"ws://127.0.0.1:{port}/"), topic="a")
            yield [
                ("workers.http:HttpProcessor", http),
                ("workers.websocket:WebSocketProcessor", websocket),
            ]
    finally:
        await runner.cleanup()


async def _sample(count: int, preload: Sequence[str]) -> Sample:
    async with _servers() as kinds, make_clock(0.5, ForkserverLauncher(preload)) as clock:
        events = EventRecorder(clock.events)
        began = time.monotonic()
        names = [f"w{number}" for number in range(count)]
        handles = []
        for name, (target, options) in zip(names, itertools.cycle(kinds)):
            spec = ProcessorSpec(target=target, options={"options": options})
            handles.append(clock.add_processor(spec, name=name))
        async with ticking(clock):
            for name in names:
                await events.wait_for(
                    NetworkChanged, worker=name, after=NetworkStatus.CONNECTED, timeout=LIMIT
                )
            start = time.monotonic() - began
            await asyncio.sleep(2.0)  # ticks and messages come; what they need has been loaded
            memory = footprint([handle.pid for handle in handles if handle.pid is not None])
    return {"start": 1e3 * start / count, **memory}


def _run(count: int, preload: Sequence[str]) -> Sample:
    for library in ("aiohttp", "websockets"):
        if importlib.util.find_spec(library) is None:
            raise SkipError(
                f"{library} is not installed; run: pip install 'chronopype-mp[workers]'"
            )
    command = [sys.executable, "-m", "benchmarks.connections", str(count), *preload]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    sample: Sample = json.loads(done.stdout)
    return sample


def measure(quick: bool) -> Result:
    """Return the rows."""
    count = QUICK_COUNT if quick else COUNT
    case = f"{count} workers"
    runs: Runs = {
        (case, OURS): partial(_run, count, PRELOAD),
        (case, REFERENCE): partial(_run, count, ()),
    }
    return Rounds(runs, QUICK_REPEATS if quick else REPEATS).result(UNITS)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_sample(int(sys.argv[1]), sys.argv[2:]))))
