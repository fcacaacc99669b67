"""A fake exchange: feeds of quotes over TLS, each with a trouble of its own.

`servers.py` runs it in processes. A feed is a WebSocket at ``/NAME``. It sends quotes, answers
``ping`` with ``pong``, and closes clients that send nothing for `SILENCE` seconds. Its `Gate`
admits the clients. `Trouble` says what goes wrong with which feed.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import math
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import NamedTuple

from certificate import make_certificate
from websockets import ConnectionClosed, Request, Response
from websockets.asyncio.server import ServerConnection, serve

HOST = "127.0.0.1"

KEY = "demo"
"""The only API key that is valid."""

SILENCE = 5.0
"""Seconds after which a client that has sent nothing is closed."""

TROUBLE_AT = 3.0
"""Seconds from the first client of a feed to its trouble."""

FLAPS = 3
"""Connections that a flapping feed drops."""

CLOSE_TIMEOUT = 0.5
"""Seconds that clients have to close their connections."""

SendQuotes = Callable[[ServerConnection], Awaitable[None]]


class Trouble(enum.Enum):
    """What is scripted to go wrong with a feed."""

    NONE = "nothing"
    RATE_LIMIT = "restarts; status 429 for up to 6 s"
    BAN = "bans the key for 4 s: status 418"
    MAINTENANCE = "closed for 4 s: status 503"
    DEAD_SOCKET = "its process is stopped for 5 s (SIGSTOP)"
    SLOW_TLS = "the first TLS handshake takes 4 s"
    FLAPPING = "drops the first 3 connections after 0.2 s"


FEEDS = {
    "calm-1": Trouble.NONE,
    "calm-2": Trouble.NONE,
    "rate-limit": Trouble.RATE_LIMIT,
    "ban": Trouble.BAN,
    "maintenance": Trouble.MAINTENANCE,
    "dead-socket": Trouble.DEAD_SOCKET,
    "slow-tls": Trouble.SLOW_TLS,
    "flapping": Trouble.FLAPPING,
}


class Refusal(NamedTuple):
    """The answer to a client that is not admitted.

    Attributes:
        status: the HTTP status.
        reason: the text of the answer.
        retry_after: seconds until another attempt makes sense; None if it never does.
    """

    status: int
    reason: str
    retry_after: float | None = None


class Gate:
    """Decides who may connect to a feed. Pure: ``now`` is in seconds on any one clock.

    Args:
        limit: the number of connects in ``window`` that are admitted; at least 1.
        window: seconds.
        patience: refusals by the limit in a row before the key is banned.
        ban: the duration of a ban, seconds.
    """

    def __init__(
        self, limit: int = 10, window: float = 5.0, patience: int = 3, ban: float = 4.0
    ) -> None:
        self._limit = limit
        self._window = window
        self._patience = patience
        self._ban = ban
        self._admitted: list[float] = []
        self._refused = 0
        self._banned_until = self._closed_until = -math.inf

    def close(self, now: float, seconds: float) -> None:
        """Begin a maintenance window."""
        self._closed_until = now + seconds

    def admit(self, key: str | None, now: float) -> Refusal | None:
        """Count an attempt to connect. Return None if it is admitted."""
        if key != KEY:
            return Refusal(401, "unknown key")
        if now < self._closed_until:
            return Refusal(503, "maintenance", self._closed_until - now)
        if now < self._banned_until:
            return Refusal(418, "banned", self._banned_until - now)
        self._admitted = [at for at in self._admitted if now < at + self._window]
        if len(self._admitted) < self._limit:
            self._admitted.append(now)
            self._refused = 0
            return None
        self._refused += 1
        if self._refused <= self._patience:
            return Refusal(429, "too many connects", self._admitted[0] + self._window - now)
        self._refused = 0
        self._banned_until = now + self._ban
        return Refusal(418, "banned", self._ban)


class Feed:
    """One feed: its gate, its clients and its trouble.

    Args:
        trouble: what goes wrong.
        send_quotes: sends quotes to a client until it disconnects.
    """

    def __init__(self, trouble: Trouble, send_quotes: SendQuotes) -> None:
        is_limited = trouble is Trouble.RATE_LIMIT
        self._gate = Gate(limit=1, window=6.0) if is_limited else Gate()
        self._trouble = trouble
        self._send_quotes = send_quotes
        self._clients: set[ServerConnection] = set()
        self._flaps_left = FLAPS if trouble is Trouble.FLAPPING else 0
        self._script: asyncio.Task[None] | None = None

    def admit(self, client: ServerConnection, request: Request) -> Response | None:
        """Answer the handshake of a client that is refused."""
        refusal = self._gate.admit(request.headers.get("X-API-Key"), _now())
        if refusal is None:
            return None
        response = client.respond(refusal.status, refusal.reason + "\n")
        if refusal.retry_after is not None:
            response.headers["Retry-After"] = str(math.ceil(refusal.retry_after))
        return response

    async def serve(self, client: ServerConnection) -> None:
        """Serve a client until it disconnects, or is dropped."""
        if self._script is None:
            self._script = asyncio.create_task(self._go_wrong())
        if self._flaps_left:
            self._flaps_left -= 1
            await asyncio.sleep(0.2)
            await client.close(1011, "overloaded")
            return
        self._clients.add(client)
        quotes = asyncio.ensure_future(self._send_quotes(client))
        try:
            while True:
                async with asyncio.timeout(SILENCE):
                    message = await client.recv()
                if message == "ping":
                    await client.send("pong")
        except TimeoutError:
            await client.close(1008, f"nothing sent for {SILENCE:g} s")
        except ConnectionClosed:
            pass
        finally:
            self._clients.discard(client)
            quotes.cancel()
            await asyncio.wait({quotes})

    async def end(self) -> None:
        """End the trouble.

        Raises:
            Exception: it failed; what it raised.
        """
        if self._script is not None:
            self._script.cancel()
            await asyncio.wait({self._script})
            if not self._script.cancelled():
                self._script.result()

    async def _go_wrong(self) -> None:
        await asyncio.sleep(TROUBLE_AT)
        match self._trouble:
            case Trouble.RATE_LIMIT:
                await self._drop(1012, "service restart")
            case Trouble.BAN:
                while not self._is_banned():
                    pass  # another program that uses the key ignores the limit
                await self._drop(1008, "banned")
            case Trouble.MAINTENANCE:
                self._gate.close(_now(), 4.0)
                await self._drop(1001, "maintenance")
            case Trouble.DEAD_SOCKET:
                await stop_this_process(5.0)

    def _is_banned(self) -> bool:
        refusal = self._gate.admit(KEY, _now())
        return refusal is not None and refusal.status == 418

    async def _drop(self, code: int, reason: str) -> None:
        await asyncio.gather(*(client.close(code, reason) for client in tuple(self._clients)))


def _now() -> float:
    return asyncio.get_running_loop().time()


async def stop_this_process(seconds: float) -> None:
    """Stop this process with SIGSTOP. Another process continues it, whatever becomes of the owner.

    Args:
        seconds: the time until then.
    """
    code = (
        f"import os, signal, time; os.kill({os.getpid()}, signal.SIGSTOP); "
        f"time.sleep({seconds}); os.kill({os.getpid()}, signal.SIGCONT)"
    )
    helper = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-c", code), stdin=asyncio.subprocess.DEVNULL
    )
    try:
        await helper.wait()
    finally:
        if helper.returncode is None:
            helper.kill()
            await helper.wait()


def slow_handshakes() -> Callable[..., None]:
    """Return a callback that TLS runs in each handshake. It blocks the process, above all first."""
    delays = iter([4.0])

    def wait(*_: object) -> None:
        time.sleep(next(delays, 0.2))

    return wait


@contextlib.asynccontextmanager
async def serve_exchange(
    names: Iterable[str], send_quotes: SendQuotes
) -> AsyncIterator[dict[str, object]]:
    """Serve feeds on any free port.

    Args:
        names: of the feeds; keys of `FEEDS`. The troubles of ``dead-socket`` and ``slow-tls``
            affect all feeds of the process.
        send_quotes: sends quotes to a client until it disconnects.

    Yields:
        The addresses of the ``feeds``, and ``ca``, the certificate that verifies them.

    Raises:
        RuntimeError: no certificate can be made.
    """
    context, ca = make_certificate()
    feeds = {f"/{name}": Feed(FEEDS[name], send_quotes) for name in names}
    if "/slow-tls" in feeds:
        context.sni_callback = slow_handshakes()

    def admit(client: ServerConnection, request: Request) -> Response | None:
        if request.path not in feeds:
            return client.respond(404, f"no feed {request.path}; there are {', '.join(feeds)}\n")
        return feeds[request.path].admit(client, request)

    async def handle(client: ServerConnection) -> None:
        assert client.request is not None
        await feeds[client.request.path].serve(client)

    async with serve(
        handle, HOST, 0, ssl=context, process_request=admit, close_timeout=CLOSE_TIMEOUT
    ) as server:
        address = f"wss://{HOST}:{next(iter(server.sockets)).getsockname()[1]}"
        try:
            yield {"feeds": {path[1:]: address + path for path in feeds}, "ca": ca}
        finally:
            for feed in feeds.values():
                await feed.end()
