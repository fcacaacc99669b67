"""Servers on loopback for the other examples: prices over HTTP, a feed of quotes over WebSocket.

    python examples/servers.py [--http-port 0] [--ws-port 0] [--until-eof]
    python examples/servers.py --exchange FEED… [--until-eof]

With ``--exchange`` it serves feeds of the fake exchange in `exchange.py` instead. Once all servers
listen, this prints one line of JSON with their addresses. It then serves until SIGTERM or
Ctrl-C. With ``--until-eof`` it also stops at the end of standard input, so it cannot outlive the
process that holds the other end. `server_process.py` uses that option.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import math
import os
import random
import signal
import sys
import threading
import time

from aiohttp import web
from exchange import CLOSE_TIMEOUT, FEEDS, HOST, serve_exchange
from server_process import ServerProcess as ServerProcess  # for the other examples
from websockets import ConnectionClosed
from websockets.asyncio.server import ServerConnection, serve

QUOTE_INTERVAL = 0.05
"""Seconds between quotes to a client."""


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


async def run_feeds(names: list[str], stop: asyncio.Event) -> None:
    """Print the addresses once the exchange listens, and serve until ``stop`` is set.

    Raises:
        RuntimeError: no certificate can be made.
    """
    market = Market()
    async with serve_exchange(names, lambda client: send_quotes(market, client)) as addresses:
        print(json.dumps(addresses), flush=True)
        await stop.wait()


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
    if arguments.exchange:
        await run_feeds(arguments.exchange, stop)
    else:
        await run_servers(arguments.http_port, arguments.ws_port, stop)
    return 130 if interrupted.is_set() else 0


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="HTTP and WebSocket servers on loopback.")
    parser.add_argument("--http-port", type=int, default=0, help="default: any free port")
    parser.add_argument("--ws-port", type=int, default=0, help="default: any free port")
    parser.add_argument(
        "--exchange",
        nargs="+",
        choices=FEEDS,
        metavar="FEED",
        help=f"serve feeds of the fake exchange instead: {', '.join(FEEDS)}",
    )
    parser.add_argument("--until-eof", action="store_true", help="stop when standard input ends")
    arguments = parser.parse_args(argv)
    for option in ("http_port", "ws_port"):
        if not 0 <= getattr(arguments, option) <= 65535:
            name = "--" + option.replace("_", "-")
            parser.error(f"{name} {getattr(arguments, option)}: must be between 0 and 65535")
    return arguments


if __name__ == "__main__":
    # A client that breaks off its handshake is no error of the server.
    logging.getLogger("websockets.server").setLevel(logging.CRITICAL)
    try:
        sys.exit(asyncio.run(main(parse())))
    except (OSError, RuntimeError) as error:
        sys.exit(f"servers.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
