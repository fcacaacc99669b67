"""Notifications: to a real HTTP server, by a real program, and when these hang."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from chronopype_mp import ConfigError
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.worker_events import NetworkChanged, WorkerQuarantined
from chronopype_mp.fleet import RunningFleet, load_fleet
from chronopype_mp.fleet.notifier import LONGEST_QUEUE, Notifier
from chronopype_mp.fleet.schema import NotifySettings
from tests.waiting import run

SECRET = "hunter2"
QUARANTINED = WorkerQuarantined(worker="a", restarts=3)


class Webhook:
    """An HTTP server on loopback.

    Attributes:
        url: its address, with a secret.
        requests: the head and the content of each request.
        answer: what it answers; None lets the client wait.
    """

    def __init__(self) -> None:
        self.url = ""
        self.requests: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self.answer: bytes | None = b"HTTP/1.1 204 No Content\r\n\r\n"

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Webhook]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/hook/{SECRET}?key={SECRET}"
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.lower().partition("content-length: ")[2].split()[0])
        content = json.loads(await reader.readexactly(length))
        self.requests.put_nowait((head, content))
        if self.answer is None:
            await reader.read()  # until the client gives up
        else:
            writer.write(self.answer)
        writer.close()


def test_a_webhook_gets_a_post_request_for_each() -> None:
    """A lost connection is noticed although nothing happens any more."""

    async def scenario() -> None:
        async with Webhook().serving() as hook:
            settings = NotifySettings(webhook=hook.url, disconnected_after=0.05)
            async with Notifier("f", settings) as notifier:
                lost = NetworkStatus.NOT_CONNECTED
                before = NetworkStatus.CONNECTED
                notifier.take(NetworkChanged(worker="b", incarnation=1, before=before, after=lost))
                head, content = await hook.requests.get()
                assert content["kind"] == "disconnected"
                notifier.take(QUARANTINED)
                head, content = await hook.requests.get()
        assert head.startswith(f"POST /hook/{SECRET}?key={SECRET} HTTP/1.1\r\nHost: 127.0.0.1:")
        assert content == {
            "fleet": "f",
            "kind": "quarantine",
            "worker": "a",
            "text": "worker 'a' is quarantined after 3 restarts",
            "suppressed": 0,
        }

    run(scenario())


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (None, "it took longer than 0.2 s and was given up"),
        (b"HTTP/1.1 500 Oops\r\n\r\n", "ValueError: the server answered b'HTTP/1.1 500'"),
        (b"garbage", "ValueError: the server answered b'garbage'"),
        (b"", "ValueError: the server answered b''"),
    ],
)
def test_a_webhook_that_fails_is_logged_without_its_url(
    answer: bytes | None, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The next one is sent all the same."""

    async def scenario() -> None:
        async with Webhook().serving() as hook:
            hook.answer = answer
            settings = NotifySettings(webhook=hook.url, timeout=0.2)
            async with Notifier("f", settings) as notifier:
                notifier.take(QUARANTINED)
                await hook.requests.get()
                notifier.take(QUARANTINED)
                await hook.requests.get()
        assert SECRET not in caplog.text
        assert caplog.messages[0] == f"fleet 'f': notify.webhook failed: {problem}"

    with caplog.at_level(logging.WARNING):
        run(scenario())


def test_nobody_at_the_webhook_is_logged_without_its_url(caplog: pytest.LogCaptureFixture) -> None:
    """A command gets the same notice nevertheless."""

    async def scenario() -> None:
        async with Webhook().serving() as hook:
            url = hook.url
        async with Notifier("f", NotifySettings(webhook=url)) as notifier:
            notifier.take(QUARANTINED)
        (message,) = caplog.messages
        assert message.startswith("fleet 'f': notify.webhook failed: ConnectionRefusedError")
        assert SECRET not in message

    with caplog.at_level(logging.WARNING):
        run(scenario())


def test_a_command_gets_each_on_its_standard_input(tmp_path: Path) -> None:
    """What was taken before the end is sent."""
    command = ("/bin/sh", "-c", f"cat >> {tmp_path}/notices; echo >> {tmp_path}/notices")

    async def scenario() -> None:
        async with Notifier("f", NotifySettings(command=command)) as notifier:
            notifier.take(QUARANTINED)
            notifier.take(QUARANTINED)

    run(scenario())
    lines = (tmp_path / "notices").read_text().splitlines()
    assert [json.loads(line)["worker"] for line in lines] == ["a", "a"]


def test_a_command_that_hangs_is_killed_with_its_children(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At its timeout."""
    os.mkfifo(tmp_path / "pids")
    command = ("/bin/sh", "-c", f"sleep 600 & echo $$ $! > {tmp_path}/pids; wait")

    async def scenario() -> None:
        async with Notifier("f", NotifySettings(command=command, timeout=0.5)) as notifier:
            notifier.take(QUARANTINED)
            pids = await asyncio.to_thread((tmp_path / "pids").read_text)
            processes = [psutil.Process(int(pid)) for pid in pids.split()]
        assert len(processes) == 2
        _, alive = psutil.wait_procs(processes, timeout=5.0)
        assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []

    with caplog.at_level(logging.WARNING):
        run(scenario())
    assert "notify.command failed: it took longer than 0.5 s and was given up" in caplog.text


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ((sys.executable, "-c", "exit(3)"), "ValueError: exit status 3"),
        (("/no/such/program",), "FileNotFoundError: No such file or directory"),
    ],
)
def test_a_command_that_fails_is_logged(
    command: tuple[str, ...], problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With the reason."""

    async def scenario() -> None:
        async with Notifier("f", NotifySettings(command=command)) as notifier:
            notifier.take(QUARANTINED)

    with caplog.at_level(logging.WARNING):
        run(scenario())
    assert caplog.messages == [f"fleet 'f': notify.command failed: {problem}"]


def test_the_queue_is_bounded_behind_a_webhook_that_hangs() -> None:
    """What did not fit is counted in the next one."""

    async def scenario() -> None:
        async with Webhook().serving() as hook:
            hook.answer = None
            settings = NotifySettings(webhook=hook.url, per_minute=1000, timeout=0.3)
            async with Notifier("f", settings) as notifier:
                notifier.take(QUARANTINED)
                await hook.requests.get()
                for _ in range(LONGEST_QUEUE + 7):
                    notifier.take(QUARANTINED)
                hook.answer = b"HTTP/1.1 200 OK\r\n\r\n"
                for _ in range(LONGEST_QUEUE):
                    _, content = await hook.requests.get()
                    assert content["suppressed"] == 0
                notifier.take(QUARANTINED)
                _, content = await hook.requests.get()
                assert content["suppressed"] == 7

    run(scenario())


def test_a_fleet_notifies_of_a_worker_that_cannot_start(tmp_path: Path) -> None:
    """From its file to the server."""

    async def scenario() -> None:
        async with Webhook().serving() as hook:
            (tmp_path / "fleet.toml").write_text(
                'name = "f"\nlauncher = "inline"\n[notify]\nwebhook = "${HOOK}"\n'
                '[[processor]]\nname = "a"\ntype = "tests.fleet.processors:FailsToStart"\n'
                "supervision = { budget = { max_restarts = 0 } }\n"
            )
            plan = load_fleet(tmp_path / "fleet.toml", {"HOOK": hook.url})
            assert SECRET not in repr(plan)
            stop = asyncio.Event()
            running = asyncio.create_task(RunningFleet(plan).run(stop))
            kinds = [(await hook.requests.get())[1]["kind"] for _ in range(2)]
            assert kinds == ["death", "quarantine"]
            stop.set()
            await running

    run(scenario())


@pytest.mark.parametrize(
    "url",
    [
        *(
            "ftp://host",
            "host",
            "http://",
            "http://host:x",
            "http://host/a b",
            "http://host/\r\nX: y",
        ),
        "http://host:0",
        "http://user:key@host",
    ],
)
def test_a_webhook_must_be_a_url(url: str) -> None:
    """It becomes the head of a request."""
    with pytest.raises(ConfigError, match="must be a URL"):
        NotifySettings(webhook=url)
