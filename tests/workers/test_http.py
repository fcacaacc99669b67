"""The ready-made processor ``http``, with a server in a process of its own, and with small ones."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from chronopype_mp import ConfigError, NetworkStatus
from chronopype_mp.testing import ProcessorTest
from examples.certificate import make_certificate
from tests.system.backends import KINDS, python
from tests.waiting import run
from tests.workers.ordeal import QUICK, Ordeal
from workers._base import Secret, Url
from workers._tls import Tls
from workers.http import HttpOptions, HttpProcessor

SERVER = """
import sys
from aiohttp import web

async def price(request):
    if request.headers.get("X-Key") != sys.argv[3]:
        raise web.HTTPUnauthorized
    return web.json_response({"data": [{"price": 1.5}]})

app = web.Application()
app.router.add_get("/price", price)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, shutdown_timeout=0.1)
"""

KIND = KINDS["http"]._replace(
    feed="workers.http:HttpProcessor",
    command=python(SERVER),
    lost="check_network: ConnectionError: ",
    silent="check_network: TimeoutError: no answer within 1 s",
    refused="the server answered 401 Unauthorized; check the user, password or key",
)


def options(port: int, password: str) -> HttpOptions:
    return HttpOptions(
        url=Url(f"http://127.0.0.1:{port}/price?token={password}"),
        headers={"X-Key": Secret(password)},
        expect_json={"data.0.price": 1.5},
        payload="json",
        json_path="data.0.price",
        topic="prices",
        **QUICK,
    )


def test_http_survives_what_may_happen_to_its_server(ordeal: Ordeal) -> None:
    ordeal(KIND, options, topic="prices")


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def serving(handler: Handler, ssl_context: Any = None) -> AsyncIterator[int]:
    """Answer every request with a handler; yield the port."""
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def outcome(handler: Handler, **given: Any) -> tuple[NetworkStatus, str]:
    """Return the status that a first attempt ends with, and its reason."""
    async with serving(handler) as port:
        return await attempt(Url(f"http://127.0.0.1:{port}/"), **given)


async def attempt(url: Url, **given: Any) -> tuple[NetworkStatus, str]:
    async with ProcessorTest(HttpProcessor(HttpOptions(url=url, **given))) as test:
        ends = (NetworkStatus.CONNECTED, NetworkStatus.ERROR)
        await test.until(
            lambda: (
                test.transitions[-1] in ends
                or test.transitions[-2:] == [NetworkStatus.CONNECTING, NetworkStatus.NOT_CONNECTED]
            )
        )
        last = test.transitions[-1]
        return last.status, last.reason


@pytest.mark.parametrize(
    ("status", "headers", "reason"),
    [
        (500, {}, "ConnectionError: the server answered 500 Internal Server Error, not 2xx"),
        (301, {"Location": "/x"}, "the server answered 301 Moved Permanently, not 2xx"),
        (429, {"Retry-After": "7"}, "retry after 7 s: the server answered 429 Too Many Requests"),
        (
            503,
            {
                "Retry-After": "Wed, 21 Oct 2015 07:28:10 GMT",
                "Date": "Wed, 21 Oct 2015 07:28:00 GMT",
            },
            "retry after 10 s",
        ),
        (503, {"Retry-After": "soon"}, "the server answered 503 Service Unavailable, not 2xx"),
        (299, {}, ""),
    ],
)
def test_a_status_decides_on_the_next_attempt(
    status: int, headers: dict[str, str], reason: str
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status, headers=headers)

    after, found = run(outcome(handler))
    assert reason in found
    assert (after is NetworkStatus.CONNECTED) == (status == 299)


def test_a_refusal_may_be_what_is_expected() -> None:
    """Then it is well, and nothing else is."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=403)

    assert run(outcome(handler, expect_status=(403,)))[0] is NetworkStatus.CONNECTED
    after, reason = run(outcome(handler, expect_status=(200, 204)))
    assert after is NetworkStatus.ERROR
    assert "PermanentFailure: the server answered 403 Forbidden" in reason


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"expect_body": r'"open\|closed"'}, ""),
        ({"expect_body": "^open"}, "the body has no match of '^open'"),
        ({"expect_json": {"a.1.state": "open", "b": True}}, ""),
        ({"expect_json": {"a.1.state": "closed"}}, "a.1.state is 'open', not 'closed'"),
        ({"expect_json": {"a.2.state": "open"}}, "the JSON has no 'a.2.state': '2' is missing"),
        ({"expect_json": {"b.c": 1}}, "the JSON has no 'b.c': 'c' is missing"),
        ({"max_bytes": 10}, "the body has more than 10 bytes"),
        ({"payload": "json", "json_path": "c"}, "the JSON has no 'c': 'c' is missing"),
    ],
)
def test_a_body_is_what_is_expected(given: dict[str, Any], reason: str) -> None:
    body = '{"a": [1, {"state": "open"}], "b": true, "states": "open|closed"}'

    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=body)

    after, found = run(outcome(handler, **given))
    assert reason in found
    assert (after is NetworkStatus.CONNECTED) == (not reason)


def test_a_body_that_is_not_json_is_a_loss() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text="<html>")

    after, reason = run(outcome(handler, payload="json"))
    assert after is NetworkStatus.NOT_CONNECTED
    assert "received 6 bytes that are not JSON" in reason


def test_the_request_is_the_one_of_the_options() -> None:
    """Redirects are followed on demand only."""
    seen = []

    async def handler(request: web.Request) -> web.Response:
        if request.path == "/":
            raise web.HTTPTemporaryRedirect("/there")
        seen.append((request.method, request.headers["X-Key"], await request.text()))
        return web.Response()

    given = {"method": "PUT", "headers": {"X-Key": Secret("k")}, "body": Secret("b")}
    assert run(outcome(handler, follow_redirects=True, **given))[0] is NetworkStatus.CONNECTED
    assert seen == [("PUT", "k", "b")]


def test_a_request_that_is_not_answered_is_not_repeated() -> None:
    """Neither in a new connection nor in one that was used before."""
    requests = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""):
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
        writer.close()

    async def scenario() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            url = Url(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
            async with ProcessorTest(HttpProcessor(HttpOptions(url=url))) as test:
                await test.reaches(NetworkStatus.CONNECTED)
                lost = await test.reaches(NetworkStatus.NOT_CONNECTED, within=20.0)
                assert "ClientConnectionError: Server disconnected" in lost.reason
                assert len(requests) == 2

    run(scenario())


def test_a_certificate_is_verified(tmp_path: Path) -> None:
    """Unless the options say otherwise; a wrong file is named, and tried once."""
    server_context, certificate = make_certificate()

    async def handler(request: web.Request) -> web.Response:
        return web.Response()

    async def scenario() -> None:
        ca_file = tmp_path / "ca.pem"
        ca_file.write_text(certificate)
        async with serving(handler, server_context) as port:
            url = Url(f"https://127.0.0.1:{port}/")
            after, reason = await attempt(url)
            assert after is NetworkStatus.NOT_CONNECTED
            assert "certificate verify failed" in reason
            for tls in (Tls(ca_file=str(ca_file)), Tls(verify=False)):
                assert (await attempt(url, tls=tls))[0] is NetworkStatus.CONNECTED
            after, reason = await attempt(url, tls=Tls(ca_file=str(tmp_path / "none.pem")))
            assert after is NetworkStatus.ERROR
            assert f"the TLS file {tmp_path}/none.pem cannot be used: " in reason

    run(scenario())


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"expect_body": "("}, "expect_body = '(': is no regular expression"),
        ({"expect_status": (99,)}, "expect_status = (99,): must be from 100 to 599"),
        ({"json_path": "a"}, "json_path = 'a': needs payload = \"json\""),
        ({"max_bytes": 0}, "max_bytes = 0: must be"),
        ({"url": Url("ws://x:1")}, "must begin with http:// or https:// and a host"),
    ],
)
def test_wrong_options_are_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        HttpOptions(**{"url": Url("http://x"), **given})
    assert problem in str(caught.value)
