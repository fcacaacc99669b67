"""Real servers on loopback for the other examples: prices by HTTP, a feed of quotes by WebSocket.

    python examples/servers.py [--http-port 0] [--ws-port 0] [--until-eof]

Prints one line of JSON with the two addresses once both listen, then serves until SIGTERM or
Ctrl-C. With ``--until-eof`` it also ends when its standard input does, so that it cannot outlive
whoever started it and holds the other end. `ServerProcess` starts it that way.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import signal
import sys
import threading
import time

from aiohttp import web
from websockets import ConnectionClosed
from websockets.asyncio.server import ServerConnection, serve

HOST = "127.0.0.1"

THIS_FILE = os.path.abspath(__file__)

QUOTE_INTERVAL = 0.05
"""Seconds between two quotes to a client."""

CLOSE_TIMEOUT = 0.5
"""Seconds that clients have to say goodbye when the servers stop."""


class Market:
    """Makes up the price of one thing."""

    def __init__(self) -> None:
        self._random = random.Random()

    def quote(self) -> dict[str, object]:
        """Return the price now: a slow wave and some noise."""
        now = time.time()
        price = 100.0 + 5.0 * math.sin(now / 7.0) + self._random.gauss(0.0, 0.1)
        return {"symbol": "DEMO", "price": round(price, 3), "at": now}


async def serve_http(market: Market, port: int) -> web.AppRunner:
    """Serve ``/health`` and ``/price``; whoever called cleans the runner up.

    Args:
        market: where prices come from.
        port: 0 for any that is free.

    Raises:
        OSError: the port is taken.
    """

    async def health(request: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def price(request: web.Request) -> web.Response:
        return web.json_response(market.quote())

    app = web.Application()
    app.router.add_get("/health", health)
    app.router.add_get("/price", price)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_TIMEOUT)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port).start()
    except BaseException:
        await runner.cleanup()
        raise
    return runner


async def send_quotes(market: Market, client: ServerConnection) -> None:
    """Send quotes to one client until it goes away."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    with contextlib.suppress(ConnectionClosed):
        while True:
            await client.send(json.dumps(market.quote()))
            due = max(due + QUOTE_INTERVAL, loop.time())
            await asyncio.sleep(due - loop.time())


async def run_servers(http_port: int, ws_port: int, stop: asyncio.Event) -> None:
    """Serve both until ``stop`` is set; print the addresses once they listen.

    Raises:
        OSError: a port is taken.
    """
    market = Market()
    runner = await serve_http(market, http_port)
    try:
        async with serve(
            lambda client: send_quotes(market, client),
            HOST,
            ws_port,
            close_timeout=CLOSE_TIMEOUT,
        ) as feed:
            http = runner.addresses[0][1]
            ws = next(iter(feed.sockets)).getsockname()[1]
            addresses = {"http": f"http://{HOST}:{http}", "ws": f"ws://{HOST}:{ws}"}
            print(json.dumps(addresses), flush=True)
            await stop.wait()
    finally:
        await runner.cleanup()


def set_at_eof(stop: asyncio.Event) -> None:
    """Set ``stop`` when standard input ends, from a thread: it works for pipes, files, ttys."""
    loop = asyncio.get_running_loop()

    def watch() -> None:
        while os.read(0, 4096):
            continue
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=watch, name="stdin", daemon=True).start()


async def main(arguments: argparse.Namespace) -> int:
    """Serve until told to stop; return the exit status."""
    stop, interrupted = asyncio.Event(), asyncio.Event()

    def interrupt() -> None:
        interrupted.set()
        stop.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, interrupt)
    if arguments.until_eof:
        set_at_eof(stop)
    await run_servers(arguments.http_port, arguments.ws_port, stop)
    return 130 if interrupted.is_set() else 0


class ServerProcess:
    """This file in a process of its own, which ends with the process that started it.

    Attributes:
        http: the address of the HTTP server, such as ``http://127.0.0.1:40001``.
        ws: the address of the feed.
    """

    def __init__(self, process: asyncio.subprocess.Process, http: str, ws: str) -> None:
        self._process = process
        self.http = http
        self.ws = ws

    @classmethod
    async def start(cls, http_port: int = 0, ws_port: int = 0) -> ServerProcess:
        """Return when both servers listen.

        Args:
            http_port: 0 for any that is free.
            ws_port: likewise.

        Raises:
            RuntimeError: they did not come up; why is on standard error.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, THIS_FILE, "--until-eof"),
            *("--http-port", str(http_port), "--ws-port", str(ws_port)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for who started it
        )
        assert process.stdout is not None
        try:
            line = await process.stdout.readline()
            if not line:
                status = await process.wait()
                raise RuntimeError(f"the servers did not start: exit status {status}")
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        addresses = json.loads(line)
        return cls(process, addresses["http"], addresses["ws"])

    async def kill(self) -> None:
        """Kill it, and return when it is gone."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def close(self) -> None:
        """Let it end in order, or kill it if it takes too long."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(4 * CLOSE_TIMEOUT):
                await self._process.wait()
        except TimeoutError:
            await self.kill()


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description="HTTP and WebSocket servers on loopback.")
    parser.add_argument("--http-port", type=int, default=0, help="default: any that is free")
    parser.add_argument("--ws-port", type=int, default=0, help="default: any that is free")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input does")
    arguments = parser.parse_args(argv)
    for option in ("http_port", "ws_port"):
        if not 0 <= getattr(arguments, option) <= 65535:
            name = "--" + option.replace("_", "-")
            parser.error(f"{name} {getattr(arguments, option)}: must be between 0 and 65535")
    return arguments


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(parse())))
    except OSError as error:
        sys.exit(f"servers.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
