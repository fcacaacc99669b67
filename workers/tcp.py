"""Keeps a TCP or TLS connection, and emits what comes over it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

from chronopype_mp import NetworkStatus
from workers._base import Options, ReadyMade, Seconds, Secret, check_options, optional, positive
from workers._payloads import Form
from workers._streams import Framing, read_message
from workers._tls import Tls

__all__ = ["TcpOptions", "TcpProcessor"]

CLOSE_TIMEOUT = 2.0
"""Seconds for the goodbyes of TLS, within ``stop_network_timeout``."""


class TcpOptions(Options, frozen=True, kw_only=True):
    """Where to connect, what to send, and what is emitted.

    Args:
        host: a name or an address.
        port: 1 to 65535.
        tls: TLS with these settings; None: plain TCP.
        send: what to send once connected, with line ends if the server wants them.
        probe: what a check sends. Anything that comes then is the answer. Without it, a check only
            looks whether the connection is open.
        stale_after: a connection without messages for longer is lost, seconds; None: never.
        framing: what a message is: a line, or whatever has come.
        max_bytes: a longer line ends the connection, and chunks are no larger.
        topic: what messages are emitted with; None emits none.
        payload: as what messages are emitted.
    """

    host: str
    port: int
    tls: Tls | None = None
    send: tuple[Secret, ...] = ()
    probe: Secret = Secret()
    stale_after: Seconds | None = None
    framing: Framing = "lines"
    max_bytes: int = 65536
    topic: str | None = None
    payload: Form = "text"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(
            self,
            host=lambda host: None if host else "must not be empty",
            port=lambda port: None if 0 < port < 65536 else "must be from 1 to 65535",
            stale_after=optional(positive),
            max_bytes=positive,
        )


class TcpProcessor(ReadyMade):
    """Reads for as long as the connection holds.

    Args:
        options: where to connect.
    """

    options: TcpOptions
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    _answered: asyncio.Event

    def __init__(self, options: TcpOptions) -> None:
        super().__init__(options)
        self.stale_after = options.stale_after

    async def start_network(self) -> None:
        options = self.options
        self._answered = asyncio.Event()
        async with self.answering(ssl.SSLError):
            self._streams = await asyncio.open_connection(
                options.host,
                options.port,
                ssl=None if options.tls is None else options.tls.context(),
                limit=options.max_bytes,
            )
            for text in options.send:
                await self._send(text)

    async def check_network(self) -> NetworkStatus:
        if self._streams is None:
            return NetworkStatus.NOT_CONNECTED
        if self.options.probe:
            async with self.answering(ssl.SSLError):
                await self._send(self.options.probe)
                if self.network_status is NetworkStatus.CONNECTED:
                    self._answered.clear()
                    await self._answered.wait()  # `run_network` reads
                else:
                    await self._receive()
        return NetworkStatus.CONNECTED

    async def run_network(self) -> None:
        while True:
            with self.expecting(ssl.SSLError):
                await self._receive()
            await self.drain_outputs()

    async def stop_network(self) -> None:
        streams, self._streams = self._streams, None
        if streams is None:
            return
        _, writer = streams
        writer.close()
        with contextlib.suppress(OSError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await writer.wait_closed()

    async def _receive(self) -> None:
        """Wait for a message and emit it.

        Raises:
            ConnectionError: the server has closed the connection.
        """
        assert self._streams is not None
        reader, _ = self._streams
        options = self.options
        message = await read_message(reader, options.framing, options.max_bytes)
        if message is None:
            raise ConnectionError("the server has closed the connection")
        self._answered.set()
        self.received_bytes(message, options.payload, options.topic)

    async def _send(self, text: Secret) -> None:
        assert self._streams is not None
        _, writer = self._streams
        writer.write(text.reveal().encode())
        await writer.drain()
