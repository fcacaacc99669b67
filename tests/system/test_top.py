"""`chronopype-mp top` with a real fleet: its keys, and what becomes of a fleet that ends."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("textual", reason="needs the extra top")

from textual.pilot import Pilot
from textual.widgets import Input, Static

from chronopype_mp.console.top import FleetTop
from chronopype_mp.console.top_rows import RowTable
from chronopype_mp.console.top_screens import Details
from tests.system.scripts import Script, Scripts

FEEDS = """
import logging
from chronopype_mp import NetworkProcessor, NetworkStatus


class Feed(NetworkProcessor):
    @classmethod
    def logger(cls) -> logging.Logger:
        return logging.getLogger("feed")

    async def check_network(self) -> NetworkStatus:
        return NetworkStatus.CONNECTED
"""

FLEET = """
name = "main"
[clock]
tick_size = "100ms"
[[processor]]
name = "net"
count = 3
type = "feeds:Feed"
"""

TOP = [sys.executable, "-m", "chronopype_mp", "top"]


@pytest.fixture
def fleet(scripts: Scripts, tmp_path: Path) -> Script:
    (tmp_path / "feeds.py").write_text(FEEDS)
    (tmp_path / "fleet.toml").write_text(FLEET)
    return start(scripts)


def start(scripts: Scripts) -> Script:
    script = scripts.run([sys.executable, "-m", "chronopype_mp", "run", "fleet.toml"])
    for number in (1, 2, 3):
        script.wait_for(f"worker 'net-{number}': network CONNECTING → CONNECTED")
    return script


def end(script: Script) -> None:
    script.process.send_signal(signal.SIGTERM)
    assert script.wait() == 0, script.output


class Screen:
    """What is on the screen of an app."""

    def __init__(self, app: FleetTop, pilot: Pilot[None]) -> None:
        self._app = app
        self._pilot = pilot

    async def until(self, is_so: Callable[[], bool], timeout: float = 20.0) -> None:
        """Wait for a condition."""
        try:
            async with asyncio.timeout(timeout):
                while not is_so():
                    await self._pilot.pause(0.05)  # looks at the screen: nothing to wait on
        except TimeoutError:
            raise AssertionError(f"{self.rows()}\n{self.problem}") from None

    async def press(self, *keys: str) -> None:
        await self._pilot.press(*keys)

    def rows(self) -> list[list[str]]:
        return self._app.screen_stack[0].query_one(RowTable).rows

    def row(self, worker: str) -> list[str]:
        """Return a worker's status, network and restarts; empty if it is not shown."""
        return next(([r[1], r[2], r[11]] for r in self.rows() if r[0] == worker), [])

    @property
    def workers(self) -> list[str]:
        return [row[0] for row in self.rows()]

    @property
    def problem(self) -> str:
        problem = self._app.screen_stack[0].query_one("#problem", Static)
        return str(problem.content) if problem.display else ""

    @property
    def details(self) -> str:
        shown = self._app.screen
        return str(shown.query_one("#details", Static).content) if _is_details(shown) else ""


def _is_details(screen: object) -> bool:
    return isinstance(screen, Details)


def test_keys_operate_the_selected_worker(fleet: Script) -> None:
    """Stop and restart ask first. The cursor stays on its worker when the order changes."""

    async def operate() -> None:
        app = FleetTop("main", interval=0.1)
        async with app.run_test(size=(200, 30), notifications=True) as pilot:
            screen = Screen(app, pilot)
            await screen.until(lambda: len(screen.workers) == 3)
            await screen.press("down", "greater_than_sign", "i")  # by name, from Z to A
            await screen.until(lambda: screen.workers == ["net-3", "net-2", "net-1"])
            await screen.press("p")
            await screen.until(lambda: screen.row("net-2")[0] == "paused")
            await screen.press("p")
            await screen.until(lambda: screen.row("net-2")[0] == "ready")
            await screen.press("r", "n", "r", "y")
            await screen.until(lambda: screen.row("net-2") == ["ready", "CONNECTED", "1"])
            await screen.press("s", "y")
            await screen.until(lambda: screen.row("net-2")[0] == "stopped")
            await screen.press("s")  # starts it again, without a question
            await screen.until(lambda: screen.row("net-2")[:2] == ["ready", "CONNECTED"])
            assert screen.row("net-1") == screen.row("net-3") == ["ready", "CONNECTED", "0"]
            assert app.return_code is None
            await screen.press("slash", *"net-3")
            await screen.until(lambda: screen.workers == ["net-3"])
            await screen.press("enter")
            await screen.until(lambda: not isinstance(app.focused, Input))
            await screen.press("escape")
            await screen.until(lambda: len(screen.workers) == 3)

    asyncio.run(operate())
    end(fleet)


def test_the_details_show_the_dossiers_of_a_worker(fleet: Script) -> None:
    """How it ended, and what it had to say."""

    async def look() -> None:
        app = FleetTop("main", interval=0.1)
        async with app.run_test(size=(120, 30)) as pilot:
            screen = Screen(app, pilot)
            await screen.until(lambda: len(screen.workers) == 3)
            status = app.fleet_status
            assert status is not None
            pid = status.workers[0].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await screen.until(lambda: screen.row("net-1") == ["ready", "CONNECTED", "1"])
            await screen.press("enter")
            await screen.until(lambda: "SIGKILL" in screen.details)
            assert f"(incarnation 1, pid {pid}) died" in screen.details
            await screen.press("escape")
            await screen.until(lambda: not screen.details)

    asyncio.run(look())
    end(fleet)


def test_a_fleet_that_hangs_dies_or_ends_is_shown_so_until_it_is_back(
    fleet: Script, scripts: Scripts
) -> None:
    """With the last that was known of it; the keys do nothing meanwhile."""

    async def watch() -> None:
        app = FleetTop("main", interval=0.1)
        async with app.run_test(size=(120, 30), notifications=True) as pilot:
            screen = Screen(app, pilot)
            await screen.until(lambda: len(screen.workers) == 3)
            fleet.process.send_signal(signal.SIGSTOP)
            await screen.until(lambda: "has not answered within 3 s" in screen.problem)
            assert len(screen.workers) == 3
            await screen.press("p")
            fleet.process.send_signal(signal.SIGCONT)
            await screen.until(lambda: not screen.problem)
            assert screen.row("net-1")[0] == "ready"
            fleet.process.kill()
            fleet.process.wait()
            await screen.until(lambda: "has died" in screen.problem)
            again = await asyncio.to_thread(start, scripts)
            await screen.until(lambda: not screen.problem)
            assert app.fleet_status is not None
            assert app.fleet_status.pid == again.process.pid
            await asyncio.to_thread(end, again)
            await screen.until(lambda: "does not run" in screen.problem)

    asyncio.run(watch())


def test_top_runs_in_a_terminal_and_says_so_elsewhere(fleet: Script) -> None:
    """It draws the workers, and q leaves the terminal as it was."""
    done = subprocess.run(
        TOP, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (
        2,
        "Error: top needs a terminal; use --json, or the command status\n",
    )
    with subprocess.Popen([*TOP, "--json"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(2):
            assert len(json.loads(process.stdout.readline())["workers"]) == 3
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "30"}
    with subprocess.Popen(TOP, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as top:
        os.close(theirs)
        drawn = b""
        while b"net-3" not in drawn:
            drawn += os.read(ours, 4096)
        os.write(ours, b"q")
        while True:
            try:
                drawn += os.read(ours, 4096)
            except OSError:  # the other end was closed
                break
        assert top.wait(30) == 0
    os.close(ours)
    assert b"\x1b[?1049l" in drawn  # back to the normal screen
    end(fleet)
