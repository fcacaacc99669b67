"""The coordinator's end, whichever way it comes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.system.scripts import TOKEN, Scripts, processes_of, wait_until

PROGRAM = """
import asyncio, logging, os, sys, time
from pathlib import Path
from chronopype_mp import ClockConfig, ClockMode, NetworkProcessor, NetworkStatus, TickProcessor
from chronopype_mp.clocks import RealtimeClock

class Link(NetworkProcessor):
    up = False

    @classmethod
    def logger(cls):
        return logging.getLogger("link")

    async def check_network(self):
        return NetworkStatus.CONNECTED if self.up else NetworkStatus.NOT_CONNECTED

    async def start_network(self):
        self.up = True

    async def stop_network(self):
        with open(f"stop-{os.getpid()}", "a") as file:
            file.write("begun ")
        await asyncio.sleep(0.3)
        with open(f"stop-{os.getpid()}", "a") as file:
            file.write("ended")

class Blocked(TickProcessor):
    def tick(self, timestamp):
        print("blocked", flush=True)
        time.sleep(1000)

async def main():
    config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.1)
    async with RealtimeClock(config, launcher=sys.argv[1]) as clock:
        links = [Link() for _ in range(3)]
        for link in links:
            clock.add_processor(link)
        if sys.argv[2] == "blocked":
            clock.add_processor(Blocked())
        clock.events.subscribe(
            lambda event: all(link.network_status is NetworkStatus.CONNECTED for link in links)
            and print("all connected", flush=True)
        )
        await clock.run()
"""

BARE = PROGRAM + "\nasyncio.run(main())\n"

POLITE = (
    PROGRAM
    + """
try:
    asyncio.run(main())
except KeyboardInterrupt:
    sys.exit(130)
"""
)


def stops_in(directory: Path) -> list[str]:
    return [path.read_text() for path in directory.glob("stop-*")]


@pytest.mark.parametrize("launcher", ["forkserver", "spawn"])
def test_when_the_coordinator_is_killed_no_process_is_left_and_healthy_workers_stop_in_order(
    scripts: Scripts, tmp_path: Path, launcher: str
) -> None:
    script = scripts.start(BARE, launcher, "blocked")
    script.wait_for("all connected")
    script.wait_for("blocked")
    token = os.environ[TOKEN]
    assert len(processes_of(token)) >= 5
    os.kill(script.process.pid, signal.SIGKILL)
    script.wait()
    wait_until(lambda: not processes_of(token), 5.0, lambda: f"left: {processes_of(token)}")
    assert stops_in(tmp_path) == ["begun ended"] * 3


@pytest.mark.parametrize("launcher", ["forkserver", "spawn"])
def test_ctrl_c_stops_in_order_and_without_a_traceback(
    scripts: Scripts, tmp_path: Path, launcher: str
) -> None:
    script = scripts.start(POLITE, launcher, "healthy")
    script.wait_for("all connected")
    script.signal_group(signal.SIGINT)
    assert script.wait() == 130
    assert "Traceback" not in script.output
    assert "Error" not in script.output
    assert stops_in(tmp_path) == ["begun ended"] * 3


def test_a_second_ctrl_c_ends_at_once(scripts: Scripts) -> None:
    slow = POLITE.replace("asyncio.sleep(0.3)", "asyncio.sleep(4)")
    script = scripts.start(slow, "forkserver", "healthy")
    script.wait_for("all connected")
    workers = [
        child
        for child in psutil.Process(script.process.pid).children(recursive=True)
        if child.ppid() != script.process.pid
    ]
    script.signal_group(signal.SIGINT)
    wait_until(lambda: bool(stops_in(scripts.directory)), 10.0)
    script.signal_group(signal.SIGINT)
    assert script.wait(2.0) == 130
    assert not psutil.wait_procs(workers, timeout=2.0)[1]
    assert "ended" not in "".join(stops_in(scripts.directory))
