"""A running fleet and those who operate it, each in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chronopype_mp.console.client import FleetClient
from chronopype_mp.control.messages import WorkerRow
from chronopype_mp.exceptions import ControlError
from chronopype_mp.fleet.directory import known_fleets
from tests.system.scripts import Script, Scripts

IS_FULL = os.environ.get("CHRONOPYPE_MP_TEST_CONTROL") == "full"
WORKERS, CLIENTS, REQUESTS = (50, 20, 10_000) if IS_FULL else (8, 20, 1_000)

PAGE = (Path(__file__).parents[2] / "docs" / "control.md").read_text()
(PROGRAM,) = re.findall(r"^```python\n((?:.*\n)*?)```$", PAGE, re.M)

FEEDS = """
import logging
from chronopype_mp import NetworkProcessor, NetworkStatus, remote


class Feed(NetworkProcessor):
    @classmethod
    def logger(cls) -> logging.Logger:
        return logging.getLogger("feed")

    async def check_network(self) -> NetworkStatus:
        return NetworkStatus.CONNECTED

    @remote
    def double(self, number: int) -> int:
        return 2 * number
"""

FLEET = """
name = "main"
[clock]
tick_size = "100ms"
[supervision]
stop_grace = 10
[[processor]]
name = "net"
count = {count}
type = "feeds:Feed"
"""

HOSTILE = """
import contextlib, os, socket, sys, threading
import zmq

path, count = sys.argv[1], int(sys.argv[2])
context = zmq.Context()
clients = []
for _ in range(count):
    client = context.socket(zmq.DEALER)
    client.connect(f"ipc://{path}")
    clients.append(client)
print("connected", flush=True)
for number in range(100):
    for client in clients:
        with contextlib.suppress(zmq.Again):  # none of them ever reads
            client.send(os.urandom(200) if number % 2 else b"\\x84\\xa8protocol\\x01", zmq.DONTWAIT)
            client.send_multipart([b"a", b"b", b"c"], zmq.DONTWAIT)
for _ in range(20):
    with socket.socket(socket.AF_UNIX) as stranger, contextlib.suppress(OSError):
        stranger.connect(path)
        stranger.sendall(os.urandom(5000))
print("done", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def fleet(scripts: Scripts, tmp_path: Path) -> Script:
    return start(scripts, tmp_path, 3)


def start(scripts: Scripts, tmp_path: Path, count: int) -> Script:
    (tmp_path / "feeds.py").write_text(FEEDS)
    (tmp_path / "fleet.toml").write_text(FLEET.format(count=count))
    script = scripts.run([sys.executable, "-m", "chronopype_mp", "run", "fleet.toml"])
    for number in range(1, count + 1):
        script.wait_for(f"worker 'net-{number}': network CONNECTING → CONNECTED")
    return script


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command against the fleet."""
    line = [sys.executable, "-m", "chronopype_mp", *arguments]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    return done


def said(*arguments: str) -> Any:
    """Run a command that succeeds; return what it has printed as JSON."""
    done = command(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_commands_operate_a_fleet(fleet: Script) -> None:
    """Each from its own process, as an operator does."""
    assert [row["name"] for row in said("fleets")] == ["main"]
    pids = {row["worker"]: row["pid"] for row in said("status")["workers"]}
    assert said("is-ready", "--connected") == {"ready": True}
    assert said("stop", "net-1", "--wait")["workers"] == [{"worker": "net-1", "did": "stopping"}]
    assert command("is-ready").returncode == 1
    assert command("is-ready", "net-[23]").returncode == 0
    said("start", "--wait=connected", "net-1")
    said("restart", "--wait", "net-2")
    after = {row["worker"]: row["pid"] for row in said("status")["workers"]}
    assert [name for name in pids if pids[name] == after[name]] == ["net-3"]
    said("restart", "--all", "--rolling")
    said("reconnect", "--wait", "net-*")
    said("pause", "net-3")
    assert "net-3   paused" in command("status").stdout
    said("resume", "net-3")
    assert said("call", "net-1", "double", "number=21")["result"] == 42
    assert said("failures") == []
    os.kill(next(row["pid"] for row in said("status", "net-3")["workers"]), signal.SIGKILL)
    fleet.wait_for("worker 'net-3' is ready (incarnation 3")
    (dossier,) = said("failures", "net-3")
    assert dossier["signal"] == "SIGKILL"
    assert "SIGKILL" in command("failures").stdout
    lines = command("events").stdout.splitlines()
    assert any("net-3 WorkerDied" in line for line in lines)
    line = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines()[:3] == [f"net-{n} ready CONNECTED" for n in (1, 2, 3)], done
    assert "WorkerDied net-3" in done.stdout
    assert "not restarted" not in done.stdout
    assert command("shutdown", "--wait").stdout == "main: stopped\n"
    assert fleet.wait() == 0, fleet.output
    assert command("status").returncode == 3


def test_mistakes_have_their_exit_status_and_one_line(fleet: Script, tmp_path: Path) -> None:
    """2 for what is not there, 3 for the fleet, 4 for a timeout, 1 for the rest."""
    for arguments, status, message in (
        (("status", "nte-1"), 2, 'did you mean "net-1"'),
        (("call", "net-1", "duoble"), 2, "did you mean double"),
        (("stop",), 2, "Missing argument"),
        (("restart", "--rolling", "net-1"), 2, "--rolling needs --all"),
        (("status", "--fleet", "mian"), 3, 'did you mean "main"'),
        (("restart", "net-1", "--wait", "--timeout", "1ms"), 4, "not ready within 0.001 s"),
        (("run", str(tmp_path / "fleet.toml")), 1, f"already in process {fleet.process.pid}"),
    ):
        done = command(*arguments)
        assert (done.returncode, message in done.stderr) == (status, True), done
    done = command("status", "nte-1", "--json")
    assert json.loads(done.stdout)["kind"] == "unknown-worker"
    completed = subprocess.run(
        [sys.executable, "-m", "chronopype_mp"],
        env=os.environ
        | {
            "_CHRONOPYPE_MP_COMPLETE": "bash_complete",
            "COMP_WORDS": "chronopype-mp restart ne",
            "COMP_CWORD": "2",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert completed.stdout.split() == ["plain,net-1", "plain,net-2", "plain,net-3"]
    said("shutdown", "--wait")
    fleet.wait()


def test_the_files_of_a_fleet_are_its_commands_too(fleet: Script, tmp_path: Path) -> None:
    """What the log and the commands say is done, and nothing else."""
    file, more = tmp_path / "fleet.toml", tmp_path / "more.toml"
    pids = {row["worker"]: row["pid"] for row in said("status")["workers"]}
    file.write_text(file.read_text().replace("count = 3", "count = 4"))
    assert command("reload", "--dry-run").stdout == "net-4: would start\n"
    assert said("reload", "--wait")["start"] == ["net-4"]
    more.write_text('[[processor]]\nname = "solo"\ntype = "feeds:Feeed"\n')
    done = command("add", str(more))
    assert (done.returncode, 'did you mean "Feed"' in done.stderr) == (2, True), done
    more.write_text('[[processor]]\nname = "solo"\ntype = "feeds:Feed"\n')
    assert said("add", str(more), "--save", "--wait=connected")["start"] == ["solo"]
    assert command("reload").stdout == "nothing to change\n"
    assert command("remove", "net-*").stdout.count(": stop\n") == 4
    assert said("remove", "solo")["stop"] == ["solo"]
    done = command("reload", "--wait=connected")
    assert done.stdout.count(": start\n") == 5, done
    assert all(row["pid"] not in pids.values() for row in said("status")["workers"])
    assert said("remove", "solo", "--save")["stop"] == ["solo"]
    assert command("reload").stdout == "nothing to change\n"
    said("shutdown", "--wait")
    assert fleet.wait() == 0, fleet.output


def test_a_dead_coordinator_is_told_from_a_hung_one(fleet: Script) -> None:
    """Both by the client that is connected, and by the next one; a new run takes over."""
    os.kill(fleet.process.pid, signal.SIGSTOP)

    async def connect() -> None:
        async with FleetClient("main", answer_timeout=1.0):
            pass

    with pytest.raises(ControlError, match="has not answered within 1 s") as caught:
        asyncio.run(connect())
    assert caught.value.kind == "no-answer"
    os.kill(fleet.process.pid, signal.SIGKILL)
    fleet.process.wait()
    (known,) = known_fleets()
    assert (known.is_alive, known.pid) == (False, fleet.process.pid)
    with pytest.raises(ControlError, match="has died"):
        asyncio.run(connect())
    again = Path(fleet._directory)
    script = start(Scripts(again), again, 1)
    try:
        assert said("is-ready") == {"ready": True}
        said("shutdown", "--wait")
    finally:
        script.wait()


def test_clients_of_any_kind_cost_no_tick(scripts: Scripts, tmp_path: Path) -> None:
    """1,000 requests of 20 clients, beside 100 that send garbage and never read."""
    fleet = start(scripts, tmp_path, WORKERS)
    (known,) = known_fleets()
    hostile = [
        subprocess.Popen(
            [sys.executable, "-c", HOSTILE, str(known.socket), "25"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    try:
        for process in hostile:
            assert process.stdout is not None
            assert process.stdout.readline() == "connected\n"
        before, after = asyncio.run(under_load(hostile))
    finally:
        for process in hostile:
            process.communicate("")
    assert len(after) == WORKERS
    for name, row in after.items():
        assert row.run > before[name].run
        assert (row.missed - before[name].missed, row.lost) == (0, 0), row
    fleet.process.send_signal(signal.SIGTERM)
    assert fleet.wait() == 0


async def under_load(
    hostile: list[subprocess.Popen[str]],
) -> tuple[dict[str, WorkerRow], dict[str, WorkerRow]]:
    """Return the workers before and after the requests."""

    async def ask() -> None:
        async with FleetClient("main") as client:
            for _ in range(REQUESTS // CLIENTS):
                status = await client.status()
                assert len(status.workers) == WORKERS

    async with FleetClient("main") as client:
        before = {row.worker: row for row in (await client.status()).workers}
        await asyncio.gather(*(ask() for _ in range(CLIENTS)))
        for process in hostile:
            assert process.stdout is not None
            await asyncio.to_thread(process.stdout.readline)
        heard = {name: row.run for name, row in before.items()}
        async with asyncio.timeout(10):
            while True:  # a worker reports its ticks once a second
                after = {row.worker: row for row in (await client.status()).workers}
                if all(after[name].run > heard[name] for name in heard):
                    return before, after
                await asyncio.sleep(0.1)  # beats are no events
