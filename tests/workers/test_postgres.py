"""The ready-made processor ``postgres``, with a server in its own process."""

from __future__ import annotations

from typing import Any

import pytest

from chronopype_mp import ConfigError, NetworkStatus
from chronopype_mp.testing import ProcessorTest
from tests.system.backends import KINDS, PASSWORD, USER, Data, listening
from tests.waiting import run
from tests.workers.ordeal import QUICK, Ordeal
from workers._base import Secret, Url
from workers.postgres import PostgresOptions, PostgresProcessor

asyncpg = pytest.importorskip("asyncpg")

KIND = KINDS["postgres"]._replace(
    feed="workers.postgres:PostgresProcessor",
    silent="check_network: TimeoutError: no answer within 1 s",
    refused="InvalidPasswordError: password authentication failed",
)


def options(port: int, password: str, **given: Any) -> PostgresOptions:
    return PostgresOptions(
        url=Url(f"postgresql://127.0.0.1:{port}/postgres"),
        password=Secret(password),
        use_tls=False,
        **{"user": USER, **QUICK, **given},
    )


def test_postgres_survives_what_may_happen_to_its_server(ordeal: Ordeal) -> None:
    """It emits the rows of its query with every check."""
    given: Any = {"query": "SELECT 1 AS n, now() AS at", "query_topic": "rows"}
    ordeal(KIND, lambda port, password: options(port, password, **given), topic="rows")


def test_notifications_are_received(data: Data) -> None:
    """An error of the query ends the connection; that it is not permitted ends all attempts."""

    async def scenario(port: int) -> None:
        async with ProcessorTest(PostgresProcessor(options(port, PASSWORD))) as test:
            # A server that starts refuses connections at first.
            await test.reaches(NetworkStatus.CONNECTED, within=60.0)
        server = await asyncpg.connect(
            host="127.0.0.1", port=port, user=USER, password=PASSWORD, database="postgres"
        )
        await server.execute("DROP TABLE IF EXISTS things; DROP ROLE IF EXISTS reader")
        await server.execute(
            "CREATE TABLE things (); CREATE ROLE reader LOGIN PASSWORD 'reader-password'"
        )
        await server.execute("GRANT SELECT ON things TO reader")
        given: Any = {"listen": ("prices", "Orders"), "query": "SELECT * FROM things"}
        given |= {"user": "reader", "payload": "json"}
        processor = PostgresProcessor(options(port, "reader-password", **given))
        async with ProcessorTest(processor) as test:
            await test.reaches(NetworkStatus.CONNECTED)
            await server.execute("""NOTIFY prices, '1'; NOTIFY "Orders", '[2]'; NOTIFY prices""")
            await test.until(lambda: (processor.payloads, processor.rejected) == (2, 1))

            await server.execute("ALTER TABLE things RENAME TO hidden")
            lost = await test.reaches(NetworkStatus.NOT_CONNECTED, within=1.0)
            assert 'UndefinedTableError: relation "things" does not exist' in lost.reason
            await server.execute("ALTER TABLE hidden RENAME TO things")
            await test.reaches(NetworkStatus.CONNECTED, within=1.0)
            await server.execute("REVOKE ALL ON things FROM reader")
            refused = await test.reaches(NetworkStatus.ERROR, within=5.0)
            assert "PermanentFailure: InsufficientPrivilegeError" in refused.reason
        await server.close()

    with listening(KIND, data) as server:
        run(scenario(server.port))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"url": Url("redis://x/y")}, "must begin with postgresql:// or postgres:// and a host"),
        (
            {"url": Url("postgres://x")},
            "url = postgres://x: must end with the name of the database",
        ),
        ({"timeout": 0}, "timeout = 0: must be"),
    ],
)
def test_wrong_options_are_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PostgresOptions(**{"url": Url("postgres://x/y"), **given})
    assert problem in str(caught.value)
