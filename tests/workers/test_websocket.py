"""The ready-made processor ``websocket``, with a server in its own process, and with small ones."""

from __future__ import annotations

import contextlib
import http
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from chronopype_mp import ConfigError, NetworkStatus
from chronopype_mp.testing import ProcessorTest
from examples.certificate import make_certificate
from tests.system.backends import KINDS, USER
from tests.waiting import run
from tests.workers.ordeal import QUICK, Ordeal
from workers._base import Secret, Url
from workers._tls import Tls
from workers.websocket import WebSocketOptions, WebSocketProcessor

KIND = KINDS["websocket"]._replace(
    feed="workers.websocket:WebSocketProcessor",
    lost="ConnectionError: ConnectionClosedError: ",
    silent="check_network: TimeoutError: no answer within 1 s",
    refused="the server answered 401 Unauthorized; check the user, password or key",
)


def options(port: int, password: str) -> WebSocketOptions:
    return WebSocketOptions(
        url=Url(f"ws://{USER}:{password}@127.0.0.1:{port}/feed?token={password}"),
        headers={"X-Key": Secret(password)},
        subscribe=(Secret(password),),
        payload="json",
        topic="prices",
        **QUICK,
    )


def test_websocket_survives_what_may_happen_to_its_server(ordeal: Ordeal) -> None:
    ordeal(KIND, options, topic="prices")


Handler = Callable[[ServerConnection], Awaitable[None]]


async def silent(connection: ServerConnection) -> None:
    await connection.wait_closed()


@contextlib.asynccontextmanager
async def connecting(
    handler: Handler = silent, *, process_request: Any = None, ssl: Any = None, **given: Any
) -> AsyncIterator[ProcessorTest[WebSocketProcessor]]:
    """Run a processor with a server in this process."""
    async with serve(handler, "127.0.0.1", 0, process_request=process_request, ssl=ssl) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        scheme = "ws" if ssl is None else "wss"
        options = WebSocketOptions(url=Url(f"{scheme}://127.0.0.1:{port}/"), **given)
        async with ProcessorTest(WebSocketProcessor(options)) as test:
            yield test


def test_messages_are_sent_in_their_order_and_what_does_not_decode_is_dropped() -> None:
    """The heartbeats follow."""
    got: list[str | bytes] = []

    async def handler(connection: ServerConnection) -> None:
        await connection.send("pong")
        await connection.send('{"price": 1}')
        async for message in connection:
            got.append(message)

    async def scenario() -> None:
        given: dict[str, Any] = {
            "subscribe": (Secret("a"), Secret("b")),
            "heartbeat": Secret("c"),
            "heartbeat_interval": 0.01,
            "payload": "json",
        }
        async with connecting(handler, **given) as test:
            await test.until(lambda: len(got) >= 4)
            await test.until(lambda: test.processor.payloads == 1)
            assert test.processor.rejected == 1
            assert test.processor.payload_bytes == len('{"price": 1}')
        assert got[:4] == ["a", "b", "c", "c"]

    run(scenario())


def test_silence_is_a_loss() -> None:
    """Although the server answers pings."""

    async def scenario() -> None:
        async with connecting(stale_after=15.0) as test:
            await test.reaches(NetworkStatus.CONNECTED)
            lost = await test.reaches(NetworkStatus.NOT_CONNECTED, within=20.0)
            assert lost.reason.startswith("silent for 15 s")

    run(scenario())


def test_a_close_may_be_a_refusal() -> None:
    """Other closes are losses, even good ones; the reason has the code."""

    async def handler(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.close(4001, "bad key")

    async def scenario(*codes: int) -> tuple[NetworkStatus, str]:
        given = {"subscribe": (Secret("key"),), "refused_codes": codes}
        async with connecting(handler, **given) as test:
            ends = (NetworkStatus.ERROR, NetworkStatus.NOT_CONNECTED)
            await test.until(
                lambda: (
                    NetworkStatus.CONNECTING in test.transitions and test.transitions[-1] in ends
                )
            )
            return test.transitions[-1].status, test.transitions[-1].reason

    status, reason = run(scenario(4001))
    assert status is NetworkStatus.ERROR
    assert "PermanentFailure: ConnectionClosedError: received 4001 (private use) bad <secret>" in (
        reason
    )
    status, reason = run(scenario(4002))
    assert status is NetworkStatus.NOT_CONNECTED
    assert "received 4001 (private use)" in reason


@pytest.mark.parametrize(
    ("status", "headers", "reason"),
    [
        (403, {}, "PermanentFailure: the server answered 403 Forbidden"),
        (429, {"Retry-After": "7"}, "retry after 7 s: the server answered 429 Too Many Requests"),
        (500, {}, "ConnectionError: the server answered 500 Internal Server Error, not 101"),
        (302, {"Location": "ws://127.0.0.2:1/"}, "cannot follow cross-origin redirect"),
    ],
)
def test_the_handshake_decides_on_the_next_attempt(
    status: int, headers: dict[str, str], reason: str
) -> None:
    """The headers do not follow a redirect to another server."""

    def answer(connection: ServerConnection, request: Any) -> Any:
        response = connection.respond(http.HTTPStatus(status), "")
        response.headers.update(headers)
        return response

    async def scenario() -> None:
        async with connecting(process_request=answer) as test:
            after = NetworkStatus.ERROR if status == 403 else NetworkStatus.NOT_CONNECTED
            await test.until(lambda: NetworkStatus.CONNECTING in test.transitions)
            assert reason in (await test.reaches(after)).reason

    run(scenario())


def test_a_certificate_is_verified(tmp_path: Path) -> None:
    """Unless the options say otherwise."""
    server_context, certificate = make_certificate()

    async def scenario() -> None:
        ca_file = tmp_path / "ca.pem"
        ca_file.write_text(certificate)
        async with connecting(ssl=server_context, tls=Tls(ca_file=str(ca_file))) as test:
            await test.reaches(NetworkStatus.CONNECTED)
        async with connecting(ssl=server_context) as test:
            await test.until(lambda: NetworkStatus.CONNECTING in test.transitions)
            lost = await test.reaches(NetworkStatus.NOT_CONNECTED)
            assert "certificate verify failed" in lost.reason

    run(scenario())


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"url": Url("http://x")}, "url = http://x: must begin with ws:// or wss:// and a host"),
        ({"stale_after": 0.0}, "stale_after = 0.0: must be"),
        ({"heartbeat_interval": 0.0}, "heartbeat_interval = 0.0: must be"),
        ({"max_bytes": 0}, "max_bytes = 0: must be"),
    ],
)
def test_wrong_options_are_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        WebSocketOptions(**{"url": Url("ws://x"), **given})
    assert problem in str(caught.value)
