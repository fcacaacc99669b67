"""The ready-made processor ``tcp``, with a server in a process of its own, and with small ones."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from chronopype_mp import ConfigError, NetworkStatus
from chronopype_mp.testing import ProcessorTest
from examples.certificate import make_certificate
from tests.system.backends import KINDS, python
from tests.waiting import run
from tests.workers.ordeal import QUICK, Ordeal
from workers import Secret
from workers._tls import Tls
from workers.tcp import TcpOptions, TcpProcessor

SERVER = """
import socketserver, sys

class Answers(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(b"pong\\r\\n")

class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

Server(("127.0.0.1", int(sys.argv[1])), Answers).serve_forever()
"""

KIND = KINDS["http"]._replace(
    name="tcp",
    feed="workers.tcp:TcpProcessor",
    command=python(SERVER),
    lost="ConnectionError: the server has closed the connection",
    silent="check_network: TimeoutError: no answer within 1 s",
    refused="",
)


def test_tcp_survives_what_may_happen_to_its_server(ordeal: Ordeal) -> None:
    def options(port: int, password: str) -> TcpOptions:
        secret = Secret(f"{password}\n")
        return TcpOptions(
            host="127.0.0.1", port=port, send=(secret,), probe=secret, topic="a", **QUICK
        )

    ordeal(KIND, options, topic="a")


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def connecting(
    handler: Handler, ssl: Any = None, **given: Any
) -> AsyncIterator[ProcessorTest[TcpProcessor]]:
    """Run a processor with a server in this process."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=ssl)
    async with server:
        port = server.sockets[0].getsockname()[1]
        options = TcpOptions(host="127.0.0.1", port=port, **given)
        async with ProcessorTest(TcpProcessor(options)) as test:
            yield test


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with what has come."""
    with contextlib.suppress(OSError):
        while data := await reader.read(1000):
            writer.write(data)
    writer.close()


def test_what_is_sent_first_is_answered_line_by_line() -> None:
    """A line end, of whichever kind, is none of the message's."""

    async def scenario() -> None:
        sent = (Secret("one\r\ntwo\n"), Secret("\n"))
        async with connecting(echo, send=sent) as test:
            await test.until(lambda: test.processor.payloads == 3)
            assert test.processor.payload_bytes == len("onetwo")

    run(scenario())


def test_a_line_that_is_too_long_ends_the_connection() -> None:
    """A chunk is none."""

    async def scenario() -> None:
        text = "x" * 1000
        async with connecting(echo, send=(Secret(text),), max_bytes=100) as test:
            await test.until(lambda: NetworkStatus.CONNECTED in test.transitions)
            lost = await test.reaches(NetworkStatus.NOT_CONNECTED)
            assert "ConnectionError: a line has more than 100 bytes" in lost.reason
        given: dict[str, Any] = {"framing": "chunks", "max_bytes": 100}
        async with connecting(echo, send=(Secret(text),), **given) as test:
            await test.until(lambda: test.processor.payload_bytes == len(text))
            assert test.processor.payloads >= 10
            assert test.transitions[-1] == NetworkStatus.CONNECTED

    run(scenario())


def test_a_server_that_does_not_answer_the_probe_is_never_connected() -> None:
    """It has accepted the connection."""

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def scenario() -> None:
        async with connecting(mute, probe=Secret("ping\n"), timeout=0.1) as test:
            await test.until(lambda: NetworkStatus.CONNECTING in test.transitions)
            lost = await test.reaches(NetworkStatus.NOT_CONNECTED)
            assert "TimeoutError: no answer within 0.1 s" in lost.reason
            assert NetworkStatus.CONNECTED not in test.transitions
        async with connecting(mute) as test:
            await test.reaches(NetworkStatus.CONNECTED)

    run(scenario())


def test_tls_is_used_and_verified(tmp_path: Path) -> None:
    """With a certificate that is not trusted, there is no connection."""
    server_context, certificate = make_certificate()

    async def scenario() -> None:
        ca_file = tmp_path / "ca.pem"
        ca_file.write_text(certificate)
        tls = Tls(ca_file=str(ca_file))
        async with connecting(echo, server_context, tls=tls, send=(Secret("a\n"),)) as test:
            await test.until(lambda: test.processor.payloads == 1)
        async with connecting(echo, server_context, tls=Tls()) as test:
            await test.until(lambda: NetworkStatus.CONNECTING in test.transitions)
            lost = await test.reaches(NetworkStatus.NOT_CONNECTED)
            assert "certificate verify failed" in lost.reason

    run(scenario())


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"host": ""}, "host = '': must not be empty"),
        ({"port": 65536}, "port = 65536: must be from 1 to 65535"),
        ({"max_bytes": 0}, "max_bytes = 0: must be"),
        ({"stale_after": -1.0}, "stale_after = -1.0: must be"),
    ],
)
def test_wrong_options_are_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TcpOptions(**{"host": "x", "port": 1, **given})
    assert problem in str(caught.value)
