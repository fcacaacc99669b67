"""What starts the owner's program in practice: cron, a container, gunicorn, PyInstaller."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.system.scripts import TOKEN, Scripts, wait_until
from tests.system.surroundings import LINKS, PROGRAM

BOTH = pytest.mark.parametrize("launcher", ["forkserver", "spawn"])

FREEZING = 400
"""Seconds that PyInstaller may take on a busy machine."""

NOT_NEEDED = ("numpy", "setuptools", "tkinter", "tornado")
"""What PyInstaller would include because some dependency can use it; leaving it out saves time."""

KEPT = ("TMPDIR", TOKEN)
"""Environment variables of the test itself."""


@BOTH
@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP"])
def test_a_clock_works_with_what_cron_provides(
    scripts: Scripts, tmp_path: Path, launcher: str, number: str
) -> None:
    """No terminal, no locale, a home directory and five variables."""
    path = tmp_path / "job.py"
    path.write_text(LINKS)
    variables = ["HOME=.", "LOGNAME=root", "SHELL=/bin/sh", "PATH=/usr/bin:/bin"]
    variables += [f"{name}={os.environ[name]}" for name in KEPT]
    command = ["env", "-i", *variables, sys.executable, str(path), launcher, number, "group"]
    assert scripts.run(command).report() == {"deaths": 0}
    assert len((tmp_path / "stopped").read_text()) == 2


@BOTH
@pytest.mark.parametrize("reach", ["unit", "owner"])
def test_a_signal_that_stops_a_container_is_the_owners(
    scripts: Scripts, tmp_path: Path, launcher: str, reach: str
) -> None:
    """The owner is process 1 of a namespace."""
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("PID namespaces are not allowed here")
    path = tmp_path / "service.py"
    path.write_text(LINKS)
    script = scripts.run([*unshare, sys.executable, str(path), launcher, "SIGTERM", reach])
    assert script.report() == {"deaths": 0}
    assert len((tmp_path / "stopped").read_text()) == 2


SITE = (
    PROGRAM
    + """
sys.argv[1:] = [os.environ["LAUNCHER"]]

async def use_once():
    async with make_clock() as clock:
        await clock.add_processor(TickProcessor()).wait_ready()

class Clock(threading.Thread):
    def __init__(self):
        super().__init__()
        self.ready = threading.Event()

    def run(self):
        asyncio.run(self.main())

    async def main(self):
        self.loop, self.asked = asyncio.get_running_loop(), asyncio.Event()
        async with make_clock() as clock:
            events = EventRecorder(clock.events)
            handle = clock.add_processor(Link(), name="w")
            await handle.wait_ready()
            await restarted(events, handle, lambda: os.kill(handle.pid, signal.SIGKILL))
            run = asyncio.create_task(clock.run())
            self.answer = {"owner": os.getpid(), "restarts": handle.restarts}
            self.ready.set()
            await self.asked.wait()
            await clock.shutdown()
            await run

    def end(self):
        self.loop.call_soon_threadsafe(self.asked.set)
        self.join()

def application(environ, start_response):
    clock.ready.wait()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(clock.answer).encode()]
"""
)

GUNICORN = """
import asyncio
import site_with_clock

bind = "unix:socket"
workers = 2
preload_app = True

def when_ready(server):
    asyncio.run(site_with_clock.use_once())

def post_worker_init(worker):
    site_with_clock.clock = site_with_clock.Clock()
    site_with_clock.clock.start()

def worker_exit(server, worker):
    site_with_clock.clock.end()
"""


@BOTH
@pytest.mark.parametrize("reach", ["arbiter", "group"])
def test_a_clock_works_in_each_worker_of_gunicorn(
    scripts: Scripts, tmp_path: Path, launcher: str, reach: str
) -> None:
    """Another clock was used before the fork."""
    pytest.importorskip("gunicorn", reason="gunicorn is not installed")
    (tmp_path / "site_with_clock.py").write_text(SITE)
    (tmp_path / "gunicorn.conf.py").write_text(GUNICORN)
    command = [sys.executable, "-m", "gunicorn", "site_with_clock:application"]
    script = scripts.run(command, LAUNCHER=launcher)
    answers: dict[int, int] = {}

    def both_have_answered() -> bool:
        assert script.process.poll() is None, script.output
        if (answer := _answer(tmp_path / "socket")) is not None:
            answers[answer["owner"]] = answer["restarts"]
        return len(answers) == 2

    wait_until(both_have_answered, 60.0, lambda: script.output)
    assert list(answers.values()) == [1, 1]
    if reach == "group":
        script.signal_group(signal.SIGTERM)
    else:
        script.process.terminate()
    assert script.wait() == 0, script.output
    assert len((tmp_path / "stopped").read_text()) == 2


def _answer(path: Path) -> dict[str, Any] | None:
    """Return what the site answers, or None if it does not listen yet."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30.0)
        try:
            connection.connect(os.path.relpath(path))  # its path may be too long
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with connection.makefile("rb") as file:
            answer: dict[str, Any] = json.loads(file.read().partition(b"\r\n\r\n")[2])
            return answer


FROZEN = (
    """
import chronopype_mp
chronopype_mp.freeze_support()
"""
    + PROGRAM
    + """
async def main():
    async with make_clock() as clock:
        events = EventRecorder(clock.events)
        handle = clock.add_processor(Link(), name="w")
        await handle.wait_ready()
        for _ in range(2):
            await restarted(events, handle, lambda: os.kill(handle.pid, signal.SIGKILL))
        parent = psutil.Process(handle.pid).parent().pid
        report(frozen=sys.frozen, is_child=parent == os.getpid(), died=len(events.of(WorkerDied)))
        if sys.argv[2] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
)


@pytest.mark.timeout(FREEZING + 200)
def test_a_program_that_pyinstaller_has_frozen_works(scripts: Scripts, tmp_path: Path) -> None:
    pytest.importorskip("PyInstaller", reason="PyInstaller is not installed")
    (tmp_path / "program.py").write_text(FROZEN)
    freeze = scripts.run(
        [
            *(sys.executable, "-m", "PyInstaller", "--log-level=WARN", "program.py"),
            *(f"--exclude-module={name}" for name in NOT_NEEDED),
        ],
        PYINSTALLER_CONFIG_DIR=str(tmp_path / "cache"),
    )
    assert freeze.wait(FREEZING) == 0, freeze.output
    for launcher in ("forkserver", "spawn"):
        for end, status in (("left", 0), ("killed", -signal.SIGKILL)):
            script = scripts.run([str(tmp_path / "dist" / "program" / "program"), launcher, end])
            assert script.wait() == status, script.output
            assert script.reported() == {
                "frozen": True,
                "is_child": launcher == "spawn",
                "died": 2,
            }
            wait_until((tmp_path / "stopped").exists, 10.0)
            (tmp_path / "stopped").unlink()
