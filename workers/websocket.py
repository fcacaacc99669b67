"""Subscribes to a WebSocket feed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import urllib.parse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from chronopype_mp import NetworkStatus, PermanentFailure
from workers._base import (
    Options,
    ReadyMade,
    Seconds,
    Secret,
    Url,
    check_options,
    optional,
    positive,
    required,
    url_with,
)
from workers._http_status import failure_of
from workers._payloads import Form
from workers._tls import Tls

if TYPE_CHECKING:
    import websockets

__all__ = ["WebSocketOptions", "WebSocketProcessor"]

CLOSE_TIMEOUT = 2.0
"""Seconds that the server has to answer a close, within ``stop_network_timeout``."""

PORTS = {"ws": 80, "wss": 443}


class WebSocketOptions(Options, frozen=True, kw_only=True):
    """Where to connect, what to send, and what is emitted.

    Args:
        url: ``ws://`` or ``wss://``; a user and password in it are basic authentication.
        headers: of the handshake.
        subprotocols: to offer, the preferred one first.
        subscribe: messages to send once connected, in this order.
        heartbeat: a message to send at an interval, for servers that want more than pings.
        heartbeat_interval: the time between two of them, seconds.
        ping: whether a check sends a ping and waits for the pong.
        stale_after: a connection without messages for longer is lost, seconds; None: never.
        refused_codes: codes by which the server closes the connection if it refuses the key.
        max_bytes: a longer message ends the connection.
        tls: for ``wss://``.
        topic: what messages are emitted with; None emits none.
        payload: as what messages are emitted.
    """

    url: Url
    headers: dict[str, Secret] = msgspec.field(default_factory=dict)
    subprotocols: tuple[str, ...] = ()
    subscribe: tuple[Secret, ...] = ()
    heartbeat: Secret = Secret()
    heartbeat_interval: Seconds = 20.0
    ping: bool = True
    stale_after: Seconds | None = None
    refused_codes: tuple[int, ...] = ()
    max_bytes: int = 1_000_000
    tls: Tls = Tls()
    topic: str | None = None
    payload: Form = "text"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(
            self,
            url=url_with("ws", "wss"),
            heartbeat_interval=positive,
            stale_after=optional(positive),
            max_bytes=positive,
        )


class WebSocketProcessor(ReadyMade):
    """Reads a feed for as long as the connection holds. A check is a ping.

    Args:
        options: where to connect.
    """

    options: WebSocketOptions
    _socket: websockets.ClientConnection | None = None

    def __init__(self, options: WebSocketOptions) -> None:
        super().__init__(options)
        self.stale_after = options.stale_after

    async def start_network(self) -> None:
        library: Any = required("websockets", "websocket")
        options = self.options
        self._error = library.WebSocketException
        # A ValueError refuses a redirect to another server.
        async with self.answering(library.WebSocketException, ValueError):
            try:
                socket = await library.connect(options.url.reveal(), **self._arguments())
            except library.InvalidStatus as error:
                response = error.response
                raise failure_of(response.status_code, response.headers, "101") from None
        self._socket = socket
        for message in options.subscribe:
            await self._send(socket, message)
        if options.heartbeat:
            self.spawn(self._send_heartbeats(socket), name="heartbeat")

    async def check_network(self) -> NetworkStatus:
        if self._socket is None:
            return NetworkStatus.NOT_CONNECTED
        if self.options.ping:
            async with self.answering(self._error):
                with self._refusals(self._socket):
                    await (await self._socket.ping())
        return NetworkStatus.CONNECTED

    async def run_network(self) -> None:
        assert self._socket is not None
        options = self.options
        while True:
            with self.expecting(self._error), self._refusals(self._socket):
                data = await self._socket.recv(decode=False)
            self.received_bytes(data, options.payload, options.topic)
            await self.drain_outputs()

    async def stop_network(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    async def _send(self, socket: websockets.ClientConnection, message: Secret) -> None:
        async with self.answering(self._error):
            with self._refusals(socket):
                await socket.send(message.reveal())

    async def _send_heartbeats(self, socket: websockets.ClientConnection) -> None:
        while True:
            await asyncio.sleep(self.options.heartbeat_interval)
            await self._send(socket, self.options.heartbeat)

    @contextlib.contextmanager
    def _refusals(self, socket: websockets.ClientConnection) -> Iterator[None]:
        """Tell a close with one of ``refused_codes`` from others.

        Raises:
            PermanentFailure: the server has closed the connection with one of them.
        """
        try:
            yield
        except self._error as error:
            if socket.close_code in self.options.refused_codes:
                raise PermanentFailure(self.shown(error)) from None
            raise

    def _arguments(self) -> dict[str, Any]:
        """Return the arguments of ``connect``: without retries, pings and proxies of its own."""
        options = self.options
        url = urllib.parse.urlsplit(options.url.reveal())
        logger = logging.getLogger(f"{__name__}.protocol")
        logger.setLevel(max(logging.INFO, logger.level))  # DEBUG would show headers and messages
        arguments: dict[str, Any] = {
            # Explicit ones keep the headers from following a redirect to another server.
            "host": url.hostname,
            "port": url.port or PORTS[url.scheme],
            "additional_headers": {name: text.reveal() for name, text in options.headers.items()},
            "subprotocols": options.subprotocols or None,
            "max_size": options.max_bytes,
            "open_timeout": None,  # `answering` limits it
            "ping_interval": None,
            "close_timeout": CLOSE_TIMEOUT,
            "proxy": None,
            "logger": logger,
        }
        if url.scheme == "wss":
            arguments["ssl"] = options.tls.context()
        return arguments
