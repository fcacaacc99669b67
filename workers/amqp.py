"""Consumes a queue of an AMQP broker, such as RabbitMQ, or subscribes to an exchange."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from chronopype_mp import ConfigError, NetworkStatus, PermanentFailure
from workers._base import ReadyMade, check_options, positive, required, url_with
from workers._server import ServerOptions

if TYPE_CHECKING:
    from aio_pika.abc import AbstractConnection

__all__ = ["AmqpOptions", "AmqpProcessor"]

PORTS = {"amqp": 5672, "amqps": 5671}

CLOSE_TIMEOUT = 1.0
"""Seconds that the broker has to answer a close."""


class AmqpOptions(ServerOptions, frozen=True, kw_only=True):
    """What is received from which broker.

    Args:
        url: ``amqp://`` or ``amqps://``, with the virtual host as its path.
        queue: an existing queue to consume.
        exchange: an existing exchange to subscribe to, with a queue of this connection alone.
        routing_keys: of the subscription to the exchange.
        prefetch: messages that may be on their way before the first one is acknowledged.
    """

    queue: str = ""
    exchange: str = ""
    routing_keys: tuple[str, ...] = ("#",)
    prefetch: int = 100

    def __post_init__(self) -> None:
        check_options(self, url=url_with("amqp", "amqps"), prefetch=positive)
        super().__post_init__()
        if self.queue and self.exchange:
            problem = "cannot be given with a queue; remove one of them"
            raise ConfigError("AmqpOptions", "exchange", self.exchange, problem)


class AmqpProcessor(ReadyMade):
    """Keeps one connection. A check asks the broker whether the queue is there.

    Args:
        options: what is received.
    """

    options: AmqpOptions
    _connection: AbstractConnection | None = None
    _channel: Any = None

    def __init__(self, options: AmqpOptions) -> None:
        super().__init__(options)

    async def start_network(self) -> None:
        library: Any = required("aio_pika", "amqp")
        self._errors: Any = required("aiormq.exceptions", "amqp")
        options = self.options
        host, port = options.address(PORTS[options.scheme()])
        user, password = options.login()
        is_tls = options.scheme() == "amqps"
        self._messages: asyncio.Queue[Any] = asyncio.Queue()  # `prefetch` bounds it
        self._queue = ""
        async with self._answering():
            # Not connect_robust, which would connect again by itself.
            connection = self._connection = await library.connect(
                host=host,
                port=port,
                login=user or "guest",
                password=password or "guest",
                virtualhost=options.path() or "/",
                ssl=is_tls,
                ssl_context=options.tls.context() if is_tls else None,
            )
            connection.close_callbacks.add(self._closed)
            self._channel = await connection.channel(publisher_confirms=False)
            await self._channel.set_qos(prefetch_count=options.prefetch)
            if options.queue or options.exchange:
                queue = await self._declared()
                self._queue = queue.name
                await queue.consume(self._messages.put)

    async def check_network(self) -> NetworkStatus:
        if self._channel is None:
            return NetworkStatus.NOT_CONNECTED
        async with self._answering():
            if self._queue:
                await self._channel.declare_queue(self._queue, passive=True)
            else:
                await self._channel.set_qos(prefetch_count=self.options.prefetch)
        return NetworkStatus.CONNECTED

    async def run_network(self) -> None:
        options = self.options
        while True:
            message = await self._messages.get()
            self.received_bytes(message.body, options.payload, options.topic)
            await self.drain_outputs()
            async with self._answering():
                await message.ack()

    async def stop_network(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await connection.close()

    async def _declared(self) -> Any:
        """Return the queue to consume."""
        options = self.options
        if options.queue:
            return await self._channel.declare_queue(options.queue, passive=True)
        queue = await self._channel.declare_queue(exclusive=True, auto_delete=True)
        for key in options.routing_keys:
            await queue.bind(options.exchange, routing_key=key)
        return queue

    def _closed(self, connection: Any, error: BaseException | None) -> None:
        if self._connection is not None:
            self.connection_lost(self.shown(error) if error else "the connection was closed")

    @contextlib.asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        """Tell what trying again does not mend from other errors.

        Raises:
            PermanentFailure: the broker refuses the login, the virtual host or the queue.
        """
        errors = self._errors
        async with self.answering(errors.AMQPError, errors.ChannelInvalidStateError):
            try:
                yield
            except (
                errors.AuthenticationError,
                errors.ProbableAuthenticationError,
                errors.ConnectionNotAllowed,
                errors.ChannelAccessRefused,
            ) as error:
                raise PermanentFailure(self.shown(error)) from None
