"""Runs `servers.py` in processes of their own, for the other examples and the demo."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from exchange import CLOSE_TIMEOUT, FEEDS, KEY, Trouble

SERVERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "servers.py")

EXCHANGE = (
    ("calm-1", "calm-2", "rate-limit", "ban", "maintenance", "flapping"),
    ("dead-socket",),  # it stops its process
    ("slow-tls",),  # it blocks its process
)
"""The feeds in each process of the exchange."""


class ServerProcess:
    """Runs `servers.py` in its own process, which ends with the process that started it.

    Attributes:
        addresses: what it serves, by name.
    """

    def __init__(self, process: asyncio.subprocess.Process, addresses: dict[str, Any]) -> None:
        self._process = process
        self.addresses = addresses

    @property
    def http(self) -> str:
        """The address of the HTTP server, such as ``http://127.0.0.1:40001``."""
        return str(self.addresses["http"])

    @property
    def ws(self) -> str:
        """The address of the feed."""
        return str(self.addresses["ws"])

    @classmethod
    async def start(cls, http_port: int = 0, ws_port: int = 0) -> ServerProcess:
        """Return when both servers listen.

        Args:
            http_port: the port of the HTTP server; 0 for any free port.
            ws_port: the port of the feed; 0 for any free port.

        Raises:
            RuntimeError: the servers did not start. The reason is on standard error.
        """
        return await cls.launch("--http-port", str(http_port), "--ws-port", str(ws_port))

    @classmethod
    async def launch(cls, *options: str) -> ServerProcess:
        """Return when the servers that the options ask for listen.

        Raises:
            RuntimeError: the servers did not start. The reason is on standard error.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, SERVERS, "--until-eof", *options),
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
        return cls(process, json.loads(line))

    async def kill(self) -> None:
        """Kill the process with what it has started, and return when it has ended."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    async def close(self) -> None:
        """Stop the process gracefully, or kill it if that takes too long."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGCONT)  # it may be stopped
        try:
            async with asyncio.timeout(4 * CLOSE_TIMEOUT):
                await self._process.wait()
        except TimeoutError:
            await self.kill()


class FeedAddress(NamedTuple):
    """Where a feed of the exchange is.

    Attributes:
        url: its address.
        key: a valid API key.
        ca: the certificate that verifies it, PEM.
        trouble: what is scripted to go wrong with it.
    """

    url: str
    key: str
    ca: str
    trouble: Trouble


@contextlib.asynccontextmanager
async def run_exchange() -> AsyncIterator[dict[str, FeedAddress]]:
    """Run the exchange in processes of its own. Yield its feeds by name.

    Raises:
        RuntimeError: it did not start. The reason is on standard error.
    """
    feeds = {}
    async with contextlib.AsyncExitStack() as stack:
        for names in EXCHANGE:
            server = await ServerProcess.launch("--exchange", *names)
            stack.push_async_callback(server.close)
            for name, url in server.addresses["feeds"].items():
                feeds[name] = FeedAddress(url, KEY, server.addresses["ca"], FEEDS[name])
        yield feeds
