"""Memory of workers with ready-made processors, with and without ``preload``.

Half of the workers are ``http``, the others ``websocket``; a second case has ``exchange``. Their
memory is read while all of them are connected to servers in the owner's process. Each run has a
process of its own: all clocks of a process share a forkserver, and with it what any of them has
preloaded.

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
from typing import Any, NamedTuple

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
from workers.exchange import ExchangeOptions
from workers.http import HttpOptions
from workers.websocket import WebSocketOptions

__all__ = ["measure"]


class Case(NamedTuple):
    """Workers of some types.

    Attributes:
        name: what they are.
        workers: how many there are in a benchmark that is not quick.
        preload: what the forkserver imports.
        libraries: what must be installed.
    """

    name: str
    workers: int
    preload: tuple[str, ...]
    libraries: tuple[str, ...]


CASES = {
    "connections": Case(
        "http and websocket",
        40,
        ("workers.http", "workers.websocket", "aiohttp", "websockets.asyncio.client"),
        ("aiohttp", "websockets"),
    ),
    "exchange": Case(
        "exchange", 10, ("workers.exchange", "ccxt.async_support"), ("aiohttp", "ccxt")
    ),
}
QUICK_COUNT = 2

REFERENCE = "without preload"

UNITS = {"start": "ms", "USS": "MB", "PSS": "MB"}

LIMIT = 120.0
"""Seconds for all workers to be connected."""


@contextlib.asynccontextmanager
async def _exchange() -> AsyncIterator[list[tuple[str, Options]]]:
    """Run an exchange with one market, as far as Bitstamp's API is needed; yield its client."""
    from aiohttp import web

    answers: dict[str, Any] = {
        "/api/v2/markets/": [
            {
                "name": "BTC/USD",
                "market_symbol": "btcusd",
                "base_currency": "BTC",
                "base_decimals": 8,
                "counter_currency": "USD",
                "counter_decimals": 2,
                "minimum_order_value": "10",
                "trading": "Enabled",
                "description": "BTC / USD",
                "market_type": "SPOT",
            }
        ],
        "/api/v2/ticker/btcusd/": {"timestamp": "1686068944", "last": "1.0", "pair": "BTC/USD"},
    }

    async def answer(request: Any) -> web.Response:
        return web.json_response(answers[request.path])

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        base = Url(f"http://127.0.0.1:{runner.addresses[0][1]}")
        options = ExchangeOptions(
            exchange="bitstamp", symbols=("BTC/USD",), base_url=base, topic="a"
        )
        yield [("workers.exchange:ExchangeProcessor", options)]
    finally:
        await runner.cleanup()


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


async def _sample(case: str, count: int, preload: Sequence[str]) -> Sample:
    servers = _exchange if case == "exchange" else _servers
    async with servers() as kinds, make_clock(0.5, ForkserverLauncher(preload)) as clock:
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


def _run(case: str, count: int, preload: Sequence[str]) -> Sample:
    for library in CASES[case].libraries:
        if importlib.util.find_spec(library) is None:
            raise SkipError(
                f"{library} is not installed; run: pip install 'chronopype-mp[workers]'"
            )
    command = [sys.executable, "-m", "benchmarks.connections", case, str(count), *preload]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    sample: Sample = json.loads(done.stdout)
    return sample


def measure(quick: bool) -> Result:
    """Return the rows."""
    runs: Runs = {}
    for key, case in CASES.items():
        count = QUICK_COUNT if quick else case.workers
        name = f"{count} workers: {case.name}"
        runs[name, OURS] = partial(_run, key, count, case.preload)
        runs[name, REFERENCE] = partial(_run, key, count, ())
    return Rounds(runs, QUICK_REPEATS if quick else REPEATS).result(UNITS)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_sample(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))))
