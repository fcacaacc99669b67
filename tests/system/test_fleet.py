"""``chronopype-mp run``: real workers from a file, in a process of their own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest

from chronopype_mp import WorkerHandle
from chronopype_mp.fleet import Changes, FleetPlan, RunningFleet, load_fleet
from tests.system.scripts import Script, Scripts, wait_until

FEEDS = """
import asyncio, logging, os
from pathlib import Path

import heavy
from chronopype_mp import NetworkProcessor, NetworkStatus

NOTES = Path(__file__).with_name("notes")


class Feed(NetworkProcessor):
    def __init__(self, url: str, key: str = "") -> None:
        super().__init__()
        self.url, self.key = url, key

    @classmethod
    def logger(cls) -> logging.Logger:
        return logging.getLogger("feed")

    def note(self, what: str) -> None:
        variables = os.environ["KIND"], os.environ["PLACE"]
        inherited = heavy.IMPORTED_IN == os.getppid()
        with NOTES.open("a") as notes:
            print(what, self.url, self.key, *variables, inherited, file=notes)

    async def start_network(self) -> None:
        self.note("start")

    async def check_network(self) -> NetworkStatus:
        return NetworkStatus.CONNECTED

    async def stop_network(self) -> None:
        self.note("stop")


class Stubborn(Feed):
    async def stop_network(self) -> None:
        await asyncio.sleep(60)  # the fault under test


class Failing(Feed):
    def tick(self, timestamp: float) -> None:
        raise RuntimeError("no tick today")
"""

FLEET = """
name = "five"
preload = ["heavy"]
stagger = "10ms"

[clock]
tick_size = "100ms"

[[processor]]
name = "last"
type = "feeds:Feed"
options = { url = "last" }
depends_on = [{ name = "late", until = "connected" }]
env = { KIND = "c" }
env_file = "place.env"

[[processor]]
name = "net"
count = 3
type = "feeds:Feed"
options = { url = "net-{item}", key = "${file:key}" }
env = { KIND = "a", PLACE = "here-{item}" }

[[processor]]
name = "late"
type = "feeds:Feed"
options = { url = "late" }
depends_on = [{ name = "net", until = "connected" }]
env = { KIND = "b" }
env_file = "place.env"
"""


def start(scripts: Scripts, tmp_path: Path, fleet: str, *options: str, **env: str) -> Script:
    """Run a fleet from another directory than that of its file."""
    directory = tmp_path / "fleet"
    directory.mkdir(exist_ok=True)
    (directory / "feeds.py").write_text(FEEDS)
    (directory / "heavy.py").write_text("import os\n\nIMPORTED_IN = os.getpid()\n")
    (directory / "place.env").write_text("PLACE=there\n")
    (directory / "key").write_text("hunter2\n")
    (directory / "fleet.toml").write_text(fleet)
    command = [sys.executable, "-m", "chronopype_mp", "run", *options, "fleet/fleet.toml"]
    return scripts.run(command, **env)


def test_a_fleet_starts_in_order_and_stops_gracefully(scripts: Scripts, tmp_path: Path) -> None:
    """Five workers, each after those it depends on, with its own environment; one SIGTERM."""
    script = start(scripts, tmp_path, FLEET, "--json")
    script.wait_for("worker 'last': network CONNECTING → CONNECTED")
    script.process.send_signal(signal.SIGTERM)
    assert script.wait() == 0, script.output
    notes = (tmp_path / "fleet" / "notes").read_text().splitlines()
    starts = [f"start net-{item} hunter2 a here-{item} True" for item in (1, 2, 3)]
    later = ["start late  b there True", "start last  c there True"]
    assert sorted(notes[:3]) == starts
    assert notes[3:5] == later
    assert sorted(notes[5:]) == sorted(
        line.replace("start", "stop", 1) for line in (*starts, *later)
    )
    events = [json.loads(line) for line in script.output.splitlines() if line.startswith("{")]
    assert {event["worker"] for event in events if event["event"] == "WorkerStopped"} == {
        *("net-1", "net-2", "net-3"),
        *("late", "last"),
    }
    assert not [event for event in events if event["event"] == "WorkerDied"]
    assert "hunter2" not in script.output
    assert "Traceback" not in script.output


def test_a_second_signal_kills_the_workers_that_have_not_stopped(
    scripts: Scripts, tmp_path: Path
) -> None:
    """Ctrl-C twice; the exit status is that of SIGINT."""
    stubborn = FLEET.replace("feeds:Feed", "feeds:Stubborn")
    stubborn += "[supervision]\nstop_grace = 50\nstop_network_timeout = 50\n"
    script = start(scripts, tmp_path, stubborn)
    script.wait_for("worker 'last': network CONNECTING → CONNECTED")
    os.kill(script.process.pid, signal.SIGINT)
    script.wait_for("SIGINT: stopping gracefully; a second signal kills")
    os.kill(script.process.pid, signal.SIGINT)
    assert script.wait(20.0) == 130, script.output
    assert "Traceback" not in script.output


def test_a_fleet_that_cannot_go_on_exits_with_1(scripts: Scripts, tmp_path: Path) -> None:
    """With ``on_error = "raise"`` the first failure ends it, and the others stop gracefully."""
    failing = FLEET.replace('tick_size = "100ms"', 'tick_size = "100ms"\non_error = "raise"')
    failing += '[[processor]]\nname = "failing"\ntype = "feeds:Failing"\n'
    failing += 'options = { url = "f" }\nenv = { KIND = "d", PLACE = "x" }\n'
    failing += 'depends_on = [{ name = "last" }]\n'
    script = start(scripts, tmp_path, failing)
    assert script.wait() == 1, script.output
    assert "fleet 'five': cannot go on: " in script.output
    assert "RuntimeError: no tick today" in script.output
    notes = (tmp_path / "fleet" / "notes").read_text().splitlines()
    assert sum(line.startswith("stop") for line in notes) == 6


def test_a_hangup_reloads_the_file(scripts: Scripts, tmp_path: Path) -> None:
    """One with a mistake, or with another clock, changes nothing; the log says why."""
    script = start(scripts, tmp_path, FLEET, "--json")
    script.wait_for("worker 'last': network CONNECTING → CONNECTED")
    file = tmp_path / "fleet" / "fleet.toml"

    file.write_text(FLEET.replace('type = "feeds:Feed"', 'type = "no.such:Feed"', 1))
    script.process.send_signal(signal.SIGHUP)
    script.wait_for("nothing was changed:\nfleet/fleet.toml:11: processor[last].type")
    file.write_text(FLEET.replace('tick_size = "100ms"', 'tick_size = "200ms"'))
    script.process.send_signal(signal.SIGHUP)
    script.wait_for("five: clock: cannot change while the fleet runs; stop it and run it anew")
    file.write_text(FLEET.replace('url = "late"', 'url = "later"'))
    script.process.send_signal(signal.SIGHUP)
    script.wait_for("fleet 'five': to do: restart late")
    script.wait_for("fleet 'five': changed")
    again = "worker 'late': network CONNECTING → CONNECTED"
    wait_until(lambda: script.output.count(again) == 2, 30.0, lambda: script.output)

    script.process.send_signal(signal.SIGTERM)
    assert script.wait() == 0, script.output
    events = [json.loads(line) for line in script.output.splitlines() if line.startswith("{")]
    starts = [event["worker"] for event in events if event["event"] == "WorkerStarting"]
    assert sorted(starts) == ["last", "late", "late", "net-1", "net-2", "net-3"]
    notes = (tmp_path / "fleet" / "notes").read_text()
    assert notes.count("stop late ") == notes.count("stop later ") == 1
    assert "Traceback" not in script.output


def test_systemd_is_told_of_each_state(scripts: Scripts, tmp_path: Path) -> None:
    """Workers do not inherit its socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30.0)

        def told() -> str:
            while (message := manager.recv(1000).decode()) == "WATCHDOG=1":
                pings.append(message)
            return message.partition("\n")[0]

        pings: list[str] = []
        variables = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"}
        script = start(scripts, tmp_path, FLEET, **variables)
        assert told() == "READY=1"
        assert pings
        workers = psutil.Process(script.process.pid).children(recursive=True)
        assert len(workers) >= 5
        for worker in workers:
            assert not variables.keys() & worker.environ().keys()
        script.process.send_signal(signal.SIGHUP)
        assert [told(), told()] == ["RELOADING=1", "READY=1"]
        script.process.send_signal(signal.SIGTERM)
        assert told() == "STOPPING=1"
        assert script.wait() == 0, script.output


WORKERS = int(os.environ.get("CHRONOPYPE_MP_TEST_RELOAD", "12"))


async def have_run(handles: list[WorkerHandle], ticks: int) -> None:
    """Wait until workers have reported that they ran so many ticks."""
    async with asyncio.timeout(30.0):
        for handle in handles:
            while handle.statistics().run < ticks:  # noqa: ASYNC110 – no event tells of a beat
                await asyncio.sleep(0.02)  # until the next look


@pytest.mark.quiet
def test_a_reload_of_many_workers_touches_those_that_changed(tmp_path: Path) -> None:
    """Only these get other processes, and the others miss no tick meanwhile."""

    def plan(changed: int) -> FleetPlan:
        urls = [f"new-{n}" if n < changed else f"{n}" for n in range(WORKERS)]
        entries = [
            f'[[processor]]\nname = "w{n}"\ntype = "tests.fleet.processors:Feed"\n'
            f'options = {{ url = "{url}" }}\n'
            for n, url in enumerate(urls)
        ]
        file = tmp_path / "fleet.toml"
        file.write_text('[clock]\ntick_size = "100ms"\n' + "".join(entries))
        return load_fleet(file, {})

    async def scenario() -> None:
        stop, fleet = asyncio.Event(), RunningFleet(plan(0))
        running = asyncio.create_task(fleet.run(stop))
        await fleet.wait_settled()
        before = {handle.name: handle for handle in fleet.clock.workers}
        pids = {name: handle.pid for name, handle in before.items()}
        others = [handle for name, handle in before.items() if name not in ("w0", "w1", "w2")]
        await have_run(others, 1)
        counted = {handle.name: handle.statistics() for handle in others}
        changes = await fleet.reload(plan(3))
        assert changes == Changes(restart=("w0", "w1", "w2"))
        after = {handle.name: handle for handle in fleet.clock.workers}
        for name in changes.restart:
            await after[name].wait_ready()
            assert after[name].pid != pids[name]
        await have_run(others, max(figures.published for figures in counted.values()) + 10)
        for handle in others:
            assert after[handle.name] is handle
            assert handle.pid == pids[handle.name]
            figures = handle.statistics()
            assert (figures.missed, figures.lost, figures.restarts) == (
                counted[handle.name].missed,
                0,
                0,
            )
        stop.set()
        async with asyncio.timeout(60.0):
            await running

    asyncio.run(scenario())
