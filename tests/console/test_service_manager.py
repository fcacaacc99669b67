"""Reports to the service manager, on real datagram sockets, and the examples of its files."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from chronopype_mp.console.cli import commands
from chronopype_mp.console.service_manager import ServiceManager
from chronopype_mp.timing import monotonic_ns
from tests.waiting import run

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """The service manager's socket, and its address as NOTIFY_SOCKET has it."""
    name = str(tmp_path / "s") if request.param == "path" else f"@chronopype-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name[1:] if name.startswith("@") else name)
        receiver.settimeout(10.0)
        yield name, receiver


def test_it_reports_each_state(manager: tuple[str, socket.socket]) -> None:
    """A reload before READY is none, and nothing is ready after STOPPING."""
    name, receiver = manager
    service = ServiceManager({"NOTIFY_SOCKET": name})
    before = monotonic_ns() // 1000
    service.reloading()
    service.reloaded()
    service.ready()
    service.reloading()
    service.reloaded()
    service.stopping()
    service.reloaded()
    service.stopping()
    receiver.setblocking(False)
    messages = []
    while True:
        try:
            messages.append(receiver.recv(1000).decode())
        except BlockingIOError:
            break
    ready, reloading, again, stopping = messages
    assert (ready, again, stopping) == ("READY=1", "READY=1", "STOPPING=1")
    assert (match := re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", reloading))
    assert before <= int(match[1]) <= monotonic_ns() // 1000


def test_the_event_loop_pings_the_watchdog(manager: tuple[str, socket.socket]) -> None:
    """At twice the rate that it wants."""
    name, receiver = manager

    async def scenario() -> None:
        variables = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": f"{pid}"}
        pings = asyncio.create_task(ServiceManager(variables).keep_alive())
        for _ in range(3):
            assert await asyncio.to_thread(receiver.recv, 1000) == b"WATCHDOG=1"
        pings.cancel()
        await asyncio.wait({pings})

    pid = os.getpid()
    run(scenario())


@pytest.mark.parametrize(
    "watchdog", [{}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}]
)
def test_without_a_watchdog_there_are_no_pings(watchdog: dict[str, str]) -> None:
    """One that is meant for another process is none; the variables are taken away."""
    variables = {"NOTIFY_SOCKET": "/nowhere", "HOME": "/", **watchdog}
    run(ServiceManager(variables).keep_alive())
    assert variables == {"HOME": "/"}


def test_a_manager_that_is_not_there_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The fleet goes on."""
    with caplog.at_level(logging.WARNING):
        ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "none")}).ready()
    (message,) = caplog.messages
    assert "does not get READY=1 at NOTIFY_SOCKET=" in message


def runs_a_command(words: list[str]) -> bool:
    """Whether words are a program of this package, one of its commands, and a file."""
    assert isinstance(commands, click.Group)
    return Path(words[0]).name == "chronopype-mp" and words[1] in commands.commands


def test_the_container_runs_a_command_that_exists() -> None:
    """And the compose file names the Dockerfile."""
    text = (EXAMPLES / "container" / "Dockerfile").read_text()
    words = [json.loads(part) for part in re.findall(r"^(?:ENTRYPOINT|CMD) (.*)$", text, re.M)]
    assert runs_a_command([word for part in words for word in part])
    compose = (EXAMPLES / "container" / "compose.yaml").read_text()
    (path,) = re.findall(r"dockerfile: (\S+)", compose)
    assert (EXAMPLES.parent / path).is_file()


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """With the path of a program that is installed here."""
    text = (EXAMPLES / "systemd" / "fleet.service").read_text()
    (command,) = re.findall(r"^ExecStart=(.*)$", text, re.M)
    words = command.split()
    assert runs_a_command(words)
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "fleet.service"
    unit.write_text(text.replace(words[0], sys.executable))
    checked = subprocess.run([verify, "verify", unit], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
