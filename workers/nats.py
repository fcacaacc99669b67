"""Subscribes to subjects of a NATS server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from chronopype_mp import NetworkStatus, PermanentFailure
from workers._base import ReadyMade, Secret, check_options, required, url_with
from workers._server import ServerOptions

if TYPE_CHECKING:
    from nats.aio.client import Client

__all__ = ["NatsOptions", "NatsProcessor"]

PORT = 4222

CLOSE_TIMEOUT = 1.0
"""Seconds that a close may take."""

NEVER = 10**9
"""Seconds between two pings of the client, which are off: the checks ping."""


class NatsOptions(ServerOptions, frozen=True, kw_only=True):
    """What is received from which server.

    Args:
        url: ``nats://``, or ``tls://`` if the server must have TLS.
        token: instead of user and password.
        subscribe: subjects, also with wildcards, such as ``"prices.*"`` or ``"orders.>"``.
        queue: the queue group, in which every message goes to one of the subscribers.
    """

    token: Secret = Secret()
    subscribe: tuple[str, ...] = ()
    queue: str = ""

    def __post_init__(self) -> None:
        check_options(self, url=url_with("nats", "tls"))
        super().__post_init__()


class NatsProcessor(ReadyMade):
    """Keeps one connection. A check is a ping.

    Args:
        options: what is received.
    """

    options: NatsOptions
    _client: Client | None = None

    def __init__(self, options: NatsOptions) -> None:
        super().__init__(options)

    async def start_network(self) -> None:
        library: Any = required("nats.aio.client", "nats")
        self._errors: Any = required("nats.errors", "nats")
        options = self.options
        host, port = options.address(PORT)
        user, password = options.login()
        arguments: dict[str, Any] = {}
        if options.scheme() == "tls":
            arguments = {"tls": options.tls.context(), "tls_hostname": host}
        client = self._client = library.Client()
        async with self._answering():
            await client.connect(
                f"{options.scheme()}://{f'[{host}]' if ':' in host else host}:{port}",
                user=user,
                password=password,
                token=options.token.reveal() or None,
                error_cb=self._failed,
                closed_cb=self._closed,
                allow_reconnect=False,
                connect_timeout=NEVER,  # `answering` limits it
                ping_interval=NEVER,
                **arguments,
            )
            for subject in options.subscribe:
                await client.subscribe(subject, queue=options.queue, cb=self._got)

    async def check_network(self) -> NetworkStatus:
        if self._client is None:
            return NetworkStatus.NOT_CONNECTED
        async with self._answering():
            await self._client.flush(timeout=NEVER)
        return NetworkStatus.CONNECTED

    async def stop_network(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            # It would wait forever for a connection whose TLS handshake has failed.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await client.close()

    async def _got(self, message: Any) -> None:
        self.received_bytes(message.data, self.options.payload, self.options.topic)
        await self.drain_outputs()

    async def _failed(self, error: Exception) -> None:
        """Report an error. Raising it while connecting keeps the client from trying again."""
        if self._client is None:
            return
        if not self._client.is_connected:
            raise error
        if isinstance(error, self._errors.SlowConsumerError):
            self.logger().warning("messages were dropped, because outputs are full: %s", error)
            return
        refused = "permissions violation" in str(error).lower()
        reason = self.shown(error)
        self.connection_lost(PermanentFailure(reason) if refused else reason)

    async def _closed(self) -> None:
        if self._client is not None:
            error = self._client.last_error
            self.connection_lost(self.shown(error) if error else "the server has closed it")

    @contextlib.asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        """Tell a refused login from other errors.

        Raises:
            PermanentFailure: the server refuses the login.
        """
        async with self.answering(self._errors.Error):
            try:
                yield
            except self._errors.Error as error:
                if "authorization" in str(error).lower():
                    raise PermanentFailure(self.shown(error)) from None
                raise
