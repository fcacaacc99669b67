"""PostgreSQL: LISTEN, and a query as the check. The client reports a loss by a callback."""

from __future__ import annotations

import asyncpg

from chronopype_mp import NetworkStatus, PermanentFailure
from tests.system.feeds.base import PATIENCE, USER, Feed


class Postgres(Feed):
    expected_errors = (
        OSError,
        TimeoutError,
        asyncpg.PostgresConnectionError,
        asyncpg.CannotConnectNowError,  # the server starts or stops
        asyncpg.InterfaceError,  # the connection is closed
    )
    connection: asyncpg.Connection | None = None

    async def check_network(self) -> NetworkStatus:
        if self.connection is None:
            return NetworkStatus.NOT_CONNECTED
        await self.connection.fetchval("SELECT 1")
        return NetworkStatus.CONNECTED

    async def start_network(self) -> None:
        try:
            self.connection = await asyncpg.connect(
                host="127.0.0.1",
                port=self.port,
                user=USER,
                password=self.password,
                database="postgres",
                timeout=PATIENCE,
                ssl=False,
            )
        except asyncpg.InvalidAuthorizationSpecificationError as error:
            raise PermanentFailure(str(error)) from error
        self.connection.add_termination_listener(
            lambda connection: self.connection_lost("the server has closed the connection")
        )
        await self.connection.add_listener("prices", lambda *message: None)

    async def stop_network(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.terminate()  # close() waits for a server that has stopped
