"""Servers on loopback for the other examples: prices over HTTP, a feed of quotes over WebSocket.

    python examples/servers.py [--http-port 0] [--ws-port 0] [--until-eof]

Once both servers listen, this prints one line of JSON with their addresses. It then serves until
SIGTERM or Ctrl-C. With ``--until-eof`` it also stops at the end of standard input, so it cannot
outlive the process that holds the other end. `ServerProcess` uses that option.
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
"""Seconds between quotes to a client."""

CLOSE_TIMEOUT = 0.5
"""Seconds that clients have to close their connections when the servers stop."""


class Market:
    """Simulates the price of one symbol."""

    def __init__(self) -> None:
        self._random = random.Random()

    def quote(self) -> dict[str, object]:
        """Return the current price: a slow wave with some noise."""
        now = time.time()
        price = 100.0 + 5.0 * math.sin(now / 7.0) + self._random.gauss(0.0, 0.1)
        return {"symbol": "DEMO", "price": round(price, 3), "at": now}


async def serve_http(market: Market, port: int) -> web.AppRunner:
    """Serve ``/health`` and ``/price``. The caller cleans up the runner.

    Args:
        market: the source of the prices.
        port: the port; 0 for any free port.

    Raises:
        OSError: the port is in use.
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
    """Send quotes to one client until it disconnects."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    with contextlib.suppress(ConnectionClosed):
        while True:
            await client.send(json.dumps(market.quote()))
            due = max(due + QUOTE_INTERVAL, loop.time())
            await asyncio.sleep(due - loop.time())


async def run_servers(http_port: int, ws_port: int, stop: asyncio.Event) -> None:
    """Print the addresses once both servers listen, and serve until ``stop`` is set.

    Raises:
        OSError: a port is in use.
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
    """Set ``stop`` at the end of standard input. A thread works for pipes, files and ttys."""
    loop = asyncio.get_running_loop()

    def watch() -> None:
        while os.read(0, 4096):
            continue
        with contextlib.suppress(RuntimeError):  # the loop is already closed
            loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=watch, name="stdin", daemon=True).start()


async def main(arguments: argparse.Namespace) -> int:
    """Serve until asked to stop. Return the exit status."""
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
    """Runs this file in its own process, which ends with the process that started it.

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
            http_port: the port of the HTTP server; 0 for any free port.
            ws_port: the port of the feed; 0 for any free port.

        Raises:
            RuntimeError: the servers did not start. The reason is on standard error.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, THIS_FILE, "--until-eof"),
            *("--http-port", str(http_port), "--ws-port", str(ws_port)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # only the parent receives Ctrl-C
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
        """Kill the process, and return when it has ended."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def close(self) -> None:
        """Stop the process gracefully, or kill it if that takes too long."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(4 * CLOSE_TIMEOUT):
                await self._process.wait()
        except TimeoutError:
            await self.kill()


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="HTTP and WebSocket servers on loopback.")
    parser.add_argument("--http-port", type=int, default=0, help="default: any free port")
    parser.add_argument("--ws-port", type=int, default=0, help="default: any free port")
    parser.add_argument("--until-eof", action="store_true", help="stop when standard input ends")
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
