"""The ready-made processor ``redis``, with a server in its own process."""

from __future__ import annotations

from typing import Any

import pytest

from chronopype_mp import ConfigError, NetworkStatus
from chronopype_mp.testing import ProcessorTest
from tests.system.backends import KINDS, PASSWORD, Data, listening
from tests.waiting import run
from tests.workers.ordeal import QUICK, Ordeal
from workers._base import Secret, Url
from workers.redis import RedisOptions, RedisProcessor

client = pytest.importorskip("redis.asyncio")

KIND = KINDS["redis"]._replace(
    feed="workers.redis:RedisProcessor",
    lost="ConnectionError: ConnectionError: Connection closed by server",
    silent="TimeoutError: no answer within 1 s",
)


def options(port: int, password: str, **given: Any) -> RedisOptions:
    return RedisOptions(
        url=Url(f"redis://127.0.0.1:{port}"), password=Secret(password), **{**QUICK, **given}
    )


def test_redis_survives_what_may_happen_to_its_server(ordeal: Ordeal) -> None:
    ordeal(KIND, lambda port, password: options(port, password, channels=("prices",)))


def test_messages_and_new_entries_are_received(data: Data) -> None:
    """After a loss, streams go on with the next entry. Without permission, there is one attempt."""

    async def scenario(port: int) -> None:
        server = client.Redis(port=port, password=PASSWORD)
        await server.xadd("orders", {"n": "old"})
        given: Any = {"channels": ("a",), "patterns": ("b.*",), "streams": ("orders", "more")}
        processor = RedisProcessor(options(port, PASSWORD, payload="json", **given))
        async with ProcessorTest(processor) as test:
            await test.reaches(NetworkStatus.CONNECTED)
            for channel, message in {"a": "1", "b.c": "[2]", "b": "unseen", "b.d": "{"}.items():
                await server.publish(channel, message)
            await test.until(lambda: (processor.payloads, processor.rejected) == (2, 1))
            await server.xadd("orders", {"n": "1", "of": "2"})
            await test.until(lambda: processor.payload_bytes == len("1[2]12"))

            await server.client_kill_filter(_type="normal", skipme=True)
            await test.reaches(NetworkStatus.NOT_CONNECTED, within=1.0)
            await server.xadd("more", {"n": "missed"})
            await test.reaches(NetworkStatus.CONNECTED, within=1.0)
            await test.until(lambda: processor.payload_bytes == len("1[2]12missed"))

            await server.execute_command("ACL", "SETUSER", "default", "resetchannels")
            await test.reaches(NetworkStatus.ERROR, within=5.0)
            assert "PermanentFailure: NoPermissionError" in test.transitions[-1].reason
        await server.aclose()

    with listening(KIND, data) as server:
        run(scenario(server.port))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"url": Url("http://x")}, "url = http://x: must begin with redis:// or rediss://"),
        ({"url": Url("redis://x/a")}, "url = redis://x/a: must end with the number"),
        ({"url": Url("redis://a:b@x"), "user": "c"}, "user = 'c': the URL has a login, too"),
        ({"check_interval": 0}, "check_interval = 0: must be"),
    ],
)
def test_wrong_options_are_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RedisOptions(**{"url": Url("redis://x"), **given})
    assert problem in str(caught.value)
