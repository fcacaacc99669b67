"""The rules of the fake exchange of `examples/exchange.py`, and its feeds over real TLS."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets import ConnectionClosed, InvalidStatus, Response
from websockets.asyncio.client import ClientConnection, connect

from tests.system.scripts import Scripts

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def exchange(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("exchange")


def statuses(gate: Any, *times: float) -> list[int]:
    """Return the answers to attempts; 101 for one that is admitted."""
    answers = [gate.admit("demo", now) for now in times]
    return [101 if answer is None else answer.status for answer in answers]


def test_connects_are_limited_in_a_window_that_slides(exchange: Any) -> None:
    gate = exchange.Gate(limit=2, window=5.0)
    assert statuses(gate, 0.0, 2.0) == [101, 101]
    assert gate.admit("demo", 3.0) == (429, "too many connects", 2.0)
    assert statuses(gate, 5.0, 6.9, 7.0) == [101, 429, 101]


def test_a_client_that_ignores_the_limit_is_banned(exchange: Any) -> None:
    gate = exchange.Gate(limit=1, window=5.0, patience=2, ban=10.0)
    assert statuses(gate, 0.0, 0.1, 0.2, 0.3) == [101, 429, 429, 418]
    assert statuses(gate, 6.0, 10.25, 10.35) == [418, 418, 101]


def test_a_client_that_waits_as_it_was_told_is_not_banned(exchange: Any) -> None:
    gate = exchange.Gate(limit=1, window=5.0, patience=1)
    assert statuses(gate, 0, 1, 5, 6, 10, 11, 15) == [101, 429, 101, 429, 101, 429, 101]


def test_maintenance_refuses_everybody_until_it_ends(exchange: Any) -> None:
    gate = exchange.Gate()
    gate.close(10.0, 4.0)
    assert gate.admit("demo", 11.0) == (503, "maintenance", 3.0)
    assert statuses(gate, 13.9, 14.0) == [503, 101]


def test_an_unknown_key_is_refused_for_good_and_not_counted(exchange: Any) -> None:
    gate = exchange.Gate(limit=1)
    assert gate.admit("wrong", 0.0) == (401, "unknown key", None)
    assert gate.admit(None, 0.0) == (401, "unknown key", None)
    assert statuses(gate, 0.0) == [101]


Visit = Callable[[dict[str, str], str], Awaitable[None]]


def visit(exchange: Any, names: list[str], what: Visit) -> None:
    """Serve feeds, which send one quote to each client, and call ``what`` with the addresses."""

    async def send_quote(client: Any) -> None:
        await client.send("quote")

    async def run() -> None:
        async with asyncio.timeout(30.0), exchange.serve_exchange(names, send_quote) as addresses:
            await what(addresses["feeds"], addresses["ca"])

    asyncio.run(run())


async def reach(url: str, ca: str | None, key: str = "demo") -> ClientConnection:
    tls = ssl.create_default_context(cadata=ca)
    tls.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    return await connect(url, ssl=tls, additional_headers={"X-API-Key": key})


async def reason_of_end(client: ClientConnection) -> str | None:
    """Read until the server closes the connection. Return the reason that it gives."""
    try:
        while True:
            await client.recv()
    except ConnectionClosed:
        return client.close_reason


async def refused(url: str, ca: str, key: str = "demo") -> Response:
    with pytest.raises(InvalidStatus) as caught:
        await reach(url, ca, key)
    return caught.value.response


def test_a_feed_sends_quotes_and_answers_pings(exchange: Any) -> None:
    async def talk(feeds: dict[str, str], ca: str) -> None:
        async with await reach(feeds["calm-1"], ca) as client:
            assert await client.recv() == "quote"
            await client.send("ping")
            assert await client.recv() == "pong"

    visit(exchange, ["calm-1"], talk)


def test_a_client_needs_the_certificate_and_a_valid_key_and_path(exchange: Any) -> None:
    async def try_all(feeds: dict[str, str], ca: str) -> None:
        with pytest.raises(ssl.SSLCertVerificationError, match="self-signed"):
            await reach(feeds["calm-1"], None)
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            await reach(feeds["calm-1"].replace("127.0.0.1", "localhost"), ca)
        answer = await refused(feeds["calm-1"], ca, key="wrong")
        assert (answer.status_code, "Retry-After" in answer.headers) == (401, False)
        answer = await refused(feeds["calm-1"] + "x", ca)
        assert (answer.status_code, answer.body) == (404, b"no feed /calm-1x; there are /calm-1\n")

    visit(exchange, ["calm-1"], try_all)


def test_a_client_that_sends_nothing_is_closed(
    exchange: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "SILENCE", 0.1)

    async def be_silent(feeds: dict[str, str], ca: str) -> None:
        client = await reach(feeds["calm-1"], ca)
        assert await reason_of_end(client) == "nothing sent for 0.1 s"

    visit(exchange, ["calm-1"], be_silent)


@pytest.mark.parametrize(
    ("name", "reason", "status", "longest_wait"),
    [
        ("rate-limit", "service restart", 429, 6),
        ("ban", "banned", 418, 4),
        ("maintenance", "maintenance", 503, 4),
    ],
)
def test_trouble_drops_the_client_and_says_when_to_come_back(
    exchange: Any,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    reason: str,
    status: int,
    longest_wait: int,
) -> None:
    monkeypatch.setattr(exchange, "TROUBLE_AT", 0.0)

    async def be_dropped(feeds: dict[str, str], ca: str) -> None:
        client = await reach(feeds[name], ca)
        assert await reason_of_end(client) == reason
        answer = await refused(feeds[name], ca)
        assert answer.status_code == status
        assert 1 <= int(answer.headers["Retry-After"]) <= longest_wait

    visit(exchange, [name], be_dropped)


def test_a_flapping_feed_drops_its_first_clients(exchange: Any) -> None:
    async def come_again(feeds: dict[str, str], ca: str) -> None:
        for _ in range(exchange.FLAPS):
            client = await reach(feeds["flapping"], ca)
            assert await reason_of_end(client) == "overloaded"
        async with await reach(feeds["flapping"], ca) as client:
            assert await client.recv() == "quote"

    visit(exchange, ["flapping"], come_again)


def test_the_certificate_leaves_no_file(exchange: Any, short_path: Path) -> None:
    _, ca = exchange.make_certificate()
    assert ca.startswith("-----BEGIN CERTIFICATE-----")
    assert not list(short_path.iterdir())


def wait_until_stopped(process: subprocess.Popen[bytes]) -> None:
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), status


def test_a_stopped_process_is_continued_or_takes_its_helper_along(scripts: Scripts) -> None:
    source = """
        import asyncio, sys
        sys.path.insert(0, sys.argv[1])
        from exchange import stop_this_process

        async def main():
            await stop_this_process(0.5)
            print("continued", flush=True)
            async with asyncio.timeout(1.0):
                await stop_this_process(600)

        asyncio.run(main())
    """
    script = scripts.start(source, str(EXAMPLES))
    wait_until_stopped(script.process)
    script.wait_for("continued")
    wait_until_stopped(script.process)
    script.process.send_signal(signal.SIGCONT)
    assert script.wait() == 1
    assert "TimeoutError" in script.output


def test_a_server_that_is_stopped_can_be_closed(exchange: Any) -> None:
    processes = importlib.import_module("server_process")

    async def run() -> int:
        server = await processes.ServerProcess.launch("--exchange", "dead-socket")
        server._process.send_signal(signal.SIGSTOP)
        await server.close()
        return int(server._process.returncode)

    assert asyncio.run(run()) == 0
