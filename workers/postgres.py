"""Listens to the notifications of a PostgreSQL server, and runs a query at an interval."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from chronopype_mp import ConfigError, NetworkStatus, PermanentFailure
from workers._base import ReadyMade, check_options, required, url_with
from workers._server import ServerOptions

if TYPE_CHECKING:
    import asyncpg

__all__ = ["PostgresOptions", "PostgresProcessor"]

PORT = 5432


class PostgresOptions(ServerOptions, frozen=True, kw_only=True):
    """What is received from which database.

    Args:
        url: ``postgresql://``, with the name of the database as its path.
        use_tls: False is for servers without TLS.
        listen: channels whose notifications are received.
        query: what a check runs.
        query_topic: what the rows of the query are emitted with, as a list of dicts; None emits
            none.
    """

    use_tls: bool = True
    listen: tuple[str, ...] = ()
    query: str = "SELECT 1"
    query_topic: str | None = None

    def __post_init__(self) -> None:
        check_options(self, url=url_with("postgresql", "postgres"))
        super().__post_init__()
        if not self.path():
            problem = "must end with the name of the database"
            raise ConfigError("PostgresOptions", "url", self.url, problem)


class PostgresProcessor(ReadyMade):
    """Keeps one connection. Every check is one query.

    Args:
        options: what is received.
    """

    options: PostgresOptions
    _connection: asyncpg.Connection | None = None

    def __init__(self, options: PostgresOptions) -> None:
        super().__init__(options)

    async def start_network(self) -> None:
        self._library: Any = required("asyncpg", "postgres")
        options = self.options
        host, port = options.address(PORT)
        user, password = options.login()
        async with self._answering():
            self._connection = await self._library.connect(
                host=host,
                port=port,
                user=user,
                password=password,
                database=options.path(),
                ssl=options.tls.context() if options.use_tls else False,
                timeout=None,  # `answering` limits it
            )
            self._connection.add_termination_listener(self._ended)
            for channel in options.listen:
                await self._connection.add_listener(channel, self._notified)

    async def check_network(self) -> NetworkStatus:
        if self._connection is None:
            return NetworkStatus.NOT_CONNECTED
        options = self.options
        async with self._answering():
            rows = await self._connection.fetch(options.query)
        if options.query_topic is not None:
            size = sum(len(str(value)) for row in rows for value in row.values())
            self.received([dict(row) for row in rows], size, options.query_topic)
        return NetworkStatus.CONNECTED

    async def stop_network(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.remove_termination_listener(self._ended)
            connection.terminate()  # close() would wait for a server that does not answer

    def _notified(self, connection: Any, process: int, channel: str, payload: str) -> None:
        self.received_bytes(payload.encode(), self.options.payload, self.options.topic)

    def _ended(self, connection: Any) -> None:
        self.connection_lost("the server has closed the connection")

    @contextlib.asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        """Tell what trying again does not mend from other errors.

        Raises:
            PermanentFailure: the login is wrong, or must not do this.
        """
        library = self._library
        async with self.answering(library.PostgresError, library.InterfaceError):
            try:
                yield
            except (
                library.InvalidAuthorizationSpecificationError,
                library.InsufficientPrivilegeError,
            ) as error:
                raise PermanentFailure(self.shown(error)) from None
