"""Real HTTP and WebSocket servers, each a process that a test can kill and start anew."""

from __future__ import annotations

import socket
import sys

from tests.system.scripts import Script, Scripts

HTTP = """
import sys
from aiohttp import web

async def health(request):
    return web.json_response({"ok": True})

app = web.Application()
app.router.add_get("/health", health)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), reuse_address=True,
            print=lambda *_: print("serving", flush=True))
"""

WEBSOCKET = """
import asyncio, json, signal, sys, time
import websockets

speaking = asyncio.Event()
speaking.set()

async def feed(connection):
    print("client", flush=True)
    while True:
        await speaking.wait()
        await connection.send(json.dumps({"price": 1.0, "at": time.time()}))
        await asyncio.sleep(0.02)

async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, speaking.clear)  # the feed falls silent
    loop.add_signal_handler(signal.SIGUSR2, speaking.set)
    async with websockets.serve(feed, "127.0.0.1", int(sys.argv[1])):
        print("serving", flush=True)
        await asyncio.Future()

asyncio.run(main())
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def serve(scripts: Scripts, source: str, port: int) -> Script:
    """Start a server on a port of loopback, and wait until it serves."""
    server = scripts.run([sys.executable, "-c", source, str(port)])
    server.wait_for("serving")
    return server


def accepts(port: int) -> bool:
    """Whether a port of loopback accepts connections."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
