"""Subscribes to channels of a Redis server, and reads its streams."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from chronopype_mp import ConfigError, NetworkStatus, PermanentFailure
from workers._base import ReadyMade, check_options, required, url_with
from workers._server import ServerOptions

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub

__all__ = ["RedisOptions", "RedisProcessor"]

PORT = 6379

ENTRIES = 100
"""Entries of a stream that are read at once."""

FIRST = b"0-0"
"""The position before every entry of a stream."""


class RedisOptions(ServerOptions, frozen=True, kw_only=True):
    """What is received from which server.

    Args:
        url: ``redis://`` or ``rediss://``, with the number of the database as its path.
        channels: to subscribe to.
        patterns: of channels to subscribe to, such as ``"prices.*"``.
        streams: to read new entries from. An entry is emitted as a dict of its fields.
        payload: as what messages are emitted; fields of entries are bytes or else text.
    """

    channels: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_options(self, url=url_with("redis", "rediss"))
        super().__post_init__()
        if not (self.path() or "0").isdecimal():
            problem = "must end with the number of the database, or without a path"
            raise ConfigError("RedisOptions", "url", self.url, problem)


class RedisProcessor(ReadyMade):
    """Keeps a connection for checks, and one each for the channels and the streams.

    A check is a ping of the server, and of the subscription.

    Args:
        options: what is received.
    """

    options: RedisOptions
    _client: Redis | None = None
    _reader: Redis | None = None
    _subscription: PubSub | None = None

    def __init__(self, options: RedisOptions) -> None:
        super().__init__(options)
        self._positions: dict[str, bytes] = {}

    async def start_network(self) -> None:
        required("redis", "redis")
        self._errors: Any = required("redis.exceptions", "redis")
        options = self.options
        self._client = self._new_client()
        async with self._answering():
            await self._client.ping()
        if options.channels or options.patterns:
            self._pong = asyncio.Event()
            self._subscription = self._client.pubsub()
            async with self._answering():
                if options.channels:
                    await self._subscription.subscribe(*options.channels)
                if options.patterns:
                    await self._subscription.psubscribe(*options.patterns)
            self.spawn(self._read_channels(self._subscription), name="channels")
        if options.streams:
            self._reader = self._new_client()
            async with self._answering():
                for stream in options.streams:
                    if stream not in self._positions:
                        newest: Any = await self._reader.xrevrange(stream, count=1)
                        self._positions[stream] = newest[0][0] if newest else FIRST
            self.spawn(self._read_streams(self._reader), name="streams")

    async def check_network(self) -> NetworkStatus:
        if self._client is None:
            return NetworkStatus.NOT_CONNECTED
        async with self._answering():
            await self._client.ping()
            if self._subscription is not None:
                self._pong.clear()
                await self._subscription.ping()
                await self._pong.wait()
        return NetworkStatus.CONNECTED

    async def stop_network(self) -> None:
        opened = (self._subscription, self._reader, self._client)
        self._subscription = self._reader = self._client = None
        for each in opened:
            if each is not None:
                await each.aclose()

    async def _read_channels(self, subscription: PubSub) -> None:
        options = self.options
        while True:
            with self.expecting(self._errors.RedisError), self._refusals():
                message = await subscription.get_message(timeout=None)
            kind = message["type"] if message else ""
            if kind == "pong":
                self._pong.set()
            elif kind in ("message", "pmessage"):
                self.received_bytes(message["data"], options.payload, options.topic)
                await self.drain_outputs()

    async def _read_streams(self, reader: Redis) -> None:
        wait = max(1, int(self.options.timeout * 500))  # ms; half of the limit of `answering`
        while True:
            async with self._answering():
                positions: Any = dict(self._positions)
                found: Any = await reader.xread(positions, count=ENTRIES, block=wait)
            for stream, entries in found or ():
                for position, fields in entries:
                    self._positions[stream.decode()] = position
                    # Entries that were deleted have no fields.
                    self._received_entry(fields or {})
                    await self.drain_outputs()

    def _received_entry(self, fields: dict[bytes, bytes]) -> None:
        as_bytes = self.options.payload == "bytes"
        payload = {
            name.decode(errors="replace"): value if as_bytes else value.decode(errors="replace")
            for name, value in fields.items()
        }
        self.received(payload, sum(map(len, fields.values())), self.options.topic)

    def _new_client(self) -> Redis:
        """Return a client with one connection, which it does not make anew on an error."""
        library: Any = required("redis.asyncio", "redis")
        retry: Any = required("redis.asyncio.retry", "redis")
        backoff: Any = required("redis.backoff", "redis")
        options = self.options
        host, port = options.address(PORT)
        user, password = options.login()
        arguments: dict[str, Any] = {}
        if options.scheme() == "rediss":
            tls = options.tls
            arguments = {
                "ssl": True,
                "ssl_ca_certs": tls.ca_file,
                "ssl_certfile": tls.cert_file,
                "ssl_keyfile": tls.key_file or tls.cert_file,
                "ssl_cert_reqs": "required" if tls.verify else "none",
                "ssl_check_hostname": tls.verify,
            }
        client: Redis = library.Redis(
            host=host,
            port=port,
            db=int(options.path() or 0),
            username=user,
            password=password,
            single_connection_client=True,
            protocol=2,
            retry=retry.Retry(backoff.NoBackoff(), 0, supported_errors=()),
            socket_timeout=None,  # `answering` limits it
            socket_connect_timeout=None,
            **arguments,
        )
        return client

    @contextlib.asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        async with self.answering(self._errors.RedisError):
            with self._refusals():
                yield

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        """Tell what trying again does not mend from other errors.

        Raises:
            PermanentFailure: the login is wrong, or must not do this.
        """
        errors = self._errors
        try:
            yield
        except (
            errors.AuthenticationError,
            errors.AuthorizationError,
            errors.NoPermissionError,
        ) as error:
            raise PermanentFailure(self.shown(error)) from None
