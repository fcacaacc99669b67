"""The ready-made processor ``nats``, with a server in its own process."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from chronopype_mp import ConfigError, NetworkStatus
from chronopype_mp.testing import ProcessorTest
from examples.certificate import make_certificate
from tests.system.backends import PASSWORD, USER, Data, Kind, listening, program
from tests.waiting import run
from tests.workers.ordeal import QUICK, Ordeal
from workers._base import Secret, Url
from workers.nats import NatsOptions, NatsProcessor

Client = pytest.importorskip("nats.aio.client").Client

SETTINGS = f"""
authorization {{
    users = [
        {{ user: {USER}, password: "{PASSWORD}" }}
        {{ user: reader, password: "{PASSWORD}", permissions: {{ subscribe: ["a"] }} }}
    ]
}}
"""


def _nats(directory: Path, port: int) -> list[str]:
    settings = directory / "settings"
    settings.write_text(SETTINGS)
    return [program("nats-server"), "-a", "127.0.0.1", "-p", str(port), "-c", str(settings)]


KIND = Kind(
    name="nats",
    feed="workers.nats:NatsProcessor",
    client="nats",
    programs=("nats-server",),
    command=_nats,
    lost="UnexpectedEOF: nats: unexpected EOF",
    silent="check_network: TimeoutError: no answer within 1 s",
    refused="Authorization Violation",
)


def options(port: int, password: str, **given: Any) -> NatsOptions:
    return NatsOptions(
        url=Url(f"nats://127.0.0.1:{port}"),
        password=Secret(password),
        **{"user": USER, **QUICK, **given},
    )


def test_nats_survives_what_may_happen_to_its_server(ordeal: Ordeal) -> None:
    ordeal(KIND, lambda port, password: options(port, password, subscribe=("prices.>",)))


def test_messages_are_received(data: Data) -> None:
    """A subscription that is not permitted is tried once."""

    async def scenario(port: int) -> None:
        other = Client()
        await other.connect(f"nats://{USER}:{PASSWORD}@127.0.0.1:{port}")
        processor = NatsProcessor(
            options(port, PASSWORD, subscribe=("a", "b.*"), payload="json", queue="q")
        )
        async with ProcessorTest(processor) as test:
            await test.reaches(NetworkStatus.CONNECTED)
            for subject, message in {"a": "1", "b.c": "[2]", "b": "unseen", "b.d": "{"}.items():
                await other.publish(subject, message.encode())
            await test.until(lambda: (processor.payloads, processor.rejected) == (2, 1))
        await other.close()

        reader = NatsProcessor(options(port, PASSWORD, user="reader", subscribe=("a", "b")))
        async with ProcessorTest(reader) as test:
            await test.until(lambda: test.transitions[-1] == NetworkStatus.ERROR)
            reason = test.transitions[-1].reason
            assert "PermanentFailure: " in reason
            assert 'permissions violation for subscription to "b"' in reason.lower()

    with listening(KIND, data) as server:
        run(scenario(server.port))


def test_a_certificate_is_verified() -> None:
    """The client's close, which would wait forever then, does not hold up the next attempt."""
    context, _ = make_certificate()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"tls_required": true, "max_payload": 1000}\r\n')
        with contextlib.suppress(OSError):
            await writer.start_tls(context)
        writer.close()

    async def scenario() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            given = NatsOptions(url=Url(f"tls://127.0.0.1:{port}"))
            async with ProcessorTest(NatsProcessor(given)) as test:
                await test.until(lambda: NetworkStatus.CONNECTING in test.transitions)
                lost = await test.reaches(NetworkStatus.NOT_CONNECTED)
                assert "certificate verify failed" in lost.reason

    run(scenario())


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"url": Url("http://x")}, "url = http://x: must begin with nats:// or tls:// and a host"),
        ({"url": Url("nats://a:b@x"), "password": Secret("c")}, "the URL has a login, too"),
        ({"timeout": 0}, "timeout = 0: must be"),
    ],
)
def test_wrong_options_are_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        NatsOptions(**{"url": Url("nats://x"), **given})
    assert problem in str(caught.value)
